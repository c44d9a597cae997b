package httpapi

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// decided answers each Explain with the same decision.
type decided route.Decision

func (d decided) Explain(route.Request) route.Decision { return route.Decision(d) }

func TestAWaitingMessageSaysWhy(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)
	soon, later := now.Add(time.Minute), now.Add(time.Hour)
	candidate := func(name string, code route.Code, until time.Time) route.Candidate {
		return route.Candidate{Account: name, Weight: 1, Why: route.Why{Code: code, Reason: "words", Until: until}}
	}
	due := queue.Waiting{Facts: &mail.Facts{}, Ready: true, Due: now.Add(-time.Second)}
	with := func(change func(*queue.Waiting)) queue.Waiting {
		w := due
		change(&w)
		return w
	}
	for name, c := range map[string]struct {
		at         queue.Waiting
		sendAt     time.Time
		candidates []route.Candidate
		chosen     string
		waitsFor   string
		want       *api.Waiting
	}{
		"settled":   {at: queue.Waiting{Facts: &mail.Facts{}}},
		"scheduled": {at: with(func(w *queue.Waiting) { w.Due = later }), sendAt: later, want: &api.Waiting{Code: "scheduled", Due: &later, Until: &later}},
		"put off after a call": {
			at: with(func(w *queue.Waiting) { w.Due, w.Tries = soon, 1 }), chosen: "a",
			want: &api.Waiting{Code: "retry", Due: &soon, Until: &soon},
		},
		"sending": {
			at: queue.Waiting{Facts: &mail.Facts{}, Sending: true, Account: "a"}, want: &api.Waiting{Code: "sending", Account: "a"},
		},
		"unknown": {
			at:   queue.Waiting{Facts: &mail.Facts{}, Unknown: true, Account: "a", Decide: soon, Policy: mail.Never},
			want: &api.Waiting{Code: "unknown", Account: "a", Until: &soon},
		},
		"others come first": {
			at: with(func(w *queue.Waiting) { w.Ahead = 12 }), chosen: "a", want: &api.Waiting{Code: "turn", Account: "a", Ahead: 12},
		},
		"very many others": {
			at: with(func(w *queue.Waiting) { w.Ahead = queue.MaxAhead }), chosen: "a",
			want: &api.Waiting{Code: "turn", Account: "a", Ahead: queue.MaxAhead, AheadMore: true},
		},
		"no account": {at: due, want: &api.Waiting{Code: "no_account"}},
		"the only account is paused": {
			at: due, candidates: []route.Candidate{candidate("a", route.Paused, time.Time{})}, want: &api.Waiting{Code: "paused", Account: "a"},
		},
		"held for a parked account, tried before": {
			at:         with(func(w *queue.Waiting) { w.Held, w.Due, w.Tries = true, soon, 2 }),
			candidates: []route.Candidate{candidate("a", route.Parked, later)},
			want:       &api.Waiting{Code: "parked", Account: "a", Due: &soon, Until: &later},
		},
		"what ends soonest counts": {
			at: due, candidates: []route.Candidate{
				candidate("p", route.Paused, time.Time{}), candidate("b", route.NoSlot, later), candidate("c", route.NoSlot, soon), candidate("d", route.Cannot, time.Time{}),
			},
			want: &api.Waiting{Code: "limit", Account: "c", Until: &soon},
		},
		"its own account counts where it may not spill": {
			at: due, candidates: []route.Candidate{{Account: "free", Weight: 1}, candidate("own", route.NoSlot, later), candidate("c", route.Busy, time.Time{})},
			waitsFor: "own", want: &api.Waiting{Code: "limit", Account: "own", Until: &later},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := route.Decision{Chosen: c.chosen, WaitsFor: c.waitsFor, Candidates: c.candidates}
			s := sendServer(t, decided(d))
			got := s.waitingView(&record.View{Message: &mail.Message{SendAt: c.sendAt}, Waiting: &c.at}, now)
			if got != nil {
				if got.Reason == "" {
					t.Error("no reason for people")
				}
				if c.at.Ready && !c.at.Due.After(now) && got.Decision == nil {
					t.Error("the decision is missing")
				}
				got.Reason, got.Decision = "", nil
				if c.want != nil && c.want.Due == nil {
					got.Due = nil
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("waiting (-want +got):\n%s", diff)
			}
		})
	}
}

// Each code of a candidate has a place in the order, or it would come before all others.
func TestEveryCodeHasAPlace(t *testing.T) {
	t.Parallel()
	d := route.Decision{}
	for i, code := range soonest {
		d.Candidates = append(d.Candidates, route.Candidate{Account: string(rune('a' + i)), Why: route.Why{Code: code, Reason: "words"}})
	}
	if got := waitsFor(d).Code; got != string(route.Busy) {
		t.Errorf("of all codes %s comes first, want busy", got)
	}
	for _, code := range []route.Code{
		route.Absent, route.NoWeight, route.Draining, route.Paused, route.Cannot, route.Tried, route.Parked, route.Broken,
		route.Breaker, route.NoSlot, route.Throttled, route.Stalled, route.Busy,
	} {
		d.Candidates = []route.Candidate{{Why: route.Why{Code: code}}, {Why: route.Why{Code: route.Busy}}}
		if got := waitsFor(d).Code; got != string(route.Busy) {
			t.Errorf("%s has no place in the order", code)
		}
	}
}
