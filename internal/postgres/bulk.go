package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	bulkLooked = 20_000 // rows that one page looks at
	bulkChange = 500    // messages that one page changes
	bulkResend = 100    // messages that one page sends again: each takes a transaction
)

// bulkTimeout bounds the one statement of BulkCount.
const bulkTimeout = "10s"

// bulkFrom lists the candidates of an action as q, with their messages as m. A queue is far smaller than the messages that are
// kept, so actions on it begin there.
func bulkFrom(f *record.Bulk) string {
	const lookup = ` q CROSS JOIN LATERAL (SELECT * FROM message WHERE id = q.id OFFSET 0) m`
	switch {
	case f.Action == record.BulkResend:
		return `message q CROSS JOIN LATERAL (SELECT q.*) m`
	case f.Status == mail.Unknown:
		return `unknown` + lookup
	default:
		return `ready` + lookup
	}
}

// bulkHit is the condition under which a candidate is meant. It adds its values to the parameters.
func bulkHit(f *record.Bulk, l *listing) string {
	c := listing{sql: "true", args: l.args}
	c.and(f.Tenant != 0, "m.tenant_id = $?", f.Tenant)
	c.and(f.From != "", senderSQL+" = $?", mail.FoldAddress(f.From))
	c.and(f.To != "", "EXISTS (SELECT FROM recipient x WHERE x.message_id = m.id AND "+foldedSQL("x")+" = $? OFFSET 0)", mail.FoldAddress(f.To))
	c.and(f.Tag != "", "$? = ANY (m.tags)", f.Tag)
	c.and(f.Stream != "", "m.stream = $?", f.Stream)
	c.and(f.Account != "", `EXISTS (SELECT FROM attempt t JOIN account a ON a.id = t.account_id
		WHERE t.message_id = m.id AND a.name = $? OFFSET 0)`, f.Account)
	switch {
	case f.Action == record.BulkResend:
		c.and(true, "m.status = $?", string(f.Status))
	case f.Status == mail.Scheduled:
		c.sql += " AND m.send_at > now()"
	case f.Status == mail.Queued:
		c.sql += " AND (m.send_at IS NULL OR m.send_at <= now())"
	}
	if f.Action == record.BulkRequeue && f.Status != mail.Unknown { // never before the time that its sender chose
		c.sql += " AND q.due > now() AND (m.send_at IS NULL OR m.send_at <= now())"
	}
	l.args = c.args
	return c.sql
}

// bulkRange is the condition for the ids that are still to be looked at.
func bulkRange(f *record.Bulk, l *listing) string {
	c := listing{sql: "true", args: l.args}
	c.and(true, "q.id > $?", [16]byte(f.After))
	c.and(true, "q.id < $?", [16]byte(f.Upto))
	c.and(!f.Since.IsZero(), "q.id >= $?", [16]byte(mail.IDAt(f.Since)))
	c.and(!f.Until.IsZero(), "q.id < $?", [16]byte(mail.IDAt(f.Until)))
	l.args = c.args
	return c.sql
}

