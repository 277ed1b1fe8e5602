package portmap

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"
)

// Words of SSDP (UPnP Device Architecture 1.1, 1.3).
const (
	ssdpPort     = 1900
	ssdpWait     = 3 * time.Second        // for the first answer, which comes within MX
	ssdpSettle   = 500 * time.Millisecond // for the others: those of one device come together
	maxLocations = 4
	maxAnswer    = 4 << 10 // bytes
)

var ssdpGroup = netip.MustParseAddrPort("239.255.255.250:1900")

// searched are the kinds of devices and services that are asked for.
var searched = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
}

// search is where a gateway is asked whether it is one, and for how long.
type search struct {
	at           way
	targets      []netip.AddrPort
	wait, settle time.Duration
}

// ssdp asks by multicast, and the gateway by itself too, for networks without.
func ssdp(at way) search {
	return search{at, []netip.AddrPort{netip.AddrPortFrom(at.gateway, ssdpPort), ssdpGroup}, ssdpWait, ssdpSettle}
}

// locate gives the addresses of descriptions that the gateway tells of itself. What
// others tell, or what lies elsewhere, doesn't count.
func (s search) locate(ctx context.Context) (out []*url.URL) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	c, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", netip.AddrPortFrom(s.at.inside, 0).String())
	if err != nil {
		return nil
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	for _, kind := range searched {
		q := []byte("M-SEARCH * HTTP/1.1\r\nHOST: " + ssdpGroup.String() +
			"\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: " + kind + "\r\n\r\n")
		for _, to := range s.targets {
			_, _ = c.WriteTo(q, net.UDPAddrFromAddrPort(to)) // one of them may get through
		}
	}
	buf := make([]byte, maxAnswer)
	for len(out) < maxLocations {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			break // the time is over
		}
		who := from.(*net.UDPAddr).AddrPort().Addr().Unmap()
		u := location(buf[:n], s.at.gateway)
		if who != s.at.gateway || u == nil || slices.ContainsFunc(out, func(o *url.URL) bool { return *o == *u }) {
			continue
		}
		if out = append(out, u); len(out) == 1 {
			defer time.AfterFunc(s.settle, cancel).Stop()
		}
	}
	return out
}

// location takes the address of a description from an answer; nil if it isn't one,
// or isn't the gateway's.
func location(answer []byte, gateway netip.Addr) *url.URL {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	if err != nil {
		return nil
	}
	_ = res.Body.Close()
	u, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != http.StatusOK || !isOf(u, gateway) {
		return nil
	}
	return u
}

// isOf reports whether an address is one of the gateway's HTTP servers.
func isOf(u *url.URL, gateway netip.Addr) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && u.Scheme == "http" && a.Unmap() == gateway && u.User == nil
}
