package parley

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
)

// flooder is a page that never stops sending to another: with each answer, a refusal
// too, the next message leaves. A mute one waits for no answer, and reads nothing
// before its node stops.
type flooder struct {
	old  *gatewaytest.Page1 // one of the two
	now  *gatewaytest.Page2
	mute bool

	sent      int   // while it sends, of who does
	delivered []int // its messages that were told to be delivered
	closed    int   // its messages that the node's end refused
	got       []int // the other's, as they came
	last      v2.Kind
	code      websocket.StatusCode
	why       string
}

const (
	firstFlood = 1000 // the request of a flooder's message 0
	firstAsked = 1e9  // the first request of a mute one that is no message
	inFlight   = 32
	begunMute  = 500 // messages of a mute one that fit into a connection whoever reads
)

func joinFlooder(t *testing.T, s *gatewaytest.Server, version int) *flooder {
	t.Helper()
	f := &flooder{}
	if version == 1 {
		f.old = gatewaytest.Join1(t, s)
		f.old.Call("start", `{"protocol":"/flood"}`)
	} else {
		f.now = gatewaytest.Join2(t, s, v2.HelloFrame{Keyless: true})
		f.now.Call("start", map[string]any{"protocol": "/flood"})
	}
	return f
}

func (f *flooder) id() string {
	if f.old != nil {
		return f.old.ID
	}
	return f.now.Welcome.Peer
}

// flood sends and takes what comes until the socket ends. begun is called at the
// other's first message.
func (f *flooder) flood(t *testing.T, to string, begun func()) {
	for range inFlight {
		_ = f.send(to)
	}
	f.listen(t, to, begun)
}

// floodMute sends without end, and takes what comes once the node stops.
func (f *flooder) floodMute(t *testing.T, to string, begun func(), stops <-chan struct{}) {
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		for err := error(nil); err == nil; err = f.send(to) {
			if f.sent == begunMute {
				begun()
			}
			if f.ask() != nil {
				return
			}
		}
	})
	<-stops
	f.listen(t, to, nil)
}

func (f *flooder) listen(t *testing.T, to string, begun func()) {
	take := f.take2
	if f.old != nil {
		take = f.take1
	}
	for {
		answered, err := take(t)
		if err != nil {
			f.code, f.why = gatewaytest.CloseOf(err)
			return
		}
		if answered && !f.mute {
			_ = f.send(to)
		}
		if begun != nil && len(f.got) > 0 {
			begun()
			begun = nil
		}
	}
}

// send sends the next message. A socket that takes it no more tells why when it is
// read.
func (f *flooder) send(to string) error {
	n := f.sent
	f.sent++
	if f.old != nil {
		return f.old.WS.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil,
			`{"requestid":%d,"method":"send","params":{"peer":%q,"protocol":"/flood","data":%d,"ack":%d},"isresponse":false}`, firstFlood+n, to, n, n))
	}
	return f.now.WS.Write(context.Background(), websocket.MessageBinary, v2.AppendSend(nil, uint64(firstFlood+n), v2.AppendPair(nil, to, "/flood"),
		network.Content{Type: network.JSON, Data: strconv.AppendInt(nil, int64(n), 10)}, network.Delivered, false))
}

// ask sends a request that the node answers by itself.
func (f *flooder) ask() error {
	n := firstAsked + f.sent
	if f.old != nil {
		return f.old.WS.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil,
			`{"requestid":%d,"method":"listpeers","params":{"topic":"x"},"isresponse":false}`, n))
	}
	return f.now.WS.Write(context.Background(), websocket.MessageBinary, v2.AppendRequest(nil, uint64(n), "status", v2.AppendMap(nil, 0)))
}

func (f *flooder) take1(t *testing.T) (answered bool, err error) {
	frame, err := f.old.Read()
	switch {
	case err != nil:
		return false, err
	case frame.IsResponse && frame.RequestID >= firstAsked:
	case frame.IsResponse && frame.Error != nil && frame.Error.Message == "peer closed":
		f.closed++
	case frame.IsResponse && frame.Error == nil:
		f.delivered = append(f.delivered, int(frame.RequestID)-firstFlood)
	case frame.Method == "peerData":
		var m struct{ Data int }
		if err := json.Unmarshal(frame.Params, &m); err != nil {
			t.Error(err)
		}
		f.got = append(f.got, m.Data)
	}
	return frame.IsResponse, nil
}

