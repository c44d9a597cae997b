package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// stalls are ways in which the database takes nothing for a while.
func stalls() map[string]string {
	return map[string]string{
		"message": `LOCK TABLE message IN ACCESS EXCLUSIVE MODE`,
		"ready":   `LOCK TABLE ready IN ACCESS EXCLUSIVE MODE`,
	}
}

// verdicts is what callers were told.
type verdicts struct{ accepted, refused, unknown, other atomic.Int64 }

func (c *verdicts) count(err error) {
	switch {
	case err == nil:
		c.accepted.Add(1)
	case isUnknown(err):
		c.unknown.Add(1)
	case isUnavailable(err):
		c.refused.Add(1)
	default:
		c.other.Add(1)
	}
}

func isUnavailable(err error) bool {
	_, is := errors.AsType[*record.Unavailable](err)
	return is
}

func (c *verdicts) String() string {
	return fmt.Sprintf("%d accepted, %d refused, %d unknown, %d others", c.accepted.Load(), c.refused.Load(), c.unknown.Load(), c.other.Load())
}

// crowd has n callers send one message each, every second one with a key, and one that sends n at once.
func crowd(t *testing.T, n int, dbs ...*DB) (told *verdicts, wait func()) {
	t.Helper()
	told = &verdicts{}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := submission()
			if i%2 == 1 {
				s.Key = fmt.Sprintf("key-%d", i)
			}
			_, err := dbs[i%len(dbs)].Accept(context.WithoutCancel(t.Context()), s)
			told.count(err)
		})
	}
	wg.Go(func() {
		subs := make([]*record.Submission, n)
		for i := range subs {
			subs[i] = submission()
		}
		_, errs := dbs[0].AcceptAll(context.WithoutCancel(t.Context()), subs)
		for _, err := range errs {
			told.count(err)
		}
	})
	return told, wg.Wait
}

const waitingForLocks = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

