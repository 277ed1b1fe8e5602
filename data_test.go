package parley

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/parley-p2p/parley/gateway/consent"
	"github.com/parley-p2p/parley/identity"
)

func openData(t *testing.T, folder string) *Data {
	t.Helper()
	d, err := OpenData(folder, "site")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDataIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d := openData(t, dir)
	key, err := d.NodeKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := d.Token()
	if err != nil || len(token) < 43 {
		t.Fatal(token, err)
	}
	page, err := d.PageKey(t.Context(), "site", "default")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = openData(t, dir)
	if again, err := d.NodeKey(); err != nil || again.PeerID() != key.PeerID() {
		t.Errorf("another node key: %v", err)
	}
	if again, err := d.Token(); err != nil || again != token {
		t.Errorf("another token: %v", err)
	}
	if again, err := d.PageKey(t.Context(), "site", "default"); err != nil || again.PeerID() != page.PeerID() {
		t.Errorf("another page key: %v", err)
	}
	if read, err := ReadToken(dir); err != nil || read != token {
		t.Errorf("ReadToken: %q, %v", read, err)
	}
}

// TestG_S8_PageKeysByOrigin: each origin and identity has a key of its own,
// whatever their names are.
func TestG_S8_PageKeysByOrigin(t *testing.T) {
	dir := t.TempDir()
	d := openData(t, dir)
	seen := map[identity.PeerID]string{}
	for _, origin := range []string{"site", "https://a.example", "https://A.example", "../../etc", "", "a\x00b"} {
		for _, name := range []string{"default", "DEFAULT", "..", "a/b", "CON", strings.Repeat("x", 64)} {
			k, err := d.PageKey(t.Context(), origin, name)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[k.PeerID()]; ok {
				t.Errorf("%q %q has the key of %s", origin, name, other)
			}
			seen[k.PeerID()] = origin + " " + name
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, pagesFolder))
	if err != nil || len(files) != len(seen) {
		t.Errorf("%d files for %d keys, %v", len(files), len(seen), err)
	}
}

func TestPageKeyOnceForAll(t *testing.T) {
	d := openData(t, t.TempDir())
	ids := make([]identity.PeerID, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			k, err := d.PageKey(t.Context(), "site", "default")
			if err != nil {
				t.Error(err)
			}
			ids[i] = k.PeerID()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatal("one identity, two keys")
		}
	}
}

// What a person allowed another site holds for the next run of the node too, and
// is nobody else's to read.
func TestConsentIsKept(t *testing.T) {
	folder := t.TempDir()
	var token string
	for run := range 2 {
		d, err := OpenData(folder, "")
		if err != nil {
			t.Fatal(err)
		}
		book, err := consent.Open(keptAnswers{d})
		if err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			a, err := book.Put("https://a.example", consent.Scope{Topics: []string{"room"}}, true)
			if err != nil {
				t.Fatal(err)
			}
			token = a.Token
		}
		if s, ok := book.Scope("https://a.example", token); !ok || !s.Topic("room") {
			t.Errorf("run %d: %+v, %v", run, s, ok)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(folder, consentFile))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestPageKeysHaveALimit(t *testing.T) {
	d := openData(t, t.TempDir())
	if _, err := d.PageKey(t.Context(), "site", "default"); err != nil {
		t.Fatal(err)
	}
	d.pages = maxPageKeys
	if _, err := d.PageKey(t.Context(), "site", "one more"); identity.CodeOf(err) != identity.CodeLimit {
		t.Errorf("got %v", err)
	}
	if _, err := d.PageKey(t.Context(), "site", "default"); err != nil {
		t.Errorf("a known one: %v", err)
	}
}

func TestDataModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("no modes there")
		return
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := openData(t, dir)
	for _, make := range []func() error{
		func() error { _, err := d.NodeKey(); return err },
		func() error { _, err := d.Token(); return err },
		func() error { _, err := d.PageKey(t.Context(), "a", "b"); return err },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		want := os.FileMode(0o600)
		if err == nil && info.IsDir() {
			want = 0o700
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", p, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAbuse40_TwoNodesOnOneFolder: the second is refused where the folder was
// asked for, and takes a numbered one where it was not.
func TestAbuse40_TwoNodesOnOneFolder(t *testing.T) {
	dir := t.TempDir()
	d := openData(t, dir)
	if _, err := OpenData(dir, "site"); identity.CodeOf(err) != identity.CodeLimit {
		t.Fatalf("got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	openData(t, dir)

	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for n := 1; n <= 3; n++ {
		d, err := OpenData("", "my site")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		want := "my-site"
		if n > 1 {
			want += "-" + strconv.Itoa(n)
		}
		if filepath.Base(d.Folder()) != want {
			t.Errorf("folder %d is %s, want %s", n, d.Folder(), want)
		}
	}
}

// TestAbuse40_DamageIsNamed: a damaged file is an error that names it, and stays
// as it is: a new key would be another node.
func TestAbuse40_DamageIsNamed(t *testing.T) {
	for _, damage := range []string{"", "CAESQ", "\x00\x00\x00", strings.Repeat("A", maxDataFile+1)} {
		dir := t.TempDir()
		d := openData(t, dir)
		file := filepath.Join(dir, nodeKeyFile)
		if err := os.WriteFile(file, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.NodeKey(); err == nil || !strings.Contains(err.Error(), nodeKeyFile) {
			t.Errorf("got %v", err)
		}
		if kept, err := os.ReadFile(file); err != nil || string(kept) != damage {
			t.Error("the damaged file was changed")
		}
	}
	dir := t.TempDir()
	d := openData(t, dir)
	if _, err := d.PageKey(t.Context(), "a", "b"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, pagesFolder, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte(`{"origin":"other","identity":"b"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PageKey(t.Context(), "a", "b"); err == nil || !strings.Contains(err.Error(), filepath.Base(files[0])) {
		t.Errorf("got %v", err)
	}
}

func TestReadTokenSaysWhenThereIsNone(t *testing.T) {
	_, err := ReadToken(t.TempDir())
	if !errors.Is(err, &identity.Error{Code: identity.CodeNotFound}) {
		t.Errorf("got %v", err)
	}
}

func TestSafeName(t *testing.T) {
	for name, want := range map[string]string{
		"my-site": "my-site", "": "site", "..": "site", "a/b\\c": "a-b-c", ".hidden": "hidden", "käse": "k-se", "/": "site",
		strings.Repeat("x", 100): strings.Repeat("x", 64),
	} {
		if got := safeName(name); got != want {
			t.Errorf("safeName(%q) = %q, want %q", name, got, want)
		}
	}
}
