package lend_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/gateway/lend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGet_HasRoomAndIsEmpty(t *testing.T) {
	for _, n := range []int{0, 1, 2047, 2048, 4095, 4096, 4097, 65536, 65537, 1 << 18, 1<<18 + 1, 1 << 20} {
		for range 3 {
			b := lend.Get(n)
			if len(b) != 0 || cap(b) < n || cap(b) > max(4096, 2*n) {
				t.Errorf("Get(%d): %d of %d", n, len(b), cap(b))
			}
			lend.Put(append(b, "used"...))
		}
	}
}

// TestPut_TakesOnlyWhatItLent holds what must never get into a pool: parts of
// buffers, and sizes of others.
func TestPut_TakesOnlyWhatItLent(t *testing.T) {
	whole := make([]byte, 4096)
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"small":         make([]byte, 100),
		"an odd size":   make([]byte, 5000),
		"too large":     make([]byte, 1<<19),
		"a part":        whole[1:],
		"a shorter one": whole[:10:10],
	} {
		t.Run(name, func(t *testing.T) {
			lend.Put(b)
			for range 100 {
				if got := lend.Get(4096); cap(got) != 4096 {
					t.Fatalf("Get gave %d bytes", cap(got))
				}
			}
		})
	}
}

func TestGet_TwoOwnersNeverShare(t *testing.T) {
	a, b := lend.Get(5000), lend.Get(5000)
	a, b = append(a, "aaaa"...), append(b, "bbbb"...)
	if string(a) != "aaaa" || string(b) != "bbbb" {
		t.Errorf("%s %s", a, b)
	}
	lend.Put(a)
	if c := append(lend.Get(5000), "cccc"...); string(b) != "bbbb" || string(c) != "cccc" {
		t.Errorf("%s %s", b, c)
	}
}
