package parley

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
)

// ofLength is short, or long where the long tests are asked for.
func ofLength(short, long int) int {
	if os.Getenv("PARLEY_LONG") != "" {
		return long
	}
	return short
}

// counter is a page, of v1 or v2, that counts the messages it gets by number.
type counter struct {
	old *gatewaytest.Page1 // one of the two
	now *gatewaytest.Page2
	got map[string]int
}

// join makes the page of a counter, or brings it back as who it was.
func (c *counter) join(t testing.TB, s *gatewaytest.Server, identity string) {
	t.Helper()
	if c.old != nil {
		c.old = again(t, s, c.old)
		c.old.Call("start", `{"protocol":"/count"}`)
		return
	}
	h := v2.HelloFrame{Identity: identity, Keyless: identity == ""}
	if c.now != nil {
		h.Session = c.now.Welcome.Session // it ended with the node
	}
	c.now = gatewaytest.Join2(t, s, h)
	if c.now.Welcome.Resumed {
		t.Error("a session of another node's life was resumed")
	}
	c.now.Call("start", map[string]any{"protocol": "/count"})
}

// again opens a page of v1 with the key of one that was there before.
func again(t testing.TB, s *gatewaytest.Server, was *gatewaytest.Page1) *gatewaytest.Page1 {
	t.Helper()
	p := gatewaytest.Open1(t, s)
	var r struct{ PeerID string }
	if err := json.Unmarshal(p.Call("peer", `{"peerkey":"`+was.Key+`"}`), &r); err != nil {
		t.Fatal(err)
	}
	p.ID, p.Key = r.PeerID, was.Key
	return p
}

func (c *counter) id() string {
	if c.old != nil {
		return c.old.ID
	}
	return c.now.Welcome.Peer
}

// count takes messages until the socket ends.
func (c *counter) count(t *testing.T) {
	for {
		n, err := c.next(t)
		if err != nil {
			return
		}
		if n != "" {
			c.got[n]++
		}
	}
}

// next gives the number of a message, "" for any other frame.
func (c *counter) next(t *testing.T) (string, error) {
	if c.old != nil {
		f, err := c.old.Read()
		if err != nil || f.Method != "peerData" {
			return "", err
		}
		var m struct{ Data json.Number }
		err = json.Unmarshal(f.Params, &m)
		return m.Data.String(), err
	}
	f, err := c.now.Read()
	if err != nil || f.Kind != v2.KindMessage {
		return "", err
	}
	list := gatewaytest.Elements(t, f)
	// where the socket is closed by now the message is handled all the same
	_ = c.now.WS.Write(context.Background(), websocket.MessageBinary, v2.AppendCount(nil, v2.KindHandled, list[0].(uint64)))
	return string(list[3].(cbor.Tag).Content.([]byte)), nil // JSON, as a page of v1 sent it
}

// sendOn sends numbered messages as long as the node is there, and gives those
// that were told to have arrived. started is called at the hundredth of them.
func sendOn(p *gatewaytest.Page1, to string, started func()) (arrived []string) {
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ; i++ {
			frame := fmt.Appendf(nil, `{"requestid":%d,"method":"send","params":{"peer":%q,"protocol":"/count","data":%d,"ack":%d},"isresponse":false}`, 1000+i, to, i, i)
			if p.WS.Write(context.Background(), websocket.MessageText, frame) != nil {
				return // the node has ended
			}
		}
	})
	for {
		f, err := p.Read()
		if err != nil {
			writing.Wait()
			return arrived
		}
		if f.IsResponse && f.Error == nil {
			arrived = append(arrived, strconv.FormatInt(f.RequestID-1000, 10))
			if len(arrived) == 100 {
				started()
			}
		}
	}
}

