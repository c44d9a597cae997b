package mailgun_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

func query() *provider.Query {
	from := time.Date(2018, 3, 19, 15, 11, 0, 0, time.UTC)
	return &provider.Query{
		MessageID: plainID(), InternetID: providertest.Plain().MessageID(), Sender: "shop@example.com",
		Recipients: []string{"ann@example.org"}, From: from, To: from.Add(30 * time.Second),
	}
}

// eventsAPI serves GET /v3/{domain}/events as documented: pages by token in the path, and a next page always. The items
// of each page are JSON.
func eventsAPI(t *testing.T, pages ...[]string) (*mailgun.Client, *requests) {
	t.Helper()
	reqs := &requests{}
	return serve(t, reqs, func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if _, token, ok := strings.Cut(r.URL.Path, "/events/"); ok {
			_, _ = fmt.Sscanf(token, "page=%d", &n)
		}
		items := "[]"
		if n < len(pages) {
			items = "[" + strings.Join(pages[n], ",") + "]"
		}
		// Another host, as behind a proxy: it must not be followed.
		_, _ = fmt.Fprintf(w, `{"items":%s,"paging":{"next":"https://api.mailgun.test/v3/%s/events/page=%d","previous":"https://api.mailgun.test/v3/x"}}`, items, testDomain, n+1)
	}), reqs
}

// requests are those that came.
type requests struct {
	mu  sync.Mutex
	all []string
}

func (r *requests) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, s)
}

func (r *requests) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

const logsPath = "/v1/analytics/logs"

