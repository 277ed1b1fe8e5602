package discover

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
)

func openRegistry(t *testing.T) *Registry {
	t.Helper()
	r, err := OpenRegistry(filepath.Join(t.TempDir(), "parley"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func register(t *testing.T, r *Registry, inst Instance) *Registration {
	t.Helper()
	g, err := r.Register(inst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return g
}

func listed(t *testing.T, r *Registry) []Instance {
	t.Helper()
	all, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRegistryListsRunningInstances(t *testing.T) {
	r := openRegistry(t)
	a, b := newKey(t).PeerID(), newKey(t).PeerID()
	ga := register(t, r, Instance{Peer: a, Port: 10000, Site: "chat", Addrs: []string{"/ip4/127.0.0.1/tcp/1"}})
	register(t, r, Instance{Peer: b})
	all := listed(t, r)
	if len(all) != 2 {
		t.Fatalf("%d instances, want 2", len(all))
	}
	for _, inst := range all {
		if inst.PID != os.Getpid() || inst.Exe == "" || !inst.Running() {
			t.Errorf("instance %+v isn't this process", inst)
		}
	}
	if err := ga.Update(func(i *Instance) { i.Port = 10001 }); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, inst := range listed(t, r) {
		found = found || inst.Peer == a && inst.Port == 10001 && inst.Site == "chat"
	}
	if !found {
		t.Errorf("update not seen in %+v", listed(t, r))
	}
	if err := ga.Close(); err != nil {
		t.Fatal(err)
	}
	if all := listed(t, r); len(all) != 1 || all[0].Peer != b {
		t.Errorf("after closing one: %+v", all)
	}
	wantClosed := ga.Update(func(*Instance) {})
	if identity.CodeOf(wantClosed) != identity.CodeClosed {
		t.Errorf("update after close gave %v", wantClosed)
	}
}

// G-S9: the user's own folder, mode 0600.
func TestG_S9_RegistryIsPrivate(t *testing.T) {
	r := openRegistry(t)
	register(t, r, Instance{Peer: newKey(t).PeerID()})
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("folder has %v, %v", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file mode %v, %v, want 0600", info.Mode(), err)
	}
	dir, err := os.Stat(r.dir)
	if err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("folder mode %v, %v, want 0700", dir.Mode(), err)
	}

	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(r.dir, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link} {
		if _, err := OpenRegistry(dir); identity.CodeOf(err) != identity.CodeForbidden {
			t.Errorf("%s: got %v, want forbidden", dir, err)
		}
	}
}

// G-S9: a PID is only believed with its start time.
func TestG_S9_OtherProcessUnderSamePID(t *testing.T) {
	start, err := ProcessStart(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	if !(Instance{PID: os.Getpid(), Start: start}).Running() {
		t.Error("this process isn't running")
	}
	if (Instance{PID: os.Getpid(), Start: start + "1"}).Running() {
		t.Error("another start time was taken for this process")
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Skip(err)
	}
	if (Instance{PID: gone.Process.Pid, Start: start}).Running() {
		t.Error("a process that ended is running")
	}
}

func TestRegistryIgnoresWhatIsNoInstance(t *testing.T) {
	r := openRegistry(t)
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	valid := `{"pid":1,"peer":"` + newKey(t).PeerID().String() + `"}`
	crashed := write("1-crashed.json", valid, 0o600)
	foreign := write("2-open-to-others.json", valid, 0o644)
	if err := os.Symlink(crashed, filepath.Join(r.dir, "3-link.json")); err != nil {
		t.Fatal(err)
	}
	write("note.txt", valid, 0o600)
	for name, text := range map[string]string{
		"4-torn.json": `{"pid":12`, "5-nobody.json": `{"pid":1}`, "6-huge.json": `{"site":"` + strings.Repeat("x", maxInstanceFile) + `"}`,
	} {
		f, err := os.OpenFile(write(name, text, 0o600), os.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := lockFile(f, true); err != nil { // somebody holds these
			t.Fatal(err)
		}
	}
	if all := listed(t, r); len(all) != 0 {
		t.Errorf("listed %+v", all)
	}
	if _, err := os.Stat(crashed); !os.IsNotExist(err) {
		t.Error("the file of a crashed instance is still there")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("a file that others can write was touched")
	}
}

func TestRegistryWatch(t *testing.T) {
	r := openRegistry(t)
	ctx, cancel := context.WithCancel(deadline(t))
	seen := make(chan int, 64)
	done := make(chan error, 1)
	go func() { done <- r.Watch(ctx, func(all []Instance) { seen <- len(all) }) }()
	waitCount := func(want int) {
		t.Helper()
		for {
			select {
			case n := <-seen:
				if n == want {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never saw %d instances", want)
			}
		}
	}
	waitCount(0)
	g, err := r.Register(Instance{Peer: newKey(t).PeerID()})
	if err != nil {
		t.Fatal(err)
	}
	waitCount(1)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	waitCount(0)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A user's inotify instances may all be taken. Whoever comes is still met before
// a message to it is given up.
func TestRegistryWatch_WithoutEvents(t *testing.T) {
	r := openRegistry(t)
	key := newKey(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var seen atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.follow(ctx, nil, nil, registryBlind, func(all []Instance) { seen.Store(int64(len(all))) })
		}()
		synctest.Wait()
		g, err := r.Register(Instance{Peer: key.PeerID()})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * registryBlind) // of the bubble
		synctest.Wait()
		if n := seen.Load(); n != 1 {
			t.Errorf("%d instances seen", n)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
	})
}

// An instance that says more or less of itself is never missed meanwhile: no
// event might follow.
func TestRegistryUpdate_IsReadWholeAtAnyTime(t *testing.T) {
	r := openRegistry(t)
	g, err := r.Register(Instance{Peer: newKey(t).PeerID(), Addrs: []string{"/ip4/127.0.0.1/tcp/1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			_ = g.Update(func(inst *Instance) { inst.Site = strings.Repeat("s", 2000*(i%2)) })
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if all, err := r.List(); err != nil || len(all) != 1 {
			t.Fatalf("%v %v", all, err)
		}
	}
}

// What a crash left half made is swept away, but not what is being made.
func TestRegistrySweeps(t *testing.T) {
	r := openRegistry(t)
	make := func(name string, age time.Duration) string {
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, fresh := make(".new-1", 2*abandonedAfter), make(".new-2", 0)
	if all := listed(t, r); len(all) != 0 {
		t.Errorf("listed %v", all)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Error("the old one is still there")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("the fresh one is gone")
	}
}

func TestRuntimeDir(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	if got := RuntimeDir(); got != filepath.FromSlash("/run/user/1000/parley") {
		t.Errorf("got %s", got)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, unusable := range []string{"", "relative"} {
		t.Setenv("XDG_RUNTIME_DIR", unusable)
		if got := RuntimeDir(); !strings.HasPrefix(got, tmp) || !strings.Contains(filepath.Base(got), "parley-") {
			t.Errorf("%q: got %s", unusable, got)
		}
	}
}
