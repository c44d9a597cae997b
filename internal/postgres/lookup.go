package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// lookupLease is how long a look-up belongs to the replica that took it.
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
SELECT d.id, d.n, d.account_id, m.sender, t.started_at, t.started_at, now() - d.since, now() - t.started_at,
       ARRAY(SELECT email FROM recipient WHERE message_id = d.id AND status = 'unknown' ORDER BY n)
FROM d
CROSS JOIN LATERAL (SELECT sender FROM message WHERE id = d.id OFFSET 0) m
CROSS JOIN LATERAL (SELECT started_at FROM attempt WHERE message_id = d.id AND n = d.n OFFSET 0) t`

// restoredSQL takes calls of restored messages that may have been made with the lost database. Each is looked up twice: at
// once, because it was made long ago if at all, and at the end of the schedule, when its absence is proof.
const restoredSQL = `
WITH d AS (
    UPDATE unknown_call c SET checks = c.checks + 1, due = CASE WHEN c.checks = 0 THEN
        greatest(now() + $3::interval, (SELECT since FROM unknown u WHERE u.id = c.id) + ($1::interval[])[cardinality($1::interval[])])
        ELSE 'infinity' END
    FROM (
        SELECT i.id, i.n FROM unnest($4::int[]) AS a(account_id)
        CROSS JOIN LATERAL (SELECT id, n, due FROM unknown_call WHERE account_id = a.account_id AND due <= now()
            ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED) i
        ORDER BY i.due LIMIT $2) p
    WHERE c.id = p.id AND c.n = p.n
    RETURNING c.id, c.n, c.account_id, c.until
)
SELECT d.id, d.n, d.account_id, m.sender, t.started_at, d.until, now() - u.since, now() - t.started_at,
       ARRAY(SELECT email FROM recipient WHERE message_id = d.id AND status = 'unknown' ORDER BY n)
