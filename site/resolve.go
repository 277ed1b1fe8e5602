package site

import (
	"io/fs"
	"os"
	"path"
	"strings"
)

// topHidden are folders and files that belong to the node, at the top of what
// is served.
var topHidden = map[string]bool{
	"config": true, "storage": true, "ipfs": true, "keys": true,
	"parley.toml": true, "p2p-webapp.toml": true,
}

// keyEnds are the endings of files that hold keys.
var keyEnds = []string{".key", ".pem", ".p12", ".pfx", ".jks"}

// hidden reports whether a path inside the site must not be served
// (gateway.md §8, G-S6). name has slashes and no leading one. It compares as
// file systems do that ignore case and trailing dots.
func hidden(name string) bool {
	if name == "." || name == "" {
		return false
	}
	for i, seg := range strings.Split(name, "/") {
		if seg == "" || seg[0] == '.' || strings.ContainsAny(seg, "\\:\x00") {
			return true
		}
		low := strings.ToLower(strings.TrimRight(seg, ". "))
		if i == 0 && topHidden[low] {
			return true
		}
		for _, end := range keyEnds {
			if strings.HasSuffix(low, end) {
				return true
			}
		}
	}
	return false
}

// folder is a folder on disk as fs.FS in which a link can't lead to what is
// hidden or outside.
type folder struct{ root *os.Root }

// maxLinks is how many links one path may go through.
const maxLinks = 16

// Open opens a regular file or a folder; anything else does not exist.
func (f folder) Open(name string) (fs.File, error) {
	real, ok := f.resolve(name)
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f.root.Open(real)
}

// resolve follows the links of name by hand, so that each step is seen.
func (f folder) resolve(name string) (real string, ok bool) {
	if !fs.ValidPath(name) {
		return "", false
	}
	links := 0
	done, rest := ".", name
	for rest != "" && rest != "." {
		seg, tail, _ := strings.Cut(rest, "/")
		next := path.Join(done, seg)
		if hidden(next) {
			return "", false
		}
		info, err := f.root.Lstat(next)
		if err != nil {
			return "", false
		}
		switch mode := info.Mode(); {
		case mode&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", false
			}
			target, err := f.root.Readlink(next)
			if err != nil || path.IsAbs(target) {
				return "", false
			}
			rest = path.Join(done, target, tail)
			if rest == ".." || strings.HasPrefix(rest, "../") {
				return "", false
			}
			done = "." // once more from the top: what the link leads through is checked too
		case mode.IsDir() || mode.IsRegular() && tail == "":
			done, rest = next, tail
		default: // a pipe or device must not be opened: that may wait for ever
			return "", false
		}
	}
	return done, true
}
