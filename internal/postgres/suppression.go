package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// complaintSQL is the reason after a suppression is replaced. A complaint in force stays the reason, because lifting it needs a
// scope of its own.
const complaintSQL = `CASE WHEN suppression.reason = 'complaint' AND suppression.expires_at > now() THEN 'complaint' ELSE EXCLUDED.reason END`

// longerStaysSQL decides between a new suppression and the existing one: the one that lasts longer stays. If both last equally
// long, a complaint stays.
const longerStaysSQL = `ON CONFLICT (tenant_id, email, stream) DO UPDATE SET reason = ` + complaintSQL + `, origin = EXCLUDED.origin, account = EXCLUDED.account,
    message_id = EXCLUDED.message_id, detail = EXCLUDED.detail, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at
    WHERE suppression.expires_at < coalesce(EXCLUDED.expires_at, 'infinity') OR suppression.reason <> 'complaint' AND EXCLUDED.reason = 'complaint'
        AND coalesce(suppression.expires_at, 'infinity') = coalesce(EXCLUDED.expires_at, 'infinity')`

// addSuppressionsSQL adds suppressions, each address and stream once. Of two for the same, the one that lasts longer stays. If
// both last equally long, a complaint stays, or else the first.
const addSuppressionsSQL = `
INSERT INTO suppression (tenant_id, email, stream, reason, origin, account, message_id, detail, created_at, expires_at)
SELECT DISTINCT ON (i.email, i.stream) $1::int, i.email, i.stream, i.reason, i.origin, i.account, i.message_id, i.detail,
    coalesce(i.created_at, now()), i.expires_at
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[], $9::timestamptz[], $10::timestamptz[])
    AS i(email, stream, reason, origin, account, message_id, detail, created_at, expires_at)
ORDER BY i.email, i.stream, i.expires_at DESC NULLS FIRST, i.reason <> 'complaint'
` + longerStaysSQL

// Suppress stops mail of a tenant to an address, however it is spelled: see mail.FoldAddress. The existing suppression is kept,
// unless it expires earlier, or the new one is a complaint and lasts as long.
func (db *DB) Suppress(ctx context.Context, s record.Suppression) error {
	_, err := db.addSuppressions(ctx, s.Tenant, []record.Suppression{s}, func(tx pgx.Tx, added int64) error {
		if s.By == "" || added == 0 {
			return nil
		}
		return audit(ctx, tx, s.By, "suppression.create", veiled(s.Email), map[string]any{
			"tenant": s.Tenant, "stream": s.Stream, "reason": s.Reason,
		})
	})
	if err != nil {
		return fmt.Errorf("suppress: %w", err)
	}
	return nil
}

// ImportSuppressions adds many suppressions in one statement, all to the given tenant: their own Tenant is ignored. It returns
// how many were new or have replaced others; the rest were there already. A few thousand are a good number. Each call writes one
// audit entry, with By of the first suppression as the actor.
func (db *DB) ImportSuppressions(ctx context.Context, tenant mail.TenantID, list []record.Suppression) (int64, error) {
	return db.addSuppressions(ctx, tenant, list, func(tx pgx.Tx, added int64) error {
		if len(list) == 0 || list[0].By == "" {
			return nil
		}
		return audit(ctx, tx, list[0].By, "suppression.import", "", map[string]any{"tenant": tenant, "rows": len(list), "added": added})
	})
}

// addSuppressions adds suppressions in a transaction, in which note writes the audit entry.
func (db *DB) addSuppressions(ctx context.Context, tenant mail.TenantID, list []record.Suppression, note func(tx pgx.Tx, added int64) error) (int64, error) {
	n := len(list)
	emails, streams, reasons, origins := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	accounts, messages, details := make([]string, n), make([]*[16]byte, n), make([]string, n)
	created, expires := make([]*time.Time, n), make([]*time.Time, n)
	for i := range list {
		s := &list[i]
		emails[i], streams[i], reasons[i], origins[i] = mail.FoldAddress(s.Email), s.Stream, s.Reason, s.Origin
		accounts[i], details[i] = s.Account, s.Detail
		created[i], expires[i] = orNull(s.CreatedAt), orNull(s.ExpiresAt)
		if !s.MessageID.IsZero() {
			messages[i] = (*[16]byte)(&s.MessageID)
		}
	}
	var added int64
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, addSuppressionsSQL, tenant, emails, streams, reasons, origins, accounts, messages, details, created, expires)
		if err != nil {
			return err
		}
		added = tag.RowsAffected()
		return note(tx, added)
	})
	if err != nil {
		return 0, fmt.Errorf("add suppressions: %w", err)
	}
	return added, nil
}

