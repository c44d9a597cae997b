package postgres

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// shift sets the clock of this test's database, as every statement of the store sees it: the host is off by as much.
func (b *bed) shift(t *testing.T, by time.Duration) {
	t.Helper()
	interval := fmt.Sprintf("interval '%d seconds'", int(by.Seconds()))
	b.exec(t, `CREATE OR REPLACE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT pg_catalog.now() + `+sqlQuoted(interval)+`';
CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp() + `+sqlQuoted(interval)+`'`)
	b.exec(t, `ALTER DATABASE `+pgx.Identifier{get[string](t, b, `SELECT current_database()`)}.Sanitize()+` SET search_path = public, pg_catalog`)
}

func sqlQuoted(s string) string { // for a place inside of quotes
	out := ""
	for _, r := range s {
		if out += string(r); r == '\'' {
			out += "'"
		}
	}
	return out
}

// Everything that lies by the time of its id lies by the database's time, whatever the host believes. Days ahead, where there
// are partitions.
func TestIDsGoByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	const off = 3 * 24 * time.Hour
	b.shift(t, off)
	b.db = b.open(t, Options{AcceptWait: patient})
	must(t, b.db.ReadClock(t.Context()))
	if skew := b.db.Clock().Ahead() + off; skew.Abs() > time.Minute || !errors.Is(b.db.Clock().Check(), mail.ErrClock) {
		t.Errorf("this host is %s ahead, want three days behind, and that found", b.db.Clock().Ahead())
	}
	if off := time.Until(b.db.Clock().Now()) - off; off.Abs() > time.Minute {
		t.Errorf("the clock is %s off", off)
	}
	endpoint := b.endpoint(t)
	f := b.fly(t, with(func(s *record.Submission) {
		s.Message.ID, s.Message.CreatedAt = b.db.Clock().NewID(), b.db.Clock().Now()
		s.Message.ExpiresAt = s.Message.CreatedAt.Add(time.Hour)
	}))
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", Announce: true, Recipients: changes("sent"), Settle: sent(f.due).Settle})
	future := told(f.id, mail.EventDelivered, "ann@example.org", 1)
	future.At = b.db.Clock().Now().Add(5 * time.Minute) // as far ahead as a provider's clock may be
	undated := told(f.id, mail.EventOpened, "ann@example.org", 2)
	undated.At = time.Time{}
	b.receive(t, hook(f.account, future, undated))
	ended := b.accept(t, with(func(s *record.Submission) { s.Message.ID = b.db.Clock().NewID() }))[0]
	must(t, b.db.End(t.Context(), []queue.Ending{{ID: ended, Status: mail.Expired}}))
	event := mail.ID(get[[16]byte](t, b, `SELECT id FROM event WHERE type = 'delivered'`))
	gone := result(endpoint, event, record.DeliveryDisabled)
	gone.Status, gone.Disable = statusGone, "it said 410"
	b.finish(t, gone)
	for table, want := range map[string]int{"message": 2, "event": 5, "delivery": 1, "webhook_endpoint": 1} {
		ids := list[[16]byte](t, b, `SELECT id FROM `+table)
		if len(ids) != want {
			t.Errorf("%d rows of %s, want %d", len(ids), table, want)
		}
		for _, id := range ids {
			if d := time.Until(mail.ID(id).Time()) - off; d.Abs() > time.Minute {
				t.Errorf("a row of %s has an id that is %s off", table, d)
			}
		}
	}
	for _, at := range list[time.Time](t, b, `SELECT at FROM event WHERE type IN ('delivered', 'opened')`) {
		if d := time.Until(at) - off; d < -time.Minute || d > 6*time.Minute {
			t.Errorf("an event happened at %s, which is %s off", at, d)
		}
	}
}

// Partitions are made by the database's date, and dropped by the earliest that anybody knows.
func TestPartitionsFollowNoClockThatLeapsAhead(t *testing.T) {
	t.Parallel()
	const leap = 400 * 24 * time.Hour
	days := func(b *bed) int {
		return get[int](t, b, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'message'::regclass`)
	}
	age := func(db *DB) time.Duration {
		now, err := db.RetentionNow(t.Context())
		must(t, err)
		return time.Until(now)
	}
	b := newOwnBed(t)
	had := days(b)
	db := b.open(t, Options{Clock: mail.NewClock(func() time.Time { return time.Now().Add(leap) }, nil)})
	if made, err := db.EnsurePartitions(t.Context()); made != 0 || err != nil || days(b) != had {
		t.Errorf("host 400 days ahead: made %d partitions, %v", made, err)
	}
	if ahead := age(db); ahead.Abs() > time.Minute {
		t.Errorf("host 400 days ahead: retention goes by a time that is %s ahead", ahead)
	}
	db = b.open(t, Options{})
	must(t, db.ReadClock(t.Context()))
	b.shift(t, leap)
	late := b.open(t, Options{})
	for name, db := range map[string]*DB{"database leapt ahead before the start": late, "and while it ran": db} {
		db.api.Reset()
		if ahead := age(db); ahead.Abs() > time.Minute {
			t.Errorf("%s: retention goes by a time that is %s ahead", name, ahead)
		}
	}
}
