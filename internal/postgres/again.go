package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// repeatLostSQL schedules a repeat of calls that were lost with their replica, if their account allows it. A call whose
// repeats were given up gets no new one.
const repeatLostSQL = `
UPDATE unknown u SET policy = 'repeat', decide_at = now() + $3::interval, avoid = coalesce(u.avoid, '{}') || jsonb_build_object(x.name,
    coalesce(u.avoid -> x.name, '{}') || jsonb_build_object('why', 'the replica that made this call died', 'repeat', jsonb_build_object(
        'n', x.n + 1, 'by', now() + $3::interval + $4::interval, 'until', x.until)))
FROM (
    SELECT k.id, a.name, coalesce((k.avoid -> a.name -> 'repeat' ->> 'n')::int, 0) AS n,
           coalesce((k.avoid -> a.name -> 'repeat' ->> 'until')::timestamptz, t.started_at + s.within) AS until,
           coalesce((k.avoid -> a.name -> 'repeat' ->> 'over')::boolean, false) AS over
    FROM unnest($1::int[], $2::interval[]) AS s(account_id, within)
    JOIN account a ON a.id = s.account_id
    JOIN LATERAL (SELECT id, n, avoid FROM unknown WHERE account_id = s.account_id AND policy <> 'repeat' LIMIT 500 FOR UPDATE SKIP LOCKED) k ON true
    CROSS JOIN LATERAL (SELECT started_at FROM attempt WHERE message_id = k.id AND n = k.n OFFSET 0) t
) x
WHERE u.id = x.id AND NOT x.over AND x.n < $5 AND now() + $3::interval + $4::interval < x.until`

// repeatSQL makes messages ready again whose call is due to be repeated.
const repeatSQL = `
WITH d AS (
    DELETE FROM unknown WHERE id = ANY (ARRAY(
        SELECT id FROM unknown WHERE decide_at <= now() AND policy = 'repeat' ORDER BY decide_at LIMIT 500 FOR UPDATE SKIP LOCKED))
    RETURNING id, lane, tenant_id, n, tries, avoid
)
INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid) SELECT id, lane, tenant_id, now(), n, tries, avoid FROM d
RETURNING id, attempts`

// RepeatUnknown makes unknown messages ready whose call is to be repeated at its account. Before that it schedules such a
// repeat for messages whose replica died. It handles at most 500 messages at a time, and 500 of each account that lost calls.
func (db *DB) RepeatUnknown(ctx context.Context, rule queue.RepeatRule) (repeated int, err error) {
	var accounts []int32
	var within []time.Duration
	for id, w := range rule.Within {
		accounts, within = append(accounts, id), append(within, w)
	}
	err = pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
		if len(accounts) > 0 {
			if _, err := tx.Exec(ctx, repeatLostSQL, accounts, within, rule.Wait, rule.Patience, rule.Most); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, repeatSQL)
		if err != nil {
			return err
		}
		var ids [][16]byte
		var ns []int32
		var id [16]byte
		var n int32
		if _, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
			ids, ns = append(ids, id), append(ns, n)
			return nil
		}); err != nil || len(ids) == 0 {
			return err
		}
		repeated = len(ids)
		b := &pgx.Batch{}
		b.Queue(`UPDATE attempt t SET verdict_source = 'repeat' FROM unnest($1::uuid[], $2::int[]) AS d(id, n)
			WHERE t.message_id = ANY ($1) AND t.message_id = d.id AND t.n = d.n AND t.class = 'uncertain'`, ids, ns)
		b.Queue(`UPDATE recipient SET status = 'queued', detail = '', updated_at = now() WHERE message_id = ANY ($1) AND status = 'unknown'`, ids)
		queueFold(b, ids)
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return 0, fmt.Errorf("repeat unknown: %w", unavailable(err))
	}
	return repeated, nil
}

// lapseSQL makes messages unknown again whose last call could not be repeated in time.
const lapseSQL = `
WITH d AS (
    DELETE FROM ready r USING attempt t
    WHERE r.id = ANY ($1) AND t.message_id = ANY ($1) AND t.message_id = r.id AND t.n = r.attempts AND t.class = 'uncertain'
    RETURNING r.id, r.lane, r.tenant_id, r.attempts, r.tries, t.owner, t.account_id
)
INSERT INTO unknown (id, lane, tenant_id, owner, account_id, n, tries, avoid, policy, decide_at)
SELECT d.id, d.lane, d.tenant_id, d.owner, d.account_id, d.attempts, d.tries, i.avoid, m.on_ambiguous,
       now() + (1 << m.resends) * CASE m.on_ambiguous WHEN 'resend' THEN $3 WHEN 'never' THEN $4 ELSE $5 END::interval
FROM d JOIN unnest($1::uuid[], $2::jsonb[]) AS i(id, avoid) ON i.id = d.id
CROSS JOIN LATERAL (SELECT on_ambiguous, resends FROM message WHERE id = d.id OFFSET 0) m
RETURNING id`

// Lapse gives up repeats that could not be made in time: the messages are unknown again, and their on_ambiguous policy decides
// after its wait. A message that does not wait any more is left alone.
func (db *DB) Lapse(ctx context.Context, lapses []queue.Lapse, wait map[mail.Policy]time.Duration) error {
	ids, avoids := make([][16]byte, len(lapses)), make([][]byte, len(lapses))
	for i, l := range lapses {
		avoid, err := avoidJSON(l.Avoid)
		if err != nil {
			return err
		}
		ids[i], avoids[i] = l.ID, avoid
	}
	err := again(func() error {
		return pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
			// lock attempts before the queue, in the order in which events do
			if _, err := tx.Exec(ctx, lockDoubtSQL, ids); err != nil {
				return err
			}
			rows, err := tx.Query(ctx, lapseSQL, ids, avoids, wait[mail.Resend], wait[mail.Never], wait[mail.Reconcile])
			if err != nil {
				return err
			}
			moved, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
			if err != nil {
				return err
			}
			b := &pgx.Batch{}
			// a call that was proved meanwhile needs no repeat: the recipients still open may be sent by any account
			b.Queue(`UPDATE ready r SET avoid = i.avoid FROM unnest($1::uuid[], $2::jsonb[]) AS i(id, avoid)
				WHERE r.id = ANY ($1) AND r.id = i.id`, ids, avoids)
			b.Queue(`UPDATE recipient SET status = 'unknown', updated_at = now() WHERE message_id = ANY ($1) AND status = 'queued'`, moved)
			b.Queue(settleSeenSQL, moved)
			queueFold(b, moved)
			return tx.SendBatch(ctx, b).Close()
		})
	})
	if err != nil {
		return fmt.Errorf("lapse: %w", unavailable(err))
	}
	return nil
}
