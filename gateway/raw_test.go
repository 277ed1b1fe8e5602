package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/gateway/gatewaytest"
)

// raw is a WebSocket by hand: what is sent is what the test writes.
type raw struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
}

func dialRaw(t testing.TB, s *gatewaytest.Server, header ...string) *raw {
	t.Helper()
	conn, err := dialConn(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil { // the longest, of a million fragments, is all computing
		t.Fatal(err)
	}
	r := &raw{t: t, conn: conn, br: bufio.NewReader(conn)}
	var req bytes.Buffer
	fmt.Fprintf(&req, "GET /ws HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", strings.TrimPrefix(s.URL, "http://"), s.Header.Get("Authorization"))
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(&req, "%s: %s\r\n", header[i], header[i+1])
	}
	req.WriteString("\r\n")
	r.send(req.Bytes())
	resp, err := http.ReadResponse(r.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if ext := resp.Header.Get("Sec-WebSocket-Extensions"); ext != "" {
		t.Fatalf("extensions %q were agreed on", ext)
	}
	return r
}

func dialConn(s *gatewaytest.Server) (net.Conn, error) {
	if s.Pipes != nil {
		return s.Pipes.Dial()
	}
	return net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// The opcodes, and the bits beside them.
const (
	opCont, opText, opBinary, opClose, opPing, opPong = 0, 1, 2, 8, 9, 10
	fin, rsv1, rsv2, rsv3                             = 0x80, 0x40, 0x20, 0x10
)

// frame makes a masked frame with the shortest length.
func frame(first byte, payload string) []byte {
	n := len(payload)
	head := []byte{first}
	switch {
	case n < 126:
		head = append(head, 0x80|byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 0x80|126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 0x80|127), uint64(n))
	}
	mask := []byte{1, 2, 3, 4}
	head = append(head, mask...)
	for i := range n {
		head = append(head, payload[i]^mask[i%4])
	}
	return head
}

// claim makes the head of a masked frame that claims n bytes.
func claim(first byte, n uint64) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, n), 1, 2, 3, 4)
}

// read reads a frame from the gateway.
func (r *raw) read() (first byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r.br, head[:]); err != nil {
		return 0, nil, err
	}
	if head[1]&0x80 != 0 {
		r.t.Fatal("the gateway masks")
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var ext [2]byte
		_, err = io.ReadFull(r.br, ext[:])
		n = uint64(binary.BigEndian.Uint16(ext[:]))
	case 127:
		var ext [8]byte
		_, err = io.ReadFull(r.br, ext[:])
		n = binary.BigEndian.Uint64(ext[:])
	}
	if err != nil || n > 64<<20 {
		return 0, nil, fmt.Errorf("frame of %d bytes: %w", n, err)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r.br, payload)
	return head[0], payload, err
}

// outcome is what came until the socket ended: pongs, texts, and the close code
// (0 for a close frame without one, -1 for none).
type outcome struct {
	texts, pongs []string
	code         int
	reason       string
}

func (r *raw) outcome() outcome { return r.until(-1) }

// until is outcome, but the socket is closed with 1000 once n texts and pongs
// have come.
func (r *raw) until(n int) (o outcome) {
	for {
		if len(o.texts)+len(o.pongs) == n {
			r.send(frame(fin|opClose, "\x03\xe8"))
			n = -1
		}
		first, payload, err := r.read()
		if err != nil {
			o.code = -1
			return o
		}
		switch first &^ fin {
		case opText:
			o.texts = append(o.texts, string(payload))
		case opPong:
			o.pongs = append(o.pongs, string(payload))
		case opClose:
			if len(payload) >= 2 {
				o.code, o.reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
			}
			return o
		}
	}
}

const (
	unknown  = `{"requestid":1,"method":"x","isresponse":false}`
	answered = `{"requestid":1,"method":"","error":{"code":400,"message":"unknown method: x"},"isresponse":true}`
)

