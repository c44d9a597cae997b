package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// Suppress stops mail of a tenant to an address, in whatever case it is written: a local part may tell cases apart
// (RFC 5321 section 2.4), but mailboxes that do are rarer than people who asked for no more mail. The first reason is kept.
func (db *DB) Suppress(ctx context.Context, s mail.Suppression) error {
	_, err := db.api.Exec(ctx, `INSERT INTO suppression (tenant_id, email, reason, origin) VALUES ($1, lower($2), $3, $4)
		ON CONFLICT DO NOTHING`, s.Tenant, s.Email, s.Reason, s.Origin)
	if err != nil {
		return fmt.Errorf("suppress: %w", unavailable(err))
	}
	return nil
}

// Unsuppress allows mail to an address again, or returns mail.ErrNotFound.
func (db *DB) Unsuppress(ctx context.Context, tenant mail.TenantID, email string) error {
	tag, err := db.api.Exec(ctx, `DELETE FROM suppression WHERE tenant_id = $1 AND email = lower($2)`, tenant, email)
	if err = affected(tag.RowsAffected(), err, "suppression"); err != nil {
		return fmt.Errorf("unsuppress: %w", unavailable(err))
	}
	return nil
}

// Suppressions lists a tenant's suppressions by address: one address, or those after one.
func (db *DB) Suppressions(ctx context.Context, tenant mail.TenantID, email, after string, limit int) ([]mail.Suppression, error) {
	rows, err := db.api.Query(ctx, `SELECT tenant_id, email, reason, origin, created_at FROM suppression
		WHERE tenant_id = $1 AND ($2 = '' OR email = lower($2)) AND email > $3 ORDER BY email LIMIT $4`, tenant, email, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list suppressions: %w", unavailable(err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s mail.Suppression, err error) {
		return s, row.Scan(&s.Tenant, &s.Email, &s.Reason, &s.Origin, &s.CreatedAt)
	})
	if err != nil {
		return nil, fmt.Errorf("list suppressions: %w", unavailable(err))
	}
	return list, nil
}
