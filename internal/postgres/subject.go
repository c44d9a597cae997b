package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// subjectMessagesSQL lists messages of the tenants $1 that folded address $2 got or sent, with ids after $3, at most $4.
const subjectMessagesSQL = `
(SELECT x.message_id FROM recipient x WHERE x.tenant_id = ANY ($1) AND x.email = $2 AND x.message_id > $3 ORDER BY 1 LIMIT $4)
UNION
(SELECT x.message_id FROM recipient x WHERE x.tenant_id = ANY ($1) AND coalesce(x.folded, lower(x.email COLLATE "C")) = $2
    AND (x.folded IS NOT NULL OR x.email <> lower(x.email COLLATE "C")) AND x.message_id > $3 ORDER BY 1 LIMIT $4)
UNION
(SELECT m.id FROM message m WHERE m.tenant_id = ANY ($1) AND ` + senderSQL + ` = $2 AND m.id > $3 ORDER BY 1 LIMIT $4)
ORDER BY 1 LIMIT $4`

// subjectRowsSQL are the rows that say something about folded address $1 in the messages $2. Of the other recipients of a message
// nothing is told.
const subjectRowsSQL = `
SELECT 'message', to_jsonb(m) FROM message m WHERE id = ANY ($2)
UNION ALL SELECT 'body', convert_from(payload, 'UTF8')::jsonb - '{to,cc,bcc}'::text[] FROM body WHERE id = ANY ($2)
UNION ALL SELECT 'recipient', to_jsonb(r) FROM recipient r WHERE message_id = ANY ($2) AND coalesce(r.folded, lower(r.email COLLATE "C")) = $1
UNION ALL SELECT 'attempt', to_jsonb(a) FROM attempt a WHERE message_id = ANY ($2)
UNION ALL SELECT 'event', to_jsonb(e) - 'xid' || jsonb_build_object('raw', translate(encode(e.raw, 'base64'), E'\n', '')) FROM event e WHERE message_id = ANY ($2) AND recipient IN ('', $1)
UNION ALL SELECT 'webhook_delivery', to_jsonb(d) FROM event e JOIN delivery d ON d.event_id = e.id AND d.id >= e.id WHERE e.message_id = ANY ($2) AND e.recipient = $1`

// subjectRestSQL are the rows about folded address $1 of the tenants $2 that belong to no message.
const subjectRestSQL = `
SELECT 'suppression', to_jsonb(s) FROM suppression s WHERE tenant_id = ANY ($2) AND email = $1
UNION ALL SELECT 'soft_bounces', to_jsonb(s) FROM soft_bounce s WHERE tenant_id = ANY ($2) AND email = $1
UNION ALL SELECT 'event', to_jsonb(e) - 'xid' || jsonb_build_object('raw', translate(encode(e.raw, 'base64'), E'\n', '')) FROM event e
    WHERE tenant_id = ANY ($2::int[] || 0) AND recipient = $1 AND n IS NULL AND recipient <> ''`

// subjectPage is how many messages one step reads or redacts.
const subjectPage = 20

// ExportSubject reads what is stored about an address, in steps: next is where the following one begins, "" after the last. The
// first is audited.
func (db *DB) ExportSubject(ctx context.Context, actor string, q record.SubjectQuery) (rows []record.SubjectRow, next string, err error) {
	folded := mail.FoldAddress(q.Address)
	err = db.inSubjectTx(ctx, func(tx pgx.Tx) error {
		tenants, err := tenantsOf(ctx, tx, q.Tenant)
		if err != nil {
			return err
		}
		step, after, err := subjectStep(q.Cursor)
		if err != nil {
			return err
		}
		if q.Cursor == "" {
			if err := audit(ctx, tx, actor, "subject.export", veiled(folded), map[string]any{"tenant": q.Tenant}); err != nil {
				return err
			}
		}
		if step != stepMessages {
			rows, err = pgx.CollectRows(query(ctx, tx, subjectRestSQL, folded, tenants), pgx.RowToStructByPos[record.SubjectRow])
			return err
		}
		ids, err := pgx.CollectRows(query(ctx, tx, subjectMessagesSQL, tenants, folded, after, subjectPage), pgx.RowTo[[16]byte])
		if err != nil {
			return err
		}
		next = afterMessages(ids, stepRest)
		some, err := firstBodies(ctx, tx, ids)
		if err != nil {
			return err
		}
		if some < len(ids) {
			ids = ids[:some]
			next = stepMessages + ":" + mail.ID(ids[some-1]).String()
		}
		rows, err = pgx.CollectRows(query(ctx, tx, subjectRowsSQL, folded, ids), pgx.RowToStructByPos[record.SubjectRow])
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("export subject: %w", unavailable(err))
	}
	return rows, next, nil
}

// subjectBytes is where a page of an export ends, even if it has fewer messages: bodies may have 30 MiB each.
const subjectBytes = 8 << 20

// firstBodies says how many of the messages, in their order, have bodies of subjectBytes together; at least one.
func firstBodies(ctx context.Context, tx pgx.Tx, ids [][16]byte) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT i, sum(coalesce(octet_length(b.payload), 0)) OVER (ORDER BY i) AS bytes
		FROM unnest($1::uuid[]) i LEFT JOIN body b ON b.id = i) x WHERE bytes <= $2`, ids, subjectBytes).Scan(&n)
	return min(max(n, 1), len(ids)), err
}

// The steps of an export and of an erasure. A cursor is the step, and the last id that it is through with.
const (
	stepMessages = "messages"
	stepRest     = "rest"
)

// subjectStep reads a cursor. "" is the beginning.
func subjectStep(cursor string) (step string, after [16]byte, err error) {
	step, id, _ := strings.Cut(cursor, ":")
	if step == "" {
		step = stepMessages
	}
	if id != "" {
		after, err = mail.ParseID(id)
	}
	return step, after, err
}

// afterMessages is the cursor after a page of messages. then is the step after the last.
func afterMessages(ids [][16]byte, then string) string {
	if len(ids) < subjectPage {
		return then + ":"
	}
	return stepMessages + ":" + mail.ID(ids[len(ids)-1]).String()
}

// tenantsOf gives the id of a tenant, or those of all for "".
func tenantsOf(ctx context.Context, tx pgx.Tx, name string) ([]int32, error) {
	ids, err := pgx.CollectRows(query(ctx, tx, `SELECT id FROM tenant WHERE $1 = '' OR name = $1 ORDER BY id`, name), pgx.RowTo[int32])
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("tenant %s: %w", name, record.ErrNotFound)
	}
	return ids, err
}

// inSubjectTx runs one step of an export or an erasure, which reads whole tables where there is no index.
func (db *DB) inSubjectTx(ctx context.Context, f func(pgx.Tx) error) error {
	return again(func() error {
		return inTx(ctx, db.api, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '30s'`); err != nil {
				return err
			}
			return f(tx)
		})
	})
}
