package portmap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// bound is for a test that fails.
func bound(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// answering is a router on a UDP port of this machine: it answers each question
// with what answer gives.
func answering(t *testing.T, answer func(question []byte) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = c.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, a := range answer(buf[:n]) {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// natPMP answers as RFC 6886 says, with the bytes of its tables.
func natPMP(q []byte) [][]byte {
	switch {
	case len(q) == 2 && q[1] == 0:
		return [][]byte{{0, 128, 0, 0, 0, 0, 1, 0, 203, 0, 113, 7}}
	case len(q) == 12 && (q[1] == 1 || q[1] == 2):
		a := append([]byte{0, 128 + q[1], 0, 0, 0, 0, 1, 0}, q[4:12]...)
		if a[10] == 0x1f && a[11] == 0x90 { // 8080 is another's
			a[11]++
		}
		return [][]byte{a}
	}
	return nil
}

func TestNATPMP(t *testing.T) {
	questions := make(chan string, 100)
	at := answering(t, func(q []byte) [][]byte { questions <- string(q); return natPMP(q) })
	r := findPMP(bound(t), at)
	if r == nil {
		t.Fatal("not found")
	}
	if a, err := r.outside(bound(t)); err != nil || a.String() != "203.0.113.7" {
		t.Errorf("outside %s, %v", a, err)
	}
	outer, life, err := r.add(bound(t), TCP, 4001, 4001)
	if err != nil || outer != 4001 || life != lifetime {
		t.Errorf("mapped at %d for %s, %v", outer, life, err)
	}
	if outer, _, err := r.add(bound(t), UDP, 4001, 8080); err != nil || outer != 8081 {
		t.Errorf("mapped at %d, %v", outer, err)
	}
	if err := r.remove(bound(t), UDP, 4001, 8081); err != nil {
		t.Error(err)
	}
	for want := "\x00\x01\x00\x00\x0f\xa1\x00\x00\x00\x00\x00\x00"; ; {
		select {
		case q := <-questions: // some may have been repeated
			if q == want {
				return
			}
		default:
			t.Fatalf("no removal by % x", want)
		}
	}
}

// TestNATPMPNonsense: what isn't an answer is not looked at, and what follows is.
func TestNATPMPNonsense(t *testing.T) {
	right := []byte{0, 130, 0, 0, 0, 0, 1, 0, 0x0f, 0xa1, 0x0f, 0xa1, 0, 0, 0, 120}
	with := func(at int, b byte) []byte {
		a := append([]byte(nil), right...)
		a[at] = b
		return a
	}
	tests := map[string]struct {
		answers [][]byte
		refused bool
		taken   bool
	}{
		"empty":               {answers: [][]byte{{}, right}},
		"short":               {answers: [][]byte{right[:15], right[:3], right}},
		"long":                {answers: [][]byte{append(with(0, 0), make([]byte, 1000)...)}},
		"another version":     {answers: [][]byte{with(0, 2), right}},
		"another operation":   {answers: [][]byte{with(1, 129), right}},
		"a question":          {answers: [][]byte{with(1, 2), right}},
		"another's port":      {answers: [][]byte{with(9, 0), right}},
		"not authorized":      {answers: [][]byte{with(3, 2)}, refused: true},
		"no resources":        {answers: [][]byte{with(3, 4)}, refused: true, taken: true},
		"mapped to port 0":    {answers: [][]byte{{0, 130, 0, 0, 0, 0, 1, 0, 0x0f, 0xa1, 0, 0, 0, 0, 0, 120}}, refused: true},
		"mapped for 0 second": {answers: [][]byte{with(15, 0)}, refused: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &pmp{answering(t, func([]byte) [][]byte { return tt.answers })}
			outer, _, err := r.add(bound(t), TCP, 4001, 4001)
			if (err != nil) != tt.refused || errors.Is(err, errPort) != tt.taken || err == nil && outer != 4001 {
				t.Errorf("mapped at %d, %v", outer, err)
			}
		})
	}
}

// TestNATPMPSilence: a question is repeated until the answer comes, or until nobody
// waits any more.
func TestNATPMPSilence(t *testing.T) {
	t.Run("the first are lost", func(t *testing.T) {
		asked := 0
		at := answering(t, func(q []byte) [][]byte {
			if asked++; asked < 3 {
				return nil
			}
			return natPMP(q)
		})
		if _, err := (&pmp{at}).outside(bound(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		ctx, cancel := context.WithCancel(bound(t))
		at := answering(t, func([]byte) [][]byte { cancel(); return nil })
		if _, err := (&pmp{at}).outside(ctx); err == nil {
			t.Error("an answer without one")
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		at := c.LocalAddr().(*net.UDPAddr).AddrPort()
		_ = c.Close()
		if r := findPMP(bound(t), at); r != nil {
			t.Errorf("found %s", r)
		}
	})
}
