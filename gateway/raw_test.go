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
	unknown = `{"requestid":1,"method":"x","isresponse":false}`
)

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
