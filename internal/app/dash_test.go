package app

import (
	"errors"
	"html/template"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/dash"
	"github.com/sendgate/sendgate/internal/record"
)

// doorman is a Gate for tests: the cookie "me" is the role.
type doorman struct{}

func (doorman) Person(r *http.Request) (dash.Person, bool, error) {
	c, err := r.Cookie("me")
	if err != nil {
		return dash.Person{}, false, nil //nolint:nilerr // nobody is signed in
	}
	return dash.Person{Name: "ann", Role: record.Role(c.Value), Token: "token-of-ann"}, true, nil
}

func (doorman) Check(r *http.Request) error {
	if r.FormValue("csrf") != "token-of-ann" {
		return errors.New("no token")
	}
	return nil
}

func (doorman) Routes(r chi.Router, layout func(w http.ResponseWriter, r *http.Request, status int, title string, content template.HTML)) {
	r.Get("/signin", func(w http.ResponseWriter, r *http.Request) {
		layout(w, r, http.StatusOK, "Sign in", "<h1>Sign in</h1>")
	})
}

// browser is a person's browser, without JavaScript.
type browser struct {
	t    *testing.T
	url  string
	http *http.Client
}

// beginDash starts a service with the dashboard, on a bench.
func (b *bench) beginDash(t *testing.T, settings ...string) (*replica, *App) {
	t.Helper()
	a, err := New(b.config(t, settings...), quiet())
	if err != nil {
		t.Fatal(err)
	}
	a.linger = 0
	a.gate, a.mailbox = doorman{}, func() []dash.Mail { return mailbox(b.emu) }
	return b.begin(t, a), a
}

func (b *bench) browse(t *testing.T, base string, role record.Role) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		jar.SetCookies(u, []*http.Cookie{{Name: "me", Value: string(role)}})
	}
	return &browser{t: t, url: base, http: &http.Client{Transport: b.http.Transport, Jar: jar, Timeout: 30 * time.Second}}
}

// view is what a browser got.
type view struct {
	status int
	path   string // after redirects
	header http.Header
	body   string
}

func (br *browser) get(path string) view { return br.do(http.MethodGet, path, nil) }

// post sends a form with the token of the session.
func (br *browser) post(path string, fields ...string) view {
	form := url.Values{"csrf": {"token-of-ann"}}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return br.do(http.MethodPost, path, form)
}

func (br *browser) do(method, path string, form url.Values) view {
	br.t.Helper()
	req, err := http.NewRequestWithContext(br.t.Context(), method, br.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		br.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := br.http.Do(req)
	if err != nil {
		br.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		br.t.Fatal(err)
	}
	return view{status: resp.StatusCode, path: resp.Request.URL.RequestURI(), header: resp.Header, body: string(body)}
}

// holds fails the test if a page has another status or lacks a text.
func (v view) holds(t *testing.T, status int, texts ...string) {
	t.Helper()
	if v.status != status {
		t.Fatalf("%s = %d, want %d: %s", v.path, v.status, status, v.body)
	}
	for _, text := range texts {
		if !strings.Contains(v.body, text) {
			t.Errorf("%s lacks %q:\n%s", v.path, text, v.body)
		}
	}
}

// One message is followed through the pages as a person would do it.
func TestDashboardShowsOneMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r, a := b.beginDash(t)
	m := letter(1)
	m.HTML, m.Subject = `<p>Hi</p><script>alert(1)</script>`, `Hostile <b>subject</b>`
	id := send(t, r.api, m)
	becomes(t, r.api, id, 20*time.Second, "sent", "delivered")
	support := b.browse(t, a.URL, record.RoleSupport)

	list := support.get("/dash/messages?q=" + url.QueryEscape(m.To[0].Email))
	list.holds(t, 200, id, "Hostile &lt;b&gt;subject")
	page := support.get("/dash/messages?q=" + id)
	page.holds(t, 200, "Hostile &lt;b&gt;subject", "Why this account", m.To[0].Email, `sandbox=""`)
	if page.path != "/dash/messages/"+id {
		t.Errorf("an id leads to %s", page.path)
	}
	theirs := regexp.MustCompile(`Id of the provider</dt><dd><code>([^<]+)`).FindStringSubmatch(page.body)
	if theirs == nil {
		t.Fatal("the page has no id of the provider")
	}
	support.get("/dash/messages?q="+url.QueryEscape(template.HTMLEscapeString(theirs[1]))).holds(t, 200, id)

	support.get("/dash/mailbox").holds(t, 200, "Hostile &lt;b&gt;subject", b.emu.URL()+"/_ledger/"+url.PathEscape(theirs[1])+"/html", "/dash/messages/"+id)

	frame := support.get("/dash/messages/" + id + "/html")
	policy := frame.header.Get("Content-Security-Policy")
	if frame.body != m.HTML || !strings.HasPrefix(policy, "sandbox; default-src 'none';") || strings.Contains(policy, "allow") {
		t.Errorf("preview = %q under %q", frame.body, policy)
	}
	support.get("/dash/messages/"+id+"?tab=source").holds(t, 200, "&lt;script&gt;alert(1)")
	support.post("/dash/messages/"+id+"/resend").holds(t, 409, "Only a message that failed can be sent again.")
	support.get("/dash/messages/01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f").holds(t, 404, "There is no such message.")
}

