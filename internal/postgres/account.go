package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// affectedRow turns "no rows" of a RETURNING or SELECT into record.ErrNotFound.
func affectedRow(err error, what string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%s: %w", what, record.ErrNotFound)
	}
	return err
}

// accountID finds the account of that name and locks its row, but not its key: claims refer to the key while they hold locks
// that a change waits for.
func accountID(ctx context.Context, tx pgx.Tx, name string) (int32, error) {
	var id int32
	err := tx.QueryRow(ctx, `SELECT id FROM account WHERE name = $1 AND deleted_at IS NULL FOR NO KEY UPDATE`, name).Scan(&id)
	return id, affectedRow(err, "account "+name)
}

// binding ties a sealed secret to its row and field.
func binding(account int32, field string) string { return fmt.Sprintf("account/%d/%s", account, field) }

// CreateAccount stores an account with its limits and seals its secrets.
func (db *DB) CreateAccount(ctx context.Context, actor string, a route.Account, secrets map[string]seal.Secret) error {
	return db.change(ctx, actor, "account.create", a.Name, accountDetail(a, secrets), func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO account (name, kind, settings, concurrency) VALUES ($1, $2, $3, $4) RETURNING id`,
			a.Name, string(a.Kind), settings(a), a.Concurrency).Scan(&a.ID)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO rate_account (account_id) VALUES ($1)`, a.ID); err != nil {
			return err
		}
		if err := db.putSecrets(ctx, tx, a.ID, secrets); err != nil {
			return err
		}
		return putLimits(ctx, tx, a.ID, a.Limits)
	})
}

func settings(a route.Account) []byte {
	if len(a.Settings) == 0 {
		return []byte("{}")
	}
	return a.Settings
}

// accountDetail is the detail of an account's audit entries. It names the secrets that were set, never their values.
func accountDetail(a route.Account, secrets map[string]seal.Secret) any {
	var fields []string
	for f := range secrets {
		fields = append(fields, f)
	}
	return map[string]any{"kind": a.Kind, "settings": a.Settings, "concurrency": a.Concurrency, "secrets": fields, "limits": a.Limits}
}

// putSecrets seals secrets and stores them, by field.
func (db *DB) putSecrets(ctx context.Context, tx pgx.Tx, id int32, secrets map[string]seal.Secret) error {
	for field, s := range secrets {
		_, err := tx.Exec(ctx, `INSERT INTO account_secret (account_id, field, sealed) VALUES ($1, $2, $3)
			ON CONFLICT (account_id, field) DO UPDATE SET sealed = $3`, id, field, db.box.Seal(s, binding(id, field)))
		if err != nil {
			return err
		}
	}
	return nil
}

// putLimits replaces an account's windows. It locks the account's limit state, so that a call is counted either by the
// seed of a new window or by the window itself. The count of an old window is deleted with it. From here on each window has a
// row: a window without one has lost it.
func putLimits(ctx context.Context, tx pgx.Tx, id int32, windows []limit.Window) error {
	b := &pgx.Batch{}
	b.Queue(`SELECT FROM rate_account WHERE account_id = $1 FOR UPDATE`, id)
	b.Queue(`DELETE FROM account_limit WHERE account_id = $1`, id)
	for _, w := range windows {
		b.Queue(`INSERT INTO account_limit (account_id, unit, per_ms, n) VALUES ($1, $2, $3, $4)`,
			id, string(w.Unit), w.Per.Milliseconds(), w.N)
	}
	b.Queue(`DELETE FROM rate_window w WHERE account_id = $1 AND NOT EXISTS (
		SELECT 1 FROM account_limit l WHERE l.account_id = $1 AND l.unit = w.unit AND l.per_ms = w.per_ms)`, id)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	return seedWindows(ctx, tx, id, windows)
}

