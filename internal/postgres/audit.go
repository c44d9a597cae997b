package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// change runs one change of configuration: the change itself, its audit entry and the new configuration version are one
// transaction. A name that is taken becomes mail.ErrConflict. Detail must hold no secret.
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
		return fmt.Errorf("%s: the name is taken: %w", target, mail.ErrConflict)
	case err != nil:
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

// affected turns "no row" into mail.ErrNotFound.
func affected(n int64, err error, what string) error {
	if err == nil && n == 0 {
		return fmt.Errorf("%s: %w", what, mail.ErrNotFound)
	}
	return err
}

// Audit lists changes of configuration, newest first, before an id (0: from the newest).
func (db *DB) Audit(ctx context.Context, before int64, limit int) ([]mail.AuditEntry, error) {
	rows, err := db.api.Query(ctx, `SELECT id, at, actor, action, target, detail FROM audit WHERE $1 = 0 OR id < $1
		ORDER BY id DESC LIMIT $2`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list audit: %w", unavailable(err))
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e mail.AuditEntry, err error) {
		return e, row.Scan(&e.ID, &e.At, &e.Actor, &e.Action, &e.Target, &e.Detail)
	})
	if err != nil {
		return nil, fmt.Errorf("list audit: %w", unavailable(err))
	}
	return entries, nil
}
