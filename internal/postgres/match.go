package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// matchSQL finds the message of an event, the account's attempt at it, and the recipient. The attempt is the one that
// has the provider's id; else the last that may have it because its answer was lost; else the last. The recipient is the one
// that the event names; else, for an event that is matched by its message, the only recipient of the message. This is the check
// of authority: an event counts only for a message that its account was given, and only for a recipient of that message. The
// last two columns are for fact.shared: whether the message has several recipients, and whether the named one was in no call.
var matchSQL = `
SELECT i.row, m.tenant_id, m.stream, coalesce(t.n, 0), coalesce(r.n, o.n, -1), CASE WHEN r.n IS NULL THEN coalesce(o.email, '') ELSE '' END,
    o.n IS NULL,
    coalesce(r.status IN ('queued', 'failed', 'suppressed', 'cancelled', 'expired') AND coalesce(t.class, 'uncertain') <> 'uncertain', false)
FROM @i
CROSS JOIN LATERAL (SELECT x.tenant_id, x.stream FROM @message x WHERE x.id = i.message_id AND x.id BETWEEN @i.message_id.first AND @i.message_id.last OFFSET 0) m
LEFT JOIN LATERAL (SELECT n, class FROM @attempt x WHERE message_id = i.message_id AND message_id BETWEEN @i.message_id.first AND @i.message_id.last
    AND account_id = i.account_id
    ORDER BY CASE WHEN i.pmid = '' THEN 0 WHEN provider_message_id = i.pmid THEN 2
        WHEN provider_message_id = '' AND (class IS NULL OR class = 'uncertain' OR verdict_source = 'lookup') THEN 1 ELSE 0 END DESC, n DESC
    LIMIT 1) t ON true
LEFT JOIN LATERAL (SELECT n, status FROM @recipient x WHERE message_id = i.message_id AND message_id BETWEEN @i.message_id.first AND @i.message_id.last
    AND (` + foldedSQL("x") + ` = i.email OR folded IS NULL AND lower(email) = i.email) ORDER BY n LIMIT 1) r ON true
LEFT JOIN LATERAL (SELECT min(n) AS n, min(email) AS email FROM @recipient x WHERE i.by_message AND message_id = i.message_id
    AND message_id BETWEEN @i.message_id.first AND @i.message_id.last HAVING count(*) = 1) o ON true`

// match finds the messages of events, and their recipients. An event that names an address that is not a recipient of its
// message may be forged or mistaken: it is kept as unmapped, and proves only that the call arrived.
func match(ctx context.Context, tx pgx.Tx, facts []*fact) error {
	if err := matchTheirs(ctx, tx, facts); err != nil {
		return err
	}
	i := rowsAs("i", len(facts))
	for row, f := range facts {
		if !f.MessageID.IsZero() {
			i.row().int("row", row).id("message_id", f.MessageID).int("account_id", int(f.account)).text("email", mail.FoldAddress(f.Recipient)).
				text("pmid", f.ProviderMessageID).bool("by_message", f.ByMessage || f.Recipient == "")
		}
	}
	if i.n == 0 {
		return nil
	}
	found := query(ctx, tx, matchSQL, i)
	var tenant mail.TenantID
	var row, attempt, n int
	var stream, only string
	var several, notMailed bool
	named, standIns := map[report]bool{}, []*fact(nil)
	_, err := pgx.ForEachRow(found, []any{&row, &tenant, &stream, &attempt, &n, &only, &several, &notMailed}, func() error {
		f := facts[row]
		if attempt == 0 && f.account != 0 {
			f.foreign = true
			return nil
		}
		f.matched, f.attempt, f.N, f.Stream = true, attempt, n, stream
		f.Tenant, f.proves = tenant, f.Evidence(f.byContent).Rank > 0 || f.Type == mail.EventUnsubscribed
		f.shared = f.ByMessage && several
		switch {
		case f.shared && notMailed: // mail that was not sent can't bounce
			f.N = -1
			f.unmap()
		case only != "":
			f.Recipient = only
			standIns = append(standIns, f)
		case n >= 0:
			named[f.report()] = true
		case f.Recipient != "":
			f.unmap()
		}
		return nil
	})
	keepMildest(standIns, named)
	return err
}

// report identifies, within a batch, the events of one payload about one message.
type report struct {
	origin, message mail.ID
	intake, payload int
}

func (f *fact) report() report { return report{f.Origin, f.MessageID, f.intake, f.payload} }

func (f *fact) unmap() { f.Type, f.Bounce = mail.EventUnmapped, nil }

// keepMildest judges events that named no recipient of their message, but are taken for its only one. They become unmapped if
// their report names the recipient as well. Otherwise only the mildest event of a report counts: mail that was forwarded to two
// addresses, and reached one of them, has reached the recipient.
func keepMildest(standIns []*fact, named map[report]bool) {
	mildest := map[report]*fact{}
	for _, f := range standIns {
		if !f.proves {
			continue
		}
		r := f.report()
		other := mildest[r]
		switch {
		case named[r]:
			f.unmap()
		case other == nil:
			mildest[r] = f
		case f.harm() < other.harm():
			mildest[r] = f
			other.unmap()
		default:
			f.unmap()
		}
	}
}

// harm orders events by how bad their effect on an address is.
func (f *fact) harm() int {
	h := 2 * f.Evidence(f.byContent).Rank
	if reason, _ := suppressionOf(&f.Event); reason != "" {
		h++
	}
	return h
}

// theirsSQL finds messages by the provider's id. Those that travelled in one call may share it: then the one is meant that has
// the recipient. The condition that the id is not empty is for the index.
var theirsSQL = `
SELECT i.row, t.message_id
FROM @i
CROSS JOIN LATERAL (
    SELECT message_id FROM (
        SELECT a.message_id, count(*) OVER () = 1 AS alone,
            EXISTS (SELECT FROM recipient r WHERE r.message_id = a.message_id AND ` + foldedSQL("r") + ` = i.email) AS theirs
        FROM (SELECT DISTINCT message_id FROM (SELECT message_id FROM attempt
            WHERE message_id >= $1 AND provider_message_id = i.pmid AND provider_message_id <> '' AND account_id = i.account_id
            LIMIT 1000) t) a) x
    WHERE alone OR theirs LIMIT 1) t`

// theirsAge is the greatest age of a message that is found by the provider's id: each day costs a look into its index.
const theirsAge = 31 * 24 * time.Hour

// maxTheirs bounds how many events of one batch are matched by the provider's id.
const maxTheirs = 200

// matchTheirs finds the messages of events that carry no id of ours.
func matchTheirs(ctx context.Context, tx pgx.Tx, facts []*fact) error {
	i := rowsAs("i", 0)
	for row, f := range facts {
		if f.MessageID.IsZero() && f.ProviderMessageID != "" && i.n < maxTheirs {
			i.row().int("row", row).int("account_id", int(f.account)).text("pmid", f.ProviderMessageID).text("email", mail.FoldAddress(f.Recipient))
		}
	}
	if i.n == 0 {
		return nil
	}
	found := query(ctx, tx, theirsSQL, i, [16]byte(mail.IDAt(time.Now().Add(-theirsAge))))
	var row int32
	var id [16]byte
	_, err := pgx.ForEachRow(found, []any{&row, &id}, func() error {
		facts[row].MessageID = id
		return nil
	})
	return err
}
