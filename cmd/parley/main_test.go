package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley"
)

// TestMain is the program itself where a test has started it as one.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// asProgram is the variable that makes the test binary the program.
const asProgram = "TEST_AS_PROGRAM"

// fakeNode stands for the node: run is its life.
type fakeNode struct{ run func(context.Context) error }

func (n fakeNode) Run(ctx context.Context) error { return n.run(ctx) }

// try runs one command line with a node that ends at once, and gives what the
// node was configured with.
func try(t *testing.T, env []string, args ...string) (cfg *parley.Config, code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{
		out: &o, err: &e, env: env,
		start: func(c parley.Config) (node, error) {
			cfg = &c
			return fakeNode{func(context.Context) error {
				c.Ready(parley.Started{URL: "http://localhost:1/", LaunchURL: "http://localhost:1/_parley/launch?token=x", Listening: []string{
					"127.0.0.1:1", "[::1]:1", "/ip4/192.0.2.2/tcp/5/p2p/12D3", "/ip4/192.0.2.2/udp/6/quic-v1/webtransport/certhash/uEi/p2p/12D3",
					"/ip6/fd00::2/udp/7/quic-v1/p2p/12D3", "/ip6/fd00::2/tcp/8/ws/p2p/12D3",
				}, Data: "/data"})
				return nil
			}}, nil
		},
		open: func(string, func(error)) error { return errors.New("no display") },
	}
	code = a.run(args)
	return cfg, code, o.String(), e.String()
}

