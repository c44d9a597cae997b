package dash

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// maxForm caps the body of a form, in bytes. The longest has the weights of a pool.
const maxForm = 64 << 10

// defaultTenant is the tenant that every installation has.
const defaultTenant = "default"

// visit is one request of a person.
type visit struct {
	*desk
	w      http.ResponseWriter
	r      *http.Request
	me     Person
	tenant string
	api    *api.Client
	done   string // a key of dones, for a page that says itself what was done
}

// page makes a handler of a function that renders a page, or redirects, or returns an error.
func (d *desk) page(h func(*visit) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := &visit{desk: d, w: w, r: r, tenant: defaultTenant}
		me, in, err := d.Gate.Person(r)
		switch {
		case err != nil:
			v.fail(&api.Problem{
				Status: http.StatusServiceUnavailable, Title: "Unavailable", Code: "unavailable", Detail: "Your session can't be looked up now. Try again.",
			})
			return
		case !in:
			v.toSignIn()
			return
		}
		v.me = me
		if t := r.URL.Query().Get("tenant"); t != "" {
			v.tenant = t
		}
		v.api = api.NewWith("http://dashboard.invalid", "", &http.Client{Transport: d.As(r, me.Name, me.Role.Scopes(), v.tenant)})
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if err := r.ParseForm(); err != nil {
				v.fail(&api.Problem{Status: http.StatusBadRequest, Title: "Malformed form", Detail: "The form can't be read."})
				return
			}
			if err := d.Gate.Check(r); err != nil {
				v.fail(&api.Problem{
					Status: http.StatusForbidden, Title: "Not from this page", Code: "forbidden",
					Detail: "Nothing was changed: the request did not come from a page of your session. Reload the page and try again.",
				})
				return
			}
		}
		if err := h(v); err != nil {
			v.fail(err)
		}
	}
}

// toSignIn sends a visitor to the page for signing in, and back here afterwards if the request was for a page.
func (v *visit) toSignIn() {
	target := "/dash/signin"
	if v.r.Method == http.MethodGet && !v.partial() {
		target += "?next=" + url.QueryEscape(v.r.URL.RequestURI())
	}
	if v.partial() {
		v.w.Header().Set("HX-Redirect", target)
		v.w.WriteHeader(http.StatusUnauthorized)
		return
	}
	http.Redirect(v.w, v.r, target, http.StatusSeeOther)
}

// partial reports whether htmx wants the content of the page only.
func (v *visit) partial() bool { return v.r.Header.Get("HX-Request") == "true" }

// param returns a part of the path, unescaped.
func (v *visit) param(name string) string {
	text := chi.URLParam(v.r, name)
	if v.r.URL.RawPath != "" {
		if plain, err := url.PathUnescape(text); err == nil {
			return plain
		}
	}
	return text
}

// may reports whether the person has a scope. The API decides; a page only leaves out what would be refused.
func (v *visit) may(scope record.Scope) bool {
	return slices.ContainsFunc(v.me.Role.Scopes(), func(s record.Scope) bool { return s.Opens(scope) })
}

// frame is what templates see.
type frame struct {
	Title   string
	Section string // of the navigation
	Me      Person // without a name: nobody is signed in
	Tenant  string
	Tenants []string // that the person may choose from
	Path    string
	Done    string // what has just been done
	Mailbox bool   // there is one
	Nonce   string
	Now     time.Time
	X       any // of the page

	Content template.HTML // of the layout
}

// show renders a page, or only its content if htmx asks. Title and section say where the person is.
func (v *visit) show(status int, name, section, title string, x any) error {
	f := v.frame(section, title)
	f.X = x
	content, err := v.render(name, f)
	if err != nil {
		return err
	}
	v.write(status, f, template.HTML(content)) //nolint:gosec // a template made it
	return nil
}

func (v *visit) frame(section, title string) *frame {
	f := &frame{
		Title: title, Section: section, Me: v.me, Tenant: v.tenant, Path: v.r.URL.Path, Mailbox: v.Mailbox != nil, Nonce: newNonce(),
		Now: v.Now().UTC(), Done: dones[cmp.Or(v.done, v.r.URL.Query().Get("done"))],
	}
	return f
}

func newNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return base64.RawStdEncoding.EncodeToString(b[:])
}

// Can reports whether the person has a scope.
func (f *frame) Can(scope record.Scope) bool {
	return slices.ContainsFunc(f.Me.Role.Scopes(), func(s record.Scope) bool { return s.Opens(scope) })
}

// HX is the attribute that lets htmx work on an element.
func (f *frame) HX() template.HTMLAttr {
	return template.HTMLAttr(`hx-nonce="` + f.Nonce + `"`) //nolint:gosec // base64
}

