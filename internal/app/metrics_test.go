//go:build drill

package app

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// watched remembers which metrics of a service have not moved since it began.
type watched struct {
	registry *prometheus.Registry
	first    map[string]string // the series of each metric, as they were
	still    map[string]bool
}

// fqName finds the name in the text of a prometheus.Desc, which has no method for it.
var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

// watch begins before the service starts. The names come from the metrics themselves, because a registry only lists metrics
// with series.
func watch(t *testing.T, a *App) *watched {
	t.Helper()
	w := &watched{registry: a.registry, still: map[string]bool{}}
	w.first = w.series(t)
	fields := reflect.ValueOf(*a.metrics)
	for i := range fields.NumField() {
		c, ok := fields.Field(i).Interface().(prometheus.Collector)
		if !ok {
			t.Fatalf("telemetry.Metrics.%s is no collector", fields.Type().Field(i).Name)
		}
		descs := make(chan *prometheus.Desc, 8)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			w.still[fqName.FindStringSubmatch(d.String())[1]] = true
		}
	}
	if len(w.still) != fields.NumField() {
		t.Fatalf("%d metrics have %d names", fields.NumField(), len(w.still))
	}
	return w
}

func (w *watched) series(t *testing.T) map[string]string {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if c := m.GetCounter(); c == nil || c.GetValue() > 0 { // counters begin at 0
				all[f.GetName()] += fmt.Sprint(m)
			}
		}
	}
	return all
}

// look returns the names of the metrics that never moved so far.
func (w *watched) look(t *testing.T) []string {
	t.Helper()
	for name, now := range w.series(t) {
		if now != w.first[name] {
			delete(w.still, name)
		}
	}
	return slices.Sorted(maps.Keys(w.still))
}

// A metric that nothing writes looks like one that has not changed.
func TestEveryExportedMetricMoves(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	told, urls, allow := newEndpoints(t)
	_, pager, pagerAllow := newDuty(t)
	allow += "," + strings.TrimPrefix(pagerAllow, "SENDGATE_FORWARD_ALLOW=")
	settings = append(settings, allow, "SENDGATE_UNKNOWN_WAIT=1s", "SENDGATE_LOOKUP_SCHEDULE=1s,60s")
	b.leaveWorkBehind(t, settings)

	a, err := New(b.config(t, settings...), quiet())
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, a)
	r := b.begin(t, a)
	eventually(t, settleTime, "the books are checked, and the lost message shows", func() bool {
		_, text := b.get(t, r.ops+"/metrics")
		return strings.Contains(text, "\nsendgate_invariant_violations{kind=\"lost\"} 1\n")
	})
	if _, text := b.get(t, r.ops+"/metrics"); !strings.Contains(text, "\nsendgate_invariant_violations{kind=\"twice\"} 0\n") {
		t.Error("what is in order does not show as 0")
	}
	told.register(t, r, urls)
	b.comesBack(t, r, pager)
	listen(t, b, r, 1000) // a stream
	b.faults(t, map[string][]emulator.Fault{
		"sendgrid": {{Mode: "accept_then_drop", Match: "lost-*", Count: 1}, {Mode: "hook_hold"}},
		"mailgun":  {{Mode: "accept_then_drop", Match: "lost-*"}, {Mode: "hook_drop"}},
		"postmark": {{Mode: "slow", Match: "slow-*", Latency: emulator.Duration(time.Second)}},
	})
	only(t, r, "sendgrid")
	twice := letterTo("sendgrid", "lost-twice@example.org") // is sent again, before its provider reports the first call
	twice.OnAmbiguous = "resend"
	id := send(t, r.api, twice)
	asked := letterTo("mailgun", "lost-asked@example.org") // is looked up
	asked.OnAmbiguous = "reconcile"
	send(t, r.api, asked)
	for i := range 40 { // more than are called at a time: some wait
		send(t, r.api, letterTo("postmark", fmt.Sprintf("slow-%d@example.org", i)))
	}
	eventually(t, settleTime, "the message that was sent again is sent", func() bool {
		w.look(t) // while calls are in progress
		return message(t, r.api, id).Status == "sent"
	})
	b.faults(t, nil)
	deadline := time.Now().Add(settleTime)
	for time.Now().Before(deadline) && len(w.look(t)) > 0 {
		pause(t, 50*time.Millisecond)
	}
	for _, name := range w.look(t) {
		t.Errorf("%s never moved: is it written at all?", name)
	}
}