// BulkCount counts the messages that an action would change, up to record.MaxCounted. If that takes longer than bulkTimeout, it
// returns *mail.Invalid.
func (db *DB) BulkCount(ctx context.Context, f record.Bulk) (n int, err error) {
	l := listing{}
	q := `SELECT count(*) FROM (SELECT FROM ` + bulkFrom(&f) + ` WHERE ` + bulkRange(&f, &l) + ` AND ` + bulkHit(&f, &l) +
		fmt.Sprintf(` LIMIT %d) x`, record.MaxCounted)
	err = pgx.BeginTxFunc(ctx, db.api, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '`+bulkTimeout+`'`); err != nil {
			return err
		}
		return tx.QueryRow(ctx, q, l.args...).Scan(&n)
	})
	if isCode(err, "57014") { // cancelled by the timeout
		return 0, &mail.Invalid{Fields: []mail.Field{{
			Field: "since", Code: "too_much", Message: "takes longer than " + bulkTimeout + " to count: choose a shorter span",
		}}}
	}
	if err != nil {
		return 0, fmt.Errorf("count messages: %w", unavailable(err))
	}
	return n, nil
}

// Bulk does an action to the next messages of f, looking at no more than bulkLooked. Messages that it has changed are selected
// no more, so a page that failed can be repeated.
func (db *DB) Bulk(ctx context.Context, actor string, f record.Bulk) (record.BulkPage, error) {
	var page record.BulkPage
	var found bulkFound
	err := again(func() error {
		return db.inTx(ctx, func(tx pgx.Tx) (err error) {
			page = record.BulkPage{}
			if f.Audit != nil {
				if err := audit(ctx, tx, actor, "message."+string(f.Action), "", f.Audit); err != nil {
					return err
				}
			}
			if found, err = findBulk(ctx, tx, &f); err != nil || len(found.ids) == 0 || f.Action == record.BulkResend {
				return err
			}
			page.Done, err = changeBulk(ctx, tx, &f, found.ids)
			page.Skipped = len(found.ids) - page.Done
			return err
		})
	})
	if err == nil && f.Action == record.BulkResend {
		page, err = db.resendAll(ctx, found, f.Force)
	}
	page.Last = found.last
	return page, failed("change messages", err)
}

// bulkFound are the messages of one page.
type bulkFound struct {
	ids     [][16]byte
	tenants []mail.TenantID
	last    mail.ID // zero: there are no further candidates
}

func findBulk(ctx context.Context, tx pgx.Tx, f *record.Bulk) (found bulkFound, err error) {
	l := listing{}
	most := bulkChange
	if f.Action == record.BulkResend {
		most = bulkResend
	}
	q := `WITH x AS MATERIALIZED (SELECT q.id, m.tenant_id, ` + bulkHit(f, &l) + ` AS hit FROM ` + bulkFrom(f) + ` WHERE ` + bulkRange(f, &l) +
		fmt.Sprintf(` ORDER BY q.id LIMIT %d) (SELECT id, tenant_id, true FROM x WHERE hit ORDER BY id LIMIT %d)`, bulkLooked, most) +
		fmt.Sprintf(` UNION ALL (SELECT id, 0, (SELECT count(*) FROM x) = %d FROM x ORDER BY id DESC LIMIT 1)`, bulkLooked)
	var id [16]byte
	var tenant mail.TenantID
	var flag bool
	_, err = pgx.ForEachRow(query(ctx, tx, q, l.args...), []any{&id, &tenant, &flag}, func() error {
		switch {
		case tenant != 0:
			found.ids, found.tenants = append(found.ids, id), append(found.tenants, tenant)
		case len(found.ids) == most:
			found.last = found.ids[most-1]
		case flag: // as many as may be looked at: there may be more
			found.last = id
		}
		return nil
	})
	return found, err
}

// changeBulk changes messages of the queue and returns how many. Those that another transaction took meanwhile stay.
func changeBulk(ctx context.Context, tx pgx.Tx, f *record.Bulk, ids [][16]byte) (int, error) {
	const (
		// An account that could repeat the call safely must not do so afterwards: the operator has decided.
		decide = `UPDATE unknown u SET policy = $2, decide_at = now(), avoid = coalesce(u.avoid, '{}') || jsonb_build_object(a.name,
			coalesce(u.avoid -> a.name, '{"why": "ended by an operator"}') || jsonb_build_object('repeat', coalesce(u.avoid -> a.name -> 'repeat', '{"n": 0}') || '{"over": true}'))
			FROM account a WHERE a.id = u.account_id AND u.id = ANY ($1)`
		hurry = `UPDATE ready SET due = now(), held = false WHERE id = ANY ($1) AND due > now()`
	)
	switch {
	case f.Action == record.BulkRequeue && f.Status == mail.Unknown:
		tag, err := tx.Exec(ctx, decide, ids, string(mail.Resend))
		return int(tag.RowsAffected()), err
	case f.Action == record.BulkFail && f.Status == mail.Unknown:
		tag, err := tx.Exec(ctx, decide, ids, string(mail.Never))
		return int(tag.RowsAffected()), err
	case f.Action == record.BulkRequeue:
		tag, err := tx.Exec(ctx, hurry, ids)
		return int(tag.RowsAffected()), err
	}
	end := queue.Ending{Status: mail.Cancelled}
	if f.Action == record.BulkFail {
		end = queue.Ending{Status: mail.Failed, Detail: "ended by an operator"}
	}
	endings := make([]queue.Ending, len(ids))
	for i, id := range ids {
		endings[i] = end
		endings[i].ID = id
	}
	return endAll(ctx, tx, endings)
}

// resendAll sends messages again, each in a transaction.
func (db *DB) resendAll(ctx context.Context, found bulkFound, force bool) (page record.BulkPage, err error) {
	for i, id := range found.ids {
		switch err := db.Resend(ctx, found.tenants[i], id, force); {
		case err == nil:
			page.Done++
		case errors.Is(err, record.ErrMaybeSent):
			page.MaybeSent++
		case errors.Is(err, record.ErrConflict), errors.Is(err, record.ErrNotFound):
			page.Skipped++
		default:
			return page, err
		}
	}
	return page, nil
}
