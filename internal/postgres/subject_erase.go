package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// openMessageSQL says whether message $? still waits, is being sent, or has an outcome that is not known.
func openMessageSQL(id string) string {
	return `(EXISTS (SELECT FROM ready o WHERE o.id = ` + id + `) OR EXISTS (SELECT FROM inflight o WHERE o.id = ` + id + `)
		OR EXISTS (SELECT FROM unknown o WHERE o.id = ` + id + `))`
}

// CountSubject counts what an erasure would find. Open are messages that still wait, are being sent, or have no known outcome.
func (db *DB) CountSubject(ctx context.Context, q record.SubjectQuery) (c record.SubjectCount, err error) {
	err = db.inSubjectTx(ctx, func(tx pgx.Tx) error {
		tenants, err := tenantsOf(ctx, tx, q.Tenant)
		if err != nil {
			return err
		}
		c, err = countSubject(ctx, tx, tenants, mail.FoldAddress(q.Address))
		return err
	})
	if err != nil {
		return c, fmt.Errorf("count subject: %w", unavailable(err))
	}
	return c, nil
}

func countSubject(ctx context.Context, tx pgx.Tx, tenants []int32, folded string) (c record.SubjectCount, err error) {
	err = tx.QueryRow(ctx, `WITH m(id) AS (`+subjectMessagesSQL+`)
		SELECT count(*), count(*) FILTER (WHERE `+openMessageSQL("m.id")+`),
			(SELECT count(*) FROM suppression WHERE tenant_id = ANY ($1) AND email = $2),
			(SELECT count(*) FROM event WHERE tenant_id = ANY ($1::int[] || 0) AND recipient = $2 AND n IS NULL AND recipient <> '')
		FROM m`, tenants, folded, [16]byte{}, maxSubjectCount).Scan(&c.Messages, &c.Open, &c.Suppressions, &c.Events)
	if err != nil {
		return c, err
	}
	c.Accounts, err = pgx.CollectRows(query(ctx, tx, `WITH m(id) AS (`+subjectMessagesSQL+`)
		SELECT a.name, a.kind, count(DISTINCT m.id) FROM m JOIN attempt t ON t.message_id = m.id JOIN account a ON a.id = t.account_id GROUP BY 1, 2 ORDER BY 1`,
		tenants, folded, [16]byte{}, maxSubjectCount), pgx.RowToStructByPos[record.SubjectAccount])
	return c, err
}

// maxSubjectCount is where a count of messages stops.
const maxSubjectCount = 1_000_000

