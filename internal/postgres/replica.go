package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// Register announces a replica under a new id, with a lease by the database's clock.
func (db *DB) Register(ctx context.Context, id mail.ID, host string, lease time.Duration) error {
	db.watch.beats(lease)
	_, err := db.engine.Exec(ctx, `INSERT INTO replica (id, host, lease_until) VALUES ($1, $2, clock_timestamp() + $3)`,
		[16]byte(id), host, lease)
	if err != nil {
		return fmt.Errorf("register replica: %w", unavailable(err))
	}
	return nil
}

// Heartbeat extends the lease and returns how many replicas are alive. It returns record.ErrConflict when the lease had
// run out and a rescuer removed the replica: its claims belong to others now, and it must register under a new id.
func (db *DB) Heartbeat(ctx context.Context, id mail.ID, lease time.Duration) (int, error) {
	const q = `
WITH me AS (
    UPDATE replica SET lease_until = clock_timestamp() + $2 WHERE id = $1 RETURNING id
)
SELECT (SELECT count(*) FROM me), (SELECT count(*) FROM replica WHERE lease_until > clock_timestamp())`
	var mine, alive int
	if err := db.engine.QueryRow(ctx, q, [16]byte(id), lease).Scan(&mine, &alive); err != nil {
		return 0, fmt.Errorf("heartbeat: %w", unavailable(err))
	}
	if mine == 0 {
		return alive, fmt.Errorf("heartbeat: lease lost: %w", record.ErrConflict)
	}
	return max(alive, 1), nil
}

// Unregister removes a replica that has drained.
func (db *DB) Unregister(ctx context.Context, id mail.ID) error {
	if _, err := db.engine.Exec(ctx, `DELETE FROM replica WHERE id = $1`, [16]byte(id)); err != nil {
		return fmt.Errorf("unregister replica: %w", unavailable(err))
	}
	return nil
}

// Rescue takes back the work of replicas whose lease has run out. Messages whose call had not started are ready again at once;
// the others may have been sent, so they become unknown. wait says how long each policy waits before it decides. One rescuer
// works at a time; the others return at once. After the clock was set forward, Rescue does nothing until the live replicas have
// had time to renew their leases.
func (db *DB) Rescue(ctx context.Context, wait map[mail.Policy]time.Duration) (unstarted, started int, err error) {
	for {
		u, s, err := db.rescueSome(ctx, wait)
		unstarted, started = unstarted+u, started+s
		if err != nil || u+s < takeBackMax {
			return unstarted, started, err
		}
	}
}

