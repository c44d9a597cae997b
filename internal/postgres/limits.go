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

	"github.com/sendgate/sendgate/internal/limit"
)

// lockLimits reads the limit state of accounts (nil: of all), keeps it locked until the end of the transaction, and reads
// the database's clock. The accounts know whether that was set since.
func (db *DB) lockLimits(ctx context.Context, tx pgx.Tx, only []int32) (map[int32]*limit.Account, clock, error) {
	limits, gone, err := readState(ctx, tx, only)
	if err == nil && len(gone) > 0 {
		limits, err = restoreState(ctx, tx, only, gone)
	}
	if err != nil {
		return nil, clock{}, fmt.Errorf("lock limits: %w", err)
	}
	c, err := readClock(ctx, tx)
	if err != nil {
		return nil, clock{}, fmt.Errorf("lock limits: %w", err)
	}
	db.watch.check(limits, c)
	return limits, c, nil
}

// readState reads the limit state of accounts (nil: of all) and keeps it locked until the end of the transaction. The
// order is by account, and nobody who holds such a lock waits for a row of the queue, so that this can't deadlock. Open
// calls are read before the bins: one that is recorded in between counts twice, never not at all. Gone are the windows whose
// row, or whose account's row, is not there.
func readState(ctx context.Context, tx pgx.Tx, only []int32) (accounts map[int32]*limit.Account, gone map[int32][]limit.Window, err error) {
	b := &pgx.Batch{}
	b.Queue(`SELECT account_id, blocked_until, ahead_us FROM rate_account WHERE $1::int[] IS NULL OR account_id = ANY ($1)
		ORDER BY account_id FOR UPDATE`, only)
	b.Queue(`SELECT account_id, count(*), sum(recipients) FROM inflight
		WHERE EXISTS (SELECT 1 FROM account_limit) AND ($1::int[] IS NULL OR account_id = ANY ($1)) GROUP BY account_id`, only)
	b.Queue(windowsSQL, only)
	br := tx.SendBatch(ctx, b)
	defer func() { _ = br.Close() }()
	accounts = map[int32]*limit.Account{}
	for _, read := range []func(pgx.Rows) error{
		func(rows pgx.Rows) error { return scanBlocks(rows, accounts) },
		func(rows pgx.Rows) error { return scanOpen(rows, accounts) },
		func(rows pgx.Rows) (err error) { gone, err = scanWindows(rows, accounts); return err },
	} {
		rows, err := br.Query()
		if err != nil {
			return nil, nil, err
		}
		if err := read(rows); err != nil {
			return nil, nil, err
		}
	}
	return accounts, gone, br.Close()
}

// restoreState makes rows anew that somebody deleted. What they counted is counted again from the attempts, as if it had
// just happened, so that no window is filled twice.
func restoreState(ctx context.Context, tx pgx.Tx, only []int32, gone map[int32][]limit.Window) (map[int32]*limit.Account, error) {
	for _, id := range slices.Sorted(maps.Keys(gone)) {
		made, err := tx.Exec(ctx, `INSERT INTO rate_account (account_id) VALUES ($1) ON CONFLICT DO NOTHING`, id)
		if err == nil && made.RowsAffected() > 0 { // how far its clock was ahead is not known any more, by which its bins go
			_, err = tx.Exec(ctx, `DELETE FROM rate_window WHERE account_id = $1`, id)
		}
		if err != nil {
			return nil, err
		}
		if err := seedWindows(ctx, tx, id, gone[id]); err != nil {
			return nil, err
		}
	}
	limits, still, err := readState(ctx, tx, only)
	if err == nil && len(still) > 0 { // somebody deletes them at this moment: nothing is granted meanwhile
		err = errors.New("limit state is being deleted")
	}
	return limits, err
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

func scanOpen(rows pgx.Rows, accounts map[int32]*limit.Account) error {
	var id int32
	var open limit.Open
	_, err := pgx.ForEachRow(rows, []any{&id, &open.Calls, &open.Recipients}, func() error {
		if acc := accounts[id]; acc != nil {
			acc.Open = open
		}
		return nil
	})
	return err
}

const windowsSQL = `
SELECT l.account_id, l.unit, l.per_ms, l.n, w.bins, w.used, w.tat
FROM account_limit l
LEFT JOIN rate_window w ON w.account_id = l.account_id AND w.unit = l.unit AND w.per_ms = l.per_ms
WHERE $1::int[] IS NULL OR l.account_id = ANY ($1)
ORDER BY l.account_id, l.unit, l.per_ms`

func scanWindows(rows pgx.Rows, accounts map[int32]*limit.Account) (gone map[int32][]limit.Window, err error) {
	gone = map[int32][]limit.Window{}
	var id int32
	var perMS int64
	var unit string
	var n int
	var bins, used []int64
	var tat *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &unit, &perMS, &n, &bins, &used, &tat}, func() error {
		l := limit.Ledger{Window: limit.Window{N: n, Per: time.Duration(perMS) * time.Millisecond, Unit: limit.Unit(unit)}}
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
		if tat != nil {
			l.TAT = *tat
		}
		acc.Ledgers = append(acc.Ledgers, l)
		return nil
	})
	return gone, err
}

// queueLimits writes back the accounts that gave slots or settled calls.
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
			var tat *time.Time
			if !l.TAT.IsZero() {
				tat = &l.TAT
			}
			b.Queue(`INSERT INTO rate_window (account_id, unit, per_ms, bins, used, tat) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (account_id, unit, per_ms) DO UPDATE SET bins = $4, used = $5, tat = $6`,
				id, string(l.Window.Unit), l.Window.Per.Milliseconds(), bins, used, tat)
		}
	}
}

// queueBlock pushes an account's next slot forward for every replica. It never shortens a block.
func queueBlock(b *pgx.Batch, account int32, wait time.Duration, reason string) {
	b.Queue(`UPDATE rate_account SET blocked_until = clock_timestamp() + $2, reason = $3
		WHERE account_id = $1 AND blocked_until < clock_timestamp() + $2`, account, wait, reason)
}

// Blocks tells how long each blocked account stays blocked.
func (db *DB) Blocks(ctx context.Context) (map[int32]time.Duration, error) {
	rows, err := db.engine.Query(ctx, `SELECT account_id, blocked_until - clock_timestamp() FROM rate_account
		WHERE blocked_until > clock_timestamp()`)
	if err != nil {
		return nil, fmt.Errorf("read blocks: %w", unavailable(err))
	}
	blocks := map[int32]time.Duration{}
	var id int32
	var wait time.Duration
	_, err = pgx.ForEachRow(rows, []any{&id, &wait}, func() error {
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
		rows, err := tx.Query(ctx, `SELECT a.id, a.name, r.blocked_until, r.ahead_us, clock_timestamp() FROM account a
			JOIN rate_account r ON r.account_id = a.id WHERE a.deleted_at IS NULL`)
		if err != nil {
			return err
		}
		var id int32
		var name string
		var until time.Time
		var ahead int64
		_, err = pgx.ForEachRow(rows, []any{&id, &name, &until, &ahead, &now}, func() error {
			accounts[id] = &limit.Account{BlockedUntil: until, Ahead: time.Duration(ahead) * time.Microsecond}
			names[id] = name
			return nil
		})
		if err != nil {
			return err
		}
		rows, err = tx.Query(ctx, `SELECT account_id, count(*), sum(recipients) FROM inflight GROUP BY account_id`)
		if err != nil {
			return err
		}
		if err := scanOpen(rows, accounts); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, windowsSQL, nil); err != nil {
			return err
		}
		_, err = scanWindows(rows, accounts)
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
