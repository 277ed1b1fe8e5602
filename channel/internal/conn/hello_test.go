package conn

import (
	"strings"
	"testing"

	"github.com/parley-p2p/parley/wire/mux"
)

// TestHelloDefaults: what a hello leaves out has the protocol's value, and what is
// out of its range is brought into it.
func TestHelloDefaults(t *testing.T) {
	for _, tt := range []struct {
		name string
		say  mux.Parameters
		want peer
	}{
		{"nothing", mux.Parameters{}, peer{window: 262_144, maxContent: 65_536, maxChannels: 1024}},
		{"all", mux.Parameters{Features: 3, InitialWindow: 1 << 20, MaxContent: 1000, MaxChannels: 7}, peer{features: 3, window: 1 << 20, maxContent: 1000, maxChannels: 7}},
		{"too little", mux.Parameters{InitialWindow: 1}, peer{window: 16 << 10, maxContent: 65_536, maxChannels: 1024}},
		{"too much", mux.Parameters{InitialWindow: 1 << 31, MaxContent: 1 << 31}, peer{window: 16 << 20, maxContent: 1_044_480, maxChannels: 1024}},
	} {
		if got := peerOf(&tt.say); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestDocumentOnlyAnswersTheHello: with an error about the whole connection,
// because it doesn't know the tag. That ends nothing.
func TestDocumentOnlyAnswersTheHello(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := against(t, nil)
		r.expect("hello", hello())
		r.send(fault(mux.WholeConnection, Unknown))
		r.expect("an error is not answered")
		r.send(create(1), content(1, 5))
		s := <-r.h.accepted
		if got, err := s.Receive(t.Context()); len(got) != 5 || err != nil {
			t.Errorf("received %d bytes, %v", len(got), err)
		}
		if !r.c.DocumentOnly() {
			t.Error("not taken for a document-only peer")
		}
	})
}

// TestErrorTextIsCut: an error's text has 1 KiB at most.
func TestErrorTextIsCut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, s := accepted(t, nil)
		s.Fail(Limit, strings.Repeat("x", 5000))
		got, open := r.got()
		if len(got) != 1 || got[0].Code != mux.Limit || len(got[0].Text) != 1024 || !open {
			t.Errorf("got %+v", brief(got))
		}
	})
}
