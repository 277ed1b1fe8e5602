package cluster

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
)

const serverA, serverB = "abcdefghijklmnop", "ABCDEFGHIJKLMNOP"

var examples = []message{
	{kind: kindAsk, from: serverA, dialer: true, dial: 1, epoch: 2, dialerEpoch: 3, credit: proxy.Window, to: "/ip4/1.1.1.1", dialerAt: "/ip4/2.2.2.2", id: "d"},
	{kind: kindAnswer, from: serverA, dial: 7, number: 1, credit: 9, text: "Dial refused"},
	{kind: kindData, from: serverA, dialer: true, dial: 7, number: 2, data: []byte{0, 1, 2}},
	{kind: kindEnd, from: serverA, stream: proxy.Listener, dial: 7, number: 3, text: "true"},
	{kind: kindCredit, from: serverA, dial: 7, number: 4, credit: 5},
	{kind: kindStop, from: serverA, dial: 7, number: 5, text: "enough"},
	{kind: kindReset, from: serverA, dial: 7, number: 6, vanished: true, text: "Peer disconnected"},
	{kind: kindCheck, from: serverA, marks: []mark{{dialer: true, dial: 1, number: 2}, {dial: 3, number: 4}}},
	{kind: kindUnknown, from: serverA, marks: []mark{{dial: 3}}},
}

func TestMessagesAreReadBack(t *testing.T) {
	for _, m := range examples {
		got, err := decode(m.appendTo(nil))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	}
}

func TestMessagesRefused(t *testing.T) {
	long := func(m message) []byte { return m.appendTo(nil) }
	for name, b := range map[string][]byte{
		"empty":            nil,
		"another version":  {2, 1},
		"no such kind":     append([]byte{version, 0}, serverA...),
		"cut":              examples[0].appendTo(nil)[:40],
		"data too long":    long(message{kind: kindData, from: serverA, data: make([]byte, maxData+1)}),
		"reason too long":  long(message{kind: kindStop, from: serverA, text: strings.Repeat("x", maxReason+1)}),
		"no text":          long(message{kind: kindStop, from: serverA, text: "\xff"}),
		"control text":     long(message{kind: kindStop, from: serverA, text: "a\nb"}),
		"credit too much":  long(message{kind: kindCredit, from: serverA, credit: proxy.Window + 1}),
		"address too long": long(message{kind: kindAsk, from: serverA, to: strings.Repeat("x", maxAddress+1)}),
		"half a mark":      append(long(message{kind: kindCheck, from: serverA}), 1),
	} {
		if m, err := decode(b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range examples {
		f.Add(m.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err == nil && !bytes.Equal(m.appendTo(nil), b) {
			t.Errorf("%x is written otherwise: %x", b, m.appendTo(nil))
		}
	})
}

func FuzzEntries(f *testing.F) {
	f.Add("/ip4/1.1.1.1", encodeMember(star.Claim{Place: "/ip4/1.1.1.1", Address: "/ip4/1.1.1.1", Session: 1}, serverA))
	f.Add("x", encodeLease(leaseEntry{URL: "http://h:1", Secret: "s"}))
	f.Fuzz(func(t *testing.T, place string, value []byte) {
		if c, server, err := decodeMember(keyOf(place), value); err == nil {
			again, who, err := decodeMember(keyOf(place), encodeMember(c, server))
			if err != nil || again != c || who != server {
				t.Errorf("%+v became %+v, %v", c, again, err)
			}
		}
		if l, err := decodeLease(value); err == nil && !json.Valid(encodeLease(l)) {
			t.Error(l)
		}
	})
}

// A member's entry counts only under the key of its own address.
func TestEntryUnderAnotherKey(t *testing.T) {
	value := encodeMember(star.Claim{Place: "/ip4/1.1.1.1", Address: "/ip4/1.1.1.1"}, serverA)
	if _, _, err := decodeMember(keyOf("/ip4/2.2.2.2"), value); err == nil {
		t.Error("taken for another address")
	}
}

// renewed notes that a server's own lease was written, and heard back.
func renewed(l *leases, at time.Time) (lapsed bool) {
	lapsed = l.own(at)
	l.heard(l.self, leaseEntry{}, at)
	return lapsed
}

func TestLeases(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, int64(s*1e9)) }
	l := newLeases(serverA, 6*time.Second)
	if l.valid(at(0)) {
		t.Error("valid before it was written")
	}
	renewed(l, at(0))
	if !l.heard(serverB, leaseEntry{}, at(0)) || l.heard(serverB, leaseEntry{}, at(2)) {
		t.Error("a server is new once")
	}
	if !l.valid(at(4.9)) || l.valid(at(5)) {
		t.Error("ready for 5 s after the last renewal")
	}
	if dead := l.expire(at(9)); dead != nil {
		t.Errorf("%v taken for dead while this server itself can't write", dead)
	}
	if !renewed(l, at(9)) || renewed(l, at(11)) {
		t.Error("a lease lapses after 6 s")
	}
	if dead := l.expire(at(11)); dead != nil {
		t.Errorf("%v got no time to renew", dead)
	}
	renewed(l, at(14))
	if dead := l.expire(at(14)); dead != nil {
		t.Errorf("%v taken for dead early", dead)
	}
	renewed(l, at(16))
	l.expire(at(17))
	if dead := l.expire(at(17.5)); len(dead) != 1 || dead[0] != serverB {
		t.Errorf("dead: %v", dead)
	}
	if l.mentioned(serverB, at(18)) || l.find(serverB) != nil {
		t.Error("alive because a member of it is there")
	}
}

// A server that did not look for a while has not heard who renewed meanwhile.
func TestSlowServerTakesNobodyForDead(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(1000+s, 0) }
	l := newLeases(serverA, 6*time.Second)
	l.heard(serverB, leaseEntry{}, at(0))
	renewed(l, at(0))
	l.expire(at(1))
	renewed(l, at(8)) // its renewals went on, its reading did not
	for _, second := range []int64{8, 9, 11, 14} {
		if renewed(l, at(second)); l.expire(at(second)) != nil {
			t.Fatalf("taken for dead after %d s", second)
		}
	}
	renewed(l, at(16))
	if dead := l.expire(at(16)); len(dead) != 1 {
		t.Errorf("dead: %v", dead)
	}
}

func TestEpochsDecide(t *testing.T) {
	m := newMembers(serverA)
	c := star.Claim{Place: "p", Address: "p"}
	m.own["k"] = &claim{Claim: c, rev: 5}
	if news, lost := m.put("k", &entry{Claim: c, server: serverA, rev: 5}); !news || lost != nil {
		t.Error("its own claim")
	}
	if news, lost := m.put("k", &entry{Claim: c, server: serverB, rev: 4}); news || lost != nil {
		t.Error("a stale claim counts")
	}
	if news, lost := m.put("k", &entry{Claim: c, server: serverB, rev: 6}); !news || lost == nil || m.own["k"] != nil {
		t.Error("a later claim doesn't count")
	}
	if old, again := m.drop("k", 5); old != nil || again {
		t.Error("a stale removal counts")
	}
	if old, _ := m.drop("k", 7); old == nil {
		t.Error("a removal doesn't count")
	}
}
