//go:build linux

package lab

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/parley-p2p/parley/internal/labtest"
)

// program is the parley that every test runs.
var program string

func TestMain(m *testing.M) { labtest.Main(built{m}) }

// built runs the tests with a program that is built for them, once.
type built struct{ *testing.M }

func (b built) Run() int {
	folder, err := os.MkdirTemp("", "parley-lab-")
	if err == nil {
		defer os.RemoveAll(folder)
		program = filepath.Join(folder, "parley")
		build := exec.Command("go", "build", "-o", program, "../../cmd/parley") //nolint:gosec // our own
		build.Stderr = os.Stderr
		err = build.Run()
	}
	flag.Parse()
	if err == nil {
		err = flag.Set("test.parallel", "8") // they wait more than they work
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build parley:", err)
		return 1
	}
	return b.M.Run()
}
