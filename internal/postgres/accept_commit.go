package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	// answerGrace is how long after its deadline a statement may still answer that it was stopped.
	answerGrace = 500 * time.Millisecond
	// commitGrace is how long after the deadline we wait for the answer to a COMMIT, or ask what became of it.
	commitGrace = 10 * time.Second
	// askGrace is the least time in which we ask.
	askGrace = 2 * time.Second
	// retryPause is the pause between two tries when the database does not answer.
	retryPause = 100 * time.Millisecond
)

// insertSubmissions writes a batch in a transaction that is committed by the deadline or never. It returns the messages
// that were stored, with their suppressed recipients: all but those whose key was there already. An error means that
// nothing is stored and nothing will be, unless it is *record.OutcomeUnknown.
//
// Three things make that true. We send COMMIT only while there is time. The server checks its own clock directly before it
// commits: if it was frozen with the COMMIT in its socket, it refuses when it wakes up. And we wait for the answer to a
// COMMIT; if that is lost, we find out through another connection what became of it.
func (db *DB) insertSubmissions(ctx context.Context, subs []*record.Submission, by time.Time) (map[mail.ID][]int16, error) {
	batch, err := db.acceptRows(subs)
	if err != nil {
		return nil, err
	}
	lock := rand.Int64() //nolint:gosec // a name that nobody else uses
	won, open, err := db.commitBy(ctx, batch, by, lock)
	if open {
		err = db.outcome(ctx, by, lock, won, err)
	}
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return won, nil
}

// commitBy inserts in a transaction that holds an advisory lock, and commits it by the deadline or rolls it back. It reports
// whether an error leaves the outcome open: COMMIT was sent, and no answer came.
func (db *DB) commitBy(ctx context.Context, batch *rowset, by time.Time, lock int64) (won map[mail.ID][]int16, open bool, err error) {
	work, cancel := context.WithDeadline(ctx, by.Add(answerGrace))
	defer cancel()
	conn, err := db.accept.Acquire(work)
	if err != nil {
		return nil, false, err
	}
	defer conn.Release() // the pool closes a connection that is still inside a transaction
	tx := conn.Conn()
	won, latest, err := insertAccepted(work, tx, batch, by, lock)
	if err == nil && time.Now().After(by) {
		err = errSlow
	}
	if err != nil {
		rollBack(ctx, tx)
		return nil, false, err
	}
	end, cancel := context.WithDeadline(ctx, by.Add(db.commitGrace))
	defer cancel()
	switch err = commit(end, tx, latest); {
	case isCode(err, tooLate):
		err = errSlow
	case !refused(err):
		return won, err != nil, err
	}
	rollBack(ctx, tx)
	return won, false, err
}

// tooLate is the SQLSTATE with which commit fails when it is too late.
const tooLate = "22P02"

// clockMicros reads the server's clock as a number that can be written back without a format.
const clockMicros = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

// beginSQL bounds the statements that follow in the transaction, and takes the lock.
const beginSQL = `SELECT set_config('lock_timeout', '0', true), set_config('statement_timeout', $1, true), pg_advisory_xact_lock($2)`

// insertAccepted starts a transaction whose statements end by the deadline, and writes a batch in it, all in one round trip.
// It returns what was written, and the deadline by the server's clock. That is never later than the deadline by ours: the time
// until the server's answer came counts as passed.
func insertAccepted(ctx context.Context, tx *pgx.Conn, batch *rowset, by time.Time, lock int64) (won map[mail.ID][]int16, latest int64, err error) {
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(beginSQL, strconv.FormatInt(max(1, time.Until(by).Milliseconds()), 10), lock)
	b.Queue(acceptSQL, batch).Query(func(rows pgx.Rows) (err error) {
		won, err = collectAccepted(rows)
		return err
	})
	b.Queue(`SELECT ` + clockMicros).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&latest)
		latest += time.Until(by).Microseconds()
		return err
	})
	err = tx.SendBatch(ctx, &b).Close()
	return won, latest, err
}