func (f *flooder) take2(t *testing.T) (answered bool, err error) {
	frame, err := f.now.Read()
	if err != nil {
		return false, err
	}
	f.last = frame.Kind
	switch frame.Kind {
	case v2.KindResult:
		if n := gatewaytest.Elements(t, frame)[0].(uint64); n < firstAsked {
			f.delivered = append(f.delivered, int(n)-firstFlood)
		}
		return true, nil
	case v2.KindError:
		if list := gatewaytest.Elements(t, frame); list[0].(uint64) < firstAsked && list[1] == "closed" {
			f.closed++
		}
		return true, nil
	case v2.KindMessage:
		list := gatewaytest.Elements(t, frame)
		// where the socket is closed by now the message came all the same
		_ = f.now.WS.Write(context.Background(), websocket.MessageBinary, v2.AppendCount(nil, v2.KindHandled, list[0].(uint64)))
		n, err := strconv.Atoi(string(list[3].(cbor.Tag).Content.([]byte)))
		if err != nil {
			t.Error(err)
		}
		f.got = append(f.got, n)
	}
	return false, nil
}

// TestStop_TellsPagesThatNeverStopSending: each page of a node that stops is told so,
// and what it was told to be delivered has come to the other page, in order and
// once. The node has as long as a busy machine may need.
func TestStop_TellsPagesThatNeverStopSending(t *testing.T) {
	for _, pairs := range []int{1, ofLength(15, 50)} {
		t.Run(fmt.Sprint(2*pairs, " pages"), func(t *testing.T) {
			pages := stopUnderFlood(t, pairs, false, patience{time.Minute, time.Minute})
			for i, f := range pages {
				f.check(t, i, pages[i^1])
			}
		})
	}
}

// TestStop_TellsPagesThatFloodWithoutReading: the same of pages that write as fast as
// they can and take no answer before the node stops. It does not go on to serve what
// they write: each has no more refused than it had unsettled, and a few besides. What
// they don't take is not waited for longer than ever.
func TestStop_TellsPagesThatFloodWithoutReading(t *testing.T) {
	const most = 1024 + 256 // unsettled, and behind the stop
	for _, pairs := range []int{1, ofLength(10, 50)} {
		t.Run(fmt.Sprint(2*pairs, " pages"), func(t *testing.T) {
			pages := stopUnderFlood(t, pairs, true, patience{drainTime, time.Minute})
			for i, f := range pages {
				f.check(t, i, pages[i^1])
				if f.closed > most {
					t.Errorf("page %d: the node refused %d messages of %d at its end, want %d at most", i, f.closed, f.sent, most)
				}
			}
		})
	}
}

// TestStop_HasItsBounds: no page keeps a node from its end, and none makes that end
// a fault, though there be no time to tell it.
func TestStop_HasItsBounds(t *testing.T) {
	stopUnderFlood(t, 10, false, patience{time.Nanosecond, time.Nanosecond})
	stopUnderFlood(t, ofLength(3, 10), true, patience{time.Nanosecond, time.Nanosecond})
}

// stopUnderFlood stops a node under pairs of pages, v1 and v2, each with itself and
// with the other.
func stopUnderFlood(t *testing.T, pairs int, mute bool, p patience) []*flooder {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	n, stop := startPatient(t, loopbackConfig(t), p)
	s := serverOf(t, n)
	pages := make([]*flooder, 2*pairs)
	for i := range pages {
		pages[i] = joinFlooder(t, s, []int{1, 2, 1, 1, 2, 2}[i%6])
		pages[i].mute = mute
	}
	var all, begun sync.WaitGroup
	stops := make(chan struct{})
	for i, f := range pages {
		to := pages[i^1].id()
		begun.Add(1)
		all.Go(func() {
			if mute {
				f.floodMute(t, to, begun.Done, stops)
			} else {
				f.flood(t, to, begun.Done)
			}
		})
	}
	begun.Wait()
	start := time.Now()
	close(stops)
	stop()
	t.Logf("stopped after %s", time.Since(start))
	all.Wait()
	return pages
}

// check compares what the page was told with what came to the other.
func (f *flooder) check(t *testing.T, i int, other *flooder) {
	t.Helper()
	if f.code != websocket.StatusGoingAway || f.why != "the node stops" {
		t.Errorf("page %d: closed with %d %q", i, f.code, f.why)
	}
	if f.now != nil && f.last != v2.KindBye {
		t.Errorf("page %d: the last frame is %d", i, f.last)
	}
	came := make(map[int]bool, len(other.got))
	for j, number := range other.got {
		if j > 0 && other.got[j-1] >= number {
			t.Fatalf("page %d: message %d came behind %d", i, number, other.got[j-1])
		}
		came[number] = true
	}
	for _, number := range f.delivered {
		if !came[number] {
			t.Errorf("page %d: message %d of %d was told to be delivered, and never came", i, number, f.sent)
		}
	}
}
