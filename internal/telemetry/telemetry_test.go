package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/hostcheck"
)

func TestJSONLogIsOneObjectALine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := NewLogger(&out, slog.LevelInfo, "json")
	log.Debug("hidden")
	log.Info("attempt recorded", "class", "accepted", "took", 1500*time.Microsecond, slog.Group("g", "took", time.Second))
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Fatalf("lines = %d, want 1: %s", n, out.String())
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(timeFormat, fmt.Sprint(got["time"]))
	if err != nil || at.Location() != time.UTC {
		t.Errorf("time = %v (%v), want UTC with milliseconds", got["time"], err)
	}
	delete(got, "time")
	want := map[string]any{
		"level": "INFO", "msg": "attempt recorded", "class": "accepted", "took_ms": 1.5, "g": map[string]any{"took_ms": 1000.},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestTextLogAndLevelThatMoves(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	level := &slog.LevelVar{}
	log := NewLogger(&out, level, "text")
	log.Debug("hidden")
	level.Set(slog.LevelDebug)
	log.Debug("shown", "class", "accepted")
	if got := out.String(); strings.Contains(got, "hidden") || !strings.Contains(got, "msg=shown class=accepted") {
		t.Errorf("log = %q, want only the second record, as text", got)
	}
}

// use touches every metric once.
func use(m *Metrics) {
	m.Accepted.WithLabelValues("accepted").Inc()
	m.AcceptSeconds.Observe(.01)
	m.HTTPRequests.WithLabelValues("/v1/send", "202").Inc()
	m.HTTPSeconds.WithLabelValues("/v1/send").Observe(.01)
	m.Attempts.WithLabelValues("ses-eu", "ses", "accepted").Inc()
	m.CallSeconds.WithLabelValues("ses").Observe(.1)
	m.Claimed.Inc()
	m.ClaimSeconds.Observe(.001)
	m.SlotsGranted.WithLabelValues("ses-eu").Inc()
	m.SlotsUsed.WithLabelValues("ses-eu").Inc()
	m.SlotsDropped.WithLabelValues("ses-eu").Inc()
	m.ReadyDepth.Set(1)
	m.DeadRows.Set(1)
	m.Inflight.Set(1)
	m.Unknown.Set(1)
	m.UnknownTotal.WithLabelValues("ses", "timeout").Inc()
	m.Resolved.WithLabelValues("webhook", "sent").Inc()
	m.Rescued.WithLabelValues(RescuedStarted).Inc()
	m.BreakerState.WithLabelValues("ses-eu").Set(2)
	m.Parked.WithLabelValues("ses-eu").Set(1)
	m.BatchSize.WithLabelValues(BatchAccept).Observe(10)
	m.HookRequests.WithLabelValues("ses-eu", "stored").Inc()
	m.HookEvents.WithLabelValues("ses-eu", "stored").Inc()
	m.Lookups.WithLabelValues("ses", "found").Inc()
	m.Deliveries.WithLabelValues("delivered").Inc()
	m.Streams.Set(1)
	m.Booked.WithLabelValues("ready").Set(1)
	m.Violations.WithLabelValues("lost").Set(1)
	m.BooksAt.Set(1)
	m.UnknownAge.Set(1)
	m.DuplicateAccepts.Inc()
	m.Sent.WithLabelValues("ses-eu", "other").Inc()
	m.SentSeconds.WithLabelValues("ses-eu").Observe(1)
	m.Failovers.WithLabelValues("ses-eu").Inc()
	m.Suppressed.WithLabelValues("other").Inc()
	m.Paused.WithLabelValues("ses-eu").Set(1)
	m.Delivered.WithLabelValues("ses-eu", "other").Inc()
	m.Bounced.WithLabelValues("ses-eu", "other", "hard").Inc()
	m.Complained.WithLabelValues("ses-eu", "other").Inc()
	m.Unsubscribed.WithLabelValues("ses-eu", "other").Inc()
	m.QueueAge.WithLabelValues().Set(1)
	m.LimitUsed.WithLabelValues("ses-eu", "14 requests per 1s").Set(1)
	m.WebhooksSilent.WithLabelValues("ses-eu").Set(1)
	m.Incidents.WithLabelValues("books").Set(1)
	m.Notices.WithLabelValues("mail", "told").Inc()
	m.DeliveredSeconds.WithLabelValues("ses-eu").Observe(1)
	m.DeliveriesPending.WithLabelValues().Set(1)
}

// The names are what dashboards and alerts are written against.
func TestMetricNamesAndLabels(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	use(New(reg))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got = append(got, f.GetName()+"{"+strings.Join(labels, ",")+"}")
	}
	want := []string{
		"sendgate_accept_seconds{}", "sendgate_accepted_total{result}", "sendgate_attempts_total{account,class,kind}",
		"sendgate_batch_size{batch}", "sendgate_booked_messages{state}", "sendgate_books_checked_timestamp_seconds{}",
		"sendgate_bounced_total{account,class,stream}", "sendgate_breaker_state{account}", "sendgate_call_seconds{kind}",
		"sendgate_claim_seconds{}", "sendgate_claimed_total{}", "sendgate_complained_total{account,stream}",
		"sendgate_delivered_seconds{account}", "sendgate_delivered_total{account,stream}", "sendgate_deliveries_pending{}", "sendgate_deliveries_total{outcome}", "sendgate_duplicate_accepts_total{}",
		"sendgate_event_streams{}", "sendgate_failovers_total{account}", "sendgate_hook_events_total{account,result}",
		"sendgate_hook_requests_total{account,result}", "sendgate_http_requests_total{code,route}", "sendgate_http_seconds{route}",
		"sendgate_incidents{kind}", "sendgate_inflight{}", "sendgate_invariant_violations{kind}",
		"sendgate_limit_used_ratio{account,limit}", "sendgate_lookups_total{kind,result}", "sendgate_notices_total{channel,outcome}",
		"sendgate_parked{account}", "sendgate_paused{account}", "sendgate_queue_age_seconds{}", "sendgate_queue_dead_rows{}",
		"sendgate_ready_depth{}", "sendgate_rescued_total{kind}", "sendgate_resolved_total{by,verdict}",
		"sendgate_sent_seconds{account}", "sendgate_sent_total{account,stream}", "sendgate_slots_dropped_total{account}",
		"sendgate_slots_granted_total{account}", "sendgate_slots_used_total{account}", "sendgate_suppressed_total{stream}",
		"sendgate_unknown{}", "sendgate_unknown_age_seconds{}", "sendgate_unknown_total{cause,kind}",
		"sendgate_unsubscribed_total{account,stream}", "sendgate_webhooks_silent{account}",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// Names, units and help follow the conventions of Prometheus, as its own checker sees them.
func TestMetricsFollowTheConventions(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian package prometheus): the names of metrics are not checked")
	}
	reg := prometheus.NewRegistry()
	use(New(reg))
	_, text := get(t, Ops(reg, func(context.Context) error { return nil }, hostcheck.Rule{Inside: true}), http.MethodGet, "/metrics")
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestFixedSetsExistBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	New(reg)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
	}
	for name, want := range map[string]int{"accepted_total": 7, "rescued_total": 2, "batch_size": 4, "claimed_total": 1} {
		if got := series["sendgate_"+name]; got != want {
			t.Errorf("series of %s = %d, want %d", name, got, want)
		}
	}
}

