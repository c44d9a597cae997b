package dash

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// open is a Gate without a lock.
type open struct{ role record.Role }

func (o open) Person(*http.Request) (Person, bool, error) {
	return Person{Name: "ann", Role: o.role, Token: "t"}, true, nil
}
func (open) Check(*http.Request) error { return nil }
func (open) Routes(chi.Router, func(http.ResponseWriter, *http.Request, int, string, template.HTML)) {
}

// canned answers calls of the API by path, and notes them.
type canned struct {
	answers map[string]any
	calls   []string
	asked   []url.Values
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	c.calls = append(c.calls, r.Method+" "+r.URL.Path)
	c.asked = append(c.asked, r.URL.Query())
	body, err := json.Marshal(c.answers[r.URL.Path])
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if c.answers[r.URL.Path] == nil {
		status, body = http.StatusNotFound, []byte(`{"code":"not_found","status":404}`)
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/problem+json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

func newDash(t *testing.T, c *canned, role record.Role, now time.Time) http.Handler {
	t.Helper()
	h, err := New(Options{
		Gate: open{role}, Now: func() time.Time { return now },
		As: func(*http.Request, string, []record.Scope, string) http.RoundTripper { return c },
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, http.NoBody)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// A page about a message must not ask once for each of a thousand recipients.
func TestAMessageTakesFewCalls(t *testing.T) {
	t.Parallel()
	m := api.Message{ID: "m1", Status: "sent", Recipients: []api.Recipient{{Email: "ann@example.org"}}}
	c := &canned{answers: map[string]any{"/v1/messages/m1": &m}}
	h := newDash(t, c, record.RoleSupport, noon)
	if w := get(h, "/messages/m1"); w.Code != 200 || len(c.calls) != 2 {
		t.Errorf("a message of one recipient = %d, with the calls %v, want 2", w.Code, c.calls)
	}
	for range 100 {
		m.Recipients = append(m.Recipients, api.Recipient{Email: "bob@example.org"})
	}
	c.calls = nil
	if w := get(h, "/messages/m1"); w.Code != 200 || len(c.calls) != 1 {
		t.Errorf("a message of many recipients = %d, with the calls %v, want 1", w.Code, c.calls)
	}
}

// Fifty viewers cost as much as one.
func TestViewersShareOneReading(t *testing.T) {
	t.Parallel()
	c := &canned{answers: map[string]any{
		"/admin/v1/queue": api.Queue{}, "/admin/v1/accounts": api.List[api.Account]{}, "/admin/v1/limits": api.List[api.WindowState]{},
	}}
	h := newDash(t, c, record.RoleViewer, noon)
	for range 50 {
		if w := get(h, "/", "HX-Request", "true"); w.Code != 200 || strings.Contains(w.Body.String(), "<html") || !strings.Contains(w.Body.String(), "No process sends mail") {
			t.Fatalf("the overview = %d %s", w.Code, w.Body)
		}
	}
	if len(c.calls) != 3 {
		t.Errorf("calls = %v, want one reading", c.calls)
	}
}

func TestTasksNameWhatStandsStillFirst(t *testing.T) {
	t.Parallel()
	due, blocked := noon.Add(-time.Hour), noon.Add(time.Minute)
	window := func(per string, used int) api.WindowState {
		return api.WindowState{Account: "ses", Limit: api.Limit{N: 100, Per: per, Unit: "messages"}, Used: used}
	}
	full := window("24h", 100)
	full.BlockedUntil = &blocked
	s := state{
		At:    noon,
		Queue: &api.Queue{Replicas: []api.Replica{{}}, OldestDue: &due, Unknown: 1000, AtLeast: []string{"unknown"}},
		Accounts: []api.Account{
			{Name: "paused", State: "paused"},
			{Name: "parked", State: "parked", Parked: []api.Park{{Sender: "shop@example.com", Reason: "not verified"}}, UnreadableSecrets: []string{"api_key"}},
		},
		Limits:   []api.WindowState{window("1s", 100), window("1h", 89), window("1h", 90), full},
		Webhooks: map[string]*api.AccountWebhooks{"paused": {Silent: true}},
	}
	want := []string{
		"!The oldest due message waits for 60 min.", "!parked for shop@example.com is parked: not verified", "!parked: the secrets api_key can't be decrypted.",
		"paused is paused.", "paused sent mail, and its provider reports nothing.", "at least 1000 messages may or may not have been sent",
		"ses: 90 of 100 messages per 1h used.", "ses: 100 of 100 messages per 24h used, blocked until 2026-01-31 12:01:00 UTC.",
	}
	got := s.tasks()
	if len(got) != len(want) {
		t.Fatalf("%d tasks, want %d: %+v", len(got), len(want), got)
	}
	for i, one := range got {
		text := one.What
		if one.Bad {
			text = "!" + text
		}
		if !strings.HasPrefix(text, want[i]) || one.Remedy == "" || one.Link == "" {
			t.Errorf("task %d = %+v, want %s", i, one, want[i])
		}
	}
}

// Mail goes to active accounts only, so a paused one has no share, whatever its weight.
func TestSharesCountActiveAccounts(t *testing.T) {
	t.Parallel()
	s := state{Accounts: []api.Account{{Name: "a", State: "active"}, {Name: "b", State: "active"}, {Name: "c", State: "paused"}}}
	p := api.Pool{Accounts: []api.PoolMember{{Account: "a", Weight: 1}, {Account: "c", Weight: 98}}}
	got := newTable(p, &s, []api.PoolMember{{Account: "a", Weight: 1}, {Account: "b", Weight: 3}, {Account: "c", Weight: 98}})
	for i, want := range []struct{ now, then float64 }{{1, 0.25}, {0, 0.75}, {0, 0}} {
		if k := got.Stakes[i]; k.Now != want.now || k.Then != want.then {
			t.Errorf("%s has the share %v, then %v, want %+v", k.Account, k.Now, k.Then, want)
		}
	}
	if !got.Changed || newTable(p, &s, p.Accounts).Changed {
		t.Error("a change is not told from none")
	}
}

func TestStaticFilesAreKeptByTheirContent(t *testing.T) {
	t.Parallel()
	h := newDash(t, &canned{}, record.RoleViewer, noon)
	total := 0
	for name := range statics {
		w := get(h, "/static/"+name, "Accept-Encoding", "gzip")
		total += w.Body.Len()
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(plain, get(h, "/static/"+name).Body.Bytes()) {
			t.Errorf("%s differs when compressed: %v", name, err)
		}
		if !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s is not kept", name)
		}
	}
	if total > 60<<10 {
		t.Errorf("all files have %d bytes compressed: they are to load over a telephone", total)
	}
	if w := get(h, "/static/dash.css"); w.Code != 404 {
		t.Errorf("a name without a hash = %d", w.Code)
	}
}

func TestSpansAreShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 s", 90 * time.Second: "90 s", 3 * time.Minute: "3 min", 5 * time.Hour: "5 h", 72 * time.Hour: "3 days",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %s, want %s", d, got, want)
		}
	}
	if got := since(noon, noon.Add(3*time.Minute)); got != "in 3 min" {
		t.Errorf("since = %s", got)
	}
}

