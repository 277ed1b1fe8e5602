package site

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
)

// Site is what a page is served from. It is safe for use by several goroutines.
type Site struct {
	name  string
	top   fs.FS    // with html/ and config/
	pages fs.FS    // what is served; links are followed inside it only
	root  *os.Root // the folder on disk; nil for a bundle
	still bool     // the files can't change: read each once
}

// Open opens the site in folder dir: what it serves is dir/html, or dir itself
// where there is no html. Close it when nothing is served any more.
func Open(dir string) (*Site, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open site: %w", err)
	}
	top, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("open site: %w", err)
	}
	s := &Site{name: filepath.Base(abs), top: top.FS(), root: top}
	served := top
	if info, err := os.Stat(filepath.Join(abs, "html")); err == nil && info.IsDir() {
		// Opened by its path: html may itself be a link to where a build puts its output.
		if served, err = os.OpenRoot(filepath.Join(abs, "html")); err != nil {
			top.Close()
			return nil, fmt.Errorf("open site: %w", err)
		}
	}
	s.pages = folder{served}
	return s, nil
}

// FromFS takes the files of a bundle, which must not change: html/ in it, or
// all of it where there is no html.
func FromFS(name string, files fs.FS) (*Site, error) {
	s := &Site{name: name, top: files, pages: files, still: true}
	if info, err := fs.Stat(files, "html"); err == nil && info.IsDir() {
		sub, err := fs.Sub(files, "html")
		if err != nil {
			return nil, fmt.Errorf("open site %s: %w", name, err)
		}
		s.pages = sub
	}
	return s, nil
}

// Name is the folder's or bundle's own name, for people and for the name of
// the data folder.
func (s *Site) Name() string { return s.name }

// FS gives the whole site, with config/ beside html/. It is for the node, never
// for a page.
func (s *Site) FS() fs.FS { return s.top }

// Handler serves the site with these headers and rules.
func (s *Site) Handler(head HTTP, files Files) (http.Handler, error) {
	if err := head.Validate(); err != nil {
		return nil, err
	}
	if err := files.Validate(); err != nil {
		return nil, err
	}
	return &handler{head: head, files: files, store: newStore(s.pages, s.still)}, nil
}

// Close gives the folder back. Requests that still run fail with 404.
func (s *Site) Close() error {
	if s.root == nil {
		return nil
	}
	if f, ok := s.pages.(folder); ok && f.root != s.root {
		f.root.Close()
	}
	return s.root.Close()
}
