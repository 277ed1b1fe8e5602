package star_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// A-11, §9.2: a drain refuses what is new, tells those with extensions, lets
// streams end, ends the rest with an error, and closes without 41.
func TestDrain(t *testing.T) {
	o := open
	o.Drain = 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		a, b, ext := w.at(addrA), w.at(addrB), w.connect(extended)
		ext.join(addrC)
		a.dial(addrA, addrB, "ends")
		a.dial(addrA, addrB, "stays")
		ext.dial(addrC, addrB, "x")
		peers := w.peers
		w.peers = nil
		start := time.Now()
		go w.stop()
		if got := ext.wait(`["parley.drain"`); got != `["parley.drain",20]` {
			t.Errorf("the extended client hears %s", got)
		}
		if got := a.call("ss-join", "/ip4/9.9.9.9", ""); got != `["Server is shutting down"]` {
			t.Errorf("join: %s", got)
		}
		if got := a.call("ss-dial", addrA, addrB, "new"); got != `["Server is shutting down"]` {
			t.Errorf("dial: %s", got)
		}
		a.chunk("ends.dialer", []byte("last words"))
		b.received("ends.dialer", 10)
		a.emit(proxy.Error+"ends.dialer", "=true")
		b.wait(`["` + proxy.Error + "ends.dialer\",true")
		for _, p := range []*peer{a, b, ext} {
			if err := <-p.ended; err == nil || err == socketio.ErrEnded {
				t.Errorf("ended by %v", err)
			}
		}
		if took := time.Since(start); took < 20*time.Second || took > 26*time.Second {
			t.Errorf("drained for %v", took)
		}
		for p, want := range map[*peer]string{a: `stays.listener",true]`, ext: `x.listener","Server is shutting down"]`} {
			if got := p.wait(`["` + proxy.Error + want[:strings.Index(want, ".")]); !strings.HasSuffix(got, want) {
				t.Errorf("a stream that was left ended by %s", got)
			}
		}
		for _, p := range peers {
			p.stop()
		}
		w.stop()
	})
}

