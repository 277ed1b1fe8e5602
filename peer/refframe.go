package peer

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"

	"github.com/parley-p2p/parley/network"
)

// The frames of the reference (gateway.md §5.2): 4 bytes length, big-endian,
// and that many bytes of JSON.
//
//	{"type":"data","id":"…","data":"<base64 of the message's JSON text>"}
//	{"type":"ack","id":"…"}

// refFrame is one frame of the reference.
type refFrame struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data []byte `json:"data"`
}

const (
	refData = "data"
	refAck  = "ack"

	maxRefID = 1 << 10 // bytes of an id
)

// refLimit is the longest frame for messages of up to maxMessage bytes.
func refLimit(maxMessage int) int { return maxMessage/3*4 + 1<<10 }

// appendRefData appends a data frame; id must need no escapes.
func appendRefData(dst []byte, id string, text []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, `{"type":"data","id":"`...)
	dst = append(dst, id...)
	dst = append(dst, `","data":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, text)
	dst = append(dst, `"}`...)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// appendRefAck appends an ack frame for any id.
func appendRefAck(dst []byte, id string) []byte {
	quoted, err := json.Marshal(id)
	if err != nil {
		return dst // a string always has a JSON form
	}
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, `{"type":"ack","id":`...)
	dst = append(dst, quoted...)
	dst = append(dst, '}')
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// refReader reads frames. The reference writes a frame in two pieces, its length
// and its body, and locks nothing between: where it sends and acknowledges at the
// same time, another frame's pieces stand behind the length of the first. Two
// lengths in a row, which no JSON text begins like, tell it from a broken frame.
type refReader struct {
	br    *bufio.Reader
	limit int // of a frame, and of two that are mixed
	next  *refFrame
}

func newRefReader(r io.Reader, limit int) *refReader {
	return &refReader{br: bufio.NewReaderSize(r, maxControl), limit: limit}
}

// here reports whether a whole frame can be read without waiting.
func (r *refReader) here() bool { return r.next != nil || refFrameHere(r.br) }

// await waits for the first byte of the next frame.
func (r *refReader) await() error {
	if r.next != nil {
		return nil
	}
	_, err := r.br.Peek(1)
	return err
}

// read reads one frame. Memory grows with the bytes that came.
func (r *refReader) read() (f refFrame, err error) {
	if r.next != nil {
		f, r.next = *r.next, nil
		return f, nil
	}
	size, err := r.length()
	if err != nil {
		return f, err
	}
	if first, err := r.br.Peek(1); err == nil && first[0] == 0 {
		return r.unmix(size)
	}
	body, err := readGrowing(r.br, size)
	if err != nil {
		return f, err
	}
	return parseRefFrame(body)
}

// length reads the length of a frame.
func (r *refReader) length() (int, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.br, head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	switch {
	case n == 0:
		return 0, badFrame("length 0")
	case int64(n) > int64(r.limit):
		return 0, badFrame("length over the limit")
	}
	return int(n), nil
}

// unmix reads two frames, the length of one of which has been read. Their bodies
// follow in either order; JSON says itself where the first ends.
func (r *refReader) unmix(one int) (f refFrame, err error) {
	other, err := r.length()
	if err != nil {
		return f, noEOF(err)
	}
	if one+other > r.limit {
		return f, badFrame("length over the limit")
	}
	bodies, err := readGrowing(r.br, one+other)
	if err != nil {
		return f, err
	}
	text := json.NewDecoder(bytes.NewReader(bodies))
	var first json.RawMessage
	if text.Decode(&first) != nil {
		return f, badFrame("not JSON")
	}
	at := len(first)
	if at != one && at != other {
		return f, badFrame("lengths that don't fit")
	}
	if f, err = parseRefFrame(bodies[:at]); err != nil {
		return f, err
	}
	second, err := parseRefFrame(bodies[at:])
	if err != nil {
		return f, err
	}
	r.next = &second
	return f, nil
}

// refFrameHere reports whether a whole frame can be read without waiting.
func refFrameHere(br *bufio.Reader) bool {
	if br.Buffered() < 4 {
		return false
	}
	head, err := br.Peek(4)
	return err == nil && uint64(br.Buffered()) >= 4+uint64(binary.BigEndian.Uint32(head))
}

func parseRefFrame(body []byte) (f refFrame, err error) {
	if json.Unmarshal(body, &f) != nil {
		return f, badFrame("not JSON")
	}
	switch {
	case f.ID == "" || len(f.ID) > maxRefID:
		return f, badFrame("no id, or one too long")
	case f.Type != refData && f.Type != refAck:
		return f, badFrame("unknown type")
	case f.Type == refData && !network.ValidJSON(f.Data):
		return f, badFrame("message is not JSON")
	}
	return f, nil
}