// seedSQL gives a new window the calls that the attempts show, as if they had just been made: so a limit that is set late
// is not exceeded. Calls in flight count by themselves. N calls fill the window, so no more are read. The condition on the
// start is for the index; calls end within a day of their start.
//
// A window whose row somebody deleted is restored in the same way.
const seedSQL = `
INSERT INTO rate_window (account_id, unit, per_ms, bins, used)
SELECT $1, $2::text, $3::bigint,
    CASE WHEN s.n > 0 THEN ARRAY[floor(extract(epoch FROM clock_timestamp()) * 1e9 / $4::numeric)::bigint] ELSE '{}' END,
    CASE WHEN s.n > 0 THEN ARRAY[s.n] ELSE '{}' END
FROM (SELECT sum(cost)::bigint AS n FROM (
    SELECT CASE WHEN $2 = 'recipients' THEN (SELECT (m.facts->>'rcp')::bigint FROM message m WHERE m.id = t.message_id) ELSE 1 END AS cost
    FROM attempt t
    WHERE t.account_id = $1 AND t.class <> 'aborted' AND t.finished_at > now() - $3 * interval '1 ms'
      AND t.started_at > now() - $3 * interval '1 ms' - interval '1 day'
    LIMIT $5) c) s
ON CONFLICT DO NOTHING`

// seedWindows makes the rows of windows that have none, see seedSQL.
func seedWindows(ctx context.Context, tx pgx.Tx, id int32, windows []limit.Window) error {
	for _, w := range windows {
		if _, err := tx.Exec(ctx, seedSQL, id, string(w.Unit), w.Per.Milliseconds(), int64(w.BinWidth()), w.N); err != nil {
			return err
		}
	}
	return nil
}

// UpdateAccount stores settings, concurrency and the secrets that are given. It also unparks the account, because an operator
// has looked at it. If a.UpdatedAt is set and somebody has changed the account since that time, it returns record.ErrStale:
// the caller has checked the change against an older state.
func (db *DB) UpdateAccount(ctx context.Context, actor string, a route.Account, secrets map[string]seal.Secret) error {
	return db.change(ctx, actor, "account.update", a.Name, accountDetail(a, secrets), func(tx pgx.Tx) error {
		id, err := accountID(ctx, tx, a.Name)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE account SET settings = $2, concurrency = $3, updated_at = now()
			WHERE id = $1 AND ($4::timestamptz IS NULL OR updated_at = $4)`, id, settings(a), a.Concurrency, orNull(a.UpdatedAt))
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("account %s: %w", a.Name, record.ErrStale)
		}
		if err := db.putSecrets(ctx, tx, id, secrets); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM account_park WHERE account_id = $1`, id)
		return err
	})
}

// SetLimits replaces an account's windows. A new window also counts what was sent before it was set.
func (db *DB) SetLimits(ctx context.Context, actor, account string, windows []limit.Window) error {
	return db.change(ctx, actor, "account.limits", account, windows, func(tx pgx.Tx) error {
		id, err := accountID(ctx, tx, account)
		if err != nil {
			return err
		}
		return putLimits(ctx, tx, id, windows)
	})
}

// PauseAccount takes an account out of routing until it is resumed.
func (db *DB) PauseAccount(ctx context.Context, actor, account string) error {
	return db.setPaused(ctx, actor, "account.pause", account, true)
}

// ResumeAccount lets an account take mail again: it is no longer paused, parked or blocked.
func (db *DB) ResumeAccount(ctx context.Context, actor, account string) error {
	return db.setPaused(ctx, actor, "account.resume", account, false)
}

func (db *DB) setPaused(ctx context.Context, actor, action, account string, paused bool) error {
	return db.change(ctx, actor, action, account, nil, func(tx pgx.Tx) error {
		id, err := accountID(ctx, tx, account)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`UPDATE account SET paused = $2, updated_at = now() WHERE id = $1`, id, paused)
		if !paused {
			b.Queue(`DELETE FROM account_park WHERE account_id = $1`, id)
			b.Queue(`UPDATE rate_account SET blocked_until = now(), reason = '' WHERE account_id = $1 AND blocked_until > now()`, id)
		}
		return tx.SendBatch(ctx, b).Close()
	})
}

