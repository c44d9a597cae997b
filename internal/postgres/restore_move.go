package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/route"
)

// restorePlaces gives, for each queue, the statement that reads the rows that move: with the number of the last attempt that
// was made, if any, and the account of the open one (0: none).
func restorePlaces() map[string]string {
	return map[string]string{
		"ready":    `SELECT id, lane, tenant_id, tries, avoid, attempts AS n, 0 AS account_id FROM ready WHERE due <= $2 OR held`,
		"inflight": `SELECT id, lane, tenant_id, tries, avoid, n - (started_at IS NULL)::int AS n, CASE WHEN started_at IS NULL THEN 0 ELSE account_id END AS account_id FROM inflight WHERE $2::timestamptz IS NOT NULL`,
		"unknown":  `SELECT id, lane, tenant_id, tries, avoid, n, account_id FROM unknown WHERE $2::timestamptz IS NOT NULL`,
	}
}

// openMessage is one message that may have been sent by processes that are lost.
type openMessage struct {
	id                   [16]byte
	lane, tenant, tries  int32
	n, account           int32
	avoid                []byte
	facts                mail.Facts
	policy               mail.Policy
	calls                map[int32]int32 // by account: the number of the attempt
	oldNumbers, oldPlace []int32
}

// readOpen reads the next messages of a queue that were not moved for this loss.
func (r *restoreRun) readOpen(ctx context.Context, tx pgx.Tx, place string) ([]*openMessage, error) {
	rows, err := tx.Query(ctx, `
SELECT q.id, q.lane, q.tenant_id, q.tries, q.avoid, q.n, q.account_id, m.facts, m.on_ambiguous,
       ARRAY(SELECT n FROM unknown_call c WHERE c.id = q.id ORDER BY n), ARRAY(SELECT account_id FROM unknown_call c WHERE c.id = q.id ORDER BY n)
FROM (`+restorePlaces()[place]+`) q
CROSS JOIN LATERAL (SELECT facts, on_ambiguous, created_at, restored_at FROM message WHERE id = q.id OFFSET 0) m
WHERE q.id > $4 AND m.created_at < $1 AND m.restored_at >= $1 IS NOT TRUE
ORDER BY q.id LIMIT $3 FOR UPDATE OF q`, r.Since, r.lostAt(r.began), restoreChunk, r.after)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*openMessage, error) {
		o := &openMessage{calls: map[int32]int32{}}
		var facts []byte
		err := row.Scan(&o.id, &o.lane, &o.tenant, &o.tries, &o.avoid, &o.n, &o.account, &facts, &o.policy, &o.oldNumbers, &o.oldPlace)
		if err != nil {
			return nil, err
		}
		return o, json.Unmarshal(facts, &o.facts)
	})
}

// moveSome moves up to restoreChunk messages of one queue and returns their ids in order.
func (r *restoreRun) moveSome(ctx context.Context, tx pgx.Tx, place string) ([][16]byte, error) {
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '2min'`); err != nil { // there may be many rows to skip
		return nil, err
	}
	open, err := r.readOpen(ctx, tx, place)
	if err != nil || len(open) == 0 {
		return nil, err
	}
	var ids [][16]byte
	var m restoreRows
	for _, o := range open {
		ids = append(ids, o.id)
		r.candidates(o, &m)
	}
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM `+place+` WHERE id = ANY ($1)`, ids)
	m.queue(b, r)
	b.Queue(`UPDATE recipient SET status = 'unknown', updated_at = now() WHERE message_id = ANY ($1) AND status = 'queued'`, ids)
	b.Queue(`UPDATE message SET restored_at = now() WHERE id = ANY ($1)`, ids)
	b.Queue(settleSeenSQL, ids) // events may have proved some of them already
	queueFold(b, ids)
	return ids, tx.SendBatch(ctx, b).Close()
}

// restoreRows are the rows that a batch writes, as columns.
type restoreRows struct {
	ids                         [][16]byte // of the messages
	lanes, tenants, tops, tries []int32
	policies                    []string
	waits                       []time.Duration
	calls                       [][16]byte // messages of the calls
	callNs, callAccounts        []int32
	asks                        []bool
	made                        [][16]byte // messages of the attempts that are new
	madeNs, madeAccounts        []int32
	decisions, avoid            [][]byte
}

