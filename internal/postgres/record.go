package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// ownedResult is a result with the replica that claimed its message.
type ownedResult struct {
	queue.Result
	owner mail.ID
}

// Record closes one claim: attempt, recipients, message, and the next place of the message, if any. It reports whether
// the claim was still ours to close. A rescuer may have taken it meanwhile, because our lease had run out. The result is
// still evidence: it settles the message if nothing else did; else it only closes its own attempt.
func (db *DB) Record(ctx context.Context, owner mail.ID, r queue.Result) (bool, error) {
	return db.results.do(ctx, ownedResult{r, owner}, 1)
}

// recordSQL deletes claims from inflight and returns them with the columns that the next place needs. A release, for which no
// call was made, frees only a claim that is not started. Its number is used again, so a repeated release could otherwise free
// the next call.
const recordSQL = `
DELETE FROM inflight f
USING unnest($1::uuid[], $2::int[], $3::uuid[], $4::boolean[]) WITH ORDINALITY AS i(id, n, owner, release, row)
WHERE f.id = ANY ($1) AND f.id = i.id AND f.n = i.n AND f.owner = i.owner AND (f.started_at IS NULL OR NOT i.release)
RETURNING i.row, f.lane, f.tenant_id, f.account_id, f.tries`

// lateSQL does the same in unknown, where a rescuer put the claims. It is a statement of its own: recordSQL, if it waited for
// the rescuer's lock, can't see what the rescuer wrote.
const lateSQL = `
DELETE FROM unknown u
USING unnest($1::uuid[], $2::int[], $3::uuid[], $4::boolean[]) WITH ORDINALITY AS i(id, n, owner, silent, row)
WHERE u.id = ANY ($1) AND u.id = i.id AND u.n = i.n AND u.owner = i.owner AND NOT i.silent
RETURNING i.row, u.lane, u.tenant_id, u.account_id, u.tries`

// closeAttemptSQL closes attempts that have no verdict yet. If an event has proved a call, an uncertain result becomes accepted.
const closeAttemptSQL = `
UPDATE attempt t SET finished_at = now(), status = i.status, code = i.code, error = i.error,
    class = CASE WHEN i.class = 'uncertain' AND t.seen_at IS NOT NULL THEN 'accepted' ELSE i.class END,
    provider_message_id = CASE WHEN i.pmid = '' THEN t.provider_message_id ELSE i.pmid END,
    verdict_source = CASE WHEN i.class = 'uncertain' AND t.seen_at IS NOT NULL THEN t.seen_by ELSE 'response' END
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::uuid[])
    AS i(id, n, class, status, code, error, pmid, owner)
WHERE t.message_id = ANY ($1) AND t.message_id = i.id AND t.n = i.n AND t.owner = i.owner AND (t.class IS NULL OR t.class = 'uncertain' AND i.class <> 'uncertain')`

// recipientSQL changes recipients that are still open.
const recipientSQL = `
UPDATE recipient r SET status = i.status, detail = i.detail, updated_at = now()
FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[]) AS i(id, n, status, detail)
WHERE r.message_id = ANY ($1) AND r.message_id = i.id AND r.n = i.n AND r.status IN ('queued', 'unknown')`

// requeueSQL puts messages back into ready.
const requeueSQL = `
INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid, held)
SELECT i.id, i.lane, i.tenant_id, now() + i.wait, i.n, i.tries, i.avoid, i.held
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::interval[], $5::int[], $6::int[], $7::jsonb[], $8::boolean[])
    AS i(id, lane, tenant_id, wait, n, tries, avoid, held)
ON CONFLICT (id) DO NOTHING`

// hangSQL puts messages into unknown.
const hangSQL = `
INSERT INTO unknown (id, lane, tenant_id, account_id, n, tries, policy, decide_at, owner, avoid)
SELECT i.id, i.lane, i.tenant_id, i.account_id, i.n, i.tries, i.policy, now() + i.wait, i.owner, i.avoid
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[], $7::text[], $8::interval[], $9::uuid[], $10::jsonb[])
    AS i(id, lane, tenant_id, account_id, n, tries, policy, wait, owner, avoid)
ON CONFLICT (id) DO NOTHING`

