package sendgrid_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
)

// api is SendGrid's API except for sending mail: it answers by method and path, and records the requests.
type api struct {
	url     string
	answers map[string]string // "GET /path" -> body, or "status body"
	mu      sync.Mutex
	calls   []string // "POST /path body"
	header  http.Header
}

func newAPI(t *testing.T, answers map[string]string) *api {
	t.Helper()
	a := &api{answers: answers}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	call := r.Method + " " + r.URL.EscapedPath()
	a.mu.Lock()
	a.calls = append(a.calls, strings.TrimSpace(call+" "+string(body)))
	a.header = r.Header.Clone()
	answer, ok := a.answers[call]
	a.mu.Unlock()
	var status int
	switch n, _ := fmt.Sscanf(answer, "%d ", &status); {
	case r.Header.Get("Authorization") != "Bearer "+testKey || r.Header.Get("Accept") != "application/json":
		w.WriteHeader(http.StatusUnauthorized)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, fault("not found", ""))
	case n == 1:
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer[4:])
	default:
		_, _ = io.WriteString(w, answer)
	}
}

// often is for tests that are not about the pace of look-ups.
func often(c *sendgrid.Config) { c.LookupsPerMinute = 6000 }

func ourID(t *testing.T) mail.ID {
	t.Helper()
	id, err := mail.ParseID("0199c0de-0000-7000-8000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func query(t *testing.T, recipients ...string) *provider.Query {
	t.Helper()
	return &provider.Query{
		MessageID: ourID(t), Sender: "shop@example.com", Recipients: recipients,
		From: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), To: time.Date(2026, 1, 2, 3, 4, 35, 0, time.UTC),
	}
}

// lines is an answer of POST /v3/logs.
func lines(ids ...string) string {
	var out []string
	for _, id := range ids {
		sender, id, ok := strings.Cut(id, "|")
		if !ok {
			sender, id = "shop@example.com", sender
		}
		out = append(out, fmt.Sprintf(`{"from_email":%q,"sg_message_id":%q,"subject":"s","to_email":"ann@example.org","status":"delivered","sg_message_id_created_at":"2026-01-02T03:04:06Z"}`, sender, id))
	}
	return `{"messages":[` + strings.Join(out, ",") + `]}`
}

// details is an answer of GET /v3/logs/{id}.
func details(ours string, events ...string) string {
	return fmt.Sprintf(`{"from_email":"shop@example.com","status":"delivered","custom_args":{"gw_msg":%q},"events":[%s]}`, ours, strings.Join(events, ","))
}

const (
	foreignID = "0199c0de-0000-7000-8000-00000000ffff"
	loggedA   = "AAA.recvd-85abf8d92c-3qfgp-2-7890E356-43C.1"
	loggedB   = "BBB.recvd-85abf8d92c-3qfgp-2-7890E356-43C.1"
)