// Link returns a path of the dashboard with names and values of parameters. It keeps the tenant, and leaves out empty values.
func (f *frame) Link(path string, pairs ...string) string { return link(f.Tenant, path, pairs...) }

func link(tenant, path string, pairs ...string) string {
	q := url.Values{}
	if tenant != defaultTenant && tenant != "" {
		q.Set("tenant", tenant)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return "/dash" + path
	}
	return "/dash" + path + "?" + q.Encode()
}

// write sends a page, or its content alone.
func (v *visit) write(status int, f *frame, content template.HTML) {
	f.Content = content
	body := []byte(content)
	if !v.partial() {
		f.Tenants = v.tenantNames()
		var b bytes.Buffer
		if err := v.pages["layout"].Execute(&b, f); err != nil {
			http.Error(v.w, "The page can't be rendered.", http.StatusInternalServerError)
			return
		}
		body = b.Bytes()
	}
	h := v.w.Header()
	setPolicy(h, f.Nonce)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "HX-Request")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(body) // an error means that the visitor has left
}

// setPolicy sets the headers that keep a page to itself. Scripts are files of ours: all other
// answers of this origin say what they are, and browsers run none of them. htmx alone may write into the page; the nonce marks what it may work on.
func setPolicy(h http.Header, nonce string) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self' 'nonce-"+nonce+"'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types htmx")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
}

func (v *visit) render(name string, f *frame) ([]byte, error) {
	var b bytes.Buffer
	err := v.pages[name].Execute(&b, f)
	return b.Bytes(), err
}

// layout is the layout for pages of the Gate.
func (d *desk) layout(w http.ResponseWriter, r *http.Request, status int, title string, content template.HTML) {
	v := &visit{desk: d, w: w, r: r, tenant: defaultTenant}
	if me, in, err := d.Gate.Person(r); err == nil && in {
		v.me = me
	}
	head := "<h1>" + template.HTMLEscapeString(title) + "</h1>\n"
	v.write(status, v.frame("", title), template.HTML(head)+content) //nolint:gosec // escaped above
}

// fail shows a page about an error. Those of the API say what is wrong; the page adds what to do.
func (v *visit) fail(err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		p = &api.Problem{Status: http.StatusInternalServerError, Title: "Internal", Code: "internal"}
		if errors.Is(err, context.DeadlineExceeded) {
			p.Status, p.Title, p.Code = http.StatusGatewayTimeout, "Timeout", "timeout"
		}
	}
	f := v.frame("", p.Title)
	f.X = p
	content, err := v.render("problem", f)
	if err != nil {
		http.Error(v.w, p.Error(), p.Status)
		return
	}
	v.write(p.Status, f, template.HTML(content)) //nolint:gosec // a template made it
}

// is reports whether an error is a problem of the API with that code.
func is(err error, code string) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == code
}

// back sends the browser to a page after a change. done is a key of dones.
func (v *visit) back(path, done string, pairs ...string) error {
	http.Redirect(v.w, v.r, link(v.tenant, path, append(pairs, "done", done)...), http.StatusSeeOther)
	return nil
}

// dones are the sentences that pages show after a change, by the word in their URL.
var dones = map[string]string{
	"cancelled": "The message is cancelled.", "resent": "The message is queued again.",
	"paused": "Paused. Mail that waits goes to the other accounts of the pools.", "resumed": "Resumed. All parks of the account have ended.",
	"weights":    "The weights are saved. They bind within 2 s, for mail that waits as well.",
	"suppressed": "The address gets no more mail.", "unsuppressed": "The suppression is removed.",
	"person": "The person is changed, and signed out.", "signed-out": "The person is signed out everywhere.",
	"rule": "The rule is added.", "rule-gone": "The rule is removed.", "key-gone": "The key is revoked. It stops working within 2 s.",
	"tenant": "The tenant is changed.", "endpoint-on": "The endpoint gets events again.", "endpoint-off": "The endpoint gets no more events.",
	"replayed": "The events are queued again.", "endpoint-gone": "The endpoint is deleted.",
}

// tenantsKept is how long the list of tenants is used again.
const tenantsKept = 10 * time.Second

// tenantNames lists the tenants for those who may see them; others stay with the default tenant or name one in the URL.
func (v *visit) tenantNames() []string {
	if v.api == nil || !v.may(record.ScopeAdminRead) {
		return nil
	}
	names, _ := v.tenants.get(v, tenantsKept, func(ctx context.Context) (names []string, err error) { // without them, the page is shown without a choice
		all, err := v.api.Tenants(ctx)
		for _, t := range all {
			names = append(names, t.Name)
		}
		return names, err
	})
	return names
}

// field returns a field of the form or a parameter of the query, without spaces around it.
func (v *visit) field(name string) string { return strings.TrimSpace(v.r.FormValue(name)) }
