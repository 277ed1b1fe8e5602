// Package web holds the pages that come with parley. The demo is a chat room in
// one readable file of TypeScript, demo/main.ts, compiled into demo/main.js by
// "make gen".
package web

import (
	"embed"
	"io/fs"
)

//go:embed demo/index.html demo/style.css demo/icon.svg demo/main.js
var files embed.FS

// Demo gives the demo's site: index.html and what it needs.
func Demo() fs.FS {
	demo, err := fs.Sub(files, "demo")
	if err != nil { // only for a path that is not valid, and this one is
		return files
	}
	return demo
}
