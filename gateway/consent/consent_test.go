package consent

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory keeps answers as a file would.
type memory struct {
	text []byte
	full bool
}

func (m *memory) Load() ([]byte, error) { return m.text, nil }

func (m *memory) Save(text []byte) error {
	if m.full {
		return errors.New("disk full")
	}
	m.text = text
	return nil
}

func open(t *testing.T, m *memory) *Book {
	t.Helper()
	b, err := Open(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const app = "https://chat.example"

func TestScope_Names(t *testing.T) {
	s := Scope{Protocols: []string{"chat", "game/*"}, Topics: []string{"*"}}
	for _, tt := range []struct {
		name            string
		protocol, topic bool
	}{
		{"chat", true, true}, {"chat2", false, true}, {"cha", false, true}, {"Chat", false, true},
		{"game/", true, true}, {"game/1", true, true}, {"game", false, true}, {"game/*", true, true}, {"", false, true},
	} {
		if got := s.Protocol(tt.name); got != tt.protocol {
			t.Errorf("protocol %q: %v", tt.name, got)
		}
		if got := s.Topic(tt.name); got != tt.topic {
			t.Errorf("topic %q: %v", tt.name, got)
		}
	}
	if (Scope{}).Protocol("") || (Scope{}).Topic("x") {
		t.Error("an empty scope allows something")
	}
}

func TestScope_Covers(t *testing.T) {
	wide := Scope{Protocols: []string{"a/*", "b"}, Topics: []string{"t"}, Storage: 10}
	for _, tt := range []struct {
		name string
		ask  Scope
		want bool
	}{
		{"nothing", Scope{}, true},
		{"the same", wide, true},
		{"less", Scope{Protocols: []string{"a/1"}, Storage: 9}, true},
		{"a narrower pattern", Scope{Protocols: []string{"a/b/*"}}, true},
		{"a wider pattern", Scope{Protocols: []string{"a*"}}, false},
		{"anything", Scope{Protocols: []string{"*"}}, false},
		{"b as a pattern", Scope{Protocols: []string{"b*"}}, false},
		{"another topic", Scope{Topics: []string{"t2"}}, false},
		{"more storage", Scope{Storage: 11}, false},
	} {
		if got := wide.Covers(tt.ask); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestQuestionsThatCantBeAsked(t *testing.T) {
	many := url.Values{"origin": {app}}
	for i := range maxNames + 1 {
		many.Add("topic", fmt.Sprint(i))
	}
	tests := map[string]url.Values{
		"no origin":           {},
		"null":                {"origin": {"null"}},
		"http elsewhere":      {"origin": {"http://chat.example"}},
		"a path":              {"origin": {app + "/"}},
		"a user":              {"origin": {"https://me@chat.example"}},
		"capitals":            {"origin": {"https://Chat.example"}},
		"a trailing dot":      {"origin": {app + "."}},
		"no host":             {"origin": {"https://"}},
		"letters of others":   {"origin": {"https://ch\u0430t.example"}},
		"a script":            {"origin": {"javascript:alert(1)"}},
		"an almost localhost": {"origin": {"http://localhost.evil.example"}},
		"star inside":         {"origin": {app}, "topic": {"a*b"}},
		"empty name":          {"origin": {app}, "protocol": {""}},
		"long name":           {"origin": {app}, "protocol": {strings.Repeat("x", 257)}},
		"turned around":       {"origin": {app}, "topic": {"a\u202eb"}},
		"not to be seen":      {"origin": {app}, "topic": {"a\u200bb"}},
		"line break":          {"origin": {app}, "topic": {"a\nb"}},
		"negative storage":    {"origin": {app}, "storage": {"-1"}},
		"endless storage":     {"origin": {app}, "storage": {"99999999999999999999"}},
		"too many":            many,
	}
	for name, q := range tests {
		if _, _, err := question(q); identity.CodeOf(err) != identity.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, origin := range []string{app, "https://chat.example:8443", "http://localhost:3000", "http://127.0.0.1:1", "http://[::1]:1", "https://xn--cht-8cd.example"} {
		if _, _, err := question(url.Values{"origin": {origin}, "protocol": {"b", "a", "b"}}); err != nil {
			t.Errorf("%s: %v", origin, err)
		}
	}
}

func TestBook_RemembersAndForgets(t *testing.T) {
	m := &memory{}
	b := open(t, m)
	var ended []string
	b.OnEnd(func(origin string) { ended = append(ended, origin) })
	a, err := b.Put(app, Scope{Protocols: []string{"chat"}}, true)
	if err != nil || len(a.Token) < 40 {
		t.Fatalf("%+v, %v", a, err)
	}
	wider, err := b.Put(app, Scope{Topics: []string{"room"}}, true)
	if err != nil || wider.Token != a.Token || !wider.Scope.Covers(Scope{Protocols: []string{"chat"}, Topics: []string{"room"}}) || len(ended) != 0 {
		t.Errorf("a second yes: %+v, %v, ended %v", wider, err, ended)
	}
	if _, err := b.Put("https://no.example", Scope{}, false); err != nil {
		t.Fatal(err)
	}

	b = open(t, m) // another run
	b.OnEnd(func(origin string) { ended = append(ended, origin) })
	if s, ok := b.Scope(app, a.Token); !ok || !s.Equal(wider.Scope) {
		t.Errorf("after a restart: %+v, %v", s, ok)
	}
	for name, try := range map[string][2]string{
		"another site's token":  {"https://other.example", a.Token},
		"a refused site":        {"https://no.example", ""},
		"no token":              {app, ""},
		"half a token":          {app, a.Token[:20]},
		"the token of somebody": {"https://no.example", a.Token},
	} {
		if _, ok := b.Scope(try[0], try[1]); ok {
			t.Errorf("%s lets in", name)
		}
	}
	if err := b.Forget(app); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Scope(app, a.Token); ok || len(ended) != 1 || ended[0] != app {
		t.Errorf("a permission that was taken back: %v, ended %v", ok, ended)
	}
	again, err := b.Put(app, Scope{}, true)
	if err != nil || again.Token == a.Token {
		t.Errorf("an old token works again: %v", err)
	}
	if _, err := b.Put(app, Scope{}, false); err != nil || len(ended) != 2 {
		t.Errorf("a no after a yes: %v, ended %v", err, ended)
	}
	if list := open(t, m).Answers(); len(list) != 2 || list[0].Allowed || list[1].Allowed {
		t.Errorf("kept: %+v", list)
	}
}

func TestBook_WhatCantBeKeptDoesNotHold(t *testing.T) {
	m := &memory{full: true}
	b := open(t, m)
	a, err := b.Put(app, Scope{}, true)
	if err == nil {
		t.Fatal("no error")
	}
	if _, ok := b.Scope(app, a.Token); ok || len(b.Answers()) != 0 {
		t.Error("a yes that was not kept lets in")
	}
	if _, err := Open(&memory{text: []byte("{")}); err == nil {
		t.Error("damage is not named")
	}
}

func TestBook_HasBounds(t *testing.T) {
	b := open(t, &memory{})
	clock := time.Unix(0, 0)
	b.now = func() time.Time { clock = clock.Add(time.Second); return clock }
	for i := range 3 * maxRefusals {
		b.Refused(fmt.Sprintf("https://%d.example", i))
	}
	b.Refused(fmt.Sprintf("https://%d.example", 3*maxRefusals-1))
	if list := b.Refusals(); len(list) != maxRefusals || list[0].Tries != 2 || list[maxRefusals-1].Origin != fmt.Sprintf("https://%d.example", 2*maxRefusals) {
		t.Errorf("%d refusals, first %+v, last %+v", len(list), list[0], list[len(list)-1])
	}
	for i := range maxAnswers {
		b.answers[fmt.Sprint(i)] = Answer{}
	}
	if _, err := b.Put(app, Scope{}, true); identity.CodeOf(err) != identity.CodeLimit {
		t.Errorf("one more: %v", err)
	}
	full := Scope{}
	for i := range maxNames {
		full.Topics = append(full.Topics, fmt.Sprint(i))
	}
	if _, err := b.Put("0", full, true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put("0", Scope{Topics: []string{"more"}}, true); identity.CodeOf(err) != identity.CodeMalformed {
		t.Errorf("one name more: %v", err)
	}
}

// browse asks the pages as a browser does.
func browse(b *Book, method, target string, form url.Values) (int, string, http.Header) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, target, body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Header()
}

func TestPages_QuestionAndAnswer(t *testing.T) {
	b := open(t, &memory{})
	ask := url.Values{"origin": {app}, "protocol": {"chat"}, "topic": {"room/*"}, "storage": {"52428800"}}
	code, page, header := browse(b, "GET", Path+"?"+ask.Encode(), nil)
	for _, want := range []string{app, "<code>chat</code>", "<code>room/*</code>", "50.0 MiB", `value="allow"`} {
		if code != 200 || !strings.Contains(page, want) {
			t.Errorf("%d, no %q in %s", code, want, page)
		}
	}
	if header.Get("X-Frame-Options") != "DENY" || !strings.Contains(header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || header.Get("Referrer-Policy") != "same-origin" {
		t.Errorf("headers %v", header)
	}
	say := func(answer string) (int, string) {
		form := url.Values{"answer": {answer}}
		for k, v := range ask {
			form[k] = v
		}
		code, page, _ := browse(b, "POST", Path, form)
		return code, page
	}
	if code, page := say("refuse"); code != 200 || !strings.Contains(page, `"allowed":false`) || strings.Contains(page, `"token":"A`) {
		t.Errorf("no: %d %s", code, page)
	}
	if _, page, _ := browse(b, "GET", Path+"?"+ask.Encode(), nil); !strings.Contains(page, "you said no") {
		t.Errorf("asked again after a no: %s", page)
	}
	_, page = say("allow")
	a, _ := b.Get(app)
	if !strings.Contains(page, `"token":"`+a.Token+`"`) || !strings.Contains(page, `"origin":"`+app+`"`) {
		t.Errorf("yes: %s", page)
	}
	if _, page, _ := browse(b, "GET", Path+"?"+ask.Encode(), nil); !strings.Contains(page, a.Token) || strings.Contains(page, "<form") {
		t.Errorf("the answer was not remembered: %s", page)
	}
	ask.Add("topic", "more")
	if _, page, _ := browse(b, "GET", Path+"?"+ask.Encode(), nil); !strings.Contains(page, "<form") || strings.Contains(page, a.Token) {
		t.Errorf("more is not asked for: %s", page)
	}
	if code, page, _ := browse(b, "GET", Path, nil); code != 200 || !strings.Contains(page, app) || strings.Contains(page, a.Token) {
		t.Errorf("list: %d %s", code, page)
	}
	if code, _ := say("maybe"); code != 400 {
		t.Errorf("no such answer: %d", code)
	}
	if code, _ := say("forget"); code != 303 {
		t.Errorf("forget: %d", code)
	}
	if _, known := b.Get(app); known {
		t.Error("not forgotten")
	}
	if code, _, _ := browse(b, "DELETE", Path, nil); code != 405 {
		t.Errorf("DELETE: %d", code)
	}
	if code, _, _ := browse(b, "POST", Path, url.Values{"origin": {strings.Repeat("x", 100<<10)}}); code != 400 {
		t.Errorf("a long form: %d", code)
	}
}

// Text from outside is text in these pages (G-S10).
func TestG_S10_NoMarkupFromOutside(t *testing.T) {
	b := open(t, &memory{})
	const evil = `"><script>alert(1)</script>`
	for _, q := range []url.Values{
		{"origin": {app}, "protocol": {evil}, "topic": {evil}}, {"origin": {evil}}, {"origin": {app}, "storage": {evil}},
	} {
		_, page, _ := browse(b, "GET", Path+"?"+q.Encode(), nil)
		form := url.Values{"answer": {"allow"}}
		for k, v := range q {
			form[k] = v
		}
		_, told, _ := browse(b, "POST", Path, form)
		_, list, _ := browse(b, "GET", Path, nil)
		for _, p := range []string{page, told, list} {
			if strings.Contains(p, "<script>alert") {
				t.Errorf("%v: markup got through: %s", q, p)
			}
		}
	}
}