// A role opens at the dashboard what it opens in the API, and the audit names the person.
func TestDashboardActsAsThePerson(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r, a := b.beginDash(t)
	if got := b.browse(t, a.URL, "").get("/dash/accounts?tenant=x"); got.path != "/dash/signin?next="+url.QueryEscape("/dash/accounts?tenant=x") {
		t.Errorf("a visitor gets %d %s", got.status, got.path)
	}
	b.browse(t, a.URL, record.RoleSupport).get("/dash/keys").holds(t, 403, "Your role does not allow this")
	viewer, operator := b.browse(t, a.URL, record.RoleViewer), b.browse(t, a.URL, record.RoleOperator)
	viewer.get("/dash/accounts").holds(t, 200, "sendgrid")
	viewer.post("/dash/accounts/sendgrid/pause").holds(t, 403, "scope_missing")
	operator.do("POST", "/dash/accounts/sendgrid/pause", url.Values{"csrf": {"wrong"}}).holds(t, 403, "Not from this page")
	if got, err := r.admin.Account(t.Context(), "sendgrid"); err != nil || got.State != "active" {
		t.Fatalf("after refused requests the account is %v, %v", got, err)
	}
	operator.post("/dash/accounts/sendgrid/pause").holds(t, 200, "Paused.", "Resume sendgrid")
	if got, err := r.admin.Account(t.Context(), "sendgrid"); err != nil || got.State != "paused" {
		t.Fatalf("the account is %v, %v, want paused", got, err)
	}
	viewer.get("/dash/").holds(t, 200, "sendgrid is paused.")
	audit, err := r.admin.Audit(t.Context(), api.AuditFilter{Action: "account.pause"})
	if err != nil || len(audit.Data) != 1 || audit.Data[0].Actor != "user:ann" {
		t.Errorf("audit = %+v, %v", audit, err)
	}
	operator.get("/dash/audit").holds(t, 200, "user:ann", "account.pause")
	viewer.get("/dash/messages?tenant=nobody").holds(t, 404, "There is no such tenant.")
}

// Two operators who change a pool at once do not undo each other, and the second sees both versions.
func TestDashboardShowsAConflictOfWeights(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r, a := b.beginDash(t)
	ann := b.browse(t, a.URL, record.RoleOperator)
	page := ann.get("/dash/pools/default")
	page.holds(t, 200, "Share now")
	version := regexp.MustCompile(`name="version" value="(\d+)"`).FindStringSubmatch(page.body)[1]
	ann.post("/dash/pools/default/preview", "w.ses", "30", "w.sendgrid", "10").holds(t, 200, "75.0 %", "25.0 %")

	ann.post("/dash/pools/default", "version", version, "overflow", "spill", "w.ses", "30", "w.sendgrid", "10").holds(t, 200, "The weights are saved.", "Revert")
	late := ann.post("/dash/pools/default", "version", version, "overflow", "spill", "w.ses", "5", "w.sendgrid", "5")
	late.holds(t, 409, "Somebody else changed this pool meanwhile", "75.0 %", "50.0 %")
	p, err := r.admin.Pool(t.Context(), "default")
	if err != nil || len(p.Accounts) != 2 || p.Accounts[0].Weight+p.Accounts[1].Weight != 40 {
		t.Errorf("the pool is %+v, %v", p, err)
	}
	ann.post("/dash/pools/default", "version", "0", "overflow", "spill", "w.ses", "1").holds(t, 400)
	ann.post("/dash/pools/default", "version", version, "w.ses", "many").holds(t, 422, "must be a number")
}

