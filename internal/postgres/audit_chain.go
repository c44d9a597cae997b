package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// chainBytes is where a part of the chain ends, even if it has fewer links than asked for. An entry may be some 100 kB long.
const chainBytes = 4 << 20

// AuditChain reads the links of the audit after a place, at most limit, and looks for entries without a link up to where it got.
func (db *DB) AuditChain(ctx context.Context, after record.AuditPlace, limit int) (c record.AuditChain, err error) {
	var found int
	rows := query(ctx, db.api, `
WITH l AS (
    SELECT l.n, l.audit_id, l.hash, CASE WHEN a.id IS NULL THEN '' ELSE audit_content(a) END AS content
    FROM audit_link l LEFT JOIN audit a ON a.id = l.audit_id WHERE l.n > $1 ORDER BY l.n LIMIT $2
), s AS (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY n) - octet_length(content) AS bytes, count(*) OVER () AS found FROM l
)
SELECT n, audit_id, hash, content, found FROM s WHERE bytes < $3 ORDER BY n`, after.N, limit, chainBytes)
	links, err := collect("read the audit's chain", rows, func(row pgx.CollectableRow) (l record.AuditLink, err error) {
		return l, row.Scan(&l.N, &l.ID, &l.Hash, &l.Content, &found)
	})
	if err != nil {
		return c, err
	}
	c = record.AuditChain{Links: links, Next: after, More: found == limit || len(links) < found}
	for _, l := range links {
		c.Next.N, c.Next.ID = l.N, max(c.Next.ID, l.ID)
	}
	last := c.Next.ID
	if !c.More {
		last = 1<<63 - 1
	}
	rows = query(ctx, db.api, `SELECT id FROM audit a WHERE id > $1 AND id <= $2 AND action <> 'login.failed'
		AND NOT EXISTS (SELECT FROM audit_link l WHERE l.audit_id = a.id) ORDER BY id LIMIT 20`, after.ID, last)
	c.Unlinked, err = collect("look for audit entries without a link", rows, pgx.RowTo[int64])
	return c, err
}

// DropAudit deletes the entries from before a time, and leaves one that says up to where they are gone. It deletes at most 5,000 and
// reports how many.
func (db *DB) DropAudit(ctx context.Context, before time.Time) (int, error) {
	var n int
	err := db.engine.QueryRow(ctx, `SELECT drop_audit($1)`, before).Scan(&n)
	return n, failed("drop old audit entries", err)
}

// AuditRights says what our role may do to the audit beside adding entries. None is best.
func (db *DB) AuditRights(ctx context.Context) ([]string, error) {
	const q = `
SELECT lower(p) || ' ' || t FROM unnest(ARRAY['audit', 'audit_link']) t, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p
WHERE has_table_privilege(t, p) AND (t, p) <> ('audit', 'INSERT')
ORDER BY 1`
	all, err := pgx.CollectRows(query(ctx, db.api, q), pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the rights on the audit: %w", unavailable(err))
	}
	return all, nil
}
