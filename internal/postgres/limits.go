package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sendgate/sendgate/internal/limit"
)

// lockLimits reads the limit state of accounts (nil: of all), keeps it locked until the end of the transaction, and reads
// the database's clock. The accounts take into account whether the clock was set since the last reading. They don't know their
// open calls, see lockToTake.
//
// All replicas wait for these locks: take them last in a transaction; its last exchange releases them, see briefly.
func (db *DB) lockLimits(ctx context.Context, tx pgx.Tx, only []int32) (map[int32]*limit.Account, clock, error) {
	return db.lockState(ctx, tx, only, false)
}

// lockToTake is lockLimits for a claim, which takes slots: it locks all accounts and also reads the open calls.
func (db *DB) lockToTake(ctx context.Context, tx pgx.Tx) (map[int32]*limit.Account, clock, error) {
	return db.lockState(ctx, tx, nil, true)
}

// lockState reads the state, and restores rows that are missing.
func (db *DB) lockState(ctx context.Context, tx pgx.Tx, only []int32, taking bool) (map[int32]*limit.Account, clock, error) {
	s, err := db.readState(ctx, tx, only, taking)
	if err == nil && len(s.gone) > 0 {
		if err = restoreState(ctx, tx, s.gone); err == nil {
			s, err = db.readState(ctx, tx, only, taking)
		}
		if err == nil && len(s.gone) > 0 { // somebody is deleting them at this moment: grant nothing meanwhile
			err = errBeingDeleted
		}
	}
	if err != nil {
		return nil, clock{}, fmt.Errorf("lock limits: %w", err)
	}
	db.watch.check(s.accounts, s.clock)
	return s.accounts, s.clock, nil
}

var errBeingDeleted = errors.New("limit state is being deleted")

// state is the limit state of accounts. In gone are the windows whose row, or whose account's row, is missing.
type state struct {
	accounts map[int32]*limit.Account
	gone     map[int32][]limit.Window
	clock    clock
}

// lockAccountsSQL locks in the order of accounts, and no transaction that holds such a lock waits for a row of a message: this
// can't deadlock.
const lockAccountsSQL = `SELECT account_id, blocked_until, ahead_us FROM rate_account
WHERE $1::int[] IS NULL OR account_id = ANY ($1) ORDER BY account_id FOR UPDATE`

// readState locks the accounts, and then reads all that others wrote before it had the locks. It reads the clock after the
// wait for the locks. It reads open calls before the windows: a call that is recorded in between counts twice, but is never
// missed.
func (db *DB) readState(ctx context.Context, tx pgx.Tx, only []int32, taking bool) (state, error) {
	s := state{accounts: map[int32]*limit.Account{}}
	b := &pgx.Batch{}
	b.Queue(newestOnlySQL)
	b.Queue(lockAccountsSQL, only).Query(func(rows pgx.Rows) error { return scanBlocks(rows, s.accounts) })
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return s, err
	}
	mark := openMark{at: time.Now()}
	b = &pgx.Batch{}
	b.Queue(clockSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&s.clock.at) })
	if taking {
		b.Queue(openSQL, db.openFrom(tx.Conn())).Query(func(rows pgx.Rows) (err error) { mark.ticket, err = scanOpen(rows, s.accounts); return err })
	}
	b.Queue(windowsSQL, only).Query(func(rows pgx.Rows) (err error) { s.gone, err = scanWindows(rows, s.accounts); return err })
	s.clock.asked = time.Now()
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return s, err
	}
	s.clock.got = time.Now()
	if taking && len(s.accounts) > 0 { // without accounts nothing was locked
		db.mark.Store(&mark)
	}
	if !s.limited() {
		s.forgetOpen()
	}
	return s, nil
}

// limited reports whether any account has a window.
func (s state) limited() bool {
	for _, acc := range s.accounts {
		if len(acc.Ledgers) > 0 {
			return true
		}
	}
	return len(s.gone) > 0
}

