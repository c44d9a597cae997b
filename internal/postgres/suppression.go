package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
FROM @i
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
		if list[0].By == "" {
			return nil
		}
		return audit(ctx, tx, list[0].By, "suppression.import", "", map[string]any{"tenant": tenant, "rows": len(list), "added": added})
	})
}

// addSuppressions adds suppressions in a transaction, in which note writes the audit entry.
func (db *DB) addSuppressions(ctx context.Context, tenant mail.TenantID, list []record.Suppression, note func(tx pgx.Tx, added int64) error) (int64, error) {
	if len(list) == 0 {
		return 0, nil
	}
	i := rowsAs("i", len(list))
	for k := range list {
		s := &list[k]
		i.row().text("email", mail.FoldAddress(s.Email)).text("stream", s.Stream).text("reason", s.Reason).text("origin", s.Origin).
			text("account", s.Account).maybeID("message_id", s.MessageID).text("detail", s.Detail).
			maybeTime("created_at", s.CreatedAt).maybeTime("expires_at", s.ExpiresAt)
	}
	var added int64
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, addSuppressionsSQL, i, tenant)
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
		rs := query(ctx, tx, `DELETE`+rows+` AND ($4 OR reason <> 'complaint' OR expires_at < now()) RETURNING stream, reason`,
			tenant, mail.FoldAddress(email), streams, complaints)
		gone, err := pgx.CollectRows(rs, pgx.RowToStructByPos[lifted])
		if err != nil {
			return err
		}
		if len(streams) == 0 || slices.Contains(streams, "") {
			rs := query(ctx, tx, `DELETE FROM erased WHERE tenant_id = $1 AND hash = $2 AND ($3 OR NOT complaint)
				RETURNING '', CASE WHEN complaint THEN 'complaint' ELSE 'erased' END`, tenant, db.erasedHash(mail.FoldAddress(email)), complaints)
			more, err := pgx.CollectRows(rs, pgx.RowToStructByPos[lifted])
			if err != nil {
				return err
			}
			gone = append(gone, more...)
		}
		var left bool // only a complaint can be left
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT`+rows+`) OR EXISTS (SELECT FROM erased WHERE tenant_id = $1 AND hash = $4 AND complaint)`,
			tenant, mail.FoldAddress(email), streams, db.erasedHash(mail.FoldAddress(email))).Scan(&left); err != nil {
			return err
		}
		if left && !complaints {
			return record.ErrForbidden
		}
		if len(gone) == 0 {
			return fmt.Errorf("suppression: %w", record.ErrNotFound)
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
// and stream of after. Email, Stream and Reason of match select where they are set. One whose data were erased is found by its
// address only.
func (db *DB) FindSuppressions(ctx context.Context, match, after record.Suppression, limit int) ([]record.Suppression, error) {
	const q = `
SELECT tenant_id, email, stream, reason, origin, account, message_id, detail, created_at, expires_at FROM suppression
WHERE tenant_id = $1 AND ($2 = '' OR email = $2) AND ($3 = '' OR stream = $3) AND ($4 = '' OR reason = $4)
  AND (email, stream) > ($5, $6) AND (expires_at IS NULL OR expires_at > now())
ORDER BY email, stream
LIMIT $7`
	rows := query(ctx, db.api, q, match.Tenant, mail.FoldAddress(match.Email), match.Stream, match.Reason, after.Email, after.Stream, limit)
	list, err := collect("list suppressions", rows, func(row pgx.CollectableRow) (record.Suppression, error) {
		var s record.Suppression
		err := row.Scan(&s.Tenant, &s.Email, &s.Stream, &s.Reason, &s.Origin, &s.Account, orNoID(&s.MessageID), &s.Detail, &s.CreatedAt,
			orNoTime(&s.ExpiresAt))
		return s, err
	})
	if err != nil || match.Email == "" || match.Stream != "" || match.Reason != "" || after.Email != "" {
		return list, err
	}
	erased, err := db.erasedSuppression(ctx, match.Tenant, mail.FoldAddress(match.Email))
	return append(erased, list...), err
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
