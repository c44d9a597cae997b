//go:build drill

package drill

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Somebody holds an old snapshot, so that nothing that was deleted can be cleaned up: claims do not slow down for it.
func TestD22SnapshotIsHeld(t *testing.T) {
	drillTest(t, "D22", plan{load: load{share: 3, plain: true}}, func(t *testing.T, r *rig) {
		before := r.claimMean(t, *duration)
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
		held := r.count(t.Context(), `SELECT coalesce(max(age(backend_xmin)), 0) FROM pg_stat_activity WHERE pid = $1`, int(tx.Conn().PgConn().PID()))
		if held < 100 {
			t.Errorf("transactions since the snapshot = %d: it is not held", held)
		}
		after := r.claimMean(t, *duration)
		r.report.figure("claim_before", before, 0)
		r.report.figure("claim_under_the_snapshot", after, 2*before)
		r.report.tally("transactions_held_back", held)
	})
}

// claimMean is the mean time of a claim on the first replica over a while.
func (r *rig) claimMean(t *testing.T, over time.Duration) time.Duration {
	t.Helper()
	read := func() (sum, n float64) {
		return metric(t, r.replicas[0], "sendgate_claim_seconds_sum"), metric(t, r.replicas[0], "sendgate_claim_seconds_count")
	}
	sum0, n0 := read()
	pause(t, over)
	sum1, n1 := read()
	if n1 <= n0 {
		t.Fatal("no claims were made")
	}
	return time.Duration((sum1 - sum0) / (n1 - n0) * float64(time.Second))
}

// Days past their retention are dropped while mail goes on: nobody is refused for it.
func TestD27OldDaysAreDropped(t *testing.T) {
	p := plan{settings: []string{"SENDGATE_RETENTION=24h", "SENDGATE_BODY_RETENTION=24h", "SENDGATE_DEFAULT_EXPIRY=1h"}}
	drillTest(t, "D27", p, func(t *testing.T, r *rig) {
		if n := r.count(t.Context(), `SELECT ensure_partitions(current_date - 6, current_date - 3)`); n <= 0 {
			t.Fatal("no old days were made")
		}
		rows := r.count(t.Context(), fillSQL)
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