// TestAbuse44_RestartUnderPages: a node ends and starts again under its pages, of
// v1 and of v2, while they send. What they were told to have arrived was handled,
// once; and each comes back as who it was.
func TestAbuse44_RestartUnderPages(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	const pairs = 4
	cfg := loopbackConfig(t)
	n, stop := startPatient(t, cfg, patience{time.Minute, time.Minute}) // what a busy machine may need
	s := serverOf(t, n)
	senders, counters := make([]*gatewaytest.Page1, pairs), make([]*counter, pairs)
	for i := range pairs {
		senders[i], counters[i] = gatewaytest.Join1(t, s), &counter{got: map[string]int{}}
		if i%2 == 0 {
			counters[i].old = gatewaytest.Join1(t, s)
			counters[i].old.Call("start", `{"protocol":"/count"}`)
		} else {
			counters[i].join(t, s, fmt.Sprint("page-", i))
		}
	}
	arrived, ids := make([][]string, pairs), make([]string, pairs)
	var pages, first sync.WaitGroup
	for i := range pairs {
		ids[i] = counters[i].id()
		first.Add(1)
		pages.Go(func() { counters[i].count(t) })
		pages.Go(func() { arrived[i] = sendOn(senders[i], ids[i], first.Done) })
	}
	first.Wait()
	stop()
	pages.Wait()
	for i, c := range counters {
		for _, number := range arrived[i] {
			if c.got[number] != 1 {
				t.Errorf("pair %d: message %s arrived, and was handled %d times", i, number, c.got[number])
			}
		}
		for number, times := range c.got {
			if times != 1 {
				t.Errorf("pair %d: message %s was handled %d times", i, number, times)
			}
		}
		t.Logf("pair %d: %d were told to have arrived, %d were handled", i, len(arrived[i]), len(c.got))
	}

	s = serverOf(t, runNode(t, cfg))
	for i, c := range counters {
		c.join(t, s, fmt.Sprint("page-", i))
		if c.id() != ids[i] {
			t.Errorf("pair %d: came back as %s, was %s", i, c.id(), ids[i])
		}
		sender := again(t, s, senders[i])
		if sender.ID != senders[i].ID {
			t.Errorf("pair %d: the sender came back as %s, was %s", i, sender.ID, senders[i].ID)
		}
		id := sender.Request("send", `{"peer":"`+ids[i]+`","protocol":"/count","data":9999,"ack":0}`)
		for got := ""; got == ""; {
			var err error
			if got, err = c.next(t); err != nil {
				t.Fatalf("pair %d: %v", i, err)
			}
		}
		if f := sender.Response(id); f.Error != nil {
			t.Errorf("pair %d: after the restart: %v", i, *f.Error)
		}
	}
}

// TestAbuse45_PagesComeAndGo is what a day of use leaves in a node, in short: pages
// of both versions come, talk, and go, and goroutines, descriptors and heap end
// where they began. With PARLEY_LONG it is 20,000 pages.
func TestAbuse45_PagesComeAndGo(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	n := runNode(t, loopbackConfig(t))
	s := serverOf(t, n)
	visit := func() {
		tb := &gatewaytest.Visit{TB: t}
		defer tb.Over()
		a := gatewaytest.Join1(tb, s)
		b := &counter{got: map[string]int{}}
		b.join(tb, s, "") // a key that nobody keeps
		a.Call("subscribe", `{"topic":"room"}`)
		b.now.Call("subscribe", map[string]any{"topic": "room"})
		id := a.Request("send", `{"peer":"`+b.id()+`","protocol":"/count","data":"x","ack":0}`)
		for got := ""; got == ""; {
			var err error
			if got, err = b.next(t); err != nil {
				t.Fatal(err)
			}
		}
		if f := a.Response(id); f.Error != nil {
			t.Fatal(*f.Error)
		}
		a.Call("publish", `{"topic":"room","data":1}`)
		_ = a.WS.Close(websocket.StatusGoingAway, "")
		_ = b.now.WS.Close(websocket.StatusGoingAway, "")
	}
	type use struct {
		goroutines, descriptors int
		heap                    uint64
	}
	used := func() (u use) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		open, _ := os.ReadDir("/proc/self/fd") // none where there is no such folder
		return use{runtime.NumGoroutine(), len(open), m.HeapAlloc}
	}
	for range 10 {
		visit()
	}
	settle := func(done func(use) bool) (u use) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for {
			if u = used(); n.gateway.Sessions() == 0 && done(u) {
				return u
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return u
			}
		}
	}
	least := use{goroutines: 1 << 30}
	before := settle(func(u use) bool { // until it gets no less
		was := least.goroutines
		least = u
		return u.goroutines == was
	})
	for range ofLength(100, 10_000) {
		visit()
	}
	flat := func(u use) bool {
		return u.goroutines <= before.goroutines+5 && u.descriptors <= before.descriptors+5 && u.heap <= before.heap+5<<20
	}
	if after := settle(flat); !flat(after) {
		t.Errorf("goroutines, descriptors, bytes of heap were %v and are %v", before, after)
	}
}

// serverOf is a node as pages see it.
func serverOf(t *testing.T, n *Node) *gatewaytest.Server {
	t.Helper()
	token, err := n.data.Token()
	if err != nil {
		t.Fatal(err)
	}
	return &gatewaytest.Server{URL: "http://127.0.0.1:" + strconv.Itoa(n.port), Header: http.Header{"Authorization": {"Bearer " + token}}}
}
