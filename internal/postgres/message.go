package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// shownStatus is the status of a message as the API shows it: one that waits for its time is scheduled, one that an
// engine holds is sending.
const shownStatus = `
CASE WHEN m.status = 'queued' AND EXISTS (SELECT 1 FROM inflight f WHERE f.id = m.id) THEN 'sending'
     WHEN m.status = 'queued' AND m.send_at > now() THEN 'scheduled' ELSE m.status END`

// shownColumns are the columns of a view of a message without its body.
const shownColumns = `m.id, m.tenant_id, ` + shownStatus + `, m.created_at, m.updated_at, m.send_at, m.expires_at, m.sender, m.subject,
	m.stream, m.tags, m.on_ambiguous, coalesce(m.facts->>'acc', '')`

// Message returns one message with its recipients and attempts, or record.ErrNotFound, also for one of another tenant.
// A message outlives its body: without it, it is shown as in a listing.
func (db *DB) Message(ctx context.Context, tenant mail.TenantID, id mail.ID) (*record.View, error) {
	v := &record.View{}
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		var payload []byte
		q := `SELECT ` + shownColumns + `, coalesce(b.payload, '{}') FROM message m LEFT JOIN body b ON b.id = m.id
			WHERE m.id = $1 AND m.tenant_id = $2`
		err := scanShown(tx.QueryRow(ctx, q, [16]byte(id), tenant), v, &payload)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("message %s: %w", id, record.ErrNotFound)
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(payload, v.Message); err != nil {
			return fmt.Errorf("body of message %s: %w", id, err)
		}
		if v.Waiting, err = readWaiting(ctx, tx, id); err != nil {
			return err
		}
		if v.Recipients, err = readRecipients(ctx, tx, id); err != nil {
			return err
		}
		if v.Attempts, err = readAttempts(ctx, tx, id); err != nil {
			return err
		}
		v.Events, err = readEvents(ctx, tx, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return v, nil
}

func readRecipients(ctx context.Context, tx pgx.Tx, id mail.ID) ([]mail.Recipient, error) {
	rows := query(ctx, tx, `SELECT n, kind, email, name, status, detail, updated_at, bounce FROM recipient
		WHERE message_id = $1 ORDER BY n`, [16]byte(id))
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r mail.Recipient, err error) {
		return r, row.Scan(&r.N, &r.Kind, &r.Address.Email, &r.Address.Name, &r.Status, &r.Detail, &r.UpdatedAt, &r.Bounce)
	})
}

// eventOrder is the natural order of events at the same time: SendGrid reports times in whole seconds.
const eventOrder = `ARRAY['accepted', 'deferred', 'rejected', 'delivered', 'bounced', 'opened', 'clicked', 'unsubscribed', 'complained']`

// readEvents lists the events of a message by the time at which they happened.
func readEvents(ctx context.Context, tx pgx.Tx, id mail.ID) ([]mail.Event, error) {
	rows := query(ctx, tx, `SELECT e.id, e.type, e.name, e.recipient, e.at, e.source, e.provider_message_id, e.bounce, e.machine, e.url,
			e.stream, coalesce(e.n, -1), coalesce(a.name, ''), coalesce(a.kind, '')
		FROM event e LEFT JOIN account a ON a.id = e.account_id
		WHERE e.message_id = $1 AND e.tenant_id > 0 ORDER BY e.at, array_position(`+eventOrder+`, e.type), e.id LIMIT $2`, [16]byte(id), record.MaxShownEvents)
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (mail.Event, error) {
		e := mail.Event{MessageID: id}
		err := row.Scan(intoID(&e.ID), &e.Type, &e.Name, &e.Recipient, &e.At, &e.Source, &e.ProviderMessageID, &e.Bounce, &e.Machine, &e.URL,
			&e.Stream, &e.N, &e.Account, &e.Provider)
		return e, err
	})
}