// TestAbuse19_RFC6455 is our own table of the standard's rules. Where the
// library is more lenient the row says so.
func TestAbuse19_RFC6455(t *testing.T) {
	s := gatewaytest.Start(t)
	all := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	tests := []struct {
		name  string
		sent  []byte
		code  int
		texts int
		pongs []string
	}{
		{"a text", all(frame(fin|opText, unknown)), 1000, 1, nil},
		{"a text in a binary message", all(frame(fin|opBinary, unknown)), 1000, 1, nil},
		{"an empty text is malformed, no more", all(frame(fin|opText, ""), frame(fin|opText, unknown)), 1000, 1, nil},
		{"fragments", all(frame(opText, unknown[:5]), frame(opCont, unknown[5:9]), frame(fin|opCont, unknown[9:])), 1000, 1, nil},
		{"empty fragments", all(frame(opText, ""), frame(opCont, unknown), frame(opCont, ""), frame(fin|opCont, "")), 1000, 1, nil},
		{"a ping between fragments", all(frame(opText, unknown[:5]), frame(fin|opPing, "p"), frame(fin|opCont, unknown[5:])), 1000, 1, []string{"p"}},
		{"ping of 125 bytes", all(frame(fin|opPing, strings.Repeat("p", 125))), 1000, 0, []string{strings.Repeat("p", 125)}},
		{"an empty ping", all(frame(fin|opPing, "")), 1000, 0, []string{""}},
		{"a pong that nobody asked for", all(frame(fin|opPong, "x"), frame(fin|opText, unknown)), 1000, 1, nil},
		{"ping of 126 bytes", frame(fin|opPing, strings.Repeat("p", 126)), 1002, 0, nil},
		{"a fragmented ping", frame(opPing, "p"), 1002, 0, nil},
		{"a fragmented close", frame(opClose, "\x03\xe8"), 1002, 0, nil},
		{"reserved bit 1, which is deflate's", frame(fin|rsv1|opText, unknown), 1002, 0, nil},
		{"reserved bit 2", frame(fin|rsv2|opText, unknown), 1002, 0, nil},
		{"reserved bit 3", frame(fin|rsv3|opText, unknown), 1002, 0, nil},
		{"reserved bit in a ping", frame(fin|rsv1|opPing, ""), 1002, 0, nil},
		{"opcode 3", frame(fin|3, ""), 1002, 0, nil},
		{"opcode 7", frame(fin|7, ""), 1002, 0, nil},
		{"opcode 11", frame(fin|11, ""), 1002, 0, nil},
		{"opcode 15", frame(fin|15, ""), 1002, 0, nil},
		{"a continuation of nothing", frame(fin|opCont, "x"), 1002, 0, nil},
		{"a text inside a fragmented text", all(frame(opText, "x"), frame(fin|opText, unknown)), 1002, 0, nil},
		{"close 1000", frame(fin|opClose, "\x03\xe8bye"), 1000, 0, nil},
		{"close without a code", frame(fin|opClose, ""), 0, 0, nil},
		{"close 3000", frame(fin|opClose, "\x0b\xb8"), 3000, 0, nil},
		{"close 4999", frame(fin|opClose, "\x13\x87"), 4999, 0, nil},
		{"close with half a code", frame(fin|opClose, "\x03"), 1002, 0, nil},
		{"close 999", frame(fin|opClose, "\x03\xe7"), 1002, 0, nil},
		{"close 1004", frame(fin|opClose, "\x03\xec"), 1002, 0, nil},
		{"close 1005", frame(fin|opClose, "\x03\xed"), 1002, 0, nil},
		{"close 1006", frame(fin|opClose, "\x03\xee"), 1002, 0, nil},
		{"close 1016", frame(fin|opClose, "\x03\xf8"), 1002, 0, nil},
		{"close 2999", frame(fin|opClose, "\x0b\xb7"), 1002, 0, nil},
		{"close 5000", frame(fin|opClose, "\x13\x88"), 1002, 0, nil},
		// RFC 6455 §5.2 asks for the shortest form; the library takes any.
		{"a length longer than it need be", all([]byte{fin | opText, 0x80 | 126, 0, byte(len(unknown)), 0, 0, 0, 0}, []byte(unknown)), 1000, 1, nil},
		// RFC 6455 §5.5.1 asks for UTF-8 in the reason; the library gives it back as it came.
		{"close with a reason that isn't UTF-8", frame(fin|opClose, "\x03\xe8\xff"), 1000, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := dialRaw(t, s)
			r.send(tt.sent)
			wait := -1
			if tt.texts+len(tt.pongs) > 0 {
				wait = tt.texts + len(tt.pongs)
			}
			o := r.until(wait)
			if o.code != tt.code || len(o.texts) != tt.texts || strings.Join(o.pongs, ",") != strings.Join(tt.pongs, ",") {
				t.Errorf("closed with %d %q, %d texts, pongs %q; want %d, %d, %q", o.code, o.reason, len(o.texts), o.pongs, tt.code, tt.texts, tt.pongs)
			}
			for _, text := range o.texts {
				if text != answered {
					t.Errorf("got %s", text)
				}
			}
		})
	}
}

func TestAbuse10_FrameLengthOverflow(t *testing.T) {
	s := gatewaytest.Start(t)
	for _, sub := range []string{"", "parley.v2"} {
		for _, n := range []uint64{1<<63 - 1, 1 << 40, 64<<10 + 1} {
			r := dialRaw(t, s, "Sec-WebSocket-Protocol", sub)
			r.send(claim(fin|opBinary, n))
			r.send(make([]byte, 64<<10+2)) // the claim alone costs nothing; what counts is what comes
			if o := r.outcome(); o.code != 1009 {
				t.Errorf("%q, %d bytes claimed: closed with %d %q, want 1009", sub, n, o.code, o.reason)
			}
		}
		for _, n := range []uint64{1 << 63, 1<<64 - 1} {
			r := dialRaw(t, s, "Sec-WebSocket-Protocol", sub)
			r.send(claim(fin|opBinary, n))
			if o := r.outcome(); o.code != 1002 {
				t.Errorf("%q, %d bytes claimed: closed with %d %q, want 1002", sub, n, o.code, o.reason)
			}
		}
	}
}

