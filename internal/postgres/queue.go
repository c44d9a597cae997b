package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// queueSQL looks into the queue lane by lane: what is due, what is not, and what is next are each one stretch of a lane in
// the index. Looked for in the whole queue, the few that are scheduled would be found only at the end of all that is due.
const queueSQL = `
WITH l AS (SELECT * FROM unnest($1::int[], $2::int[]) AS l(lane, tenant_id))
SELECT (SELECT count(*) FROM (SELECT FROM l CROSS JOIN LATERAL (
            SELECT FROM ready WHERE lane = l.lane AND tenant_id = l.tenant_id AND due <= now() ORDER BY due LIMIT 100000) r LIMIT 100000) x),
       (SELECT count(*) FROM (SELECT FROM l CROSS JOIN LATERAL (
            SELECT FROM ready WHERE lane = l.lane AND tenant_id = l.tenant_id AND due > now() ORDER BY due LIMIT 100000) r LIMIT 100000) x),
       (SELECT count(*) FROM inflight), (SELECT count(*) FROM (SELECT FROM unknown LIMIT 100000) x),
       (SELECT min(due) FROM l CROSS JOIN LATERAL (
            SELECT due FROM ready WHERE lane = l.lane AND tenant_id = l.tenant_id AND due <= now() ORDER BY due LIMIT 1) r),
       pg_stat_get_dead_tuples('ready'::regclass) + pg_stat_get_dead_tuples('inflight'::regclass)`

// Queue counts what is ready, scheduled, in flight and unknown, per tenant where it matters. Counting stops at 100,000
// rows of each: beyond that the figure is a floor, and looking must not cost what sending needs.
func (db *DB) Queue(ctx context.Context) (mail.QueueState, error) {
	var s mail.QueueState
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		if err := readDepth(ctx, tx, &s); err != nil {
			return err
		}
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

func readDepth(ctx context.Context, tx pgx.Tx, s *mail.QueueState) error {
	lanes, err := readLanes(ctx, tx)
	if err != nil {
		return err
	}
	numbers, tenants := make([]int32, len(lanes)), make([]int32, len(lanes))
	for i, l := range lanes {
		numbers[i], tenants[i] = l.Number, int32(l.Tenant)
	}
	if _, err := tx.Exec(ctx, `SET LOCAL enable_bitmapscan = off`); err != nil { // one would read all of a lane before its first row
		return err
	}
	var oldest *time.Time
	err = tx.QueryRow(ctx, queueSQL, numbers, tenants).Scan(&s.Ready, &s.Scheduled, &s.Inflight, &s.Unknown, &oldest, &s.Dead)
	s.OldestDue = orZero(oldest)
	return err
}
