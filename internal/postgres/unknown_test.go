package postgres

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

func TestUnknownMessagesAreDecidedByTheirPolicy(t *testing.T) {
	t.Parallel()
	for _, fallback := range []bool{true, false} {
		t.Run(fmt.Sprintf("reconcile falls to resend %t", fallback), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			policies := []mail.Policy{mail.Resend, mail.Never, mail.Reconcile}
			var flights []flight
			for _, p := range append(policies, mail.Resend) {
				s := submission("ann@example.org", "bob@example.org")
				s.Message.OnAmbiguous = p
				f := b.fly(t, s)
				b.exec(t, `UPDATE inflight SET tries = 3`)
				b.exec(t, `UPDATE recipient SET status = 'delivered' WHERE n = 1 AND message_id = $1`, [16]byte(f.id))
				r := queue.Result{ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown", "unknown"), Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: p}}
				b.record(t, f.owner, r)
				flights = append(flights, f)
			}
			if resent, failed, err := b.db.DecideUnknown(t.Context(), fallback, 2); resent+failed != 0 || err != nil {
				t.Errorf("decided %d and %d before their time, %v", resent, failed, err)
			}
			b.exec(t, `UPDATE unknown SET decide_at = now() WHERE id <> $1`, [16]byte(flights[3].id))
			resent, failed, err := b.db.DecideUnknown(t.Context(), fallback, 2)
			must(t, err)
			again := outcome{"ready", "queued: queued delivered", "uncertain/deadline"}
			over := outcome{"settled", "failed_unknown: failed_unknown delivered", "uncertain/deadline"}
			want := []outcome{again, over, over, {"unknown", "unknown: unknown delivered", "uncertain/response"}}
			if fallback {
				want[2] = again
			}
			if resent != 1+map[bool]int{true: 1}[fallback] || resent+failed != 3 {
				t.Errorf("%d sent again and %d given up", resent, failed)
			}
			for i, f := range flights {
				if got := b.outcome(t, f.id); got != want[i] {
					t.Errorf("message %d: got %+v, want %+v", i, got, want[i])
				}
			}
			if got := get[string](t, b, `SELECT concat_ws(' ', lane, tenant_id, attempts, tries, due <= now()) FROM ready WHERE id = $1`, [16]byte(flights[0].id)); got != "1 1 1 3 t" {
				t.Errorf("sent again as %s, want 1 1 1 3 t", got)
			}
			owner := b.replica(t)
			d := b.claim(t, owner, flights[0].account, 1)[0]
			if d.Attempts != 1 || !b.intend(t, owner, intent(d, flights[0].account)) {
				t.Error("the message can't be sent again")
			}
		})
	}
}

func TestDecideUnknownKeepsToItsStep(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.fill(t, 1003)
	b.exec(t, `WITH d AS (DELETE FROM ready RETURNING id, lane, tenant_id) INSERT INTO unknown (id, lane, tenant_id, owner, account_id, n, tries, policy, decide_at)
		SELECT id, lane, tenant_id, gen_random_uuid(), 1, 1, 0, 'never', now() FROM d`)
	for _, want := range []int{500, 500, 3, 0} {
		if _, failed, err := b.db.DecideUnknown(t.Context(), true, 2); failed != want || err != nil {
			t.Errorf("decided %d, %v; want %d", failed, err, want)
		}
	}
}

func TestFreeHeldMakesHeldMessagesDue(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ids := b.acceptN(t, 30)
	b.exec(t, `UPDATE ready SET due = now() + interval '1 h', held = true WHERE id <> ALL ($1)`, rawIDs(ids[:3]))
	b.exec(t, `UPDATE ready SET due = now() + interval '1 h' WHERE id = $1`, [16]byte(ids[0])) // scheduled, not held
	for i, want := range []bool{false, false, true} {
		all, err := b.db.FreeHeld(t.Context(), 10)
		must(t, err)
		if all != want && i < 2 {
			t.Errorf("step %d: all = %t, want %t", i, all, want)
		}
		if n := get[int](t, b, `SELECT count(*) FROM ready WHERE held`); n != max(27-10*(i+1), 0) {
			t.Errorf("step %d: %d are held still", i, n)
		}
	}
	if all, err := b.db.FreeHeld(t.Context(), 10); !all || err != nil {
		t.Errorf("with none held: all = %t, %v", all, err)
	}
	if n := get[int](t, b, `SELECT count(*) FROM ready WHERE due <= now()`); n != 29 {
		t.Errorf("%d messages are due, want all but the scheduled one", n)
	}
}

func TestRelaneMovesWhatBelongsElsewhere(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var subs []*record.Submission
	for i := range 25 {
		s := submission()
		s.Message.Stream = []string{"transactional", "bulk"}[i%2]
		s.Message.Tags = []string{"a"}[:i%2]
		subs = append(subs, s)
	}
	ids := b.accept(t, subs...)
	untouched := b.rows(t, ids[0])
	asked := 0
	lanes := func(f *mail.Facts) int32 {
		asked++
		if (f.Stream == "bulk") != (len(f.Tags) == 1) {
			t.Errorf("facts of different messages are mixed up: %+v", f)
		}
		if f.Stream == "bulk" {
			return 42
		}
		return lane
	}
	var seen []mail.ID
	for after := (mail.ID{}); ; {
		last, err := b.db.Relane(t.Context(), after, 10, lanes)
		must(t, err)
		if last.IsZero() {
			break
		}
		seen, after = append(seen, last), last
	}
	if asked != 25 || !slices.Equal(seen, []mail.ID{ids[9], ids[19]}) {
		t.Errorf("asked for %d messages in steps up to %v", asked, seen)
	}
	for i, id := range ids {
		want := []int32{lane, 42}[i%2]
		if got := get[int32](t, b, `SELECT lane FROM ready WHERE id = $1`, [16]byte(id)); got != want {
			t.Errorf("message %d is in lane %d, want %d", i, got, want)
		}
	}
	if diff := cmp.Diff(untouched, b.rows(t, ids[0])); diff != "" {
		t.Errorf("a message that stays changed:\n%s", diff)
	}
}
