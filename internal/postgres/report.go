package postgres

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// reportSQL writes events of our own about recipients, from the answer to a call or the end of the wait. So a listener gets an
// event for every end, whichever provider was used. An address that does not exist is suppressed for good, as by a hard
// bounce. A recipient that keepDoubtSQL has turned into failed_unknown is reported as that.
var reportSQL = `
WITH e AS (
    INSERT INTO event (id, origin, tenant_id, account_id, message_id, n, stream, type, name, recipient, at, source, provider_message_id, bounce, key)
    SELECT i.event_id, i.event_id, m.tenant_id, i.account_id, i.id, i.n, m.stream, CASE r.status WHEN 'failed_unknown' THEN r.status ELSE i.type END, r.status, r.email, coalesce(i.at, now()), 'response', i.pmid, i.bounce, i.event_id
    FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::int[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $11::timestamptz[])
        AS i(event_id, id, n, account_id, type, name, pmid, bounce, at)
    CROSS JOIN LATERAL (SELECT tenant_id, stream FROM message WHERE id = i.id AND id BETWEEN $9 AND $10 OFFSET 0) m
    CROSS JOIN LATERAL (SELECT ` + foldedSQL("recipient") + ` AS email, status FROM recipient WHERE message_id = i.id AND message_id BETWEEN $9 AND $10 AND n = i.n
        AND (status = i.name OR status = 'failed_unknown' AND i.type = 'rejected') OFFSET 0) r
    RETURNING id, tenant_id, type, stream, recipient, account_id, message_id, bounce
), s AS (
    INSERT INTO suppression (tenant_id, email, reason, origin, account, message_id, detail)
    SELECT DISTINCT ON (e.tenant_id, e.recipient COLLATE "C") e.tenant_id, e.recipient, 'hard_bounce', 'response', a.name, e.message_id, coalesce(e.bounce->>'text', '')
    FROM e CROSS JOIN LATERAL (SELECT name FROM account WHERE id = e.account_id OFFSET 0) a
    WHERE e.bounce->>'class' = 'hard'
    ORDER BY e.tenant_id, e.recipient COLLATE "C"
    ` + longerStaysSQL + `
)
SELECT fan_out(array_agg(id), array_agg(tenant_id), array_agg(type), array_agg(stream)) FROM e WHERE ` + listenedSQL

// reports are events of our own, as columns.
type reports struct {
	newID              func() mail.ID
	events, ids        [][16]byte
	ns                 []int16
	accounts           []int32
	types, names, pmid []string
	bounces            [][]byte
	at                 []*time.Time // when the call began: so the provider's own events about it are later
}

// add reports one recipient's new status, if that has an event. The event's name is that status: if another event has settled
// the recipient first, nothing is reported.
func (r *reports) add(of queue.Result, account int32, c queue.RecipientChange) error {
	e, bounce := reported(c, of.Announce)
	if e == mail.EventUnmapped {
		return nil
	}
	raw, err := record.MarshalBounce(bounce)
	if err != nil {
		return err
	}
	r.events, r.ids = append(r.events, r.newID()), append(r.ids, of.ID)
	r.ns, r.accounts = append(r.ns, int16(c.N)), append(r.accounts, account) //nolint:gosec // at most 1000
	r.types, r.names, r.pmid = append(r.types, string(e)), append(r.names, string(c.Status)), append(r.pmid, of.ProviderMessageID)
	r.bounces, r.at = append(r.bounces, raw), append(r.at, orNull(of.CalledAt))
	return nil
}

// reported says which event reports a new status, and with which reason. It is EventUnmapped if none does.
func reported(c queue.RecipientChange, announce bool) (mail.EventType, *mail.Bounce) {
	why := c.Bounce
	switch {
	case c.Status == mail.Sent && announce:
		return mail.EventAccepted, nil
	case c.Status == mail.Failed, c.Status == mail.Expired:
		if why == nil {
			why = &mail.Bounce{Reason: mail.OtherReason, Text: c.Detail}
		}
		return mail.EventRejected, why
	case c.Status == mail.Suppressed:
		if why == nil {
			why = &mail.Bounce{Reason: mail.SuppressedBounce, Text: c.Detail}
		}
		return mail.EventRejected, why
	}
	return mail.EventUnmapped, nil
}

func (r *reports) queue(b *pgx.Batch) {
	if len(r.events) > 0 {
		first, last := span(r.ids)
		b.Queue(reportSQL, r.events, r.ids, r.ns, r.accounts, r.types, r.names, r.pmid, r.bounces, first, last, r.at)
	}
}
