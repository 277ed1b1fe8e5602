//go:build linux

package labtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Mapper is a program on a router that leads ports in for hosts of its LAN that
// ask: miniupnpd, which many home routers run.
type Mapper struct {
	router *Router
	config string
	cmd    *exec.Cmd
	said   *output
}

// output takes what a program writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// MapsPorts lets the router lead ports in, by the ways that are named: "upnp",
// "natpmp". Where miniupnpd isn't installed the test is left out, and says so.
func (r *Router) MapsPorts(ways ...string) *Mapper {
	r.lab.t.Helper()
	if _, err := exec.LookPath("miniupnpd"); err != nil {
		r.lab.t.Skip("left out: needs miniupnpd (apt-get install miniupnpd-nftables):", err)
	}
	folder := r.lab.t.TempDir()
	m := &Mapper{router: r, config: filepath.Join(folder, "miniupnpd.conf"), said: new(output)}
	yes := map[bool]string{false: "no", true: "yes"}
	lines := []string{
		"ext_ifname=" + wanLink, "listening_ip=" + lanLink, "port=0", "secure_mode=yes", "uuid=00000000-0000-0000-0000-000000000001",
		"enable_upnp=" + yes[slices.Contains(ways, "upnp")], "enable_natpmp=" + yes[slices.Contains(ways, "natpmp")],
		"upnp_table_name=lab", "upnp_nat_table_name=lab",
		"upnp_forward_chain=asked", "upnp_nat_chain=mapped", "upnp_nat_postrouting_chain=asked_out",
		"allow 1024-65535 0.0.0.0/0 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535", "",
	}
	r.lab.check(os.WriteFile(m.config, []byte(strings.Join(lines, "\n")), 0o600))
	r.nft("add chain inet lab asked; add chain inet lab asked_out")
	r.lab.t.Cleanup(func() {
		m.Stop()
		if r.lab.t.Failed() {
			r.lab.t.Logf("miniupnpd wrote:\n%s\nand has made:\n%s", m.said, r.rules())
		}
	})
	m.Start()
	return m
}

// Start starts the program, again after a Stop.
func (m *Mapper) Start() {
	m.router.lab.t.Helper()
	m.cmd = exec.Command("miniupnpd", "-d", "-4", "-f", m.config, "-P", m.config+".pid") //nolint:gosec // a tool of the test
	m.cmd.Stdout, m.cmd.Stderr = m.said, m.said
	m.router.lab.check(m.router.space.start(m.cmd))
}

// Stop kills the program, and the router forgets what it had mapped, as one that
// restarts.
func (m *Mapper) Stop() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd = nil
	m.router.nft("flush chain inet lab mapped; flush chain inet lab asked; flush chain inet lab asked_out")
}

func (r *Router) rules() string {
	out, err := r.space.output("", nil, "nft", "list", "table", "inet", "lab")
	r.lab.check(err)
	return out
}

// Mapped are the outer ports that the router leads in, such as "tcp 4001".
func (r *Router) Mapped() (out []string) {
	r.lab.t.Helper()
	text, err := r.space.output("", nil, "nft", "list", "chain", "inet", "lab", "mapped")
	r.lab.check(err)
	for _, m := range mappedPort.FindAllStringSubmatch(text, -1) {
		out = append(out, protoNames[m[1]]+" "+m[2])
	}
	slices.Sort(out)
	return out
}

// mappedPort fits what nft shows of a rule of miniupnpd and of one of Map.
var (
	mappedPort = regexp.MustCompile(`(tcp|udp|0x6 th|0x11 th) dport (\d+) dnat`)
	protoNames = map[string]string{"tcp": "tcp", "udp": "udp", "0x6 th": "tcp", "0x11 th": "udp"}
)
