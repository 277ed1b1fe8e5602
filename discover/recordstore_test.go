package discover

import (
	"context"
	"errors"
	"fmt"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

func countKeys(t testing.TB, s *recordStore, prefix string) int {
	t.Helper()
	res, err := s.Query(context.Background(), query.Query{Prefix: prefix, KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	all, err := res.Rest()
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Row 32, in the DHT: records of strangers stay within the bound, and those
// that are there can be renewed.
func TestAbuse32_DHTRecordFlood(t *testing.T) {
	ctx := context.Background()
	s := newRecordStore(64 << 10)
	var err error
	stored := 0
	for i := range 1000 {
		if err = s.Put(ctx, ds.NewKey(fmt.Sprintf("/providers/%d/me", i)), make([]byte, 64)); err == nil {
			stored++
		}
	}
	if !errors.Is(err, errStoreFull) || s.bytes > s.limit || stored == 0 {
		t.Fatalf("%d stored, %d bytes of %d, %v", stored, s.bytes, s.limit, err)
	}
	first := ds.NewKey("/providers/0/me")
	if err := s.Put(ctx, first, make([]byte, 64)); err != nil {
		t.Errorf("renewing: %v", err)
	}
	if err := s.Delete(ctx, first); err != nil {
		t.Error(err)
	}
	if err := s.Put(ctx, ds.NewKey("/providers/new/me"), make([]byte, 60)); err != nil {
		t.Errorf("after room was made: %v", err)
	}
	for i := range 1000 {
		_ = s.Delete(ctx, ds.NewKey(fmt.Sprintf("/providers/%d/me", i)))
	}
	_ = s.Delete(ctx, ds.NewKey("/providers/new/me"))
	if s.bytes != 0 || len(s.groups) != 0 {
		t.Errorf("%d bytes and %d groups left", s.bytes, len(s.groups))
	}
}

func TestRecordStore(t *testing.T) {
	ctx := context.Background()
	s := newRecordStore(1 << 20)
	for _, key := range []string{"/providers/a/1", "/providers/a/2", "/providers/ab/1", "/values/x", "/pk"} {
		if err := s.Put(ctx, ds.NewKey(key), []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]int{"/providers/a": 2, "/providers/": 3, "/providers/a/1": 0, "/values/x": 0, "": 5, "/none": 0} {
		if got := countKeys(t, s, prefix); got != want {
			t.Errorf("%q has %d records below it, want %d", prefix, got, want)
		}
	}
	value, err := s.Get(ctx, ds.NewKey("/pk"))
	if err != nil || string(value) != "/pk" {
		t.Errorf("got %q, %v", value, err)
	}
	if n, err := s.GetSize(ctx, ds.NewKey("/pk")); err != nil || n != 3 {
		t.Errorf("size %d, %v", n, err)
	}
	if _, err := s.Get(ctx, ds.NewKey("/nothing")); !errors.Is(err, ds.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}
	if has, _ := s.Has(ctx, ds.NewKey("/nothing")); has {
		t.Error("has what isn't there")
	}
	b, err := s.Batch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Put(ctx, ds.NewKey("/pk"), []byte("new")), b.Delete(ctx, ds.NewKey("/values/x")), b.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
	if value, _ := s.Get(ctx, ds.NewKey("/pk")); string(value) != "new" {
		t.Errorf("after the batch %q", value)
	}
}
