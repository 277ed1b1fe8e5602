package access_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/consent"
)

// kept keeps answers for a test.
type kept struct{ text []byte }

func (k *kept) Load() ([]byte, error)  { return k.text, nil }
func (k *kept) Save(text []byte) error { k.text = text; return nil }

func allow(t *testing.T, b *consent.Book, origin string) string {
	t.Helper()
	a, err := b.Put(origin, consent.Scope{Protocols: []string{"chat"}}, true)
	if err != nil {
		t.Fatal(err)
	}
	return a.Token
}

// TestAbuse06_GrantOfAnotherOrigin: what a person allowed one site lets no other
// in, and opens nothing but the socket.
func TestAbuse06_GrantOfAnotherOrigin(t *testing.T) {
	book, err := consent.Open(&kept{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := allow(t, book, "https://a.example"), allow(t, book, "https://b.example")
	n := newNode(t, access.Config{Grants: book, Origins: []string{"https://listed.example"}})
	page := func(origin, token string, more ...string) []string {
		return with(with(upgrade, "Origin", origin, "Sec-WebSocket-Protocol", "parley.v2, "+access.GrantPrefix+token), more...)
	}
	own := "http://localhost:" + n.port
	tests := []struct {
		name   string
		header []string
		status int
	}{
		{"its own", page("https://a.example", a), 200},
		{"its own, in capitals", page("https://A.example", a), 200},
		{"the other's own", page("https://b.example", b), 200},
		{"of the other", page("https://a.example", b), 403},
		{"of the other, the other way", page("https://b.example", a), 403},
		{"from a site without any", page("https://c.example", a), 403},
		{"from null", page("null", a), 403},
		{"from a program", with(upgrade, "Sec-WebSocket-Protocol", "parley.v2, "+access.GrantPrefix+a), 401},
		{"from the node's own page without cookie", page(own, a), 401},
		{"from a listed origin", page("https://listed.example", a), 401},
		{"as bearer", with(upgrade, "Origin", "https://a.example", "Authorization", "Bearer "+a), 403},
		{"as bearer of a program", with(upgrade, "Authorization", "Bearer "+a), 401},
		{"under another host", page("https://a.example", a, "Host", "evil.example"), 421},
		{"guessed", page("https://a.example", "guess"), 403},
		{"empty", page("https://a.example", ""), 403},
	}
	n.admit = true
	for _, tt := range tests {
		if got := n.ask(t, "GET", "/ws", tt.header...); got.status != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, got.status, got.body, tt.status)
		}
	}
	n.admit = false
	if got := n.ask(t, "GET", "/_parley/status.json", page("https://a.example", a)...); got.status != 403 {
		t.Errorf("the dashboard with a grant: %d", got.status)
	}
	if err := book.Forget("https://a.example"); err != nil {
		t.Fatal(err)
	}
	n.admit = true
	if got := n.ask(t, "GET", "/ws", page("https://a.example", a)...); got.status != 403 {
		t.Errorf("taken back: %d", got.status)
	}
	tried := map[string]int{}
	for _, r := range book.Refusals() {
		tried[r.Origin] = r.Tries
	}
	if tried["https://c.example"] != 1 || tried["https://a.example"] < 2 || tried[own] != 0 {
		t.Errorf("the person is told of %v", tried)
	}
	for _, secret := range []string{a, b} {
		if strings.Contains(n.log.String(), secret) {
			t.Error("the log shows a grant")
		}
	}
}

// Wrong grants are counted as other wrong tokens are.
func TestAbuse07_GuessingGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a guess is forgotten every few seconds
		book, err := consent.Open(&kept{})
		if err != nil {
			t.Fatal(err)
		}
		token := allow(t, book, "https://a.example")
		p, err := access.New(access.Config{Port: 10000, Grants: book, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		try := func(token string) int {
			r := httptest.NewRequest("GET", "http://localhost:10000/ws", nil)
			for i := 0; i < len(upgrade); i += 2 {
				r.Header.Set(upgrade[i], upgrade[i+1])
			}
			r.Header.Set("Origin", "https://a.example")
			r.Header.Set("Sec-WebSocket-Protocol", access.GrantPrefix+token)
			w := httptest.NewRecorder()
			p.AdmitPage(w, r)
			return w.Code
		}
		for i := range 10 {
			if got := try("guess"); got != 403 {
				t.Fatalf("guess %d: %d", i, got)
			}
		}
		if got := try("guess"); got != 429 {
			t.Errorf("eleventh guess: %d, want 429", got)
		}
		if got := try(token); got != 200 {
			t.Errorf("the right one: %d", got)
		}
	})
}

// The question is asked by another site's page: its window must come with the
// cookie, which browsers keep back from such a navigation.
func TestConsent_AnotherSiteOpensTheWindow(t *testing.T) {
	n := newNode(t, access.Config{})
	path := consent.Path + "?origin=https%3A%2F%2Fa.example&topic=%22%3E%3Cscript%3E"
	first := n.ask(t, "GET", path, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	if first.status != 200 || !strings.Contains(first.body, `content="0;url=/_parley/consent?`) || !strings.Contains(first.body, "onward=1") || strings.Contains(first.body, "<script>") {
		t.Errorf("%d %s", first.status, first.body)
	}
	if got := n.ask(t, "GET", path+"&onward=1", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Accept", "text/html"); got.status != 401 {
		t.Errorf("a second time round: %d", got.status)
	}
	if got := n.ask(t, "GET", path, "Cookie", n.launched(t), "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate"); got.body != "in" {
		t.Errorf("from the node's own page: %d %s", got.status, got.body)
	}
	if got := n.ask(t, "POST", consent.Path, "Cookie", n.launched(t), "Origin", "https://a.example"); got.status != 403 {
		t.Errorf("another site answers for the person: %d", got.status)
	}
	if got := n.ask(t, "GET", consent.Path, "Host", "evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"); got.status != 421 {
		t.Errorf("by another name: %d", got.status)
	}
}
