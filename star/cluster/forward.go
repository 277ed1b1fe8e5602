package cluster

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/socketio"
)

// Sessions of other servers: a request whose session id begins with another
// server's prefix goes there, one hop at most, polling and upgrade alike. The
// secret of the server's lease shows that it comes from the cluster.

// forwardedHeader carries the secret of the server that is asked.
const forwardedHeader = "Parley-Star-Forwarded"

// forwarder makes what forwards.
func (c *Cluster) forwarder() error {
	roots, err := c.roots()
	if err != nil {
		return err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	c.transport = &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     socketio.IdleTime, // or a POST that is forwarded gets lost, and its session with it
		TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		// The other server has the certificate of the name that both stand behind.
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			name, _ := ctx.Value(askedName{}).(string)
			d := tls.Dialer{NetDialer: dialer, Config: &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12}}
			return d.DialContext(ctx, network, addr)
		}}
	c.proxy = &httputil.ReverseProxy{Transport: c.transport, FlushInterval: -1, ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			to, _ := r.In.Context().Value(destination{}).(*hop)
			r.SetURL(to.url)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
			r.Out.Header.Set(forwardedHeader, to.secret)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			c.log.Debug("forwarding", "error", err)
			http.Error(w, "the server of this session is out of reach", http.StatusBadGateway)
		}}
	return nil
}

// askedName and destination are keys of a request's context.
type (
	askedName   struct{}
	destination struct{}
)

// hop is where a request goes.
type hop struct {
	url    *url.URL
	secret string
}

func (c *Cluster) roots() (*x509.CertPool, error) {
	if c.opts.CA == "" {
		return nil, nil // the system's
	}
	pem, err := os.ReadFile(c.opts.CA)
	if err != nil {
		return nil, identity.Errorf(identity.CodeMalformed, "star: cluster-ca: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, identity.Errorf(identity.CodeMalformed, "star: cluster-ca: no certificate in %s", c.opts.CA)
	}
	return roots, nil
}

// Forward sends a request to the server that has its session; false where there is
// none, or where it was forwarded already.
func (c *Cluster) Forward(w http.ResponseWriter, r *http.Request, sid string) bool {
	if len(sid) < prefixSize || subtle.ConstantTimeCompare([]byte(r.Header.Get(forwardedHeader)), []byte(c.secret)) == 1 {
		return false
	}
	c.mu.Lock()
	l := c.leases.byPrefix(sid[:prefixSize])
	c.mu.Unlock()
	if l == nil || l.URL == "" {
		return false
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		return false
	}
	name, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		name = r.Host
	}
	ctx := context.WithValue(r.Context(), destination{}, &hop{url: u, secret: l.Secret})
	clear(w.Header()) // the other server sets them
	c.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, askedName{}, name)))
	return true
}
