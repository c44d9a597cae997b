package postgres

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// waits are told apart by their length.
var waits = map[mail.Policy]time.Duration{mail.Resend: time.Minute, mail.Never: 2 * time.Minute, mail.Reconcile: 30 * time.Minute}

func TestHeartbeatKeepsALeaseUntilARescuerTookIt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	me, dead := b.replica(t), b.replica(t)
	if n, err := b.db.Heartbeat(t.Context(), me, time.Minute); n != 2 || err != nil {
		t.Errorf("Heartbeat = %d, %v; want 2 replicas", n, err)
	}
	b.expire(t, dead)
	if n, err := b.db.Heartbeat(t.Context(), me, time.Minute); n != 1 || err != nil {
		t.Errorf("Heartbeat beside a dead replica = %d, %v; want 1", n, err)
	}
	left := get[time.Duration](t, b, `SELECT lease_until - now() FROM replica WHERE id = $1`, [16]byte(me))
	if left > time.Minute || left < 30*time.Second {
		t.Errorf("the lease runs for %s more, want a minute", left)
	}
	if _, err := b.db.Heartbeat(t.Context(), dead, time.Minute); err != nil {
		t.Errorf("late heartbeat before a rescue: %v", err)
	}
	b.expire(t, dead)
	_, _, err := b.db.Rescue(t.Context(), waits)
	must(t, err)
	if _, err := b.db.Heartbeat(t.Context(), dead, time.Minute); !errors.Is(err, record.ErrConflict) {
		t.Errorf("heartbeat after a rescue: %v, want ErrConflict", err)
	}
	must(t, b.db.Unregister(t.Context(), me))
	if n := get[int](t, b, `SELECT count(*) FROM replica`); n != 0 {
		t.Errorf("%d replicas left", n)
	}
}

func TestRescueReturnsWhatTheDeadHeld(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	dead, alive := b.replica(t), b.replica(t)
	policies := []mail.Policy{mail.Reconcile, mail.Resend, mail.Never}
	var subs []*record.Submission
	for i := range 8 {
		s := submission("ann@example.org", "bob@example.org")
		s.Message.OnAmbiguous = policies[i%3]
		subs = append(subs, s)
	}
	ids := b.accept(t, subs...)
	b.exec(t, `UPDATE ready SET attempts = 2, tries = 1, avoid = '{"ses":{"why":"x"}}'`)
	at := map[mail.ID]queue.Due{}
	for _, d := range b.claim(t, dead, account, 7) {
		at[d.ID] = d
	}
	b.claim(t, alive, account, 1)
	for _, id := range ids[:3] {
		if !b.intend(t, dead, intent(at[id], account)) {
			t.Fatal("intent refused")
		}
	}
	b.exec(t, `UPDATE recipient SET status = 'delivered' WHERE n = 1 AND message_id = $1`, [16]byte(ids[0]))

	if unstarted, started, err := b.db.Rescue(t.Context(), waits); unstarted+started != 0 || err != nil {
		t.Errorf("Rescue among the living = %d, %d, %v", unstarted, started, err)
	}
	b.expire(t, dead)
	unstarted, started, err := b.db.Rescue(t.Context(), waits)
	must(t, err)
	if unstarted != 4 || started != 3 {
		t.Errorf("Rescue = %d unstarted and %d started, want 4 and 3", unstarted, started)
	}
	for i, want := range []string{"unknown", "unknown", "unknown", "ready", "ready", "ready", "ready", "inflight"} {
		if got := b.place(t, ids[i]); got != want {
			t.Errorf("message %d is %s, want %s", i, got, want)
		}
	}
	for i, want := range []string{"unknown: unknown delivered", "unknown: unknown unknown", "unknown: unknown unknown", "queued: queued queued"} {
		if got := b.status(t, ids[i]); got != want {
			t.Errorf("message %d is %q, want %q", i, got, want)
		}
	}
	for i, p := range policies {
		got := get[string](t, b, `SELECT concat_ws(' ', policy, account_id, n, tries, extract(epoch FROM decide_at - since)::int) FROM unknown WHERE id = $1`, [16]byte(ids[i]))
		if want := fmt.Sprintf("%s %d 3 1 %d", p, account, int(waits[p].Seconds())); got != want {
			t.Errorf("unknown message %d: %s, want %s", i, got, want)
		}
		if got := b.attempts(t, ids[i]); got != "uncertain/rescue" {
			t.Errorf("attempt of message %d is %s", i, got)
		}
	}
	got := get[string](t, b, `SELECT concat_ws(' ', attempts, tries, avoid, due <= now(), held) FROM ready WHERE id = $1`, [16]byte(ids[4]))
	if want := `2 1 {"ses": {"why": "x"}} t f`; got != want {
		t.Errorf("unstarted message came back as %s, want %s", got, want)
	}
	if n := get[int](t, b, `SELECT count(*) FROM replica`); n != 1 {
		t.Errorf("%d replicas left, want the living one", n)
	}
}

