package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

type ownedIntent struct {
	queue.Intent
	owner mail.ID
}

// intentWeight bounds the recipients in the intents of one transaction; each costs a look-up.
const intentWeight = 4000

// Intend announces one call: it writes the attempt row and marks the claim as started, durably, before the caller may
// write to the socket. It also reports which of the call's recipients are suppressed by now; if all are, it announces no
// call. If OK is false for another reason, the claim is no longer the owner's, or the owner's lease has run out: then nothing
// may be sent. On an error the outcome is not known, and nothing may be sent either.
func (db *DB) Intend(ctx context.Context, owner mail.ID, in queue.Intent) (queue.Announced, error) {
	return db.intents.do(ctx, ownedIntent{in, owner}, int64(max(1, len(in.Open))))
}

// intentSQL announces a batch. The inflight row is the lock between it and a rescuer: the first that updates or deletes the
// row wins. It is also the lock between two claims of one replica for one call, if the first was lost in a crash of the
// server: they may be for different accounts, and the limits of the account in the row are charged. If a batch announces a
// call twice, only one of the two makes it.
//
// The recipients come with the intent, so no table is read for them: each takes one look into the index of suppressions. The
// OFFSET 0 keeps it so; a join might read all suppressions.
var intentSQL = `
WITH i AS (
    SELECT * FROM @i
), gone AS MATERIALIZED (
    SELECT row, n FROM (
        SELECT r.row, r.n, ` + suppressedSQL("r.tenant_id", "r.folded, lower(r.email)", "r.stream") + ` AS suppressed
        FROM @r
        OFFSET 0) r
    WHERE suppressed
), alive AS MATERIALIZED ( -- looked at once, and not for each call: its rows are written every few seconds
    SELECT id FROM replica WHERE id = ANY (@i.owner) AND lease_until > clock_timestamp()
), u AS (
    UPDATE inflight f SET started_at = clock_timestamp()
    FROM i
    WHERE f.id = ANY (@i.id) AND f.id = i.id AND f.owner = i.owner AND f.n = i.n AND f.account_id = i.account_id AND f.started_at IS NULL
      AND i.owner IN (SELECT id FROM alive)
      AND (i.open = 0 OR i.open > (SELECT count(*) FROM gone WHERE gone.row = i.row))
    RETURNING i.row, i.id, i.n, i.owner, i.account_id, i.decision, f.started_at
), a AS (
    INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at)
    SELECT id, n, owner, account_id, decision, started_at FROM u
)
SELECT row, NULL::int FROM u
UNION ALL
SELECT row, n FROM gone`

func (db *DB) intentBatch(ctx context.Context, batch []ownedIntent) ([]queue.Announced, []error) {
	return bisect(ctx, batch, db.intentOnce)
}

func (db *DB) intentOnce(ctx context.Context, batch []ownedIntent) ([]queue.Announced, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	rows := query(ctx, db.engine, intentSQL, intentRows(batch))
	out := make([]queue.Announced, len(batch))
	var row int
	var gone *int
	_, err := pgx.ForEachRow(rows, []any{&row, &gone}, func() error {
		if a := &out[row]; gone == nil {
			a.OK = true
		} else {
			a.Suppressed = append(a.Suppressed, *gone)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("intend: %w", err)
	}
	return out, nil
}

// intentRows gives the rows of intentSQL: calls, and their recipients.
func intentRows(batch []ownedIntent) *rowset {
	calls, recipients := rowsAs("i", len(batch)), rowsAs("r", len(batch))
	address := func(row int, in queue.Intent, r mail.Recipient) {
		recipients.row().int("row", row).int("n", r.N).int("tenant_id", int(in.Tenant)).text("stream", in.Stream).
			text("folded", mail.FoldAddress(r.Address.Email)).text("email", r.Address.Email)
	}
	for row, in := range batch {
		calls.row().int("row", row).id("id", in.ID).int("n", in.N).id("owner", in.owner).int("account_id", int(in.Account)).
			raw("decision", in.Decision).int("open", len(in.Open))
		for _, r := range in.Open {
			address(row, in.Intent, r)
		}
	}
	if recipients.n == 0 { // it takes a row to name the columns: this one belongs to no call
		address(-1, queue.Intent{}, mail.Recipient{})
	}
	return calls.with(recipients)
}