// forgetOpen drops the open calls, so that each replica counts its own. Without limits that is enough, and newer by one
// exchange: on a busy machine calls end meanwhile, and an account with few places would leave them empty.
func (s state) forgetOpen() {
	for _, acc := range s.accounts {
		acc.Open = limit.Open{}
	}
}

// restoreState makes rows anew that somebody deleted. It counts their calls again from the attempts, as if they had just
// been made, so that no window is filled twice.
func restoreState(ctx context.Context, tx pgx.Tx, gone map[int32][]limit.Window) error {
	for _, id := range slices.Sorted(maps.Keys(gone)) {
		made, err := tx.Exec(ctx, `INSERT INTO rate_account (account_id) VALUES ($1) ON CONFLICT DO NOTHING`, id)
		if err == nil && made.RowsAffected() > 0 { // ahead_us is lost, and bins are numbered by it
			_, err = tx.Exec(ctx, `DELETE FROM rate_window WHERE account_id = $1`, id)
		}
		if err != nil {
			return err
		}
		if err := seedWindows(ctx, tx, id, gone[id]); err != nil {
			return err
		}
	}
	return nil
}

func scanBlocks(rows pgx.Rows, accounts map[int32]*limit.Account) error {
	var id int32
	var until time.Time
	var ahead int64
	_, err := pgx.ForEachRow(rows, []any{&id, &until, &ahead}, func() error {
		accounts[id] = &limit.Account{BlockedUntil: until, Ahead: time.Duration(ahead) * time.Microsecond}
		return nil
	})
	return err
}

// newestSQL finds the row of a window from the far end of the index. While a foreign transaction holds an old snapshot, all
// versions of a row stay. The valid one was written last and is mostly the last in the index: from the other end, all versions
// would be read.
//
// With newestOnlySQL the planner can't take a bitmap of all versions and sort it. It would do so when the statistics show one
// row on a thousand pages.
const newestSQL = `(account_id, unit, per_ms) <= (%s) ORDER BY account_id DESC, unit DESC, per_ms DESC LIMIT 1`

// newestOnlySQL makes newestSQL use the index only.
const newestOnlySQL = `SET LOCAL enable_bitmapscan = off`

// windowsSQL reads the windows of accounts, with their rows if these exist.
var windowsSQL = `
SELECT l.account_id, l.unit, l.per_ms, l.n, w.bins, w.used, w.tat
FROM account_limit l
LEFT JOIN LATERAL (
    SELECT * FROM rate_window WHERE ` + fmt.Sprintf(newestSQL, "l.account_id, l.unit, l.per_ms") + `
) w ON w.account_id = l.account_id AND w.unit = l.unit AND w.per_ms = l.per_ms
WHERE $1::int[] IS NULL OR l.account_id = ANY ($1)
ORDER BY l.account_id, l.unit, l.per_ms`

func scanWindows(rows pgx.Rows, accounts map[int32]*limit.Account) (gone map[int32][]limit.Window, err error) {
	gone = map[int32][]limit.Window{}
	var id int32
	var perMS int64
	var unit string
	var n int
	var bins, used []int64
	var tat time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &unit, &perMS, &n, &bins, &used, orNoTime(&tat)}, func() error {
		l := limit.Ledger{Window: limit.Window{N: n, Per: time.Duration(perMS) * time.Millisecond, Unit: limit.Unit(unit)}, TAT: tat}
		acc := accounts[id]
		if acc == nil || bins == nil {
			gone[id] = append(gone[id], l.Window)
		}
		if acc == nil {
			return nil
		}
		for i := range bins {
			l.Bins = append(l.Bins, limit.Bin{Number: bins[i], Used: used[i]})
		}
		acc.Ledgers = append(acc.Ledgers, l)
		return nil
	})
	return gone, err
}

var writeWindowSQL = `
UPDATE rate_window SET bins = $4, used = $5, tat = $6
WHERE ctid = (SELECT ctid FROM rate_window WHERE ` + fmt.Sprintf(newestSQL, "$1::int, $2::text, $3::bigint") + `)
  AND account_id = $1 AND unit = $2 AND per_ms = $3`