// BeginErasure is the first step of an erasure: from now on the address gets no mail. It is suppressed until EraseSubject has erased its
// last message, and then known by a hash only. If messages to it are open, nothing is changed and record.ErrConflict is returned, unless
// cancel is set: then those that wait are cancelled if they are to nobody else. The others go without it, for it is suppressed. It
// returns how many of both.
func (db *DB) BeginErasure(ctx context.Context, actor string, q record.SubjectQuery, cancel bool) (cancelled int, err error) {
	folded := mail.FoldAddress(q.Address)
	var waiting []waitingMessage
	err = db.inSubjectTx(ctx, func(tx pgx.Tx) error {
		tenants, err := tenantsOf(ctx, tx, q.Tenant)
		if err != nil {
			return err
		}
		c, err := countSubject(ctx, tx, tenants, folded)
		if err != nil {
			return err
		}
		if c.Open > 0 && !cancel {
			return fmt.Errorf("%d messages are open: %w", c.Open, record.ErrConflict)
		}
		if err := db.needErasureKey(ctx, tx); err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO erased (tenant_id, hash, complaint)
			SELECT t, $2, EXISTS (SELECT FROM suppression s WHERE s.tenant_id = t AND s.email = $3 AND s.reason = 'complaint') FROM unnest($1::int[]) t
			ON CONFLICT (tenant_id, hash) DO UPDATE SET complaint = erased.complaint OR EXCLUDED.complaint`, tenants, db.erasedHash(folded), folded)
		b.Queue(`INSERT INTO suppression (tenant_id, email, reason, origin, detail)
			SELECT t, $2, 'manual', 'api', 'stands for erased addresses' FROM unnest($1::int[]) t ON CONFLICT DO NOTHING`, tenants, erasedAddress)
		b.Queue(`INSERT INTO suppression (tenant_id, email, reason, origin, detail)
			SELECT t, $2, 'manual', 'api', 'is being erased' FROM unnest($1::int[]) t ON CONFLICT DO NOTHING`, tenants, folded)
		b.Queue(`DELETE FROM soft_bounce WHERE tenant_id = ANY ($1) AND email = $2`, tenants, folded)
		b.Queue(`DELETE FROM idempotency WHERE tenant_id = ANY ($1) AND key ILIKE $2`, tenants, containing(q.Address))
		b.Queue(bumpSQL)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		waiting, err = pgx.CollectRows(query(ctx, tx, `WITH m(id) AS (`+subjectMessagesSQL+`)
			SELECT m.id, r.tenant_id, bool_and(`+foldedSQL("r")+` = $2) FROM m JOIN ready ON ready.id = m.id JOIN recipient r ON r.message_id = m.id
			GROUP BY 1, 2 HAVING bool_or(`+foldedSQL("r")+` = $2)`, tenants, folded, [16]byte{}, maxSubjectCount), pgx.RowToStructByPos[waitingMessage])
		if err != nil {
			return err
		}
		return audit(ctx, tx, actor, "subject.erase", veiled(folded), map[string]any{"tenant": q.Tenant, "cancel": cancel, "messages": c.Messages})
	})
	if err != nil {
		return 0, fmt.Errorf("begin erasure: %w", unavailable(err))
	}
	for _, m := range waiting {
		err = nil
		if m.Alone {
			err = db.Cancel(ctx, m.Tenant, m.ID)
		}
		switch {
		case err == nil:
			cancelled++
		case !errors.Is(err, record.ErrConflict): // else it is being sent meanwhile
			return cancelled, err
		}
	}
	return cancelled, nil
}

type waitingMessage struct {
	ID     mail.ID
	Tenant mail.TenantID
	Alone  bool // the address is its only recipient
}

// containing is the ILIKE pattern of texts that contain an address.
func containing(address string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(address) + "%"
}

// EraseSubject erases what is stored about an address, in steps: first its messages, then the events that belong to no message. Next
// is where the following step begins, "" after the last. Messages that are open stay as they are, and are counted. The work of a step
// that is repeated is not lost, and running it once too often changes nothing.
func (db *DB) EraseSubject(ctx context.Context, actor string, q record.SubjectQuery) (e record.Erased, next string, err error) {
	folded := mail.FoldAddress(q.Address)
	step, after, err := subjectStep(q.Cursor)
	if err != nil {
		return e, "", err
	}
	var tenants []int32
	var ids [][16]byte
	err = db.inSubjectTx(ctx, func(tx pgx.Tx) (err error) {
		if tenants, err = tenantsOf(ctx, tx, q.Tenant); err != nil {
			return err
		}
		if step == stepMessages {
			ids, err = pgx.CollectRows(query(ctx, tx, subjectMessagesSQL, tenants, folded, after, subjectPage), pgx.RowTo[[16]byte])
			return err
		}
		if e.Events, next, err = eraseEvents(ctx, tx, tenants, q.Address, after); err != nil || next != "" {
			return err
		}
		if err := unsuppressErased(ctx, tx, tenants, folded); err != nil {
			return err
		}
		return audit(ctx, tx, actor, "subject.erased", veiled(folded), map[string]any{"tenant": q.Tenant})
	})
	if err == nil && step == stepMessages {
		next = afterMessages(ids, stepRest)
		for _, id := range ids {
			if err = db.inSubjectTx(ctx, func(tx pgx.Tx) error { return eraseMessage(ctx, tx, id, q.Address, &e) }); err != nil {
				break
			}
		}
	}
	if err != nil {
		return e, "", fmt.Errorf("erase subject: %w", unavailable(err))
	}
	return e, next, nil
}

// unsuppressErased removes the suppressions of an address that is known by its hash. While a message to it is open they stay: it may
// have been loaded for its call already, or be sent again.
func unsuppressErased(ctx context.Context, tx pgx.Tx, tenants []int32, folded string) error {
	_, err := tx.Exec(ctx, `WITH m(id) AS (`+subjectMessagesSQL+`)
		DELETE FROM suppression WHERE tenant_id = ANY ($1) AND email = $2 AND NOT EXISTS (SELECT FROM m WHERE `+openMessageSQL("m.id")+`)`,
		tenants, folded, [16]byte{}, maxSubjectCount)
	return err
}

// eventsPage is how many events one step looks at.
const eventsPage = 20_000

// eraseEvents looks at events that are about no recipient of a message: by the address that they name, and by their payload.
func eraseEvents(ctx context.Context, tx pgx.Tx, tenants []int32, address string, after [16]byte) (n int, next string, err error) {
	const q = `
WITH p AS MATERIALIZED (
    SELECT id FROM event WHERE id > $1 ORDER BY id LIMIT $2
), gone AS (
    UPDATE event e SET recipient = CASE WHEN e.recipient = '' THEN '' ELSE $6 END, url = '', raw = NULL, bounce = e.bounce - 'text'
    WHERE e.id > $1 AND e.id <= (SELECT id FROM p ORDER BY id DESC LIMIT 1) AND e.n IS NULL AND e.tenant_id = ANY ($3::int[] || 0)
      AND (e.recipient = $4 OR e.url ILIKE $5 OR encode(e.raw, 'escape') ILIKE $5 OR e.bounce->>'text' ILIKE $5)
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM p), (SELECT id FROM p ORDER BY id DESC LIMIT 1)`
	var seen int
	var last mail.ID
	err = tx.QueryRow(ctx, q, after, eventsPage, tenants, mail.FoldAddress(address), containing(address), erasedAddress).Scan(&n, &seen, orNoID(&last))
	if seen == eventsPage {
		next = stepRest + ":" + last.String()
	}
	return n, next, err
}

// eraseMessage erases an address from one message, or all that the message says if it is to nobody else.
func eraseMessage(ctx context.Context, tx pgx.Tx, id [16]byte, address string, e *record.Erased) error {
	folded, like := mail.FoldAddress(address), containing(address)
	var open bool
	var subject, sender string
	var tags []string
	var facts []byte
	err := tx.QueryRow(ctx, `SELECT subject, sender, tags, facts FROM message m WHERE id = $1 FOR UPDATE`, id).Scan(&subject, &sender, &tags, &facts)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // its day is being dropped
	}
	if err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, `SELECT `+openMessageSQL("$1"), id).Scan(&open); err != nil { // not before the lock is ours
		return err
	}
	if open {
		e.Open++
		return nil
	}
	var theirs, all int
	err = tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE `+foldedSQL("r")+` = $2), count(*) FROM recipient r WHERE message_id = $1`, id, folded).Scan(&theirs, &all)
	if err != nil {
		return err
	}
	r := newRedactor(address)
	alone := theirs == all
	if alone {
		subject = ""
	}
	if facts, err = r.json(facts); err != nil {
		return err
	}
	for i := range tags {
		tags[i] = r.text(tags[i])
	}
	if err := eraseBody(ctx, tx, id, alone, r); err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(`UPDATE message SET subject = $2, tags = $3, facts = $4, sender = CASE WHEN $5 THEN $6 ELSE sender END,
		sender_folded = CASE WHEN $5 THEN NULL ELSE sender_folded END WHERE id = $1`,
		id, r.text(subject), tags, facts, mail.FoldAddress(sender) == folded, erasedAddress)
	b.Queue(`UPDATE recipient r SET email = $3, folded = NULL, name = '', detail = '', bounce = bounce - 'text'
		WHERE message_id = $1 AND `+foldedSQL("r")+` = $2`, id, folded, erasedAddress)
	b.Queue(`UPDATE recipient SET detail = '', bounce = bounce - 'text' WHERE message_id = $1 AND (detail ILIKE $2 OR bounce->>'text' ILIKE $2)`, id, like)
	b.Queue(`UPDATE attempt SET error = CASE WHEN error ILIKE $2 THEN '' ELSE error END, decision = CASE WHEN decision::text ILIKE $2 THEN '{}' ELSE decision END
		WHERE message_id = $1 AND (error ILIKE $2 OR decision::text ILIKE $2)`, id, like) // a decision quotes earlier errors
	// A payload may name all recipients of its message, so none of its payloads stays.
	b.Queue(`UPDATE event SET raw = NULL WHERE id = ANY (ARRAY(SELECT origin FROM event WHERE message_id = $1 AND origin <> id))`, id)
	b.Queue(`UPDATE event SET raw = NULL, recipient = CASE WHEN recipient = $2 THEN $4 ELSE recipient END,
			url = CASE WHEN recipient = $2 OR url ILIKE $3 THEN '' ELSE url END,
			bounce = CASE WHEN recipient = $2 OR bounce->>'text' ILIKE $3 THEN bounce - 'text' ELSE bounce END
		WHERE message_id = $1`, id, folded, like, erasedAddress)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	e.Messages++
	return nil
}

// eraseBody deletes a body, or erases the address in it if the mail went to others as well.
func eraseBody(ctx context.Context, tx pgx.Tx, id [16]byte, alone bool, r *redactor) error {
	if alone {
		_, err := tx.Exec(ctx, `DELETE FROM body WHERE id = $1`, id)
		return err
	}
	var payload []byte
	err := tx.QueryRow(ctx, `SELECT payload FROM body WHERE id = $1 FOR UPDATE`, id).Scan(&payload)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if payload, err = r.json(payload); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE body SET payload = $2 WHERE id = $1`, id, payload)
	return err
}
