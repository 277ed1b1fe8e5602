package consent

import (
	"crypto/rand"
	"embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strconv"

	"github.com/parley-p2p/parley/identity"
)

// Path is where the person is asked: with ?origin= for one site, without it for
// all answers.
const Path = "/_parley/consent"

//go:embed pages.html
var text embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{"bytes": inBytes}).ParseFS(text, "pages.html"))

// view is what a page shows.
type view struct {
	Nonce    string
	Origin   string
	Scope    Scope
	Before   *Answer // what was said before
	Answers  []Answer
	Refusals []Refusal
	Message  template.JS // for the page that asked: JSON
	Allowed  bool
	Fault    string
}

// Handler asks and shows. It belongs behind the node's access policy: whoever
// gets here is the person.
func (b *Book) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			b.answer(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD, POST")
			http.Error(w, "only GET and POST", http.StatusMethodNotAllowed)
		case r.URL.Query().Has("origin"):
			b.ask(w, r.URL.Query())
		default:
			show(w, http.StatusOK, "list", view{Answers: b.Answers(), Refusals: b.Refusals()})
		}
	})
}

// ask shows the question, or the answer where it was given before.
func (b *Book) ask(w http.ResponseWriter, q url.Values) {
	origin, scope, err := question(q)
	if err != nil {
		show(w, http.StatusBadRequest, "fault", view{Fault: err.Error()})
		return
	}
	v := view{Origin: origin, Scope: scope}
	if a, ok := b.Get(origin); ok {
		if a.Allowed && a.Scope.Covers(scope) {
			told(w, a)
			return
		}
		v.Before = &a
	}
	show(w, http.StatusOK, "ask", v)
}

// answer takes what the person said.
func (b *Book) answer(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		show(w, http.StatusBadRequest, "fault", view{Fault: "the form can't be read"})
		return
	}
	origin, scope, err := question(r.PostForm)
	var a Answer
	switch said := r.PostForm.Get("answer"); {
	case err != nil:
	case said == "allow" || said == "refuse":
		if a, err = b.Put(origin, scope, said == "allow"); err == nil {
			told(w, a)
			return
		}
	case said == "forget":
		if err = b.Forget(origin); err == nil {
			http.Redirect(w, r, Path, http.StatusSeeOther)
			return
		}
	default:
		err = identity.Errorf(identity.CodeMalformed, "no such answer")
	}
	status := http.StatusInternalServerError
	if identity.CodeOf(err) == identity.CodeMalformed {
		status = http.StatusBadRequest
	}
	show(w, status, "fault", view{Fault: err.Error()})
}

// question reads which origin asks for what.
func question(q url.Values) (origin string, s Scope, err error) {
	if origin, err = ParseOrigin(q.Get("origin")); err == nil {
		s, err = ParseScope(q)
	}
	return origin, s, err
}

// told shows what was answered and hands it to the page that asked: to a window
// of that origin alone.
func told(w http.ResponseWriter, a Answer) {
	message, err := json.Marshal(map[string]any{"parley": "consent", "origin": a.Origin, "allowed": a.Allowed, "token": a.Token})
	if err != nil { // can't be: strings and a bool
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	show(w, http.StatusOK, "told", view{Origin: a.Origin, Scope: a.Scope, Allowed: a.Allowed, Message: template.JS(message)}) //nolint:gosec // json.Marshal escapes what HTML has
}

func show(w http.ResponseWriter, status int, page string, v view) {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	v.Nonce = base64.RawURLEncoding.EncodeToString(raw)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // without it the form would be sent with Origin: null
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+v.Nonce+"'; script-src 'nonce-"+v.Nonce+
		"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	_ = pages.ExecuteTemplate(w, page, v) // a browser that is gone
}

// inBytes writes a size for people.
func inBytes(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size {
			return strconv.FormatFloat(float64(n)/float64(unit.size), 'f', 1, 64) + " " + unit.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}