// A drain without streams is over at once.
func TestDrainOfIdleServer(t *testing.T) {
	o := open
	o.Drain = time.Hour
	bubble(t, o, func(t *testing.T, w *world) {
		w.at(addrA)
		start := time.Now()
		w.stop()
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// What is left at the end of a drain is closed as one that goes away: 1001.
func TestDrainClosesAsGoingAway(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		time.AfterFunc(5*time.Second, w.stop)
		frames(t, w, `420["ss-join","`+addrA+`",""]`, 1001)
	})
}

func get(t *testing.T, w *world, path string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, _ := http.NewRequest("GET", w.base.String()+path, nil)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// The page shows how to reach the star from where it was asked, and nobody's name.
func TestPage(t *testing.T) {
	o := open
	o.Version = "1.2.3"
	bubble(t, o, func(t *testing.T, w *world) {
		w.at(addrA)
		for host, want := range map[string]string{"star.example": "/dns4/star.example/tcp/80/ws/p2p-websocket-star",
			"1.2.3.4:9090": "/ip4/1.2.3.4/tcp/9090/ws/p2p-websocket-star", "[::1]:9090": "/ip6/::1/tcp/9090/ws/p2p-websocket-star"} {
			status, body, header := get(t, w, "/", "Host", host)
			if status != 200 || !strings.Contains(body, ">"+want+"<") {
				t.Errorf("asked as %s: %d, no %s", host, status, want)
			}
			if strings.Contains(body, addrA) || strings.Contains(body, "http://") || strings.Contains(body, "https://") {
				t.Error("the page names a member, or something elsewhere")
			}
			if !strings.Contains(body, "1.2.3") {
				t.Error("no version")
			}
			policy := header.Get("Content-Security-Policy")
			for _, element := range []string{"style", "script"} {
				_, rest, _ := strings.Cut(body, "<"+element+">")
				text, _, _ := strings.Cut(rest, "</"+element+">")
				sum := sha256.Sum256([]byte(text))
				if !strings.Contains(policy, element+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || strings.Count(body, "<"+element) != 1 {
					t.Errorf("the policy %q does not let the page's own %s be used", policy, element)
				}
			}
			if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
				t.Errorf("the policy is %q", policy)
			}
		}
		if _, body, _ := get(t, w, "/", "Host", `"><script>x</script>`); strings.Contains(body, "<script>x") {
			t.Error("the host gets into the page")
		}
		_, body, _ := get(t, w, "/status.json")
		var now map[string]any
		if err := json.Unmarshal([]byte(body), &now); err != nil || now["members"] != 1.0 || now["state"] != "open" {
			t.Errorf("status %s, %v", body, err)
		}
		if status, _, _ := get(t, w, "/nothing"); status != 404 {
			t.Errorf("unknown path: %d", status)
		}
	})
}

// The metrics have the reference's names from the start, and are not for everybody.
func TestMetrics(t *testing.T) {
	srv, err := star.New(star.Options{Host: "127.0.0.1", Admin: "127.0.0.1:0", Drain: -1, MetricsAllow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	main, admin := srv.URI(), "http://"+srv.AdminAddr().String()
	tr := &http.Transport{}
	fetch := func(u string, header ...string) (int, string) {
		req, _ := http.NewRequest("GET", u, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	status, body := fetch(main + "/metrics")
	for _, line := range []string{"rendezvous_peers 0", "rendezvous_joins_total 0", "rendezvous_joins_total_success 0", "rendezvous_joins_total_failure 0",
		"rendezvous_dials_total 0", "rendezvous_dials_total_success 0", "rendezvous_dials_total_failure 0", `parley_star_sessions{transport="polling"} 0`,
		"parley_star_queue_bytes 0", "parley_star_paused_senders 0", "parley_star_stream_bytes_total 0"} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	if status != 200 || !strings.Contains(body, "go_goroutines") || !strings.Contains(body, "process_resident_memory_bytes") {
		t.Errorf("%d, or no metrics of the process", status)
	}
	if status, _ := fetch(main+"/metrics", "X-Forwarded-For", "1.2.3.4"); status != 403 {
		t.Errorf("through a proxy: %d", status)
	}
	if status, body := fetch(admin + "/metrics"); status != 200 || !strings.Contains(body, `http_request_buckets_milliseconds_count{cardinality="one",method="get",path="/metrics"`) {
		t.Errorf("admin: %d, or no requests counted", status)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200} {
		if status, _ := fetch(admin + path); status != want {
			t.Errorf("%s: %d", path, status)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	tr.CloseIdleConnections()
}

// A forwarding header counts from a trusted proxy only.
func TestS_7_AddressBehindProxies(t *testing.T) {
	o := open
	o.Limits.SessionsPerIP = 2
	bubble(t, o, func(t *testing.T, w *world) {
		// The pipes have no address at all: one network for all.
		for i, want := range []int{200, 200, 503} {
			if status, _, _ := get(t, w, "/socket.io/?EIO=3&transport=polling", "X-Forwarded-For", "1.2.3."+string(rune('0'+i))); status != want {
				t.Errorf("session %d: %d, want %d", i, status, want)
			}
		}
	})
}

// what is malformed ends its own connection, and the server goes on.
func TestA_10_MalformedInput(t *testing.T) {
	bubble(t, open, func(t *testing.T, w *world) {
		friend, other := w.at(addrA), w.at(addrB)
		friend.dial(addrA, addrB, "d")
		for _, frame := range []string{"42" + strings.Repeat("[", 100_000), `42["ss-join"`, "4", "451-[", `42["` + strings.Repeat("x", 70_000) + `"]`, "\xff"} {
			u := *w.base
			u.Path, u.RawQuery = "/socket.io/", "EIO=3&transport=websocket"
			c, err := ws.Dial(t.Context(), w.client, &u, nil, 1<<20, &ws.Memory{})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				b := c.Batch()
				b.Add(ws.Text, []byte(frame))
				_ = b.Flush(nil) // the server may close first
				b.Done()
			}()
			for {
				m, err := c.Read()
				if err != nil || m.Op == ws.Close {
					break
				}
			}
			c.NetConn().Close()
			c.Release()
		}
		friend.chunk("d.dialer", []byte("still"))
		other.received("d.dialer", 5)
	})
}

// S-6: JSON that is nested too deep, and texts that are too long, end their own
// connection: 1002 on a WebSocket, 400 and the end of the session by polling.
func TestS_6_DeepJSONEndsItsConnectionAlone(t *testing.T) {
	texts := map[string]string{"deep": "42" + strings.Repeat("[", 100_000), "deep and closed": `42["x",` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + "]",
		"deep answer": "430[" + strings.Repeat(`{"a":`, 50_000),
		"long":        `42["` + strings.Repeat("x", 64<<10) + `"]`}
	bubble(t, open, func(t *testing.T, w *world) {
		friend, other := w.at(addrA), w.at(addrB)
		friend.dial(addrA, addrB, "d")
		for name, text := range texts {
			closes(1002, text)(t, w)
			_, body, _ := get(t, w, pollOpen)
			sid := sidOf(body)
			post := func(packet string) int {
				resp, err := w.client.Post(w.base.String()+pollOpen+"&sid="+sid, "text/plain;charset=UTF-8", strings.NewReader(fmt.Sprintf("%d:%s", len(packet), packet)))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				return resp.StatusCode
			}
			if first, next := post(text), post("2"); first != 400 || next != 400 {
				t.Errorf("%s by polling: %d, then %d", name, first, next)
			}
		}
		closes(1002, `42["x"`)(t, w)
		friend.chunk("d.dialer", []byte("still"))
		other.received("d.dialer", 5)
		if got := friend.call("ss-leave", `=[[[[[[["seven deep, and the arguments"]]]]]]]`); got != `["Invalid arguments"]` {
			t.Errorf("as deep as may be: %s", got)
		}
	})
}

// sidOf is the session in the answer to a handshake by polling.
func sidOf(body string) string {
	_, rest, _ := strings.Cut(body, `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	return sid
}

// S-15: pages of other origins are kept out of every way in, where origins are
// listed; programs, which have none, are not.
func TestS_15_Origins(t *testing.T) {
	o := open
	o.Origins = []string{"https://app.example"}
	bubble(t, o, func(t *testing.T, w *world) {
		for _, c := range []struct {
			origin     string
			poll, sock int
		}{{"https://app.example", 200, 101}, {"https://evil.example", 403, 403}, {"null", 403, 403}, {"", 200, 101}} {
			for path, want := range map[string]int{pollOpen: c.poll, "/socket.io/?EIO=3&transport=websocket": c.sock} {
				header := []string{"Origin", c.origin}
				if want := strings.HasSuffix(path, "websocket"); want {
					header = append(header, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
				}
				if c.origin == "" {
					header = header[2:]
				}
				if status := knock(t, w, path, header...); status != want {
					t.Errorf("%s from %q: %d, want %d", path, c.origin, status, want)
				}
			}
		}
	})
}

// knock makes a request and gives up on what follows its status.
func knock(t *testing.T, w *world, path string, header ...string) int {
	t.Helper()
	req, _ := http.NewRequest("GET", w.base.String()+path, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestOptionsThatCantWork(t *testing.T) {
	for name, o := range map[string]star.Options{
		"port": {Port: 70_000}, "refreshPeerListIntervalMS": {Refresh: time.Millisecond}, "announce": {Announce: "some"}, "policy": {Policy: "mine"},
		"admin": {Admin: "nowhere"}, "messages": {Sockets: socketio.Limits{Message: 17 << 20}},
	} {
		if _, err := star.NewHandler(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if srv, err := star.New(star.Options{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}); err == nil {
		t.Errorf("took a port in use: %s", srv.URI())
	}
}