func TestFindComparesCustomArguments(t *testing.T) {
	t.Parallel()
	id := ourID(t)
	own := `{"event":"delivered","email":"ann@example.org","sg_message_id":"` + loggedB + `","sg_event_id":"e1","timestamp":1767323050,"custom_args":{"gw_msg":"` + id.String() + `"}}`
	bare := `{"event":"processed","email":"ann@example.org","sg_event_id":"e2","timestamp":1767323046}`
	a := newAPI(t, map[string]string{
		"POST /v3/logs":           lines("other@example.com|"+loggedA, loggedB),
		"GET /v3/logs/" + loggedA: details(foreignID),
		"GET /v3/logs/" + loggedB: details(id.String(), own, bare, `{"event":"received","sg_event_id":"e3","timestamp":1}`, `7`),
	})
	c := newClient(t, a.url, func(c *sendgrid.Config) { c.Subuser = "shop" })
	f, err := c.Find(t.Context(), query(t, "ann@example.org"))
	if err != nil || !f.Found || f.ProviderMessageID != "BBB" || len(f.Payloads) != 2 {
		t.Fatalf("Find = %+v, %v, want BBB with two payloads", f, err)
	}
	if got := string(f.Payloads[0].Raw); got != own {
		t.Errorf("an event that says all is kept as %s", got)
	}
	for i, want := range []mail.EventType{mail.EventDelivered, mail.EventAccepted} {
		p := f.Payloads[i]
		if diff := cmp.Diff(p.Events, c.Parse(p.Raw)); diff != "" {
			t.Errorf("Parse reads otherwise:\n%s", diff)
		}
		if e := p.Events[0]; e.Type != want || e.MessageID != id || e.ProviderMessageID != "BBB" {
			t.Errorf("event %d = %+v", i, e)
		}
	}
	want := []string{
		`POST /v3/logs {"limit":100,"query":"to_email = 'ann@example.org' AND sg_message_id_created_at > TIMESTAMP \"2026-01-02T03:03:05Z\" AND sg_message_id_created_at < TIMESTAMP \"2026-01-02T03:09:35Z\""}`,
		"GET /v3/logs/" + loggedB, // our sender's first
	}
	if diff := cmp.Diff(want, a.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if got := a.header.Get("On-Behalf-Of"); got != "shop" {
		t.Errorf("On-Behalf-Of = %q", got)
	}
}

func TestFindAsksForOtherRecipientsToo(t *testing.T) {
	t.Parallel()
	a := newAPI(t, map[string]string{"POST /v3/logs": lines()})
	f, err := newClient(t, a.url, often).Find(t.Context(), query(t, "o'brien@example.org", "b@example.org", "c@example.org", "d@example.org"))
	if err != nil || f.Found {
		t.Fatalf("Find = %+v, %v, want nothing", f, err)
	}
	if len(a.calls) != 3 {
		t.Errorf("calls = %d, want 3", len(a.calls))
	}
	if !strings.Contains(a.calls[0], `to_email = \"o'brien@example.org\"`) {
		t.Errorf("an address with a quote is asked for as %s", a.calls[0])
	}
}

// A result that was not opened might be the message, so not finding it is no proof.
func TestFindIsBoundedAndSaysSo(t *testing.T) {
	t.Parallel()
	answers := map[string]string{}
	var ids []string
	for i := range 11 {
		id := fmt.Sprintf("M%d.recvd-1", i)
		ids = append(ids, id)
		answers["GET /v3/logs/"+id] = details(foreignID)
	}
	answers["POST /v3/logs"] = lines(ids...)
	a := newAPI(t, answers)
	c := newClient(t, a.url, often)
	_, err := c.Find(t.Context(), query(t, "ann@example.org"))
	providertest.CheckClass(t, err, provider.Transient)
	if len(a.calls) != 11 {
		t.Errorf("calls = %d, want one search and ten messages", len(a.calls))
	}
	// The next look-up goes on where this one stopped.
	if f, err := c.Find(t.Context(), query(t, "ann@example.org")); err != nil || f.Found || len(a.calls) != 13 {
		t.Errorf("second look-up = %+v, %v after %d calls, want a clear no after 13", f, err, len(a.calls))
	}
	answers["POST /v3/logs"] = lines(ids[:10]...)
	if f, err := newClient(t, newAPI(t, answers).url, often).Find(t.Context(), query(t, "ann@example.org")); err != nil || f.Found {
		t.Errorf("Find among ten = %+v, %v, want a clear no", f, err)
	}
}

func TestFindErrorsLeaveTheRightDecision(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers map[string]string
		want    provider.Class
	}{
		"scope":             {map[string]string{"POST /v3/logs": "403 " + fault("access forbidden", "")}, provider.Misconfigured},
		"bad query":         {map[string]string{"POST /v3/logs": "400 " + fault("invalid query", "query")}, provider.Misconfigured},
		"throttled":         {map[string]string{"POST /v3/logs": "429 " + fault("too many requests", "")}, provider.Throttled},
		"500":               {map[string]string{"POST /v3/logs": "500 "}, provider.Transient},
		"503":               {map[string]string{"POST /v3/logs": "503 "}, provider.Transient},
		"HTML":              {map[string]string{"POST /v3/logs": "200 <html>"}, provider.Transient},
		"other JSON":        {map[string]string{"POST /v3/logs": `200 {"status":"ok"}`}, provider.Transient},
		"other JSON opened": {map[string]string{"POST /v3/logs": lines(loggedA), "GET /v3/logs/" + loggedA: `200 {"status":"ok"}`}, provider.Transient},
		"listed, then gone": {map[string]string{"POST /v3/logs": lines(loggedA)}, provider.Transient},
		"details fail":      {map[string]string{"POST /v3/logs": lines(loggedA), "GET /v3/logs/" + loggedA: "502 "}, provider.Transient},
	} {
		f, err := newClient(t, newAPI(t, c.answers).url).Find(t.Context(), query(t, "ann@example.org"))
		if f.Found {
			t.Errorf("%s: found", name)
		}
		if perr := providertest.AsError(t, err); perr.Class != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	_, err := newClient(t, "http://127.0.0.1:1").Find(t.Context(), query(t))
	providertest.CheckClass(t, err, provider.Misconfigured)
	_, err = newClient(t, "http://127.0.0.1:1").Find(t.Context(), query(t, "ann@example.org"))
	providertest.CheckClass(t, err, provider.Transient)
}
