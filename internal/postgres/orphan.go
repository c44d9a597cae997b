package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// Orphaned events are matched again soon, because an event may overtake our own record. After that they are matched each time
// after a quarter of their age: if others send with the account too, some orphans never find a message.
const (
	orphanFirst = "5 seconds"
	orphanAgain = "1 minute"
	orphanAge   = "24 hours"
)

// queueOrphans notes the events whose message may still be found later.
func queueOrphans(b *pgx.Batch, kept []*fact) {
	o := rowsAs("o", 0)
	for _, f := range kept {
		if f.orphaned() {
			o.row().id("event_id", f.ID).bool("by_message", f.ByMessage)
		}
	}
	o.queue(b, `INSERT INTO orphan (retry_at, expires_at, @o.*) SELECT now() + interval '`+orphanFirst+`', now() + interval '`+orphanAge+`', o.* FROM @o`)
}

// orphansSQL takes orphans that are due and puts off their next try, so that another replica does not take them too.
const orphansSQL = `
WITH d AS (
    UPDATE orphan SET retry_at = now() + greatest(interval '` + orphanAgain + `', (now() - expires_at + interval '` + orphanAge + `') / 4)
    WHERE event_id = ANY (ARRAY(SELECT event_id FROM orphan WHERE retry_at <= now() ORDER BY retry_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING event_id, by_message
)
SELECT e.id, e.origin, e.account_id, e.message_id, e.type, e.name, e.recipient, e.at, e.source, e.provider_message_id, e.bounce, e.key, d.by_message
FROM d CROSS JOIN LATERAL (SELECT * FROM event WHERE id = d.event_id OFFSET 0) e
ORDER BY e.message_id, e.id`

// forgetSQL deletes orphans that are past their age. It finds them among those that are due.
const forgetSQL = `
DELETE FROM orphan WHERE event_id = ANY (ARRAY(
    SELECT event_id FROM orphan WHERE retry_at <= now() AND expires_at <= now() ORDER BY retry_at LIMIT $1 FOR UPDATE SKIP LOCKED))`

// MatchOrphans tries again to find the messages of up to limit orphaned events, and gives up on those that are a day old; the
// events themselves are kept. It reports how many it matched.
func (db *DB) MatchOrphans(ctx context.Context, limit int) (matched int, err error) {
	var twins [][16]byte
	err = again(func() error {
		matched, twins = 0, nil
		return pgx.BeginFunc(ctx, db.hooks, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, forgetSQL, limit); err != nil {
				return err
			}
			facts, err := readOrphans(ctx, tx, limit)
			if err != nil || len(facts) == 0 {
				return err
			}
			if err := match(ctx, tx, facts); err != nil {
				return err
			}
			matched, twins, err = db.adopt(ctx, tx, facts)
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("match orphans: %w", unavailable(err))
	}
	db.reportTwins(twins)
	return matched, nil
}

func readOrphans(ctx context.Context, tx pgx.Tx, limit int) ([]*fact, error) {
	return pgx.CollectRows(query(ctx, tx, orphansSQL, limit), func(row pgx.CollectableRow) (*fact, error) {
		f := &fact{Event: mail.Event{N: -1}}
		return f, row.Scan(intoID(&f.ID), intoID(&f.Origin), &f.account, orNoID(&f.MessageID), &f.Type, &f.Name, &f.Recipient, &f.At, &f.Source,
			&f.ProviderMessageID, &f.Bounce, intoID(&f.byContent), &f.ByMessage)
	})
}

// adopt applies the events whose message was found now. An event about a message of another account stops being an orphan too.
func (db *DB) adopt(ctx context.Context, tx pgx.Tx, facts []*fact) (n int, twins [][16]byte, err error) {
	var known []*fact
	var done [][16]byte
	e := rowsAs("e", len(facts))
	for _, f := range facts {
		if f.matched || f.foreign {
			done = append(done, f.ID)
		}
		if f.matched {
			known = append(known, f)
			e.row().id("id", f.ID).id("message_id", f.MessageID).int("tenant_id", int(f.Tenant)).maybeSmall("n", f.N).text("stream", f.Stream).
				text("type", string(f.Type)).text("recipient", mail.FoldAddress(f.Recipient))
		}
	}
	if len(done) == 0 {
		return 0, nil, nil
	}
	known = byMessage(known)
	proved, err := prove(ctx, tx, known, make([]takenOutcome, 1))
	if err != nil {
		return 0, nil, err
	}
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM orphan WHERE event_id = ANY ($1)`, done)
	e.queue(b, `UPDATE event SET tenant_id = e.tenant_id, message_id = e.message_id, n = e.n, stream = e.stream, type = e.type,
			recipient = e.recipient, bounce = CASE WHEN e.type <> '' THEN event.bounce END, xid = pg_current_xact_id()
		FROM @e WHERE event.id = ANY (@e.id) AND event.id = e.id`)
	e.queue(b, tellSQL)
	queueEvidence(b, known, proved)
	db.queueSuppressions(b, known)
	queueTwins(b, proved, &twins)
	err = tx.SendBatch(ctx, b).Close()
	return len(known), twins, err
}