func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i+1 < len(files); i += 2 {
		name := filepath.Join(dir, filepath.FromSlash(files[i]))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFlagsWinOverEnvironmentOverFile(t *testing.T) {
	dir := folder(t, "html/index.html", "x", "config/parley.toml", "[server]\nport = 11000\n[behavior]\nlinger = true\nverbosity = 1\n")
	const id = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWFLKYCTQDQ8ZVxyvyHc1AxFJi4qhcgqHqf1WY3iY8WGZ7"
	tests := []struct {
		name string
		env  []string
		args []string
		want func(*parley.Config)
	}{
		{"file", nil, []string{"serve", dir}, func(*parley.Config) {}},
		{"--dir", nil, []string{"--dir", dir}, func(*parley.Config) {}},
		{"environment", []string{"PARLEY_SERVER_PORT=12000"}, []string{"serve", dir}, func(c *parley.Config) { c.Server.Port = 12000 }},
		{"port", []string{"PARLEY_SERVER_PORT=12000"}, []string{"serve", dir, "-p", "13000"}, func(c *parley.Config) { c.Server.Port, c.Server.PortRange = 13000, 1 }},
		{"any port", nil, []string{"serve", dir, "--port", "0"}, func(c *parley.Config) { c.Server.Port = 0 }},
		{"desk", nil, []string{"serve", dir, "--no-open", "--linger=false", "-vv"}, func(c *parley.Config) {
			c.Behavior.AutoOpenBrowser, c.Behavior.Linger, c.Behavior.Verbosity = false, false, 2
		}},
		{"the reference's name", nil, []string{"serve", dir, "--noopen"}, func(c *parley.Config) { c.Behavior.AutoOpenBrowser = false }},
		{"network", nil, []string{"serve", dir, "--listen", "127.0.0.1", "--data", "/d", "--auth", "none", "--relay", "--set", "relay.allow=*"}, func(c *parley.Config) {
			c.Server.Listen, c.Node.Data, c.Gateway.Auth, c.Relay.Profile, c.Relay.Allow = "127.0.0.1", "/d", "none", "own", []string{"*"}
		}},
		{"connect", nil, []string{"serve", dir, "--set", "p2p.mdns=false", "--set", "limits.sessions=5"}, func(c *parley.Config) {
			c.P2P.MDNS, c.Limits.Sessions = false, 5
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, code, _, errOut := try(t, tt.env, tt.args...)
			if code != exitOK || got == nil {
				t.Fatalf("code %d: %s", code, errOut)
			}
			want := parley.DefaultConfig()
			want.Server.Port, want.Behavior.Linger, want.Behavior.Verbosity = 11000, true, 1
			tt.want(&want)
			want.Site, want.Log, want.Version, want.Ready, want.OpenBrowser = got.Site, got.Log, got.Version, nil, nil
			got.Ready, got.OpenBrowser = nil, nil
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
	if got, code, _, errOut := try(t, nil, "serve", dir, "--connect", id, "--connect", id); code != exitOK || len(got.P2P.Connect) != 2 {
		t.Errorf("connect: %d %s", code, errOut)
	}
}

func TestWrongCommandLines(t *testing.T) {
	dir := folder(t, "index.html", "x")
	broken := folder(t, "index.html", "x", "parley.toml", "[server]\nprot = 1\n")
	tests := []struct {
		name string
		args []string
		code int
		want string // in the only message
	}{
		{"unknown flag", []string{"serve", dir, "--prot", "1"}, exitUsage, "--prot"},
		{"unknown command", []string{"sevre", dir}, exitUsage, "unknown command"},
		{"a folder without serve", []string{dir}, exitUsage, "parley serve " + dir},
		{"two folders", []string{"serve", dir, dir}, exitUsage, dir},
		{"folder twice", []string{"serve", dir, "--dir", dir}, exitUsage, "not both"},
		{"no number", []string{"serve", dir, "-p", "x"}, exitUsage, "--port"},
		{"no such folder", []string{"serve", filepath.Join(dir, "none")}, exitFault, "none"},
		{"unknown setting", []string{"serve", dir, "--set", "server.prot=1"}, exitUsage, "server.prot"},
		{"setting without value", []string{"serve", dir, "--set", "server.port"}, exitUsage, "NAME=VALUE"},
		{"unknown key in the file", []string{"serve", broken}, exitFault, "parley.toml:2: unknown key server.prot"},
		{"open to all", []string{"serve", dir, "--listen", "0.0.0.0"}, exitFault, "is not loopback"},
		{"connect without id", []string{"serve", dir, "--connect", "/ip4/1.2.3.4/tcp/1"}, exitFault, "/p2p/ID"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, code, out, errOut := try(t, nil, tt.args...)
			if code != tt.code || !strings.Contains(errOut, tt.want) {
				t.Errorf("code %d, want %d; stderr %q, want %q in it", code, tt.code, errOut, tt.want)
			}
			if strings.Count(errOut, tt.want) > 1 && tt.want != dir {
				t.Errorf("told twice: %q", errOut)
			}
			if cfg != nil || out != "" || strings.Contains(errOut, "Usage:") {
				t.Errorf("started, or told too much: %q", out)
			}
		})
	}
}

// TestG_S2_SaysWhatItListensOn: the start names every address.
func TestG_S2_SaysWhatItListensOn(t *testing.T) {
	dir := folder(t, "index.html", "x")
	_, code, out, errOut := try(t, []string{"PARLEY_TYPO=1"}, "serve", dir)
	if code != exitOK {
		t.Fatal(errOut)
	}
	for _, part := range []string{
		"127.0.0.1:1, [::1]:1\n", "192.0.2.2: tcp/5, udp/6/webtransport\n", "fd00::2: udp/7/quic-v1, tcp/8/ws\n", "http://localhost:1/_parley/launch?token=x", "http://localhost:1/_parley/\n", "/data", filepath.Base(dir), "--linger"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	if !strings.Contains(errOut, "PARLEY_TYPO") {
		t.Errorf("no warning in %q", errOut)
	}
	if strings.Contains(errOut, "token=") {
		t.Errorf("the secret is on stderr: %q", errOut)
	}
}

func TestToken(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	dir := folder(t, "index.html", "x")
	if _, code, _, errOut := try(t, nil, "token", dir, "--data", data); code != exitFault || !strings.Contains(errOut, data) {
		t.Errorf("before the first run: %d %q", code, errOut)
	}
	d, err := parley.OpenData(data, "")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	token, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	if _, code, out, errOut := try(t, nil, "token", dir, "--data", data); code != exitOK || out != token+"\n" {
		t.Errorf("%d %q %q", code, out, errOut)
	}
}

func TestVersionAndHelp(t *testing.T) {
	if _, code, out, _ := try(t, nil, "version"); code != exitOK || !strings.HasPrefix(out, "parley ") {
		t.Errorf("version: %d %q", code, out)
	}
	if _, code, out, _ := try(t, nil, "completion", "bash"); code != exitOK || !strings.Contains(out, "parley") {
		t.Errorf("completion: %d", code)
	}
	if _, code, out, _ := try(t, nil, "help"); code != exitOK || strings.Contains(out, "noopen") {
		t.Errorf("help: %d %q", code, out)
	}
}

// TestG_R2_SignalEndsWithinFiveSeconds: the first signal ends in order, the second or
// five seconds end at once.
func TestG_R2_SignalEndsWithinFiveSeconds(t *testing.T) {
	tests := []struct {
		name      string
		signals   []time.Duration // when they come
		ends      time.Duration   // when the node has ended in order
		cancelled time.Duration   // 0: never
		exited    time.Duration   // 0: not by force
	}{
		{"no signal", nil, time.Second, 0, 0},
		{"in order", []time.Duration{time.Second}, 2 * time.Second, time.Second, 0},
		{"too slow", []time.Duration{time.Second}, time.Minute, time.Second, 6 * time.Second},
		{"twice", []time.Duration{time.Second, 2 * time.Second}, time.Minute, time.Second, 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				came, done, gone := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{})
				var cancelled, exited time.Duration
				var said bytes.Buffer
				go func() {
					watch(came, done, func() { cancelled = time.Since(start) }, &said, func(int) { exited = time.Since(start) })
					close(gone)
				}()
				for _, at := range tt.signals {
					<-time.After(at - time.Since(start))
					came <- syscall.SIGTERM
				}
				<-time.After(tt.ends - time.Since(start))
				close(done)
				<-gone
				if cancelled != tt.cancelled || exited != tt.exited {
					t.Errorf("cancelled at %s, exited at %s", cancelled, exited)
				}
				if (said.Len() > 0) != (tt.exited > 0) {
					t.Errorf("said %q", said.String())
				}
			})
		})
	}
}