// lifted is a deleted suppression, as shown in the audit.
type lifted struct {
	Stream string `json:"stream"`
	Reason string `json:"reason"`
}

// Unsuppress allows mail to an address again, or returns record.ErrNotFound. Without streams it deletes all suppressions of
// the address; with streams only those of exactly these, where "" is the one for all streams. If one of them is a complaint in
// force and complaints is false, it deletes none and returns record.ErrForbidden. The audit entry lists the deleted ones and says
// whether there was a complaint among them.
func (db *DB) Unsuppress(ctx context.Context, actor string, tenant mail.TenantID, email string, complaints bool, streams ...string) error {
	const rows = ` FROM suppression WHERE tenant_id = $1 AND email = $2 AND ($3::text[] IS NULL OR stream = ANY ($3))`
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		rs, err := tx.Query(ctx, `DELETE`+rows+` AND ($4 OR reason <> 'complaint' OR expires_at < now()) RETURNING stream, reason`,
			tenant, mail.FoldAddress(email), streams, complaints)
		if err != nil {
			return err
		}
		gone, err := pgx.CollectRows(rs, pgx.RowToStructByPos[lifted])
		if err != nil {
			return err
		}
		var left bool // only a complaint can be left
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT`+rows+`)`, tenant, mail.FoldAddress(email), streams).Scan(&left); err != nil {
			return err
		}
		if left && !complaints {
			return record.ErrForbidden
		}
		if err := affected(int64(len(gone)), nil, "suppression"); err != nil {
			return err
		}
		return audit(ctx, tx, actor, "suppression.delete", veiled(email), map[string]any{
			"tenant": tenant, "lifted": gone, "complaint": slices.ContainsFunc(gone, func(l lifted) bool { return l.Reason == "complaint" }),
		})
	})
	if err != nil {
		return fmt.Errorf("unsuppress: %w", err)
	}
	return nil
}

// FindSuppressions lists the suppressions in force of match.Tenant, by address and stream, beginning after the address
// and stream of after. Email, Stream and Reason of match select where they are set.
func (db *DB) FindSuppressions(ctx context.Context, match, after record.Suppression, limit int) ([]record.Suppression, error) {
	const q = `
SELECT tenant_id, email, stream, reason, origin, account, message_id, detail, created_at, expires_at FROM suppression
WHERE tenant_id = $1 AND ($2 = '' OR email = $2) AND ($3 = '' OR stream = $3) AND ($4 = '' OR reason = $4)
  AND (email, stream) > ($5, $6) AND (expires_at IS NULL OR expires_at > now())
ORDER BY email, stream
LIMIT $7`
	rows, err := db.api.Query(ctx, q, match.Tenant, mail.FoldAddress(match.Email), match.Stream, match.Reason, after.Email, after.Stream, limit)
	if err != nil {
		return nil, fmt.Errorf("list suppressions: %w", unavailable(err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (record.Suppression, error) {
		var s record.Suppression
		var message *[16]byte
		var expires *time.Time
		err := row.Scan(&s.Tenant, &s.Email, &s.Stream, &s.Reason, &s.Origin, &s.Account, &message, &s.Detail, &s.CreatedAt, &expires)
		if message != nil {
			s.MessageID = *message
		}
		s.ExpiresAt = orZero(expires)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("list suppressions: %w", unavailable(err))
	}
	return list, nil
}

// veiled is an address as the audit shows it, such as a***@example.org. The audit is kept longer than the mail, and a reader who
// looks for an address knows it already.
func veiled(address string) string {
	folded := mail.FoldAddress(address)
	at := strings.LastIndexByte(folded, '@')
	if at <= 0 {
		return folded
	}
	_, first := utf8.DecodeRuneInString(folded)
	return folded[:first] + "***" + folded[at:]
}