// candidates gives a message an attempt at each account where it may have been sent and has no open one, and lists all its calls.
func (r *restoreRun) candidates(o *openMessage, m *restoreRows) {
	if o.account != 0 {
		o.calls[o.account] = o.n
	}
	for i, n := range o.oldNumbers { // calls of an earlier loss
		o.calls[o.oldPlace[i]] = n
	}
	top := o.n
	for _, a := range r.config.Candidates(&o.facts) {
		if o.calls[a.ID] != 0 {
			continue
		}
		top++
		o.calls[a.ID] = top
		decision := route.Decision{Config: r.config.Version, Pinned: o.facts.Account != "", Chosen: a.Name, Candidates: []route.Candidate{}}
		m.made, m.madeNs, m.madeAccounts = append(m.made, o.id), append(m.madeNs, top), append(m.madeAccounts, a.ID)
		m.decisions = append(m.decisions, decision.JSON())
	}
	for account, n := range o.calls {
		m.calls, m.callNs, m.callAccounts = append(m.calls, o.id), append(m.callNs, n), append(m.callAccounts, account)
		m.asks = append(m.asks, o.policy == mail.Reconcile)
	}
	m.ids, m.lanes, m.tenants = append(m.ids, o.id), append(m.lanes, o.lane), append(m.tenants, o.tenant)
	m.tops, m.tries, m.avoid = append(m.tops, top), append(m.tries, o.tries), append(m.avoid, o.avoid)
	m.policies, m.waits = append(m.policies, string(o.policy)), append(m.waits, r.wait[o.policy])
}

// restoreWords is the error of an attempt that the lost database may have made or finished.
const restoreWords = `restored from a backup: the message may have been sent to this account after the backup ends`

const (
	// makeAttemptsSQL makes the attempts that candidates adds.
	makeAttemptsSQL = `
INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, finished_at, class, verdict_source, error)
SELECT i.id, i.n, $5, i.account_id, i.decision, $6, greatest(now(), $6), 'uncertain', 'restore', '` + restoreWords + `'
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::jsonb[]) AS i(id, n, account_id, decision)`

	// openAttemptsSQL makes attempts uncertain that have no verdict.
	openAttemptsSQL = `
UPDATE attempt t SET class = 'uncertain', finished_at = coalesce(t.finished_at, now()), verdict_source = 'restore',
    error = CASE WHEN t.error = '' THEN '` + restoreWords + `' ELSE t.error END
FROM unnest($1::uuid[], $2::int[]) AS i(id, n)
WHERE t.message_id = ANY ($1) AND t.message_id = i.id AND t.n = i.n AND (t.class IS NULL OR t.class = 'uncertain')`

	unknownRestoredSQL = `
INSERT INTO unknown (id, lane, tenant_id, owner, account_id, n, tries, policy, decide_at, avoid)
SELECT i.id, i.lane, i.tenant_id, $8, 0, i.n, i.tries, i.policy, now() + i.wait, i.avoid
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::int[], $6::text[], $7::interval[], $9::jsonb[])
    AS i(id, lane, tenant_id, n, tries, policy, wait, avoid)`

	unknownCallsSQL = `
INSERT INTO unknown_call (id, n, account_id, until, due)
SELECT i.id, i.n, i.account_id, $5, CASE WHEN i.asks THEN now() ELSE 'infinity' END
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::boolean[]) AS i(id, n, account_id, asks)`
)

func (m *restoreRows) queue(b *pgx.Batch, r *restoreRun) {
	b.Queue(openAttemptsSQL, m.calls, m.callNs)
	b.Queue(makeAttemptsSQL, m.made, m.madeNs, m.madeAccounts, m.decisions, [16]byte(r.owner), r.Since)
	b.Queue(unknownRestoredSQL, m.ids, m.lanes, m.tenants, m.tops, m.tries, m.policies, m.waits, [16]byte(r.owner), m.avoid)
	b.Queue(unknownCallsSQL, m.calls, m.callNs, m.callAccounts, m.asks, r.lostAt(r.began))
}
