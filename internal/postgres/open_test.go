package postgres

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// openCalls is how many calls of an account a claim counts as open. There has to be a message that is due.
func openCalls(t *testing.T, db *DB, account int32) int {
	t.Helper()
	open := -1
	must(t, db.Claim(t.Context(), mail.NewID(), quota(1), func(_ time.Time, _ []queue.Due, limits map[int32]*limit.Account) queue.Claim {
		open = limits[account].Open.Calls
		return queue.Claim{}
	}))
	return open
}

func (b *bed) oldestTicket(t *testing.T) int64 {
	t.Helper()
	return get[int64](t, b, `SELECT min(ticket) FROM inflight`)
}

func TestOpenCallsAreCountedFromTheOldestOne(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(1000, limit.Requests))
	b.acceptN(t, 8)
	owner, other := b.replica(t), b.open(t, Options{})
	first := b.claim(t, owner, account, 3)
	if n := openCalls(t, other, account); n != 3 {
		t.Errorf("calls open = %d, want 3", n)
	}
	for _, d := range first[:2] { // the oldest end
		b.record(t, owner, queue.Result{ID: d.ID, N: 1, Requeue: &queue.Requeue{In: time.Hour}})
	}
	if n := openCalls(t, other, account); n != 1 {
		t.Errorf("calls open when two have ended = %d, want 1", n)
	}
	if got, want := other.mark.Load().ticket, b.oldestTicket(t); got != want {
		t.Errorf("counted from %d on next time, want the oldest that is open, %d", got, want)
	}
	b.claim(t, owner, account, 2)
	if n := openCalls(t, other, account); n != 3 {
		t.Errorf("calls open after two more = %d, want 3", n)
	}
	b.exec(t, `DELETE FROM inflight`)
	if n := openCalls(t, other, account); n != 0 {
		t.Errorf("calls open when all have ended = %d, want none", n)
	}
	if got := other.mark.Load().ticket; got != 5 {
		t.Errorf("counted from %d on next time, want the last that was drawn, 5", got)
	}
	b.claim(t, owner, account, 1)
	if n := openCalls(t, other, account); n != 1 {
		t.Errorf("calls open after one more = %d, want 1", n)
	}
}

func TestOpenCallsAreNobodysBusinessWithoutALimit(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "free")
	b.acceptN(t, 4)
	owner := b.replica(t)
	b.claim(t, owner, account, 2)
	if n := openCalls(t, b.db, account); n != 0 {
		t.Errorf("calls open = %d, want none counted", n)
	}
	must(t, b.db.SetLimits(t.Context(), "tester", "free", []limit.Window{hourly(1000, limit.Requests)}))
	if n := openCalls(t, b.db, account); n != 2 {
		t.Errorf("calls open once there is a limit = %d, want 2", n)
	}
}

// A crash of the server can set the sequence back, a failover too. All sessions end with either.
func TestOpenCallsAreCountedAnewWhenTheServerWasAway(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	account := b.account(t, "small", hourly(1000, limit.Requests))
	b.acceptN(t, 9)
	owner := b.replica(t)
	b.claim(t, owner, account, 5)
	b.exec(t, `DELETE FROM inflight`)
	if n := openCalls(t, b.db, account); n != 0 {
		t.Fatalf("calls open = %d, want none", n)
	}
	b.exec(t, `ALTER SEQUENCE inflight_ticket RESTART`)
	b.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sendgate' AND datname = current_database()`)
	other := b.open(t, Options{})
	must(t, other.Claim(t.Context(), owner, quota(2), func(_ time.Time, due []queue.Due, _ map[int32]*limit.Account) queue.Claim {
		return queue.Claim{Take: []queue.Assignment{{Due: due[0], Account: account}, {Due: due[1], Account: account}}}
	}))
	if got := b.oldestTicket(t); got != 1 {
		t.Fatalf("oldest ticket = %d, want 1: it was not set back", got)
	}
	nothing := func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim { return queue.Claim{} }
	for range 6 { // what is left of the old sessions is found to be dead by its use
		_ = b.db.Claim(t.Context(), owner, quota(1), nothing)
	}
	if n := openCalls(t, b.db, account); n != 2 {
		t.Errorf("calls open = %d, want 2", n)
	}
}

// Rows that ended stay where they are under a foreign snapshot. They must not be read again and again.
func TestCountingOpenCallsReadsNothingThatEnded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(1000, limit.Requests))
	b.acceptN(t, 301)
	owner := b.replica(t)
	b.claim(t, owner, account, 300)
	tx, err := b.sql.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	must(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), `SELECT FROM inflight`)
	must(t, err)
	b.exec(t, `DELETE FROM inflight`)
	openCalls(t, b.db, account)
	looked := func(from func(*pgx.Conn) int64) int {
		t.Helper()
		tx, err := b.db.engine.Begin(t.Context())
		must(t, err)
		defer func() { _ = tx.Rollback(t.Context()) }()
		read := func() (n int) {
			must(t, tx.QueryRow(t.Context(), `SELECT pg_stat_get_xact_tuples_returned('inflight_by_ticket'::regclass)`).Scan(&n))
			return n
		}
		before := read() // what earlier transactions of the session did may not be reported yet
		_, err = tx.Exec(t.Context(), openSQL, from(tx.Conn()))
		must(t, err)
		return read() - before
	}
	if n := looked(func(*pgx.Conn) int64 { return 0 }); n < 300 {
		t.Errorf("rows read from the beginning = %d, want 300: they were cleaned up", n)
	}
	if n := looked(b.db.openFrom); n > 1 {
		t.Errorf("rows read = %d, want the last at most", n)
	}
}

// The newest version of a row lies at the end of all that a foreign snapshot keeps.
func TestWindowsAreReadFromTheirNewestVersion(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	account := b.account(t, "small", hourly(1000, limit.Requests), hourly(1000, limit.Recipients))
	tx, err := b.sql.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	must(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), `SELECT FROM rate_window`)
	must(t, err)
	const versions = 300
	bins := make([]int64, 100)
	var written pgconn.CommandTag
	for n := range versions {
		written, err = b.db.engine.Exec(t.Context(), writeWindowSQL, account, "requests", time.Hour.Milliseconds(), bins, []int64{int64(n)}, nil)
		must(t, err)
	}
	must(t, wroteOne(written))
	b.exec(t, `ANALYZE rate_window`) // which tells of one row on very many pages
	for _, q := range []string{windowsSQL, writeWindowSQL} {
		args := []any{[]int32{account}}
		if q == writeWindowSQL {
			args = []any{account, "requests", time.Hour.Milliseconds(), bins, []int64{versions}, nil}
		}
		var plan string
		must(t, pgx.BeginFunc(t.Context(), b.db.engine, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), newestOnlySQL); err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+q, args...).Scan(&plan)
		}))
		hit := regexp.MustCompile(`"Shared Hit Blocks": (\d+)`).FindStringSubmatch(plan)
		pages := get[int](t, b, `SELECT (pg_relation_size('rate_window') / 8192)::int`)
		if n, err := strconv.Atoi(hit[1]); err != nil || pages < 30 || n > 20 {
			t.Errorf("pages read = %d (%v) of %d, want few, in\n%s\n%s", n, err, pages, q, plan)
		}
	}
	if got := get[string](t, b, `SELECT used::text FROM rate_window WHERE unit = 'requests'`); got != "{300}" {
		t.Errorf("written last: %s, want {300}", got)
	}
	if err := wroteOne(pgconn.NewCommandTag("UPDATE 0")); err == nil {
		t.Error("a write that found no row is no error")
	}
}