func TestAbuse11_FragmentsOfOneByte(t *testing.T) {
	s := gatewaytest.Start(t)
	t.Run("within the limit they are put together", func(t *testing.T) {
		r := dialRaw(t, s)
		padded := strings.Repeat(" ", 30_000) + unknown
		var all bytes.Buffer
		all.Write(frame(opText, ""))
		for i := range len(padded) {
			all.Write(frame(opCont, padded[i:i+1]))
		}
		all.Write(frame(fin|opCont, ""))
		r.send(all.Bytes())
		if o := r.until(1); o.code != 1000 || len(o.texts) != 1 {
			t.Errorf("closed with %d %q, %d texts", o.code, o.reason, len(o.texts))
		}
	})
	t.Run("a million are too many", func(t *testing.T) {
		r := dialRaw(t, s)
		ended := make(chan outcome, 1)
		go func() { ended <- r.outcome() }()
		_, _ = r.conn.Write(frame(opText, "x"))
		some := bytes.Repeat(frame(opCont, "x"), 10_000)
		for range 100 {
			if _, err := r.conn.Write(some); err != nil {
				break // closed on the way
			}
		}
		if o := <-ended; o.code != 1009 {
			t.Errorf("closed with %d %q, want 1009", o.code, o.reason)
		}
	})
}

func TestAbuse12_UnmaskedFrame(t *testing.T) {
	s := gatewaytest.Start(t)
	for _, first := range []byte{fin | opText, fin | opBinary, fin | opPing, fin | opClose} {
		r := dialRaw(t, s)
		r.send(append([]byte{first, byte(len(unknown))}, unknown...))
		if o := r.outcome(); o.code != 1002 || len(o.texts) > 0 {
			t.Errorf("opcode %d: closed with %d %q, want 1002", first&15, o.code, o.reason)
		}
	}
}

func TestAbuse13_TextThatIsNotUTF8(t *testing.T) {
	s := gatewaytest.Start(t)
	for name, text := range map[string]string{
		"a lone byte": "{\"requestid\":1,\"method\":\"\xff\"}", "a surrogate": "\"\xed\xa0\x80\"", "overlong": "\"\xc0\xaf\"",
		"beyond Unicode": "\"\xf4\x90\x80\x80\"", "cut off": "\"\xe2\x82",
	} {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, s)
			r.send(frame(fin|opText, text))
			if o := r.outcome(); o.code != 1007 {
				t.Errorf("closed with %d %q, want 1007", o.code, o.reason)
			}
		})
	}
	t.Run("a character over two fragments", func(t *testing.T) {
		r := dialRaw(t, s)
		text := strings.Replace(unknown, `"x"`, `"ü"`, 1)
		i := strings.IndexByte(text, 0xc3) + 1
		r.send(frame(opText, text[:i]))
		r.send(frame(fin|opCont, text[i:]))
		if o := r.until(1); o.code != 1000 || len(o.texts) != 1 {
			t.Errorf("closed with %d %q, %d texts", o.code, o.reason, len(o.texts))
		}
	})
}

func TestAbuse14_DeflateIsNotSpoken(t *testing.T) {
	s := gatewaytest.Start(t)
	// Offered by every browser; dialRaw fails where it is agreed on.
	r := dialRaw(t, s, "Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
	r.send(frame(fin|rsv1|opText, "\xaa\x56\x2a\x4b"))
	if o := r.outcome(); o.code != 1002 {
		t.Errorf("closed with %d %q, want 1002", o.code, o.reason)
	}
}

func TestAbuse15_PingFlood(t *testing.T) {
	inBubble(t, gateway.Config{}, func(t *testing.T, s *gatewaytest.Server) {
		other := dialRaw(t, s)
		r := dialRaw(t, s)
		go func() { _, _ = r.conn.Write(bytes.Repeat(frame(fin|opPing, "p"), 1000)) }() // until it is closed
		if o := r.outcome(); o.code != 1008 || len(o.pongs) != 50 {
			t.Errorf("closed with %d %q after %d pongs, want 1008 after 50", o.code, o.reason, len(o.pongs))
		}
		go func() {
			_, _ = other.conn.Write(frame(fin|opPing, "p"))
			_, _ = other.conn.Write(frame(fin|opText, unknown))
		}()
		if o := other.until(2); o.code != 1000 || len(o.pongs) != 1 || len(o.texts) != 1 {
			t.Errorf("another page: %+v", o)
		}
	})
}

func TestAbuse16_CloseStorm(t *testing.T) {
	s := gatewaytest.Start(t)
	for range 20 {
		r := dialRaw(t, s)
		r.send(bytes.Repeat(frame(fin|opClose, "\x03\xe8"), 100))
		if o := r.outcome(); o.code != 1000 {
			t.Errorf("closed with %d %q", o.code, o.reason)
		}
	}
	// Start's cleanup fails where a session is left, TestMain where a goroutine is.
}
