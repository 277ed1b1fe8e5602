package house

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// snippetWorld has what the manual's Go uses and does not declare.
const snippetWorld = `package manual

import (
	"context"
	"log/slog"

	"github.com/parley-p2p/parley"
	"github.com/parley-p2p/parley/identity"
)

var (
	_    = slog.Default
	ctx  context.Context
	node *parley.Node
	key  identity.Key
	bob  identity.PeerID
	err  error
)
`

// TestGoOfTheManualIsRight checks the types of the manual's Go; … in braces stands
// for any body.
func TestGoOfTheManualIsRight(t *testing.T) {
	manual := string(repository(t)["docs/manual.md"])
	snippets := regexp.MustCompile("(?ms)^```go\n(.*?)^```").FindAllStringSubmatch(manual, -1)
	if len(snippets) == 0 {
		t.Fatal("the manual has no Go")
	}
	known := exported(t, "github.com/parley-p2p/parley", "github.com/parley-p2p/parley/identity", "log/slog", "context")
	for _, s := range snippets {
		for _, fault := range typeFaults(t, known, s[1]) {
			t.Errorf("%s\n%v", s[1], fault)
		}
	}
	if faults := typeFaults(t, known, `err = node.Runn(ctx)`); len(faults) != 1 || !strings.Contains(faults[0].Error(), "Runn") {
		t.Errorf("a fault is found as %v", faults)
	}
}

// exported makes an importer of packages and all below them, from what the go
// command has built.
func exported(t *testing.T, packages ...string) types.Importer {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}"}, packages...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for line := range bytes.Lines(out) {
		name, file, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		files[name] = file
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		if files[path] == "" {
			return nil, fmt.Errorf("%s was not built", path)
		}
		return os.Open(files[path])
	})
}

// typeFaults checks statements in a function of their own. What they declare and
// don't use is no fault.
func typeFaults(t *testing.T, known types.Importer, statements string) (faults []error) {
	t.Helper()
	text := snippetWorld + "\nfunc _() {\n" + strings.ReplaceAll(statements, "{ … }", `{ panic("") }`) + "\n}\n"
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "manual.go", text, 0)
	if err != nil {
		return []error{err}
	}
	check := types.Config{Importer: known, Error: func(err error) {
		var e types.Error
		if errors.As(err, &e) && !strings.HasPrefix(e.Msg, "declared and not used") {
			faults = append(faults, err)
		}
	}}
	_, _ = check.Check("manual", set, []*ast.File{file}, nil)
	return faults
}
