package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/identity"
)

const module = "github.com/parley-p2p/parley"

// room is one row of the import table: a folder and everything below it.
type room struct {
	folder string
	may    []string // the rooms it may import
}

var (
	words = []string{"identity", "network", "wire", "flow", "store"}
	none  = []string{}
)

// inTests are imports that only tests make: what one part finds, another has to
// use.
var inTests = map[string][]string{
	"discover": {"host"}, // addresses that are found are dialled by a real host
}

// rooms is the table of docs/DESIGN.md. The root imports all, so it isn't here.
var rooms = []room{
	{"identity", none},
	{"network", []string{"identity"}},
	{"wire", none},
	{"flow", none},
	{"store", none},

	{"host", words},
	{"discover", words},

	{"peer", words},
	{"topic", words},
	{"files", words},
	{"channel", words},
	{"gossip", words},
	{"overlay", words},

	{"gateway", words},
	{"star", words},
	{"site", none},
	{"admin", none},

	{"cmd/parley", []string{""}},
	{"web", none},
	{"internal/house", words},
	{"internal/deps", none},
	{"internal/peertest", words},
	{"internal/labtest", none},
	{"tests/lab", []string{"identity", "network", "gateway", "internal/labtest"}},
}

// reserved says which packages of others belong to one place, and why.
var reserved = []struct {
	path string
	only []string // folders that may
	why  string
}{
	{"github.com/spf13/cobra", []string{"cmd/parley"}, "flags end in cmd/parley; everything else takes a Config"},
	{"github.com/pelletier/go-toml", []string{"."}, "the configuration is read in one place"},
	{"github.com/gorilla/websocket", none, "WebSockets are coder/websocket, or star/socketio/ws in star"},
	{"github.com/lxzan/gws", []string{"star"}, "gws is the other side in tests of star/socketio/ws"},
	{"github.com/libp2p/go-libp2p/x/simlibp2p", []string{"internal/peertest"}, "an experimental package stays behind peertest"},
	{"github.com/marcopolo/simnet", []string{"internal/peertest"}, "simulated networks stay behind peertest"},
	{"github.com/nats-io/nats.go", []string{"star/cluster"}, "a star alone needs no NATS"},
	{"github.com/nats-io/nats-server", []string{"star/cluster"}, "it runs in tests of star/cluster"},
	{"github.com/stretchr/testify", none, "tests compare with ==, slices and maps"},
	{"log", none, "log with log/slog"},
	{"io/ioutil", none, "deprecated; use io and os"},
	{"math/rand", none, "use math/rand/v2, or crypto/rand for secrets"},
}

// testOnly says what must not get into the program, besides our own packages
// for tests.
var testOnly = []string{"testing", "go.uber.org/goleak", "pgregory.net/rapid", "github.com/nats-io/nats-server"}

// forTests reports whether a package of ours is for tests: its name says so, as
// with net/http/httptest.
func forTests(folder string) bool { return strings.HasSuffix(folder, "test") }

func TestImportsGoUpTheTableOnly(t *testing.T) {
	for _, f := range goFiles(t) {
		isTest := strings.HasSuffix(f.name, "_test.go") || forTests(f.folder)
		for _, imp := range f.ast.Imports {
			target, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := forbidden(f.folder, target, isTest); why != "" {
				t.Errorf("%s imports %s: %s", f.name, target, why)
			}
		}
	}
}

// forbidden gives the reason why a file in folder must not import target, or "".
func forbidden(folder, target string, isTest bool) string {
	if folder == "internal/deps" {
		return ""
	}
	for _, r := range reserved {
		if matches(target, r.path) && !slices.ContainsFunc(r.only, func(o string) bool { return in(folder, o) }) {
			return r.why
		}
	}
	isOurs := in(target, module)
	if !isTest && (slices.ContainsFunc(testOnly, func(p string) bool { return in(target, p) }) || isOurs && forTests(target)) {
		return "it is for tests"
	}
	ours, ok := strings.CutPrefix(target+"/", module+"/")
	if !ok || folder == "." {
		return ""
	}
	ours = strings.TrimSuffix(ours, "/")
	at := slices.IndexFunc(rooms, func(r room) bool { return in(folder, r.folder) })
	if at < 0 {
		return "its folder isn't in the import table of docs/DESIGN.md"
	}
	from := rooms[at]
	switch {
	case in(ours, from.folder): // one folder's tree is open inside
		return ""
	case isTest && (in(ours, "internal/peertest") || slices.Contains(inTests[from.folder], ours)):
		return ""
	case slices.ContainsFunc(from.may, func(m string) bool { return ours == m || m != "" && in(ours, m) }):
		return ""
	}
	return "the table of docs/DESIGN.md lets " + from.folder + " import only: " + strings.Join(from.may, ", ") +
		"; declare an interface where it is used, and let the root fit it in"
}

