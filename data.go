package parley

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/parley-p2p/parley/identity"
)

// Data is a node's data folder, which one running node holds at a time
// (gateway.md §10):
//
//	lock            held while the node runs; has its process id
//	node.key        the node's own key
//	token           what programs send as Authorization: Bearer
//	pages/HASH.json the key of one page: by origin and identity
//	consent.json    what the person allowed pages of other sites
//
// Folders have mode 0700, files 0600. A file is written beside its place and
// renamed into it, so that it is whole or not there. Safe for several
// goroutines.
type Data struct {
	folder string
	lock   *os.File

	mu    sync.Mutex // one change at a time
	pages int        // files in pages/
}

const (
	nodeKeyFile = "node.key"
	tokenFile   = "token"
	pagesFolder = "pages"
	consentFile = "consent.json"

	maxPageKeys = 10_000 // files; a page may name any identity, and each costs one
	maxDataFile = 64 << 10
	maxInstance = 100 // nodes of one site at once
)

// DataFolder is where the data of a site's first node is: folder itself if one
// is given (node.data), otherwise one by the site's name in $XDG_DATA_HOME, or
// where this system has such data.
func DataFolder(folder, siteName string) (string, error) {
	if folder != "" {
		return filepath.Abs(folder)
	}
	base := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(base) { // the standard ignores others
		var err error
		if base, err = userData(); err != nil {
			return "", fmt.Errorf("find data folder: %w", err)
		}
	}
	return filepath.Join(base, "parley", safeName(siteName)), nil
}

func userData() (string, error) {
	if runtime.GOOS == "windows" {
		return os.UserCacheDir() // %LocalAppData%: keys don't roam
	}
	home, err := os.UserHomeDir()
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support"), err
	}
	return filepath.Join(home, ".local", "share"), err
}

// safeName makes a folder's name of any text.
func safeName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, name)
	name = strings.Trim(name[:min(len(name), 64)], ".-")
	if name == "" {
		return "site"
	}
	return name
}

// OpenData makes and locks a data folder. Where another node holds it, it takes
// the next free of NAME-2, NAME-3…; with a folder given that is an error.
func OpenData(folder, siteName string) (*Data, error) {
	base, err := DataFolder(folder, siteName)
	if err != nil {
		return nil, err
	}
	for n := 1; n <= maxInstance; n++ {
		d, err := lockFolder(numbered(base, n))
		if err == nil || !errors.Is(err, errLocked) {
			return d, err
		}
		if folder != "" {
			return nil, identity.Errorf(identity.CodeLimit, "data folder %s is in use by another parley", base)
		}
	}
	return nil, identity.Errorf(identity.CodeLimit, "%d nodes of this site run already", maxInstance)
}

func numbered(base string, n int) string {
	if n == 1 {
		return base
	}
	return base + "-" + strconv.Itoa(n)
}

// errLocked is what tryLock returns while another process holds the lock.
var errLocked = errors.New("locked")

