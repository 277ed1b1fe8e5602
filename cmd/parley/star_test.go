//go:build unix

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is parley in a process of its own.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *bufio.Reader
	errOut bytes.Buffer
	client *http.Client
	url    string // once it listens

	sessions []string // that poll
}

// run starts the program; env is all of its environment.
func run(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(os.Args[0], args...)}
	p.cmd.Env = append([]string{asProgram + "=1", "HOME=" + t.TempDir()}, env...)
	p.cmd.Stderr = &p.errOut
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	p.client = &http.Client{Transport: tr}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		_ = p.cmd.Process.Kill()
	})
	return p
}

// star starts a star on a free port of loopback, without an admin port unless
// the arguments have one.
func runStar(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := run(t, append([]string{"PARLEY_STAR_ADMIN="}, env...), append([]string{"star", "-p", "0", "--host", "127.0.0.1"}, args...)...)
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("it ended with %d: %s", p.wait(), p.errOut.String())
	}
	url, ok := strings.CutPrefix(line, "Listening on: ")
	if !ok {
		t.Fatalf("it says %q", line)
	}
	p.url = strings.TrimSpace(url)
	return p
}

// wait gives the exit code and what is left of the output.
func (p *program) wait() int {
	p.t.Helper()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop sends a signal and checks the last words, to the sessions that poll, too.
func (p *program) stop(sig syscall.Signal) {
	p.t.Helper()
	_ = p.cmd.Process.Signal(sig)
	for _, s := range p.sessions {
		if status, body := p.get(s); status != 200 || !strings.HasSuffix(body, "1:1") {
			p.t.Errorf("a session hears %d %q at the end", status, body)
		}
	}
	rest, err := io.ReadAll(p.out)
	if err != nil {
		p.t.Fatal(err)
	}
	if code := p.wait(); code != 0 || string(rest) != "Rendezvous server stopped\n" {
		p.t.Errorf("it ended with %d and says %q, %s", code, rest, p.errOut.String())
	}
}

func (p *program) get(path string) (int, string) {
	p.t.Helper()
	res, err := p.client.Get(p.url + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

const pollPath = "/socket.io/?EIO=3&transport=polling"

// session opens a session by polling and gives the path of its requests.
func (p *program) session() string {
	p.t.Helper()
	status, body := p.get(pollPath)
	var open struct{ SID string }
	_, text, _ := strings.Cut(body, ":0")
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&open); err != nil || status != 200 || open.SID == "" {
		p.t.Fatalf("handshake: %d %q", status, body)
	}
	p.sessions = append(p.sessions, pollPath+"&sid="+open.SID)
	return p.sessions[len(p.sessions)-1]
}

// say posts an event and gives the next poll.
func (p *program) say(session, packet string) string {
	p.t.Helper()
	res, err := p.client.Post(p.url+session, "text/plain;charset=UTF-8", strings.NewReader(fmt.Sprintf("%d:%s", len(packet), packet)))
	if err != nil {
		p.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		p.t.Fatalf("POST: %s", res.Status)
	}
	_, body := p.get(session)
	return body
}

// TestStarServesAndStops: what is promised of the program from the command line
// to the signal, with both signals.
func TestStarServesAndStops(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := runStar(t, nil, "--disableCryptoChallenge", "--disableStrictMultiaddr")
		if got := p.say(p.session(), `420["ss-join","/ip4/1.2.3.4",""]`); !strings.Contains(got, `430[null,null,[]]`) {
			t.Errorf("join: %q", got)
		}
		if status, body := p.get("/"); status != 200 || !strings.Contains(body, "/p2p-websocket-star") {
			t.Errorf("page: %d", status)
		}
		if status, body := p.get("/metrics"); status != 200 || !strings.Contains(body, "\nrendezvous_peers 1\n") {
			t.Errorf("metrics: %d", status)
		}
		p.stop(sig)
	}
}

// TestStarStopsAtOnce: a drain waits for streams, and a second signal does not.
func TestStarStopsAtOnce(t *testing.T) {
	p := runStar(t, nil, "--disableCryptoChallenge", "--disableStrictMultiaddr", "--drain", "1h")
	s := p.session()
	p.say(s, `420["ss-join","/ip4/1.2.3.4",""]`)
	if got := p.say(s, `421["ss-dial","/ip4/1.2.3.4","/ip4/1.2.3.4","d"]`); !strings.Contains(got, "ss-incomming") {
		t.Fatalf("dial: %q", got)
	}
	p.say(s, `430[]`)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	for status := 200; status != 503; { // from when it drains
		status, _ = p.get(pollPath)
	}
	if got := p.say(s, `422["ss-join","/ip4/1.2.3.5",""]`); !strings.Contains(got, "Server is shutting down") {
		t.Errorf("a join while it drains: %q", got)
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("it ended with %d: %s", code, p.errOut.String())
	}
}

// TestStarSettings: flag over parley's variable over the reference's over the
// file over the default, and every switch.
func TestStarSettings(t *testing.T) {
	dir := folder(t, "c.toml", "[star]\nchallenge = false\nmetrics = false\nnames = [\"a\"]\n[star.limits]\nsessions = 1\n")
	file := []string{"--config", filepath.Join(dir, "c.toml")}
	tests := []struct {
		name    string
		env     []string
		args    []string
		metrics int    // status
		join    string // the answer to a join without a key
		note    string
	}{
		{"default", nil, nil, 200, "Crypto Challenge required", ""},
		{"the reference's switches", nil, []string{"--disableMetrics", "--disableCryptoChallenge"}, 404, "[null,null,[]]", ""},
		{"turned on again", nil, append(file, "--disableMetrics=false", "--disableCryptoChallenge=false"), 200, "Crypto Challenge required", ""},
		{"variables", []string{"DISABLE_METRICS=yes", "DISABLE_CRYPTO_CHALLENGE=1"}, nil, 404, "[null,null,[]]", ""},
		{"variables that say no", []string{"DISABLE_METRICS=0", "DISABLE_CRYPTO_CHALLENGE="}, nil, 200, "Crypto Challenge required", "DISABLE_METRICS=0"},
		{"parley's variable wins", []string{"DISABLE_METRICS=1", "PARLEY_STAR_METRICS=true"}, nil, 200, "Crypto Challenge required", ""},
		{"file", nil, file, 404, "[null,null,[]]", ""},
		{"flag over variable", []string{"DISABLE_METRICS=1"}, []string{"--disableMetrics=false"}, 200, "Crypto Challenge required", ""},
		{"--set", nil, []string{"--set", "star.metrics=false"}, 404, "Crypto Challenge required", ""},
		{"interval", nil, []string{"--refreshPeerListIntervalMS=1000"}, 200, "Crypto Challenge required", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := runStar(t, append([]string{"PORT=1", "HOST=192.0.2.1"}, tt.env...), tt.args...)
			if status, _ := p.get("/metrics"); status != tt.metrics {
				t.Errorf("metrics: %d, want %d", status, tt.metrics)
			}
			if got := p.say(p.session(), `420["ss-join","/ip4/1.2.3.4/tcp/1/ws/p2p-websocket-star/ipfs/QmcoXrnhUeMbnHmwkDVh4pbCBi6px4RbCQ6xg2qCjJeNEx",""]`); !strings.Contains(got, tt.join) {
				t.Errorf("join: %q, want %q", got, tt.join)
			}
			p.stop(syscall.SIGTERM)
			if note := p.errOut.String(); tt.note == "" && note != "" || !strings.Contains(note, tt.note) {
				t.Errorf("it says %q", note)
			}
		})
	}
}