// atRest waits until no transaction of the service is left that could commit.
func (b *bed) atRest(t *testing.T) {
	t.Helper()
	until(t, "the service's transactions end", func() bool {
		return get[int](t, b, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'sendgate' AND state <> 'idle'`) == 0
	})
}

func TestWhoWasRefusedInAStallIsNeverStored(t *testing.T) {
	t.Parallel()
	for name, lock := range stalls() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			dbs := []*DB{b.open(t, Options{AcceptWait: hasty}), b.open(t, Options{AcceptWait: hasty})}
			hold := b.begin(t)
			_, err := hold.Exec(t.Context(), lock)
			must(t, err)
			told, wait := crowd(t, 60, dbs...)
			wait()
			must(t, hold.Rollback(t.Context()))
			b.atRest(t)
			if told.refused.Load() != 120 {
				t.Errorf("told: %s, want 120 refused", told)
			}
			if n := get[int](t, b, `SELECT count(*) FROM message`); n != 0 {
				t.Errorf("%d of those who were refused are stored", n)
			}
		})
	}
}

func TestAStallThatEndsInTimeRefusesNobody(t *testing.T) {
	t.Parallel()
	for name, lock := range stalls() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			dbs := []*DB{b.db, b.open(t, Options{AcceptWait: patient})}
			hold := b.begin(t)
			_, err := hold.Exec(t.Context(), lock)
			must(t, err)
			told, wait := crowd(t, 60, dbs...)
			until(t, "all committers wait", func() bool { return get[int](t, b, waitingForLocks) >= 3 })
			must(t, hold.Rollback(t.Context()))
			wait()
			if told.accepted.Load() != 120 {
				t.Errorf("told: %s, want 120 accepted", told)
			}
			if n := get[int](t, b, `SELECT count(*) FROM message JOIN ready USING (id)`); n != 120 {
				t.Errorf("%d stored, want 120", n)
			}
		})
	}
}

// A server that is away for less than a caller waits costs the caller that time and no refusal.
func TestSessionsThatAreKilledRefuseNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	hold := b.begin(t)
	_, err := hold.Exec(t.Context(), stalls()["ready"])
	must(t, err)
	told, wait := crowd(t, 60, b.db)
	for range 3 {
		until(t, "both committers wait", func() bool { return get[int](t, b, waitingForLocks) >= 2 })
		b.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'sendgate' AND wait_event_type = 'Lock'`)
	}
	must(t, hold.Rollback(t.Context()))
	wait()
	if n := get[int](t, b, `SELECT count(*) FROM message`); told.accepted.Load() != 120 || n != 120 {
		t.Errorf("told: %s, %d stored; want 120 of both", told, n)
	}
}

// tapped is a store behind a proxy that does something with the first COMMIT, and tells whether it came.
func tapped(t *testing.T, b *bed, wait time.Duration, onCommit func(p *proxy, cut func()) (drop bool)) (*DB, *proxy, *atomic.Bool) {
	t.Helper()
	p := newProxy(t, b)
	var once atomic.Bool
	p.tap = func(fromClient bool, chunk []byte, cut func()) bool {
		if !fromClient || !bytes.Contains(chunk, []byte("; COMMIT\x00")) || once.Swap(true) {
			return false
		}
		return onCommit(p, cut)
	}
	db := b.open(t, Options{URL: p.url, AcceptWait: wait})
	t.Cleanup(p.cut) // before the pools close, which wait for answers
	db.commitGrace = 4 * hasty
	return db, p, &once
}

// acceptUntil sends messages until one got as far as to its COMMIT, and returns what its sender is told: those before it were
// too slow, on a busy machine, and are refused.
func acceptUntil(t *testing.T, db *DB, s func() *record.Submission, committing func() bool) error {
	t.Helper()
	for {
		_, err := db.Accept(t.Context(), s())
		if committing() {
			return err
		}
		wantUnavailable(t, "accept that was not committed", err)
	}
}

// plain is submission without recipients of its own.
func plain() *record.Submission { return submission() }

// The answer to COMMIT is lost, and another connection tells what became of it.
func TestAnswerToCommitThatIsLostIsFoundOut(t *testing.T) {
	t.Parallel()
	for name, arrives := range map[string]bool{"the commit arrived": true, "the commit was lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			db, p, _ := tapped(t, b, patient, func(_ *proxy, cut func()) bool {
				if arrives { // whatever comes back is not let through
					go func() {
						until(t, "it is stored", func() bool { return get[int](t, b, `SELECT count(*) FROM message`) == 1 })
						cut()
					}()
					return false
				}
				cut()
				return true
			})
			p.mu.Lock()
			commitSeen := p.tap
			var deaf atomic.Bool
			p.tap = func(fromClient bool, chunk []byte, cut func()) bool {
				if fromClient {
					if bytes.Contains(chunk, []byte("; COMMIT\x00")) {
						deaf.CompareAndSwap(false, arrives)
					}
					return commitSeen(fromClient, chunk, cut)
				}
				return deaf.Swap(false) && arrives
			}
			p.mu.Unlock()
			s := submission()
			a, err := db.Accept(t.Context(), s)
			if err != nil || a.ID != s.Message.ID {
				t.Errorf("told %+v, %v; want that it is accepted", a, err)
			}
			if n := get[int](t, b, `SELECT count(*) FROM message`); n != 1 {
				t.Errorf("%d stored, want 1", n)
			}
		})
	}
}

// The answer to COMMIT is lost, and nobody can be asked: that is what the caller is told, with or without a key, and not
// that nothing is stored.
func TestAnswerToCommitThatCannotBeFoundOutIsUnknown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	db, _, seen := tapped(t, b, hasty, func(p *proxy, _ func()) bool {
		p.freeze()
		return false
	})
	if err := acceptUntil(t, db, plain, seen.Load); !isUnknown(err) {
		t.Errorf("told %v, want that nobody knows", err)
	}
}

