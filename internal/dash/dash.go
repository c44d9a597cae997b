// Package dash is the dashboard: pages for the people who run sendgate and for those who ask where a mail is. It decides what a
// page shows and how. It has no store and no rules of its own: it is a client of the API, as the command line is, and acts there
// with the scopes of the person who is signed in. So whatever a page shows or does can also be had from the API, and is checked,
// refused and audited there. Signing in is the work of a Gate.
//
// All pages work without JavaScript; htmx only refreshes parts of them. The policy of the pages lets nothing run but the files of
// this package, and nothing is fetched from another host.
//
// The likeliest mistake of a newcomer is to put a check into a handler. It belongs into package httpapi, where every client meets it.
package dash

import (
	"errors"
	"html/template"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// Person is who is signed in.
type Person struct {
	Name  string      // of the user
	Role  record.Role // decides the scopes
	Token string      // against CSRF, of the session: the field "csrf" of forms, or the header X-CSRF-Token
}

// Gate lets people in.
type Gate interface {
	// Person returns who is signed in by the request's session, or false.
	Person(r *http.Request) (Person, bool, error)
	// Check refuses a request that changes something and did not come from a page of the session.
	Check(r *http.Request) error
	// Routes mounts the pages of signing in, below /dash. layout renders a page around content.
	Routes(r chi.Router, layout func(w http.ResponseWriter, r *http.Request, status int, title string, content template.HTML))
}

// Options are the parts of the dashboard. Gate and As are required.
type Options struct {
	Gate Gate
	// As returns a transport to the API that acts for a person, who made the request r.
	As func(r *http.Request, name string, scopes []record.Scope, tenant string) http.RoundTripper
	// Mailbox returns the newest mails of the emulated providers, the newest first; nil if there are none.
	Mailbox func() []Mail
	Now     func() time.Time // default time.Now
}

// desk serves the pages.
type desk struct {
	Options
	pages map[string]*template.Template

	state   kept[state]
	traffic map[string]*kept[traffic] // by window
	tenants kept[[]string]
}

// New returns the handler of everything below /dash.
func New(o Options) (http.Handler, error) {
	if o.Gate == nil || o.As == nil {
		return nil, errors.New("new dashboard: gate and transport are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	pages, err := parsePages()
	if err != nil {
		return nil, err
	}
	d := &desk{Options: o, pages: pages, traffic: map[string]*kept[traffic]{}}
	for _, w := range windows() {
		d.traffic[w.Name] = &kept[traffic]{}
	}
	return d.routes(), nil
}

// routes is the whole dashboard on one page.
func (d *desk) routes() http.Handler {
	r := chi.NewRouter()
	r.Get("/static/{file}", serveStatic)
	d.Gate.Routes(r, d.layout)
	r.NotFound(d.page(func(*visit) error {
		return &api.Problem{Status: http.StatusNotFound, Title: "Not found", Code: "not_found", Detail: "There is no such page."}
	}))

	r.Get("/", d.page(overview))
	r.Get("/messages", d.page(findMessages))
	r.Get("/messages/{id}", d.page(showMessage))
	r.Get("/messages/{id}/html", d.page(previewHTML))
	r.Post("/messages/{id}/cancel", d.page(cancelMessage))
	r.Post("/messages/{id}/resend", d.page(resendMessage))

	r.Get("/accounts", d.page(listAccounts))
	r.Get("/accounts/{account}", d.page(showAccount))
	r.Post("/accounts/{account}/pause", d.page(pauseAccount))
	r.Post("/accounts/{account}/resume", d.page(resumeAccount))
	r.Get("/pools", d.page(listPools))
	r.Get("/pools/{pool}", d.page(showPool))
	r.Post("/pools/{pool}/preview", d.page(previewPool))
	r.Post("/pools/{pool}", d.page(savePool))

	r.Get("/mailbox", d.page(showMailbox))
	r.Get("/traffic", d.page(showTraffic))
	r.Get("/queue", d.page(showQueue))
	r.Get("/events", d.page(listEvents))
	r.Get("/suppressions", d.page(listSuppressions))
	r.Post("/suppressions", d.page(addSuppression))
	r.Post("/suppressions/remove", d.page(removeSuppression))
	r.Get("/webhooks", d.page(listWebhooks))
	r.Get("/webhooks/{id}", d.page(showWebhook))
	r.Post("/webhooks/{id}/{do}", d.page(changeWebhook))
	r.Get("/rules", d.page(listRules))
	r.Post("/rules", d.page(addRule))
	r.Post("/rules/{rule}/delete", d.page(deleteRule))
	r.Get("/keys", d.page(listKeys))
	r.Post("/keys/{key}/revoke", d.page(revokeKey))
	r.Get("/tenants", d.page(listTenants))
	r.Post("/tenants/{tenant}", d.page(changeTenant))
	r.Get("/people", d.page(listPeople))
	r.Post("/people/{user}/{do}", d.page(changePerson))
	r.Get("/audit", d.page(listAudit))
	return r
}