// TestStarThatCantStart: a wrong setting ends the start with its name, and with 2.
func TestStarThatCantStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // after the parallel ones
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	files := certificate(t)
	broken := folder(t, "c.toml", "[star]\nprot = 1\n")
	tests := []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"unknown flag", nil, []string{"--prot", "1"}, "--prot"},
		{"host's short flag is help's", nil, []string{"-h=1.2.3.4"}, "-h"},
		{"port", nil, []string{"--port", "70000"}, "star.port"},
		{"port in the environment", []string{"PORT=x"}, nil, "PORT in the environment"},
		{"taken", nil, []string{"--port", port}, port},
		{"taken by another, for admin", nil, []string{"-p", "0", "--admin", taken.Addr().String()}, "admin"},
		{"host", nil, []string{"--host", "no such host"}, "no such host"},
		{"interval", nil, []string{"--refreshPeerListIntervalMS", "x"}, "--refreshPeerListIntervalMS"},
		{"short interval", nil, []string{"--refreshPeerListIntervalMS", "5"}, "star.refresh"},
		{"announce", nil, []string{"--announce", "some"}, "star.announce"},
		{"policy", nil, []string{"--policy", "mine"}, "star.policy"},
		{"drain", nil, []string{"--drain", "5"}, "--drain"},
		{"proxies", nil, []string{"--trusted-proxies", "10.0.0.0/33"}, "star.trustedProxies"},
		{"readers of metrics", nil, []string{"--metrics-allow", "all"}, "star.metricsAllow"},
		{"a limit", nil, []string{"--set", "star.limits.message=20 MiB"}, "star.limits.message"},
		{"a negative limit", nil, []string{"--set", "star.limits.dials=-1"}, "star.limits.dials"},
		{"no limit's name", nil, []string{"--set", "star.limits.dails=1"}, "star.limits.dails"},
		{"key alone", nil, []string{"--key", files.key}, "star.key"},
		{"no file", []string{"KEY=/none", "CERT=/none"}, nil, "/none"},
		{"pfx that is none", nil, []string{"--pfx", files.cert}, "certificate"},
		{"two kinds", nil, []string{"--pfx", files.cert, "--acme", "x.example"}, "star.pfx"},
		{"no NATS there", nil, []string{"--cluster", "nats://me:secret@127.0.0.1:1"}, "NATS at 127.0.0.1:1"},
		{"what is no NATS", []string{"PARLEY_STAR_CLUSTER=http://me:secret@127.0.0.1:1"}, nil, "star.cluster"},
		{"a cluster's name", nil, []string{"--cluster", "nats://127.0.0.1:1", "--cluster-name", "a b"}, `name "a b"`},
		{"its certificate alone", nil, []string{"--cluster", "nats://127.0.0.1:1", "--cluster-cert", files.cert}, "certificate and key"},
		{"unknown key in the file", nil, []string{"--config", filepath.Join(broken, "c.toml")}, "unknown key star.prot"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := run(t, append([]string{"HOST=127.0.0.1", "PARLEY_STAR_ADMIN="}, tt.env...), append([]string{"star"}, tt.args...)...)
			out, _ := io.ReadAll(p.out)
			if code := p.wait(); code != exitUsage || len(out) > 0 || !strings.Contains(p.errOut.String(), tt.want) || strings.Contains(p.errOut.String(), "me:secret") {
				t.Errorf("it ended with %d and says %q, %q; want %q", code, out, p.errOut.String(), tt.want)
			}
		})
	}
}