// Every page answers, for each role, and with nothing but what its policy allows.
func TestDashboardPagesHoldTheirPolicy(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	_, a := b.beginDash(t)
	inline := regexp.MustCompile(`<style|<script>|\son[a-z]+=|\sstyle=|javascript:|(src|href|action)="(https?:)?//[^"]*"`)
	for _, path := range []string{
		"/", "/messages", "/events", "/suppressions", "/webhooks", "/queue", "/accounts", "/accounts/ses", "/pools", "/pools/default", "/rules", "/keys",
		"/tenants", "/people", "/audit", "/mailbox", "/nothing",
	} {
		page := b.browse(t, a.URL, record.RoleAdmin).get("/dash" + path)
		want := http.StatusOK
		if path == "/nothing" {
			want = http.StatusNotFound
		}
		page.holds(t, want, `<main id="main"`)
		policy := page.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self' 'nonce-") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s has the policy %q", path, policy)
		}
		if bad := inline.FindString(page.body); bad != "" {
			t.Errorf("%s has %q", path, bad)
		}
		if page.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be stored", path)
		}
	}
}

// The dashboard is where the admin API is, and for the same networks.
func TestDashboardIsWhereTheAdminAPIIs(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	_, a := b.beginDash(t, "SENDGATE_ADMIN_LISTEN=127.0.0.1:0", "SENDGATE_ADMIN_NETWORKS=10.0.0.0/8")
	b.browse(t, a.URL, record.RoleAdmin).get("/dash/").holds(t, 404)
	b.browse(t, a.AdminURL, record.RoleAdmin).get("/dash/").holds(t, 403, "address_not_allowed")
	b.browse(t, a.AdminURL, "").get("/dash/signin").holds(t, 403, "address_not_allowed") // nobody may guess from there
}

// The real gate: the one-time link of sendgate dev signs in once, and the session's token is needed to change anything.
func TestDashboardLetsTheDeveloperIn(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	a, err := New(b.config(t), quiet())
	if err != nil {
		t.Fatal(err)
	}
	a.linger, a.devLinks = 0, true
	r := b.begin(t, a)
	link, err := a.devLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	page, token, ok := strings.Cut(link, "#")
	if !ok || page != a.URL+"/dash/welcome" {
		t.Fatalf("link = %s", link)
	}
	br := b.browse(t, a.URL, "")
	br.get("/dash/").holds(t, 200, "<h1>Sign in</h1>")
	if in := br.do("POST", "/dash/welcome", url.Values{"token": {token}}); in.path != "/dash/" {
		t.Fatalf("the link leads to %d %s: %s", in.status, in.path, in.body)
	}
	csrf := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(br.get("/dash/accounts/ses").body)
	if csrf == nil {
		t.Fatal("the page has no token")
	}
	br.post("/dash/accounts/ses/pause").holds(t, 403, "Not from this page")
	br.do("POST", "/dash/accounts/ses/pause", url.Values{"csrf": {csrf[1]}}).holds(t, 200, "Paused.")
	if got, err := r.admin.Audit(t.Context(), api.AuditFilter{Action: "account.pause"}); err != nil || len(got.Data) != 1 || got.Data[0].Actor != "user:dev" {
		t.Errorf("audit = %+v, %v", got, err)
	}
	b.browse(t, a.URL, "").do("POST", "/dash/welcome", url.Values{"token": {token}}).holds(t, 403)
	if _, err := a.devLink(t.Context()); err != nil {
		t.Errorf("the next start can't invite: %v", err)
	}
}