func TestForbiddenFindsWhatItShould(t *testing.T) {
	tests := []struct {
		name, folder, target string
		isTest               bool
		allowed              bool
	}{
		{"a conversation imports words", "peer", module + "/flow", false, true},
		{"a conversation imports another", "peer", module + "/topic", false, false},
		{"also in its tests", "peer", module + "/topic", true, false},
		{"a tree is open inside", "star/transport", module + "/star/socketio", false, true},
		{"a name that only begins alike", "peer", module + "/peers", false, false},
		{"words import down", "identity", module + "/network", false, false},
		{"the root imports all", ".", module + "/gateway", false, true},
		{"the command imports the root", "cmd/parley", module, false, true},
		{"the command imports a part", "cmd/parley", module + "/gateway", false, false},
		{"the simulated network in a test", "host", module + "/internal/peertest", true, true},
		{"the simulated network in the program", "host", module + "/internal/peertest", false, false},
		{"a new folder", "util", module + "/flow", false, false},
		{"cobra outside the command", "admin", "github.com/spf13/cobra", false, false},
		{"toml in the root", ".", "github.com/pelletier/go-toml/v2", false, true},
		{"toml elsewhere", "site", "github.com/pelletier/go-toml/v2", false, false},
		{"the old log", "host", "log", false, false},
		{"slog", "host", "log/slog", false, true},
		{"new random numbers", "host", "math/rand/v2", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if why := forbidden(tt.folder, tt.target, tt.isTest); (why == "") != tt.allowed {
				t.Errorf("forbidden(%q, %q) = %q, allowed should be %v", tt.folder, tt.target, why, tt.allowed)
			}
		})
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	docs := map[string]string{}
	for _, f := range goFiles(t) {
		if strings.HasSuffix(f.name, "_test.go") || ast.IsGenerated(f.ast) {
			continue
		}
		if f.ast.Doc != nil {
			docs[f.folder] += f.ast.Doc.Text()
		} else {
			docs[f.folder] += ""
		}
	}
	for folder, doc := range docs {
		if len(strings.Fields(doc)) < 8 {
			t.Errorf("package %s has no doc comment that says what it is for", folder)
		}
	}
}

// TestG_R12_FilesStayReadable: no file grows beyond what can be read at once. That
// there is one implementation of each operation is the import table's business.
func TestG_R12_FilesStayReadable(t *testing.T) {
	const most = 600
	for name, body := range repository(t) {
		ext := path.Ext(name)
		if ext != ".go" && ext != ".ts" || strings.HasSuffix(name, "_test.go") || strings.Contains(name, ".test.ts") ||
			strings.HasSuffix(name, ".d.ts") || generated(body) {
			continue
		}
		if n := bytes.Count(body, []byte("\n")); n > most {
			t.Errorf("%s has %d lines, limit %d: split it by job", name, n, most)
		}
	}
}

// TestTestsSleepInVirtualTimeOnly: a test that waits for the clock is slow or
// fails by chance.
func TestTestsSleepInVirtualTimeOnly(t *testing.T) {
	for name, body := range repository(t) {
		if strings.HasSuffix(name, "_test.go") && bytes.Contains(body, []byte("\ttime.Sleep(")) && !bytes.Contains(body, []byte("synctest")) {
			t.Errorf("%s sleeps outside testing/synctest", name)
		}
	}
}

// TestNoRegistryIsNamed keeps lock files and settings free of the host they
// were made with: who builds uses their own.
func TestNoRegistryIsNamed(t *testing.T) {
	hosts := []string{
		"registry." + "npmjs.org", "registry." + "yarnpkg.com", "proxy." + "golang.org", "sum." + "golang.org",
		`"resolved"` + `: "http`, "GOPROXY" + "=", "registry" + "=http",
	}
	for name, body := range repository(t) {
		for _, h := range hosts {
			if bytes.Contains(body, []byte(h)) {
				t.Errorf("%s names %s", name, h)
			}
		}
	}
}

func TestErrorCodesAreTheSameInTypeScript(t *testing.T) {
	const file = "client/src/errors.ts"
	body, ok := repository(t)[file]
	if !ok {
		if _, ok := repository(t)["client/package.json"]; ok {
			t.Fatalf("%s is missing", file)
		}
		return // there is no client yet
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\s*'([a-z-]+)',`).FindAllSubmatch(body, -1) {
		there[string(m[1])] = true
	}
	here := map[string]bool{}
	for _, c := range identity.Codes() {
		here[string(c)] = true
		if !there[string(c)] {
			t.Errorf("%s lacks the code %q of identity.Codes", file, c)
		}
	}
	for c := range there {
		if !here[c] {
			t.Errorf("%s has %q, which identity.Codes lacks", file, c)
		}
	}
}

type goFile struct {
	name   string // path in the repository, with slashes
	folder string
	ast    *ast.File
}

// goFiles gives the Go files of this module.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	all := repository(t)
	var files []goFile
	for name, body := range all {
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") || otherModule(all, name) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, body, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		files = append(files, goFile{name, path.Dir(name), f})
	}
	if len(files) < 10 {
		t.Fatalf("found only %d Go files: the test looks in the wrong place", len(files))
	}
	return files
}

// otherModule reports whether a folder above name, but below the root, has its
// own go.mod: bench, tests/interop, examples.
func otherModule(all map[string][]byte, name string) bool {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := all[dir+"/go.mod"]; ok {
			return true
		}
	}
	return false
}

// repository reads every text file of the tree, by its path with slashes.
func repository(t *testing.T) map[string][]byte {
	t.Helper()
	root := filepath.Join("..", "..")
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if slices.Contains([]string{".git", "node_modules", "bin"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		body, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.ContainsRune(body[:min(len(body), 512)], 0) {
			files[rel] = body
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func generated(body []byte) bool {
	return regexp.MustCompile(`(?m)^(//|/\*|#) ?(Code generated|Built from|Generated) .*`).Match(body[:min(len(body), 1024)])
}

// in reports whether p is folder or lies below it.
func in(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// matches reports whether an import is the package p or, where p is not of the
// standard library, one below it.
func matches(target, p string) bool {
	std := !strings.Contains(strings.Split(p, "/")[0], ".")
	return target == p || !std && in(target, p)
}

// TestErrorCodesAreInTheManual: docs/limits.md explains each code.
func TestErrorCodesAreInTheManual(t *testing.T) {
	text := repository(t)["docs/limits.md"]
	for _, c := range identity.Codes() {
		if !bytes.Contains(text, []byte("\n| `"+string(c)+"` |")) {
			t.Errorf("docs/limits.md does not explain %q", c)
		}
	}
}
