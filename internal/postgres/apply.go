package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// apply writes the effects of events: proof for the attempts, evidence for the recipients, suppressions, the events themselves,
// and their deliveries to endpoints.
func (db *DB) apply(ctx context.Context, tx pgx.Tx, facts []*fact, out []takenOutcome) error {
	var known, kept []*fact
	for _, f := range facts {
		t := &out[f.intake].taken
		switch {
		case f.foreign:
			t.Foreign++
			continue
		case f.matched:
			t.Stored++
			known = append(known, f)
		case f.orphaned():
			t.Orphans++
		default:
			t.Stored++
		}
		if f.Type == mail.EventUnmapped {
			t.Unmapped++
		}
		kept = append(kept, f)
	}
	known = byMessage(known)
	proved, err := prove(ctx, tx, known, out)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	queueEvidence(b, known, proved)
	db.queueSuppressions(b, known)
	queueEvents(b, kept)
	queueOrphans(b, kept)
	queueTwins(b, proved, &out[0].twins)
	if b.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, b).Close()
}

// orphaned reports whether the message of an event may still be found later.
func (f *fact) orphaned() bool {
	return !f.matched && !f.foreign && (!f.MessageID.IsZero() || f.ProviderMessageID != "")
}

// proveSQL notes that calls arrived, unless their own answer said so. An attempt that was unknown, or decided without
// evidence, becomes accepted.
const proveSQL = `
UPDATE @attempt t SET seen_at = now(), seen_by = i.seen_by,
    class = CASE WHEN t.class = 'uncertain' THEN 'accepted' ELSE t.class END,
    verdict_source = CASE WHEN t.class = 'uncertain' THEN i.seen_by ELSE t.verdict_source END,
    provider_message_id = CASE WHEN t.provider_message_id = '' THEN i.pmid ELSE t.provider_message_id END
FROM @i
WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.n = i.n AND t.seen_at IS NULL AND t.class IS DISTINCT FROM 'accepted'
RETURNING t.message_id`

// settleSeenSQL settles unknown messages whose call is proved to have arrived: its other recipients become sent as well.
// Recipients that were certainly not in the call are queued now. If several calls may have been made, one proved call is
// enough, even if it is not the last.
const settleSeenSQL = `
WITH s AS (
    DELETE FROM unknown u USING attempt t
    WHERE u.id = ANY (@i.id) AND t.message_id = ANY (@i.id) AND t.message_id = u.id AND t.seen_at IS NOT NULL
      AND (t.n = u.n OR ` + provedLaterSQL + ` AND t.n > (SELECT resent_after FROM message WHERE id = u.id AND id BETWEEN @i.id.first AND @i.id.last)
        OR EXISTS (SELECT 1 FROM unknown_call c WHERE c.id = u.id AND c.n = t.n))
    RETURNING u.id, t.n, u.n AS called, u.lane, u.tenant_id, u.tries, u.avoid
), q AS (
    INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid)
    SELECT s.id, s.lane, s.tenant_id, now(), s.called, s.tries, s.avoid FROM s
    WHERE EXISTS (SELECT FROM recipient c WHERE c.message_id = s.id AND c.message_id BETWEEN @i.id.first AND @i.id.last AND c.status = 'queued' OFFSET 0)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, attempts
), m AS ( -- the calls up to now were for others than those who are open now
    UPDATE message SET resent_after = q.attempts FROM q WHERE message.id = ANY (@i.id) AND message.id = q.id
), a AS (
    UPDATE attempt t SET class = 'accepted', verdict_source = t.seen_by FROM s
    WHERE t.message_id = ANY (@i.id) AND t.message_id = s.id AND t.n = s.n AND t.class IS DISTINCT FROM 'accepted'
), r AS (
    UPDATE recipient c SET status = 'sent', detail = '', updated_at = now() FROM s
    WHERE c.message_id = ANY (@i.id) AND c.message_id = s.id AND c.status = 'unknown'
)
SELECT id FROM s`

