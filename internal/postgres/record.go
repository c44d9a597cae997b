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
USING @i
WHERE f.id = ANY (@i.id) AND f.id = i.id AND f.n = i.n AND f.owner = i.owner AND (f.started_at IS NULL OR NOT i.release)
RETURNING i.row, f.lane, f.tenant_id, f.account_id, f.tries`

// lateSQL does the same in unknown, where a rescuer put the claims. It is a statement of its own: recordSQL, if it waited for
// the rescuer's lock, can't see what the rescuer wrote.
const lateSQL = `
DELETE FROM unknown u
USING @i
WHERE u.id = ANY (@i.id) AND u.id = i.id AND u.n = i.n AND u.owner = i.owner
RETURNING i.row, u.lane, u.tenant_id, u.account_id, u.tries`

// closeAttemptSQL closes attempts that have no verdict yet. If an event has proved a call, an uncertain result becomes accepted.
const closeAttemptSQL = `
UPDATE @attempt t SET finished_at = now(), status = i.status, code = i.code, error = i.error,
    class = CASE WHEN i.class = 'uncertain' AND t.seen_at IS NOT NULL THEN 'accepted' ELSE i.class END,
    provider_message_id = CASE WHEN i.pmid = '' THEN t.provider_message_id ELSE i.pmid END,
    verdict_source = CASE WHEN i.class = 'uncertain' AND t.seen_at IS NOT NULL THEN t.seen_by ELSE 'response' END
