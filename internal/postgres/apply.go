package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func tenantID(n int32) mail.TenantID { return mail.TenantID(n) }

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
	if err := queueEvidence(b, known, proved); err != nil {
		return err
	}
	db.queueSuppressions(b, known)
	if err := queueEvents(b, kept); err != nil {
		return err
	}
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
UPDATE attempt t SET seen_at = now(), seen_by = i.seen_by,
    class = CASE WHEN t.class = 'uncertain' THEN 'accepted' ELSE t.class END,
    verdict_source = CASE WHEN t.class = 'uncertain' THEN i.seen_by ELSE t.verdict_source END,
    provider_message_id = CASE WHEN t.provider_message_id = '' THEN i.pmid ELSE t.provider_message_id END
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[]) AS i(id, n, seen_by, pmid)
WHERE t.message_id = ANY ($1) AND t.message_id = i.id AND t.n = i.n AND t.seen_at IS NULL AND t.class IS DISTINCT FROM 'accepted'
RETURNING t.message_id`

// settleSeenSQL settles unknown messages whose call is proved to have arrived: its other recipients become sent as well.
// Recipients that were certainly not in the call are queued now. If several calls may have been made, one proved call is
// enough, even if it is not the last.
const settleSeenSQL = `
WITH s AS (
    DELETE FROM unknown u USING attempt t
    WHERE u.id = ANY ($1) AND t.message_id = ANY ($1) AND t.message_id = u.id AND t.seen_at IS NOT NULL
      AND (t.n = u.n OR ` + provedLaterSQL + ` AND t.n > (SELECT resent_after FROM message WHERE id = u.id)
        OR EXISTS (SELECT 1 FROM unknown_call c WHERE c.id = u.id AND c.n = t.n))
    RETURNING u.id, t.n, u.n AS called, u.lane, u.tenant_id, u.tries, u.avoid
), q AS (
    INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid)
    SELECT s.id, s.lane, s.tenant_id, now(), s.called, s.tries, s.avoid FROM s
    WHERE EXISTS (SELECT FROM recipient c WHERE c.message_id = s.id AND c.status = 'queued' OFFSET 0)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, attempts
), m AS ( -- the calls up to now were for others than those who are open now
    UPDATE message SET resent_after = q.attempts FROM q WHERE message.id = ANY ($1) AND message.id = q.id
), a AS (
    UPDATE attempt t SET class = 'accepted', verdict_source = t.seen_by FROM s
    WHERE t.message_id = ANY ($1) AND t.message_id = s.id AND t.n = s.n AND t.class IS DISTINCT FROM 'accepted'
), r AS (
    UPDATE recipient c SET status = 'sent', detail = '', updated_at = now() FROM s
    WHERE c.message_id = ANY ($1) AND c.message_id = s.id AND c.status = 'unknown'
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
	ids, ns, by, pmid := proofs(known)
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := tx.Query(ctx, proveSQL, ids, ns, by, pmid)
	if err != nil {
		return nil, err
	}
	proved, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil || len(proved) == 0 {
		return nil, err
	}
	if rows, err = tx.Query(ctx, settleSeenSQL, proved); err != nil {
		return nil, err
	}
	settled, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return nil, err
	}
	countSettled(known, settled, out)
	_, err = tx.Exec(ctx, sentAfterAllSQL, proved)
	return proved, err
}

// proofs lists the attempts that events prove, each once, as columns.
func proofs(known []*fact) (ids [][16]byte, ns []int32, by, pmid []string) {
	type call struct {
		id mail.ID
		n  int32
	}
	seen := map[call]bool{}
	for _, f := range known {
		c := call{f.MessageID, f.attempt}
		if f.attempt == 0 || seen[c] || !f.proves {
			continue
		}
		seen[c] = true
		ids, ns = append(ids, f.MessageID), append(ns, f.attempt)
		by, pmid = append(by, string(f.Source)), append(pmid, f.ProviderMessageID)
	}
	return ids, ns, by, pmid
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
UPDATE recipient r SET event_rank = i.rank, event_at = i.at, event_key = i.key, status = i.status, detail = i.detail,
    bounce = i.bounce, updated_at = now()
FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::timestamptz[], $5::uuid[], $6::text[], $7::text[], $8::jsonb[])
    AS i(id, n, rank, at, key, status, detail, bounce)
WHERE r.message_id = ANY ($1) AND r.message_id = i.id AND r.n = i.n
  AND (i.rank, i.at, i.key) > (r.event_rank, coalesce(r.event_at, '-infinity'), coalesce(r.event_key, '00000000-0000-0000-0000-000000000000'))`

// foldChangedSQL is foldSQL for messages that may not have changed.
const foldChangedSQL = `
UPDATE message m SET updated_at = now(), status = f.status
FROM unnest($1::uuid[]) AS i(id)
CROSS JOIN LATERAL (
    SELECT r.status FROM recipient r WHERE r.message_id = i.id AND r.message_id BETWEEN $2 AND $3
    ORDER BY array_position(` + statusOrder + `, r.status) DESC
    LIMIT 1) f