// wroteOne fails when a row that was read under the lock was deleted. The next transaction that locks the state makes it anew.
func wroteOne(done pgconn.CommandTag) error {
	if done.RowsAffected() != 1 {
		return errBeingDeleted
	}
	return nil
}

// queueLimits writes back the accounts that gave slots or settled calls, and those whose clock was set.
func queueLimits(b *pgx.Batch, limits map[int32]*limit.Account) {
	for id, acc := range limits {
		if acc.Jumped {
			b.Queue(`UPDATE rate_account SET ahead_us = $2, blocked_until = $3 WHERE account_id = $1`,
				id, acc.Ahead.Microseconds(), acc.BlockedUntil)
		}
		if !acc.Changed {
			continue
		}
		for _, l := range acc.Ledgers {
			bins, used := make([]int64, len(l.Bins)), make([]int64, len(l.Bins))
			for i, bin := range l.Bins {
				bins[i], used[i] = bin.Number, bin.Used
			}
			b.Queue(writeWindowSQL, id, string(l.Window.Unit), l.Window.Per.Milliseconds(), bins, used, orNull(l.TAT)).Exec(wroteOne)
		}
	}
}

// queueBlock blocks an account for all replicas until the wait is over. It never shortens a block.
func queueBlock(b *pgx.Batch, account int32, wait time.Duration, reason string) {
	b.Queue(`UPDATE rate_account SET blocked_until = clock_timestamp() + $2, reason = $3
		WHERE account_id = $1 AND blocked_until < clock_timestamp() + $2`, account, wait, reason)
}

// Blocks says how long each blocked account stays blocked.
func (db *DB) Blocks(ctx context.Context) (map[int32]time.Duration, error) {
	rows := query(ctx, db.engine, `SELECT account_id, blocked_until - clock_timestamp() FROM rate_account
		WHERE blocked_until > clock_timestamp()`)
	blocks := map[int32]time.Duration{}
	var id int32
	var wait time.Duration
	_, err := pgx.ForEachRow(rows, []any{&id, &wait}, func() error {
		blocks[id] = wait
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read blocks: %w", unavailable(err))
	}
	return blocks, nil
}

// LimitStates shows every window of every account.
func (db *DB) LimitStates(ctx context.Context) ([]limit.State, error) {
	accounts, names := map[int32]*limit.Account{}, map[int32]string{}
	var now time.Time
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		rows := query(ctx, tx, `SELECT a.id, a.name, r.blocked_until, r.ahead_us, clock_timestamp() FROM account a
			JOIN rate_account r ON r.account_id = a.id WHERE a.deleted_at IS NULL`)
		var id int32
		var name string
		var until time.Time
		var ahead int64
		_, err := pgx.ForEachRow(rows, []any{&id, &name, &until, &ahead, &now}, func() error {
			accounts[id] = &limit.Account{BlockedUntil: until, Ahead: time.Duration(ahead) * time.Microsecond}
			names[id] = name
			return nil
		})
		if err != nil {
			return err
		}
		if _, err := scanOpen(query(ctx, tx, openSQL, 0), accounts); err != nil {
			return err
		}
		_, err = scanWindows(query(ctx, tx, windowsSQL, nil), accounts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	var states []limit.State
	for id, acc := range accounts {
		if names[id] == "" { // deleted
			continue
		}
		for i, used := range acc.Used(now) {
			w := acc.Ledgers[i].Window
			s := limit.State{Account: names[id], Window: w, Used: used + acc.Open.In(w)}
			if acc.BlockedUntil.After(now) {
				s.BlockedUntil = acc.BlockedUntil
			}
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b limit.State) int {
		if a.Account != b.Account {
			return cmp.Compare(a.Account, b.Account)
		}
		return cmp.Or(cmp.Compare(a.Window.Per, b.Window.Per), cmp.Compare(a.Window.Unit, b.Window.Unit))
	})
	return states, nil
}
