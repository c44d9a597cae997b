package postgres

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// intakeWait bounds how long a provider waits for the commit of its events. Providers give up after ten seconds or more.
const intakeWait = 5 * time.Second

// intakeWeight bounds one transaction of events, in bytes of payload: some thousand events.
const intakeWeight = 1 << 20

// futureSkew is how far ahead of ours a provider's clock may be.
const futureSkew = 10 * time.Minute

// intakeChunk bounds the rows of one statement that joins a growing table: its pinned plan compares every row found with
// every row given.
const intakeChunk = 250

// ReceiveEvents stores what a provider reported and applies it, in one transaction with others that wait. It returns
// record.ErrReplayed if the token came with another body before. It returns *record.Unavailable if the database can't store
// it: then nothing is stored, and the provider repeats its request.
func (db *DB) ReceiveEvents(ctx context.Context, in record.Intake) (record.Taken, error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), intakeWait, errSlow)
	defer cancel()
	size := int64(256)
	for _, p := range in.Payloads {
		size += int64(len(p.Raw)) + 256*int64(len(p.Events))
	}
	return db.events.do(ctx, in, size)
}

// fact is one event on its way into the store.
type fact struct {
	mail.Event
	intake, payload  int
	account          int32
	byID, byContent  mail.ID
	raw              []byte
	matched, foreign bool
	proves           bool // it proves that the call arrived, whatever recipient it names
	shared           bool // matched by data that all recipients of its message know: any of them could have forged it
	attempt          int  // number of the account's last attempt at the message, 0 none
}

// takenOutcome is the answer to one request of a batch.
type takenOutcome struct {
	taken record.Taken
	err   error      // of this request alone: record.ErrReplayed
	twins [][16]byte // of the whole batch; set in the first outcome only
}

func (db *DB) intakeBatch(ctx context.Context, batch []record.Intake) ([]record.Taken, []error) {
	got, errs := bisect(ctx, batch, db.intakeOnce)
	taken := make([]record.Taken, len(batch))
	for i := range got {
		taken[i] = got[i].taken
		if errs[i] == nil {
			errs[i] = got[i].err
		}
	}
	return taken, errs
}

