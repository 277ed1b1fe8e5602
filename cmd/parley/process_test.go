//go:build unix

package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

// serveProgram starts parley as a process that serves a site, and gives its address
// and what lets programs in.
func serveProgram(t *testing.T, args ...string) (p *program, url string, header http.Header) {
	t.Helper()
	dir := folder(t, "html/index.html", "<h1>mine</h1>", "config/parley.toml",
		"[p2p]\nmdns = false\ndht = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n")
	data := t.TempDir()
	p = run(t, []string{"XDG_RUNTIME_DIR=" + t.TempDir()}, append([]string{"serve", dir, "--port", "0", "--no-open", "--data", data}, args...)...)
	for text := ""; !strings.Contains(text, "Ctrl-C"); {
		line, err := p.out.ReadString('\n')
		if err != nil {
			t.Fatalf("it ended with %d: %s", p.wait(), p.errOut.String())
		}
		if at := regexp.MustCompile(`status +(http://[^/]+)/`).FindStringSubmatch(line); at != nil {
			url = at[1]
		}
		text += line
	}
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		t.Fatal(err)
	}
	return p, url, http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))}}
}

// openPages gives a page of v1 and one of v2, each with its peer.
func openPages(t *testing.T, url string, header http.Header) (pages []*websocket.Conn) {
	t.Helper()
	for _, page := range []struct {
		subprotocols []string
		kind         websocket.MessageType
		first        string
	}{
		{nil, websocket.MessageText, `{"requestid":0,"method":"peer","params":{},"isresponse":false}`},
		{[]string{"parley.v2"}, websocket.MessageBinary, "\x82\x00\xa1\x61v\x02"}, // [0, {v: 2}]
	} {
		ws, _, err := websocket.Dial(t.Context(), url+"/ws", &websocket.DialOptions{HTTPHeader: header, Subprotocols: page.subprotocols})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
		if err := ws.Write(t.Context(), page.kind, []byte(page.first)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		pages = append(pages, ws)
	}
	return pages
}

// TestProgramStops: each of the three signals ends the program in order: its pages are
// told, nobody complains, and the exit code is 0.
func TestProgramStops(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			p, url, header := serveProgram(t)
			pages := openPages(t, url, header)
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			for i, ws := range pages {
				var err error
				for err == nil {
					_, _, err = ws.Read(t.Context())
				}
				if code := websocket.CloseStatus(err); code != websocket.StatusGoingAway {
					t.Errorf("v%d: closed with %d: %v", i+1, code, err)
				}
			}
			if code := p.wait(); code != exitOK || p.errOut.String() != "" {
				t.Errorf("it ended with %d: %s", code, p.errOut.String())
			}
		})
	}
}

// TestProgramEndsWithItsLastPage: and says why.
func TestProgramEndsWithItsLastPage(t *testing.T) {
	p, url, header := serveProgram(t, "--set", "behavior.autoExitTimeout=50ms")
	for _, ws := range openPages(t, url, header) {
		_ = ws.Close(websocket.StatusGoingAway, "")
	}
	rest, err := io.ReadAll(p.out)
	if err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != exitOK || !strings.Contains(string(rest), "The last page has left") || p.errOut.String() != "" {
		t.Errorf("it ended with %d and says %q: %s", code, rest, p.errOut.String())
	}
}
