package postgres

import (
	"context"
	"encoding/json"
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
	return failed("register replica", err)
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

// Report stores what a replica did lately. A replica that lost its lease stores nothing.
func (db *DB) Report(ctx context.Context, id mail.ID, r record.ReplicaReport) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	_, err = db.engine.Exec(ctx, `UPDATE replica SET report = $2 WHERE id = $1`, [16]byte(id), raw)
	return failed("report", err)
}

// Unregister removes a replica that has drained.
func (db *DB) Unregister(ctx context.Context, id mail.ID) error {
	_, err := db.engine.Exec(ctx, `DELETE FROM replica WHERE id = $1`, [16]byte(id))
	return failed("unregister replica", err)
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
    RETURNING id, lane, tenant_id, owner, account_id, n, tries, recipients, avoid, joined, started_at
), r AS (
    INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid)
    SELECT id, lane, tenant_id, now(), n - 1, tries, avoid FROM d WHERE started_at IS NULL
    RETURNING id
), u AS (
    INSERT INTO unknown (id, lane, tenant_id, owner, account_id, n, tries, avoid, policy, decide_at)
    SELECT d.id, d.lane, d.tenant_id, d.owner, d.account_id, d.n, d.tries, d.avoid, m.on_ambiguous,
           greatest(now(), d.started_at) + ` + policyWaitSQL + `
    FROM d CROSS JOIN LATERAL (SELECT on_ambiguous, resends FROM message WHERE id = d.id OFFSET 0) m WHERE d.started_at IS NOT NULL
)
SELECT id, n, account_id, recipients, joined, started_at IS NOT NULL FROM d`
	rows := query(ctx, tx, q, append(policyWaits(wait), args...)...)
	var lost []lostCall
	unstarted, started := 0, 0
	var c lostCall
	var was bool
	_, err := pgx.ForEachRow(rows, []any{&c.id, &c.n, &c.account, &c.recipients, &c.joined, &was}, func() error {
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
	joined     bool
}

const closeLostSQL = `
UPDATE attempt t SET class = 'uncertain', finished_at = now(), verdict_source = 'rescue',
    error = 'the replica that made this call died before its outcome was recorded'
FROM @i
WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.n = i.n AND t.class IS NULL`

// closeLost marks the calls as uncertain and their recipients as unknown.
func closeLost(ctx context.Context, tx pgx.Tx, lost []lostCall) error {
	ids, calls := make([][16]byte, len(lost)), rowsAs("i", len(lost))
	for i, c := range lost {
		ids[i] = c.id
		calls.row().id("id", c.id).int("n", int(c.n))
	}
	b := &pgx.Batch{}
	calls.queue(b, closeLostSQL)
	queueUnknown(b, ids)
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
			acc.Settle(now.now(), now.now(), c.recipients, c.joined)
		}
	}
	b := &pgx.Batch{}
	queueLimits(b, limits)
	if b.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, b).Close()
}
