package gatewaytest

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// Script is a conversation of v1 pages with a node, written as gateway.md §2.9
// writes it:
//
//	A > {"requestid":0,…}     page A sends this frame; its socket is opened first
//	A >b {"requestid":0,…}    the same, in a binary message
//	A < {"requestid":0,…}     the next frame that A gets is this one, byte by byte
//	A <~ {"requestid":0,…}    A gets this one too; others may come before it
//	A close                   A closes its socket with 1000 and waits for the end
//	A closed 1008 reason      the node closes A's socket so, and sends nothing before
//
// $name in an expected frame stands for what comes there; the same name means
// the same text afterwards, in both directions. $_ is never remembered.
type Script struct {
	Name  string
	Steps string
}

// Run plays a script against a gateway.
func (s Script) Run(t *testing.T, url string, header http.Header) {
	t.Helper()
	p := &player{t: t, url: url, header: header, pages: map[string]*websocket.Conn{}, kept: map[string][]string{}, names: map[string]string{}}
	for _, line := range strings.Split(s.Steps, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			p.step(line)
		}
	}
}

// RunV1 plays all of V1Scripts, each as a test of its own.
func RunV1(t *testing.T, url string, header http.Header) {
	for _, s := range V1Scripts() {
		t.Run(s.Name, func(t *testing.T) { s.Run(t, url, header) })
	}
}

type player struct {
	t      *testing.T
	url    string
	header http.Header
	pages  map[string]*websocket.Conn
	kept   map[string][]string // frames that came and were not expected yet
	names  map[string]string
}

func (p *player) step(line string) {
	p.t.Helper()
	who, rest, _ := strings.Cut(line, " ")
	what, frame, _ := strings.Cut(rest, " ")
	ws := p.pages[who]
	if ws == nil {
		ws = Dial(p.t, p.url, p.header, "")
		p.pages[who] = ws
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch what {
	case ">", ">b":
		kind := map[string]websocket.MessageType{">": websocket.MessageText, ">b": websocket.MessageBinary}[what]
		if err := ws.Write(ctx, kind, []byte(p.filled(frame))); err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
	case "<":
		if got := p.next(ctx, line, who, 0); !p.match(frame, got) {
			p.t.Fatalf("%s\ngot   %s", line, got)
		}
		p.kept[who] = p.kept[who][1:]
	case "<~":
		for i := 0; ; i++ {
			if p.match(frame, p.next(ctx, line, who, i)) {
				p.kept[who] = slices.Delete(p.kept[who], i, i+1)
				return
			}
		}
	case "close":
		if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		delete(p.pages, who)
	case "closed":
		_, got, err := ws.Read(ctx)
		code, reason := CloseOf(err)
		if want := fmt.Sprint(int(code), " ", reason); err == nil || !p.match(frame, want) || len(p.kept[who]) > 0 {
			p.t.Fatalf("%s\ngot   %s, frames %q %s", line, want, p.kept[who], got)
		}
		delete(p.pages, who)
	default:
		p.t.Fatalf("%s: no such step", line)
	}
}

var (
	nameIn     = regexp.MustCompile(`\$[A-Za-z_]+`)
	quotedName = regexp.MustCompile(`\\\$[A-Za-z_]+`)
)

// filled puts what is known in place of names.
func (p *player) filled(frame string) string {
	return nameIn.ReplaceAllStringFunc(frame, func(name string) string {
		if v, ok := p.names[name]; ok {
			return v
		}
		return name
	})
}

// next gives the frame at position i of those that came and were not expected yet.
func (p *player) next(ctx context.Context, line, who string, i int) string {
	p.t.Helper()
	for len(p.kept[who]) <= i {
		kind, got, err := p.pages[who].Read(ctx)
		if err != nil {
			p.t.Fatalf("%s: %v; came before: %q", line, err, p.kept[who])
		}
		if kind != websocket.MessageText {
			p.t.Fatalf("%s: came in a binary message", line)
		}
		p.kept[who] = append(p.kept[who], string(got))
	}
	return p.kept[who][i]
}

// match compares a frame with an expected one, and remembers the new names.
func (p *player) match(frame, got string) bool {
	var fresh []string
	pattern := quotedName.ReplaceAllStringFunc(regexp.QuoteMeta(p.filled(frame)), func(name string) string {
		fresh = append(fresh, name[1:])
		return `([^"]*)`
	})
	found := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(got)
	if found == nil {
		return false
	}
	for i, name := range fresh {
		if name != "$_" {
			p.names[name] = found[i+1]
		}
	}
	return true
}
