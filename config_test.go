package parley

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func siteWith(name, text string) fstest.MapFS {
	return fstest.MapFS{name: &fstest.MapFile{Data: []byte(text)}}
}

func TestDefaultConfigIsValid(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if w := DefaultConfig().Warnings(); len(w) != 0 {
		t.Error(w)
	}
}

// TestReferenceKeys: a file with every key of the reference is read, with the
// values as they stand there.
func TestReferenceKeys(t *testing.T) {
	cfg, warnings, err := LoadConfig(ConfigSources{Site: siteWith("config/p2p-webapp.toml", `
[server]
port = 12000
portRange = 7
maxHeaderBytes = 65536
[server.timeouts]
read = "16s"
write = "17s"
idle = "1m2s"
readHeader = "6s"
[http]
cacheControl = "public, max-age=3600"
[http.security]
xContentTypeOptions = "nosniff"
xFrameOptions = "SAMEORIGIN"
contentSecurityPolicy = ""
[http.cors]
enabled = true
allowOrigin = "*"
allowMethods = ["GET", "POST"]
allowHeaders = ["Content-Type"]
[websocket]
checkOrigin = false
allowedOrigins = ["https://a.example"]
readBufferSize = 2048
writeBufferSize = 4096
[behavior]
autoExitTimeout = "0s"
autoOpenBrowser = false
linger = true
verbosity = 2
[files]
indexFile = "app.html"
spaFallback = false
[p2p]
protocolName = "/p2p-webapp/1.0.1"
fileUpdateNotifyTopic = "chatroom"
`)})
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Server.Port, want.Server.PortRange, want.Server.MaxHeaderBytes = 12000, 7, 64*KiB
	want.Server.Timeouts = TimeoutConfig{seconds(16), seconds(17), seconds(62), seconds(6)}
	want.HTTP.CacheControl = "public, max-age=3600"
	want.HTTP.Security.XFrameOptions, want.HTTP.Security.ContentSecurityPolicy = "SAMEORIGIN", ""
	want.HTTP.CORS.Enabled, want.HTTP.CORS.AllowOrigin = true, "*"
	want.HTTP.CORS.AllowMethods, want.HTTP.CORS.AllowHeaders = []string{"GET", "POST"}, []string{"Content-Type"}
	want.WebSocket = WebSocketConfig{false, []string{"https://a.example"}, 2048, 4096}
	want.Behavior = BehaviorConfig{0, false, true, 2}
	want.Files.IndexFile, want.Files.SPAFallback = "app.html", false
	want.P2P.ProtocolName, want.P2P.FileUpdateNotifyTopic = "/p2p-webapp/1.0.1", "chatroom"
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	notes := strings.Join(cfg.Warnings(), "\n")
	for _, part := range []string{"websocket.checkOrigin", "p2p.fileUpdateNotifyTopic", "websocket.readBufferSize"} {
		if !contains(notes, part) {
			t.Errorf("no warning about %s in:\n%s", part, notes)
		}
	}
}

