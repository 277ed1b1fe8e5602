package gateway_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
)

// rule is a row of our table of RFC 6455: what a page sends, and what comes of it.
type rule struct {
	name  string
	sent  []byte
	code  int // of the close frame; 1000 where the page closes, once all has come
	texts int // answered; where the socket is closed for a fault, what came before it may be or not
	pongs []string
}

func frames(all ...[]byte) []byte { return bytes.Join(all, nil) }

// keyed is a frame with another mask.
func keyed(first byte, key [4]byte, payload string) []byte {
	f := frame(first, payload)
	head := len(f) - len(payload)
	copy(f[head-4:], key[:])
	for i := range len(payload) {
		f[head+i] = payload[i] ^ key[i%4]
	}
	return f
}

// lengthy is a masked frame whose length has 2 or 8 bytes, needed or not.
func lengthy(first byte, size int, payload string) []byte {
	head := []byte{first, 0x80 | 126}
	if size == 2 {
		head = binary.BigEndian.AppendUint16(head, uint16(len(payload)))
	} else {
		head[1] = 0x80 | 127
		head = binary.BigEndian.AppendUint64(head, uint64(len(payload)))
	}
	return append(append(head, 0, 0, 0, 0), payload...)
}

func closeFrame(code uint16, reason string) []byte {
	return frame(fin|opClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// served is a row whose messages are answered.
func served(name string, texts int, sent ...[]byte) rule {
	return rule{name: name, sent: frames(sent...), code: 1000, texts: texts}
}

// refused is a row that ends the socket with 1002.
func refused(name string, sent ...[]byte) rule {
	return rule{name: name, sent: frames(sent...), code: 1002}
}

// rules are the rows, in the order of the standard. Where the library is more
// lenient the row says so.
func rules() (all []rule) {
	add := func(r ...rule) { all = append(all, r...) }
	padded := func(n int) string { return unknown + strings.Repeat(" ", n-len(unknown)) }

	// 5.2: the frame.
	add(served("a text", 1, frame(fin|opText, unknown)),
		served("a text in a binary message", 1, frame(fin|opBinary, unknown)),
		served("an empty text is malformed, no more", 1, frame(fin|opText, ""), frame(fin|opText, unknown)),
		refused("reserved bit 1, which is deflate's", frame(fin|rsv1|opText, unknown)),
		refused("reserved bit 2", frame(fin|rsv2|opText, unknown)),
		refused("reserved bit 3", frame(fin|rsv3|opText, unknown)),
		refused("all reserved bits", frame(fin|rsv1|rsv2|rsv3|opBinary, unknown)),
		refused("reserved bit in a ping", frame(fin|rsv1|opPing, "")),
		refused("reserved bit in a close", frame(fin|rsv2|opClose, "")),
		refused("reserved bit in a continuation", frame(opText, unknown[:5]), frame(fin|rsv1|opCont, unknown[5:])),
		refused("a reserved bit after a text", frame(fin|opText, unknown), frame(fin|rsv3|opText, "x")))
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		add(refused(fmt.Sprintf("opcode %d", op), frame(fin|op, "")),
			refused(fmt.Sprintf("opcode %d with data", op), frame(fin|op, "x")),
			refused(fmt.Sprintf("opcode %d inside a message", op), frame(opText, unknown[:5]), frame(fin|op, "")))
	}
	for _, n := range []int{125, 126, 127, 128, 65_535, 65_536} {
		add(served(fmt.Sprintf("a text of %d bytes", n), 1, frame(fin|opText, padded(n))))
	}
	// The standard asks for the shortest form; the library takes any.
	add(served("a length in 2 bytes that needs none", 1, lengthy(fin|opText, 2, unknown)),
		served("a length in 8 bytes that needs none", 1, lengthy(fin|opText, 8, unknown)),
		served("a length in 8 bytes that needs 2", 1, lengthy(fin|opText, 8, padded(300))),
		rule{"a ping whose length has 2 bytes", lengthy(fin|opPing, 2, "p"), 1000, 0, []string{"p"}},
		rule{"a close whose length has 8 bytes", lengthy(fin|opClose, 8, "\x03\xe8"), 1000, 0, nil})

	// 5.3: the mask.
	add(served("a mask of zeros", 1, keyed(fin|opText, [4]byte{}, unknown)),
		served("another mask for each fragment", 1, keyed(opText, [4]byte{9, 8, 7, 6}, unknown[:7]), keyed(fin|opCont, [4]byte{0xff, 0, 0xff, 0}, unknown[7:])),
		refused("no mask", []byte{fin | opText, 1, 'x'}),
		refused("no mask on a later fragment", frame(opText, unknown[:5]), []byte{fin | opCont, 1, 'x'}))

	// 5.4: fragments.
	add(served("fragments", 1, frame(opText, unknown[:5]), frame(opCont, unknown[5:9]), frame(fin|opCont, unknown[9:])),
		served("empty fragments", 1, frame(opText, ""), frame(opCont, unknown), frame(opCont, ""), frame(fin|opCont, "")),
		served("a fragmented message after another", 2, frame(opText, unknown[:5]), frame(fin|opCont, unknown[5:]), frame(opText, unknown[:9]), frame(fin|opCont, unknown[9:])),
		refused("a continuation of nothing", frame(fin|opCont, "x")),
		refused("a continuation of nothing that goes on", frame(opCont, "x")),
		refused("a text inside a fragmented text", frame(opText, "x"), frame(fin|opText, unknown)),
		refused("a binary message inside a fragmented text", frame(opText, "x"), frame(opBinary, unknown)),
		refused("a continuation after a whole message", frame(fin|opText, unknown), frame(fin|opCont, "x")),
		refused("a fragmented ping", frame(opPing, "p")), refused("a fragmented pong", frame(opPong, "p")),
		refused("a fragmented close", frame(opClose, "\x03\xe8")))

	// 5.5: control frames.
	ping := func(text string) []byte { return frame(fin|opPing, text) }
	pings, wanted := []byte(nil), []string(nil)
	for i := range 10 {
		pings, wanted = append(pings, ping(fmt.Sprint(i))...), append(wanted, fmt.Sprint(i))
	}
	longest := strings.Repeat("p", 125)
	add(rule{"an empty ping", ping(""), 1000, 0, []string{""}},
		rule{"a ping that is no text", ping("\x00\xff\xfe"), 1000, 0, []string{"\x00\xff\xfe"}},
		rule{"ping of 125 bytes", ping(longest), 1000, 0, []string{longest}},
		rule{"ten pings", pings, 1000, 0, wanted},
		rule{"pings between fragments", frames(frame(opText, unknown[:5]), ping("1"), frame(opCont, unknown[5:8]), ping("2"), frame(fin|opCont, unknown[8:])), 1000, 1, []string{"1", "2"}},
		refused("ping of 126 bytes", ping(longest+"p")), refused("pong of 126 bytes", frame(fin|opPong, longest+"p")),
		served("a pong that nobody asked for", 1, frame(fin|opPong, "x"), frame(fin|opText, unknown)),
		served("a pong between fragments", 1, frame(opText, unknown[:5]), frame(fin|opPong, ""), frame(fin|opCont, unknown[5:])))

	// 5.5.1 and 7.4: closing.
	add(rule{"close without a code", frame(fin|opClose, ""), 0, 0, nil},
		refused("close with half a code", frame(fin|opClose, "\x03")),
		rule{"close with a reason of 123 bytes", closeFrame(1000, longest[:123]), 1000, 0, nil},
		refused("close with a reason of 124 bytes", closeFrame(1000, longest[:124])),
		rule{"nothing counts after a close", frames(closeFrame(1000, ""), frame(fin|opText, unknown)), 1000, 0, nil},
		rule{"close between fragments", frames(frame(opText, unknown[:5]), closeFrame(1001, "")), 1001, 0, nil},
		// The standard asks for UTF-8 in the reason; the library gives it back as it came.
		rule{"close with a reason that isn't UTF-8", closeFrame(1000, "\xff"), 1000, 0, nil})
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(rule{fmt.Sprintf("close %d", code), closeFrame(code, "bye"), int(code), 0, nil})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(refused(fmt.Sprintf("close %d, which is none", code), closeFrame(code, "")))
	}
	return append(all, textRules()...)
}

