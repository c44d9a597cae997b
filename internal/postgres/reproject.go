package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// RawEvents lists payloads as they came, oldest first, after an id, of one account or of all.
func (db *DB) RawEvents(ctx context.Context, account string, since time.Time, after mail.ID, limit int) ([]record.RawEvent, error) {
	const q = `
SELECT e.id, a.name, e.raw FROM event e JOIN account a ON a.id = e.account_id
WHERE e.id > $1 AND e.raw IS NOT NULL AND ($2 = '' OR a.name = $2)
ORDER BY e.id LIMIT $3`
	if floor := mail.IDAt(since); !since.IsZero() && after.String() < floor.String() {
		after = floor
	}
	return collect("read payloads", query(ctx, db.api, q, [16]byte(after), account, limit), func(row pgx.CollectableRow) (record.RawEvent, error) {
		var r record.RawEvent
		return r, row.Scan(intoID(&r.Origin), &r.Account, &r.Raw)
	})
}

// errDryRun rolls back a dry run.
var errDryRun = errors.New("dry run")

// Reproject stores the events that the parser reads in payloads today, and rebuilds the state of all recipients of the
// affected messages from all of their events. Endpoints get nothing again, and no suppression is removed: an operator has to
// do that. It reports how many events have changed, and how many messages they belong to.
func (db *DB) Reproject(ctx context.Context, in []record.Reprojected, dryRun bool) (changed, messages int, err error) {
	err = again(func() error {
		return inTx(ctx, db.hooks, func(tx pgx.Tx) error {
			var touched [][16]byte
			changed, touched, err = db.rewrite(ctx, tx, in)
			messages = len(touched)
			if err != nil {
				return err
			}
			if dryRun {
				return errDryRun
			}
			return refold(ctx, tx, touched)
		})
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return 0, 0, fmt.Errorf("reproject: %w", unavailable(err))
	}
	return changed, messages, nil
}

// keptSQL reads the events of payloads: the first has the payload's id as its own, the others have it as their origin.
const keptSQL = `
WITH k AS (
    SELECT * FROM event WHERE id = ANY ($1)
    UNION ALL
    SELECT * FROM event WHERE origin = ANY ($1) AND origin <> id
)
SELECT id, origin, part, tenant_id, account_id, message_id, coalesce(n, -1), stream, source, type, name, recipient, at, provider_message_id, bounce, machine, url, key
FROM k`

// place identifies an event by its payload and its part in that.
type place struct {
	origin mail.ID
	part   int
}

// rewrite updates the events of payloads to what the parser reads in them today. It writes events that have changed. It adds
// new ones with the account and message of the payload's first event. Events that are gone become unmapped.
func (db *DB) rewrite(ctx context.Context, tx pgx.Tx, in []record.Reprojected) (int, [][16]byte, error) {
	kept, err := readKept(ctx, tx, in)
	if err != nil {
		return 0, nil, err
	}
	var read, write []*fact
	for _, r := range in {
		first := kept[place{r.Origin, -1}]
		if first == nil {
			continue
		}
		facts := db.unpack(0, record.Intake{Account: first.account, Source: first.Source, Payloads: []mail.Payload{{Events: r.Events}}})
		for _, f := range facts {
			f.Origin, f.Tenant, f.Stream, f.MessageID = r.Origin, first.Tenant, first.Stream, first.MessageID
			if have := kept[place{r.Origin, f.Part}]; have != nil {
				f.ID, f.byContent = have.ID, have.byContent
			}
			read = append(read, f)
		}
	}
	if err := match(ctx, tx, read); err != nil { // the recipient may be another one
		return 0, nil, err
	}
	for _, f := range read {
		have := kept[place{f.Origin, f.Part}]
		delete(kept, place{f.Origin, f.Part})
		if !f.matched && have != nil { // its message is not found anew: keep the old one
			f.MessageID, f.N = have.MessageID, have.N
		}
		if !f.foreign && (have == nil || !readsAlike(have, f)) {
			write = append(write, f)
		}
	}
	for p, f := range kept { // the rest is no longer read in any payload
		if p.part >= 0 && f.Type != mail.EventUnmapped {
			f.Type, f.Name = mail.EventUnmapped, "reprojected away"
			write = append(write, f)
		}
	}
	return len(write), concerned(write), overwrite(ctx, tx, write)
}

func readKept(ctx context.Context, tx pgx.Tx, in []record.Reprojected) (map[place]*fact, error) {
	ids := make([][16]byte, len(in))
	for i, r := range in {
		ids[i] = r.Origin
	}
	rows := query(ctx, tx, keptSQL, ids)
	kept := map[place]*fact{}
	facts, err := pgx.CollectRows(rows, scanKept)
	for _, f := range facts {
		kept[place{f.Origin, f.Part}] = f
		if f.ID == f.Origin {
			kept[place{f.Origin, -1}] = f
		}
	}
	return kept, err
}

func scanKept(row pgx.CollectableRow) (*fact, error) {
	f := &fact{}
	return f, row.Scan(intoID(&f.ID), intoID(&f.Origin), &f.Part, &f.Tenant, &f.account, orNoID(&f.MessageID), &f.N, &f.Stream, &f.Source,
		&f.Type, &f.Name, &f.Recipient, &f.At, &f.ProviderMessageID, &f.Bounce, &f.Machine, &f.URL, intoID(&f.byContent))
}

// readsAlike reports whether two events are the same in all that the parser decides.
func readsAlike(a, b *fact) bool {
	same := a.Bounce == b.Bounce || a.Bounce != nil && b.Bounce != nil && *a.Bounce == *b.Bounce
	return same && a.MessageID == b.MessageID && a.N == b.N && a.Type == b.Type && a.Name == b.Name && mail.FoldAddress(a.Recipient) == mail.FoldAddress(b.Recipient) && a.At.Equal(b.At) &&
		a.Machine == b.Machine && a.URL == b.URL
}

// concerned lists the messages of events, each once.
func concerned(facts []*fact) [][16]byte {
	var ids [][16]byte
	for _, f := range facts {
		if !f.MessageID.IsZero() && !slices.Contains(ids, [16]byte(f.MessageID)) {
			ids = append(ids, f.MessageID)
		}
	}
	return ids
}

// overwrite replaces events by their ids. Endpoints do not get them again.
func overwrite(ctx context.Context, tx pgx.Tx, facts []*fact) error {
	if len(facts) == 0 {
		return nil
	}
	e := rowsAs("e", len(facts))
	for _, f := range facts {
		addEvent(e, f, nil)
	}
	_, err := tx.Exec(ctx, insertEventSQL+` ON CONFLICT (id) DO UPDATE SET tenant_id = EXCLUDED.tenant_id,
		message_id = EXCLUDED.message_id, stream = EXCLUDED.stream, n = EXCLUDED.n, type = EXCLUDED.type, name = EXCLUDED.name,
		recipient = EXCLUDED.recipient, at = EXCLUDED.at, bounce = EXCLUDED.bounce, machine = EXCLUDED.machine, url = EXCLUDED.url`, e)
	return err
}

// refold rebuilds recipients from their events. A recipient that had events was accepted by a provider: without them it is sent.
func refold(ctx context.Context, tx pgx.Tx, messages [][16]byte) error {
	if len(messages) == 0 {
		return nil
	}
	i := idRows(messages)
	_, err := tx.Exec(ctx, `UPDATE recipient SET status = 'sent', detail = '', bounce = NULL, event_rank = 0, event_at = NULL, event_key = NULL
		WHERE message_id = ANY (@i.id) AND event_rank > 0`, i)
	if err != nil {
		return err
	}
	rows := query(ctx, tx, `SELECT message_id, n, type, at, key, bounce FROM event
		WHERE message_id = ANY ($1) AND n IS NOT NULL AND source IN ('webhook', 'lookup') ORDER BY message_id, n`, messages)
	facts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*fact, error) {
		f := &fact{}
		return f, row.Scan(intoID(&f.MessageID), &f.N, &f.Type, &f.At, intoID(&f.byContent), &f.Bounce)
	})
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	queueEvidence(b, facts, messages)
	return tx.SendBatch(ctx, b).Close()
}
