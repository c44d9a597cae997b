//go:build drill

package app

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/telemetry"
)

var intakeForged = flag.Int("intake-forged", 300, "forged requests at each kind in TestForgedEventsCostNoDatabase")

// counter counts the lines of a log that mention hooks, and keeps none.
type counter struct{ lines, hooks atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.lines.Add(1)
	if bytes.Contains(p, []byte("hook")) {
		c.hooks.Add(1)
	}
	return len(p), nil
}

// It has its own database server. The server is frozen while forged events come in: who answers them without it asks it
// nothing.
func TestForgedEventsCostNoDatabase(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	b := newBench(t, benchOptions{dsn: databaseIn(t, dir)})
	log := &counter{}
	a, err := New(b.config(t), telemetry.NewLogger(log, slog.LevelInfo, "text"))
	if err != nil {
		t.Fatal(err)
	}
	r := b.begin(t, a)
	h := newHerald(t, b, r)
	forged := map[string]request{}
	for _, kind := range hookKinds() {
		q := h.sign(t, kind, told{id: "0199c0de-0000-7000-8000-000000000002", to: "ann@example.org"})
		reporterOf(t, kind, "").forge(&q)
		forged[kind] = q
	}
	before := b.count(t.Context(), `SELECT count(*) FROM event`)
	thaw := freeze(t, dir)
	lines := log.hooks.Load()
	for _, kind := range hookKinds() {
		refused := reporterOf(t, kind, "").refused
		took, spent := b.flood(t, r, forged[kind], refused, *intakeForged)
		t.Logf("%-8s %6.0f forged requests/s answered %d, p50 %s p99 %s, load average %s", kind, float64(len(spent))/took.Seconds(),
			refused, quantile(spent, 0.5), quantile(spent, 0.99), loadAverage())
	}
	if n := log.hooks.Load() - lines; n > int64(2*len(hookKinds())) {
		t.Errorf("lines logged of %d forged requests = %d, want one for each account and minute", len(hookKinds())**intakeForged, n)
	}
	thaw()
	eventually(t, settleTime, "it is ready again", func() bool { return r.ready(t.Context(), b.http) })
	if got := b.count(t.Context(), `SELECT count(*) FROM event`); got != before {
		t.Errorf("events stored of forged requests = %d, want none", got-before)
	}
	b.checkSendsBesideForged(t, r, forged["sendgrid"])
}

// checkSendsBesideForged sends mail with and without forged events at the same time.
func (b *bench) checkSendsBesideForged(t *testing.T, r *replica, q request) {
	t.Helper()
	for _, flooded := range []bool{false, true} {
		s := startSending(t, r, 100)
		if flooded {
			b.flood(t, r, q, http.StatusForbidden, 4**intakeForged)
		} else {
			pause(t, time.Second)
		}
		t.Logf("flooded %v: %s", flooded, s.end(t))
	}
	b.settle(t, settleTime)
}

// flood posts a request n times over 64 connections and holds each answer to one status. The times are sorted.
func (b *bench) flood(t *testing.T, r *replica, q request, want, n int) (took time.Duration, spent []time.Duration) {
	t.Helper()
	spent = make([]time.Duration, n)
	var next, wrong atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				begun := time.Now()
				got := q.post(t, b, r)
				if guessed := len(specOf(q.account).Guessable) > 0 && got == http.StatusTooManyRequests; got != want && !guessed { // of a password
					wrong.Add(1)
				}
				spent[i] = time.Since(begun)
			}
		})
	}
	wg.Wait()
	if w := wrong.Load(); w > 0 {
		t.Errorf("%d of %d answers to forged events of %s were not %d", w, n, q.account, want)
	}
	took = time.Since(start)
	slices.Sort(spent)
	return took, spent
}

// It has a database server of its own. A server that hangs, then one on which the keys of events are locked:
// events are answered 503 in bounded time and memory, never 200, and come in once when they are posted again.
func TestEventsAreRefusedWhileTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	b := newBench(t, benchOptions{dsn: databaseIn(t, dir)})
	r := b.start(t)
	h := newHerald(t, b, r)
	sent := sendThrough(t, b, r, "sendgrid", 200)
	line := intakeLine{kind: "sendgrid", batch: 1}
	requests := h.report(t, sent, line)
	base := b.count(t.Context(), `SELECT count(*) FROM event`)

	thaw := freeze(t, dir)
	b.checkRefused(t, r, requests)
	thaw()
	eventually(t, settleTime, "it is ready again", func() bool { return r.ready(t.Context(), b.http) })

	tx, err := b.rows.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // if it was not done below
	if _, err := tx.Exec(t.Context(), `LOCK TABLE event_key`); err != nil {
		t.Fatal(err)
	}
	b.checkRefused(t, r, requests)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.postAll(t, r, requests)
	b.settle(t, settleTime)
	b.checkTaken(t, sent)
	if got := b.count(t.Context(), `SELECT count(*) FROM event`) - base; got != len(requests) {
		t.Errorf("events stored = %d, want %d", got, len(requests))
	}
}

// hangBound is how long an answer may take when the database gives none: reading is free, a place is waited for 3 s, the
// commit 5 s. SNS waits 15 s, others 10 s or longer.
const hangBound = 9 * time.Second

// checkRefused posts all at once, more than there are places for.
func (b *bench) checkRefused(t *testing.T, r *replica, requests []request) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var mu sync.Mutex
	statuses, slowest := map[int]int{}, time.Duration(0)
	var wg sync.WaitGroup
	for _, q := range requests {
		wg.Go(func() {
			begun := time.Now()
			status := q.post(t, b, r)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
			slowest = max(slowest, time.Since(begun))
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	t.Logf("answers %v, the slowest after %s; heap from %d to %d MB", statuses, slowest.Round(time.Millisecond), before.HeapAlloc>>20, after.HeapAlloc>>20)
	// For events that were already in a batch nobody knows whether they are stored: 504. Providers repeat both.
	if statuses[http.StatusServiceUnavailable]+statuses[http.StatusGatewayTimeout] != len(requests) {
		t.Errorf("answers = %v, want 503 and 504 only", statuses)
	}
	if slowest > hangBound {
		t.Errorf("slowest answer = %s, want none over %s", slowest, hangBound)
	}
}

// freeze stops every process of the server, as a hanging disk would, until the returned function is called. It does nothing
// on systems where processes can't be listed.
func freeze(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	note, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(note), "\n")
	postmaster, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		t.Fatal(err)
	}
	pids := append(childrenOf(t, postmaster), postmaster)
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
	signal(syscall.SIGSTOP)
	thaw = sync.OnceFunc(func() { signal(syscall.SIGCONT) })
	t.Cleanup(thaw)
	return thaw
}