// textRules are those of 8.1: a text is UTF-8, wherever it is cut.
func textRules() (all []rule) {
	for name, bad := range map[string]string{
		"a lone byte": "\xff", "a continuation byte": "\x80", "overlong": "\xc0\xaf", "a surrogate": "\xed\xa0\x80",
		"beyond Unicode": "\xf4\x90\x80\x80", "cut off": "\xe2\x82",
	} {
		text := `{"method":"` + bad + `"}`
		at := strings.Index(text, bad) + 1
		all = append(all, rule{name + " in a text", frame(fin|opText, text), 1007, 0, nil},
			rule{name + " over two fragments", frames(frame(opText, text[:at]), frame(fin|opCont, text[at:])), 1007, 0, nil})
	}
	const smile = "\U0001f600" // four bytes
	text := strings.Replace(unknown, `"x"`, `"`+smile+`"`, 1)
	for i := range 5 {
		at := strings.Index(text, smile) + i
		all = append(all, served(fmt.Sprintf("a character cut after %d bytes", i), 1, frame(opText, text[:at]), frame(fin|opCont, text[at:])),
			served(fmt.Sprintf("a character cut after %d bytes by a ping", i), 1, frame(opText, text[:at]), frame(fin|opPong, ""), frame(fin|opCont, text[at:])))
	}
	return all
}

// TestAbuse19_RFC6455 is our own table of the standard's rules, each row in one
// write, and short ones in single bytes too.
func TestAbuse19_RFC6455(t *testing.T) {
	s := gatewaytest.Start(t)
	for _, row := range rules() {
		for _, single := range []bool{false, true} {
			if single && len(row.sent) > 300 {
				continue
			}
			t.Run(fmt.Sprintf("%s, single bytes %t", row.name, single), func(t *testing.T) {
				r := dialRaw(t, s)
				if single {
					for i := range row.sent {
						if _, err := r.conn.Write(row.sent[i : i+1]); err != nil {
							break // closed on the way, which is read below
						}
					}
				} else {
					r.send(row.sent)
				}
				wait := -1
				if row.code == 1000 && row.texts+len(row.pongs) > 0 {
					wait = row.texts + len(row.pongs)
				}
				o := r.until(wait)
				if row.code == 1002 {
					o.texts = nil
				}
				if o.code != row.code || len(o.texts) != row.texts || strings.Join(o.pongs, ",") != strings.Join(row.pongs, ",") {
					t.Errorf("closed with %d %q, %d texts, pongs %q; want %d, %d, %q", o.code, o.reason, len(o.texts), o.pongs, row.code, row.texts, row.pongs)
				}
				for _, text := range o.texts {
					if !strings.HasPrefix(text, `{"requestid":1,"method":"","error":{"code":400,"message":"unknown method: `) {
						t.Errorf("got %s", text)
					}
				}
			})
		}
	}
}
