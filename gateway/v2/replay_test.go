package v2_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	v2 "github.com/parley-p2p/parley/gateway/v2"
)

// TestReplay_AgainstAList holds the segments to a plain list of frames.
func TestReplay_AgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		freed := make(map[*byte]bool)
		var writing []byte // the buffer that is being written
		r := v2.Replay{Free: func(buf []byte) {
			if first := &buf[:1][0]; freed[first] || writing != nil && first == &writing[:1][0] {
				t.Fatal("a buffer is freed twice, or while it is written")
			} else {
				freed[first] = true
			}
		}}
		skip := []byte("not numbered")
		var all [][]byte // every frame ever added
		confirmed := 0
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				data := append(make([]byte, 0, 64), skip...)
				var ends []uint32
				for range rapid.IntRange(1, 5).Draw(t, "frames") {
					f := v2.AppendCount(nil, v2.KindHandled, uint64(len(all)+1))
					all = append(all, f)
					data = append(data, f...)
					ends = append(ends, uint32(len(data)-len(skip)))
				}
				r.Written()
				r.Add(&v2.Batch{Buf: data}, len(skip), ends)
				writing = data
			},
			"written": func(*rapid.T) {
				r.Written()
				writing = nil
			},
			"trim": func(t *rapid.T) {
				n := rapid.IntRange(0, len(all)+2).Draw(t, "n")
				ok := n >= confirmed && n <= len(all)
				if got := r.Trim(uint64(n)); got != ok {
					t.Fatalf("trim %d of %d, %d confirmed: %v", n, len(all), confirmed, got)
				}
				if ok {
					confirmed = n
				}
			},
			"": func(t *rapid.T) {
				n := rapid.IntRange(confirmed, len(all)).Draw(t, "since")
				if got, want := bytes.Join(r.Since(uint64(n)), nil), bytes.Join(all[n:], nil); !bytes.Equal(got, want) {
					t.Fatalf("since %d: %x, want %x", n, got, want)
				}
				if confirmed == len(all) && r.Bytes() != 0 {
					t.Fatalf("holds %d bytes of nothing", r.Bytes())
				}
			},
		})
	})
}