WHERE m.id = ANY ($1) AND m.id = i.id AND m.status <> f.status`

// queueFoldChanged folds messages that may not have changed.
func queueFoldChanged(b *pgx.Batch, ids [][16]byte) {
	first, last := span(ids)
	b.Queue(lockSQL, ids)
	b.Queue(foldChangedSQL, ids, first, last)
}

// callBackSQL takes messages out of the queue that have no recipient left to be mailed.
const callBackSQL = `
DELETE FROM ready q WHERE q.id = ANY ($1)
AND NOT EXISTS (SELECT 1 FROM recipient r WHERE r.message_id = q.id AND r.message_id BETWEEN $2 AND $3 AND r.status = 'queued' OFFSET 0)`

// seat is one recipient of a message.
type seat struct {
	id mail.ID
	n  int
}

// queueEvidence settles recipients, and folds their messages and those that were proved. It writes all recipients before the
// first message, as recordTx does.
func queueEvidence(b *pgx.Batch, known []*fact, proved [][16]byte) error {
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
		b.Queue(lockDoubtSQL, rejected)
	}
	for some := range slices.Chunk(order, intakeChunk) {
		if err := queueBest(b, some, best); err != nil {
			return err
		}
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
		first, last := span(some)
		b.Queue(callBackSQL, some, first, last)
		queueFoldChanged(b, some)
	}
	return nil
}

// queueBest queues the greatest evidence of each recipient.
func queueBest(b *pgx.Batch, order []seat, best map[seat]mail.Evidence) error {
	n := len(order)
	ids, keys, at := make([][16]byte, n), make([][16]byte, n), make([]time.Time, n)
	ns, ranks := make([]int16, n), make([]int16, n)
	status, detail, bounces := make([]string, n), make([]string, n), make([][]byte, n)
	for i, s := range order {
		v := best[s]
		ids[i], ns[i], ranks[i], at[i], keys[i] = s.id, int16(s.n), int16(v.Rank), v.At, v.Key //nolint:gosec // at most 1000, and 6
		status[i], detail[i] = string(v.Status), v.Detail()
		var err error
		if bounces[i], err = record.MarshalBounce(v.Bounce); err != nil {
			return err
		}
	}
	b.Queue(evidenceSQL, ids, ns, ranks, at, keys, status, detail, bounces)
	return nil
}

// insertEventSQL keeps events.
const insertEventSQL = `
INSERT INTO event (id, origin, part, tenant_id, account_id, message_id, n, stream, type, name, recipient, at, source,
    provider_message_id, bounce, machine, url, key, raw)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::int[], $5::int[], $6::uuid[], $7::smallint[], $8::text[], $9::text[],
    $10::text[], $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::jsonb[], $16::boolean[], $17::text[], $18::uuid[],
    $19::bytea[])`

// listenedSQL is the condition that the tenant of an event e has an enabled endpoint. Without such an event fan_out is not
// called: the statement in the function is planned at every call, which costs as much as ten events.
const listenedSQL = `EXISTS (SELECT 1 FROM webhook_endpoint w WHERE w.tenant_id = e.tenant_id AND NOT w.disabled) HAVING count(*) > 0`

// tellSQL queues events for the endpoints.
const tellSQL = `
SELECT fan_out(array_agg(id), array_agg(tenant_id), array_agg(type), array_agg(stream))
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[]) AS e(id, tenant_id, type, stream) WHERE type <> '' AND ` + listenedSQL

// queueEvents writes events and queues them for the endpoints of their tenants. The payload is stored with the first event
// that is kept of it.
func queueEvents(b *pgx.Batch, kept []*fact) error {
	var c eventColumns
	origins := map[[2]int]mail.ID{}
	for _, f := range kept {
		at := [2]int{f.intake, f.payload}
		raw := []byte(nil)
		if origins[at].IsZero() {
			origins[at], raw = f.ID, f.raw
		}
		f.Origin = origins[at]
		if err := c.add(f, raw); err != nil {
			return err
		}
	}
	c.queue(b)
	return nil
}

// eventColumns are rows of the table event, as columns.
type eventColumns struct {
	ids, origins, keys, messages  [][16]byte
	parts, ns                     []int16
	tenants, accounts             []int32
	streams, types, names, emails []string
	at                            []time.Time
	sources, pmids, urls          []string
	bounces, raws                 [][]byte
	machine                       []bool
}

func (c *eventColumns) add(f *fact, raw []byte) error {
	bounce, err := record.MarshalBounce(f.Bounce)
	if err != nil {
		return err
	}
	c.ids, c.origins, c.keys, c.messages = append(c.ids, f.ID), append(c.origins, f.Origin), append(c.keys, f.byContent), append(c.messages, f.MessageID)
	c.parts, c.ns = append(c.parts, int16(f.Part)), append(c.ns, int16(f.N)) //nolint:gosec // at most 9,999 and 1,000
	c.tenants, c.accounts = append(c.tenants, int32(f.Tenant)), append(c.accounts, f.account)
	c.streams, c.types, c.names = append(c.streams, f.Stream), append(c.types, string(f.Type)), append(c.names, f.Name)
	c.emails, c.at, c.sources = append(c.emails, mail.FoldAddress(f.Recipient)), append(c.at, f.At), append(c.sources, string(f.Source))
	c.pmids, c.urls, c.machine = append(c.pmids, f.ProviderMessageID), append(c.urls, f.URL), append(c.machine, f.Machine)
	c.bounces, c.raws = append(c.bounces, bounce), append(c.raws, raw)
	return nil
}

// values are the arguments of insertEventSQL.
func (c *eventColumns) values() []any {
	messages, ns := make([]*[16]byte, len(c.ids)), make([]*int16, len(c.ids))
	for i := range c.ids {
		if c.messages[i] != [16]byte{} {
			messages[i] = &c.messages[i]
		}
		if c.ns[i] >= 0 {
			ns[i] = &c.ns[i]
		}
	}
	return []any{
		c.ids, c.origins, c.parts, c.tenants, c.accounts, messages, ns, c.streams, c.types, c.names, c.emails, c.at,
		c.sources, c.pmids, c.bounces, c.machine, c.urls, c.keys, c.raws,
	}
}

func (c *eventColumns) queue(b *pgx.Batch) {
	if len(c.ids) == 0 {
		return
	}
	b.Queue(insertEventSQL, c.values()...)
	b.Queue(tellSQL, c.ids, c.tenants, c.types, c.streams)
}
