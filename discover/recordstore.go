package discover

import (
	"context"
	"errors"
	"strings"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// recordStore keeps what strangers put into this node's part of the DHT, in
// memory and within a bound. Over it new records are refused, and the other
// nodes of the key keep them; known ones may be renewed.
//
// Keys are paths; a group is the records under the first two names, which is
// one key of the DHT: /providers/<key>/<provider>. So a question costs what its
// own key has, and not what the whole store has.
type recordStore struct {
	limit int

	mu     sync.RWMutex
	groups map[string]map[ds.Key][]byte
	bytes  int
}

const (
	maxRecordBytes = 32 << 20 // of all records
	recordOverhead = 128      // bytes a record costs besides key and value
)

var errStoreFull = errors.New("the node's part of the DHT is full")

var _ ds.Batching = (*recordStore)(nil)

func newRecordStore(limit int) *recordStore {
	return &recordStore{limit: limit, groups: make(map[string]map[ds.Key][]byte)}
}

func groupOf(path string) string {
	names := strings.SplitN(strings.Trim(path, "/"), "/", 3)
	return strings.Join(names[:min(2, len(names))], "/")
}

func cost(key ds.Key, value []byte) int { return len(key.String()) + len(value) + recordOverhead }

func (s *recordStore) Put(_ context.Context, key ds.Key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := groupOf(key.String())
	old, known := s.groups[name][key]
	grown := cost(key, value)
	if known {
		grown -= cost(key, old)
	}
	if grown > 0 && s.bytes+grown > s.limit {
		return errStoreFull
	}
	if s.groups[name] == nil {
		s.groups[name] = make(map[ds.Key][]byte)
	}
	s.groups[name][key] = value
	s.bytes += grown
	return nil
}

func (s *recordStore) Delete(_ context.Context, key ds.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := groupOf(key.String())
	if old, known := s.groups[name][key]; known {
		s.bytes -= cost(key, old)
		delete(s.groups[name], key)
		if len(s.groups[name]) == 0 {
			delete(s.groups, name)
		}
	}
	return nil
}

func (s *recordStore) Get(_ context.Context, key ds.Key) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if value, known := s.groups[groupOf(key.String())][key]; known {
		return value, nil
	}
	return nil, ds.ErrNotFound
}

func (s *recordStore) Has(ctx context.Context, key ds.Key) (bool, error) {
	_, err := s.Get(ctx, key)
	return err == nil, nil
}

func (s *recordStore) GetSize(ctx context.Context, key ds.Key) (int, error) {
	value, err := s.Get(ctx, key)
	if err != nil {
		return -1, err
	}
	return len(value), nil
}

func (s *recordStore) Query(_ context.Context, q query.Query) (query.Results, error) {
	s.mu.RLock()
	var entries []query.Entry
	add := func(group map[ds.Key][]byte) {
		for key, value := range group {
			entries = append(entries, query.Entry{Key: key.String(), Value: value, Size: len(value)})
		}
	}
	if name := groupOf(q.Prefix); strings.Contains(name, "/") {
		add(s.groups[name])
	} else {
		for _, group := range s.groups {
			add(group)
		}
	}
	s.mu.RUnlock()
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, entries)), nil
}

func (s *recordStore) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(s), nil }
func (s *recordStore) Sync(context.Context, ds.Key) error      { return nil }
func (s *recordStore) Close() error                            { return nil }
