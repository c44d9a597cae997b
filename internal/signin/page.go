package signin

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

//go:embed templates
var files embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"time": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") + " UTC" },
}).ParseFS(files, "templates/pages.html"))

// view is what the pages show; each uses some of it.
type view struct {
	Message     string
	Name, Next  string
	Token       string
	Secret      string
	Picture     picture
	Codes       []string
	Sessions    []record.Session
	This, CSRF  string
	Left        int
	status      int
	title, page string
}

// policy allows nothing but our own files and forms.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// refusal is an error that a page tells.
type refusal struct {
	status int
	text   string
	wait   time.Duration // how long to stay away
}

func (r *refusal) Error() string { return r.text }

var errWrong = &refusal{status: http.StatusForbidden, text: "The name, the password or the code is wrong."}

func tooMany(wait time.Duration) error {
	wait = max(wait.Round(time.Second), time.Second)
	return &refusal{status: http.StatusTooManyRequests, text: "Too many tries. Try again in " + wait.String() + ".", wait: wait}
}

// refusalOf returns what a page tells of an error.
func refusalOf(err error) *refusal {
	if e, ok := errors.AsType[*refusal](err); ok {
		return e
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &refusal{status: http.StatusRequestEntityTooLarge, text: "The form is too large."}
	}
	_, away := errors.AsType[*record.Unavailable](err)
	_, unknown := errors.AsType[*record.OutcomeUnknown](err)
	switch {
	case errors.Is(err, ErrForged):
		return &refusal{status: http.StatusForbidden, text: "This did not come from a page of yours. Reload the page and try again."}
	case errors.Is(err, errBusy), away, unknown:
		return &refusal{status: http.StatusServiceUnavailable, text: "This can't be done now. Try again in a moment.", wait: time.Second}
	}
	return &refusal{status: http.StatusInternalServerError, text: "This did not work. The log says why."}
}

// maxSignInForm bounds the forms of this package, in bytes.
const maxSignInForm = 8 << 10

// page is the adapter of the handlers here. It refuses forms that another site sent, and answers an error with a page. A
// handler that returns an error has written nothing.
func (g *Gate) page(h func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Cache-Control", "no-store")
		head.Set("Referrer-Policy", "same-origin") // with no-referrer, browsers would send our forms with the origin "null"
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Content-Security-Policy", policy)
		err := g.readForm(w, r)
		if err == nil {
			err = h(w, r)
		}
		if err == nil {
			return
		}
		e := refusalOf(err)
		if e.status >= http.StatusInternalServerError {
			g.Log.ErrorContext(r.Context(), "sign-in failed", "error", err)
		}
		g.show(w, r, e.on(view{page: "notice", title: "This did not work"}))
	}
}

func (g *Gate) readForm(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return nil
	}
	if g.origin.Check(r) != nil {
		return ErrForged
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxSignInForm)
	if err := r.ParseForm(); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return err
		}
		return &refusal{status: http.StatusBadRequest, text: "The form can't be read."}
	}
	return nil
}

// on puts a refusal on a page.
func (r *refusal) on(v view) view {
	v.Message, v.status = r.text, r.status
	return v
}

// again shows a form once more with the reason of a refusal. Other errors pass.
func (g *Gate) again(w http.ResponseWriter, r *http.Request, err error, v view) error {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	if e.wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(e.wait.Seconds())))
	}
	g.show(w, r, e.on(v))
	return nil
}

// show renders a page into the layout.
func (g *Gate) show(w http.ResponseWriter, r *http.Request, v view) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, v.page, v); err != nil {
		g.Log.ErrorContext(r.Context(), "page of the sign-in does not render", "page", v.page, "error", err)
		http.Error(w, "This did not work.", http.StatusInternalServerError)
		return
	}
	if v.status == 0 {
		v.status = http.StatusOK
	}
	g.layout(w, r, v.status, v.title, template.HTML(b.String())) //nolint:gosec // html/template has escaped it
}

// script serves token.js.
func (g *Gate) script(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeFileFS(w, r, files, "templates/token.js")
}
