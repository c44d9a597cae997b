//go:build drill

package app

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
)

// The database dates what callers see and what receivers of webhooks check, whatever this host's clock shows.
// Here the database is days ahead, where it has partitions, and the check of the two clocks is content.
func TestCallersSeeTheDatabasesTime(t *testing.T) {
	t.Parallel()
	const off = 3 * 24 * time.Hour
	b := newBench(t, benchOptions{})
	for _, sql := range []string{
		`CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT pg_catalog.now() + interval ''3 days'''`,
		`CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp() + interval ''3 days'''`,
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$`,
	} {
		if _, err := b.rows.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	signed := make(chan string, 1)
	url := serveHTTP(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { signed <- r.Header.Get("Webhook-Timestamp") }))
	s := &skewed{}
	s.set(off)
	r, err := b.startWith(t, func(a *App) { a.clock = s.clock() }, "SENDGATE_FORWARD_ALLOW="+target(url))
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, at time.Time) {
		t.Helper()
		if d := time.Until(at) - off; d.Abs() > time.Minute {
			t.Errorf("%s is %s off", what, d)
		}
	}
	m := letter(1)
	m.SendAt = at(off - 4*time.Minute) // a moment ago, by the database
	batch, err := r.api.SendBatch(t.Context(), api.BatchRequest{Messages: []api.SendRequest{letter(2)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{send(t, r.api, m), batch.Results[0].ID} {
		got := becomes(t, r.api, id, settleTime, "sent")
		parsed, err := mail.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		near("the id", parsed.Time())
		near("created_at", got.CreatedAt)
		near("expires_at", got.ExpiresAt.Add(-72*time.Hour))
		near("started_at", got.Attempts[0].StartedAt)
	}
	x, err := r.api.Suppress(t.Context(), api.SuppressionRequest{Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	near("the suppression", x.CreatedAt)
	e, err := r.api.CreateWebhookEndpoint(t.Context(), api.WebhookEndpointRequest{URL: &url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.api.TestWebhookEndpoint(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseInt(<-signed, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	near("the signature of a webhook", time.Unix(seconds, 0))
}
