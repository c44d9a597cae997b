package postgres

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// charged is what the only window of the only limited account holds.
func (b *bed) charged(t *testing.T) int {
	t.Helper()
	states, err := b.db.LimitStates(t.Context())
	must(t, err)
	if len(states) != 1 {
		t.Fatalf("%d windows, want 1", len(states))
	}
	return states[0].Used
}

// A call costs what it costs, whoever learns of it and however often.
func TestEachCallIsChargedOnce(t *testing.T) {
	t.Parallel()
	answer := func(f flight, class string) queue.Result {
		r := queue.Result{ID: f.id, N: 1, Class: class, Settle: &queue.Settle{At: time.Now(), Recipients: 2}}
		switch class {
		case "accepted":
			r.Recipients = changes("sent", "sent")
		case "transient":
			r.Requeue = &queue.Requeue{In: time.Hour}
		case "throttled":
			r.Requeue = &queue.Requeue{In: time.Hour}
			r.Block = &queue.Block{Account: f.account, For: time.Millisecond, Reason: "slow down"}
		case "uncertain":
			r.Recipients = changes("unknown", "unknown")
			r.Unknown = &queue.Hanging{DecideIn: time.Hour, Policy: mail.Resend}
		}
		return r
	}
	rescue := func(t *testing.T, b *bed, f flight) {
		b.expire(t, f.owner)
		_, _, err := b.db.Rescue(t.Context(), waits)
		must(t, err)
	}
	decide := func(t *testing.T, b *bed) {
		b.exec(t, `UPDATE unknown SET decide_at = now()`)
		_, _, err := b.db.DecideUnknown(t.Context(), false, 2)
		must(t, err)
	}
	for name, happens := range map[string]func(*testing.T, *bed, flight){
		"answered":       func(t *testing.T, b *bed, f flight) { b.record(t, f.owner, answer(f, "accepted")) },
		"not answered":   func(t *testing.T, b *bed, f flight) { b.record(t, f.owner, answer(f, "uncertain")) },
		"throttled":      func(t *testing.T, b *bed, f flight) { b.record(t, f.owner, answer(f, "throttled")) },
		"rescued":        rescue,
		"taken for lost": func(t *testing.T, b *bed, f flight) { losses()[2].call(t, b, f) },
		"recorded twice": func(t *testing.T, b *bed, f flight) {
			b.record(t, f.owner, answer(f, "accepted"))
			b.record(t, f.owner, answer(f, "accepted"))
		},
		"rescued and decided": func(t *testing.T, b *bed, f flight) { rescue(t, b, f); decide(t, b) },
		"rescued, answered late": func(t *testing.T, b *bed, f flight) {
			rescue(t, b, f)
			b.record(t, f.owner, answer(f, "accepted"))
		},
		"rescued, refused late": func(t *testing.T, b *bed, f flight) {
			rescue(t, b, f)
			b.record(t, f.owner, answer(f, "transient"))
		},
		"rescued, throttled late": func(t *testing.T, b *bed, f flight) { // which locks the account for its block
			rescue(t, b, f)
			b.record(t, f.owner, answer(f, "throttled"))
		},
		"rescued, given up late": func(t *testing.T, b *bed, f flight) {
			rescue(t, b, f)
			b.record(t, f.owner, answer(f, "uncertain"))
		},
		"rescued, decided, answered later": func(t *testing.T, b *bed, f flight) {
			rescue(t, b, f)
			decide(t, b)
			b.record(t, f.owner, answer(f, "accepted"))
		},
		"rescued, proved, answered late": func(t *testing.T, b *bed, f flight) {
			rescue(t, b, f)
			b.receive(t, hook(f.account, told(f.id, mail.EventAccepted, "ann@example.org", 1)))
			b.record(t, f.owner, answer(f, "accepted"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			account := b.account(t, "relay", limit.Window{N: 100, Per: time.Hour, Unit: limit.Recipients})
			s := submission("ann@example.org", "bob@example.org")
			s.Message.OnAmbiguous = mail.Resend
			f := b.fly(t, s)
			f.account = account
			if got := b.charged(t); got != 2 {
				t.Errorf("the open call costs %d, want 2", got)
			}
			happens(t, b, f)
			if got := b.charged(t); got != 2 {
				t.Errorf("the call costs %d, want 2", got)
			}
		})
	}
}

// Beside a late answer that locks the account's limits for its block, others of the same batch are charged, and it is not.
func TestALateAnswerIsNotChargedBesideOneThatIs(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "relay", limit.Window{N: 100, Per: time.Hour, Unit: limit.Requests})
	late, now := b.fly(t, submission()), b.fly(t, submission())
	b.expire(t, late.owner)
	_, _, err := b.db.Rescue(t.Context(), waits)
	must(t, err)
	results := []ownedResult{
		{queue.Result{
			ID: late.id, N: 1, Class: "throttled", Requeue: &queue.Requeue{}, Settle: &queue.Settle{At: time.Now(), Recipients: 1},
			Block: &queue.Block{Account: account, For: time.Minute, Reason: "slow down"},
		}, late.owner},
		{queue.Result{ID: now.id, N: 1, Class: "accepted", Recipients: changes("sent"), Settle: &queue.Settle{At: time.Now(), Recipients: 1}}, now.owner},
	}
	_, errs := b.db.recordBatch(t.Context(), results)
	for _, err := range errs {
		must(t, err)
	}
	if got := b.charged(t); got != 2 {
		t.Errorf("two calls cost %d", got)
	}
	blocks, err := b.db.Blocks(t.Context())
	must(t, err)
	if blocks[account] <= 0 {
		t.Error("the late answer does not block the account")
	}
}
