package postgres

import (
	"bytes"
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// matchSQL finds the message of an event, the account's attempt at it, and the recipient. The attempt is the one that
// has the provider's id; else the last that may have it, since its answer was lost; else the last. Authority is here: an
// event counts only for a message that its account was given.
var matchSQL = `
SELECT i.row, m.tenant_id, m.stream, coalesce(t.n, 0), coalesce(r.n, -1)
FROM unnest($1::int[], $2::uuid[], $3::int[], $4::text[], $7::text[]) AS i(row, message_id, account_id, email, pmid)
CROSS JOIN LATERAL (SELECT tenant_id, stream FROM message WHERE id = i.message_id AND id BETWEEN $5 AND $6 OFFSET 0) m
LEFT JOIN LATERAL (SELECT n FROM attempt WHERE message_id = i.message_id AND message_id BETWEEN $5 AND $6
    AND account_id = i.account_id
    ORDER BY CASE WHEN i.pmid = '' THEN 0 WHEN provider_message_id = i.pmid THEN 2
        WHEN provider_message_id = '' AND (class IS NULL OR class = 'uncertain' OR verdict_source = 'lookup') THEN 1 ELSE 0 END DESC, n DESC
    LIMIT 1) t ON true
LEFT JOIN LATERAL (SELECT n FROM recipient WHERE message_id = i.message_id AND message_id BETWEEN $5 AND $6
    AND (` + foldedSQL("recipient") + ` = i.email OR folded IS NULL AND lower(email) = i.email) ORDER BY n LIMIT 1) r ON true`

// match finds the messages of events. Those that name only the provider's id are found by it, near the time at which the
// provider took the message.
func match(ctx context.Context, tx pgx.Tx, facts []*fact) error {
	if err := matchForeignIDs(ctx, tx, facts); err != nil {
		return err
	}
	rows, accounts := make([]int32, 0, len(facts)), make([]int32, 0, len(facts))
	ids, emails, pmids := make([][16]byte, 0, len(facts)), make([]string, 0, len(facts)), make([]string, 0, len(facts))
	for i, f := range facts {
		if !f.MessageID.IsZero() {
			rows, accounts = append(rows, int32(i)), append(accounts, f.account) //nolint:gosec // bounded by the batch
			ids, emails = append(ids, f.MessageID), append(emails, mail.FoldAddress(f.Recipient))
			pmids = append(pmids, f.ProviderMessageID)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	first, last := span(ids)
	found, err := tx.Query(ctx, matchSQL, rows, ids, accounts, emails, first, last, pmids)
	if err != nil {
		return err
	}
	var row, tenant, attempt int32
	var n int
	var stream string
	_, err = pgx.ForEachRow(found, []any{&row, &tenant, &stream, &attempt, &n}, func() error {
		f := facts[row]
		if attempt == 0 && f.account != 0 {
			f.foreign = true
			return nil
		}
		f.matched, f.attempt, f.N, f.Stream = true, attempt, n, stream
		f.Tenant = tenantID(tenant)
		return nil
	})
	return err
}

// span gives the first and the last of some ids. Statements that look at one message after the other name it, since only
// what is known beforehand keeps the planner from planning for every day that there is, which costs more than they do.
func span(ids [][16]byte) (first, last [16]byte) {
	if len(ids) == 0 {
		return first, last
	}
	first, last = ids[0], ids[0]
	for _, id := range ids[1:] {
		if bytes.Compare(id[:], first[:]) < 0 {
			first = id
		}
		if bytes.Compare(id[:], last[:]) > 0 {
			last = id
		}
	}
	return first, last
}

// The attempt may have been made up to this long before the provider says that it took the message, or after, by clocks
// that differ.
const (
	sentBefore = 10 * time.Minute
	sentAfter  = 5 * time.Minute
)

const foreignSQL = `
SELECT i.row, t.message_id
FROM unnest($1::int[], $2::int[], $3::text[], $4::timestamptz[], $5::timestamptz[]) AS i(row, account_id, pmid, since, until)
CROSS JOIN LATERAL (SELECT message_id FROM attempt
    WHERE started_at BETWEEN i.since AND i.until AND account_id = i.account_id AND provider_message_id = i.pmid LIMIT 1) t`

// maxForeign bounds how many events of one batch are matched by the provider's id: each costs a range of attempts.
const maxForeign = 200

func matchForeignIDs(ctx context.Context, tx pgx.Tx, facts []*fact) error {
	var rows, accounts []int32
	var pmids []string
	var since, until []time.Time
	for i, f := range facts {
		if f.MessageID.IsZero() && f.ProviderMessageID != "" && !f.SentAt.IsZero() && len(rows) < maxForeign {
			rows, accounts, pmids = append(rows, int32(i)), append(accounts, f.account), append(pmids, f.ProviderMessageID) //nolint:gosec // bounded
			since, until = append(since, f.SentAt.Add(-sentBefore)), append(until, f.SentAt.Add(sentAfter))
		}
	}
	if len(rows) == 0 {
		return nil
	}
	found, err := tx.Query(ctx, foreignSQL, rows, accounts, pmids, since, until)
	if err != nil {
		return err
	}
	var row int32
	var id [16]byte
	_, err = pgx.ForEachRow(found, []any{&row, &id}, func() error {
		facts[row].MessageID = id
		return nil
	})
	return err
}
