package address_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/star/address"
)

const id = "QmcoXrnhUeMbnHmwkDVh4pbCBi6px4RbCQ6xg2qCjJeNEx"

// testdata/multiaddr.json has what multiaddr 6.1.1 and mafmt 6.0.10 say of each
// address: parses, has the strict shape. Two differences are on purpose: control
// characters, and ports that are not decimal in the strict shape.
func TestAsTheOriginals(t *testing.T) {
	raw, err := os.ReadFile("testdata/multiaddr.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases [][3]any
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		text, parses, strict := c[0].(string), c[1].(bool), c[2].(bool)
		if strings.ContainsRune(text, 0) || len(text) > address.MaxLength {
			parses = false
		}
		if _, err := address.Canonical(text); (err == nil) != parses {
			t.Errorf("%q: %v, want it to parse: %v", text, err, parses)
		}
		if _, err := address.Parse(text); (err == nil) != strict {
			t.Errorf("%q: %v, want it to be strict: %v", text, err, strict)
		}
	}
}

func TestCanonical(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"/":                             "/",
		"/ip4/1.2.3.4":                  "/ip4/1.2.3.4",
		"/p2p/" + id:                    "/ipfs/" + id,
		"/dns4/p2p/tcp/1/p2p/" + id:     "/dns4/p2p/tcp/1/ipfs/" + id,
		"/p2p/" + id + "//p2p-circuit/": "/ipfs/" + id + "//p2p-circuit/",
		"/unix/p2p/x":                   "/unix/p2p/x",
	} {
		if got, err := address.Canonical(text); err != nil || got != want {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
	if _, err := address.Canonical("/dns4/" + strings.Repeat("a", 600)); err != address.ErrInvalid {
		t.Errorf("600 bytes: %v", err)
	}
}

func TestID(t *testing.T) {
	for text, want := range map[string]string{"/ip4/1.2.3.4/ipfs/A": "A", "/p2p/A/ipfs/B": "B", "/ipfs/A/p2p/B": "B", "/ip4/1.2.3.4": "/ip4/1.2.3.4"} {
		if got := address.ID(text); got != want {
			t.Errorf("id of %q is %q", text, got)
		}
	}
}

func TestURL(t *testing.T) {
	for text, want := range map[string]string{
		"/dns4/h/tcp/443/wss/p2p-websocket-star":            "https://h",
		"/dns4/h/tcp/80/wss/p2p-websocket-star":             "https://h:80",
		"/ip6/::1/tcp/9090/ws/p2p-websocket-star/p2p/" + id: "http://[::1]:9090",
		"/ip4/1.2.3.4/tcp/80/ws/p2p-websocket-star":         "http://1.2.3.4",
		"/dns/h/wss/p2p-websocket-star":                     "https://h",
	} {
		s, err := address.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.URL().String(); got != want {
			t.Errorf("%s is at %s, want %s", text, got, want)
		}
		if want := strings.Replace(text, "/p2p/", "/ipfs/", 1); s.String() != want {
			t.Errorf("%s is written %s", text, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/dns4/h/tcp/443/wss/p2p-websocket-star/p2p/" + id)
	f.Add("//ip6/::1//tcp/80x/")
	f.Fuzz(func(t *testing.T, text string) {
		canonical, err := address.Canonical(text)
		if err == nil {
			if again, err := address.Canonical(canonical); err != nil || again != canonical {
				t.Errorf("%q: canonical %q, then %q, %v", text, canonical, again, err)
			}
		}
		s, perr := address.Parse(text)
		if perr != nil {
			return
		}
		if err != nil {
			t.Errorf("%q is strict and does not parse", text)
		}
		if s.String() != canonical {
			t.Errorf("%q is written %q and %q", text, s, canonical)
		}
		address.ID(text)
		s.URL()
	})
}