// commit commits if it is not too late. If it is, a cast fails, and its error text explains why in the server's log.
func commit(ctx context.Context, tx *pgx.Conn, latest int64) error {
	results, err := tx.PgConn().Exec(ctx, fmt.Sprintf(
		`SELECT CASE WHEN `+clockMicros+` > %d THEN ('sendgate: too late to commit at ' || clock_timestamp())::int END; COMMIT`,
		latest)).ReadAll()
	if err == nil && results[len(results)-1].CommandTag.String() != "COMMIT" {
		return &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "40000", Message: "the server rolled back"}
	}
	return err
}

// refused reports whether the server itself refused the statement and kept the session. An error that ends the session proves
// nothing: the server may have committed before.
func refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.SeverityUnlocalized == "ERROR"
}

// rollBack ends a transaction that failed, so that its connection can be used again.
func rollBack(ctx context.Context, tx *pgx.Conn) {
	if tx.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerGrace)
	defer cancel()
	_, _ = tx.Exec(ctx, "ROLLBACK") // without an answer the connection is closed
}

// outcome finds out what became of a COMMIT that ended in err. It returns nil when the transaction is committed.
func (db *DB) outcome(ctx context.Context, by time.Time, lock int64, won map[mail.ID][]int16, err error) error {
	if len(won) == 0 { // nothing was written: there is nothing to find out
		return nil
	}
	end := by.Add(db.commitGrace)
	if least := time.Now().Add(min(askGrace, db.commitGrace)); end.Before(least) {
		end = least
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	for {
		stored, failed := db.ask(ctx, lock, won)
		switch {
		case failed == nil && stored:
			return nil
		case failed == nil:
			return &record.Unavailable{RetryAfter: time.Second, Reason: "database", Err: err}
		case !sleep(ctx, retryPause):
			return &record.OutcomeUnknown{Err: errors.Join(err, failed)}
		}
	}
}

// ask reports whether a transaction whose answer was lost is committed. If we get its lock, it has ended, whichever server is
// the primary by now. ask reports its rows as stored only when they are as durable as any commit, see commitSQL.
func (db *DB) ask(ctx context.Context, lock int64, won map[mail.ID][]int16) (stored bool, err error) {
	var one mail.ID
	for one = range won {
		break
	}
	err = pgx.BeginFunc(ctx, db.accept, func(tx pgx.Tx) error {
		const primary = `SELECT pg_current_xact_id()` // a standby, which may lag behind, can't run it
		for _, q := range []string{primary, `SELECT pg_advisory_xact_lock(` + strconv.FormatInt(lock, 10) + `)`} {
			if _, err := tx.Exec(ctx, q); err != nil {
				return err
			}
		}
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM message WHERE id = $1)`, [16]byte(one)).Scan(&stored)
		if err == nil && stored {
			_, err = tx.Exec(ctx, commitSQL)
		}
		return err
	})
	return stored, err
}

// sleep waits and reports whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pace is how many rows one transaction writes. A slow database, say on a busy machine, gets fewer at a time: a batch that is
// cut short has to be done again, and one that is too large for its time would never finish. It is safe for concurrent use.
type pace struct{ n atomic.Int64 } // 0 is mostRows

// Bounds of pace. The upper one is the accept committer's batch.
const (
	fewestRows = 10
	mostRows   = 400
)

func (p *pace) rows() int { return cmp.Or(int(p.n.Load()), mostRows) }

// note halves the pace when n rows took too long. It doubles the pace when they were in time and more than half of it.
func (p *pace) note(n int, err error) {
	switch {
	case err == nil && 2*n > p.rows():
		p.n.Store(int64(min(2*p.rows(), mostRows)))
	case outOfTime(err):
		p.n.Store(int64(max(min(n, p.rows())/2, fewestRows)))
	}
}

// errLarge makes bisect halve a batch that took too long.
var errLarge = errors.New("too much for its time")

// outOfTime reports whether an attempt ended because its time was over.
func outOfTime(err error) bool {
	return isCode(err, "57014", "55P03") || errors.Is(err, errSlow) || errors.Is(err, context.DeadlineExceeded)
}
