package postgres

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// Recipients who were surely not in a call whose answer was lost stay queued, and are sent to when the call is decided,
// whatever the verdict.
func TestWhoWasNotInAnUnknownCallIsSentToAfterIt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	hang := func(p mail.Policy) flight {
		s := submission("ann@example.org", "bob@example.org")
		s.Message.OnAmbiguous = p
		f := b.fly(t, s)
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: p},
		})
		if got, want := b.outcome(t, f.id), (outcome{"unknown", "unknown: unknown queued", "uncertain/response"}); got != want {
			t.Fatalf("after the call: %+v, want %+v", got, want)
		}
		return f
	}
	decided, seen := hang(mail.Never), hang(mail.Never)
	b.exec(t, `UPDATE unknown SET decide_at = now() WHERE id = $1`, [16]byte(decided.id))
	_, failed, err := b.db.DecideUnknown(t.Context(), false, 2)
	must(t, err)
	if got, want := b.outcome(t, decided.id), (outcome{"ready", "queued: failed_unknown queued", "uncertain/deadline"}); got != want || failed != 1 {
		t.Errorf("decided by its policy: %+v, want %+v", got, want)
	}
	_, err = b.db.Resolve(t.Context(), record.Verdict{ID: seen.id, N: 1, Account: seen.account, Found: true})
	must(t, err)
	if got, want := b.outcome(t, seen.id), (outcome{"ready", "queued: sent queued", "accepted/lookup"}); got != want {
		t.Errorf("found by a look-up: %+v, want %+v", got, want)
	}
	for _, f := range []flight{decided, seen} {
		if n := get[int](t, b, `SELECT attempts FROM ready WHERE id = $1`, [16]byte(f.id)); n != 1 {
			t.Errorf("the next call would be number %d, want 2", n+1)
		}
	}
}
