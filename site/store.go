package site

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"time"
)

// Limits of what is kept in memory.
const (
	minGzip   = 1 << 10  // below it the headers cost more than is saved
	maxGzip   = 8 << 20  // above it a file is streamed as it is, with ranges
	cacheSize = 64 << 20 // bytes kept: a bundle's files, and compressed ones
)

// item is one file, ready to be sent.
type item struct {
	body        io.ReadSeeker
	closer      io.Closer // nil when body is in memory
	size        int64
	modTime     time.Time // zero for a bundle
	etag        string    // with quotes
	contentType string
}

func (it *item) close() {
	if it.closer != nil {
		it.closer.Close()
	}
}

// store reads the files and keeps what is costly to make.
type store struct {
	files fs.FS
	still bool // files can't change: each is read once

	mu     sync.Mutex
	kept   map[string][]byte // by name (a bundle's file) or by name and etag (a compressed one)
	bytes  int
	etags  map[string]string // of a bundle's files: hashed once
	gzipNo map[string]bool   // names and etags that compressing doesn't make smaller
}

func newStore(files fs.FS, still bool) *store {
	return &store{files: files, still: still, kept: map[string][]byte{}, etags: map[string]string{}, gzipNo: map[string]bool{}}
}

// errFolder is what open returns for a folder.
var errFolder = errors.New("is a folder")

// open gives a file. The caller closes it.
func (s *store) open(name string) (*item, error) {
	if !fs.ValidPath(name) || hidden(name) {
		return nil, fs.ErrNotExist
	}
	if s.still {
		if body, etag, ok := s.known(name); ok {
			return inMemory(name, body, etag), nil
		}
	}
	f, err := s.files.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if info.IsDir() {
		f.Close()
		return nil, errFolder
	}
	if seeker, ok := f.(io.ReadSeeker); ok && !s.still {
		return &item{
			body: seeker, closer: f, size: info.Size(), modTime: info.ModTime(),
			etag:        fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()),
			contentType: typeFor(name, seeker),
		}, nil
	}
	defer f.Close()
	body, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	etag := `"` + hex.EncodeToString(sum[:12]) + `"`
	s.keep(name, body, etag)
	return inMemory(name, body, etag), nil
}

// compressed gives it as gzip where that is smaller by a tenth at least; nil
// where it isn't.
func (s *store) compressed(name string, it *item) []byte {
	if it.size < minGzip || it.size > maxGzip || !shrinks(it.contentType) {
		return nil
	}
	key := name + "\x00" + it.etag
	s.mu.Lock()
	body, ok := s.kept[key]
	no := s.gzipNo[key]
	s.mu.Unlock()
	if ok || no {
		return body
	}
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	_, err := io.Copy(zw, it.body)
	if err == nil {
		err = zw.Close()
	}
	if _, seekErr := it.body.Seek(0, io.SeekStart); err != nil || seekErr != nil {
		return nil // serving it as it is will name the fault
	}
	if int64(buf.Len()) > it.size*9/10 {
		s.mu.Lock()
		s.room(0)
		s.gzipNo[key] = true
		s.mu.Unlock()
		return nil
	}
	s.keep(key, buf.Bytes(), "")
	return buf.Bytes()
}

func (s *store) known(name string) (body []byte, etag string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, ok = s.kept[name]
	return body, s.etags[name], ok
}

func (s *store) keep(key string, body []byte, etag string) {
	if len(body) > cacheSize/4 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.kept[key]; ok {
		return
	}
	s.room(len(body))
	s.kept[key] = body
	s.bytes += len(body)
	if etag != "" {
		s.etags[key] = etag
	}
}

// room forgets everything when n more bytes, or more names, would be too much:
// it is a cache, and what is asked for comes back.
func (s *store) room(n int) {
	if s.bytes+n <= cacheSize && len(s.gzipNo) < 4096 {
		return
	}
	clear(s.kept)
	clear(s.etags)
	clear(s.gzipNo)
	s.bytes = 0
}

func inMemory(name string, body []byte, etag string) *item {
	r := bytes.NewReader(body)
	return &item{body: r, size: int64(len(body)), etag: etag, contentType: typeFor(name, r)}
}

// typeFor gives the type by name, or else by the first 512 bytes.
func typeFor(name string, body io.ReadSeeker) string {
	if t := typeOf(name); t != "" {
		return t
	}
	var start [512]byte
	n, err := io.ReadFull(body, start[:])
	if _, seekErr := body.Seek(0, io.SeekStart); seekErr != nil || err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "application/octet-stream"
	}
	return http.DetectContentType(start[:n])
}