type certificateFiles struct{ key, cert string }

func certificate(t *testing.T) certificateFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
		"cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return certificateFiles{key: filepath.Join(dir, "key.pem"), cert: filepath.Join(dir, "cert.pem")}
}

// TestStarWithTLS: the page, the protocol and the address all speak TLS.
func TestStarWithTLS(t *testing.T) {
	files := certificate(t)
	p := runStar(t, []string{"KEY=" + files.key}, "--cert", files.cert)
	if !strings.HasPrefix(p.url, "https://127.0.0.1:") {
		t.Errorf("it listens on %s", p.url)
	}
	if status, body := p.get("/"); status != 200 || !strings.Contains(body, "/wss/p2p-websocket-star") {
		t.Errorf("page: %d, or no address", status)
	}
	p.session()
	p.stop(syscall.SIGTERM)
}

// TestStarHealth: the subcommand that containers ask with.
func TestStarHealth(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.2:0") // where nobody else takes the port meanwhile
	if err != nil {
		if free, err = net.Listen("tcp", "127.0.0.1:0"); err != nil { // not every system has all of 127.0.0.0/8
			t.Fatal(err)
		}
	}
	admin := free.Addr().String()
	free.Close()
	p := runStar(t, nil, "--admin", admin)
	ask := func(args ...string) (int, string) {
		var out, errOut bytes.Buffer
		a := &app{out: &out, err: &errOut, env: []string{"PARLEY_STAR_ADMIN=" + admin}}
		code := a.run(append([]string{"star", "health"}, args...))
		return code, out.String() + errOut.String()
	}
	for want, args := range map[string][]string{"ok\n": nil, "ready\n": {"--ready"}} {
		if code, got := ask(args...); code != exitOK || got != want {
			t.Errorf("health %q: %d %q", args, code, got)
		}
	}
	p.stop(syscall.SIGTERM)
	if code, got := ask(); code != exitFault || !strings.Contains(got, "refused") {
		t.Errorf("without a star: %d %q", code, got)
	}
	if code, _ := ask("--admin", "x"); code != exitUsage {
		t.Errorf("no address: %d", code)
	}
}

// TestStarAdminPortTaken: a second star of a machine does without the admin port
// that nobody asked for; one that was asked for must be there.
func TestStarAdminPortTaken(t *testing.T) {
	const usual = "127.0.0.1:9091"
	for range 100 { // otherwise another program has it, and one that stays
		l, err := net.Listen("tcp", usual)
		if err == nil {
			defer l.Close()
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	p := runStar(t, []string{"PARLEY_STAR_ADMIN=" + usual})
	if status, _ := p.get("/"); status != 200 {
		t.Errorf("page: %d", status)
	}
	p.stop(syscall.SIGTERM)
	if !strings.Contains(p.errOut.String(), "no admin port") {
		t.Errorf("it says %q", p.errOut.String())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p = run(t, nil, "star", "-p", "0", "--host", "127.0.0.1", "--admin", l.Addr().String())
	_, _ = io.Copy(io.Discard, p.out)
	if code := p.wait(); code != exitUsage || !strings.Contains(p.errOut.String(), "admin") {
		t.Errorf("it ended with %d and says %q", code, p.errOut.String())
	}
}

// TestStarInANode: [star] in the configuration runs one inside a node, and both
// end together.
func TestStarInANode(t *testing.T) {
	dir := folder(t, "index.html", "x", "parley.toml", "[star]\nenabled = true\nhost = \"127.0.0.1\"\nport = 0\nadmin = \"\"\n"+
		"[p2p]\nmdns = false\ndht = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n")
	p := run(t, nil, "serve", dir, "--port", "0", "--no-open", "--data", t.TempDir())
	for p.url == "" {
		line, err := p.out.ReadString('\n')
		if err != nil {
			t.Fatalf("it ended with %d: %s", p.wait(), p.errOut.String())
		}
		if url, ok := strings.CutPrefix(strings.TrimSpace(line), "star "); ok {
			p.url = strings.TrimSpace(url)
		}
	}
	p.session()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_, _ = io.Copy(io.Discard, p.out)
	if code := p.wait(); code != exitOK {
		t.Errorf("it ended with %d: %s", code, p.errOut.String())
	}
}
