package postgres

import (
	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// A call whose answer was lost may have sent its message. As long as nothing proves the contrary, its recipients must not
// end as if they had not been mailed, even if another provider refuses them or they expire, are cancelled or suppressed. They
// end as failed_unknown.

// lockDoubtSQL locks the calls that keepDoubtSQL reads. Proof locks them too, so one of the two sees the other.
const lockDoubtSQL = `SELECT FROM attempt WHERE message_id = ANY (@i.id) AND class = 'uncertain' ORDER BY message_id, n FOR NO KEY UPDATE`

// keepDoubtSQL looks at the recipients that this transaction has ended, and turns their end into failed_unknown if a call may
// have sent the message. If such a call was proved to have arrived meanwhile (checked only if $1), they become sent.
const keepDoubtSQL = `
UPDATE recipient r SET status = d.status, detail = CASE WHEN d.status = 'sent' THEN ''
    ELSE left(r.status || ', but an earlier call may have sent it' || coalesce(': ' || nullif(r.detail, ''), ''), 500) END
FROM (
    SELECT t.message_id, CASE WHEN bool_or(t.class = 'accepted') THEN 'sent' ELSE 'failed_unknown' END AS status
    FROM attempt t
    CROSS JOIN LATERAL (SELECT resent_after FROM message WHERE id = t.message_id AND id BETWEEN @i.id.first AND @i.id.last OFFSET 0) m
    WHERE t.message_id = ANY (@i.id) AND t.n > m.resent_after
      AND (t.class = 'uncertain' OR $1 AND ` + provedLaterSQL + `)
    GROUP BY t.message_id
) d
WHERE r.message_id = ANY (@i.id) AND r.message_id = d.message_id AND r.updated_at = now()
  AND r.status IN ('failed', 'expired', 'cancelled', 'suppressed')`

// provedLaterSQL is the condition for a call t that was closed without a verdict and then proved to have arrived: all
// recipients that were open at its time are sent. Calls up to message.resent_after were for other recipients than those that
// are open now.
const provedLaterSQL = `t.class = 'accepted' AND t.seen_at >= t.finished_at`

// sentAfterAllSQL corrects recipients that were given up with an unknown outcome, once a call is proved to have arrived.
const sentAfterAllSQL = `
UPDATE recipient r SET status = 'sent', detail = '', updated_at = now()
WHERE r.message_id = ANY (@i.id) AND r.status = 'failed_unknown' AND EXISTS (
    SELECT FROM attempt t WHERE t.message_id = r.message_id AND t.message_id BETWEEN @i.id.first AND @i.id.last AND t.seen_at IS NOT NULL
    AND t.n > (SELECT resent_after FROM message WHERE id = r.message_id AND id BETWEEN @i.id.first AND @i.id.last) OFFSET 0)`

// queueKeepDoubt runs keepDoubtSQL for messages that this transaction has ended.
func queueKeepDoubt(b *pgx.Batch, ids [][16]byte, proved bool) {
	idRows(ids).queue(b, keepDoubtSQL, proved)
}

// tellEndsSQL writes an event for each recipient that this transaction has ended without a call: expired, failed, or given
// up with an unknown outcome. A cancelled one has no event: the caller who cancels knows.
var tellEndsSQL = `
WITH x AS MATERIALIZED (
    SELECT new_event_id() AS id, r.message_id, r.n, r.tenant_id, ` + foldedSQL("r") + ` AS email, r.status, r.detail, m.stream
    FROM recipient r CROSS JOIN LATERAL (SELECT stream FROM message WHERE id = r.message_id AND id BETWEEN @i.id.first AND @i.id.last OFFSET 0) m
    WHERE r.message_id = ANY (@i.id) AND r.updated_at = now() AND r.status IN ('failed', 'expired', 'failed_unknown')
), e AS (
    INSERT INTO event (id, origin, tenant_id, message_id, n, stream, type, name, recipient, at, source, bounce, key)
    SELECT id, id, tenant_id, message_id, n, stream, CASE status WHEN 'failed_unknown' THEN status ELSE 'rejected' END, status,
           email, now(), 'response', jsonb_build_object('reason', 'other', 'text', detail), id FROM x
    RETURNING id, tenant_id, type, stream
)
SELECT fan_out(array_agg(id), array_agg(tenant_id), array_agg(type), array_agg(stream)) FROM e HAVING count(*) > 0`

// queueEnds comes after the statement that ends recipients without a call. It turns ends that are in doubt into
// failed_unknown, writes the events, and folds the messages.
func queueEnds(b *pgx.Batch, ids [][16]byte) {
	queueKeepDoubt(b, ids, true)
	idRows(ids).queue(b, tellEndsSQL)
	queueFold(b, ids)
}

// doubtful lists the messages whose result ends recipients after an earlier call: the outcome of that may be unknown.
func doubtful(batch []ownedResult, owned []*freed) [][16]byte {
	var ids [][16]byte
	for i, r := range batch {
		if owned[i] == nil || r.N < 2 {
			continue
		}
		for _, c := range r.Recipients {
			if c.Status != mail.Sent && c.Status != mail.Unknown {
				ids = append(ids, r.ID)
				break
			}
		}
	}
	return ids
}

// vouchSQL notes that a call that was taken for lost did arrive: its own answer said so, but came late.
const vouchSQL = `
UPDATE attempt t SET seen_at = now()
FROM @i
WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.n = i.n AND t.owner = i.owner
  AND t.class = 'accepted' AND t.finished_at = now() AND t.seen_at IS NULL`

// vouchedSQL settles recipients that wait to be mailed again, or were given up, although such a call has mailed them.
const vouchedSQL = `
UPDATE recipient r SET status = 'sent', detail = '', updated_at = now()
FROM @i
WHERE r.message_id = ANY (@i.id) AND r.message_id = i.id AND r.n = i.n AND r.status IN ('queued', 'failed_unknown')
  AND EXISTS (SELECT FROM attempt WHERE message_id = i.id AND message_id BETWEEN @i.id.first AND @i.id.last AND n = i.attempt AND seen_at = now() OFFSET 0)`

// queueLate settles messages by late answers whose claims were closed by somebody else: the call was taken for lost, and the
// message may have been given up or made ready again. An answer that accepted all recipients is proof, like an event.
func queueLate(b *pgx.Batch, batch []ownedResult, owned []*freed) {
	var ids [][16]byte
	calls, each := rowsAs("i", 0), rowsAs("i", 0)
	for k, r := range batch {
		if owned[k] != nil || r.Class != "accepted" || r.Requeue != nil || len(r.Recipients) == 0 {
			continue
		}
		ids = append(ids, r.ID)
		calls.row().id("id", r.ID).int("n", r.N).id("owner", r.owner)
		for _, c := range r.Recipients {
			if c.Status == mail.Sent {
				each.row().id("id", r.ID).int("attempt", r.N).small("n", c.N)
			}
		}
	}
	if len(ids) == 0 {
		return
	}
	calls.queue(b, vouchSQL)
	idRows(ids).queue(b, settleSeenSQL)
	each.queue(b, vouchedSQL)
	idRows(ids).queue(b, callBackSQL)
	queueFoldChanged(b, ids)
}