// intakeOnce stores a batch in one transaction. It takes its locks in the same order as the recording of results: keys,
// attempts by message, then the rows that depend on them.
func (db *DB) intakeOnce(ctx context.Context, batch []record.Intake) ([]takenOutcome, error) {
	ctx, cancel := context.WithTimeout(ctx, intakeWait)
	defer cancel()
	out := make([]takenOutcome, len(batch))
	err := again(func() error {
		clear(out)
		return inTx(ctx, db.hooks, func(tx pgx.Tx) error {
			if err := checkTokens(ctx, tx, batch, out); err != nil {
				return err
			}
			facts, err := db.fresh(ctx, tx, batch, out)
			if err != nil {
				return err
			}
			if len(facts) == 0 {
				_, err := tx.Exec(ctx, commitSQL)
				return err
			}
			if err := match(ctx, tx, facts); err != nil {
				return err
			}
			if err := db.hideErased(ctx, tx, facts); err != nil {
				return err
			}
			return db.apply(ctx, tx, facts, out)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("receive events: %w", err)
	}
	db.reportTwins(out[0].twins)
	return out, nil
}

// again repeats run up to twice if it lost a deadlock, could not be serialized, or waited too long for a lock.
func again(run func() error) error {
	err := run()
	for range 2 {
		if !isCode(err, "40P01", "40001", "55P03") {
			return err
		}
		err = run()
	}
	return err
}

// checkTokens stores the tokens of the requests, and marks requests whose token came with another body before.
func checkTokens(ctx context.Context, tx pgx.Tx, batch []record.Intake, out []takenOutcome) error {
	bodies := map[mail.ID][32]byte{}
	for i, in := range batch {
		if in.Once == nil {
			continue
		}
		if have, ok := bodies[in.Once.Token]; ok && have != in.Once.Body {
			out[i].err = record.ErrReplayed
			continue
		}
		bodies[in.Once.Token] = in.Once.Body
	}
	if len(bodies) == 0 {
		return nil
	}
	tokens := rowsAs("i", len(bodies))
	for _, t := range slices.SortedFunc(maps.Keys(bodies), func(a, b mail.ID) int { return slices.Compare(a[:], b[:]) }) {
		body := bodies[t]
		tokens.row().id("token", t).bytes("body", body[:])
	}
	rows := query(ctx, tx, `INSERT INTO hook_token (@i.*) SELECT * FROM @i
		ON CONFLICT (token) DO UPDATE SET at = hook_token.at RETURNING token, body`, tokens)
	first := map[mail.ID][32]byte{}
	var token [16]byte
	var body []byte
	_, err := pgx.ForEachRow(rows, []any{&token, &body}, func() error {
		first[token] = [32]byte(body)
		return nil
	})
	for i, in := range batch {
		if err == nil && in.Once != nil && first[in.Once.Token] != in.Once.Body {
			out[i].err = record.ErrReplayed
		}
	}
	return err
}

// fresh lists the events of a batch that are new: neither of their keys came before. It counts the others as duplicates.
func (db *DB) fresh(ctx context.Context, tx pgx.Tx, batch []record.Intake, out []takenOutcome) ([]*fact, error) {
	var all []*fact
	for i, in := range batch {
		if out[i].err == nil {
			all = append(all, db.unpack(i, in)...)
		}
	}
	keys := make([][16]byte, 0, 2*len(all))
	for _, f := range all {
		keys = append(keys, f.byID, f.byContent)
	}
	slices.SortFunc(keys, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	keys = slices.Compact(keys)
	rows := query(ctx, tx, `INSERT INTO event_key (key) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING key`, keys)
	added, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return nil, err
	}
	isNew := make(map[mail.ID]bool, len(added))
	for _, k := range added {
		isNew[k] = true
	}
	var facts []*fact
	for _, f := range all {
		if !isNew[f.byID] || !isNew[f.byContent] {
			out[f.intake].taken.Duplicates++
			continue
		}
		isNew[f.byID], isNew[f.byContent] = false, false // a second one in this batch is a duplicate
		facts = append(facts, f)
	}
	return facts, nil
}

// unpack gives the events of one request their ids and keys. It replaces text that the database can't hold; the payload
// keeps the original.
func (db *DB) unpack(i int, in record.Intake) []*fact {
	var facts []*fact
	received := db.clock.Now()
	for p, payload := range in.Payloads {
		for part, e := range payload.Events {
			f := &fact{Event: e, intake: i, payload: p, account: in.Account, raw: payload.Raw}
			f.ID, f.Part, f.Source, f.N = db.clock.NewID(), part, in.Source, -1
			f.byID, f.byContent = e.Keys(in.Account)
			f.Name, f.Recipient, f.ProviderMessageID, f.URL = clean(e.Name), clean(e.Recipient), clean(e.ProviderMessageID), clean(e.URL)
			if e.Bounce != nil {
				b := *e.Bounce
				b.Code, b.Enhanced, b.Text = clean(b.Code), clean(b.Enhanced), clean(b.Text)
				f.Bounce = &b
			}
			if e.At.Year() < 2000 || e.At.After(received.Add(futureSkew)) { // missing, or false: it would win over later ones
				f.At = received
			}
			f.At = f.At.UTC().Truncate(time.Microsecond) // as it is stored, and compared
			facts = append(facts, f)
		}
	}
	return facts
}

// clean makes a string valid for a text column: no NUL, and valid UTF-8.
func clean(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "�")
}

// byMessage sorts facts by message and recipient, the order in which results are recorded.
func byMessage(facts []*fact) []*fact {
	sorted := slices.Clone(facts)
	slices.SortStableFunc(sorted, func(a, b *fact) int {
		return cmp.Or(slices.Compare(a.MessageID[:], b.MessageID[:]), cmp.Compare(a.N, b.N))
	})
	return sorted
}
