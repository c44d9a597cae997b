package postgres

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// due gives what the next claim would see of the only message that is ready, and leaves it there.
func (b *bed) due(t *testing.T) queue.Due {
	t.Helper()
	var seen []queue.Due
	must(t, b.db.Claim(t.Context(), b.replica(t), quota(10), func(_ time.Time, due []queue.Due, _ map[int32]*limit.Account) queue.Claim {
		seen = due
		return queue.Claim{}
	}))
	if len(seen) != 1 {
		t.Fatalf("%d messages are due, want 1", len(seen))
	}
	return seen[0]
}

// lose makes the next call of a message and has its outcome get lost.
type lose struct {
	name string
	call func(*testing.T, *bed, flight)
}

func losses() []lose {
	return []lose{
		{"without an answer", func(t *testing.T, b *bed, f flight) {
			b.record(t, f.owner, queue.Result{
				ID: f.id, N: f.due.Attempts + 1, Class: "uncertain", Recipients: changes("unknown"),
				Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: f.due.OnAmbiguous, Avoid: f.due.Avoid},
			})
		}},
		{"with the replica", func(t *testing.T, b *bed, f flight) {
			b.expire(t, f.owner)
			_, _, err := b.db.Rescue(t.Context(), waits)
			must(t, err)
		}},
		{"by the replica", func(t *testing.T, b *bed, f flight) {
			b.exec(t, `UPDATE inflight SET claimed_at = now() - interval '1 min'`)
			_, err := b.db.Orphans(t.Context(), f.owner, nil, waits)
			must(t, err)
		}},
		{"with the database", func(t *testing.T, b *bed, f flight) {
			since := b.past(t)
			b.tamper(t, `UPDATE message SET restored_at = restored_at - interval '2 hours'; UPDATE audit SET at = at - interval '2 hours'`)
			b.restore(t, since)
		}},
	}
}

func TestUnknownCallsAreRepeatedAsOftenAsAllowedAndNoMore(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		policy   mail.Policy
		fallback bool
		most     int
		want     int // calls in all
	}{
		{mail.Resend, false, 2, 3},
		{mail.Resend, false, 0, 1},
		{mail.Reconcile, true, 2, 3},
		{mail.Reconcile, false, 2, 1},
		{mail.Never, true, 2, 1},
	} {
		for _, loss := range losses() {
			t.Run(string(tc.policy)+" lost "+loss.name, func(t *testing.T) {
				t.Parallel()
				b := newBed(t)
				f := b.fly(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = tc.policy }))
				calls := 1
				for ; ; calls++ {
					loss.call(t, b, f)
					if got := b.place(t, f.id); got != "unknown" {
						t.Fatalf("after call %d the message is %s, want unknown", calls, got)
					}
					b.exec(t, `UPDATE unknown SET decide_at = now()`)
					_, _, err := b.db.DecideUnknown(t.Context(), tc.fallback, tc.most)
					must(t, err)
					if b.place(t, f.id) == "settled" || calls > 9 {
						break
					}
					if d := b.due(t); d.Resends != calls {
						t.Errorf("before call %d it was sent again %d times", calls+1, d.Resends)
					}
					f.owner = b.replica(t)
					f.due = b.claim(t, f.owner, f.account, 1)[0]
					b.intend(t, f.owner, intent(f.due, f.account))
				}
				if calls != tc.want || b.status(t, f.id) != "failed_unknown: failed_unknown" {
					t.Errorf("%d calls, then %s; want %d, then failed_unknown", calls, b.status(t, f.id), tc.want)
				}
			})
		}
	}
}

func TestEachWaitOfARescuedCallIsTwiceTheLast(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = mail.Resend }))
	for _, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		b.expire(t, f.owner)
		_, _, err := b.db.Rescue(t.Context(), waits)
		must(t, err)
		got := get[time.Duration](t, b, `SELECT decide_at - since FROM unknown`)
		if got < want || got > want+time.Second {
			t.Errorf("decided after %s, want %s", got, want)
		}
		b.exec(t, `UPDATE unknown SET decide_at = now()`)
		_, _, err = b.db.DecideUnknown(t.Context(), false, 9)
		must(t, err)
		f.owner = b.replica(t)
		f.due = b.claim(t, f.owner, f.account, 1)[0]
		b.intend(t, f.owner, intent(f.due, f.account))
	}
}

// What is sent again goes last to the account that may have it, and never to one that refused it for good. Both are known
// after the wait, however the call was lost and however the wait ends.
func TestAvoidedAccountsAreKnownAfterTheWait(t *testing.T) {
	t.Parallel()
	final := map[string]queue.Avoid{"small": {Final: true, Why: "too large"}}
	for _, loss := range losses() {
		t.Run("lost "+loss.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			f := b.fly(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = mail.Resend }))
			f.due.Avoid = final
			b.exec(t, `UPDATE inflight SET avoid = $1`, []byte(toJSON(t, final)))
			loss.call(t, b, f)
			b.exec(t, `UPDATE unknown SET decide_at = now()`)
			_, _, err := b.db.DecideUnknown(t.Context(), false, 2)
			must(t, err)
			got := b.due(t).Avoid
			if got["small"] != final["small"] {
				t.Errorf("avoided: %+v; want the account that refused it for good", got)
			}
			if restored := loss.name == "with the database"; got["relay"].Last == restored || got["relay"].Final || !got["relay"].Until.IsZero() {
				t.Errorf("avoided: %+v; want the account of the lost call last, if it is known", got)
			}
		})
	}
	t.Run("proved absent", func(t *testing.T) {
		t.Parallel()
		b := newBed(t)
		f := b.fly(t, submission())
		f.due.Avoid = final
		losses()[0].call(t, b, f)
		settled, err := b.db.Resolve(t.Context(), record.Verdict{ID: f.id, N: 1, Account: f.account})
		must(t, err)
		if got := b.due(t); !settled || len(got.Avoid) != 1 || !got.Avoid["small"].Final || got.Resends != 0 {
			t.Errorf("settled %t, avoided %+v, sent again %d times; want only the account that refused it, and no copy counted", settled, got.Avoid, got.Resends)
		}
	})
}
