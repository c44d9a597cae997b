package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// change runs one change of configuration: the change itself, its audit entry and the new configuration version are one
// transaction. A name that is taken becomes record.ErrConflict. Detail must hold no secret.
func (db *DB) change(ctx context.Context, actor, action, target string, detail any, f func(pgx.Tx) error) error {
	return db.changeWith(ctx, actor, action, target, func() any { return detail }, f)
}

// changeWith is change for a detail that is known only after f has run.
func (db *DB) changeWith(ctx context.Context, actor, action, target string, detail func() any, f func(pgx.Tx) error) error {
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		raw, err := json.Marshal(detail())
		if err != nil {
			return fmt.Errorf("encode audit detail: %w", err)
		}
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO audit (actor, action, target, detail) VALUES ($1, $2, $3, $4)`, actor, action, target, raw)
		b.Queue(bumpSQL)
		return tx.SendBatch(ctx, b).Close()
	})
	switch {
	case isCode(err, "23505"):
		return fmt.Errorf("%s: the name is taken: %w", target, record.ErrConflict)
	case err != nil:
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

// audit writes the entry of a change outside of the configuration, in its transaction. Detail must hold no secret.
func audit(ctx context.Context, tx pgx.Tx, actor, action, target string, detail any) error {
	raw, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("encode audit detail: %w", err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO audit (actor, action, target, detail) VALUES ($1, $2, $3, $4)`, actor, action, target, raw)
	return err
}

// NoteFailedLogins adds failed logins to the audit, one entry for each address. That bounds their number, see
// record.FailedLogins.
func (db *DB) NoteFailedLogins(ctx context.Context, all []record.FailedLogins) error {
	for _, f := range all {
		raw, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("encode failed logins: %w", err)
		}
		if _, err := db.api.Exec(ctx, `INSERT INTO audit (actor, action, target, detail) VALUES ('stranger', 'login.failed', $1, $2)`, f.From, raw); err != nil {
			return fmt.Errorf("note failed logins: %w", unavailable(err))
		}
	}
	return nil
}

// execOne runs a statement that changes a row, or returns record.ErrNotFound.
func execOne(ctx context.Context, tx pgx.Tx, what, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		return fmt.Errorf("%s: %w", what, record.ErrNotFound)
	}
	return err
}

// Audit lists changes and failed logins, newest first.
func (db *DB) Audit(ctx context.Context, f record.AuditFilter) ([]record.AuditEntry, error) {
	if strings.Contains(f.Target, "@") {
		f.Target = veiled(f.Target)
	}
	rows := query(ctx, db.api, `SELECT a.id, a.at, a.actor, coalesce(k.name, ''), a.action, a.target, a.detail
		FROM audit a LEFT JOIN api_key k ON k.id = a.actor
		WHERE ($1 = 0 OR a.id < $1) AND ($2 = '' OR a.actor = $2 OR k.name = $2) AND ($3 = '' OR a.action = $3 OR a.action LIKE $3 || '.%')
		  AND ($4 = '' OR a.target = $4) AND ($5::timestamptz IS NULL OR a.at >= $5) AND ($6::timestamptz IS NULL OR a.at < $6)
		ORDER BY a.id DESC LIMIT $7`, f.Before, f.Actor, f.Action, f.Target, orNull(f.Since), orNull(f.Until), f.Limit)
	return collect("list audit", rows, func(row pgx.CollectableRow) (e record.AuditEntry, err error) {
		return e, row.Scan(&e.ID, &e.At, &e.Actor, &e.Name, &e.Action, &e.Target, &e.Detail)
	})
}