// serve answers requests with the account's credential by h, and records them.
func serve(t *testing.T, reqs *requests, h http.HandlerFunc, more ...func(*mailgun.Config)) *mailgun.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, key, _ := r.BasicAuth(); user != "api" || key != testKey || r.Header.Get("X-Mailgun-On-Behalf-Of") != "sub1" {
			t.Errorf("%s %s: credential of %q, on behalf of %q", r.Method, r.URL, user, r.Header.Get("X-Mailgun-On-Behalf-Of"))
		}
		if r.URL.Path == logsPath { // the tests in this file are about the older API
			http.NotFound(w, r)
			return
		}
		line := r.Method + " " + r.URL.Path
		if err := r.ParseForm(); err == nil && len(r.Form) > 0 {
			line += " " + r.Form.Encode()
		}
		reqs.add(line)
		w.Header().Set("Content-Type", "application/json")
		h(w, r)
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, srv.URL, append(more, func(c *mailgun.Config) { c.Subaccount = "sub1" })...)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestFindAsksByMessageID(t *testing.T) {
	t.Parallel()
	accepted, delivered := sample(t, "accepted"), sample(t, "delivered")
	c, reqs := eventsAPI(t, []string{accepted}, []string{delivered})
	got, err := c.Find(t.Context(), query())
	if err != nil {
		t.Fatal(err)
	}
	var payloads []mail.Payload
	for _, raw := range []string{accepted, delivered} {
		raw = strings.TrimSpace(raw)
		payloads = append(payloads, mail.Payload{Raw: []byte(raw), Events: c.Parse([]byte(raw))})
	}
	want := provider.Finding{Found: true, ProviderMessageID: query().InternetID, Payloads: payloads}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("finding (-want +got):\n%s", diff)
	}
	path := "GET /v3/" + testDomain + "/events"
	first := url.Values{"message-id": {query().InternetID}, "begin": {"1521472200"}, "ascending": {"yes"}, "limit": {"50"}}
	if diff := cmp.Diff([]string{path + " " + first.Encode(), path + "/page=1", path + "/page=2"}, reqs.list()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// change sets members of a sample.
func change(t *testing.T, name string, members map[string]any) string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(sample(t, name)), &all); err != nil {
		t.Fatal(err)
	}
	for k, v := range members {
		all[k] = v
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWhatProvesACall(t *testing.T) {
	t.Parallel()
	type members = map[string]any
	other := members{"message": members{"headers": members{"message-id": "x@example.com"}}, "user-variables": members{}}
	at := func(d time.Duration) members {
		return members{"timestamp": float64(query().From.Add(d).UnixMilli()) / 1000}
	}
	for name, c := range map[string]struct {
		items []string
		want  bool
	}{
		"nothing":                           {nil, false},
		"accepted":                          {[]string{sample(t, "accepted")}, true},
		"delivered alone":                   {[]string{sample(t, "delivered")}, true},
		"put off":                           {[]string{sample(t, "failed_temporary")}, true},
		"bounced":                           {[]string{sample(t, "failed_permanent")}, true},
		"suppressed":                        {[]string{sample(t, "failed_suppressed")}, true},
		"rejected":                          {[]string{sample(t, "rejected")}, true},
		"opened, perhaps of an earlier try": {[]string{sample(t, "opened")}, false},
		"complained, likewise":              {[]string{sample(t, "complained")}, false},
		"by our variable alone":             {[]string{change(t, "accepted", members{"message": nil})}, true},
		"by the Message-ID alone":           {[]string{change(t, "accepted", members{"user-variables": nil})}, true},
		"another message":                   {[]string{change(t, "accepted", other)}, false},
		"another message, then ours":        {[]string{change(t, "accepted", other), sample(t, "accepted")}, true},
		"another recipient of ours":         {[]string{change(t, "accepted", members{"recipient": "bob@example.org"})}, false},
		"a recipient in another case":       {[]string{change(t, "accepted", members{"recipient": "ANN@example.org"})}, true},
		"before the call":                   {[]string{change(t, "accepted", at(-time.Minute-time.Second))}, false},
		"just before, by Mailgun's clock":   {[]string{change(t, "accepted", at(-time.Minute))}, true},
		"what we have no word for":          {[]string{sample(t, "stored"), `7`, `null`, `{}`}, false},
	} {
		client, _ := eventsAPI(t, c.items)
		got, err := client.Find(t.Context(), query())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.Found != c.want || got.Found != (got.ProviderMessageID != "") && name != "by our variable alone" {
			t.Errorf("%s: found %t as %q, want %t", name, got.Found, got.ProviderMessageID, c.want)
		}
	}
}

func TestFindWithoutIDsMatchesNothing(t *testing.T) {
	t.Parallel()
	c, _ := eventsAPI(t, []string{change(t, "accepted", map[string]any{"message": nil, "user-variables": nil})})
	q := query()
	q.MessageID, q.InternetID = mail.ID{}, ""
	if got, err := c.Find(t.Context(), q); err != nil || got.Found || len(got.Payloads) > 0 {
		t.Errorf("Find of no message = %+v, %v", got, err)
	}
}

// A listing that was not read to its end does not prove that a message is missing.
func TestFindGivesUpAfterTenPages(t *testing.T) {
	t.Parallel()
	stranger := change(t, "accepted", map[string]any{"message": nil, "user-variables": nil})
	pages := make([][]string, 50)
	for i := range pages {
		pages[i] = []string{stranger}
	}
	c, reqs := eventsAPI(t, pages...)
	got, err := c.Find(t.Context(), query())
	providertest.CheckClass(t, err, provider.Transient)
	if got.Found || len(reqs.list()) != 10 {
		t.Errorf("found %t after %d requests, want 10", got.Found, len(reqs.list()))
	}
	pages[9] = []string{sample(t, "accepted")}
	c, _ = eventsAPI(t, pages...)
	if got, err := c.Find(t.Context(), query()); err != nil || !got.Found {
		t.Errorf("on the tenth page: %+v, %v", got, err)
	}
	notYetOurs := change(t, "accepted", map[string]any{"recipient": "bob@example.org"})
	for i := range pages {
		pages[i] = []string{notYetOurs}
	}
	c, _ = eventsAPI(t, pages...)
	_, err = c.Find(t.Context(), query())
	providertest.CheckClass(t, err, provider.Transient)
}

// A full page without a next page does not prove the end of the listing either.
func TestFindWantsTheEndOfTheList(t *testing.T) {
	t.Parallel()
	stranger := change(t, "accepted", map[string]any{"message": nil, "user-variables": nil})
	for n, want := range map[int]provider.Class{49: provider.Accepted, 50: provider.Transient} {
		c := serve(t, &requests{}, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"items":[%s]}`, strings.TrimSuffix(strings.Repeat(stranger+",", n), ","))
		})
		_, err := c.Find(t.Context(), query())
		providertest.CheckClass(t, err, want)
	}
}

func TestFindStaysWithOneServer(t *testing.T) {
	t.Parallel()
	const path = "/v3/" + testDomain + "/events"
	for next, want := range map[string]string{
		"":                                      "",
		"%zz":                                   "",
		"https://evil.example":                  "",
		"https://evil.example/steal":            "",
		"https://evil.example/steal?a=b":        "",
		"https://evil.example/v3/x/events":      "",
		"https://evil.example/v3/x/events/..":   "",
		"https://evil.example/v3/x/events/":     "",
		"https://evil.example/events/../../x":   "",
		"https://evil.example/v3/x/events/W3s=": path + "/W3s=",
		"https://evil.example/events?page=W3s":  path + " page=W3s",
		"/events/a%2F..%2Fb":                    path + "/a/../b", // as the server decodes it: one segment
	} {
		reqs := &requests{}
		c := serve(t, reqs, func(w http.ResponseWriter, r *http.Request) {
			items := "[]"
			if len(reqs.list()) == 1 {
				items = "[" + sample(t, "accepted") + "]"
			}
			_, _ = fmt.Fprintf(w, `{"items":%s,"paging":{"next":%q}}`, items, next)
		})
		if got, err := c.Find(t.Context(), query()); err != nil || !got.Found {
			t.Errorf("next %q: %+v, %v", next, got, err)
		}
		var led string
		if all := reqs.list(); len(all) > 1 {
			led = strings.TrimPrefix(all[1], "GET ")
		}
		if led != want {
			t.Errorf("next %q led to %q, want %q", next, led, want)
		}
	}
}

func TestFindErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		header string
		body   string
		want   provider.Error
	}{
		{"sending key", 401, "", "Forbidden", provider.Error{Class: provider.Misconfigured, Status: 401, Detail: "Forbidden"}},
		{"key of another role", 403, "", `{"message":"no permission"}`, provider.Error{Class: provider.Misconfigured, Status: 403, Detail: "no permission"}},
		{"no such domain, or API", 404, "", `{"message":"Domain not found"}`, provider.Error{Class: provider.Misconfigured, Status: 404}},
		{"API at its end", 410, "", "", provider.Error{Class: provider.Misconfigured, Status: 410}},
		{"bad query", 400, "", `{"message":"bad"}`, provider.Error{Class: provider.Misconfigured, Status: 400}},
		{"throttled", 429, "", `{"message":"slow"}`, provider.Error{Class: provider.Throttled, Status: 429}},
		{"throttled for a time", 429, "7", "", provider.Error{Class: provider.Throttled, Status: 429, RetryAfter: 7 * time.Second}},
		{"500", 500, "", "<html>", provider.Error{Class: provider.Transient, Status: 500}},
		{"503", 503, "", "", provider.Error{Class: provider.Transient, Status: 503}},
		{"redirect", 307, "", "", provider.Error{Class: provider.Misconfigured, Status: 307}},
		{"wrong path", 200, "", "Mailgun Magnificent API", provider.Error{Class: provider.Misconfigured}},
		{"other JSON", 200, "", `{"message":"hello"}`, provider.Error{Class: provider.Misconfigured}},
		{"items of another kind", 200, "", `{"items":{}}`, provider.Error{Class: provider.Misconfigured}},
		{"the key in an error", 400, "", `{"message":"bad key ` + testKey + ` of ann@example.org"}`, provider.Error{Class: provider.Misconfigured, Detail: "bad key [secret] of a***@example.org"}},
	} {
		client := serve(t, &requests{}, func(w http.ResponseWriter, _ *http.Request) {
			if c.header != "" {
				w.Header().Set("Retry-After", c.header)
			}
			w.WriteHeader(c.status)
			_, _ = fmt.Fprint(w, c.body)
		})
		got, err := client.Find(t.Context(), query())
		if err == nil || got.Found {
			t.Errorf("%s: %+v, %v", c.name, got, err)
			continue
		}
		providertest.CheckError(t, err, c.want)
		providertest.CheckNoSecret(t, err, []string{testKey})
	}
}

func TestFindSurvivesLostAnswers(t *testing.T) {
	t.Parallel()
	drop := func(w http.ResponseWriter) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	c := serve(t, &requests{}, func(w http.ResponseWriter, _ *http.Request) { drop(w) })
	_, err := c.Find(t.Context(), query())
	providertest.CheckClass(t, err, provider.Transient)

	c = serve(t, &requests{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = fmt.Fprint(w, `{"items":[`)
	})
	_, err = c.Find(t.Context(), query())
	providertest.CheckClass(t, err, provider.Transient)

	// What the first page proved holds, whatever becomes of the second.
	reqs := &requests{}
	c = serve(t, reqs, func(w http.ResponseWriter, r *http.Request) {
		if len(reqs.list()) > 1 {
			drop(w)
			return
		}
		_, _ = fmt.Fprintf(w, `{"items":[%s],"paging":{"next":"https://x/page2"}}`, sample(t, "accepted"))
	})
	if got, err := c.Find(t.Context(), query()); err != nil || !got.Found {
		t.Errorf("second page lost: %+v, %v", got, err)
	}
}
