package star

import (
	"net/http/httptest"
	"strconv"
	"strings"
)

// Metrics gives all metrics as they are served.
func (srv *Server) Metrics() string {
	rec := httptest.NewRecorder()
	srv.metrics.handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	return rec.Body.String()
}

// Metric gives one metric by its whole name, labels included; ok is false where
// there is none.
func (srv *Server) Metric(name string) (value float64, ok bool) {
	_, rest, ok := strings.Cut("\n"+srv.Metrics(), "\n"+name+" ")
	if !ok {
		return 0, false
	}
	text, _, _ := strings.Cut(rest, "\n")
	value, err := strconv.ParseFloat(text, 64)
	return value, err == nil
}

// HoldVerifiers takes all places where signatures are checked until release.
func (srv *Server) HoldVerifiers() (release func()) {
	for range cap(srv.verifiers) {
		srv.verifiers <- struct{}{}
	}
	return func() {
		for range cap(srv.verifiers) {
			<-srv.verifiers
		}
	}
}

// Verifiers is how many signatures are checked at a time.
func (srv *Server) Verifiers() int { return cap(srv.verifiers) }