// prove marks the attempts that events prove. A message whose call is proved leaves unknown. A message that was given up
// becomes sent. A message that waits for a repeat because its outcome was unknown is later taken out of the queue if no
// recipient is left to be mailed. prove returns the messages whose attempts it changed; their status must be folded.
func prove(ctx context.Context, tx pgx.Tx, known []*fact, out []takenOutcome) ([][16]byte, error) {
	var all [][16]byte
	for some := range slices.Chunk(known, intakeChunk) {
		proved, err := proveSome(ctx, tx, some, out)
		if err != nil {
			return nil, err
		}
		all = append(all, proved...)
	}
	return all, nil
}

func proveSome(ctx context.Context, tx pgx.Tx, known []*fact, out []takenOutcome) ([][16]byte, error) {
	calls := proofs(known)
	if calls.n == 0 {
		return nil, nil
	}
	proved, err := pgx.CollectRows(query(ctx, tx, proveSQL, calls), pgx.RowTo[[16]byte])
	if err != nil || len(proved) == 0 {
		return nil, err
	}
	settled, err := pgx.CollectRows(query(ctx, tx, settleSeenSQL, idRows(proved)), pgx.RowTo[[16]byte])
	if err != nil {
		return nil, err
	}
	countSettled(known, settled, out)
	_, err = tx.Exec(ctx, sentAfterAllSQL, idRows(proved))
	return proved, err
}

// proofs lists the attempts that events prove, each once, for proveSQL.
func proofs(known []*fact) *rowset {
	type call struct {
		id mail.ID
		n  int
	}
	seen := map[call]bool{}
	calls := rowsAs("i", 0)
	for _, f := range known {
		if c := (call{f.MessageID, f.attempt}); f.attempt != 0 && f.proves && !seen[c] {
			seen[c] = true
			addProof(calls, c.id, c.n, f.Source, f.ProviderMessageID)
		}
	}
	return calls
}

func addProof(i *rowset, id mail.ID, n int, by mail.EventSource, pmid string) {
	i.row().id("id", id).int("n", n).text("seen_by", string(by)).text("pmid", pmid)
}

// countSettled counts each settled message for one request whose events are about it.
func countSettled(known []*fact, settled [][16]byte, out []takenOutcome) {
	for _, id := range settled {
		for _, f := range known {
			if f.MessageID == id {
				out[f.intake].taken.Settled++
				break
			}
		}
	}
}

// evidenceSQL folds evidence into recipients: the greatest (rank, time, key) stays, as in mail.Evidence.Max.
const evidenceSQL = `
UPDATE @recipient r SET event_rank = i.rank, event_at = i.at, event_key = i.key, status = i.status, detail = i.detail,
    bounce = i.bounce, updated_at = now()
FROM @i
WHERE r.message_id = ANY (@i.id) AND r.message_id = i.id AND r.n = i.n
  AND (i.rank, i.at, i.key) > (r.event_rank, coalesce(r.event_at, '-infinity'), coalesce(r.event_key, '00000000-0000-0000-0000-000000000000'))`

// foldChangedSQL is foldSQL for messages that may not have changed.
const foldChangedSQL = `
UPDATE @message m SET updated_at = now(), status = f.status
FROM @i
CROSS JOIN LATERAL (
    SELECT r.status FROM @recipient r WHERE r.message_id = i.id AND r.message_id BETWEEN @i.id.first AND @i.id.last
    ORDER BY array_position(` + statusOrder + `, r.status) DESC
    LIMIT 1) f
WHERE m.id = ANY (@i.id) AND m.id = i.id AND m.status <> f.status`

// queueFoldChanged folds messages that may not have changed.
func queueFoldChanged(b *pgx.Batch, ids [][16]byte) {
	i := idRows(ids)
	i.queue(b, lockSQL)
	i.queue(b, foldChangedSQL)
}

// callBackSQL takes messages out of the queue that have no recipient left to be mailed.
const callBackSQL = `
DELETE FROM ready q WHERE q.id = ANY (@i.id)
AND NOT EXISTS (SELECT 1 FROM @recipient r WHERE r.message_id = q.id AND r.message_id BETWEEN @i.id.first AND @i.id.last AND r.status = 'queued' OFFSET 0)`

// seat is one recipient of a message.
type seat struct {
	id mail.ID
	n  int
}

