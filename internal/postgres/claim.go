package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// Decide is the caller's part of a claim. It must be pure and quick, because it runs inside the transaction. It gets the
// database's time, the messages that are due and the limit state of every account, from which it takes slots.
type Decide = func(now time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim

// dueSQL takes the first rows of each lane by due time, up to its quota; SKIP LOCKED keeps replicas out of each other's way.
// The lateral sub-select is materialised by its LIMIT and row lock: no plan can lock more rows than it returns.
//
// Here and in the other statements of the engine, each table that grows is read by a condition on its own key: an OFFSET 0
// keeps a sub-select apart, or an = ANY stands beside the join. With a join alone, if the planner believes that a table or a
// coming day's partition is empty, it reads the whole of it, and keeps that plan while the table fills.
const dueSQL = `
SELECT r.id, p.lane, p.tenant_id, r.due, r.attempts, r.tries, r.avoid, m.facts, m.on_ambiguous, m.expires_at, m.resends, m.resent_after
FROM unnest($1::int[], $2::int[], $3::int[], $4::timestamptz[]) AS p(lane, tenant_id, quota, low)
CROSS JOIN LATERAL (
    SELECT id, due, attempts, tries, avoid
    FROM ready
    WHERE lane = p.lane AND tenant_id = p.tenant_id AND due <= now() AND due >= p.low
    ORDER BY due, id
    LIMIT p.quota
    FOR UPDATE SKIP LOCKED
) r
CROSS JOIN LATERAL (SELECT facts, on_ambiguous, expires_at, resends, resent_after FROM message WHERE id = r.id OFFSET 0) m`

// Claim reads due messages, lets decide choose what to do with them, and does it, in one transaction. The accounts' limit
// rows are locked meanwhile, so that slots are granted in one order. The commit need not reach the disk: a claim sends nothing
// before its intents, whose commits do reach the disk. If a crash loses the claim, the slots that it took are lost with it.
func (db *DB) Claim(ctx context.Context, owner mail.ID, lanes []queue.LaneQuota, decide Decide) error {
	err := db.briefly(ctx, func(tx pgx.Tx) error {
		due, err := readDue(ctx, tx, lanes)
		if err != nil || len(due) == 0 {
			return err
		}
		limits, c, err := db.lockToTake(ctx, tx)
		if err != nil {
			return err
		}
		for _, acc := range limits { // now may be ahead by the round trip: a call must not start too early because of that
			acc.Lag = time.Since(c.asked)
		}
		return applyClaim(ctx, tx, owner, decide(c.now(), due, limits), limits)
	})
	if err != nil {
		return fmt.Errorf("claim: %w", unavailable(err))
	}
	return nil
}

// readDue takes the due messages of lanes, and makes the commit not wait for the disk.
func readDue(ctx context.Context, tx pgx.Tx, lanes []queue.LaneQuota) ([]queue.Due, error) {
	numbers, tenants, quotas := make([]int32, len(lanes)), make([]int32, len(lanes)), make([]int32, len(lanes))
	lows := make([]time.Time, len(lanes))
	for i, l := range lanes {
		numbers[i], tenants[i], quotas[i], lows[i] = l.Number, int32(l.Tenant), int32(l.Max), l.Low //nolint:gosec // small
	}
	b := &pgx.Batch{}
	b.Queue(notSyncedSQL)
	b.Queue(dueSQL, numbers, tenants, quotas, lows)
	br := tx.SendBatch(ctx, b)
	defer func() { _ = br.Close() }()
	if _, err := br.Exec(); err != nil {
		return nil, err
	}
	rows, err := br.Query()
	if err != nil {
		return nil, err
	}
	due, err := pgx.CollectRows(rows, scanDue)
	return due, errors.Join(err, br.Close())
}

func scanDue(row pgx.CollectableRow) (queue.Due, error) {
	var d queue.Due
	var avoid, facts []byte
	var id [16]byte
	err := row.Scan(&id, &d.Lane.Number, &d.Lane.Tenant, &d.Due, &d.Attempts, &d.Tries, &avoid, &facts, &d.OnAmbiguous,
		&d.ExpiresAt, &d.Resends, &d.ResentAfter)
	if err != nil {
		return d, err
	}
	d.ID, d.Facts = id, &mail.Facts{}
	if err := json.Unmarshal(facts, d.Facts); err != nil {
		return d, fmt.Errorf("facts of message %s: %w", d.ID, err)
	}
	if avoid != nil {
		if err := json.Unmarshal(avoid, &d.Avoid); err != nil {
			return d, fmt.Errorf("avoid list of message %s: %w", d.ID, err)
		}
	}
	return d, nil
}

// applyClaim writes a claim and commits the transaction.
func applyClaim(ctx context.Context, tx pgx.Tx, owner mail.ID, c queue.Claim, limits map[int32]*limit.Account) error {
	b := &pgx.Batch{}
	queueLimits(b, limits)
	if err := queueTake(b, owner, c.Take); err != nil {
		return err
	}
	if len(c.Hold) > 0 {
		ids, until := make([]mail.ID, len(c.Hold)), make([]time.Time, len(c.Hold))
		for i, h := range c.Hold {
			ids[i], until[i] = h.ID, h.Until
		}
		b.Queue(`UPDATE ready r SET due = h.until, held = true FROM unnest($1::uuid[], $2::timestamptz[]) AS h(id, until)
			WHERE r.id = ANY ($1) AND r.id = h.id`, rawIDs(ids), until)
	}
	if len(c.Relane) > 0 {
		ids, lanes := make([]mail.ID, len(c.Relane)), make([]int32, len(c.Relane))
		for i, r := range c.Relane {
			ids[i], lanes[i] = r.ID, r.Lane
		}
		b.Queue(`UPDATE ready r SET lane = l.lane FROM unnest($1::uuid[], $2::int[]) AS l(id, lane)
			WHERE r.id = ANY ($1) AND r.id = l.id`,
			rawIDs(ids), lanes)
	}
	return commitWith(ctx, tx, b)
}

// queueTake moves messages from ready to inflight.
func queueTake(b *pgx.Batch, owner mail.ID, take []queue.Assignment) error {
	if len(take) == 0 {
		return nil
	}
	n := len(take)
	ids, lanes, tenants, accounts := make([]mail.ID, n), make([]int32, n), make([]int32, n), make([]int32, n)
	ns, tries, recipients, avoid := make([]int32, n), make([]int32, n), make([]int32, n), make([][]byte, n)
	for i, a := range take {
		ids[i], lanes[i], tenants[i], accounts[i] = a.Due.ID, a.Due.Lane.Number, int32(a.Due.Lane.Tenant), a.Account
		ns[i], tries[i] = int32(a.Due.Attempts+1), int32(a.Due.Tries) //nolint:gosec // capped by expiry and backoff
		recipients[i] = int32(a.Due.Facts.Recipients)                 //nolint:gosec // at most 1000
		var err error
		if avoid[i], err = avoidJSON(a.Due.Avoid); err != nil {
			return err
		}
	}
	raw := rawIDs(ids)
	b.Queue(`DELETE FROM ready WHERE id = ANY($1)`, raw)
	b.Queue(`INSERT INTO inflight (id, lane, tenant_id, owner, account_id, n, tries, recipients, avoid)
		SELECT i.id, i.lane, i.tenant_id, $9, i.account_id, i.n, i.tries, i.recipients, i.avoid
		FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::jsonb[])
			AS i(id, lane, tenant_id, account_id, n, tries, recipients, avoid)`,
		raw, lanes, tenants, accounts, ns, tries, recipients, avoid, [16]byte(owner))
	return nil
}

func avoidJSON(avoid map[string]queue.Avoid) ([]byte, error) {
	if len(avoid) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(avoid)
	if err != nil {
		return nil, fmt.Errorf("encode avoid list: %w", err)
	}
	return b, nil
}

// Load reads what is needed to send claimed messages. Recipients that were suppressed since acceptance have that status.
func (db *DB) Load(ctx context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
	raw := rawIDs(ids)
	loaded := make(map[mail.ID]queue.Loaded, len(ids))
	rows, err := db.engine.Query(ctx, `SELECT id, payload FROM body WHERE id = ANY($1)`, raw)
	if err != nil {
		return nil, fmt.Errorf("load bodies: %w", unavailable(err))
	}
	var id [16]byte
	var payload []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &payload}, func() error {
		m := &mail.Message{}
		if err := json.Unmarshal(payload, m); err != nil {
			return fmt.Errorf("body of message %s: %w", mail.ID(id), err)
		}
		loaded[id] = queue.Loaded{Message: m}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load bodies: %w", unavailable(err))
	}
	if err := db.loadRecipients(ctx, raw, loaded); err != nil {
		return nil, err // bodies without their recipients would look like messages to nobody
	}
	return loaded, nil
}

