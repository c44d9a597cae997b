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
FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::uuid[], $8::text[])
    AS i(tenant_id, email, stream, reason, origin, account_id, message_id, detail)
LEFT JOIN account a ON a.id = i.account_id
ON CONFLICT (tenant_id, email, stream) DO UPDATE SET reason = ` + complaintSQL + `, origin = EXCLUDED.origin, account = EXCLUDED.account,
    message_id = EXCLUDED.message_id, detail = EXCLUDED.detail, created_at = now(), expires_at = NULL
    WHERE suppression.expires_at IS NOT NULL OR suppression.reason <> 'complaint' AND EXCLUDED.reason = 'complaint'`

// softSQL counts soft bounces, and suppresses for a while each address that has too many in a row.
const softSQL = `
WITH c AS (
    INSERT INTO soft_bounce AS b (tenant_id, email, n)
    SELECT i.tenant_id, i.email, i.n FROM unnest($1::int[], $2::text[], $3::int[]) AS i(tenant_id, email, n)
    ON CONFLICT (tenant_id, email) DO UPDATE SET last_at = now(),
        n = CASE WHEN b.first_at > now() - $5::interval THEN b.n + EXCLUDED.n ELSE EXCLUDED.n END,
        first_at = CASE WHEN b.first_at > now() - $5::interval THEN b.first_at ELSE now() END
    RETURNING b.tenant_id, b.email, b.n
)
INSERT INTO suppression (tenant_id, email, reason, origin, detail, expires_at)
SELECT tenant_id, email, 'soft_bounce', 'webhook', n || ' soft bounces without a delivery', now() + $5::interval FROM c WHERE n >= $4
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
	var tenants, accounts []int32
	var emails, streams, reasons, origins, details []string
	var messages [][16]byte
	soft, delivered := map[address]int32{}, map[address]bool{}
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
		tenants, emails, streams = append(tenants, int32(f.Tenant)), append(emails, who.email), append(streams, stream)
		reasons, origins = append(reasons, reason), append(origins, originOf(f.Source))
		accounts, messages, details = append(accounts, f.account), append(messages, f.MessageID), append(details, f.Evidence(f.byContent).Detail())
	}
	db.queueSoft(b, soft, delivered)
	if len(emails) > 0 {
		b.Queue(suppressSQL, tenants, emails, streams, reasons, origins, accounts, messages, details)
	}
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
func (db *DB) queueSoft(b *pgx.Batch, soft map[address]int32, delivered map[address]bool) {
	if db.softLimit <= 0 {
		return
	}
	tenants, emails, ns := []int32{}, []string{}, []int32{}
	for _, who := range sortedAddresses(soft) {
		tenants, emails, ns = append(tenants, int32(who.tenant)), append(emails, who.email), append(ns, soft[who])
	}
	if len(emails) > 0 {
		b.Queue(softSQL, tenants, emails, ns, db.softLimit, softSpan)
	}
	for some := range slices.Chunk(sortedAddresses(delivered), intakeChunk) {
		tenants, emails = []int32{}, []string{}
		for _, who := range some {
			tenants, emails = append(tenants, int32(who.tenant)), append(emails, who.email)
		}
		b.Queue(`DELETE FROM soft_bounce s USING unnest($1::int[], $2::text[]) AS i(tenant_id, email)
			WHERE s.tenant_id = ANY ($1) AND s.email = ANY ($2) AND s.tenant_id = i.tenant_id AND s.email = i.email`, tenants, emails)
	}
}

// sortedAddresses gives the keys in the one order in which rows are locked.
func sortedAddresses[V any](m map[address]V) []address {
	all := make([]address, 0, len(m))
	for a := range m {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b address) int {
		if a.tenant != b.tenant {
			return int(a.tenant) - int(b.tenant)
		}
		return strings.Compare(a.email, b.email)
	})
	return all
}