func TestBrowserCommand(t *testing.T) {
	has := func(names ...string) func(string) (string, error) {
		return func(n string) (string, error) {
			if slices.Contains(names, n) {
				return n, nil
			}
			return "", errors.New("not found")
		}
	}
	env := func(pairs ...string) func(string) string {
		return func(n string) string {
			if i := slices.Index(pairs, n); i >= 0 {
				return pairs[i+1]
			}
			return ""
		}
	}
	tests := []struct {
		name, goos string
		env        func(string) string
		look       func(string) (string, error)
		want       string
	}{
		{"linux", "linux", env("DISPLAY", ":0"), has("xdg-open", "gio"), "xdg-open"},
		{"linux without xdg-open", "linux", env("WAYLAND_DISPLAY", "w"), has("gio"), "gio open"},
		{"linux without display", "linux", env(), has("xdg-open"), ""},
		{"linux without anything", "linux", env("DISPLAY", ":0"), has(), ""},
		{"WSL", "linux", env("WSL_DISTRO_NAME", "x"), has("wslview"), "wslview"},
		{"mac", "darwin", env(), has("open"), "open"},
		{"windows", "windows", env(), has("rundll32"), "rundll32 url.dll,FileProtocolHandler"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name, args, err := browserCommand(tt.goos, tt.env, tt.look)
			got := strings.TrimSpace(name + " " + strings.Join(args, " "))
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
