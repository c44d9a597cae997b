package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/queue"
)

// accountingLock lets one replica check the books at a time.
const accountingLock = 7381003

// accountingTimeout bounds each statement of Accounting, and each pause between two of them. The longest statement takes about
// 2 µs per open message on two busy cores. A pause may be long, for the transaction locks no row: the two seconds that a claim
// gets would end the check of a process that waits for a busy machine.
const accountingTimeout = "50s"

// Accounting checks the books: that every accepted message is in exactly one of ready, inflight and unknown or settled,
// and that every attempt without a result is a call under way.
//
// It reads one snapshot, and each move of a message is one transaction, so no intermediate state is visible. There is one
// exception: evidence may settle a message that is queued or in a call again because its outcome was unknown. Such a message
// leaves the queue with the next claim or result, and is not a violation.
//
// Settled messages are not counted: the rules are checked for each message, which says more than a sum. The messages that are
// open by their status are found by the index message_open, which holds nothing else, and are compared with the three queue
// tables in the order of their ids. So the cost depends on the number of open messages, not on how many are kept. The price of
// the index is paid by each change of status, which writes its entries anew: 7 % more WAL for a result, as measured.
func (db *DB) Accounting(ctx context.Context) (queue.Accounting, error) {
	a, _, err := db.accounting(ctx, false)
	return a, err
}

// AccountingAlone is Accounting, unless another replica is running it: then it reports false at once.
func (db *DB) AccountingAlone(ctx context.Context) (queue.Accounting, bool, error) {
	return db.accounting(ctx, true)
}

func (db *DB) accounting(ctx context.Context, alone bool) (a queue.Accounting, mine bool, err error) {
	err = db.inCheck(ctx, func(tx pgx.Tx) error {
		if mine = true; alone {
			if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, accountingLock).Scan(&mine); err != nil || !mine {
				return err
			}
		}
		return readAccounting(ctx, tx, &a)
	})
	if err != nil {
		return queue.Accounting{}, false, fmt.Errorf("check the books: %w", unavailable(err))
	}
	return a, mine, nil
}