// rescueSome is one transaction of Rescue.
func (db *DB) rescueSome(ctx context.Context, wait map[mail.Policy]time.Duration) (unstarted, started int, err error) {
	err = again(func() error {
		return pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
			var mine bool
			if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(7381002)`).Scan(&mine); err != nil || !mine {
				return err
			}
			c, err := readClock(ctx, tx)
			if err != nil || !db.watch.leases(c) {
				return err
			}
			if _, err := tx.Exec(ctx, `DELETE FROM replica WHERE lease_until < $1`, c.at); err != nil {
				return err
			}
			const lost = `f.owner NOT IN (SELECT id FROM replica)`
			unstarted, started, err = db.takeBack(ctx, tx, lost, wait)
			return err
		})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("rescue: %w", unavailable(err))
	}
	return unstarted, started, nil
}

// Orphans takes back claims of a live replica that the replica does not know of, because the answer to the commit of its claim
// was lost. It reports how many. known lists the claims that the replica holds. Claims younger than ten seconds are left alone.
func (db *DB) Orphans(ctx context.Context, owner mail.ID, known []mail.ID, wait map[mail.Policy]time.Duration) (int, error) {
	n := 0
	err := pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
		const lost = `f.owner = $4 AND f.claimed_at < clock_timestamp() - interval '10 s' AND f.id <> ALL ($5)`
		unstarted, started, err := db.takeBack(ctx, tx, lost, wait, [16]byte(owner), rawIDs(known))
		n = unstarted + started
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("orphans: %w", unavailable(err))
	}
	return n, nil
}

// takeBackMax bounds one transaction: its statements compare every row with every row.
const takeBackMax = 500

// takeBack moves rows that meet the condition out of inflight, at most takeBackMax. It does so in one statement, so that a
// claim that is started meanwhile is seen as started: the intent and this delete lock the same row. Attempts and recipients
// follow in other statements: the first can't see the attempt of an intent that it waited for.
func (db *DB) takeBack(ctx context.Context, tx pgx.Tx, condition string, wait map[mail.Policy]time.Duration, args ...any) (int, int, error) {
	q := `
WITH d AS (
    DELETE FROM inflight WHERE id = ANY (ARRAY(SELECT f.id FROM inflight f WHERE ` + condition + ` LIMIT ` + strconv.Itoa(takeBackMax) + ` FOR UPDATE))
    RETURNING id, lane, tenant_id, owner, account_id, n, tries, recipients, avoid, started_at
), r AS (
    INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid)
    SELECT id, lane, tenant_id, now(), n - 1, tries, avoid FROM d WHERE started_at IS NULL
    RETURNING id
), u AS (
    INSERT INTO unknown (id, lane, tenant_id, owner, account_id, n, tries, avoid, policy, decide_at)
    SELECT d.id, d.lane, d.tenant_id, d.owner, d.account_id, d.n, d.tries, d.avoid, m.on_ambiguous,
           greatest(now(), d.started_at) + (1 << m.resends) * CASE m.on_ambiguous WHEN 'resend' THEN $1 WHEN 'never' THEN $2 ELSE $3 END::interval
    FROM d CROSS JOIN LATERAL (SELECT on_ambiguous, resends FROM message WHERE id = d.id OFFSET 0) m WHERE d.started_at IS NOT NULL
)
SELECT id, n, account_id, recipients, started_at IS NOT NULL FROM d`
	all := append([]any{wait[mail.Resend], wait[mail.Never], wait[mail.Reconcile]}, args...)
	rows, err := tx.Query(ctx, q, all...)
	if err != nil {
		return 0, 0, err
	}
	var lost []lostCall
	unstarted, started := 0, 0
	var c lostCall
	var was bool
	_, err = pgx.ForEachRow(rows, []any{&c.id, &c.n, &c.account, &c.recipients, &was}, func() error {
		if !was {
			unstarted++
			return nil
		}
		started++
		lost = append(lost, c)
		return nil
	})
	if err != nil || len(lost) == 0 {
		return unstarted, started, err
	}
	if err := closeLost(ctx, tx, lost); err != nil {
		return 0, 0, err
	}
	return unstarted, started, db.settleLost(ctx, tx, lost)
}

// lostCall is a call whose replica died: it may have arrived at any time until now.
type lostCall struct {
	id         [16]byte
	n, account int32
	recipients int
}

const closeLostSQL = `
UPDATE attempt t SET class = 'uncertain', finished_at = now(), verdict_source = 'rescue',
    error = 'the replica that made this call died before its outcome was recorded'
FROM unnest($1::uuid[], $2::int[]) AS i(id, n)
WHERE t.message_id = ANY ($1) AND t.message_id = i.id AND t.n = i.n AND t.class IS NULL`

// closeLost marks the calls as uncertain and their recipients as unknown.
func closeLost(ctx context.Context, tx pgx.Tx, lost []lostCall) error {
	ids, ns := make([][16]byte, len(lost)), make([]int32, len(lost))
	for i, c := range lost {
		ids[i], ns[i] = c.id, c.n
	}
	b := &pgx.Batch{}
	b.Queue(closeLostSQL, ids, ns)
	b.Queue(`UPDATE recipient SET status = 'unknown', updated_at = now() WHERE message_id = ANY ($1) AND status = 'queued'`, ids)
	b.Queue(settleSeenSQL, ids) // events may have proved some of them already
	queueFold(b, ids)
	return tx.SendBatch(ctx, b).Close()
}

// settleLost counts lost calls in the windows of their accounts, as if they had arrived now.
func (db *DB) settleLost(ctx context.Context, tx pgx.Tx, lost []lostCall) error {
	limits, now, err := db.lockLimits(ctx, tx, nil)
	if err != nil {
		return err
	}
	for _, c := range lost {
		if acc := limits[c.account]; acc != nil {
			acc.Settle(now.now(), now.now(), c.recipients)
		}
	}
	b := &pgx.Batch{}
	queueLimits(b, limits)
	if b.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, b).Close()
}
