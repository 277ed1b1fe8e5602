package ws_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The cases follow the groups of the Autobahn test suite (1 framing, 2 pings,
// 3 reserved bits, 4 opcodes, 5 fragments, 6 UTF-8, 7 closing, 9 limits), against
// an endpoint that echoes. Each runs on TCP and on a pipe, in one write and in
// single bytes.

const echoLimit = 1 << 20

// echo serves c as RFC 6455 asks and sends every message back.
func echo(c *ws.Conn) {
	defer c.NetConn().Close()
	defer c.Release()
	hello := c.Batch() // the answer to the handshake, where there was one
	if err := hello.Flush(nil); err != nil {
		return
	}
	hello.Done()
	for {
		m, err := c.Read()
		b := c.Batch()
		switch {
		case err != nil:
			var ce *ws.CloseError
			if !errors.As(err, &ce) {
				return
			}
			b.Add(ws.Close, ws.ClosePayload(ce.Code, ""))
		case m.Op == ws.Ping:
			b.Add(ws.Pong, m.Data)
		case m.Op == ws.Close:
			code, _, err := ws.ParseClose(m.Data)
			var ce *ws.CloseError
			if errors.As(err, &ce) {
				code = ce.Code
			}
			b.Add(ws.Close, ws.ClosePayload(code, ""))
		case m.Op != ws.Pong:
			b.Add(m.Op, m.Data)
		}
		failed := b.Flush(nil)
		b.Done()
		m.Buf.Free()
		if failed != nil || err != nil || m.Op == ws.Close {
			return
		}
	}
}

// frame is a frame on the wire: op 0x1, fin and reserved bits in the high half.
type frame struct {
	first   byte
	payload []byte
}

func (f frame) String() string {
	if len(f.payload) > 40 {
		return fmt.Sprintf("%02x(%d bytes)", f.first, len(f.payload))
	}
	return fmt.Sprintf("%02x(%q)", f.first, f.payload)
}

func fr(first byte, payload string) frame { return frame{first, []byte(payload)} }

func closing(code int, reason string) frame { return frame{0x88, ws.ClosePayload(code, reason)} }

// masked writes f as a client does.
func masked(dst []byte, f frame) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	dst = append(dst, f.first)
	switch n := len(f.payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0xfe), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0xff), uint64(n))
	}
	dst = append(dst, key[:]...)
	for i, b := range f.payload {
		dst = append(dst, b^key[i&3])
	}
	return dst
}

