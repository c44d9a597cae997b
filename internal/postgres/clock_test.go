package postgres

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// jump lets everything look as if the database's clock had been set forward: what it showed before lies further back.
func (b *bed) jump(t *testing.T, by time.Duration) {
	t.Helper()
	b.exec(t, `UPDATE rate_window SET bins = ARRAY(SELECT x - $1 * 120 / per_ms FROM unnest(bins) x)`, by.Milliseconds())
	b.exec(t, `UPDATE replica SET lease_until = lease_until - $1 * interval '1 ms'`, by.Milliseconds())
	b.db.watch.mu.Lock()
	defer b.db.watch.mu.Unlock()
	for id, r := range b.db.watch.last {
		r.At = r.At.Add(-by)
		b.db.watch.last[id] = r
	}
	b.db.watch.rescue.At = b.db.watch.rescue.At.Add(-by)
}

func TestClockThatIsSetForwardRefillsNoWindow(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(3, limit.Requests))
	b.acceptN(t, 6)
	owner := b.replica(t)
	taken, err := spend(t.Context(), b.db, owner, account, 6)
	must(t, err)
	for i, d := range taken {
		b.intend(t, owner, intent(d, account))
		if i == 2 { // one is under way meanwhile
			b.jump(t, 2*time.Hour)
		}
		b.record(t, owner, sent(d))
	}
	const want = "small 3 requests per 1h0m0s: 3; "
	if got := b.used(t); got != want {
		t.Errorf("used: %s, want %s", got, want)
	}
	other := b.open(t, Options{})
	for _, db := range []*DB{b.db, other, b.db} {
		if more, err := spend(t.Context(), db, owner, account, 3); err != nil || len(more) != 0 {
			t.Errorf("%d more calls, %v, after the clock was set forward", len(more), err)
		}
	}
	must(t, b.db.SetLimits(t.Context(), "tester", "small", []limit.Window{hourly(3, limit.Requests), hourly(3, limit.Messages)}))
	if got := b.used(t); got != "small 3 messages per 1h0m0s: 3; "+want {
		t.Errorf("with a window that is set later: %s", got)
	}
	if got := list[int64](t, b, `SELECT ahead_us / 60000000 FROM rate_account`)[0]; got != 120 {
		t.Errorf("the clock is noted to be %d minutes ahead, want 120, once", got)
	}
}

func TestClockThatIsSetForwardEndsNoLease(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	_, _, err := b.db.Rescue(t.Context(), waits)
	must(t, err)
	b.jump(t, 2*time.Hour)
	if unstarted, started, err := b.db.Rescue(t.Context(), waits); err != nil || unstarted+started != 0 {
		t.Errorf("rescued %d and %d, %v, of a replica that lives", unstarted, started, err)
	}
	if _, err := b.db.Heartbeat(t.Context(), f.owner, time.Minute); err != nil {
		t.Errorf("heartbeat: %v", err)
	}
	b.db.watch.until = time.Time{} // as if the others had had their time
	b.expire(t, f.owner)
	if _, started, err := b.db.Rescue(t.Context(), waits); err != nil || started != 1 {
		t.Errorf("rescued %d, %v, of a dead one", started, err)
	}
}