// recordBatch sorts the batch by message. All transactions that lock attempts, those of events too, lock them in this order.
func (db *DB) recordBatch(ctx context.Context, batch []ownedResult) ([]bool, []error) {
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return slices.Compare(batch[a].ID[:], batch[b].ID[:]) })
	sorted := make([]ownedResult, len(batch))
	for i, at := range order {
		sorted[i] = batch[at]
	}
	got, failed := bisect(ctx, sorted, db.recordOnce)
	out, errs := make([]bool, len(batch)), make([]error, len(batch))
	for i, at := range order {
		out[at], errs[at] = got[i], failed[i]
	}
	return out, errs
}

// freed is a claim that a result closes, and where it was.
type freed struct {
	lane, tenant, account, tries int32
	wasUnknown                   bool
}

// recordOnce records a batch, and repeats it after a deadlock.
func (db *DB) recordOnce(ctx context.Context, batch []ownedResult) ([]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var owned []*freed
	var twins [][16]byte
	err := again(func() error {
		var err error
		owned, twins, err = db.recordTx(ctx, batch)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	db.reportTwins(twins)
	out := make([]bool, len(batch))
	for i := range batch {
		out[i] = owned[i] != nil
	}
	return out, nil
}

// recordTx records a batch in one transaction.
func (db *DB) recordTx(ctx context.Context, batch []ownedResult) (owned []*freed, twins [][16]byte, err error) {
	later := false // whether to wait for the disk after the commit, see briefly
	err = db.briefly(ctx, func(tx pgx.Tx) error {
		var err error
		if owned, err = freeClaims(ctx, tx, batch); err != nil {
			return err
		}
		b := &pgx.Batch{}
		if later = len(touched(batch, owned)) > 0; later {
			b.Queue(notSyncedSQL)
		} else if slices.Contains(owned, nil) { // this one may be recorded already
			b.Queue(commitSQL)
		}
		doubted := doubtful(batch, owned)
		if len(doubted) > 0 {
			b.Queue(lockDoubtSQL, doubted)
		}
		queueAttempts(b, batch)
		if err := db.queueRecipients(b, batch, owned, doubted); err != nil {
			return err
		}
		if err := queueNext(b, batch, owned); err != nil {
			return err
		}
		queueSeen(b, batch, owned)
		queueLate(b, batch, owned)
		queueTwins(b, mayBeTwins(batch, owned), &twins)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		return db.recordAccounts(ctx, tx, batch, owned)
	})
	if err == nil && later {
		err = db.flush(ctx)
	}
	return owned, twins, err
}

// recordAccounts writes the effects on accounts. It comes last, because all replicas wait for the locks of limits.
func (db *DB) recordAccounts(ctx context.Context, tx pgx.Tx, batch []ownedResult, owned []*freed) error {
	b := &pgx.Batch{}
	if err := db.settle(ctx, tx, b, batch, owned); err != nil {
		return err
	}
	queueSideEffects(b, batch, owned)
	return commitWith(ctx, tx, b)
}

// freeClaims frees the claims of a batch and returns for each result the claim that it freed, or nil. A message may be in a
// batch twice, with a late result of an earlier call.
func freeClaims(ctx context.Context, tx pgx.Tx, batch []ownedResult) ([]*freed, error) {
	n := len(batch)
	ids, owners, ns := make([][16]byte, n), make([][16]byte, n), make([]int32, n)
	release, silent := make([]bool, n), make([]bool, n)
	for i, r := range batch {
		ids[i], owners[i], ns[i] = r.ID, r.owner, int32(r.N) //nolint:gosec // see queueTake
		release[i] = r.Class == ""
	}
	owned := make([]*freed, n)
	if err := scanFreed(ctx, tx, owned, false, recordSQL, ids, ns, owners, release); err != nil {
		return nil, err
	}
	late := false
	for i, r := range batch { // an uncertain result does not move a message out of unknown
		silent[i] = owned[i] != nil || release[i] || r.Unknown != nil
		late = late || !silent[i]
	}
	if !late {
		return owned, nil
	}
	return owned, scanFreed(ctx, tx, owned, true, lateSQL, ids, ns, owners, silent)
}

func scanFreed(ctx context.Context, tx pgx.Tx, owned []*freed, wasUnknown bool, q string, args ...any) error {
	rows, err := tx.Query(ctx, q, args...)
	if err != nil {
		return err
	}
	var row int
	var f freed
	_, err = pgx.ForEachRow(rows, []any{&row, &f.lane, &f.tenant, &f.account, &f.tries}, func() error {
		one := f
		one.wasUnknown = wasUnknown
		owned[row-1] = &one
		return nil
	})
	return err
}

// settle counts the calls of freed claims in their accounts' windows, in the transaction that closes them.
func (db *DB) settle(ctx context.Context, tx pgx.Tx, b *pgx.Batch, batch []ownedResult, owned []*freed) error {
	accounts := touched(batch, owned)
	if len(accounts) == 0 {
		return nil
	}
	limits, c, err := db.lockLimits(ctx, tx, accounts)
	if err != nil {
		return err
	}
	for i, r := range batch {
		f := owned[i]
		if f == nil || r.Settle == nil || f.wasUnknown {
			continue
		}
		if acc := limits[f.account]; acc != nil {
			acc.Settle(c.now(), c.when(r.Settle.At), r.Settle.Recipients)
		}
	}
	queueLimits(b, limits)
	return nil
}

// touched lists the accounts whose limit rows a batch writes: those of settled calls and those that are blocked. They are
// locked by one statement, so that all transactions lock them in one order.
func touched(batch []ownedResult, owned []*freed) []int32 {
	var accounts []int32
	add := func(id int32) {
		if !slices.Contains(accounts, id) {
			accounts = append(accounts, id)
		}
	}
	for i, r := range batch {
		if owned[i] == nil {
			continue
		}
		if r.Settle != nil && !owned[i].wasUnknown {
			add(owned[i].account)
		}
		if r.Block != nil {
			add(r.Block.Account)
		}
	}
	return accounts
}

// queueAttempts closes the attempts of all calls that were made.
func queueAttempts(b *pgx.Batch, batch []ownedResult) {
	var ids, owners [][16]byte
	var ns, status []int32
	var class, code, errs, pmid []string
	for _, r := range batch {
		if r.Class == "" { // no call was announced
			continue
		}
		ids, ns, status = append(ids, r.ID), append(ns, int32(r.N)), append(status, int32(r.Status)) //nolint:gosec // three digits
		class, code = append(class, r.Class), append(code, r.Code)
		errs, pmid, owners = append(errs, r.Error), append(pmid, r.ProviderMessageID), append(owners, r.owner)
	}
	if len(ids) > 0 {
		b.Queue(closeAttemptSQL, ids, ns, class, status, code, errs, pmid, owners)
	}
}

// queueRecipients settles recipients. The status of the message is computed from all of its recipients and not taken from
// the result, because an event may have settled some of them first.
func (db *DB) queueRecipients(b *pgx.Batch, batch []ownedResult, owned []*freed, doubted [][16]byte) error {
	told := reports{newID: db.clock.NewID}
	var ids, messages [][16]byte
	var ns []int16
	var status, detail []string
	for i, r := range batch {
		if owned[i] == nil || len(r.Recipients) == 0 {
			continue
		}
		messages = append(messages, r.ID)
		for _, c := range r.Recipients {
			ids, ns = append(ids, r.ID), append(ns, int16(c.N)) //nolint:gosec // at most 1000
			status, detail = append(status, string(c.Status)), append(detail, c.Detail)
			if err := told.add(r.Result, owned[i].account, c); err != nil {
				return err
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	b.Queue(recipientSQL, ids, ns, status, detail)
	if len(doubted) > 0 {
		queueKeepDoubt(b, doubted, true)
	}
	queueFold(b, messages)
	told.queue(b)
	return nil
}

// queueSeen settles the messages that this batch moves to unknown although an event has proved their call already. Both sides
// lock the attempt's row, so one of them sees the other.
func queueSeen(b *pgx.Batch, batch []ownedResult, owned []*freed) {
	var ids [][16]byte
	for i, r := range batch {
		if owned[i] != nil && r.Unknown != nil {
			ids = append(ids, r.ID)
		}
	}
	if len(ids) > 0 {
		b.Queue(settleSeenSQL, ids)
		queueFoldChanged(b, ids)
	}
}

// queueNext puts messages back into ready, or into unknown.
func queueNext(b *pgx.Batch, batch []ownedResult, owned []*freed) error {
	var again, hang nextRows
	var settled [][16]byte
	for i, r := range batch {
		f := owned[i]
		switch {
		case f == nil:
		case r.Requeue != nil:
			avoid, err := avoidJSON(r.Requeue.Avoid)
			if err != nil {
				return err
			}
			if f.wasUnknown {
				settled = append(settled, r.ID)
			}
			again.add(r, f, r.Requeue.In)
			again.tries = append(again.tries, int32(r.Requeue.Tries)) //nolint:gosec // see queueTake
			again.avoid, again.held = append(again.avoid, avoid), append(again.held, r.Requeue.Held)
		case r.Unknown != nil:
			avoid, err := avoidJSON(r.Unknown.Avoid)
			if err != nil {
				return err
			}
			hang.add(r, f, r.Unknown.DecideIn)
			hang.avoid = append(hang.avoid, avoid)
			hang.tries, hang.owners = append(hang.tries, f.tries), append(hang.owners, r.owner)
			hang.policy = append(hang.policy, string(r.Unknown.Policy))
		}
	}
	if len(again.ids) > 0 {
		b.Queue(requeueSQL, again.ids, again.lanes, again.tenants, again.waits, again.ns, again.tries, again.avoid, again.held)
	}
	if len(settled) > 0 { // the late answer proves that nothing was sent
		b.Queue(`UPDATE recipient SET status = 'queued', updated_at = now() WHERE message_id = ANY($1) AND status = 'unknown'`, settled)
		queueFold(b, settled)
	}
	if len(hang.ids) > 0 {
		b.Queue(hangSQL, hang.ids, hang.lanes, hang.tenants, hang.accounts, hang.ns, hang.tries, hang.policy, hang.waits, hang.owners, hang.avoid)
	}
	return nil
}

// nextRows are the columns of the rows that go back to ready or to unknown.
type nextRows struct {
	ids, owners              [][16]byte
	lanes, tenants, accounts []int32
	ns, tries                []int32
	waits                    []time.Duration
	avoid                    [][]byte
	held                     []bool
	policy                   []string
}

func (x *nextRows) add(r ownedResult, f *freed, wait time.Duration) {
	n := r.N
	if r.Class == "" { // no call was made: the number is free again
		n--
	}
	x.ids, x.lanes, x.tenants, x.accounts = append(x.ids, r.ID), append(x.lanes, f.lane), append(x.tenants, f.tenant), append(x.accounts, f.account)
	x.ns, x.waits = append(x.ns, int32(n)), append(x.waits, wait) //nolint:gosec // see queueTake
}

// queueSideEffects blocks, parks and unparks accounts for the results that closed their claims. Blocks come in the order of
// accounts, one each, and before the configuration version: other transactions lock the same rows in that order.
func queueSideEffects(b *pgx.Batch, batch []ownedResult, owned []*freed) {
	blocks := map[int32]*queue.Block{}
	var parks []*queue.Park
	var unparks []*queue.Unpark
	for i, r := range batch {
		if owned[i] == nil {
			continue
		}
		if r.Park != nil {
			parks = append(parks, r.Park)
		}
		if r.Unpark != nil {
			unparks = append(unparks, r.Unpark)
		}
		if x := r.Block; x != nil && (blocks[x.Account] == nil || blocks[x.Account].For < x.For) {
			blocks[x.Account] = x
		}
	}
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		queueBlock(b, id, blocks[id].For, blocks[id].Reason)
	}
	for _, u := range unparks {
		b.Queue(unparkSQL, u.Account, u.Keys)
	}
	for _, p := range parks {
		queuePark(b, p)
	}
}

// bumpSQL raises the configuration version, which makes every replica read the configuration again.
const bumpSQL = `UPDATE config_state SET version = version + 1, at = now()`
