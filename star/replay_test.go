package star_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The recordings are played against our star: what the clients said then is said
// again at the same time, and what the server said must come, byte for byte. Only
// these differ: session ids, nonces (and so signatures), the numbers of the
// server's own questions; how packets are spread over polling responses; and what
// the reference still sends to a client that has said goodbye.
type replay struct {
	*world
	conns  map[int]*ws.Conn
	sids   map[string]string // recorded → ours
	nonces map[string]string // address → ours
	acks   map[int]map[string]string
	bye    map[int]bool // connections that have said 41

	polls     map[string]*polled // by recorded session id
	requested map[int]string     // the session of each request; "" opens one
	posts     map[int]chan httpAnswer
}

// polled is what was said to one polling session, then and now.
type polled struct {
	waiting   chan httpAnswer // a GET that was not answered yet
	got, want []string
	bye       bool
}

type httpAnswer struct {
	status int
	body   string
	kind   string
}

var (
	sidPattern   = regexp.MustCompile(`"sid":"([^"]*)"`)
	noncePattern = regexp.MustCompile(`^43\d+\[null,"([^"]*)"\]$`)
	askPattern   = regexp.MustCompile(`^42(\d+)\["ss-incomming"`)
	joinPattern  = regexp.MustCompile(`^42\d+\["ss-join","([^"]*)","([^"]*)"\]$`)
)

func TestReplay(t *testing.T) {
	file := startest.Load(t)
	for _, name := range []string{"js-client-full", "js-client-error-and-vanish", "polling-only-binary", "polling-only-base64",
		"polling-xhr2-binary-payload", "polling-then-upgrade", "websocket-base64", "ws-peer-refresh", "heartbeat", "heartbeat-polling"} {
		t.Run(name, func(t *testing.T) {
			o := star.Options{Drain: -1}
			if !strings.HasPrefix(name, "js-client") {
				o = open
			}
			if name == "ws-peer-refresh" {
				o.Refresh = time.Second
			}
			bubble(t, o, func(t *testing.T, w *world) {
				r := &replay{world: w, conns: map[int]*ws.Conn{}, sids: map[string]string{}, nonces: map[string]string{}, bye: map[int]bool{},
					acks: map[int]map[string]string{}, polls: map[string]*polled{}, requested: map[int]string{}, posts: map[int]chan httpAnswer{}}
				r.play(t, file.Named(t, name).Frames)
			})
		})
	}
}

func (r *replay) play(t *testing.T, frames []startest.Frame) {
	start := time.Now()
	for i, f := range frames {
		if at := start.Add(time.Duration(f.Ms) * time.Millisecond); f.Dir == "c2s" {
			time.Sleep(time.Until(at)) // virtual
		}
		synctest.Wait()
		switch f.Dir + " " + f.Kind {
		case "c2s ws-upgrade":
			r.connect(t, f)
		case "c2s ws-text":
			r.bye[f.Conn] = r.bye[f.Conn] || f.Text == "41"
			r.write(f.Conn, ws.Text, r.say(f.Conn, f.Text))
		case "c2s ws-binary":
			raw, _ := hex.DecodeString(f.Hex)
			r.write(f.Conn, ws.Binary, string(raw))
		case "c2s ws-close":
			r.write(f.Conn, ws.Close, "")
		case "c2s http-request":
			r.request(t, f)
		case "s2c http-response":
			r.response(t, i, f)
		case "s2c ws-text", "s2c ws-binary":
			if !r.bye[f.Conn] {
				r.read(t, i, f)
			}
		}
	}
	for sid, p := range r.polls {
		r.take(p)
		if got, want := strings.Join(p.got, " "), strings.Join(p.want, " "); got != want {
			t.Errorf("session %s was told\n%s\nwant\n%s", sid, got, want)
		}
	}
	for _, c := range r.conns {
		c.NetConn().Close()
		c.Release()
	}
}

func (r *replay) connect(t *testing.T, f startest.Frame) {
	u, err := url.Parse(r.base.String() + r.replaceSID(f.URL))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ws.Dial(context.Background(), r.client, u, nil, 1<<20, &ws.Memory{})
	if err != nil {
		t.Fatal(err)
	}
	r.conns[f.Conn] = c
}

func (r *replay) replaceSID(text string) string {
	for recorded, ours := range r.sids {
		text = strings.ReplaceAll(text, recorded, ours)
	}
	return text
}

// say is what a client says now for what it said then.
func (r *replay) say(conn int, text string) string {
	if m := joinPattern.FindStringSubmatch(text); m != nil {
		if nonce := r.nonces[m[1]]; nonce != "" {
			for _, who := range r.file.Identities {
				if strings.HasSuffix(m[1], who.PeerID) {
					return strings.Replace(text, m[2], sign(r.t, who, nonce), 1)
				}
			}
		}
		r.nonces["asked"] = m[1]
	}
	if strings.HasPrefix(text, "43") && r.acks[conn] != nil {
		id, rest, _ := strings.Cut(text[2:], "[")
		if ours, ok := r.acks[conn][id]; ok {
			return "43" + ours + "[" + rest
		}
	}
	return text
}

func (r *replay) write(conn int, op ws.Opcode, data string) {
	b := r.conns[conn].Batch()
	b.Add(op, []byte(data))
	_ = b.Flush(nil) // the server may have closed first
	b.Done()
}

