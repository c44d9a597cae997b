package app

import (
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sendgate/sendgate/internal/emulator"
)

// A stop lets the calls in progress end. Not parallel: goroutines of other tests would look like leaks.
func TestStopFinishesCallsAndLeavesNoGoroutine(t *testing.T) {
	b := newBench(t, benchOptions{})
	slow := []emulator.Fault{{Mode: "latency", Latency: emulator.Duration(300 * time.Millisecond)}}
	b.faults(t, everyAccount(slow))
	before := goleak.IgnoreCurrent()
	open := 0
	t.Run("a life", func(t *testing.T) {
		r := b.start(t)
		submit(t, r.api, letters(20))
		eventually(t, settleTime, "calls are under way", func() bool {
			open = b.count(t.Context(), `SELECT count(*) FROM inflight WHERE started_at IS NOT NULL`)
			return open > 0
		})
	})
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
	if got := len(b.ledger()); got < open {
		t.Errorf("messages that providers have = %d, want the %d whose calls were under way at least", got, open)
	}
	for what, query := range map[string]string{
		"calls that were not accepted": `SELECT count(*) FROM attempt WHERE class IS DISTINCT FROM 'accepted'`,
		"claims":                       `SELECT count(*) FROM inflight`,
		"replicas registered":          `SELECT count(*) FROM replica`,
	} {
		if n := b.count(t.Context(), query); n != 0 {
			t.Errorf("%s after the stop = %d, want 0", what, n)
		}
	}
	b.checkOnce(t)
}

func TestASecondStartOnItsAddressFailsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	taken := r.url[len("http://"):]
	a, err := New(b.config(t, "SENDGATE_LISTEN="+taken), quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err == nil {
		t.Error("a second replica started on a taken address")
	}
	if resp, err := http.Get(a.OpsURL + "/healthz"); err == nil {
		_ = resp.Body.Close()
		t.Error("the listener for operations is up after a failed start")
	}
	if got := b.count(t.Context(), `SELECT count(*) FROM replica`); got != 1 {
		t.Errorf("replicas registered = %d, want 1", got)
	}
}
