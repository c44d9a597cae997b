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

// clock is one reading of the database's clock: it showed at when our own clock was between asked and got.
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

// ReadClock sets the Clock by the database's clock. The package's users call it every few seconds.
func (db *DB) ReadClock(ctx context.Context) error {
	return pgx.BeginFunc(ctx, db.api, func(tx pgx.Tx) error { // connect before the time is measured
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

// now is the clock's time when its answer came, or later by at most the round trip. A call that is dated by it is never
// dated too early.
func (c clock) now() time.Time { return c.at.Add(c.got.Sub(c.asked)) }

// when gives the database's time for a local time before the reading.
func (c clock) when(local time.Time) time.Time { return c.at.Add(local.Sub(c.asked)) }

// watch keeps the last reading of the clock under each account's lock, and the last one before a rescue. It is safe for
// concurrent use.
type watch struct {
	mu     sync.Mutex
	last   map[int32]limit.Reading
	rescue limit.Reading
	grace  time.Duration // time in which every live replica renews its lease
	until  time.Time     // local; before it, a lease that looks expired may be valid
}

// leaseJump is how far the clock may be set forward without effect on leases: at any time most of each lease is left.
const leaseJump = time.Second

// beats sets how long leases are. Their owners renew them five times in that time.
func (w *watch) beats(lease time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grace = lease / 2
}

// leases reports whether a lease that has run out by the clock has really run out. When the clock was set forward, all look
// expired. Live replicas renew theirs in a moment, and their calls are still under way.
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

// check corrects the accounts if the clock was set since the last reading. If the transaction that writes this back fails, the
// next one finds the same jump.
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