// same compares what came with what came then.
func (r *replay) same(conn int, got, want string) bool {
	if m := sidPattern.FindStringSubmatch(want); m != nil {
		if g := sidPattern.FindStringSubmatch(got); g != nil && len(g[1]) == 20 {
			r.sids[m[1]] = g[1]
			got = strings.Replace(got, g[1], m[1], 1)
		}
	}
	if m := noncePattern.FindStringSubmatch(want); m != nil {
		if g := noncePattern.FindStringSubmatch(got); g != nil {
			r.nonces[r.nonces["asked"]] = g[1]
			got = strings.Replace(got, g[1], m[1], 1)
		}
	}
	if m := askPattern.FindStringSubmatch(want); m != nil {
		if g := askPattern.FindStringSubmatch(got); g != nil {
			if r.acks[conn] == nil {
				r.acks[conn] = map[string]string{}
			}
			r.acks[conn][m[1]] = g[1]
			got = strings.Replace(got, "42"+g[1], "42"+m[1], 1)
		}
	}
	return got == want
}

func (r *replay) read(t *testing.T, i int, f startest.Frame) {
	t.Helper()
	m, err := r.conns[f.Conn].Read()
	if err != nil {
		t.Fatalf("frame %d: %v, want %s", i, err, f.Text)
	}
	defer m.Buf.Free()
	if f.Kind == "ws-binary" {
		if got := hex.EncodeToString(m.Data); m.Op != ws.Binary || got != f.Hex {
			t.Fatalf("frame %d is %s, want %s", i, got, f.Hex)
		}
		return
	}
	if m.Op != ws.Text || !r.same(f.Conn, string(m.Data), f.Text) {
		t.Fatalf("frame %d is %s, want %s", i, m.Data, f.Text)
	}
}

var sidQuery = regexp.MustCompile(`sid=([^&]*)`)

func (r *replay) request(t *testing.T, f startest.Frame) {
	sid := ""
	if m := sidQuery.FindStringSubmatch(f.URL); m != nil {
		sid = m[1]
	}
	r.requested[f.Req] = sid
	p := r.polls[sid]
	if f.Method == "GET" && p != nil {
		if r.take(p); p.waiting != nil {
			return // ours has said in one response what then took two
		}
	}
	body := string(f.Body.Bytes())
	if p != nil && strings.Contains(body, ":41") {
		p.bye = true
	}
	if id, text, ok := strings.Cut(body, ":43"); ok { // answers to the server's questions: the same in length
		num, rest, _ := strings.Cut(text, "[")
		for _, acks := range r.acks {
			if ours, known := acks[num]; known && len(ours) == len(num) {
				body = id + ":43" + ours + "[" + rest
			}
		}
	}
	ch := make(chan httpAnswer, 1)
	if f.Method == "GET" && p != nil {
		p.waiting = ch
	}
	r.posts[f.Req] = ch
	req, err := http.NewRequest(f.Method, r.base.String()+r.replaceSID(f.URL), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var header map[string]string
	_ = json.Unmarshal(f.Headers, &header)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	go func() {
		resp, err := r.client.Do(req)
		if err != nil {
			ch <- httpAnswer{body: err.Error()}
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		ch <- httpAnswer{resp.StatusCode, string(b), resp.Header.Get("Content-Type")}
	}()
}

// take takes the answer to a waiting GET, if it is there.
func (r *replay) take(p *polled) {
	select {
	case a := <-p.waiting:
		p.waiting = nil
		if !p.bye {
			p.got = append(p.got, r.packets(a.body, a.kind)...)
		}
	default:
	}
}

// packets takes a polling body apart; noops and the server's numbers are left out.
func (r *replay) packets(body, kind string) (list []string) {
	decode := wire.DecodeText
	if kind == wire.BinaryType {
		decode = wire.DecodeBinary
	}
	if err := decode([]byte(body), func(p wire.Packet) error {
		text := kind + string(p.Raw)
		if p.Type == wire.Noop {
			return nil
		}
		if m := askPattern.FindStringSubmatch(string(p.Raw)); m != nil {
			text = strings.Replace(text, "42"+m[1], "42?", 1)
		}
		list = append(list, text)
		return nil
	}); err != nil {
		list = append(list, "no payload: "+body)
	}
	return list
}

func (r *replay) response(t *testing.T, i int, f startest.Frame) {
	t.Helper()
	want := string(f.Body.Bytes())
	sid := r.requested[f.Req]
	var header struct {
		Type string `json:"content-type"`
	}
	_ = json.Unmarshal(f.Headers, &header)
	if p := r.polls[sid]; p != nil && want != "ok" {
		if !p.bye {
			p.want = append(p.want, r.packets(want, header.Type)...)
		}
		r.take(p)
		r.learnAcks(f, p)
		return
	}
	got := <-r.posts[f.Req]
	if sid == "" {
		m, g := sidPattern.FindStringSubmatch(want), sidPattern.FindStringSubmatch(got.body)
		if m == nil || g == nil {
			t.Fatalf("handshake %d: %q, want %q", i, got.body, want)
		}
		r.sids[m[1]], r.polls[m[1]] = g[1], &polled{}
		got.body = strings.Replace(got.body, g[1], m[1], 1)
	}
	if status, _ := f.Status.(float64); got.body != want || got.status != int(status) || got.kind != header.Type {
		t.Errorf("response %d is %d %s %q, want %v %s %q", i, got.status, got.kind, got.body, f.Status, header.Type, want)
	}
}

// learnAcks notes the number of the server's question, which the client's answer
// then names.
func (r *replay) learnAcks(f startest.Frame, p *polled) {
	if m := regexp.MustCompile(`:42(\d+)\["ss-incomming"`).FindStringSubmatch(string(f.Body.Bytes())); m != nil {
		r.acks[f.Req] = map[string]string{m[1]: "0"} // ours counts for each connection
	}
}
