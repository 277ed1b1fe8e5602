package discover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/parley-p2p/parley/identity"
)

// Bounds of the process registry.
const (
	maxInstanceFile = 64 << 10 // bytes
	usualInstance   = 8 << 10
	maxInstances    = 1024 // files that are looked at
	registryPoll    = 30 * time.Second
	registryBlind   = time.Second // where the system tells no changes: less than a send waits
	abandonedAfter  = time.Minute // for files whose making was interrupted
)

// Instance is one running node of this user, as its file says (gateway.md §10).
type Instance struct {
	PID     int             `json:"pid"`
	Start   string          `json:"start"`          // when the process started, see ProcessStart
	Exe     string          `json:"exe"`            // path of the executable
	Port    int             `json:"port,omitempty"` // HTTP port; 0 for none
	Site    string          `json:"site,omitempty"` // what it serves
	Peer    identity.PeerID `json:"peer"`
	Addrs   []string        `json:"addrs,omitempty"` // multiaddrs, without /p2p
	Version string          `json:"version,omitempty"`
}

// Running reports whether the process of i is still the one that wrote it. Only
// then may its PID be signalled.
func (i Instance) Running() bool {
	start, err := ProcessStart(i.PID)
	return err == nil && start == i.Start
}

// Registry is the folder of the running instances of one user. An instance is
// who holds the lock on its file, so a file left behind by a crash is none.
type Registry struct{ dir string }

// RuntimeDir is where the registry is by default: $XDG_RUNTIME_DIR/parley, or
// parley-<uid> in the folder for temporary files.
func RuntimeDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "parley")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("parley-%d", os.Getuid()))
}

// OpenRegistry makes the folder if it isn't there. It must belong to this user
// alone: CodeForbidden otherwise.
func OpenRegistry(dir string) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, identity.Errorf(identity.CodeInternal, "make runtime folder: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, identity.Errorf(identity.CodeInternal, "look at runtime folder: %w", err)
	}
	if !info.IsDir() || !privateToUser(info) {
		return nil, identity.Errorf(identity.CodeForbidden,
			"runtime folder %s must be a folder of this user with mode 0700", dir)
	}
	return &Registry{dir: dir}, nil
}

// Registration is the own file. It is locked until Close.
type Registration struct {
	mu   sync.Mutex
	file *os.File // nil: closed
	path string
	inst Instance
}

// Register writes the own file; PID, Start and Exe are filled in.
func (r *Registry) Register(inst Instance) (*Registration, error) {
	inst.PID = os.Getpid()
	inst.Start, _ = ProcessStart(inst.PID) // "" where the system doesn't tell: such an instance is never signalled
	if exe, err := os.Executable(); err == nil {
		inst.Exe = exe
	}
	// Made under a hidden name and locked before it gets its own, so that nobody
	// ever sees it unlocked.
	f, err := os.CreateTemp(r.dir, ".new-*")
	if err != nil {
		return nil, identity.Errorf(identity.CodeInternal, "register instance: %w", err)
	}
	reg := &Registration{file: f, inst: inst}
	if err := reg.publish(r.dir); err != nil {
		_ = os.Remove(f.Name())
		_ = f.Close()
		return nil, identity.Errorf(identity.CodeInternal, "register instance: %w", err)
	}
	return reg, nil
}

func (g *Registration) publish(dir string) error {
	if err := g.file.Chmod(0o600); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := lockFile(g.file, true); err != nil {
		return err
	}
	if err := g.write(); err != nil {
		return err
	}
	name := strings.TrimPrefix(filepath.Base(g.file.Name()), ".new-")
	final := filepath.Join(dir, fmt.Sprintf("%d-%s.json", g.inst.PID, name))
	g.path = final
	return os.Rename(g.file.Name(), final)
}

