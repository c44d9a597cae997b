package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// lookupLease is how long a look-up is one replica's.
const lookupLease = time.Minute

// lookupsSQL takes unknown messages whose next look-up is due. The schedule counts from the end of the call.
const lookupsSQL = `
WITH d AS (
    UPDATE unknown SET checks = checks + 1, busy_until = now() + $3::interval
    WHERE id = ANY (ARRAY(
        SELECT id FROM unknown
        WHERE policy = 'reconcile' AND account_id = ANY ($4) AND busy_until <= now() AND checks < cardinality($1::interval[])
          AND since + ($1::interval[])[checks + 1] <= now()
        ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING id, n, account_id, since
)
SELECT d.id, d.n, d.account_id, m.sender, t.started_at, now() - d.since,
       ARRAY(SELECT email FROM recipient WHERE message_id = d.id AND status = 'unknown' ORDER BY n)
FROM d
CROSS JOIN LATERAL (SELECT sender FROM message WHERE id = d.id OFFSET 0) m
CROSS JOIN LATERAL (SELECT started_at FROM attempt WHERE message_id = d.id AND n = d.n OFFSET 0) t`

// DueLookups takes up to limit unknown messages under the policy reconcile whose next look-up is due by the schedule, of
// the accounts given. Each look-up of a message is given out once.
func (db *DB) DueLookups(ctx context.Context, schedule []time.Duration, accounts []int32, limit int) ([]mail.Lookup, error) {
	rows, err := db.engine.Query(ctx, lookupsSQL, schedule, limit, lookupLease, accounts)
	if err != nil {
		return nil, fmt.Errorf("list look-ups: %w", unavailable(err))
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (mail.Lookup, error) {
		var l mail.Lookup
		var id [16]byte
		err := row.Scan(&id, &l.N, &l.Account, &l.Sender, &l.StartedAt, &l.Waited, &l.Recipients)
		l.ID = id
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list look-ups: %w", unavailable(err))
	}
	return due, nil
}

// ReturnLookup gives back a look-up that settled nothing. One that could not be made at all is to be made again after the
// wait; else the next one is when the schedule says.
func (db *DB) ReturnLookup(ctx context.Context, id mail.ID, n int, repeat bool, wait time.Duration) error {
	_, err := db.engine.Exec(ctx, `UPDATE unknown SET checks = CASE WHEN $3 THEN greatest(checks - 1, 0) ELSE checks END, busy_until = now() + $4::interval
		WHERE id = $1 AND n = $2`, [16]byte(id), n, repeat, wait)
	if err != nil {
		return fmt.Errorf("return look-up: %w", unavailable(err))
	}
	return nil
}

// Resolve applies what a look-up proved. Found, the message is sent, and what the provider told beside is received as
// events. Else the provider never took it, and it is ready again. It reports false when something else had settled the
// message first.
func (db *DB) Resolve(ctx context.Context, v mail.Verdict) (bool, error) {
	var settled bool
	err := again(func() error {
		return pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
			var err error
			if v.Found {
				settled, err = resolveFound(ctx, tx, v)
			} else {
				settled, err = resolveAbsent(ctx, tx, v)
			}
			return err
		})
	})
	if err != nil {
		return false, fmt.Errorf("resolve unknown: %w", unavailable(err))
	}
	if v.Found && len(v.Payloads) > 0 {
		_, err = db.ReceiveEvents(ctx, mail.Intake{Account: v.Account, Source: mail.FromLookup, Payloads: v.Payloads})
	}
	return settled, err
}

func resolveFound(ctx context.Context, tx pgx.Tx, v mail.Verdict) (bool, error) {
	ids := [][16]byte{v.ID}
	if _, err := tx.Exec(ctx, proveSQL, ids, []int32{int32(v.N)}, []string{string(mail.FromLookup)}, []string{v.ProviderMessageID}); err != nil { //nolint:gosec // see queueTake
		return false, err
	}
	rows, err := tx.Query(ctx, settleSeenSQL, ids)
	if err != nil {
		return false, err
	}
	settled, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return false, err
	}
	b := &pgx.Batch{}
	queueFoldChanged(b, ids)
	return len(settled) > 0, tx.SendBatch(ctx, b).Close()
}

// absentSQL gives an unknown message back to the queue.
const absentSQL = `
WITH d AS (
    DELETE FROM unknown u WHERE u.id = $1 AND u.n = $2
    AND NOT EXISTS (SELECT 1 FROM attempt t WHERE t.message_id = u.id AND t.n = u.n AND t.seen_at IS NOT NULL)
    RETURNING id, lane, tenant_id, n, tries
)
INSERT INTO ready (id, lane, tenant_id, due, attempts, tries) SELECT id, lane, tenant_id, now(), n, tries + 1 FROM d
RETURNING id`

func resolveAbsent(ctx context.Context, tx pgx.Tx, v mail.Verdict) (bool, error) {
	// the lock that proof takes first: it waits for us, or we see it
	if _, err := tx.Exec(ctx, `SELECT FROM attempt WHERE message_id = $1 AND n = $2 FOR UPDATE`, [16]byte(v.ID), v.N); err != nil {
		return false, err
	}
	var id [16]byte
	err := tx.QueryRow(ctx, absentSQL, [16]byte(v.ID), v.N).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b := &pgx.Batch{}
	b.Queue(`UPDATE attempt SET class = 'transient', verdict_source = 'lookup' WHERE message_id = $1 AND n = $2`, id, v.N)
	b.Queue(`UPDATE recipient SET status = 'queued', detail = '', updated_at = now() WHERE message_id = $1 AND status = 'unknown'`, id)
	queueFold(b, [][16]byte{id})
	return true, tx.SendBatch(ctx, b).Close()
}