// queueEvidence settles recipients, and folds their messages and those that were proved. It writes all recipients before the
// first message, as recordTx does.
func queueEvidence(b *pgx.Batch, known []*fact, proved [][16]byte) {
	best := map[seat]mail.Evidence{}
	var order []seat
	for _, f := range known {
		v := f.Evidence(f.byContent)
		if v.Rank == 0 || f.N < 0 {
			continue
		}
		s := seat{f.MessageID, f.N}
		if _, ok := best[s]; !ok {
			order = append(order, s)
		}
		best[s] = best[s].Max(v)
	}
	var rejected [][16]byte
	for _, s := range order {
		if best[s].Status == mail.Failed || best[s].Status == mail.Suppressed {
			rejected = append(rejected, s.id)
		}
	}
	if len(rejected) > 0 {
		idRows(rejected).queue(b, lockDoubtSQL)
	}
	for some := range slices.Chunk(order, intakeChunk) {
		queueBest(b, some, best)
	}
	if len(rejected) > 0 { // rejected by one provider, but another may have sent it
		queueKeepDoubt(b, rejected, false)
	}
	changed := slices.Clone(proved)
	for _, s := range order {
		changed = append(changed, s.id)
	}
	slices.SortFunc(changed, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	for some := range slices.Chunk(slices.Compact(changed), intakeChunk) {
		idRows(some).queue(b, callBackSQL)
		queueFoldChanged(b, some)
	}
}

// queueBest queues the greatest evidence of each recipient.
func queueBest(b *pgx.Batch, order []seat, best map[seat]mail.Evidence) {
	i := rowsAs("i", len(order))
	for _, s := range order {
		v := best[s]
		i.row().id("id", s.id).small("n", s.n).small("rank", v.Rank).time("at", v.At).id("key", v.Key).text("status", string(v.Status)).
			text("detail", v.Detail()).json("bounce", v.Bounce)
	}
	i.queue(b, evidenceSQL)
}

// insertEventSQL keeps events.
const insertEventSQL = `INSERT INTO event (@e.*) SELECT * FROM @e`

// listenedSQL is the condition that the tenant of an event e has an enabled endpoint. Without such an event fan_out is not
// called: the statement in the function is planned at every call, which costs as much as ten events.
const listenedSQL = `EXISTS (SELECT 1 FROM webhook_endpoint w WHERE w.tenant_id = e.tenant_id AND NOT w.disabled) HAVING count(*) > 0`

// tellSQL queues events for the endpoints.
const tellSQL = `
SELECT fan_out(array_agg(id), array_agg(tenant_id), array_agg(type), array_agg(stream))
FROM unnest(@e.id, @e.tenant_id, @e.type, @e.stream) AS e(id, tenant_id, type, stream) WHERE type <> '' AND ` + listenedSQL

// queueEvents writes events and queues them for the endpoints of their tenants. The payload is stored with the first event
// that is kept of it.
func queueEvents(b *pgx.Batch, kept []*fact) {
	e := rowsAs("e", len(kept))
	origins := map[[2]int]mail.ID{}
	for _, f := range kept {
		at := [2]int{f.intake, f.payload}
		raw := []byte(nil)
		if origins[at].IsZero() {
			origins[at], raw = f.ID, f.raw
		}
		f.Origin = origins[at]
		addEvent(e, f, raw)
	}
	e.queue(b, insertEventSQL)
	e.queue(b, tellSQL)
}

// addEvent adds a row of the table event.
func addEvent(e *rowset, f *fact, raw []byte) {
	e.row().id("id", f.ID).id("origin", f.Origin).small("part", f.Part).int("tenant_id", int(f.Tenant)).int("account_id", int(f.account)).
		maybeID("message_id", f.MessageID).maybeSmall("n", f.N).text("stream", f.Stream).text("type", string(f.Type)).
		text("name", f.Name).text("recipient", mail.FoldAddress(f.Recipient)).time("at", f.At).text("source", string(f.Source)).
		text("provider_message_id", f.ProviderMessageID).json("bounce", f.Bounce).bool("machine", f.Machine).text("url", f.URL).
		id("key", f.byContent).bytes("raw", raw)
}
