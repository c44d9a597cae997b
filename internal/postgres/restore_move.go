package postgres

import (
	"context"
	"encoding/json"

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
	id                  [16]byte
	lane, tenant, tries int
	n                   int
	account             int32
	avoid               []byte
	facts               mail.Facts
	policy              mail.Policy
	calls               map[int32]int // by account: the number of the attempt
	oldNumbers          []int
	oldPlace            []int32
}

// readOpen reads the next messages of a queue that were not moved for this loss.
func (r *restoreRun) readOpen(ctx context.Context, tx pgx.Tx, place string) ([]*openMessage, error) {
	rows := query(ctx, tx, `
SELECT q.id, q.lane, q.tenant_id, q.tries, q.avoid, q.n, q.account_id, m.facts, m.on_ambiguous,
       ARRAY(SELECT n FROM unknown_call c WHERE c.id = q.id ORDER BY n), ARRAY(SELECT account_id FROM unknown_call c WHERE c.id = q.id ORDER BY n)
FROM (`+restorePlaces()[place]+`) q
CROSS JOIN LATERAL (SELECT facts, on_ambiguous, created_at, restored_at FROM message WHERE id = q.id OFFSET 0) m
WHERE q.id > $4 AND m.created_at < $1 AND m.restored_at >= $1 IS NOT TRUE
ORDER BY q.id LIMIT $3 FOR UPDATE OF q`, r.Since, r.lostAt(r.began), restoreChunk, r.after)
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*openMessage, error) {
		o := &openMessage{calls: map[int32]int{}}
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
	m := restoreRows{rowsAs("i", len(open)), rowsAs("i", 0), rowsAs("i", 0)}
	for _, o := range open {
		ids = append(ids, o.id)
		r.candidates(o, m)
	}
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM `+place+` WHERE id = ANY ($1)`, ids)
	m.queue(b, r)
	queueUnknown(b, ids)
	idRows(ids).queue(b, `UPDATE message SET restored_at = now() WHERE id = ANY (@i.id)`)
	return ids, tx.SendBatch(ctx, b).Close()
}

// restoreRows are the rows that a batch writes: messages, all of their calls, and those calls that get a new attempt.
type restoreRows struct{ messages, calls, made *rowset }

// candidates gives a message an attempt at each account where it may have been sent and has no open one, and lists all its calls.
func (r *restoreRun) candidates(o *openMessage, m restoreRows) {
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
		m.made.row().id("id", o.id).int("n", top).int("account_id", int(a.ID)).raw("decision", decision.JSON())
	}
	for account, n := range o.calls {
		m.calls.row().id("id", o.id).int("n", n).int("account_id", int(account)).bool("asks", o.policy == mail.Reconcile)
	}
	m.messages.row().id("id", o.id).int("lane", o.lane).int("tenant_id", o.tenant).int("n", top).int("tries", o.tries).
		raw("avoid", o.avoid).text("policy", string(o.policy)).wait("wait", r.wait[o.policy])
}

// restoreWords is the error of an attempt that the lost database may have made or finished.
const restoreWords = `restored from a backup: the message may have been sent to this account after the backup ends`

const (
	// makeAttemptsSQL makes the attempts that candidates adds.
	makeAttemptsSQL = `
INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, finished_at, class, verdict_source, error)
SELECT i.id, i.n, $1, i.account_id, i.decision, $2, greatest(now(), $2), 'uncertain', 'restore', '` + restoreWords + `'
FROM @i`

	// openAttemptsSQL makes attempts uncertain that have no verdict.
	openAttemptsSQL = `
UPDATE attempt t SET class = 'uncertain', finished_at = coalesce(t.finished_at, now()), verdict_source = 'restore',
    error = CASE WHEN t.error = '' THEN '` + restoreWords + `' ELSE t.error END
FROM @i
WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.n = i.n AND (t.class IS NULL OR t.class = 'uncertain')`

	unknownRestoredSQL = `
INSERT INTO unknown (id, lane, tenant_id, owner, account_id, n, tries, policy, decide_at, avoid)
SELECT i.id, i.lane, i.tenant_id, $1, 0, i.n, i.tries, i.policy, now() + i.wait, i.avoid
FROM @i`

	unknownCallsSQL = `
INSERT INTO unknown_call (id, n, account_id, until, due)
SELECT i.id, i.n, i.account_id, $1, CASE WHEN i.asks THEN now() ELSE 'infinity' END
FROM @i`
)

func (m restoreRows) queue(b *pgx.Batch, r *restoreRun) {
	m.calls.queue(b, openAttemptsSQL)
	m.made.queue(b, makeAttemptsSQL, [16]byte(r.owner), r.Since)
	m.messages.queue(b, unknownRestoredSQL, [16]byte(r.owner))
	m.calls.queue(b, unknownCallsSQL, r.lostAt(r.began))
}
