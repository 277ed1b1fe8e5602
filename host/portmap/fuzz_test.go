package portmap

import (
	"net/http"
	"strings"
	"testing"
)

// FuzzRouter: whatever a router writes, nothing of it leads anywhere but to the
// router itself.
func FuzzRouter(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nLocation: http://127.0.0.1:5000/root.xml\r\n\r\n")
	f.Add(strings.ReplaceAll(rootDesc, "%s", "<URLBase>http://127.0.0.1/</URLBase>"))
	f.Add(`<s:Envelope><s:Body><u:AddResponse><Value>203.0.113.7</Value></u:AddResponse></s:Body></s:Envelope>`)
	f.Add(`<s:Envelope><s:Body><s:Fault><detail><errorCode>718</errorCode></detail></s:Fault></s:Body></s:Envelope>`)
	f.Fuzz(func(t *testing.T, text string) {
		if u := location([]byte(text), here.gateway); u != nil && u.Hostname() != here.gateway.String() {
			t.Errorf("leads to %s", u)
		}
		var d description
		if decoder(strings.NewReader(text)).Decode(&d) == nil {
			_ = d.Root.all(maxNesting)
		}
		for _, status := range []int{http.StatusOK, http.StatusInternalServerError} {
			res := &http.Response{StatusCode: status, Body: http.NoBody}
			res.Body = readCloser{strings.NewReader(text)}
			if value, err := parseAnswer(res, "Add", "Value"); err == nil && (status != http.StatusOK || len(value) > len(text)) {
				t.Errorf("status %d gives %q", status, value)
			}
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
