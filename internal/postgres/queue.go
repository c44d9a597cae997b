package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// queueSQL looks into the queue lane by lane: the rows that are due, those that are not, and the oldest are each one range of
// a lane in the index. In the whole queue, the few that are scheduled would be found only after all that are due.
const queueSQL = `
WITH l AS (SELECT * FROM unnest($1::int[], $2::int[]) AS l(lane, tenant_id))
SELECT (SELECT count(*) FROM (SELECT FROM l CROSS JOIN LATERAL (
            SELECT FROM ready WHERE lane = l.lane AND tenant_id = l.tenant_id AND due <= now() ORDER BY due LIMIT $3) r LIMIT $3) x),
       (SELECT count(*) FROM (SELECT FROM l CROSS JOIN LATERAL (
            SELECT FROM ready WHERE lane = l.lane AND tenant_id = l.tenant_id AND due > now() ORDER BY due LIMIT $3) r LIMIT $3) x),
       (SELECT count(*) FROM inflight), (SELECT count(*) FROM (SELECT FROM unknown LIMIT $3) x),
       (SELECT min(due) FROM l CROSS JOIN LATERAL (
            SELECT due FROM ready WHERE lane = l.lane AND tenant_id = l.tenant_id AND due <= now() ORDER BY due LIMIT 1) r),
       (SELECT count(*) FROM (SELECT FROM outbox LIMIT $3) x),
       pg_stat_get_dead_tuples('ready'::regclass) + pg_stat_get_dead_tuples('inflight'::regclass)`

// tenantsCounted is how many rows of all lanes are counted again by tenant: more would double the cost of Queue.
const tenantsCounted = 10_000

// tenantsSQL counts the due messages of each tenant, up to $3 in each of its lanes.
const tenantsSQL = `
SELECT t.name, sum(c.n)::bigint, bool_or(c.n = $3)
FROM unnest($1::int[], $2::int[]) AS l(lane, tenant_id) JOIN tenant t ON t.id = l.tenant_id
CROSS JOIN LATERAL (SELECT count(*) AS n FROM (
    SELECT FROM ready WHERE lane = l.lane AND tenant_id = l.tenant_id AND due <= now() ORDER BY due LIMIT $3) r) c
WHERE c.n > 0
GROUP BY t.name ORDER BY 2 DESC, 1 LIMIT 100`

// Queue counts the messages that are ready, scheduled, in flight and unknown, and the events that wait for webhook endpoints (all
// but those in flight up to record.MaxCounted), and the ready messages of each tenant.
func (db *DB) Queue(ctx context.Context) (record.QueueState, error) {
	var s record.QueueState
	err := db.inTx(ctx, func(tx pgx.Tx) (err error) {
		if err := readDepth(ctx, tx, &s); err != nil {
			return err
		}
		rows := query(ctx, tx, `SELECT id::text, host, started_at, lease_until, report FROM replica ORDER BY started_at`)
		s.Replicas, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r record.Replica, err error) {
			return r, row.Scan(&r.ID, &r.Host, &r.StartedAt, &r.LeaseUntil, &r.Report)
		})
		return err
	})
	if err != nil {
		return record.QueueState{}, fmt.Errorf("read queue: %w", err)
	}
	return s, nil
}

func readDepth(ctx context.Context, tx pgx.Tx, s *record.QueueState) error {
	lanes, err := readLanes(ctx, tx)
	if err != nil {
		return err
	}
	numbers, tenants := make([]int32, len(lanes)), make([]int32, len(lanes))
	for i, l := range lanes {
		numbers[i], tenants[i] = l.Number, int32(l.Tenant)
	}
	if _, err := tx.Exec(ctx, `SET LOCAL enable_bitmapscan = off`); err != nil { // a bitmap scan reads the whole lane first
		return err
	}
	err = tx.QueryRow(ctx, queueSQL, numbers, tenants, record.MaxCounted).Scan(&s.Ready, &s.Scheduled, &s.Inflight, &s.Unknown, orNoTime(&s.OldestDue), &s.Webhooks, &s.Dead)
	if err != nil {
		return err
	}
	rows := query(ctx, tx, tenantsSQL, numbers, tenants, max(tenantsCounted/max(len(lanes), 1), 100))
	s.Tenants, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d record.TenantDepth, err error) {
		return d, row.Scan(&d.Tenant, &d.Ready, &d.More)
	})
	return err
}