FROM d
CROSS JOIN LATERAL (SELECT since FROM unknown WHERE id = d.id OFFSET 0) u
CROSS JOIN LATERAL (SELECT sender FROM message WHERE id = d.id OFFSET 0) m
CROSS JOIN LATERAL (SELECT started_at FROM attempt WHERE message_id = d.id AND n = d.n OFFSET 0) t`

// DueLookups takes up to limit unknown messages of the given accounts under the policy reconcile whose next look-up is due by
// the schedule. Each look-up is given out once. Restored messages come last, because there may be many.
func (db *DB) DueLookups(ctx context.Context, schedule []time.Duration, accounts []int32, limit int) ([]record.Lookup, error) {
	if some, err := db.anyUnknown(ctx); !some || err != nil {
		return nil, err
	}
	due, err := db.takeLookups(ctx, lookupsSQL, schedule, limit, accounts)
	if err != nil || len(due) >= limit {
		return due, err
	}
	restored, err := db.takeLookups(ctx, restoredSQL, schedule, limit-len(due), accounts)
	return append(due, restored...), err
}

// takeLookups runs lookupsSQL or restoredSQL.
func (db *DB) takeLookups(ctx context.Context, q string, schedule []time.Duration, limit int, accounts []int32) ([]record.Lookup, error) {
	return collect("list look-ups", query(ctx, db.engine, q, schedule, limit, lookupLease, accounts), func(row pgx.CollectableRow) (record.Lookup, error) {
		var l record.Lookup
		err := row.Scan(intoID(&l.ID), &l.N, &l.Account, &l.Sender, &l.StartedAt, &l.Until, &l.Waited, &l.Age, &l.Recipients)
		return l, err
	})
}

// ReturnLookup gives back a look-up that settled nothing. With repeat, for one that could not be made at all, it is due again
// after the wait; else the next one is due by the schedule, but not before the wait is over.
func (db *DB) ReturnLookup(ctx context.Context, id mail.ID, n int, repeat bool, wait time.Duration) error {
	b := &pgx.Batch{}
	b.Queue(`UPDATE unknown SET checks = CASE WHEN $3 THEN greatest(checks - 1, 0) ELSE checks END, busy_until = now() + $4::interval
		WHERE id = $1 AND n = $2 AND account_id <> 0`, [16]byte(id), n, repeat, wait)
	if repeat {
		b.Queue(`UPDATE unknown_call SET checks = greatest(checks - 1, 0), due = now() + $3::interval
			WHERE id = $1 AND n = $2 AND NOT absent`, [16]byte(id), n, wait)
	}
	return failed("return look-up", db.engine.SendBatch(ctx, b).Close())
}

// Resolve applies what a look-up proved. If the message was found, it is sent, and whatever else the provider reported is
// received as events. Otherwise the provider never took it, and it is ready again. Resolve reports false when something else
// had settled the message first.
func (db *DB) Resolve(ctx context.Context, v record.Verdict) (bool, error) {
	var settled bool
	var twins [][16]byte
	err := again(func() error {
		return pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
			var err error
			if v.Found {
				settled, twins, err = resolveFound(ctx, tx, v)
			} else {
				settled, err = resolveAbsent(ctx, tx, v)
			}
			return err
		})
	})
	if err != nil {
		return false, fmt.Errorf("resolve unknown: %w", unavailable(err))
	}
	db.reportTwins(twins)
	if v.Found && len(v.Payloads) > 0 {
		_, err = db.ReceiveEvents(ctx, record.Intake{Account: v.Account, Source: mail.FromLookup, Payloads: v.Payloads})
	}
	return settled, err
}

// resolveFound settles a message that the provider has.
func resolveFound(ctx context.Context, tx pgx.Tx, v record.Verdict) (found bool, twins [][16]byte, err error) {
	ids := [][16]byte{v.ID}
	call := rowsAs("i", 1)
	addProof(call, v.ID, v.N, mail.FromLookup, v.ProviderMessageID)
	if _, err := tx.Exec(ctx, proveSQL, call); err != nil {
		return false, nil, err
	}
	settled, err := pgx.CollectRows(query(ctx, tx, settleSeenSQL, idRows(ids)), pgx.RowTo[[16]byte])
	if err != nil {
		return false, nil, err
	}
	b := &pgx.Batch{}
	idRows(ids).queue(b, sentAfterAllSQL)
	queueFoldChanged(b, ids)
	queueTwins(b, ids, &twins)
	err = tx.SendBatch(ctx, b).Close()
	return len(settled) > 0, twins, err
}

// absentSQL gives an unknown message back to the queue if none of its calls was made: its one call, or all possible calls of a
// restored message.
const absentSQL = `
WITH d AS (
    DELETE FROM unknown u WHERE u.id = $1 AND (u.account_id <> 0 AND u.n = $2
        OR u.account_id = 0 AND EXISTS (SELECT 1 FROM unknown_call c WHERE c.id = u.id)
           AND NOT EXISTS (SELECT 1 FROM unknown_call c WHERE c.id = u.id AND NOT c.absent))
    AND NOT EXISTS (SELECT 1 FROM attempt t WHERE t.message_id = u.id AND t.seen_at IS NOT NULL
        AND (t.n = u.n OR EXISTS (SELECT 1 FROM unknown_call c WHERE c.id = u.id AND c.n = t.n)))
    RETURNING id, lane, tenant_id, n, tries, avoid
)
INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid) SELECT id, lane, tenant_id, now(), n, tries + 1, avoid FROM d
RETURNING id`

// lockCallsSQL locks the attempts of the calls that may have sent a message.
const lockCallsSQL = `
SELECT FROM attempt WHERE message_id = $1 AND (n = $2 OR n IN (SELECT n FROM unknown_call WHERE id = $1)) ORDER BY n FOR UPDATE`

// closeAbsentSQL closes an attempt that the provider never took.
const closeAbsentSQL = `UPDATE attempt SET class = 'transient', verdict_source = 'lookup' WHERE message_id = $1 AND n = $2`

// strike notes that one of the possible calls of a restored message was not made. It reports whether it is a restored message.
func strike(ctx context.Context, tx pgx.Tx, v record.Verdict) (bool, error) {
	tag, err := tx.Exec(ctx, `UPDATE unknown_call SET absent = true, due = 'infinity' WHERE id = $1 AND n = $2`, [16]byte(v.ID), v.N)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	_, err = tx.Exec(ctx, closeAbsentSQL+` AND class = 'uncertain' AND seen_at IS NULL`, [16]byte(v.ID), v.N)
	return true, err
}

// resolveAbsent queues a message again that no call has sent.
func resolveAbsent(ctx context.Context, tx pgx.Tx, v record.Verdict) (bool, error) {
	// proof takes this lock first too: it waits for us, or we see it
	if _, err := tx.Exec(ctx, lockCallsSQL, [16]byte(v.ID), v.N); err != nil {
		return false, err
	}
	restored, err := strike(ctx, tx, v)
	if err != nil {
		return false, err
	}
	var id [16]byte
	err = tx.QueryRow(ctx, absentSQL, [16]byte(v.ID), v.N).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b := &pgx.Batch{}
	if !restored {
		b.Queue(closeAbsentSQL, id, v.N)
	}
	b.Queue(`UPDATE recipient SET status = 'queued', detail = '', updated_at = now() WHERE message_id = $1 AND status = 'unknown'`, id)
	queueFold(b, [][16]byte{id})
	return true, tx.SendBatch(ctx, b).Close()
}
