package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// DecideUnknown ends the wait of unknown messages for which no evidence came in time. They are sent again if their policy is
// resend, or reconcile with the fallback resend, and they were resent fewer than most times; else they become failed_unknown.
// For a resend, the account whose call is unknown comes last, because it may have the message. Recipients that were certainly
// not in the call are queued in any case. The verdict's source is the deadline. At most 500 at a time.
func (db *DB) DecideUnknown(ctx context.Context, resendAfterReconcile bool, most int) (resent, failed int, err error) {
	const q = `
WITH d AS (
    DELETE FROM unknown WHERE id = ANY (ARRAY(
        SELECT id FROM unknown WHERE decide_at <= now() AND policy <> 'repeat' ORDER BY decide_at LIMIT 500 FOR UPDATE SKIP LOCKED))
    RETURNING id, lane, tenant_id, account_id, n, tries, avoid, policy = 'resend' OR policy = 'reconcile' AND $1::boolean AS may
), x AS MATERIALIZED (
    SELECT d.*, d.may AND m.resends < $2 AS again, (SELECT name FROM account WHERE id = d.account_id) AS account
    FROM d CROSS JOIN LATERAL (SELECT resends FROM message WHERE id = d.id OFFSET 0) m
), r AS (
    INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid)
    SELECT id, lane, tenant_id, now(), n, tries, CASE WHEN account IS NULL OR NOT again THEN avoid
        ELSE coalesce(avoid, '{}') || jsonb_build_object(account, jsonb_build_object('last', true, 'why', 'a call may have sent it')) END
    FROM x WHERE again OR EXISTS (SELECT FROM recipient c WHERE c.message_id = x.id AND c.status = 'queued' OFFSET 0)
)
SELECT id, n, again FROM x`
	if some, err := db.anyUnknown(ctx); !some || err != nil {
		return 0, 0, err
	}
	err = pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
		rows := query(ctx, tx, q, resendAfterReconcile, most)
		resent, failed = 0, 0
		var ids, again [][16]byte
		decided := rowsAs("i", 0)
		var id [16]byte
		var n int
		var resend bool
		_, err = pgx.ForEachRow(rows, []any{&id, &n, &resend}, func() error {
			ids = append(ids, id)
			decided.row().id("id", id).int("n", n).bool("again", resend)
			if resend {
				again = append(again, id)
				resent++
			} else {
				failed++
			}
			return nil
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		b := &pgx.Batch{}
		decided.queue(b, decideAttemptSQL)
		decided.queue(b, decideRecipientSQL)
		idRows(ids).queue(b, tellEndsSQL)
		queueFold(b, ids)
		idRows(again).queue(b, `UPDATE message SET resends = resends + 1 WHERE id = ANY (@i.id)`)
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return 0, 0, fmt.Errorf("decide unknown: %w", unavailable(err))
	}
	return resent, failed, nil
}

// anyUnknown reports whether a message is unknown. It is asked every few seconds, by those who look after such messages: to plan
// their statements, which may touch every day that is kept, takes a quarter of a second with ninety days.
func (db *DB) anyUnknown(ctx context.Context) (some bool, err error) {
	err = db.engine.QueryRow(ctx, `SELECT EXISTS (SELECT FROM unknown)`).Scan(&some)
	return some, failed("look for unknown messages", err)
}

// decideAttemptSQL notes that the deadline decided about the call, or about all possible calls of a restored message.
const decideAttemptSQL = `
UPDATE attempt t SET verdict_source = 'deadline'
FROM @i
WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.class = 'uncertain' AND (t.n = i.n OR t.verdict_source = 'restore')`

const decideRecipientSQL = `
UPDATE recipient c SET updated_at = now(), status = CASE WHEN i.again THEN 'queued' ELSE 'failed_unknown' END,
    detail = CASE WHEN i.again THEN '' ELSE 'no evidence of the outcome came in time' END
FROM @i
WHERE c.message_id = ANY (@i.id) AND c.message_id = i.id AND c.status = 'unknown'`

// queueUnknown makes the open recipients of messages unknown. Events may have proved the calls of some of them already.
func queueUnknown(b *pgx.Batch, ids [][16]byte) {
	i := idRows(ids)
	i.queue(b, `UPDATE recipient SET status = 'unknown', updated_at = now() WHERE message_id = ANY (@i.id) AND status = 'queued'`)
	i.queue(b, settleSeenSQL)
	queueFold(b, ids)
}

// FreeHeld makes held messages due again, because a change of configuration may have made room for them. It takes those that
// are due first, at most limit, and reports whether these were all.
func (db *DB) FreeHeld(ctx context.Context, limit int) (bool, error) {
	const q = `
UPDATE ready SET due = now(), held = false WHERE id = ANY (ARRAY(
    SELECT id FROM ready WHERE held ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED))`
	tag, err := db.engine.Exec(ctx, q, limit)
	if err != nil {
		return false, fmt.Errorf("free held messages: %w", unavailable(err))
	}
	return tag.RowsAffected() < int64(limit), nil
}

// Relane looks at up to limit ready messages of any lane, starting after an id, and moves each to the lane that the function
// gives for its facts. It returns the last id that it looked at, or the zero id at the end.
func (db *DB) Relane(ctx context.Context, after mail.ID, limit int, lane func(*mail.Facts) int32) (mail.ID, error) {
	var last mail.ID
	err := pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
		rows := query(ctx, tx, `SELECT r.id, r.lane, m.facts FROM ready r
			CROSS JOIN LATERAL (SELECT facts FROM message WHERE id = r.id OFFSET 0) m
			WHERE r.id > $1 ORDER BY r.id LIMIT $2 FOR UPDATE OF r SKIP LOCKED`, [16]byte(after), limit)
		var id [16]byte
		var have int32
		var facts mail.Facts
		var moved []queue.Relane
		n := 0
		_, err := pgx.ForEachRow(rows, []any{&id, &have, &facts}, func() error {
			n++
			last = id
			if want := lane(&facts); want != have {
				moved = append(moved, queue.Relane{ID: id, Lane: want})
			}
			facts = mail.Facts{}
			return nil
		})
		if n < limit {
			last = mail.ID{}
		}
		if err != nil || len(moved) == 0 {
			return err
		}
		return applyClaim(ctx, tx, mail.ID{}, queue.Claim{Relane: moved}, nil)
	})
	if err != nil {
		return mail.ID{}, fmt.Errorf("relane: %w", unavailable(err))
	}
	return last, nil
}
