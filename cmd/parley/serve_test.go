//go:build unix

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// terminal is what a person sees, while it is written.
type terminal struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan string // the launch link, once
}

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(p)
	if link := regexp.MustCompile(`http://\S*launch\S+`).FindString(t.text.String()); link != "" && t.ready != nil {
		t.ready <- link
		t.ready = nil
	}
	return len(p), nil
}

func (t *terminal) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// TestServeAndStop is the main job from the command line to the signal: a site
// is served to who followed the link, and to nobody else, and each of the three
// signals ends it in order.
func TestServeAndStop(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := folder(t, "html/index.html", "<h1>mine</h1>", "config/parley.toml",
				"[p2p]\nmdns = false\ndht = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n")
			link := make(chan string, 1)
			out, errOut := &terminal{ready: link}, &terminal{}
			a := &app{out: out, err: errOut, start: startNode, open: nil}
			code := make(chan int, 1)
			go func() { code <- a.run([]string{"serve", dir, "--port", "0", "--no-open", "--data", t.TempDir()}) }()
			var launch string
			select {
			case launch = <-link:
			case c := <-code:
				t.Fatalf("ended with %d: %s", c, errOut)
			}
			base := launch[:strings.Index(launch, "/_parley/")] + "/"
			if got := page(t, &http.Client{}, base); !strings.HasPrefix(got, "401") {
				t.Errorf("without the link: %q", got)
			}
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			person := &http.Client{Jar: jar}
			if got := page(t, person, launch); got != "200 <h1>mine</h1>" {
				t.Errorf("by the link: %q", got)
			}
			if got := page(t, person, base+"_parley/status.json"); !strings.Contains(got, `"ready":true`) {
				t.Errorf("status: %.100q", got)
			}
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			if c := <-code; c != exitOK || errOut.String() != "" {
				t.Errorf("ended with %d: %s", c, errOut)
			}
			if strings.Contains(out.String(), "has left") {
				t.Error("a signal is taken for the last page")
			}
			http.DefaultClient.CloseIdleConnections()
			person.CloseIdleConnections()
		})
	}
}

func page(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.Status[:3] + " " + string(body)
}
