// Package client holds the page's side of parley, ready to be served: what every
// gateway answers at /parley.js and /parley.d.ts. Its source is TypeScript in
// src/, built into dist/ by "make gen"; PROTOCOL.md says what it speaks.
package client

import (
	"embed"
	"io/fs"
)

//go:embed dist/parley.js dist/parley.d.ts
var dist embed.FS

// Files gives parley.js and parley.d.ts.
func Files() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil { // only for a path that is not valid, and this one is
		return dist
	}
	return files
}
