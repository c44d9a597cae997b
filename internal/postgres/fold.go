package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// foldedSQL is a recipient's address as mail.FoldAddress gives it. The column is null if the address is in that form already.
// It is also null in rows of earlier binaries: for these the address in lower case is used. The collation "C" makes that
// independent of the locale, and it misses only capitals outside of ASCII.
func foldedSQL(r string) string {
	return `coalesce(` + r + `.folded, lower(` + r + `.email COLLATE "C"))`
}

// senderSQL is the same for the sender of message m.
const senderSQL = `coalesce(m.sender_folded, lower(m.sender COLLATE "C"))`

// mailedSQL lists the messages of tenant $1 to a folded address. Most addresses are in folded form already and are found by
// the index of addresses; the others have an index of their own.
func mailedSQL(folded string) string {
	return `SELECT x.message_id FROM recipient x WHERE x.tenant_id = $1 AND x.email = ` + folded + `
    UNION ALL SELECT x.message_id FROM recipient x WHERE x.tenant_id = $1 AND ` + foldedSQL("x") + ` = ` + folded + `
        AND (x.folded IS NOT NULL OR x.email <> lower(x.email COLLATE "C"))`
}

// refoldAtOnce bounds one round of RefoldSuppressions.
const refoldAtOnce = 1000

// RefoldSuppressions corrects suppressions that an earlier binary stored under another key than the one that is looked up now.
// That binary folded in SQL, where capitals depend on the locale of the database. Only addresses that are not ASCII can
// differ, and they are few. While such a binary still runs it writes more of them, so this has to be repeated. It reports how
// many it changed.
func (db *DB) RefoldSuppressions(ctx context.Context) (int, error) {
	all := 0
	for after := (address{}); ; {
		n, last, err := db.refoldSome(ctx, after)
		if err != nil {
			return all, fmt.Errorf("refold suppressions: %w", unavailable(err))
		}
		all += n
		if last == (address{}) {
			return all, nil
		}
		after = last
	}
}

// refoldSQL moves rows to their right keys. Of two for the same address and stream, the one that lasts longer stays.
const refoldSQL = `
WITH old AS (
    DELETE FROM suppression s USING unnest($1::int[], $2::text[], $3::text[]) AS i(tenant_id, email, folded)
    WHERE s.tenant_id = i.tenant_id AND s.email = i.email
    RETURNING i.folded, s.*
)
INSERT INTO suppression (tenant_id, email, stream, reason, origin, account, message_id, detail, created_at, expires_at)
SELECT DISTINCT ON (tenant_id, folded, stream) tenant_id, folded, stream, reason, origin, account, message_id, detail, created_at, expires_at
FROM old
ORDER BY tenant_id, folded, stream, expires_at DESC NULLS FIRST
` + longerStaysSQL

// refoldSome looks at the next addresses after one, each with all of its streams.
func (db *DB) refoldSome(ctx context.Context, after address) (changed int, last address, err error) {
	rows, err := db.engine.Query(ctx, `SELECT DISTINCT tenant_id, email FROM suppression
		WHERE email COLLATE "C" ~ '[^ -~]' AND (tenant_id, email) > ($1, $2) ORDER BY tenant_id, email LIMIT $3`,
		after.tenant, after.email, refoldAtOnce)
	if err != nil {
		return 0, last, err
	}
	stored, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a address, err error) {
		return a, row.Scan(&a.tenant, &a.email)
	})
	if err != nil {
		return 0, last, err
	}
	var tenants []int32
	var emails, folded []string
	for _, a := range stored {
		if key := mail.FoldAddress(a.email); key != a.email {
			tenants, emails, folded = append(tenants, int32(a.tenant)), append(emails, a.email), append(folded, key)
		}
	}
	if len(stored) == refoldAtOnce {
		last = stored[len(stored)-1]
	}
	if len(tenants) > 0 {
		_, err = db.engine.Exec(ctx, refoldSQL, tenants, emails, folded)
	}
	return len(tenants), last, err
}