// comesBack sends what providers report in various ways, and sets up what else has figures.
func (b *bench) comesBack(t *testing.T, r *replica, pager string) {
	t.Helper()
	_, err := r.admin.CreateNotifyRule(t.Context(), api.NotifyRuleRequest{Name: "pager", Channel: "slack", URL: pager})
	if err == nil {
		_, err = r.admin.SetLimits(t.Context(), "ses", []api.Limit{{N: 1, Per: "1h", Unit: "messages"}}) // one mail is an incident
	}
	if err == nil {
		_, err = r.admin.PauseAccount(t.Context(), "resend")
	}
	if err != nil {
		t.Fatal(err)
	}
	send(t, r.api, letterTo("ses", "ann@example.org"))
	for _, local := range []string{"bounce", "complaint", "claimed"} { // the last one is suppressed
		send(t, r.api, letterTo("postmark", local+"@example.org"))
	}
	b.exec(t, `INSERT INTO event (id, origin, account_id, type, at, source, key) SELECT i, i, (SELECT id FROM account WHERE name = 'postmark'), 'unsubscribed', now(), 'webhook', i
		FROM new_event_id() i`) // no emulated provider reports that
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "error", Status: 503, Match: "over-*"}}})
	only(t, r, "sendgrid", "postmark")
	for i := range 8 {
		m := letter(i)
		m.To[0].Email = fmt.Sprintf("over-%d@example.org", i)
		becomes(t, r.api, send(t, r.api, m), settleTime, "sent", "delivered")
	}
}

// leaveWorkBehind makes the rows that a dead replica leaves: a message of unknown outcome whose provider can't be asked, a
// claimed message to an address that was suppressed later, and books that do not balance.
func (b *bench) leaveWorkBehind(t *testing.T, settings []string) {
	t.Helper()
	a, err := New(b.config(t, settings...), quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := b.client(a.URL, a.OpsURL)
	r.await(t, b.http)
	b.faults(t, map[string][]emulator.Fault{"smtp": {{Mode: "accept_then_drop"}}})
	becomes(t, r.api, send(t, r.api, letterTo("smtp", "ann@example.org")), settleTime, "unknown")
	claimed, later := letter(0), time.Now().Add(time.Hour)
	claimed.To[0].Email, claimed.SendAt = "claimed@example.org", &later
	id := send(t, r.api, claimed)
	if _, err := r.api.Suppress(t.Context(), api.SuppressionRequest{Email: "claimed@example.org"}); err != nil {
		t.Fatal(err)
	}
	b.http.CloseIdleConnections()
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		`WITH r AS (DELETE FROM ready WHERE id = $1 RETURNING *)
			INSERT INTO inflight (id, lane, tenant_id, owner, account_id, n, tries, recipients)
			SELECT id, lane, tenant_id, gen_random_uuid(), (SELECT id FROM account WHERE name = 'ses'), 1, 0, 1 FROM r`,
		`INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
			SELECT uuid_floor(now()), 1, 'queued', 'transactional', 'a@example.com', '', '{}', 'never', now(), now() + interval '1 day', now()
			WHERE $1::uuid IS NOT NULL`,
	} {
		if tag, err := b.rows.Exec(t.Context(), query, id); err != nil || tag.RowsAffected() != 1 {
			t.Fatal(tag, err)
		}
	}
}