// Update changes what the file says.
func (g *Registration) Update(change func(*Instance)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file == nil {
		return identity.Errorf(identity.CodeClosed, "registration is closed")
	}
	before, _ := json.Marshal(g.inst)
	change(&g.inst)
	if after, _ := json.Marshal(g.inst); string(after) == string(before) {
		return nil
	}
	if err := g.write(); err != nil {
		return identity.Errorf(identity.CodeInternal, "update registration: %w", err)
	}
	return nil
}

// write replaces the content in place: a new file would not carry the lock. A
// reader that comes in between finds the new content, and maybe the end of the
// old one behind it.
func (g *Registration) write() error {
	raw, err := json.Marshal(g.inst)
	if err != nil {
		return err
	}
	if len(raw) > maxInstanceFile {
		return fmt.Errorf("instance has %d bytes, limit %d", len(raw), maxInstanceFile)
	}
	if _, err := g.file.WriteAt(raw, 0); err != nil {
		return err
	}
	return g.file.Truncate(int64(len(raw)))
}

// Close removes the file and unlocks it.
func (g *Registration) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file == nil {
		return nil
	}
	removed := os.Remove(g.path) // while it is locked, so that nobody takes it for abandoned
	closed := g.file.Close()
	g.file = nil
	if removed != nil { // some systems don't remove open files
		removed = os.Remove(g.path)
	}
	return errors.Join(removed, closed)
}

// List gives the running instances, by PID, and removes the files of those that
// aren't running any more.
func (r *Registry) List() ([]Instance, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, identity.Errorf(identity.CodeInternal, "read runtime folder: %w", err)
	}
	var out []Instance
	for i, e := range entries {
		if i == maxInstances {
			break
		}
		path := filepath.Join(r.dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), ".new-"):
			r.sweep(path, e)
		case strings.HasSuffix(e.Name(), ".json"):
			if inst, ok := readInstance(path); ok {
				out = append(out, inst)
			}
		}
	}
	slices.SortFunc(out, func(a, b Instance) int { return a.PID - b.PID })
	return out, nil
}

// sweep removes a file whose maker died before it was published.
func (r *Registry) sweep(path string, e fs.DirEntry) {
	if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > abandonedAfter {
		removeIfUnlocked(path)
	}
}

// readInstance reads one file; not ok where nobody holds it, which also removes
// it, or where it can't be read.
func readInstance(path string) (Instance, bool) {
	f, err := openPrivate(path)
	if err != nil {
		return Instance{}, false
	}
	defer f.Close()
	if removeIfUnlocked(path) {
		return Instance{}, false
	}
	var inst Instance
	once := bufio.NewReaderSize(f, usualInstance) // in one call, for it may be written meanwhile
	read := json.NewDecoder(io.LimitReader(once, maxInstanceFile))
	if err := read.Decode(&inst); err != nil || inst.PID <= 0 || inst.Peer == "" {
		return Instance{}, false
	}
	return inst, true
}

// Watch calls f with the running instances: now, and whenever they may have
// changed, until ctx ends. Where the system tells no changes (a user's inotify
// instances are few and may all be taken) it looks every second.
func (r *Registry) Watch(ctx context.Context, f func([]Instance)) error {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer w.Close()
		err = w.Add(r.dir)
	}
	if err != nil {
		r.follow(ctx, nil, nil, registryBlind, f)
		return nil
	}
	r.follow(ctx, w.Events, w.Errors, registryPoll, f)
	return nil
}

// follow looks at once, at every event, and every so often.
func (r *Registry) follow(ctx context.Context, events <-chan fsnotify.Event, failures <-chan error,
	every time.Duration, f func([]Instance)) {
	look := func() {
		if list, err := r.List(); err == nil {
			f(list)
		}
	}
	poll := time.NewTicker(every)
	defer poll.Stop()
	look()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				events = nil
				poll.Reset(registryBlind)
			}
			if strings.HasSuffix(e.Name, ".json") && !e.Has(fsnotify.Chmod) {
				look()
			}
		case _, ok := <-failures: // events may have been lost
			if !ok {
				failures = nil
			}
			look()
		case <-poll.C:
			look()
		case <-ctx.Done():
			return
		}
	}
}
