package wire

import "github.com/parley-p2p/parley/identity"

// MaxDepth is how deep JSON may be nested (star.md §11.2). The scanner has no
// recursion, so this bounds meaning, not the stack.
const MaxDepth = 8

// Limits says what Scan accepts beyond JSON itself.
type Limits struct {
	// Attachments is how many binary packets follow: a placeholder that names
	// another one is an error. Without attachments an object that looks like a
	// placeholder is plain data.
	Attachments int
}

// ErrDepth says that JSON is nested deeper than MaxDepth.
var ErrDepth = &identity.Error{Code: identity.CodeMalformed, Text: "JSON is nested too deep"}

var (
	errJSON        = &identity.Error{Code: identity.CodeMalformed, Text: "not JSON"}
	errPlaceholder = &identity.Error{Code: identity.CodeMalformed, Text: "a placeholder names no attachment"}
)

// level is what the scanner knows of one open array or object.
type level struct {
	object      bool
	placeholder bool  // "_placeholder":true was seen
	num         int   // "num", -1 before
	key         field // the key whose value comes next
}

type field uint8

const (
	fieldOther field = iota
	fieldPlaceholder
	fieldNum
)

// scanner walks over one JSON value. Its stack is of fixed size.
type scanner struct {
	b      []byte
	i      int
	levels [MaxDepth]level
	depth  int
	limits Limits
}

// Scan checks the JSON value that b begins with, after white space, and returns
// where it ends. It neither builds nor recurses. Errors: not JSON, deeper than
// MaxDepth, a placeholder without an attachment.
func Scan(b []byte, limits Limits) (end int, err error) {
	s := scanner{b: b, limits: limits}
	return s.run()
}

func (s *scanner) run() (int, error) {
	for {
		opened, err := s.value()
		if err != nil {
			return 0, err
		}
		if opened {
			continue
		}
		if done, err := s.after(); done || err != nil {
			return s.i, err
		}
	}
}

// value reads one scalar or the opening of a container. opened means that
// another value must follow directly.
func (s *scanner) value() (opened bool, err error) {
	s.space()
	if s.i >= len(s.b) {
		return false, errJSON
	}
	switch c := s.b[s.i]; {
	case c == '[' || c == '{':
		return s.open(c == '{')
	case c == '"':
		return false, s.str()
	case c == '-' || c >= '0' && c <= '9':
		return false, s.number()
	case c == 't':
		if s.depth > 0 && s.levels[s.depth-1].key == fieldPlaceholder {
			s.levels[s.depth-1].placeholder = true
		}
		return false, s.word("true")
	case c == 'f':
		return false, s.word("false")
	case c == 'n':
		return false, s.word("null")
	}
	return false, errJSON
}

func (s *scanner) open(object bool) (opened bool, err error) {
	if s.depth == MaxDepth {
		return false, ErrDepth
	}
	s.levels[s.depth] = level{object: object, num: -1}
	s.depth++
	s.i++
	s.space()
	if s.i < len(s.b) && s.b[s.i] == closer(object) {
		s.i++
		s.depth--
		return false, nil
	}
	if object {
		return true, s.readKey()
	}
	return true, nil
}

// after reads what follows a value: nothing at the top, else a comma or the end
// of one container or more.
func (s *scanner) after() (done bool, err error) {
	for s.depth > 0 {
		s.space()
		if s.i >= len(s.b) {
			return false, errJSON
		}
		top := &s.levels[s.depth-1]
		switch c := s.b[s.i]; {
		case c == ',' && top.object:
			s.i++
			return false, s.readKey()
		case c == ',':
			s.i++
			return false, nil
		case c == closer(top.object):
			s.i++
			if top.placeholder && s.limits.Attachments > 0 && (top.num < 0 || top.num >= s.limits.Attachments) {
				return false, errPlaceholder
			}
			s.depth--
		default:
			return false, errJSON
		}
	}
	return true, nil
}

func (s *scanner) readKey() error {
	s.space()
	start := s.i
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return errJSON
	}
	if err := s.str(); err != nil {
		return err
	}
	top := &s.levels[s.depth-1]
	switch string(s.b[start:s.i]) {
	case `"_placeholder"`:
		top.key, top.placeholder = fieldPlaceholder, false
	case `"num"`:
		top.key, top.num = fieldNum, -1
	default:
		top.key = fieldOther
	}
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != ':' {
		return errJSON
	}
	s.i++
	return nil
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) word(w string) error {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return errJSON
	}
	s.i += len(w)
	return nil
}

func (s *scanner) str() error {
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return nil
		case c < 0x20:
			return errJSON
		case c == '\\':
			if s.i++; !s.escape() {
				return errJSON
			}
		}
	}
	return errJSON
}

func (s *scanner) escape() bool {
	if s.i >= len(s.b) {
		return false
	}
	switch s.b[s.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if _, ok := hex4(s.b[s.i+1:]); ok {
			s.i += 4
			return true
		}
	}
	return false
}

func (s *scanner) number() error {
	start := s.i
	if s.b[s.i] == '-' {
		s.i++
	}
	switch n := s.digits(); {
	case n == 0, n > 1 && s.b[s.i-n] == '0':
		return errJSON
	}
	whole := s.i
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if s.digits() == 0 {
			return errJSON
		}
	}
	if s.i < len(s.b) && (s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		if s.i++; s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if s.digits() == 0 {
			return errJSON
		}
	}
	if s.depth > 0 && s.levels[s.depth-1].object && s.levels[s.depth-1].key == fieldNum {
		s.levels[s.depth-1].num = smallNumber(s.b[start:s.i], whole == s.i)
	}
	return nil
}

func (s *scanner) digits() int {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i - start
}

// smallNumber gives a non-negative whole number below 1000, and -1 for others.
func smallNumber(b []byte, whole bool) int {
	if !whole || len(b) > 3 || b[0] == '-' {
		return -1
	}
	n := 0
	for _, c := range b {
		n = 10*n + int(c-'0')
	}
	return n
}

func closer(object bool) byte {
	if object {
		return '}'
	}
	return ']'
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