FROM @i
WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.n = i.n AND t.owner = i.owner AND (t.class IS NULL OR t.class = 'uncertain' AND i.class <> 'uncertain')`

// recipientSQL changes recipients that are still open.
const recipientSQL = `
UPDATE @recipient r SET status = i.status, detail = i.detail, updated_at = now()
FROM @i
WHERE r.message_id = ANY (@i.id) AND r.message_id = i.id AND r.n = i.n AND r.status IN ('queued', 'unknown')`

// requeueSQL puts messages back into ready.
const requeueSQL = `
INSERT INTO ready (id, lane, tenant_id, due, attempts, tries, avoid, held)
SELECT i.id, i.lane, i.tenant_id, now() + i.wait, i.n, i.tries, i.avoid, i.held
FROM @i
ON CONFLICT (id) DO NOTHING`

// hangSQL puts messages into unknown.
const hangSQL = `
INSERT INTO unknown (id, lane, tenant_id, account_id, n, tries, policy, decide_at, owner, avoid)
SELECT i.id, i.lane, i.tenant_id, i.account_id, i.n, i.tries, i.policy, now() + i.wait, i.owner, i.avoid
FROM @i
ON CONFLICT (id) DO NOTHING`

// recordBatch sorts the batch by message. All transactions that lock attempts, those of events too, lock them in this order.
func (db *DB) recordBatch(ctx context.Context, batch []ownedResult) ([]bool, []error) {
	byMessage := func(a, b *ownedResult) int { return slices.Compare(a.ID[:], b.ID[:]) }
	return inOrder(batch, byMessage, func(sorted []ownedResult) ([]bool, []error) { return bisect(ctx, sorted, db.recordOnce) })
}

// freed is a claim that a result closes, and where it was.
type freed struct {
	lane, tenant, tries int
	account             int32
	wasUnknown          bool
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
			idRows(doubted).queue(b, lockDoubtSQL)
		}
		queueAttempts(b, batch)
		db.queueRecipients(b, batch, owned, doubted)
		queueNext(b, batch, owned)
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
	owned := make([]*freed, len(batch))
	calls, late := rowsAs("i", len(batch)), rowsAs("i", len(batch))
	for row, r := range batch {
		calls.row().int("row", row).id("id", r.ID).int("n", r.N).id("owner", r.owner).bool("release", r.Class == "")
	}
	if err := scanFreed(ctx, tx, owned, false, recordSQL, calls); err != nil {
		return nil, err
	}
	for row, r := range batch {
		if owned[row] == nil && r.Class != "" && r.Unknown == nil { // an uncertain result does not move a message out of unknown
			late.row().int("row", row).id("id", r.ID).int("n", r.N).id("owner", r.owner)
		}
	}
	if late.n == 0 {
		return owned, nil
	}
	return owned, scanFreed(ctx, tx, owned, true, lateSQL, late)
}

func scanFreed(ctx context.Context, tx pgx.Tx, owned []*freed, wasUnknown bool, q string, calls *rowset) error {
	rows := query(ctx, tx, q, calls)
	var row int
	var f freed
	_, err := pgx.ForEachRow(rows, []any{&row, &f.lane, &f.tenant, &f.account, &f.tries}, func() error {
		one := f
		one.wasUnknown = wasUnknown
		owned[row] = &one
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
			acc.Settle(c.now(), c.when(r.Settle.At), r.Settle.Recipients, r.Settle.Joined)
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
	i := rowsAs("i", len(batch))
	for _, r := range batch {
		if r.Class != "" { // else no call was announced
			i.row().id("id", r.ID).int("n", r.N).id("owner", r.owner).text("class", r.Class).int("status", r.Status).
				text("code", r.Code).text("error", r.Error).text("pmid", r.ProviderMessageID)
		}
	}
	i.queue(b, closeAttemptSQL)
}

// queueRecipients settles recipients. The status of the message is computed from all of its recipients and not taken from
// the result, because an event may have settled some of them first.
func (db *DB) queueRecipients(b *pgx.Batch, batch []ownedResult, owned []*freed, doubted [][16]byte) {
	changed, told := rowsAs("i", len(batch)), rowsAs("i", len(batch))
	var messages [][16]byte
	for k, r := range batch {
		if owned[k] == nil || len(r.Recipients) == 0 {
			continue
		}
		messages = append(messages, r.ID)
		for _, c := range r.Recipients {
			changed.row().id("id", r.ID).small("n", c.N).text("status", string(c.Status)).text("detail", c.Detail)
			db.addReport(told, r.Result, owned[k].account, c)
		}
	}
	if len(messages) == 0 {
		return
	}
	changed.queue(b, recipientSQL)
	if len(doubted) > 0 {
		queueKeepDoubt(b, doubted, true)
	}
	queueFold(b, messages)
	told.queue(b, reportSQL)
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
		idRows(ids).queue(b, settleSeenSQL)
		queueFoldChanged(b, ids)
	}
}

// queueNext puts messages back into ready, or into unknown.
func queueNext(b *pgx.Batch, batch []ownedResult, owned []*freed) {
	again, hang := rowsAs("i", len(batch)), rowsAs("i", len(batch))
	var settled [][16]byte
	for k, r := range batch {
		f, n := owned[k], r.N
		if r.Class == "" { // no call was made: the number is free again
			n--
		}
		switch q, u := r.Requeue, r.Unknown; {
		case f == nil:
		case q != nil:
			if f.wasUnknown {
				settled = append(settled, r.ID)
			}
			again.row().id("id", r.ID).int("lane", f.lane).int("tenant_id", f.tenant).wait("wait", q.In).int("n", n).int("tries", q.Tries).
				json("avoid", q.Avoid).bool("held", q.Held)
		case u != nil:
			hang.row().id("id", r.ID).int("lane", f.lane).int("tenant_id", f.tenant).wait("wait", u.DecideIn).int("n", n).int("tries", f.tries).
				json("avoid", u.Avoid).int("account_id", int(f.account)).text("policy", string(u.Policy)).id("owner", r.owner)
		}
	}
	again.queue(b, requeueSQL)
	if len(settled) > 0 { // the late answer proves that nothing was sent
		idRows(settled).queue(b, `UPDATE recipient SET status = 'queued', updated_at = now() WHERE message_id = ANY (@i.id) AND status = 'unknown'`)
		queueFold(b, settled)
	}
	hang.queue(b, hangSQL)
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