func lockFolder(folder string) (*Data, error) {
	if err := os.MkdirAll(filepath.Join(folder, pagesFolder), 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		return nil, fmt.Errorf("protect data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := tryLock(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	pages, err := os.ReadDir(filepath.Join(folder, pagesFolder))
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("read data folder: %w", err)
	}
	// The process id is for people; the lock is what counts.
	_ = lock.Truncate(0)
	_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return &Data{folder: folder, lock: lock, pages: len(pages)}, nil
}

// Folder is where the data is.
func (d *Data) Folder() string { return d.folder }

// Close gives the folder to the next node.
func (d *Data) Close() error { return d.lock.Close() }

// NodeKey is the node's own key, made the first time. A damaged file is an
// error: a new key would be another node.
func (d *Data) NodeKey() (identity.Key, error) {
	text, err := d.load(nodeKeyFile, func() (string, error) {
		k, err := identity.NewKey()
		return k.String(), err
	})
	if err != nil {
		return identity.Key{}, err
	}
	k, err := identity.ParseKey(text)
	if err != nil {
		return identity.Key{}, fmt.Errorf("%s is damaged: %w", filepath.Join(d.folder, nodeKeyFile), err)
	}
	return k, nil
}

// Token is what programs send as Authorization: Bearer, made the first time.
func (d *Data) Token() (string, error) {
	return d.load(tokenFile, func() (string, error) {
		raw := make([]byte, 32)
		_, err := rand.Read(raw)
		return base64.RawURLEncoding.EncodeToString(raw), err
	})
}

// ReadToken reads the token of a data folder, whether its node runs or not.
func ReadToken(folder string) (string, error) {
	text, err := readSmall(filepath.Join(folder, tokenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", identity.Errorf(identity.CodeNotFound, "no token in %s: no parley has run with it yet", folder)
	}
	return strings.TrimSpace(string(text)), err
}

// pageKey is the content of a file in pages/.
type pageKey struct {
	Origin   string `json:"origin"`
	Identity string `json:"identity"`
	Peer     string `json:"peer"` // for people who look
	Key      string `json:"key"`
}

// PageKey is the key of an identity of an origin (G-S8), made the first time.
// For the node's own pages the caller gives one origin, whatever the port. It
// fails with CodeLimit when there are too many.
func (d *Data) PageKey(_ context.Context, origin, name string) (identity.Key, error) {
	sum := sha256.Sum256([]byte(origin + "\x00" + name))
	file := filepath.Join(pagesFolder, hex.EncodeToString(sum[:])+".json")
	text, err := d.load(file, func() (string, error) {
		if d.pages >= maxPageKeys {
			return "", identity.Errorf(identity.CodeLimit, "%d page keys are kept, no more: %s", d.pages, filepath.Join(d.folder, pagesFolder))
		}
		k, err := identity.NewKey()
		if err != nil {
			return "", err
		}
		d.pages++
		out, err := json.Marshal(pageKey{origin, name, k.PeerID().String(), k.String()})
		return string(out), err
	})
	if err != nil {
		return identity.Key{}, err
	}
	var kept pageKey
	if err := json.Unmarshal([]byte(text), &kept); err != nil || kept.Origin != origin || kept.Identity != name {
		return identity.Key{}, fmt.Errorf("%s is damaged", filepath.Join(d.folder, file))
	}
	return identity.ParseKey(kept.Key)
}

// PageKeys is how many keys of pages are kept.
func (d *Data) PageKeys() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pages
}

// keptAnswers keeps a consent.Book in the data folder.
type keptAnswers struct{ data *Data }

// maxConsent is far above what a book's limits allow.
const maxConsent = 64 << 20

func (k keptAnswers) Load() ([]byte, error) {
	text, err := readUpTo(filepath.Join(k.data.folder, consentFile), maxConsent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

func (k keptAnswers) Save(text []byte) error {
	return writeWhole(filepath.Join(k.data.folder, consentFile), text)
}

// load reads a file, or writes what fresh makes where there is none.
func (d *Data) load(file string, fresh func() (string, error)) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	full := filepath.Join(d.folder, file)
	body, err := readSmall(full)
	if err == nil {
		return string(bytes.TrimSpace(body)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	text, err := fresh()
	if err != nil {
		return "", err
	}
	return text, writeWhole(full, []byte(text+"\n"))
}

func readSmall(file string) ([]byte, error) { return readUpTo(file, maxDataFile) }

func readUpTo(file string, limit int64) ([]byte, error) {
	info, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is damaged: no small file", file)
	}
	return os.ReadFile(file)
}

// writeWhole writes a file of mode 0600 so that it is there whole, also after a
// crash, or not at all.
func writeWhole(file string, body []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", file, err)
		}
	}()
	if _, err = f.Write(body); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), file); err != nil {
		return err
	}
	if dir, openErr := os.Open(filepath.Dir(file)); openErr == nil {
		_ = dir.Sync() // not every system can
		dir.Close()
	}
	return nil
}