func (db *DB) loadRecipients(ctx context.Context, raw [][16]byte, loaded map[mail.ID]queue.Loaded) error {
	q := `
SELECT r.message_id, r.n, r.kind, r.email, r.name,
       CASE WHEN r.status = 'queued' AND ` + suppressedSQL("r.tenant_id", foldedSQL("r")+", lower(r.email)", "(SELECT stream FROM message WHERE id = r.message_id)") + `
            THEN 'suppressed' ELSE r.status END
FROM recipient r
WHERE r.message_id = ANY($1)
ORDER BY r.message_id, r.n`
	rows, err := db.engine.Query(ctx, q, raw)
	if err != nil {
		return fmt.Errorf("load recipients: %w", unavailable(err))
	}
	var id [16]byte
	var r mail.Recipient
	_, err = pgx.ForEachRow(rows, []any{&id, &r.N, &r.Kind, &r.Address.Email, &r.Address.Name, &r.Status}, func() error {
		l := loaded[id]
		l.Recipients = append(l.Recipients, r)
		loaded[id] = l
		return nil
	})
	if err != nil {
		return fmt.Errorf("load recipients: %w", unavailable(err))
	}
	return nil
}

// lanesSQL lists the lanes that hold ready rows, by a loose scan of the index: its cost depends on the number of lanes, not
// of messages. It reads each lane from the end with the newest rows. At the other end the rows of claimed messages remain while
// a foreign transaction holds an old snapshot.
const lanesSQL = `
WITH RECURSIVE l AS (
    (SELECT lane, tenant_id FROM ready ORDER BY lane DESC, tenant_id DESC LIMIT 1)
    UNION ALL
    SELECT n.lane, n.tenant_id FROM l CROSS JOIN LATERAL (
        SELECT lane, tenant_id FROM ready WHERE (lane, tenant_id) < (l.lane, l.tenant_id) ORDER BY lane DESC, tenant_id DESC LIMIT 1) n
)
SELECT lane, tenant_id FROM l`

// Lanes lists the lanes that hold ready rows.
func (db *DB) Lanes(ctx context.Context) ([]queue.Lane, error) {
	lanes, err := readLanes(ctx, db.engine)
	if err != nil {
		return nil, fmt.Errorf("list lanes: %w", unavailable(err))
	}
	return lanes, nil
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func readLanes(ctx context.Context, on querier) ([]queue.Lane, error) {
	rows, err := on.Query(ctx, lanesSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l queue.Lane, err error) {
		return l, row.Scan(&l.Number, &l.Tenant)
	})
}
