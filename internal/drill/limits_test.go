//go:build drill

package drill

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// The share of a limit that must be used under demand, in percent: normally, and in a minute in which a process dies.
const (
	usedUnderDemand = 98
	usedWithDeath   = 96
)

// tight are limits that add up to less than the clients of D43 want.
func tight() map[string][]limit.Window {
	second := func(n int) limit.Window { return limit.Window{N: n, Per: time.Second, Unit: limit.Messages} }
	return map[string][]limit.Window{
		"sendgrid": {second(100), {N: 100_000, Per: time.Hour, Unit: limit.Messages}}, "mailgun": {second(40)}, "postmark": {second(10)},
		"resend": {second(5)}, "ses": {second(14)}, "smtp": {second(20)},
	}
}

// Three replicas share limits that are lower than the demand, and one of them dies. No limit is exceeded, as in every drill,
// and nearly all of each limit is used. A minute of both needs -duration 60s.
func TestD43LimitsAreUsed(t *testing.T) {
	p := plan{replicas: 3, limits: tight(), settings: []string{"SENDGATE_LEASE=15s"}, load: load{clients: 60, share: 209 / float64(*rate), plain: true}, byItself: true}
	drillTest(t, "D43", p, func(t *testing.T, r *rig) {
		must(t, time.Minute, "mail waits for the limits", func() bool { return r.count(t.Context(), `SELECT count(*) FROM ready WHERE due <= now()`) > 150 })
		pause(t, 3*time.Second)
		span := max(*duration, 5*time.Second)
		began := time.Now()
		pause(t, span)
		victim := r.replicas[2]
		victim.kill()
		died := time.Now()
		pause(t, span)
		for _, name := range slices.Sorted(maps.Keys(tight())) {
			r.reportUse(t, "used_"+name, name, began, died, usedUnderDemand)
			r.reportUse(t, "used_with_a_death_"+name, name, died, died.Add(span), usedWithDeath)
		}
		if n := r.number(t, `SELECT count(*) FROM ready WHERE due <= now()`); n < 50 {
			t.Errorf("messages that wait at the end = %d: there was no demand", n)
		}
		victim.start(t)
	})
}

// reportUse reports the share of its limit that each provider got. Less than a quarter is wrong on any machine.
func (r *rig) reportUse(t *testing.T, name, account string, from, to time.Time, want float64) {
	t.Helper()
	got := 0
	for _, e := range r.emu.Ledger() {
		if e.Provider == account && !e.At.Before(from) && e.At.Before(to) {
			got++
		}
	}
	w := tight()[account][0]
	used := 100 * float64(got) * w.Per.Seconds() / (float64(w.N) * to.Sub(from).Seconds())
	r.report.share(name, used, want)
	if used < 25 { // a machine that is too slow for more is not what this is about
		t.Errorf("%s = %.0f %%, want at least a quarter", name, used)
	}
}

// share adds a percentage with its lower bound.
func (r *report) share(name string, percent, least float64) {
	text := fmt.Sprintf("%s=%.1f%%", name, percent)
	if percent < least {
		text += fmt.Sprintf("(under %.0f%%)", least)
		r.over = append(r.over, text)
	}
	r.figures = append(r.figures, text)
}