func TestRescuersTakeTurns(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	dead := b.replica(t)
	b.acceptN(t, 1)
	b.claim(t, dead, b.relay(t), 1)
	b.expire(t, dead)
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(7381002)`)
	must(t, err)
	if unstarted, started, err := b.db.Rescue(t.Context(), waits); unstarted+started != 0 || err != nil {
		t.Errorf("Rescue beside another = %d, %d, %v; want to leave it to the other", unstarted, started, err)
	}
	must(t, tx.Rollback(t.Context()))
	if unstarted, _, err := b.db.Rescue(t.Context(), waits); unstarted != 1 || err != nil {
		t.Errorf("Rescue = %d, %v; want 1", unstarted, err)
	}
}

func TestOrphansAreClaimsThatTheirOwnerDoesNotKnow(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	me, other := b.replica(t), b.replica(t)
	ids := b.acceptN(t, 5)
	due := b.claim(t, me, account, 4)
	b.claim(t, other, account, 1)
	if !b.intend(t, me, intent(due[1], account)) {
		t.Fatal("intent refused")
	}
	b.exec(t, `UPDATE inflight SET claimed_at = now() - interval '11 s' WHERE id <> $1`, [16]byte(ids[3])) // the fourth is young
	n, err := b.db.Orphans(t.Context(), me, []mail.ID{ids[2]}, waits)
	must(t, err)
	if n != 2 {
		t.Errorf("%d orphans, want 2", n)
	}
	for i, want := range []string{"ready", "unknown", "inflight", "inflight", "inflight"} {
		if got := b.place(t, ids[i]); got != want {
			t.Errorf("message %d is %s, want %s", i, got, want)
		}
	}
	b.exec(t, `UPDATE inflight SET claimed_at = now() - interval '11 s'`)
	if n, err := b.db.Orphans(t.Context(), me, nil, waits); n != 2 || err != nil {
		t.Errorf("Orphans of a replica that knows nothing = %d, %v; want 2", n, err)
	}
	if got := b.place(t, ids[4]); got != "inflight" {
		t.Errorf("the claim of another replica is %s", got)
	}
}

// The rescuer comes first to the row that an intent has locked but not yet committed, and waits for it.
func TestRescueThatWaitedForAnIntentClosesItsAttempt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.acceptN(t, 1)[0]
	owner, account := b.replica(t), b.relay(t)
	in := intent(b.claim(t, owner, account, 1)[0], account)
	tx := b.begin(t)
	rows, err := tx.Query(t.Context(), intentSQL, intentRows([]ownedIntent{{in, owner}}))
	must(t, err)
	rows.Close()
	must(t, rows.Err())
	b.expire(t, owner)
	rescued := make(chan error, 1)
	go func() {
		_, started, err := b.db.Rescue(t.Context(), waits)
		if err == nil && started != 1 {
			err = fmt.Errorf("%d started, want 1", started)
		}
		rescued <- err
	}()
	until(t, "the rescuer to wait", func() bool {
		return get[bool](t, b, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`)
	})
	must(t, tx.Commit(t.Context()))
	must(t, <-rescued)
	want := outcome{"unknown", "unknown: unknown", "uncertain/rescue"}
	if got := b.outcome(t, id); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
