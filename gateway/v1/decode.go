package v1

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"
)

// What a frame can be instead of a request.
var (
	// ErrMalformed is a frame that isn't an envelope: it is dropped and counted.
	ErrMalformed = errors.New("not a request")
	// ErrParams is answered with 400 "invalid params".
	ErrParams = errors.New("invalid params")
)

// Request is a request as it came. Params shares memory with the frame.
type Request struct {
	ID     int64
	Method string
	Params json.RawMessage // empty where absent or null
}

// envelope has its names spelled as they are written; they are read in any
// letter case.
type envelope struct {
	RequestID  int64           `json:"requestid"`
	Method     string          `json:"method"`
	Params     json.RawMessage `json:"params"`
	IsResponse bool            `json:"isresponse"` // read for its type alone: see gateway.md §2.2
}

// Decode reads a frame. With ErrParams the request's ID is set, so that it can
// be answered.
func Decode(frame []byte) (Request, error) {
	if !utf8.Valid(frame) || !object(frame) {
		return Request{}, ErrMalformed
	}
	var deep error
	if nesting(frame) > MaxNesting {
		frame, deep = prune(frame), ErrParams
	}
	var e envelope
	if json.Unmarshal(frame, &e) != nil {
		return Request{}, ErrMalformed
	}
	if bytes.Equal(e.Params, []byte("null")) {
		e.Params = nil
	}
	return Request{ID: e.RequestID, Method: e.Method, Params: e.Params}, deep
}

func object(frame []byte) bool {
	frame = bytes.TrimLeft(frame, " \t\r\n")
	return len(frame) > 0 && frame[0] == '{'
}

// nesting counts how deep arrays and objects are in one another, without
// recursion. For text that isn't JSON it gives some number.
func nesting(text []byte) int {
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return deepest
}

// prune leaves out what is nested too deep, so that the envelope around it can
// still be read and answered.
func prune(text []byte) []byte {
	const keep = 64
	short := make([]byte, 0, 1024)
	depth, quoted, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '[' || c == '{'):
			if depth++; depth == keep+1 {
				short = append(short, "null"...)
			}
		}
		if depth <= keep {
			short = append(short, c)
		}
		if !quoted && (c == ']' || c == '}') {
			depth--
		}
	}
	return short
}

// params reads the parameters of a request into a struct; missing ones stay nil.
// The error is ErrParams.
func (q Request) params(into any) error {
	if len(q.Params) == 0 {
		return nil
	}
	if !object(q.Params) || json.Unmarshal(q.Params, into) != nil {
		return ErrParams
	}
	return nil
}

// Peer reads the parameters of a peer request.
func (q Request) Peer() (key, root string, err error) {
	var p struct {
		PeerKey       string `json:"peerkey"`
		RootDirectory string `json:"rootDirectory"`
	}
	err = q.params(&p)
	return p.PeerKey, p.RootDirectory, err
}

// Protocol reads the parameter of start and stop.
func (q Request) Protocol() (string, error) {
	var p struct {
		Protocol *string `json:"protocol"`
	}
	return text(q.params(&p), &p.Protocol)
}

// Topic reads the parameter of subscribe, unsubscribe and listpeers.
func (q Request) Topic() (string, error) {
	var p struct {
		Topic *string `json:"topic"`
	}
	return text(q.params(&p), &p.Topic)
}

func text(err error, s **string) (string, error) {
	if err == nil && *s == nil {
		err = ErrParams
	}
	if err != nil {
		return "", err
	}
	return **s, nil
}

// Send is what a send request asks for.
type Send struct {
	Peer     string
	Protocol string
	Data     json.RawMessage // shares memory with the frame
	Ack      int64           // -1: none wanted
}

// Send reads the parameters of a send request.
func (q Request) Send() (s Send, err error) {
	var p struct {
		Peer     *string         `json:"peer"`
		Protocol *string         `json:"protocol"`
		Data     json.RawMessage `json:"data"`
		Ack      json.RawMessage `json:"ack"`
	}
	if err = q.params(&p); err != nil || p.Peer == nil || p.Protocol == nil {
		return s, ErrParams
	}
	s = Send{Peer: *p.Peer, Protocol: *p.Protocol, Data: orNull(p.Data), Ack: -1}
	if len(p.Ack) > 0 && string(p.Ack) != "null" {
		if s.Ack, err = strconv.ParseInt(string(p.Ack), 10, 64); err != nil || s.Ack < -1 {
			return s, ErrParams
		}
	}
	return s, nil
}

// Publish reads the parameters of a publish request. The data shares memory with
// the frame.
func (q Request) Publish() (topic string, data json.RawMessage, err error) {
	var p struct {
		Topic *string         `json:"topic"`
		Data  json.RawMessage `json:"data"`
	}
	topic, err = text(q.params(&p), &p.Topic)
	return topic, orNull(p.Data), err
}

func orNull(data json.RawMessage) json.RawMessage {
	if len(data) == 0 {
		return json.RawMessage("null")
	}
	return data
}

// PeerIDs reads the parameter of addpeers and removepeers.
func (q Request) PeerIDs() ([]string, error) {
	var p struct {
		PeerIDs *[]string `json:"peerIds"`
	}
	if q.params(&p) != nil || p.PeerIDs == nil {
		return nil, ErrParams
	}
	return *p.PeerIDs, nil
}

// PeerID reads the parameter of listfiles.
func (q Request) PeerID() (string, error) {
	var p struct {
		PeerID *string `json:"peerid"`
	}
	return text(q.params(&p), &p.PeerID)
}

// CID reads the parameters of getfile.
func (q Request) CID() (cid, fallback string, err error) {
	var p struct {
		CID      *string `json:"cid"`
		Fallback string  `json:"fallbackPeerID"`
	}
	cid, err = text(q.params(&p), &p.CID)
	return cid, p.Fallback, err
}