func TestForgetDropsOneAccountOnly(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := New(reg)
	use(m)
	m.SlotsGranted.WithLabelValues("mailgun").Inc()
	m.Forget("ses-eu")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(families); strings.Contains(text, "ses-eu") || !strings.Contains(text, "mailgun") {
		t.Errorf("after Forget(ses-eu): %s", text)
	}
}

func TestTwoRegistriesDoNotMeet(t *testing.T) {
	t.Parallel()
	quiet := prometheus.NewRegistry()
	New(quiet)
	New(prometheus.NewRegistry()).Claimed.Inc()
	families, err := quiet.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "sendgate_claimed_total" && f.GetMetric()[0].GetCounter().GetValue() != 0 {
			t.Error("a count of one registry shows in the other")
		}
	}
}

func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

func TestOps(t *testing.T) {
	t.Parallel()
	var ready error
	reg := NewRegistry()
	use(New(reg))
	h := Ops(reg, func(context.Context) error { return ready }, hostcheck.Rule{Inside: true})
	check := func(path string, status int, body string) {
		t.Helper()
		if code, got := get(t, h, http.MethodGet, path); code != status || got != body {
			t.Errorf("GET %s = %d %q, want %d %q", path, code, got, status, body)
		}
	}
	check("/healthz", 200, "ok\n")
	check("/readyz", 200, "ready\n")
	ready = errors.New("database: connection refused\nsecond line")
	check("/readyz", 503, "not ready: database: connection refused second line\n")
	ready = Degraded("no account can send in pool default")
	check("/readyz", 200, "degraded: no account can send in pool default\n")
	check("/healthz", 200, "ok\n") // a process that waits for its database is not restarted
	if code, _ := get(t, h, http.MethodPost, "/healthz"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST /healthz = %d, want 405", code)
	}
	if code, _ := get(t, h, http.MethodGet, "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("GET /debug/pprof/ = %d, want 404", code)
	}
	code, text := get(t, h, http.MethodGet, "/metrics")
	for _, want := range []string{"sendgate_claimed_total 1", "go_goroutines", "go_build_info"} {
		if code != 200 || !strings.Contains(text, want) {
			t.Errorf("GET /metrics = %d without %s", code, want)
		}
	}
}

func TestReadyReasonIsShort(t *testing.T) {
	t.Parallel()
	h := Ops(NewRegistry(), func(context.Context) error { return errors.New(strings.Repeat("ž", 500)) }, hostcheck.Rule{Inside: true})
	if _, body := get(t, h, http.MethodGet, "/readyz"); len(body) > maxReason+20 || strings.ContainsRune(body, '\uFFFD') {
		t.Errorf("reason of %d bytes, want at most %d and whole characters", len(body), maxReason+20)
	}
}

func TestReadyCheckHasADeadline(t *testing.T) {
	t.Parallel()
	var left time.Duration
	h := Ops(NewRegistry(), func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		if ok {
			left = time.Until(deadline)
		}
		return nil
	}, hostcheck.Rule{Inside: true})
	get(t, h, http.MethodGet, "/readyz")
	if left <= 0 || left > readyTimeout {
		t.Errorf("deadline of the check in %s, want within %s", left, readyTimeout)
	}
}
