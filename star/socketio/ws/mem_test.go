package ws_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/star/socketio/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryCounts(t *testing.T) {
	var mem ws.Memory
	for _, n := range []int{0, 1, 255, 320, 321, 4096, 65537, 1 << 20, 1<<20 + 65, 5 << 20} {
		buf := mem.Get(n)
		if len(buf.Bytes()) != n || buf.Size() < n || mem.Used() != int64(buf.Size()) {
			t.Errorf("%d: length %d, size %d, used %d", n, len(buf.Bytes()), buf.Size(), mem.Used())
		}
		if n > 256 && buf.Size() > 2*n+128 {
			t.Errorf("%d takes %d", n, buf.Size())
		}
		buf.Free()
		if mem.Used() != 0 {
			t.Errorf("%d: %d still used", n, mem.Used())
		}
	}
	if size := mem.Get(65537).Size(); size != 64<<10+64 {
		t.Errorf("a chunk of 64 KiB takes %d", size)
	}
}
