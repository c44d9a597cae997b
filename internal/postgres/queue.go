package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// Queue counts what is ready, scheduled, in flight and unknown, per tenant where it matters. Counting stops at 100,000
// rows of each: beyond that the figure is a floor, and looking must not cost what sending needs.
func (db *DB) Queue(ctx context.Context) (mail.QueueState, error) {
	const q = `
SELECT (SELECT count(*) FROM (SELECT FROM ready WHERE due <= now() LIMIT 100000) x),
       (SELECT count(*) FROM (SELECT FROM ready WHERE due > now() LIMIT 100000) x),
       (SELECT count(*) FROM inflight), (SELECT count(*) FROM (SELECT FROM unknown LIMIT 100000) x),
       (SELECT min(due) FROM (SELECT due FROM ready WHERE due <= now() LIMIT 100000) x)`
	var s mail.QueueState
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		var oldest *time.Time
		if err := tx.QueryRow(ctx, q).Scan(&s.Ready, &s.Scheduled, &s.Inflight, &s.Unknown, &oldest); err != nil {
			return err
		}
		s.OldestDue = orZero(oldest)
		rows, err := tx.Query(ctx, `SELECT t.name, count(*) FROM (SELECT tenant_id FROM ready LIMIT 100000) r
			JOIN tenant t ON t.id = r.tenant_id GROUP BY t.name ORDER BY 2 DESC, 1 LIMIT 100`)
		if err != nil {
			return err
		}
		s.Tenants, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d mail.TenantDepth, err error) {
			return d, row.Scan(&d.Tenant, &d.Ready)
		})
		if err != nil {
			return err
		}
		rows, err = tx.Query(ctx, `SELECT id::text, host, started_at, lease_until FROM replica ORDER BY started_at`)
		if err != nil {
			return err
		}
		s.Replicas, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r mail.Replica, err error) {
			return r, row.Scan(&r.ID, &r.Host, &r.StartedAt, &r.LeaseUntil)
		})
		return err
	})
	if err != nil {
		return mail.QueueState{}, fmt.Errorf("read queue: %w", err)
	}
	return s, nil
}
