package portmap

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a router may say.
const (
	maxDescription = 256 << 10
	maxSOAP        = 32 << 10
	maxNesting     = 8 // devices in devices
	maxServices    = 8
)

// Services that map ports, in the order of preference (WANIPConnection 2.3.3).
var mappers = []string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

// Errors of AddPortMapping (WANIPConnection 2.4.16).
const (
	soapSamePort    = 724 // the outer port has to be the inner one
	soapConflict    = 718
	soapOnlyForEver = 725
	soapNoWildcard  = 729 // conflicts with another mechanism
)

// upnp is a router by one of its services.
type upnp struct {
	control *url.URL
	service string
	inside  netip.Addr // this machine, as the router sees it
}

func (r *upnp) String() string { return "UPnP at " + r.control.Hostname() }

// findUPnP asks for gateways and gives the services of those that answer.
func findUPnP(ctx context.Context, s search) (out []router) {
	for _, u := range s.locate(ctx) {
		services, err := describe(ctx, u)
		if err != nil {
			continue
		}
		for _, kind := range mappers {
			for _, one := range services {
				if one.Type == kind && len(out) < maxServices {
					if control, err := u.Parse(strings.TrimSpace(one.Control)); err == nil && isOf(control, s.at.gateway) {
						out = append(out, &upnp{control: control, service: kind, inside: s.at.inside})
					}
				}
			}
		}
	}
	return out
}

// description is the part of a device description (UPnP Device Architecture 2.3)
// that tells of services.
type description struct {
	Base string  `xml:"URLBase"`
	Root devices `xml:"device"`
}

type devices struct {
	Services []service `xml:"serviceList>service"`
	Parts    []devices `xml:"deviceList>device"`
}

type service struct {
	Type    string `xml:"serviceType"`
	Control string `xml:"controlURL"`
}

// describe reads a description and gives its services.
func describe(ctx context.Context, at *url.URL) ([]service, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	var d description
	err = exchange(req, maxDescription, func(res *http.Response) error {
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("UPnP: the description is %s", res.Status)
		}
		return decoder(res.Body).Decode(&d)
	})
	if err != nil {
		return nil, err
	}
	services := d.Root.all(maxNesting)
	if base, err := at.Parse(strings.TrimSpace(d.Base)); err == nil && d.Base != "" {
		for i, s := range services {
			if u, err := base.Parse(strings.TrimSpace(s.Control)); err == nil {
				services[i].Control = u.String()
			}
		}
	}
	return services, nil
}

func (d devices) all(depth int) []service {
	out := slices.Clone(d.Services)
	for i := range d.Parts {
		if depth > 0 {
			out = append(out, d.Parts[i].all(depth-1)...)
		}
	}
	return out
}

// exchange asks a question on a connection of its own, as routers close them soon,
// and has the answer read, of which no more than most bytes come in.
func exchange(req *http.Request, most int64, read func(*http.Response) error) error {
	c, err := new(net.Dialer).DialContext(req.Context(), "tcp4", net.JoinHostPort(req.URL.Hostname(), cmp.Or(req.URL.Port(), "80")))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(req.Context(), func() { _ = c.Close() })()
	req.Close = true
	if err := req.Write(c); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, most)), req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return read(res)
}

// decoder takes every charset for UTF-8: what is needed is ASCII.
func decoder(r io.Reader) *xml.Decoder {
	d := xml.NewDecoder(r)
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	return d
}

func (r *upnp) outside(ctx context.Context) (netip.Addr, error) {
	a, err := r.call(ctx, "GetExternalIPAddress", nil, "NewExternalIPAddress")
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(strings.TrimSpace(a))
}

func (r *upnp) add(ctx context.Context, proto string, inner, wished uint16) (uint16, time.Duration, error) {
	life := lifetime
	for {
		_, err := r.call(ctx, "AddPortMapping", [][2]string{
			{"NewRemoteHost", ""},
			{"NewExternalPort", strconv.Itoa(int(wished))},
			{"NewProtocol", strings.ToUpper(proto)},
			{"NewInternalPort", strconv.Itoa(int(inner))},
			{"NewInternalClient", r.inside.String()},
			{"NewEnabled", "1"},
			{"NewPortMappingDescription", "parley"},
			{"NewLeaseDuration", strconv.Itoa(int(life / time.Second))},
		}, "")
		code := soapError(0)
		if life == 0 || !errors.As(err, &code) || code != soapOnlyForEver {
			return wished, life, err
		}
		life = 0
	}
}

func (r *upnp) remove(ctx context.Context, proto string, _, outer uint16) error {
	_, err := r.call(ctx, "DeletePortMapping", [][2]string{
		{"NewRemoteHost", ""}, {"NewExternalPort", strconv.Itoa(int(outer))}, {"NewProtocol", strings.ToUpper(proto)},
	}, "")
	return err
}

// soapError is a router's error code.
type soapError int

func (e soapError) Error() string { return "UPnP: error " + strconv.Itoa(int(e)) }

// Is makes it errPort where another outer port may do.
func (e soapError) Is(target error) bool {
	return target == errPort && (e == soapConflict || e == soapNoWildcard || e == soapSamePort)
}

// call has the router do something and gives the text of one element of its answer.
func (r *upnp) call(ctx context.Context, action string, args [][2]string, wanted string) (string, error) {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"` +
		` s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:` + action + ` xmlns:u="` + r.service + `">`)
	for _, a := range args { // none of them has anything to escape
		b.WriteString("<" + a[0] + ">" + a[1] + "</" + a[0] + ">")
	}
	b.WriteString("</u:" + action + "></s:Body></s:Envelope>")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.control.String(), &b)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header["SOAPAction"] = []string{`"` + r.service + "#" + action + `"`} // some want it spelt so
	var value string
	err = exchange(req, maxSOAP, func(res *http.Response) (err error) {
		value, err = parseAnswer(res, action, wanted)
		return err
	})
	return value, err
}

// parseAnswer reads what a router says to an action: the answer of its name, or an
// error with a code.
func parseAnswer(res *http.Response, action, wanted string) (value string, err error) {
	answered := false
	d := decoder(res.Body)
	for {
		t, err := d.Token()
		if err != nil {
			break // the end, or nonsense from here on
		}
		el, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		var text string
		switch el.Name.Local {
		case action + "Response":
			answered = true
		case "errorCode":
			if d.DecodeElement(&text, &el) == nil {
				if code, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
					return "", soapError(code)
				}
			}
		case wanted:
			if d.DecodeElement(&text, &el) == nil {
				value = text
			}
		}
	}
	if res.StatusCode != http.StatusOK || !answered {
		return "", fmt.Errorf("UPnP: %s: %s and no answer in it", action, res.Status)
	}
	return value, nil
}