// The server stood still with the COMMIT before it. When it wakes up it is too late, and it says so itself.
func TestServerRefusesToCommitTooLate(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	db, _, seen := tapped(t, b, hasty, func(*proxy, func()) bool {
		began := time.Now()
		until(t, "it is too late", func() bool { return time.Since(began) > hasty+hasty/4 })
		return false
	})
	wantUnavailable(t, "accept that came too late", acceptUntil(t, db, plain, seen.Load))
	if n := get[int](t, b, `SELECT count(*) FROM message`); n != 0 {
		t.Errorf("%d stored after a refusal", n)
	}
	if n := get[int](t, b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`); n != 0 {
		t.Errorf("%d transactions were left open", n)
	}
}

// A repeat of what is stored must not hear that nothing is, though its first answer can't be read.
func TestRepeatWhoseAnswerCannotBeReadIsUnknown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := newProxy(t, b)
	var commits atomic.Int64
	db := b.open(t, Options{URL: p.url, AcceptWait: hasty})
	t.Cleanup(p.cut) // before the pools close, which wait for answers
	db.commitGrace = 2 * hasty
	until(t, "the first is stored", func() bool {
		_, err := db.Accept(t.Context(), keyed("k"))
		return err == nil
	})
	p.mu.Lock()
	p.tap = func(fromClient bool, chunk []byte, _ func()) bool {
		if fromClient && bytes.Contains(chunk, []byte("; COMMIT\x00")) {
			commits.Add(1)
		}
		return fromClient && commits.Load() > 0 && !bytes.Contains(chunk, []byte("; COMMIT\x00"))
	}
	p.mu.Unlock()
	if err := acceptUntil(t, db, func() *record.Submission { return keyed("k") }, func() bool { return commits.Load() > 0 }); !isUnknown(err) {
		t.Errorf("told %v, want that nobody knows", err)
	}
}

// A database that is too slow for a whole batch gets fewer at a time, and takes what it can: what is cut short again and again
// would never come to an end.
func TestSlowDatabaseTakesFewerAtATime(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$`)
	db := b.open(t, Options{AcceptWait: 2 * time.Second})
	b.exec(t, `CREATE TRIGGER slow BEFORE INSERT ON idempotency FOR EACH ROW EXECUTE FUNCTION slow()`)
	accepted, n := 0, 0
	until(t, "some are accepted", func() bool {
		subs := make([]*record.Submission, mostRows) // four seconds' work, or two for each committer
		for i := range subs {
			n++
			subs[i] = keyed(fmt.Sprint("key-", n))
		}
		_, errs := db.AcceptAll(t.Context(), subs)
		for _, err := range errs {
			if err == nil {
				accepted++
			}
		}
		return accepted > 0
	})
	b.atRest(t)
	if stored := get[int](t, b, `SELECT count(*) FROM message`); stored != accepted {
		t.Errorf("%d stored, %d accepted", stored, accepted)
	}
}

func TestPaceHalvesAndDoubles(t *testing.T) {
	t.Parallel()
	var p pace
	for i, step := range []struct {
		n    int
		err  error
		want int
	}{
		{400, nil, 400},
		{400, errSlow, 200},
		{200, errSlow, 100},
		{1, nil, 100},
		{100, nil, 200},
		{200, errors.New("reset"), 200},
		{30, errSlow, 15},
		{15, errSlow, fewestRows},
		{1, errSlow, fewestRows},
		{10, nil, 20},
	} {
		if p.note(step.n, step.err); p.rows() != step.want {
			t.Errorf("step %d: %d rows, want %d", i, p.rows(), step.want)
		}
	}
}

func TestAttemptEndsWithItsFirstCaller(t *testing.T) {
	t.Parallel()
	now := time.Now()
	offers := func(left ...time.Duration) (all []offer) {
		for _, d := range left {
			all = append(all, offer{submission(), now.Add(d)})
		}
		return all
	}
	for name, c := range map[string]struct {
		wait   time.Duration
		offers []offer
		want   time.Duration
	}{
		"the first of several":          {10 * time.Second, offers(4*time.Second, 3*time.Second, 9*time.Second), 3 * time.Second},
		"a caller with little left":     {10 * time.Second, offers(time.Second, 9*time.Second), 1500 * time.Millisecond},
		"a wait shorter than the least": {time.Second, offers(time.Second), time.Second},
		"callers with much left":        {30 * time.Second, offers(29 * time.Second), 5 * time.Second},
	} {
		left := make([]int, len(c.offers))
		for i := range left {
			left[i] = i
		}
		if got := attemptEnd(now, c.wait, c.offers, left).Sub(now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