// readFrames reads what a server wrote until the connection ends.
func readFrames(r io.Reader) (frames []frame, err error) {
	br := bufio.NewReader(r)
	for {
		var h [2]byte
		if _, err := io.ReadFull(br, h[:]); err != nil {
			return frames, nil
		}
		n := uint64(h[1])
		switch {
		case n > 127:
			return frames, errors.New("a masked frame from the server")
		case n == 126:
			var b [2]byte
			_, err = io.ReadFull(br, b[:])
			n = uint64(binary.BigEndian.Uint16(b[:]))
		case n == 127:
			var b [8]byte
			_, err = io.ReadFull(br, b[:])
			n = binary.BigEndian.Uint64(b[:])
		}
		f := frame{first: h[0], payload: make([]byte, n)}
		if err == nil {
			_, err = io.ReadFull(br, f.payload)
		}
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func exchange(t *testing.T, tcp, single bool, raw []byte) []frame {
	t.Helper()
	var mem ws.Memory
	client, server := net.Pipe()
	if tcp {
		client, server = tcpPair(t)
	}
	defer client.Close()
	done := make(chan struct{})
	go func() { defer close(done); echo(ws.NewConn(server, true, nil, echoLimit, &mem)) }()
	go func() {
		step := len(raw)
		if single {
			step = 1
		}
		for i := 0; i < len(raw); i += max(step, 1) {
			if _, err := client.Write(raw[i:min(i+step, len(raw))]); err != nil {
				return // the other end has closed, which the frames show
			}
		}
		if cw, ok := client.(*net.TCPConn); ok {
			cw.CloseWrite()
		}
	}()
	frames, err := readFrames(client)
	if err != nil {
		t.Errorf("after %v: %v", frames, err)
	}
	client.Close()
	<-done
	if mem.Used() != 0 {
		t.Errorf("%d bytes still lent", mem.Used())
	}
	return frames
}

type conformanceCase struct {
	name string
	in   []frame
	raw  []byte // instead of in
	want []frame
}

func conformanceCases() []conformanceCase {
	bye, big := closing(1000, ""), strings.Repeat("*", 65536)
	echoed := func(name string, f frame) conformanceCase {
		return conformanceCase{name: name, in: []frame{f, bye}, want: []frame{f, bye}}
	}
	fails := func(name string, code int, in ...frame) conformanceCase {
		return conformanceCase{name: name, in: in, want: []frame{closing(code, "")}}
	}
	cases := []conformanceCase{
		echoed("2.1 empty ping comes back", fr(0x81, "x")),
		{name: "2.2 ping with data", in: []frame{fr(0x89, "\x00\xffping"), bye}, want: []frame{fr(0x8a, "\x00\xffping"), bye}},
		{name: "2.4 ping of 125", in: []frame{fr(0x89, big[:125]), bye}, want: []frame{fr(0x8a, big[:125]), bye}},
		fails("2.5 ping of 126", 1002, fr(0x89, big[:126])),
		{name: "2.7 pong is ignored", in: []frame{fr(0x8a, "x"), bye}, want: []frame{bye}},
		{name: "2.10 ten pings", in: append(repeat(fr(0x89, "p"), 10), bye), want: append(repeat(fr(0x8a, "p"), 10), bye)},
		fails("3.1 rsv3", 1002, fr(0x91, "x")), fails("3.2 rsv2", 1002, fr(0xa1, "x")), fails("3.5 rsv1", 1002, fr(0xc1, "x")),
		fails("3.7 rsv on close", 1002, fr(0xf8, "")),
		{name: "3.4 text before a bad frame", in: []frame{fr(0x81, "a"), fr(0xb1, "x")}, want: []frame{fr(0x81, "a"), closing(1002, "")}},
		{name: "5.1 fragmented ping", in: []frame{fr(0x09, "a"), fr(0x80, "b")}, want: []frame{closing(1002, "")}},
		{name: "5.3 two fragments", in: []frame{fr(0x01, "a"), fr(0x80, "b"), bye}, want: []frame{fr(0x81, "ab"), bye}},
		{name: "5.6 ping between", in: []frame{fr(0x02, "a"), fr(0x89, "p"), fr(0x80, "b"), bye}, want: []frame{fr(0x8a, "p"), fr(0x82, "ab"), bye}},
		fails("5.9 continuation of nothing", 1002, fr(0x80, "b")), fails("5.10 same, not last", 1002, fr(0x00, "b")),
		fails("5.15 text inside text", 1002, fr(0x01, "a"), fr(0x81, "b")),
		{name: "5.19 many fragments and pings", in: []frame{fr(0x01, "1"), fr(0x00, "2"), fr(0x89, "p"), fr(0x00, ""), fr(0x80, "3"), bye},
			want: []frame{fr(0x8a, "p"), fr(0x81, "123"), bye}},
		{name: "5.20 empty fragments", in: []frame{fr(0x01, ""), fr(0x00, ""), fr(0x80, ""), bye}, want: []frame{fr(0x81, ""), bye}},
		echoed("6.2 unicode", fr(0x81, "Hello-µ@ßöäüàá-UTF-8!!\U0010ffff")),
		{name: "6.2.3 a character in two fragments", in: []frame{fr(0x01, "\xf0\x9f"), fr(0x80, "\x98\x80"), bye}, want: []frame{fr(0x81, "😀"), bye}},
		echoed("6.x binary may be anything", fr(0x82, "\xff\xfe\x00")),
		{name: "7.1 nothing after close", in: []frame{bye, fr(0x81, "x")}, want: []frame{bye}},
		{name: "7.3.1 empty close", in: []frame{fr(0x88, "")}, want: []frame{fr(0x88, "")}},
		fails("7.3.2 close of one byte", 1002, fr(0x88, "a")),
		{name: "7.3.5 reason of 123", in: []frame{closing(1000, big[:123])}, want: []frame{bye}},
		fails("7.3.6 close of 126", 1002, fr(0x88, "\x03\xe8"+big[:124])),
		fails("7.5.1 reason not UTF-8", 1007, fr(0x88, "\x03\xe8\xff")),
		fails("9 over the limit", 1009, fr(0x82, strings.Repeat("x", echoLimit+1))),
		fails("9 over the limit in fragments", 1009, fr(0x02, strings.Repeat("x", echoLimit)), fr(0x80, "x")),
		echoed("9 at the limit", fr(0x82, strings.Repeat("x", echoLimit))),
		{name: "unmasked", raw: []byte{0x81, 1, 'x'}, want: []frame{closing(1002, "")}},
		{name: "half a header", raw: []byte{0x81}}, {name: "half a payload", raw: masked(nil, fr(0x81, "abc"))[:7]},
		{name: "half a large payload", raw: masked(nil, fr(0x82, big))[:30000]},
		{name: "end inside a message", raw: masked(nil, fr(0x01, "abc"))},
	}
	for _, n := range []int{0, 125, 126, 127, 128, 4096, 4097, 65535, 65536} {
		cases = append(cases, echoed(fmt.Sprintf("1 text of %d", n), fr(0x81, big[:n])), echoed(fmt.Sprintf("1 binary of %d", n), fr(0x82, big[:n])))
	}
	// The standard asks for the shortest form of a length; any is taken, but not by control frames.
	wide := func(first byte, size int, payload string) []byte {
		head := []byte{first, 0xfe}
		if size == 2 {
			head = binary.BigEndian.AppendUint16(head, uint16(len(payload)))
		} else {
			head[1] = 0xff
			head = binary.BigEndian.AppendUint64(head, uint64(len(payload)))
		}
		return append(append(head, 0, 0, 0, 0), payload...)
	}
	end := masked(nil, bye)
	cases = append(cases,
		conformanceCase{name: "1 a length in 2 bytes that needs none", raw: append(wide(0x81, 2, "abc"), end...), want: []frame{fr(0x81, "abc"), bye}},
		conformanceCase{name: "1 a length in 8 bytes that needs none", raw: append(wide(0x81, 8, "abc"), end...), want: []frame{fr(0x81, "abc"), bye}},
		conformanceCase{name: "1 a length in 8 bytes that needs 2", raw: append(wide(0x82, 8, big[:300]), end...), want: []frame{fr(0x82, big[:300]), bye}},
		conformanceCase{name: "2 a ping whose length has 2 bytes", raw: wide(0x89, 2, "p"), want: []frame{closing(1002, "")}},
		conformanceCase{name: "7 a close whose length has 8 bytes", raw: wide(0x88, 8, "\x03\xe8"), want: []frame{closing(1002, "")}},
		fails("3 rsv in a continuation", 1002, fr(0x01, "a"), fr(0xc0, "b")), fails("3 all rsv bits", 1002, fr(0xf2, "a")),
		fails("5 fragmented pong", 1002, fr(0x0a, "a")), fails("5 fragmented close", 1002, fr(0x08, "\x03\xe8")),
		fails("5 binary inside text", 1002, fr(0x01, "a"), fr(0x02, "b")), fails("2 pong of 126", 1002, fr(0x8a, big[:126])),
		conformanceCase{name: "5 pong between", in: []frame{fr(0x01, "a"), fr(0x8a, "p"), fr(0x80, "b"), bye}, want: []frame{fr(0x81, "ab"), bye}},
		conformanceCase{name: "7 close between fragments", in: []frame{fr(0x01, "a"), bye}, want: []frame{bye}},
		conformanceCase{name: "5 unmasked continuation", raw: append(masked(nil, fr(0x01, "a")), 0x80, 1, 'b'), want: []frame{closing(1002, "")}},
		conformanceCase{name: "5 continuation after a message", in: []frame{fr(0x81, "a"), fr(0x80, "b")}, want: []frame{fr(0x81, "a"), closing(1002, "")}},
	)
	for i := range 5 {
		in := []frame{fr(0x01, "a😀b"[:1+i]), fr(0x8a, ""), fr(0x80, "a😀b"[1+i:]), bye}
		cases = append(cases, conformanceCase{name: fmt.Sprintf("6 a character cut after %d bytes", i), in: in, want: []frame{fr(0x81, "a😀b"), bye}})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		cases = append(cases, fails(fmt.Sprintf("4 opcode %d", op), 1002, fr(0x80|op, "")), fails(fmt.Sprintf("4 opcode %d with data", op), 1002, fr(0x80|op, "x")))
	}
	for i, bad := range []string{"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "ok\xe2\x82", "\x80"} {
		cases = append(cases, fails(fmt.Sprintf("6 bad text %d", i), 1007, fr(0x81, bad)), fails(fmt.Sprintf("6 bad text %d in fragments", i), 1007, fr(0x01, bad[:1]), fr(0x80, bad[1:])))
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		cases = append(cases, conformanceCase{name: fmt.Sprintf("7.7 close %d", code), in: []frame{closing(code, "r")}, want: []frame{closing(code, "")}})
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		payload := binary.BigEndian.AppendUint16(nil, uint16(code))
		cases = append(cases, fails(fmt.Sprintf("7.9 close %d", code), 1002, frame{0x88, payload}))
	}
	return cases
}

func repeat(f frame, n int) (out []frame) {
	for range n {
		out = append(out, f)
	}
	return out
}

// TestAbuse19_RFC6455 is our own table of the standard's rules.
func TestAbuse19_RFC6455(t *testing.T) {
	for _, c := range conformanceCases() {
		raw := c.raw
		for _, f := range c.in {
			raw = masked(raw, f)
		}
		for _, way := range []struct {
			name        string
			tcp, single bool
		}{{"tcp", true, false}, {"pipe", false, false}, {"tcp in single bytes", true, true}, {"pipe in single bytes", false, true}} {
			if way.single && len(raw) > 1000 || len(c.in) == 0 && !way.tcp {
				continue // a pipe can't be closed for writing alone
			}
			t.Run(c.name+" "+way.name, func(t *testing.T) {
				got := exchange(t, way.tcp, way.single, raw)
				if len(got) != len(c.want) {
					t.Fatalf("got %v, want %v", got, c.want)
				}
				for i := range got {
					if got[i].first != c.want[i].first || !bytes.Equal(got[i].payload, c.want[i].payload) {
						t.Errorf("frame %d is %v, want %v", i, got[i], c.want[i])
					}
				}
			})
		}
	}
}

func TestAbuse10_FrameLengthOverflow(t *testing.T) {
	for _, length := range []uint64{1<<63 - 1, 1 << 63, 1<<64 - 1, 1 << 40} {
		raw := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, length)
		raw = append(raw, 1, 2, 3, 4)
		var mem ws.Memory
		client, server := tcpPair(t)
		if _, err := client.Write(raw); err != nil {
			t.Fatal(err)
		}
		c := ws.NewConn(server, true, nil, echoLimit, &mem)
		_, err := c.Read()
		var ce *ws.CloseError
		want := ws.CodeTooLarge
		if length >= 1<<63 {
			want = ws.CodeProtocol
		}
		if !errors.As(err, &ce) || ce.Code != want {
			t.Errorf("length %d: %v, want close %d", length, err, want)
		}
		if mem.Used() > 32<<10 {
			t.Errorf("length %d took %d bytes", length, mem.Used())
		}
		c.Release()
		client.Close()
		server.Close()
	}
}

// A million fragments of one byte are one message within the limit, and what is
// held is bounded by it.
func TestAbuse11_OneByteFragments(t *testing.T) {
	const n = 1_000_000
	var mem ws.Memory
	client, server := tcpPair(t)
	defer client.Close()
	defer server.Close()
	go func() {
		w := bufio.NewWriterSize(client, 1<<16)
		var b []byte
		for i := range n {
			first := byte(0x00)
			if i == 0 {
				first = 0x02
			} else if i == n-1 {
				first = 0x80
			}
			b = masked(b[:0], fr(first, "x"))
			w.Write(b)
		}
		w.Flush()
	}()
	c := ws.NewConn(server, true, nil, echoLimit, &mem)
	m, err := c.Read()
	if err != nil || len(m.Data) != n {
		t.Fatalf("%d bytes, %v", len(m.Data), err)
	}
	if mem.Used() > 4*echoLimit {
		t.Errorf("%d bytes lent", mem.Used())
	}
	m.Buf.Free()
	c.Release()
}

// spy calls back before each read.
type spy struct {
	net.Conn
	before func()
}

func (s spy) Read(b []byte) (int, error) { s.before(); return s.Conn.Read(b) }

// A claimed length costs memory only as its bytes come.
func TestClaimedLengthCostsLittle(t *testing.T) {
	var mem ws.Memory
	client, server := net.Pipe()
	defer client.Close()
	most := int64(0)
	c := ws.NewConn(spy{server, func() { most = max(most, mem.Used()) }}, true, nil, echoLimit, &mem)
	done := make(chan struct{})
	go func() { defer close(done); c.Read() }()
	claim := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, echoLimit)
	if _, err := client.Write(append(claim, 1, 2, 3, 4, 5)); err != nil {
		t.Fatal(err)
	}
	server.Close()
	<-done
	if most > 32<<10 {
		t.Errorf("%d bytes lent for one byte of a claimed megabyte", most)
	}
	c.Release()
	if mem.Used() != 0 {
		t.Errorf("%d bytes still lent", mem.Used())
	}
}

// TestAbuse14_DeflateIsNotSpoken: compression, which every browser offers, isn't
// agreed on, and a compressed message ends the connection.
func TestAbuse14_DeflateIsNotSpoken(t *testing.T) {
	var mem ws.Memory
	srv := echoServer(t, &mem)
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Fatalf("%+v, %v", resp, err)
	}
	if _, err := c.Write(masked(nil, fr(0xc1, "\xaa\x56\x2a\x4b"))); err != nil {
		t.Fatal(err)
	}
	want := closing(1002, "")
	if got, err := readFrames(br); err != nil || len(got) != 1 || got[0].first != want.first || !bytes.Equal(got[0].payload, want.payload) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}