// inCheck runs f in the transaction that sees the books.
func (db *DB) inCheck(ctx context.Context, f func(pgx.Tx) error) error {
	once := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, db.engine, once, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '`+accountingTimeout+`'; SET LOCAL idle_in_transaction_session_timeout = '`+accountingTimeout+`'`)
		if err != nil {
			return err
		}
		return f(tx)
	})
}

// planned makes the server plan a statement at each run. A plan that was made while a day was empty would read the whole day
// later.
const planned = pgx.QueryExecModeExec

func readAccounting(ctx context.Context, tx pgx.Tx, a *queue.Accounting) error {
	var err error
	if a.Books, err = readBooks(ctx, tx); err != nil {
		return err
	}
	if err = tx.QueryRow(ctx, `SELECT coalesce(greatest(now() - min(since), '0'), '0') FROM unknown`).Scan(&a.UnknownAge); err != nil {
		return err
	}
	for _, q := range []string{attemptsSQL, twiceSQL} {
		if err := readViolations(ctx, tx, q, a); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, inStepSQL); err != nil {
		return err
	}
	if err := readViolations(ctx, tx, placesSQL, a); err != nil {
		return err
	}
	kinds := queue.ViolationKinds()
	slices.SortStableFunc(a.Violations, func(v, w queue.Violation) int {
		return cmp.Or(slices.Index(kinds, v.Kind)-slices.Index(kinds, w.Kind), cmp.Compare(v.Tenant, w.Tenant))
	})
	return nil
}

// booksSQL counts the open messages. It reads every row of the queue, from an index that is a fraction of its table.
const booksSQL = `
WITH c AS (
    SELECT tenant_id, count(*) AS ready, 0 AS unstarted, 0 AS started, 0 AS unknown FROM ready GROUP BY tenant_id
    UNION ALL
    SELECT tenant_id, 0, count(*) FILTER (WHERE started_at IS NULL), count(started_at), 0 FROM inflight GROUP BY tenant_id
    UNION ALL
    SELECT tenant_id, 0, 0, 0, count(*) FROM unknown GROUP BY tenant_id
)
SELECT coalesce(t.name, '#' || c.tenant_id) AS name, sum(ready)::bigint, sum(unstarted)::bigint, sum(started)::bigint, sum(unknown)::bigint
FROM c LEFT JOIN tenant t ON t.id = c.tenant_id
GROUP BY 1 ORDER BY 1`

func readBooks(ctx context.Context, tx pgx.Tx) ([]queue.Book, error) {
	return pgx.CollectRows(query(ctx, tx, booksSQL, planned), pgx.RowToStructByPos[queue.Book])
}

// inStepSQL makes placesSQL read both sides in the order of their ids, without a sort or a hash.
const inStepSQL = `SET LOCAL enable_mergejoin = on; SET LOCAL enable_bitmapscan = off`

// placesSQL compares the messages that are open by their status with the queue. Both come in the order of their ids. A queued
// message that is not open is rare, so each is looked up.
var placesSQL = grouped(`
WITH q AS (
    SELECT id, tenant_id, 'ready' AS place FROM ready
    UNION ALL
    SELECT id, tenant_id, 'inflight' FROM inflight
    UNION ALL
    SELECT id, tenant_id, 'unknown' FROM unknown
), x AS MATERIALIZED (
    SELECT coalesce(m.id, q.id) AS id, m.tenant_id AS owner, q.tenant_id AS queued_for, q.place, m.id IS NOT NULL AS open
    FROM (SELECT id, tenant_id, status FROM message WHERE status IN ('queued', 'scheduled', 'sending', 'unknown')) m
    FULL JOIN q ON q.id = m.id
    WHERE m.id IS NULL OR q.id IS NULL OR m.tenant_id <> q.tenant_id OR (m.status = 'unknown') <> (q.place = 'unknown')
), v AS (
    SELECT x.id, coalesce(x.owner, m.owner, x.queued_for) AS tenant_id, CASE
        WHEN x.place IS NULL THEN 'lost'
        WHEN coalesce(x.owner, m.owner) <> x.queued_for THEN 'wrong_tenant'
        WHEN x.open THEN 'misplaced'
        WHEN m.owner IS NULL THEN 'no_message'
        WHEN NOT EXISTS (SELECT FROM recipient WHERE message_id = x.id AND event_rank > 0 OFFSET 0)
         AND NOT EXISTS (SELECT FROM attempt WHERE message_id = x.id AND seen_at IS NOT NULL OFFSET 0) THEN 'ended'
        END AS kind
    FROM x LEFT JOIN LATERAL (SELECT tenant_id AS owner FROM message WHERE id = x.id AND NOT x.open OFFSET 0) m ON true
)`)

// twiceSQL finds messages in two places: it looks up those in flight or unknown, which are few, in the other tables.
var twiceSQL = grouped(`
WITH v AS (
    SELECT f.id, f.tenant_id, 'twice' AS kind FROM inflight f
    WHERE EXISTS (SELECT FROM ready WHERE id = f.id OFFSET 0) OR EXISTS (SELECT FROM unknown WHERE id = f.id OFFSET 0)
    UNION ALL
    SELECT u.id, u.tenant_id, 'twice' FROM unknown u
    WHERE EXISTS (SELECT FROM ready WHERE id = u.id OFFSET 0) AND NOT EXISTS (SELECT FROM inflight WHERE id = u.id OFFSET 0)
)`)

// attemptsSQL compares the attempts with the messages in flight and unknown. It finds attempts without a result by the index
// attempt_open, and the others by their key.
var attemptsSQL = grouped(`
WITH v AS (
    SELECT t.message_id AS id, coalesce((SELECT tenant_id FROM message WHERE id = t.message_id), 0) AS tenant_id, 'open_attempt' AS kind
    FROM attempt t
    WHERE t.class IS NULL AND NOT EXISTS (
        SELECT FROM inflight f WHERE f.id = t.message_id AND f.n = t.n OFFSET 0)
    UNION ALL
    SELECT f.id, f.tenant_id, 'attempt_state' FROM inflight f
    WHERE f.started_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM attempt t WHERE t.message_id = f.id AND t.n = f.n AND t.class IS NULL OFFSET 0)
    UNION ALL
    SELECT f.id, f.tenant_id, 'attempt_state' FROM inflight f
    WHERE f.started_at IS NULL AND EXISTS (SELECT FROM attempt t WHERE t.message_id = f.id AND t.n = f.n OFFSET 0)
    UNION ALL
    SELECT u.id, u.tenant_id, 'attempt_state' FROM unknown u
    WHERE NOT EXISTS (
        SELECT FROM attempt t WHERE t.message_id = u.id AND t.n = u.n AND t.class = 'uncertain' AND t.seen_at IS NULL OFFSET 0)
)`)

// grouped counts the rows (id, tenant_id, kind) of v by tenant and kind, and names the first three of each.
func grouped(v string) string {
	return v + `
SELECT v.kind, coalesce((SELECT name FROM tenant WHERE id = v.tenant_id), '#' || v.tenant_id), count(*), (array_agg(v.id ORDER BY v.id))[1:3]
FROM v WHERE v.kind IS NOT NULL
GROUP BY v.kind, v.tenant_id ORDER BY 1, 2`
}

func readViolations(ctx context.Context, tx pgx.Tx, q string, a *queue.Accounting) error {
	found, err := pgx.CollectRows(query(ctx, tx, q, planned), func(row pgx.CollectableRow) (v queue.Violation, err error) {
		var ids [][16]byte
		err = row.Scan(&v.Kind, &v.Tenant, &v.Count, &ids)
		for _, id := range ids {
			v.IDs = append(v.IDs, id)
		}
		return v, err
	})
	a.Violations = append(a.Violations, found...)
	return err
}