// Postmark and Resend give ids that look like ours but for the version.
func TestOneFieldFindsByWhatItHolds(t *testing.T) {
	t.Parallel()
	for q, want := range map[string]string{
		"01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f": "",
		"6778fa25-2346-40fc-9621-6da600085cdd": "provider_message_id",
		"010001a22ef298f3-216a9ce5":            "provider_message_id",
		"ann@example.org":                      "to",
	} {
		c := &canned{answers: map[string]any{"/v1/messages": api.MessagePage{}}}
		w := get(newDash(t, c, record.RoleSupport, noon), "/messages?q="+q)
		if want == "" {
			if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || got != "/dash/messages/"+q {
				t.Errorf("%s leads to %d %s", q, w.Code, got)
			}
			continue
		}
		if w.Code != 200 || len(c.asked) != 1 || c.asked[0].Get(want) != q {
			t.Errorf("%s = %d, asked %v, want %s", q, w.Code, c.asked, want)
		}
	}
}

// A database that does not answer gets one reading, and not one for each viewer in turn.
func TestViewersShareAFailedReading(t *testing.T) {
	t.Parallel()
	c := &canned{}
	h := newDash(t, c, record.RoleViewer, noon)
	for _, path := range []string{"/queue", "/traffic"} {
		c.calls = nil
		for range 20 {
			if w := get(h, path); w.Code == 200 {
				t.Fatalf("%s = %d", path, w.Code)
			}
		}
		if len(c.calls) != 1 {
			t.Errorf("%s: calls = %v, want one", path, c.calls)
		}
	}
}

// The reading of the accounts may be older than the pool. A member that is missing in the form would leave the pool with the next save.
func TestEveryMemberOfAPoolIsInItsForm(t *testing.T) {
	t.Parallel()
	c := &canned{answers: map[string]any{
		"/admin/v1/queue": api.Queue{}, "/admin/v1/accounts": api.List[api.Account]{}, "/admin/v1/limits": api.List[api.WindowState]{},
		"/admin/v1/pools/default": api.Pool{Name: "default", Version: 8, Accounts: []api.PoolMember{{Account: "new", Weight: 5}}},
	}}
	w := get(newDash(t, c, record.RoleOperator, noon), "/pools/default?done=weights&was=evil:100")
	if page := w.Body.String(); !strings.Contains(page, `name="w.new" value="5"`) || strings.Contains(page, "evil") || strings.Contains(page, "Revert") {
		t.Errorf("the form = %d\n%s", w.Code, page)
	}
}
