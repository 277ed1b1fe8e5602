package page

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

// Socket is the client's end of a WebSocket (RFC 6455) that costs as little as
// it can: a message is masked where it stands and leaves in one system call, and
// is read straight into its place. One goroutine may read while others write.
type Socket struct {
	conn net.Conn
	br   *bufio.Reader // owned by the reader

	mu   sync.Mutex // guards writing
	head [14]byte
	key  [4]byte
}

// The opcodes that come and go here.
const (
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// DialSocket opens a WebSocket. The library shakes hands and is then left alone.
func DialSocket(ctx context.Context, url string, header http.Header, subprotocols ...string) (*Socket, error) {
	s := &Socket{}
	_, _ = rand.Read(s.key[:]) // never fails
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		s.conn = conn
		return conn, err
	}}
	_, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport},
		HTTPHeader: header, Subprotocols: subprotocols, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	s.br = bufio.NewReaderSize(s.conn, 16<<10)
	return s, nil
}

// Close ends the socket without a word.
func (s *Socket) Close() error { return s.conn.Close() }

// Write sends a binary message. Its bytes are masked in place and of no use
// afterwards.
func (s *Socket) Write(msg []byte) error { return s.frame(opBinary, msg) }

// Goodbye sends a close frame.
func (s *Socket) Goodbye() error { return s.frame(opClose, []byte{1000 >> 8, 1000 & 255}) }

func (s *Socket) frame(op byte, msg []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := append(s.head[:0], 0x80|op)
	switch n := len(msg); {
	case n < 126:
		h = append(h, 0x80|byte(n))
	case n < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, 0x80|126), uint16(n))
	default:
		h = binary.BigEndian.AppendUint64(append(h, 0x80|127), uint64(n))
	}
	h = append(h, s.key[:]...)
	mask(msg, s.key)
	if len(msg) < 4<<10 {
		var small [14 + 4<<10]byte
		_, err := s.conn.Write(append(append(small[:0], h...), msg...))
		return err
	}
	bufs := net.Buffers{h, msg}
	_, err := bufs.WriteTo(s.conn)
	return err
}

func mask(b []byte, key [4]byte) {
	word := uint64(binary.LittleEndian.Uint32(key[:]))
	word |= word << 32
	for len(b) >= 32 {
		for i := 0; i < 32; i += 8 {
			binary.LittleEndian.PutUint64(b[i:], binary.LittleEndian.Uint64(b[i:])^word)
		}
		b = b[32:]
	}
	for i := range b {
		b[i] ^= key[i&3]
	}
}

// Read appends the next message to buf; pings are answered meanwhile.
func (s *Socket) Read(buf []byte) ([]byte, error) {
	for {
		op, size, err := s.readHead()
		if err != nil {
			return buf, err
		}
		start := len(buf)
		if need := start + size; need > cap(buf) {
			buf = append(make([]byte, 0, need+need/4), buf...)
		}
		buf = buf[:start+size]
		if _, err := io.ReadFull(s.br, buf[start:]); err != nil {
			return buf, err
		}
		switch op & 15 {
		case opClose:
			return buf, fmt.Errorf("closed by the node: %q", buf[start:])
		case opPing:
			err = s.frame(opPong, buf[start:])
			fallthrough
		case opPong:
			buf = buf[:start]
		default:
			if op&0x80 != 0 {
				return buf, nil
			}
		}
		if err != nil {
			return buf, err
		}
	}
}

const mostRead = 64 << 20

func (s *Socket) readHead() (op byte, size int, err error) {
	var h [8]byte
	if _, err := io.ReadFull(s.br, h[:2]); err != nil {
		return 0, 0, err
	}
	op, size = h[0], int(h[1])
	switch size {
	case 126:
		_, err = io.ReadFull(s.br, h[:2])
		size = int(binary.BigEndian.Uint16(h[:]))
	case 127:
		_, err = io.ReadFull(s.br, h[:])
		size = int(min(binary.BigEndian.Uint64(h[:]), mostRead+1))
	}
	if err == nil && size > mostRead {
		err = errors.New("message too large")
	}
	return op, size, err
}
