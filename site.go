package parley

import (
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/site"
)

// Site is what a node serves pages from.
type Site = site.Site

// OpenSite opens a site's folder for Config.Site: dir/html is what it serves, or
// dir itself where there is no html. The caller closes it when no node serves
// it any more.
func OpenSite(dir string) (*Site, error) { return site.Open(dir) }

// Demo is the site inside this program.
func Demo() (*Site, error) {
	return nil, identity.Errorf(identity.CodeUnsupported, "this build has no demo; name a folder")
}