func TestFileFaultsNameTheirLine(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown key", "[server]\nport = 1\nprot = 2\n", "config/parley.toml:3: unknown key server.prot"},
		{"unknown section", "\n[sever]\nport = 1\n", "config/parley.toml:2: unknown key sever"},
		{"two unknown keys", "[p2p]\na = 1\nb = 2\n", "config/parley.toml:3: unknown key p2p.b"},
		{"wrong type", "[server]\nport = \"x\"\n", "config/parley.toml:2: server.port"},
		{"no duration", "[peer]\nsendTimeout = \"soon\"\n", "config/parley.toml:2"},
		{"no size", "[limits]\nmaxMessage = \"8 Gallons\"\n", "config/parley.toml:2"},
		{"not TOML", "[server]\nport == 1\n", "config/parley.toml:2"},
		{"key twice", "[server]\nport = 1\nport = 2\n", "config/parley.toml:3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := LoadConfig(ConfigSources{Site: siteWith("config/parley.toml", tt.text)})
			if err == nil || !contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestWhichFileCounts(t *testing.T) {
	files := fstest.MapFS{}
	for i, name := range slices.Backward(siteFiles) {
		files[name] = &fstest.MapFile{Data: []byte("[server]\nport = " + string(rune('1'+i)) + "\n")}
		cfg, _, err := LoadConfig(ConfigSources{Site: files})
		if err != nil || cfg.Server.Port != 1+i {
			t.Errorf("with %s: port %d, %v", name, cfg.Server.Port, err)
		}
	}
	given := filepath.Join(t.TempDir(), "my.toml")
	if err := os.WriteFile(given, []byte("[server]\nport = 77\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if cfg, _, err := LoadConfig(ConfigSources{Site: files, File: given}); err != nil || cfg.Server.Port != 77 {
		t.Errorf("a given file: port %d, %v", cfg.Server.Port, err)
	}
	if _, _, err := LoadConfig(ConfigSources{File: given + ".none"}); err == nil {
		t.Error("a given file that isn't there is no error")
	}
	if _, _, err := LoadConfig(ConfigSources{Site: fstest.MapFS{}}); err != nil {
		t.Error(err)
	}
}

func TestFileBelowEnvironmentBelowSet(t *testing.T) {
	cfg, warnings, err := LoadConfig(ConfigSources{
		Site: siteWith("config/parley.toml", "[server]\nport = 1\nportRange = 1\n[p2p]\nmdns = false\n"),
		Env: []string{
			"PARLEY_SERVER_PORT=2", "PARLEY_SERVER_PORT_RANGE=3", "PORT=9", "PARLEY_SERVER_PROT=4",
			"PARLEY_PEER_SEND_TIMEOUT=7s", "PARLEY_GATEWAY_MAX_FRAME=1 MiB", "PARLEY_SERVER_HOSTS=a.example, b.example",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !contains(warnings[0], "PARLEY_SERVER_PROT") {
		t.Errorf("warnings %q", warnings)
	}
	if err := cfg.Set("server.port", "5"); err != nil {
		t.Fatal(err)
	}
	if cfg.Server.Port != 5 || cfg.Server.PortRange != 3 || cfg.P2P.MDNS || cfg.Peer.SendTimeout.D() != 7*time.Second ||
		cfg.Gateway.MaxFrame != MiB || !slices.Equal(cfg.Server.Hosts, []string{"a.example", "b.example"}) {
		t.Errorf("got %+v", cfg)
	}
	for _, entry := range []string{"PARLEY_SERVER_PORT=x", "PARLEY_P2P_MDNS=perhaps", "PARLEY_GATEWAY_GRACE=5", "PARLEY_LIMITS_OUTBOX=-1"} {
		if _, _, err := LoadConfig(ConfigSources{Env: []string{entry}}); err == nil || !contains(err.Error(), strings.Split(entry, "=")[0]) {
			t.Errorf("%s: %v", entry, err)
		}
	}
	if err := cfg.Set("server.prot", "1"); err == nil {
		t.Error("an unknown key was set")
	}
}

func TestEnvironmentNames(t *testing.T) {
	cfg := DefaultConfig()
	seen := map[string]string{}
	for _, k := range cfg.keys() {
		if other, ok := seen[k.env()]; ok {
			t.Errorf("%s and %s are both %s", other, k.name, k.env())
		}
		seen[k.env()] = k.name
	}
	for name, env := range map[string]string{
		"server.portRange": "PARLEY_SERVER_PORT_RANGE", "p2p.mdns": "PARLEY_P2P_MDNS", "server.timeouts.readHeader": "PARLEY_SERVER_TIMEOUTS_READ_HEADER",
		"http.security.xContentTypeOptions": "PARLEY_HTTP_SECURITY_X_CONTENT_TYPE_OPTIONS", "files.spaFallback": "PARLEY_FILES_SPA_FALLBACK",
	} {
		if seen[env] != name {
			t.Errorf("%s is %q, want %s", env, seen[env], name)
		}
	}
}

// TestRelayForWhom: a relay without limits is for those on a list; on this machine
// alone there are no strangers, and who wants to serve all of them says so.
func TestRelayForWhom(t *testing.T) {
	const star = "/dns4/star.example/tcp/443/wss/p2p-websocket-star"
	for _, tt := range []struct {
		name                   string
		profile, allow, listen string
		stars                  string
		good                   bool
	}{
		{"nobody named", "own", "", "", "", false},
		{"on an address of others", "own", "", "/ip4/127.0.0.1/tcp/0,/ip4/0.0.0.0/tcp/0", "", false},
		{"reached over a star", "own", "", "/ip4/127.0.0.1/tcp/0", star, false},
		{"on a star alone", "own", "", star, "", false},
		{"one named", "own", "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "", "", true},
		{"everybody named", "own", "*", "", "", true},
		{"on this machine", "own", "", "/ip4/127.0.0.1/tcp/0,/ip6/::1/tcp/0", "", true},
		{"without sockets", "own", "", "none", "", true},
		{"with limits", "public", "", "", "", true},
		{"off", "off", "", "", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			for key, value := range map[string]string{"relay.profile": tt.profile, "relay.allow": tt.allow, "p2p.listen": tt.listen, "p2p.stars": tt.stars} {
				if err := cfg.Set(key, value); value != "" && err != nil {
					t.Fatal(err)
				}
			}
			if err := cfg.Validate(); (err == nil) != tt.good {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	tests := []struct{ name, key, value, want string }{
		{"port too high", "server.port", "70000", "server.port"},
		{"no port to try", "server.portRange", "0", "server.portRange"},
		{"address with a port", "server.listen", "127.0.0.1:80", "server.port"},
		{"no time", "server.timeouts.readHeader", "0s", "wait for ever"},
		{"half of TLS", "server.tls.cert", "x.pem", "go together"},
		{"auth", "gateway.auth", "maybe", "gateway.auth"},
		{"router", "p2p.router", "none", "p2p.router"},
		{"relay", "relay.profile", "all", "relay.profile"},
		{"relay for whom", "relay.allow", "bob", "relay.allow"},
		{"relay for all and one", "relay.allow", "*,12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "stands alone"},
		{"relay without limits for strangers", "relay.profile", "own", "name whom it serves"},
		{"connect without id", "p2p.connect", "/ip4/1.2.3.4/tcp/1", "/p2p/ID"},
		{"p2p listen", "p2p.listen", "1.2.3.4:80", "p2p.listen"},
		{"no sockets and one", "p2p.listen", "none,/ip4/127.0.0.1/tcp/0", "exclude each other"},
		{"protocol", "p2p.protocolName", "files", "p2p.protocolName"},
		{"namespace", "p2p.namespace", "a b", "p2p.namespace"},
		{"a router for each page", "p2p.router", "page", "is not in this version"},
		{"frame too small", "gateway.maxFrame", "1 KiB", "gateway.maxFrame"},
		{"frame huge", "gateway.maxFrame", "2 GiB", "gateway.maxFrame"},
		{"message over frame", "limits.maxMessage", "64 MiB", "gateway.maxFrame"},
		{"outbox below message", "limits.outbox", "1 MiB", "limits.maxMessage"},
		{"no sessions", "limits.sessions", "0", "limits.sessions"},
		{"no time to send", "peer.sendTimeout", "0s", "peer.sendTimeout"},
		{"negative time", "gateway.grace", "-1s", "negative"},
		{"verbosity", "behavior.verbosity", "4", "behavior.verbosity"},
		{"index", "files.indexFile", "../x", "files.indexFile"},
		{"cors", "http.cors.enabled", "true", "http.cors.allowOrigin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			if err := cfg.Set(tt.key, tt.value); err != nil {
				t.Fatal(err)
			}
			if err := cfg.Validate(); err == nil || !contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a word of %s", err, tt.want)
			}
		})
	}
}

func TestDurationWithoutUnit(t *testing.T) {
	cfg, _, err := LoadConfig(ConfigSources{Site: siteWith("config/parley.toml", "[behavior]\nautoExitTimeout = 5\n")})
	if err == nil {
		err = cfg.Validate()
	}
	if err == nil || !contains(err.Error(), `"5s"`) {
		t.Errorf("got %v", err)
	}
}

// TestAbuse8_BindAddress: loopback is fine; anything else needs TLS and tokens,
// and names that only look local are not.
func TestAbuse8_BindAddress(t *testing.T) {
	tests := []struct {
		name, listen, auth string
		tls, ok            bool
	}{
		{"default", "localhost", "link", false, true},
		{"default without token", "localhost", "none", false, true},
		{"v4", "127.0.0.1", "link", false, true},
		{"v6", "::1", "link", false, true},
		{"v6 in brackets", "[::1]", "link", false, true},
		{"another loopback", "127.0.0.2", "none", false, true},
		{"all", "0.0.0.0", "link", false, false},
		{"all of v6", "::", "link", false, false},
		{"all with TLS and tokens", "0.0.0.0", "link", true, true},
		{"all with TLS, no tokens", "0.0.0.0", "none", true, false},
		{"a name that begins alike", "127.evil.example", "link", false, false},
		{"a name that begins alike too", "localhost.evil.example", "none", false, false},
		{"the LAN", "192.168.1.7", "link", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Server.Listen, cfg.Gateway.Auth = tt.listen, tt.auth
			if tt.tls {
				cfg.Server.TLS = TLSConfig{"c.pem", "k.pem"}
			}
			err := cfg.Validate()
			if (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
			if err != nil && !contains(err.Error(), "is not loopback") {
				t.Errorf("%v gives no reason", err)
			}
		})
	}
	cfg := DefaultConfig()
	cfg.Server.Listen, cfg.Server.TLS, cfg.WebSocket.CheckOrigin = "0.0.0.0", TLSConfig{"c", "k"}, false
	if err := cfg.Validate(); err == nil {
		t.Error("any origin, any machine")
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1000": 1000, "4096": 4 * KiB, "32 MiB": 32 * MiB, "2GiB": 2 * GiB, "7 b": 7} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
		var back Size
		if err := back.UnmarshalText([]byte(want.String())); err != nil || back != want {
			t.Errorf("%d is written %q", want, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1 MB", "1.5 MiB", "9223372036854775807 GiB", "99999999999999999999"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d", text, s)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("[server]\nport = 1\n")
	f.Add("p2p = 1\n")
	f.Add("[limits]\nmaxMessage = \"8 MiB\"\n[limits]\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, _, err := LoadConfig(ConfigSources{Site: siteWith("parley.toml", text)})
		if err == nil {
			_ = cfg.Validate()
			_ = cfg.Warnings()
		} else if err.Error() == "" {
			t.Error("an error without a word")
		}
	})
}
