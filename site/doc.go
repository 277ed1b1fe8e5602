// Package site serves a page: from a folder, or from a bundle (an fs.FS such as
// the embedded demo).
//
//	GET /            html/index.html
//	GET /app.js      html/app.js, with ETag, ranges, gzip when it pays
//	GET /room/42     no such file, no extension: html/index.html, URL kept
//	GET /missing.js  404
//	GET /.git/HEAD   404, and so are config/, storage/, ipfs/ and keys
//
// Source: docs/spec/gateway.md section 8. Paths that belong to the node itself
// (/ws, /_parley/, /parley.js, /health, /ready) never come here: the root
// package routes them first.
package site