func readAttempts(ctx context.Context, tx pgx.Tx, id mail.ID) ([]record.Attempt, error) {
	rows := query(ctx, tx, `SELECT t.n, a.name, a.kind, t.decision, coalesce(t.class, ''), t.status, t.code, t.error,
			t.provider_message_id, t.verdict_source, t.started_at, t.finished_at
		FROM attempt t JOIN account a ON a.id = t.account_id WHERE t.message_id = $1 ORDER BY t.n`, [16]byte(id))
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (record.Attempt, error) {
		var a record.Attempt
		err := row.Scan(&a.N, &a.Account, &a.Provider, &a.Decision, &a.Class, &a.Status, &a.Code, &a.Error,
			&a.ProviderMessageID, &a.VerdictSource, &a.StartedAt, orNoTime(&a.FinishedAt))
		return a, err
	})
}

// Messages lists messages of one tenant, newest first, without bodies and attempts. Recipients are part of it.
func (db *DB) Messages(ctx context.Context, f record.Filter) ([]record.View, error) {
	q, args := listSQL(f)
	var views []record.View
	err := db.inTx(ctx, func(tx pgx.Tx) (err error) {
		rows := query(ctx, tx, q, args...)
		views, err = pgx.CollectRows(rows, scanListed)
		if err != nil || len(views) == 0 {
			return err
		}
		return listRecipients(ctx, tx, views)
	})
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	return views, nil
}

func listSQL(f record.Filter) (string, []any) {
	l := listing{`SELECT ` + shownColumns + ` FROM message m WHERE m.tenant_id = $1`, []any{f.Tenant}}
	l.and(f.Status != "", shownStatus+" = $?", string(f.Status))
	l.and(f.From != "", senderSQL+" = $?", mail.FoldAddress(f.From))
	l.and(f.To != "", "m.id IN ("+mailedSQL("$?")+")", mail.FoldAddress(f.To))
	l.and(f.Tag != "", "$? = ANY (m.tags)", f.Tag)
	l.and(f.Stream != "", "m.stream = $?", f.Stream)
	l.and(f.Account != "", `m.id IN (SELECT t.message_id FROM attempt t JOIN account a ON a.id = t.account_id
		WHERE t.message_id = m.id AND a.name = $?)`, f.Account)
	l.and(f.ProviderMessageID != "", "m.id IN (SELECT t.message_id FROM attempt t WHERE t.provider_message_id = $? AND t.provider_message_id <> '')", f.ProviderMessageID)
	return l.newest("m.id", f.Since, f.Until, f.Before, f.Limit)
}

func scanListed(row pgx.CollectableRow) (v record.View, err error) {
	return v, scanShown(row, &v)
}

// scanShown reads shownColumns, and the columns after them into more.
func scanShown(row pgx.Row, v *record.View, more ...any) error {
	m := &mail.Message{}
	v.Message = m
	err := row.Scan(append([]any{
		intoID(&m.ID), &m.Tenant, &v.Status, &m.CreatedAt, &v.UpdatedAt, orNoTime(&m.SendAt), &m.ExpiresAt, &m.From.Email, &m.Subject, &m.Stream,
		&m.Tags, &m.OnAmbiguous, &m.Account,
	}, more...)...)
	if len(m.Tags) == 0 {
		m.Tags = nil
	}
	return err
}

func listRecipients(ctx context.Context, tx pgx.Tx, views []record.View) error {
	ids := make([]mail.ID, len(views))
	at := make(map[[16]byte]int, len(views))
	for i := range views {
		ids[i] = views[i].Message.ID
		at[ids[i]] = i
	}
	rows := query(ctx, tx, `SELECT message_id, n, kind, email, name, status, detail, updated_at, bounce FROM recipient
		WHERE message_id = ANY($1) ORDER BY message_id, n`, rawIDs(ids))
	var id [16]byte
	var r mail.Recipient
	_, err := pgx.ForEachRow(rows, []any{&id, &r.N, &r.Kind, &r.Address.Email, &r.Address.Name, &r.Status, &r.Detail, &r.UpdatedAt, &r.Bounce},
		func() error {
			views[at[id]].Recipients = append(views[at[id]].Recipients, r)
			return nil
		})
	return err
}

