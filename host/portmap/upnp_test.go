package portmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var here = way{inside: netip.MustParseAddr("127.0.0.1"), gateway: netip.MustParseAddr("127.0.0.1")}

// igd is a UPnP gateway on this machine.
type igd struct {
	ssdp netip.AddrPort

	mu       sync.Mutex
	location string // of the description
	root     string // the description
	soap     func(action string, args map[string]string) (int, string)
	ports    map[string]string // "TCP 4001" to "127.0.0.1:4001 for 120"
}

// search finds the gateway.
func (g *igd) search() search {
	return search{here, []netip.AddrPort{g.ssdp}, time.Minute, time.Millisecond}
}

// set changes what the gateway does.
func (g *igd) set(f func(*igd)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g)
}

const rootDesc = `<?xml version="1.0" encoding="ISO-8859-1"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major></specVersion>%s<device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/ctl/L3F</controlURL></service></serviceList>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL>/ctl/IPConn</controlURL></service></serviceList></device></deviceList></device></deviceList></device></root>`

func newIGD(t *testing.T) *igd {
	t.Helper()
	g := &igd{root: fmt.Sprintf(rootDesc, ""), ports: map[string]string{}}
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	g.location = s.URL + "/root.xml" // nobody asks yet
	g.ssdp = answering(t, func(q []byte) [][]byte {
		if !strings.HasPrefix(string(q), "M-SEARCH * HTTP/1.1\r\n") || !strings.Contains(string(q), "\r\nMAN: \"ssdp:discover\"\r\n") {
			return nil
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return [][]byte{[]byte("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: x\r\nLOCATION: " + g.location + "\r\n\r\n")}
	})
	return g
}

var argument = regexp.MustCompile(`<(New\w+)>([^<]*)</`)

func (g *igd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, g.root)
		return
	}
	service, action, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
	body, _ := io.ReadAll(r.Body)
	args := map[string]string{}
	for _, m := range argument.FindAllStringSubmatch(string(body), -1) {
		args[m[1]] = m[2]
	}
	status, text := http.StatusOK, ""
	if g.soap != nil {
		status, text = g.soap(action, args)
	}
	if text == "" {
		text = fmt.Sprintf(`<u:%sResponse xmlns:u="%s">%s</u:%[1]sResponse>`, action, service, g.do(action, args))
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`+text+`</s:Body></s:Envelope>`)
}

func (g *igd) do(action string, args map[string]string) string {
	at := args["NewProtocol"] + " " + args["NewExternalPort"]
	switch action {
	case "GetExternalIPAddress":
		return "<NewExternalIPAddress>203.0.113.7</NewExternalIPAddress>"
	case "AddPortMapping":
		g.ports[at] = args["NewInternalClient"] + ":" + args["NewInternalPort"] + " for " + args["NewLeaseDuration"]
	case "DeletePortMapping":
		delete(g.ports, at)
	}
	return ""
}

// fault is the error of a UPnP service.
func fault(code int) (int, string) {
	return http.StatusInternalServerError, fmt.Sprintf(`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>
		<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode></UPnPError></detail></s:Fault>`, code)
}

// found gives the router by UPnP that is found at the gateway, which has to be.
func (g *igd) found(t *testing.T) router {
	t.Helper()
	all := findUPnP(bound(t), g.search())
	if len(all) != 1 {
		t.Fatalf("found %v", all)
	}
	return all[0]
}

func TestUPnP(t *testing.T) {
	g := newIGD(t)
	r := g.found(t)
	if a, err := r.outside(bound(t)); err != nil || a.String() != "203.0.113.7" {
		t.Errorf("outside %s, %v", a, err)
	}
	if outer, life, err := r.add(bound(t), TCP, 4001, 5001); err != nil || outer != 5001 || life != lifetime {
		t.Errorf("mapped at %d for %s, %v", outer, life, err)
	}
	var got string
	if g.set(func(g *igd) { got = g.ports["TCP 5001"] }); got != "127.0.0.1:4001 for 120" {
		t.Errorf("the router maps to %s", got)
	}
	err := r.remove(bound(t), TCP, 4001, 5001)
	if g.set(func(g *igd) { got = fmt.Sprint(g.ports) }); err != nil || got != "map[]" {
		t.Errorf("the router maps %s, %v", got, err)
	}
}

func TestUPnPErrors(t *testing.T) {
	tests := []struct {
		name    string
		code    int
		another bool // port to try
		mapped  bool
	}{
		{"only for ever", 725, false, true},
		{"conflict", 718, true, false},
		{"the same port", 724, true, false},
		{"not authorized", 606, false, false},
		{"failed", 501, false, false},
		{"an unknown error", -7, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newIGD(t)
			g.set(func(g *igd) {
				g.soap = func(action string, args map[string]string) (int, string) {
					if action == "AddPortMapping" && (tt.code != 725 || args["NewLeaseDuration"] != "0") {
						return fault(tt.code)
					}
					return http.StatusOK, ""
				}
			})
			outer, life, err := g.found(t).add(bound(t), UDP, 4001, 4001)
			if (err == nil) != tt.mapped || errors.Is(err, errPort) != tt.another || err == nil && (outer != 4001 || life != 0) {
				t.Errorf("mapped at %d for %s, %v", outer, life, err)
			}
		})
	}
}

// TestUPnPNonsense: routers that are none, or say what makes no sense.
func TestUPnPNonsense(t *testing.T) {
	tests := map[string]func(*igd){
		"a description that is none": func(g *igd) { g.root = "\x00\x01<root" },
		"an endless description":     func(g *igd) { g.root = "<root>" + strings.Repeat("<device>", 1<<20) },
		"no service":                 func(g *igd) { g.root = strings.ReplaceAll(g.root, "WANIPConnection", "WANCable") },
		"control elsewhere":          func(g *igd) { g.root = strings.ReplaceAll(g.root, "/ctl/IPConn", "http://192.0.2.9/ctl") },
		"a base elsewhere":           func(g *igd) { g.root = fmt.Sprintf(rootDesc, "<URLBase>http://192.0.2.9/</URLBase>") },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newIGD(t)
			g.set(change)
			if all := findUPnP(bound(t), g.search()); len(all) != 0 {
				t.Errorf("found %v", all)
			}
		})
	}
	for _, answer := range []string{
		"", "\x00\xff", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nLocation: %zz\r\n\r\n",
		"HTTP/1.1 200 OK\r\nLocation: http://192.0.2.9/root.xml\r\n\r\n",        // elsewhere
		"HTTP/1.1 200 OK\r\nLocation: http://localhost/root.xml\r\n\r\n",        // by name
		"HTTP/1.1 200 OK\r\nLocation: https://127.0.0.1/root.xml\r\n\r\n",       // not HTTP
		"HTTP/1.1 200 OK\r\nLocation: file://127.0.0.1/root.xml\r\n\r\n",        // a file
		"HTTP/1.1 200 OK\r\nLocation: http://me:x@127.0.0.1/root.xml\r\n\r\n",   // a password
		"HTTP/1.1 404 Not Found\r\nLocation: http://127.0.0.1/root.xml\r\n\r\n", // an error
		"NOTIFY * HTTP/1.1\r\nLocation: http://127.0.0.1/root.xml\r\n\r\n",      // a question
	} {
		if u := location([]byte(answer), here.gateway); u != nil {
			t.Errorf("%q leads to %s", answer, u)
		}
	}
	t.Run("a base of its own", func(t *testing.T) {
		g := newIGD(t)
		g.set(func(g *igd) {
			g.root = fmt.Sprintf(rootDesc, "<URLBase>"+strings.TrimSuffix(g.location, "root.xml")+"</URLBase>")
		})
		if _, err := g.found(t).outside(bound(t)); err != nil {
			t.Error(err)
		}
	})
}

// TestUPnPNoAnswers: what a router may say to an action.
func TestUPnPNoAnswers(t *testing.T) {
	tests := map[string]struct {
		status int
		text   string
	}{
		"nothing":                     {http.StatusOK, " "},
		"an answer to something else": {http.StatusOK, "<u:FooResponse xmlns:u=\"x\"/>"},
		"not an address":              {http.StatusOK, "<GetExternalIPAddressResponse><NewExternalIPAddress>soon</NewExternalIPAddress></GetExternalIPAddressResponse>"},
		"no address":                  {http.StatusOK, "<GetExternalIPAddressResponse/>"},
		"an error without a code":     {http.StatusInternalServerError, "<s:Fault/>"},
		"an answer with an error":     {http.StatusForbidden, "<GetExternalIPAddressResponse/>"},
		"an endless address":          {http.StatusOK, "<GetExternalIPAddressResponse><NewExternalIPAddress>" + strings.Repeat("1.", 1<<20)},
		"a redirect":                  {http.StatusFound, " "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newIGD(t)
			g.set(func(g *igd) {
				g.soap = func(string, map[string]string) (int, string) { return tt.status, tt.text }
			})
			if a, err := g.found(t).outside(bound(t)); err == nil {
				t.Errorf("outside is %s", a)
			}
		})
	}
}

// TestUPnPSilence: a router that takes a connection and never says a word holds
// nobody who has ceased to wait.
func TestUPnPSilence(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newIGD(t)
	g.set(func(g *igd) { g.location = "http://" + l.Addr().String() + "/root.xml" })
	ctx, cancel := context.WithCancel(bound(t))
	held := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		cancel() // it is connected, and waits
		if err == nil {
			held <- c
		}
		close(held)
	}()
	if all := findUPnP(ctx, g.search()); len(all) != 0 {
		t.Errorf("found %v", all)
	}
	if c := <-held; c != nil {
		_ = c.Close()
	}
}

// TestCloseWithSilentRouter: a keeper ends while a router keeps it waiting, at any
// step; goleak sees what would be left.
func TestCloseWithSilentRouter(t *testing.T) {
	asked := make(chan struct{}, 100)
	at := answering(t, func([]byte) [][]byte { asked <- struct{}{}; return nil })
	k := New(Config{
		way: func() (way, error) { return here, nil },
		find: func(ctx context.Context, _ way, take func(router) bool) {
			_ = take(&pmp{at})
		},
	})
	k.Want([]Port{tcp})
	<-asked
	_ = k.Close()
	if k.Router() != "" {
		t.Error("a closed keeper has a router")
	}
}

// TestSearchEnds: looking for a router where nobody answers ends by itself.
func TestSearchEnds(t *testing.T) {
	at := answering(t, func([]byte) [][]byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if all := findUPnP(ctx, search{here, []netip.AddrPort{at}, time.Minute, 0}); len(all) != 0 {
		t.Errorf("found %v", all)
	}
}

// TestWayOut: the machine has a way out or hasn't; where it has, the address is one
// of its own.
func TestWayOut(t *testing.T) {
	at, err := wayOut()
	if err != nil {
		t.Skip("left out: this machine has no way out:", err)
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == at.inside {
			return
		}
	}
	t.Errorf("the way out is by %s, which isn't among %v", at.inside, all)
}
