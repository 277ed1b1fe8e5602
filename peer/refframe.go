package peer

import (
	"bufio"
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

// readRefFrame reads one frame. Memory grows with the bytes that came.
func readRefFrame(br *bufio.Reader, limit int) (f refFrame, err error) {
	var head [4]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return f, err
	}
	n := binary.BigEndian.Uint32(head[:])
	switch {
	case n == 0:
		return f, badFrame("length 0")
	case int64(n) > int64(limit):
		return f, badFrame("length over the limit")
	}
	body, err := readGrowing(br, int(n))
	if err != nil {
		return f, err
	}
	return parseRefFrame(body)
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
