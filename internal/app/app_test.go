package app

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

// Not parallel: goroutines of other tests would be taken for leaks.
func TestStopLeavesNoGoroutine(t *testing.T) {
	b := newBench(t, benchOptions{})
	before := goleak.IgnoreCurrent()
	t.Run("a life", func(t *testing.T) {
		r := b.start(t)
		submit(t, r.api, letters(50))
		b.settle(t, settleTime)
	})
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
}

func TestStartFailsOnATakenAddressAndLeavesNothing(t *testing.T) {
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