// Cancel ends a message that no engine holds. It returns record.ErrConflict when it is too late, and record.ErrNotFound when
// the tenant has no such message.
func (db *DB) Cancel(ctx context.Context, tenant mail.TenantID, id mail.ID) error {
	return db.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM ready WHERE id = $1 AND tenant_id = $2`, [16]byte(id), tenant)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return missingOr(ctx, tx, tenant, id, "it is being sent, or settled already")
		}
		b := &pgx.Batch{}
		idRows([]mail.ID{id}).queue(b, lockDoubtSQL)
		b.Queue(`UPDATE recipient SET status = 'cancelled', updated_at = now() WHERE message_id = $1 AND status = 'queued'`, [16]byte(id))
		queueEnds(b, [][16]byte{id})
		return tx.SendBatch(ctx, b).Close()
	})
}

// Resend makes a message ready again for those of its recipients that failed, expired or were cancelled. Recipients whose
// status a provider's event has set stay as they are; to try these again takes a new message. It returns record.ErrConflict
// when there are no recipients to resend to, the message is still open or its body is gone, and record.ErrNotFound when there
// is no such message. Without force it returns record.ErrMaybeSent when a provider may have sent the message.
func (db *DB) Resend(ctx context.Context, tenant mail.TenantID, id mail.ID, force bool) error {
	const failed = `('failed', 'failed_unknown', 'expired', 'cancelled')`
	return db.inTx(ctx, func(tx pgx.Tx) error {
		// What is read in the statement that waits for the lock may be older than the lock.
		err := tx.QueryRow(ctx, `SELECT FROM message WHERE id = $1 AND tenant_id = $2 FOR UPDATE`, [16]byte(id), tenant).Scan()
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("message %s: %w", id, record.ErrNotFound)
		}
		if err != nil {
			return err
		}
		var open, whole, doubt bool
		err = tx.QueryRow(ctx, `SELECT `+openMessageSQL("$1")+`, EXISTS (SELECT FROM body WHERE id = $1),
			EXISTS (SELECT FROM recipient WHERE message_id = $1 AND status = 'failed_unknown')`, [16]byte(id)).Scan(&open, &whole, &doubt)
		if err != nil {
			return err
		}
		if open {
			return fmt.Errorf("message %s is still open: %w", id, record.ErrConflict)
		}
		if !whole {
			return fmt.Errorf("message %s: its body is past its retention: %w", id, record.ErrConflict)
		}
		if doubt && !force {
			return fmt.Errorf("message %s: %w", id, record.ErrMaybeSent)
		}
		tag, err := tx.Exec(ctx, `UPDATE recipient SET status = 'queued', detail = '', updated_at = now()
			WHERE message_id = $1 AND event_rank = 0 AND status IN `+failed, [16]byte(id))
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return missingOr(ctx, tx, tenant, id, "none of its recipients failed")
		}
		b := &pgx.Batch{}
		b.Queue(`UPDATE message SET expires_at = greatest(expires_at, now() + interval '1 day'),
			resent_after = CASE WHEN $2 THEN resent_after ELSE coalesce((SELECT max(n) FROM attempt WHERE message_id = $1), 0) END
			WHERE id = $1`, [16]byte(id), doubt)
		b.Queue(`INSERT INTO ready (id, lane, tenant_id, due, attempts)
			SELECT $1, 0, $2, now(), coalesce((SELECT max(n) FROM attempt WHERE message_id = $1), 0)`, [16]byte(id), tenant)
		queueFold(b, [][16]byte{id})
		return tx.SendBatch(ctx, b).Close()
	})
}

// missingOr returns record.ErrNotFound if the tenant has no such message, and else record.ErrConflict with the reason why.
func missingOr(ctx context.Context, tx pgx.Tx, tenant mail.TenantID, id mail.ID, why string) error {
	var there bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM message WHERE id = $1 AND tenant_id = $2)`, [16]byte(id), tenant).Scan(&there)
	switch {
	case err != nil:
		return err
	case !there:
		return fmt.Errorf("message %s: %w", id, record.ErrNotFound)
	}
	return fmt.Errorf("message %s: %s: %w", id, why, record.ErrConflict)
}
