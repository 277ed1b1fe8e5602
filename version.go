package parley

import (
	"runtime/debug"
	"strings"
)

// release is the version of this source; a build from a tag has the tag's.
const release = "0.1.0-dev"

// Version is the program's version: the module's where it was built from a
// tagged one, otherwise the source's, with the commit where the build has it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	if v := info.Main.Version; info.Main.Path == "github.com/parley-p2p/parley" && strings.HasPrefix(v, "v") && strings.Count(v, "-") == 0 {
		return strings.TrimPrefix(v, "v")
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 8 {
			return release + "+" + s.Value[:8]
		}
	}
	return release
}
