//go:build drill

package drill

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/limit"
)

// snapshotLook is how long claims are measured before the snapshot, and at its end.
const snapshotLook = 30 * time.Second

// Somebody holds an old snapshot, so Postgres can't remove dead rows. Claims go on, and a metric shows the dead rows. A long
// run (-duration 10m) shows how much slower claims become.
func TestD22SnapshotIsHeld(t *testing.T) {
	drillTest(t, "D22", plan{limits: wide(), load: load{share: 3, plain: true}}, func(t *testing.T, r *rig) {
		look := min(*duration, snapshotLook)
		before := r.claimsOver(t, look)
		tx, err := r.rows.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		for _, q := range []string{`SET LOCAL idle_in_transaction_session_timeout = 0`, `SELECT count(*) FROM ready`} {
			if _, err := tx.Exec(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		pause(t, *duration)
		held := r.number(t, `SELECT coalesce(max(age(backend_xmin)), 0) FROM pg_stat_activity WHERE pid = $1`, int(tx.Conn().PgConn().PID()))
		if held < 100 {
			t.Errorf("transactions since the snapshot = %d: it is not held", held)
		}
		after := r.claimsOver(t, look)
		must(t, 20*time.Second, "the metric tells of rows that are not cleaned up", func() bool {
			return metric(t, r.replicas[0], "sendgate_queue_dead_rows") > 100
		})
		r.report.tally("transactions_held_back", held)
		for _, table := range []string{"ready", "inflight", "rate_window"} {
			r.report.tally("dead_"+table, r.number(t, `SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = $1`, table))
		}
		_ = tx.Rollback(t.Context())
		pause(t, look) // vacuums come
		gone := r.claimsOver(t, look)
		r.report.figure("claim_before", before.mean(), 0)
		r.report.figure("claim_under_the_snapshot", after.mean(), 2*before.mean())
		r.report.figure("claim_p50_before", before.quantile(0.5), 0)
		r.report.figure("claim_p50_under_it", after.quantile(0.5), 2*before.quantile(0.5))
		r.report.figure("claim_p50_when_it_is_gone", gone.quantile(0.5), 0)
		r.report.figure("claim_p99_under_it", after.quantile(0.99), 0)
	})
}

// wide are limits that never delay a message, although every claim checks them and writes their rows.
func wide() map[string][]limit.Window {
	return everyKind([]limit.Window{{N: 1_000_000, Per: time.Hour, Unit: limit.Messages}})
}

// Days past their retention are dropped while mail goes on, and no request is refused.
func TestD27OldDaysAreDropped(t *testing.T) {
	p := plan{settings: []string{"SENDGATE_RETENTION=24h", "SENDGATE_BODY_RETENTION=24h", "SENDGATE_DEFAULT_EXPIRY=1h"}}
	drillTest(t, "D27", p, func(t *testing.T, r *rig) {
		if n := r.number(t, `SELECT ensure_partitions(current_date - 6, current_date - 3)`); n <= 0 {
			t.Fatal("no old days were made")
		}
		rows := r.number(t, fillSQL)
		days := func() int {
			return r.count(t.Context(), `SELECT count(*) FROM pg_class WHERE relkind = 'r'
				AND relname ~ '^(message|body|recipient|attempt|event|delivery)_[0-9]{8}$'
				AND to_date(right(relname, 8), 'YYYYMMDD') < current_date - 2`)
		}
		r.report.tally("days_before", days())
		x := r.replicas[1] // it looks when it starts
		x.kill()
		refused := r.clients.answers("503")
		began := time.Now()
		x.start(t)
		must(t, time.Minute, "old days are dropped", func() bool { return days() == 0 })
		r.report.figure("dropped", time.Since(began), 0)
		r.report.tally("rows", rows)
		pause(t, time.Second)
		if n := r.clients.answers("503") - refused; n != 0 {
			t.Errorf("requests refused meanwhile = %d, want none", n)
		}
	})
}

// fillSQL puts settled messages into an old day.
const fillSQL = `
WITH i AS (
    SELECT (left(uuid_floor((current_date - 4)::timestamptz + n * interval '100 ms')::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS id
    FROM generate_series(1, 100000) n
), m AS (
    INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
    SELECT id, 1, 'sent', 'transactional', 'shop@example.com', 'old', '{}', 'never', now(), now(), now() FROM i RETURNING id
)
SELECT count(*) FROM m`
