package postgres

import (
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// reportSQL writes events of our own about recipients, from the answer to a call or the end of the wait. So a listener gets an
// event for every end, whichever provider was used. An address that does not exist is suppressed for good, as by a hard
// bounce. A recipient that keepDoubtSQL has turned into failed_unknown is reported as that.
var reportSQL = `
WITH e AS (
    INSERT INTO event (id, origin, tenant_id, account_id, message_id, n, stream, type, name, recipient, at, source, provider_message_id, bounce, key)
    SELECT i.event_id, i.event_id, m.tenant_id, i.account_id, i.id, i.n, m.stream, CASE r.status WHEN 'failed_unknown' THEN r.status ELSE i.type END, r.status, r.email, coalesce(i.at, now()), 'response', i.pmid, i.bounce, i.event_id
    FROM @i
    CROSS JOIN LATERAL (SELECT x.tenant_id, x.stream FROM @message x WHERE x.id = i.id AND x.id BETWEEN @i.id.first AND @i.id.last OFFSET 0) m
    CROSS JOIN LATERAL (SELECT ` + foldedSQL("x") + ` AS email, x.status FROM @recipient x WHERE x.message_id = i.id AND x.message_id BETWEEN @i.id.first AND @i.id.last AND x.n = i.n
        AND (x.status = i.name OR x.status = 'failed_unknown' AND i.type = 'rejected') OFFSET 0) r
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

// addReport reports one recipient's new status by reportSQL, if that has an event. The event's name is that status: if another
// event has settled the recipient first, nothing is reported. Its time is when the call began: so the provider's own events about
// it are later.
func (db *DB) addReport(i *rowset, of queue.Result, account int32, c queue.RecipientChange) {
	if e, bounce := reported(c, of.Announce); e != mail.EventUnmapped {
		i.row().id("event_id", db.clock.NewID()).id("id", of.ID).small("n", c.N).int("account_id", int(account)).text("type", string(e)).
			text("name", string(c.Status)).text("pmid", of.ProviderMessageID).json("bounce", bounce).maybeTime("at", of.CalledAt)
	}
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
