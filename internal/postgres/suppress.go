package postgres

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// suppressedSQL is the only condition for an address that must not be mailed. Its arguments are expressions for the tenant, the
// address as mail.FoldAddress gives it, and the message's stream. For rows of earlier binaries, folded also lists the form that
// those stored. The condition is checked at acceptance, at the claim, and with the intent of the call.
func suppressedSQL(tenant, folded, stream string) string {
	return `EXISTS (SELECT 1 FROM suppression s WHERE s.tenant_id = ` + tenant + ` AND s.email IN (` + folded + `)
        AND (s.stream = '' OR s.stream = ` + stream + `) AND (s.expires_at IS NULL OR s.expires_at > now()))`
}

// softSpan is the time within which soft bounces in a row are counted, and how long they suppress.
const softSpan = 30 * 24 * time.Hour

// suppressSQL adds suppressions. A new one replaces one that expires, and a complaint replaces any other; else the first stays.
const suppressSQL = `
INSERT INTO suppression (tenant_id, email, stream, reason, origin, account, message_id, detail)
SELECT i.tenant_id, i.email, i.stream, i.reason, i.origin, coalesce(a.name, ''), i.message_id, i.detail
FROM @i
LEFT JOIN account a ON a.id = i.account_id
ON CONFLICT (tenant_id, email, stream) DO UPDATE SET reason = ` + complaintSQL + `, origin = EXCLUDED.origin, account = EXCLUDED.account,
    message_id = EXCLUDED.message_id, detail = EXCLUDED.detail, created_at = now(), expires_at = NULL
    WHERE suppression.expires_at IS NOT NULL OR suppression.reason <> 'complaint' AND EXCLUDED.reason = 'complaint'`

// softSQL counts soft bounces, and suppresses for a while each address that has too many in a row.
const softSQL = `
WITH c AS (
    INSERT INTO soft_bounce AS b (tenant_id, email, n)
    SELECT i.tenant_id, i.email, i.n FROM @i
    ON CONFLICT (tenant_id, email) DO UPDATE SET last_at = now(),
        n = CASE WHEN b.first_at > now() - $2::interval THEN b.n + EXCLUDED.n ELSE EXCLUDED.n END,
        first_at = CASE WHEN b.first_at > now() - $2::interval THEN b.first_at ELSE now() END
    RETURNING b.tenant_id, b.email, b.n
)
INSERT INTO suppression (tenant_id, email, reason, origin, detail, expires_at)
SELECT tenant_id, email, 'soft_bounce', 'webhook', n || ' soft bounces without a delivery', now() + $2::interval FROM c WHERE n >= $1
` + longerStaysSQL

// address is a folded address of a tenant.
type address struct {
	tenant mail.TenantID
	email  string
}

// queueSuppressions applies the rules: hard bounces and complaints stop all mail to the address, unsubscribing stops the mail
// of the stream, and soft bounces in a row stop all mail for a while. An event that any recipient of the message could have
// forged (fact.shared) is not enough: one recipient could stop the mail of all others for good.
func (db *DB) queueSuppressions(b *pgx.Batch, known []*fact) {
	i := rowsAs("i", 0)
	soft, delivered := map[address]int{}, map[address]bool{}
	seen := map[[3]string]bool{}
	for _, f := range byAddress(known) {
		if f.N < 0 || f.shared { // not a recipient of the message, whatever address it names; or perhaps forged
			continue
		}
		who := address{f.Tenant, mail.FoldAddress(f.Recipient)}
		switch f.Type {
		case mail.EventDelivered:
			delivered[who] = true
		case mail.EventBounced:
			if countsAsSoft(f.Bounce) {
				soft[who]++
			}
		case mail.EventUnmapped, mail.EventAccepted, mail.EventDeferred, mail.EventRejected, mail.EventComplained,
			mail.EventUnsubscribed, mail.EventOpened, mail.EventClicked, mail.EventFailedUnknown, mail.EventEndpointDisabled:
		}
		reason, stream := suppressionOf(&f.Event)
		key := [3]string{strconv.Itoa(int(f.Tenant)), who.email, stream}
		if reason == "" || seen[key] {
			continue
		}
		seen[key] = true
		i.row().int("tenant_id", int(f.Tenant)).text("email", who.email).text("stream", stream).text("reason", reason).
			text("origin", originOf(f.Source)).int("account_id", int(f.account)).id("message_id", f.MessageID).
			text("detail", f.Evidence(f.byContent).Detail())
	}
	db.queueSoft(b, soft, delivered)
	i.queue(b, suppressSQL)
}

// byAddress sorts facts by tenant and address, and keeps the order of those of one address. Every replica locks rows in this
// order: first the counts of soft bounces, then suppressions.
func byAddress(facts []*fact) []*fact {
	sorted := slices.Clone(facts)
	slices.SortStableFunc(sorted, func(a, b *fact) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), strings.Compare(mail.FoldAddress(a.Recipient), mail.FoldAddress(b.Recipient)))
	})
	return sorted
}

// originOf is the origin of a suppression that an event causes.
func originOf(s mail.EventSource) string {
	if s == mail.FromUnsubscribe {
		return "unsubscribe"
	}
	return "webhook"
}

// suppressionOf gives the reason ("" for none) and the stream ("" for all) of the suppression that an event causes.
func suppressionOf(e *mail.Event) (reason, stream string) {
	switch e.Type {
	case mail.EventComplained:
		return "complaint", ""
	case mail.EventUnsubscribed:
		return "unsubscribe", e.Stream
	case mail.EventBounced, mail.EventRejected:
		if e.Bounce != nil && e.Bounce.Class == mail.Hard {
			return "hard_bounce", ""
		}
	case mail.EventUnmapped, mail.EventAccepted, mail.EventDeferred, mail.EventDelivered, mail.EventOpened, mail.EventClicked,
		mail.EventFailedUnknown, mail.EventEndpointDisabled:
	}
	return "", ""
}

// countsAsSoft reports whether a bounce counts as soft: not one whose cause is the message rather than the address.
func countsAsSoft(b *mail.Bounce) bool {
	return b != nil && b.Class == mail.Soft && b.Reason != mail.Content && b.Reason != mail.MessageTooLarge
}

// queueSoft counts soft bounces, and resets the counts of addresses that had a delivery.
func (db *DB) queueSoft(b *pgx.Batch, soft map[address]int, delivered map[address]bool) {
	if db.softLimit <= 0 {
		return
	}
	i := rowsAs("i", len(soft))
	for _, who := range sortedAddresses(soft) {
		i.row().int("tenant_id", int(who.tenant)).text("email", who.email).int("n", soft[who])
	}
	i.queue(b, softSQL, db.softLimit, softSpan)
	for some := range slices.Chunk(sortedAddresses(delivered), intakeChunk) {
		i := rowsAs("i", len(some))
		for _, who := range some {
			i.row().int("tenant_id", int(who.tenant)).text("email", who.email)
		}
		b.Queue(`DELETE FROM soft_bounce s USING @i
			WHERE s.tenant_id = ANY (@i.tenant_id) AND s.email = ANY (@i.email) AND s.tenant_id = i.tenant_id AND s.email = i.email`, i)
	}
}

// sortedAddresses gives the keys in the one order in which rows are locked.
func sortedAddresses[V any](m map[address]V) []address {
	all := make([]address, 0, len(m))
	for a := range m {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b address) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), strings.Compare(a.email, b.email))
	})
	return all
}
