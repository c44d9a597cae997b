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
UPDATE unknown u SET policy = 'repeat', decide_at = now() + $1::interval, avoid = coalesce(u.avoid, '{}') || jsonb_build_object(x.name,
    coalesce(u.avoid -> x.name, '{}') || jsonb_build_object('why', 'the replica that made this call died', 'repeat', jsonb_build_object(
        'n', x.n + 1, 'by', now() + $1::interval + $2::interval, 'until', x.until)))
FROM (
    SELECT k.id, a.name, coalesce((k.avoid -> a.name -> 'repeat' ->> 'n')::int, 0) AS n,
           coalesce((k.avoid -> a.name -> 'repeat' ->> 'until')::timestamptz, t.started_at + s.within) AS until,
           coalesce((k.avoid -> a.name -> 'repeat' ->> 'over')::boolean, false) AS over
    FROM @s
    JOIN account a ON a.id = s.account_id
    JOIN LATERAL (SELECT id, n, avoid FROM unknown WHERE account_id = s.account_id AND policy <> 'repeat' LIMIT 500 FOR UPDATE SKIP LOCKED) k ON true
    CROSS JOIN LATERAL (SELECT started_at FROM attempt WHERE message_id = k.id AND n = k.n OFFSET 0) t
) x
WHERE u.id = x.id AND NOT x.over AND x.n < $3 AND now() + $1::interval + $2::interval < x.until`

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
	accounts := rowsAs("s", len(rule.Within))
	for id, w := range rule.Within {
		accounts.row().int("account_id", int(id)).wait("within", w)
	}
	if some, err := db.anyUnknown(ctx); !some || err != nil {
		return 0, err
	}
	err = pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
		if accounts.n > 0 {
			if _, err := tx.Exec(ctx, repeatLostSQL, accounts, rule.Wait, rule.Patience, rule.Most); err != nil {
				return err
			}
		}
		rows := query(ctx, tx, repeatSQL)
		var ids [][16]byte
		calls := rowsAs("i", 0)
		var id [16]byte
		var n int
		if _, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
			ids = append(ids, id)
			calls.row().id("id", id).int("n", n)
			return nil
		}); err != nil || len(ids) == 0 {
			return err
		}
		repeated = len(ids)
		b := &pgx.Batch{}
		calls.queue(b, `UPDATE attempt t SET verdict_source = 'repeat' FROM @i
			WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.n = i.n AND t.class = 'uncertain'`)
		idRows(ids).queue(b, `UPDATE recipient SET status = 'queued', detail = '', updated_at = now() WHERE message_id = ANY (@i.id) AND status = 'unknown'`)
		queueFold(b, ids)
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return 0, fmt.Errorf("repeat unknown: %w", unavailable(err))
	}
	return repeated, nil
}

// policyWaitSQL is how long the policy of a message m waits before it decides. Its parameters are those of policyWaits.
const policyWaitSQL = `(1 << m.resends) * CASE m.on_ambiguous WHEN 'resend' THEN $1 WHEN 'never' THEN $2 ELSE $3 END::interval`

func policyWaits(wait map[mail.Policy]time.Duration) []any {
	return []any{wait[mail.Resend], wait[mail.Never], wait[mail.Reconcile]}
}

// lapseSQL makes messages unknown again whose last call could not be repeated in time.
const lapseSQL = `
WITH d AS (
    DELETE FROM ready r USING attempt t
    WHERE r.id = ANY (@i.id) AND t.message_id = ANY (@i.id) AND t.message_id = r.id AND t.n = r.attempts AND t.class = 'uncertain'
    RETURNING r.id, r.lane, r.tenant_id, r.attempts, r.tries, t.owner, t.account_id
)
INSERT INTO unknown (id, lane, tenant_id, owner, account_id, n, tries, avoid, policy, decide_at)
SELECT d.id, d.lane, d.tenant_id, d.owner, d.account_id, d.attempts, d.tries, i.avoid, m.on_ambiguous,
       now() + ` + policyWaitSQL + `
FROM d JOIN @i ON i.id = d.id
CROSS JOIN LATERAL (SELECT on_ambiguous, resends FROM message WHERE id = d.id AND id BETWEEN @i.id.first AND @i.id.last OFFSET 0) m
RETURNING id`

// Lapse gives up repeats that could not be made in time: the messages are unknown again, and their on_ambiguous policy decides
// after its wait. A message that does not wait any more is left alone.
func (db *DB) Lapse(ctx context.Context, lapses []queue.Lapse, wait map[mail.Policy]time.Duration) error {
	i := rowsAs("i", len(lapses))
	for _, l := range lapses {
		i.row().id("id", l.ID).json("avoid", l.Avoid)
	}
	err := again(func() error {
		return pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
			// lock attempts before the queue, in the order in which events do
			if _, err := tx.Exec(ctx, lockDoubtSQL, i); err != nil {
				return err
			}
			moved, err := pgx.CollectRows(query(ctx, tx, lapseSQL, append([]any{i}, policyWaits(wait)...)...), pgx.RowTo[[16]byte])
			if err != nil {
				return err
			}
			b := &pgx.Batch{}
			// a call that was proved meanwhile needs no repeat: the recipients still open may be sent by any account
			b.Queue(`UPDATE ready r SET avoid = i.avoid FROM @i WHERE r.id = ANY (@i.id) AND r.id = i.id`, i)
			queueUnknown(b, moved)
			return tx.SendBatch(ctx, b).Close()
		})
	})
	return failed("lapse", err)
}
