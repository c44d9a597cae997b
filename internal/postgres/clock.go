package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
)

// clock is one reading of the database's clock, which showed at between asked and got of our own.
type clock struct {
	at         time.Time
	asked, got time.Time
}

const clockSQL = `SELECT clock_timestamp()`

func readClock(ctx context.Context, tx pgx.Tx) (clock, error) {
	c := clock{asked: time.Now()}
	err := tx.QueryRow(ctx, clockSQL).Scan(&c.at)
	c.got = time.Now()
	return c, err
}

// ReadClock tells the Clock what the database's shows. The package's users read it every few seconds.
func (db *DB) ReadClock(ctx context.Context) error {
	return pgx.BeginFunc(ctx, db.api, func(tx pgx.Tx) error { // the connection is there before the question
		var at time.Time
		asked := db.clock.Mono()
		if err := tx.QueryRow(ctx, clockSQL).Scan(&at); err != nil {
			return fmt.Errorf("read the clock: %w", unavailable(err))
		}
		db.clock.Learn(at, asked, db.clock.Mono())
		return nil
	})
}

// Clock is the database's clock as it was read last.
func (db *DB) Clock() *mail.Clock { return db.clock }

// now is at or after the time that the clock showed when its answer came, by at most the round trip: who maps local times
// onto the database's with it never dates a call too early.
func (c clock) now() time.Time { return c.at.Add(c.got.Sub(c.asked)) }

// when maps a local time from before the reading.
func (c clock) when(local time.Time) time.Time { return c.at.Add(local.Sub(c.asked)) }

// watch remembers the last reading of the clock under each account's lock, and the last before a rescue. It is safe for
// concurrent use.
type watch struct {
	mu     sync.Mutex
	last   map[int32]limit.Reading
	rescue limit.Reading
	grace  time.Duration // in which every replica that lives renews its lease
	until  time.Time     // local: leases that look run out may not be
}

// leaseJump is by how much the clock may be set forward without a thought for leases: most of each is left at any time.
const leaseJump = time.Second

// beats tells how long leases are: their owners renew them five times in that time.
func (w *watch) beats(lease time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grace = lease / 2
}

// leases reports whether a lease that has run out by the clock may be taken for one. When the clock was set forward, all
// have; those who live renew theirs in a moment, and their calls are under way meanwhile.
func (w *watch) leases(c clock) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := limit.Reading{At: c.at, Asked: c.asked, Got: c.got}
	if !w.rescue.At.IsZero() && w.rescue.Jump(r) > leaseJump {
		w.until = c.got.Add(w.grace)
	}
	w.rescue = r
	return !c.got.Before(w.until)
}

// check tells the accounts whether the clock was set since. Should the transaction that writes it back fail, the next one
// finds the same jump.
func (w *watch) check(limits map[int32]*limit.Account, c clock) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		w.last = map[int32]limit.Reading{}
	}
	for id, acc := range limits {
		r := limit.Reading{At: c.at, Ahead: acc.Ahead, Asked: c.asked, Got: c.got}
		if last, ok := w.last[id]; ok {
			acc.Forward(last.Jump(r).Truncate(time.Microsecond))
			r.Ahead = acc.Ahead
		}
		acc.Recall(c.now())
		acc.Lag = c.got.Sub(c.asked)
		w.last[id] = r
	}
}
