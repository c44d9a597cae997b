package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
SELECT r.id, p.lane, p.tenant_id, r.due, r.attempts, r.tries, r.avoid
FROM @p
CROSS JOIN LATERAL (
    SELECT id, due, attempts, tries, avoid
    FROM ready
    WHERE lane = p.lane AND tenant_id = p.tenant_id AND due <= now() AND due >= p.low
    ORDER BY due, id
    LIMIT p.quota
    FOR UPDATE SKIP LOCKED
) r`

// factsSQL reads what a claim has to know of the messages that it found. It is a statement of its own: with the ids known, it
// looks at their days only.
const factsSQL = `SELECT m.id, m.facts, m.on_ambiguous, m.expires_at, m.resends, m.resent_after FROM @message m WHERE m.id = ANY (@i.id)`

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
	return failed("claim", err)
}

// readDue takes the due messages of lanes, and makes the commit not wait for the disk.
func readDue(ctx context.Context, tx pgx.Tx, lanes []queue.LaneQuota) ([]queue.Due, error) {
	p := rowsAs("p", len(lanes))
	for _, l := range lanes {
		p.row().int("lane", int(l.Number)).int("tenant_id", int(l.Tenant)).int("quota", l.Max).time("low", l.Low)
	}
	b := &pgx.Batch{}
	b.Queue(notSyncedSQL)
	b.Queue(dueSQL, p)
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
	if err = errors.Join(err, br.Close()); err != nil || len(due) == 0 {
		return nil, err
	}
	return readFacts(ctx, tx, due)
}

// readFacts completes what dueSQL found.
func readFacts(ctx context.Context, tx pgx.Tx, due []queue.Due) ([]queue.Due, error) {
	at, i := make(map[[16]byte]int, len(due)), rowsAs("i", len(due))
	for k, d := range due {
		at[d.ID] = k
		i.row().id("id", d.ID)
	}
	var id [16]byte
	var facts []byte
	var more queue.Due
	scans := []any{&id, &facts, &more.OnAmbiguous, &more.ExpiresAt, &more.Resends, &more.ResentAfter}
	_, err := pgx.ForEachRow(query(ctx, tx, factsSQL, i), scans, func() error {
		d := &due[at[id]]
		d.Facts, d.OnAmbiguous, d.ExpiresAt, d.Resends, d.ResentAfter = &mail.Facts{}, more.OnAmbiguous, more.ExpiresAt, more.Resends, more.ResentAfter
		if err := json.Unmarshal(facts, d.Facts); err != nil {
			return fmt.Errorf("facts of message %s: %w", d.ID, err)
		}
		return nil
	})
	return slices.DeleteFunc(due, func(d queue.Due) bool { return d.Facts == nil }), err
}

func scanDue(row pgx.CollectableRow) (queue.Due, error) {
	var d queue.Due
	var avoid []byte
	if err := row.Scan(intoID(&d.ID), &d.Lane.Number, &d.Lane.Tenant, &d.Due, &d.Attempts, &d.Tries, &avoid); err != nil {
		return d, err
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
	queueTake(b, owner, c.Take)
	held, moved := rowsAs("h", len(c.Hold)), rowsAs("l", len(c.Relane))
	for _, h := range c.Hold {
		held.row().id("id", h.ID).time("until", h.Until)
	}
	held.queue(b, `UPDATE ready r SET due = h.until, held = true FROM @h WHERE r.id = ANY (@h.id) AND r.id = h.id`)
	for _, r := range c.Relane {
		moved.row().id("id", r.ID).int("lane", int(r.Lane))
	}
	moved.queue(b, `UPDATE ready r SET lane = l.lane FROM @l WHERE r.id = ANY (@l.id) AND r.id = l.id`)
	return commitWith(ctx, tx, b)
}

// queueTake moves messages from ready to inflight.
func queueTake(b *pgx.Batch, owner mail.ID, take []queue.Assignment) {
	i := rowsAs("i", len(take))
	for _, a := range take {
		d := a.Due
		i.row().id("id", d.ID).int("lane", int(d.Lane.Number)).int("tenant_id", int(d.Lane.Tenant)).int("account_id", int(a.Account)).
			int("n", d.Attempts+1).int("tries", d.Tries).int("recipients", d.Facts.Recipients).json("avoid", d.Avoid).
			bool("joined", a.Joined)
	}
	i.queue(b, `DELETE FROM ready WHERE id = ANY (@i.id)`)
	i.queue(b, `INSERT INTO inflight (owner, @i.*) SELECT $1, i.* FROM @i`, [16]byte(owner))
}

// Load reads what is needed to send claimed messages. Recipients that were suppressed since acceptance have that status.
func (db *DB) Load(ctx context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
	i := idRows(ids)
	loaded := make(map[mail.ID]queue.Loaded, len(ids))
	rows := query(ctx, db.engine, `SELECT b.id, b.payload FROM @body b WHERE b.id = ANY (@i.id)`, i)
	var id [16]byte
	var payload []byte
	_, err := pgx.ForEachRow(rows, []any{&id, &payload}, func() error {
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
	if err := db.loadRecipients(ctx, i, loaded); err != nil {
		return nil, err // bodies without their recipients would look like messages to nobody
	}
	return loaded, nil
}

func (db *DB) loadRecipients(ctx context.Context, i *rowset, loaded map[mail.ID]queue.Loaded) error {
	q := `
SELECT r.message_id, r.n, r.kind, r.email, r.name,
       CASE WHEN r.status = 'queued' AND ` + suppressedSQL("r.tenant_id", foldedSQL("r")+", lower(r.email)", "(SELECT m.stream FROM @message m WHERE m.id = r.message_id AND m.id BETWEEN @i.id.first AND @i.id.last)") + `
            THEN 'suppressed' ELSE r.status END
FROM @recipient r
WHERE r.message_id = ANY (@i.id)
ORDER BY r.message_id, r.n`
	rows := query(ctx, db.engine, q, i)
	var id [16]byte
	var r mail.Recipient
	_, err := pgx.ForEachRow(rows, []any{&id, &r.N, &r.Kind, &r.Address.Email, &r.Address.Name, &r.Status}, func() error {
		l := loaded[id]
		l.Recipients = append(l.Recipients, r)
		loaded[id] = l
		return nil
	})
	return failed("load recipients", err)
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
	return lanes, failed("list lanes", err)
}

func readLanes(ctx context.Context, on querier) ([]queue.Lane, error) {
	return pgx.CollectRows(query(ctx, on, lanesSQL), func(row pgx.CollectableRow) (l queue.Lane, err error) {
		return l, row.Scan(&l.Number, &l.Tenant)
	})
}
