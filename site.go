package parley

import (
	"github.com/parley-p2p/parley/site"
	"github.com/parley-p2p/parley/web"
)

// Site is what a node serves pages from.
type Site = site.Site

// OpenSite opens a site's folder for Config.Site: dir/html is what it serves, or
// dir itself where there is no html. The caller closes it when no node serves
// it any more.
func OpenSite(dir string) (*Site, error) { return site.Open(dir) }

// Demo is the site inside this program.
func Demo() (*Site, error) { return site.FromFS("demo", web.Demo()) }