// callsAtSQL is the condition that messages of an account are in flight, or unknown.
func callsAtSQL(account string) string {
	return `(EXISTS (SELECT 1 FROM inflight f WHERE f.account_id = ` + account + `)
			OR EXISTS (SELECT 1 FROM unknown u WHERE u.account_id = ` + account + `)
			OR EXISTS (SELECT 1 FROM unknown_call c WHERE c.account_id = ` + account + `))`
}

// DeleteAccount takes an account out of all pools at once. Calls in flight finish; the row stays, because attempts refer to
// it. Messages pinned to it will fail. The last account of a pool may be deleted: the pool's messages wait then.
func (db *DB) DeleteAccount(ctx context.Context, actor, account string) error {
	return db.change(ctx, actor, "account.delete", account, nil, func(tx pgx.Tx) error {
		id, err := accountID(ctx, tx, account)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`UPDATE account SET deleted_at = now(), updated_at = now() WHERE id = $1`, id)
		b.Queue(`UPDATE pool SET version = version + 1 WHERE id IN (SELECT pool_id FROM pool_account WHERE account_id = $1)`, id)
		b.Queue(`DELETE FROM pool_account WHERE account_id = $1`, id)
		b.Queue(`DELETE FROM account_secret WHERE account_id = $1 AND NOT `+callsAtSQL("$1"), id)
		return tx.SendBatch(ctx, b).Close()
	})
}

// Secrets opens the secrets of one account, by field. If some were sealed with a key that we don't have, it returns the
// others and seal.ErrSealed with the names of the unreadable ones.
func (db *DB) Secrets(ctx context.Context, account int32) (map[string]seal.Secret, error) {
	rows := query(ctx, db.api, `SELECT field, sealed FROM account_secret WHERE account_id = $1 ORDER BY field`, account)
	secrets := map[string]seal.Secret{}
	var field string
	var sealed []byte
	var closed []string
	_, err := pgx.ForEachRow(rows, []any{&field, &sealed}, func() error {
		if s, err := db.box.Open(sealed, binding(account, field)); err == nil {
			secrets[field] = s
		} else {
			closed = append(closed, field)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read secrets of account %d: %w", account, unavailable(err))
	}
	if len(closed) > 0 {
		return secrets, fmt.Errorf("%s: %w", strings.Join(closed, ", "), seal.ErrSealed)
	}
	return secrets, nil
}

// CheckKey returns seal.ErrSealed when none of the secrets opens with our key and another process is running: that process has
// another key, and neither could use the secrets that the other stores. A process that runs alone may have a new key, because
// the old one was lost; the secrets are then stored again through it.
func (db *DB) CheckKey(ctx context.Context) error {
	const q = `
SELECT account_id, field, sealed FROM account_secret
WHERE EXISTS (SELECT 1 FROM replica WHERE lease_until > clock_timestamp()) ORDER BY account_id, field LIMIT 1000`
	rows := query(ctx, db.api, q)
	var account int32
	var field string
	var sealed []byte
	opened, all := 0, 0
	_, err := pgx.ForEachRow(rows, []any{&account, &field, &sealed}, func() error {
		all++
		if _, err := db.box.Open(sealed, binding(account, field)); err == nil {
			opened++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("check the secret key: %w", unavailable(err))
	}
	if all > 0 && opened == 0 {
		return fmt.Errorf("%w: SENDGATE_SECRET_KEY is not the one that this database's secrets were stored with, and another process uses it: give all of them one key",
			seal.ErrSealed)
	}
	return nil
}

// ForgetSecrets deletes the secrets of deleted accounts that have nothing in flight or unknown any more, and reports how
// many there were.
func (db *DB) ForgetSecrets(ctx context.Context) (int, error) {
	tag, err := db.api.Exec(ctx, `DELETE FROM account_secret s USING account a
		WHERE a.id = s.account_id AND a.deleted_at IS NOT NULL AND NOT `+callsAtSQL("a.id"))
	return int(tag.RowsAffected()), failed("forget secrets", err)
}
