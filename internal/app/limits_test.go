//go:build drill

package app

import (
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

// scaledLimits are windows of every shape that the documented limits have, short enough for a test: several at once,
// seconds and longer, requests, messages and recipients. Together they allow about 60 messages a second.
func scaledLimits() map[string][]limit.Window {
	const s = time.Second
	return map[string][]limit.Window{
		"sendgrid": {{N: 20, Per: 2 * s, Unit: limit.Requests}, {N: 200, Per: 20 * s, Unit: limit.Requests}},
		"mailgun":  {{N: 90, Per: 11 * s, Unit: limit.Messages}},
		"postmark": {{N: 10, Per: s, Unit: limit.Requests}, {N: 100, Per: 12 * s, Unit: limit.Requests}},
		"resend":   {{N: 5, Per: s, Unit: limit.Requests}},
		"ses":      {{N: 14, Per: s, Unit: limit.Requests}, {N: 60, Per: 10 * s, Unit: limit.Recipients}},
		"smtp":     {{N: 60, Per: 3 * s, Unit: limit.Messages}},
	}
}

func TestNoWindowIsExceededByTwoReplicasAndTheirRestarts(t *testing.T) {
	t.Parallel()
	for _, account := range accountNames() {
		entry(t, "scaledLimits (limits_test.go)", scaledLimits(), account)
	}
	b, used := overload(t, scaledLimits(), 600)
	for name, share := range used {
		t.Logf("%-8s use under demand %.0f %%", name, 100*share)
		if share < 0.5 {
			t.Errorf("%s: use under demand = %.0f %%, want at least half", name, 100*share)
		}
	}
	b.checkOnce(t)
}

func TestNoDocumentedLimitIsExceededByTwoReplicasAndTheirRestarts(t *testing.T) {
	t.Parallel()
	documented := map[string][]limit.Window{}
	for _, spec := range catalog.Specs() {
		documented[string(spec.Kind)] = catalog.DocumentedLimits(spec.Kind)
	}
	b, _ := overload(t, documented, 1000)
	b.checkOnce(t)
}

// overload sends n messages through two replicas, stops one and kills the other half-way, starts two new ones, and fails
// the test for every window that a provider saw exceeded. It returns what share of the limits the first half used.
func overload(t *testing.T, limits map[string][]limit.Window, n int) (*bench, map[string]float64) {
	t.Helper()
	b := newBench(t, benchOptions{limits: limits, trust: false})
	settings := []string{"SENDGATE_LEASE=3s", "SENDGATE_UNKNOWN_WAIT=1s", "SENDGATE_RECONCILE_DEADLINE=1s"}
	first, second := b.serve(t, settings...), b.serve(t, settings...)
	submit(t, first.api, letters(n))
	start := time.Now()
	half := 0
	eventually(t, settleTime, "half is sent", func() bool {
		half = len(b.emu.Ledger())
		return half >= n/2
	})
	undisturbed := time.Since(start)
	used := use(limits, b.emu.Ledger(), start, undisturbed)

	first.terminate(t)
	second.kill()
	first.exits(t, 30*time.Second)
	second = b.serve(t, settings...)
	b.serve(t, settings...)
	b.settle(t, 120*time.Second)
	t.Logf("first half in %s, all in %s", undisturbed.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))

	for name, stats := range b.emu.Stats() {
		t.Logf("%-8s %d accepted", name, stats.Accepted)
		if stats.Throttled != 0 {
			t.Errorf("%s answered 429 %d times, want never", name, stats.Throttled)
		}
		for _, w := range stats.Windows {
			t.Logf("         %-26s peak %d", w.Window, w.Peak)
			if w.Peak > w.N {
				t.Errorf("%s: %d in one window, want at most %s", name, w.Peak, w.Window)
			}
		}
	}
	states, err := second.admin.Limits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		if s.Used > s.Limit.N {
			t.Errorf("%s: used %d of %d per %s", s.Account, s.Used, s.Limit.N, s.Limit.Per)
		}
	}
	return b, used
}

// use is the share that each provider got, in a period of demand, of the calls that its windows allow. A window may be spent
// at once, so it allows N for each window that has begun.
func use(limits map[string][]limit.Window, entries []emulator.Entry, start time.Time, span time.Duration) map[string]float64 {
	used := map[string]float64{}
	for name, windows := range limits {
		sent := 0
		for _, e := range entries {
			if e.Provider == name && e.At.Before(start.Add(span)) {
				sent++
			}
		}
		allowed := slices.MinFunc(windows, func(a, b limit.Window) int { return int(allows(a, span) - allows(b, span)) })
		used[name] = float64(sent) / allows(allowed, span)
	}
	return used
}

// allows is how much a window lets through in a period: in proportion if its calls are spaced evenly, else N in each window.
func allows(w limit.Window, span time.Duration) float64 {
	if w.Per <= 10*time.Second {
		return float64(w.N) * span.Seconds() / w.Per.Seconds()
	}
	return float64(w.N) * float64(1+int(span/w.Per))
}
