package postgres

import (
	"context"
	"encoding/json"
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
	var ids [][16]byte
	var byMessage []bool
	for _, f := range kept {
		if f.orphaned() {
			ids, byMessage = append(ids, f.ID), append(byMessage, f.ByMessage)
		}
	}
	if len(ids) > 0 {
		b.Queue(`INSERT INTO orphan (event_id, by_message, retry_at, expires_at)
			SELECT id, by_message, now() + interval '`+orphanFirst+`', now() + interval '`+orphanAge+`'
			FROM unnest($1::uuid[], $2::boolean[]) AS o(id, by_message)`, ids, byMessage)
	}
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
	rows, err := tx.Query(ctx, orphansSQL, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*fact, error) {
		f := &fact{}
		var id, origin, key [16]byte
		var message *[16]byte
		var bounce []byte
		err := row.Scan(&id, &origin, &f.account, &message, &f.Type, &f.Name, &f.Recipient, &f.At, &f.Source, &f.ProviderMessageID, &bounce, &key, &f.ByMessage)
		if err != nil {
			return nil, err
		}
		f.ID, f.Origin, f.byContent, f.N = id, origin, key, -1
		if message != nil {
			f.MessageID = *message
		}
		f.Bounce, err = readBounce(bounce)
		return f, err
	})
}

func readBounce(raw []byte) (*mail.Bounce, error) {
	if raw == nil {
		return nil, nil //nolint:nilnil // an event without a bounce
	}
	b := &mail.Bounce{}
	if err := json.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("bounce of an event: %w", err)
	}
	return b, nil
}

// adopt applies the events whose message was found now. An event about a message of another account stops being an orphan too.
func (db *DB) adopt(ctx context.Context, tx pgx.Tx, facts []*fact) (n int, twins [][16]byte, err error) {
	var known []*fact
	var done, ids, messages [][16]byte
	var tenants []int32
	var ns []int16
	var streams, types, emails []string
	for _, f := range facts {
		if f.matched || f.foreign {
			done = append(done, f.ID)
		}
		if f.matched {
			known = append(known, f)
			ids, messages, tenants = append(ids, f.ID), append(messages, f.MessageID), append(tenants, int32(f.Tenant))
			ns, streams, types = append(ns, int16(f.N)), append(streams, f.Stream), append(types, string(f.Type)) //nolint:gosec // at most 1000
			emails = append(emails, mail.FoldAddress(f.Recipient))
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
	if len(ids) > 0 {
		b.Queue(`UPDATE event e SET tenant_id = i.tenant_id, message_id = i.message_id, n = nullif(i.n, -1), stream = i.stream,
				type = i.type, recipient = i.recipient, bounce = CASE WHEN i.type <> '' THEN e.bounce END, xid = pg_current_xact_id()
			FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::smallint[], $5::text[], $6::text[], $7::text[])
				AS i(id, message_id, tenant_id, n, stream, type, recipient)
			WHERE e.id = ANY ($1) AND e.id = i.id`, ids, messages, tenants, ns, streams, types, emails)
		b.Queue(tellSQL, ids, tenants, types, streams)
	}
	if err := queueEvidence(b, known, proved); err != nil {
		return 0, nil, err
	}
	db.queueSuppressions(b, known)
	queueTwins(b, proved, &twins)
	err = tx.SendBatch(ctx, b).Close()
	return len(known), twins, err
}
