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
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::jsonb[], $5::uuid[], $6::int[]) WITH ORDINALITY
        AS i(id, n, account_id, decision, owner, open, row)
), gone AS MATERIALIZED (
    SELECT row, n FROM (
        SELECT r.row, r.n, ` + suppressedSQL("r.tenant_id", "r.folded, lower(r.email)", "r.stream") + ` AS suppressed
        FROM unnest($7::int[], $8::int[], $9::int[], $10::text[], $11::text[], $12::text[]) AS r(row, n, tenant_id, folded, email, stream)
        OFFSET 0) r
    WHERE suppressed
), alive AS MATERIALIZED ( -- looked at once, and not for each call: its rows are written every few seconds
    SELECT id FROM replica WHERE id = ANY ($5) AND lease_until > clock_timestamp()
), u AS (
    UPDATE inflight f SET started_at = clock_timestamp()
    FROM i
    WHERE f.id = ANY ($1) AND f.id = i.id AND f.owner = i.owner AND f.n = i.n AND f.account_id = i.account_id AND f.started_at IS NULL
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
	n := len(batch)
	ids, owners, ns, open := make([][16]byte, n), make([][16]byte, n), make([]int32, n), make([]int32, n)
	accounts, decisions := make([]int32, n), make([][]byte, n)
	var who seats
	for i, in := range batch {
		ids[i], owners[i], accounts[i], decisions[i] = in.ID, in.owner, in.Account, in.Decision
		ns[i], open[i] = int32(in.N), int32(len(in.Open)) //nolint:gosec // see queueTake
		who.add(i+1, &in.Intent)
	}
	rows, err := db.engine.Query(ctx, intentSQL, ids, ns, accounts, decisions, owners, open,
		who.rows, who.ns, who.tenants, who.folded, who.emails, who.streams)
	if err != nil {
		return nil, fmt.Errorf("intend: %w", err)
	}
	out := make([]queue.Announced, n)
	var row int64
	var gone *int
	_, err = pgx.ForEachRow(rows, []any{&row, &gone}, func() error {
		if a := &out[row-1]; gone == nil {
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

// seats are the recipients in the intents of a batch, as columns.
type seats struct {
	rows, ns, tenants       []int32
	folded, emails, streams []string
}

func (s *seats) add(row int, in *queue.Intent) {
	for _, r := range in.Open {
		s.rows, s.ns = append(s.rows, int32(row)), append(s.ns, int32(r.N)) //nolint:gosec // at most 400, and 1000
		s.tenants, s.streams = append(s.tenants, int32(in.Tenant)), append(s.streams, in.Stream)
		s.folded, s.emails = append(s.folded, mail.FoldAddress(r.Address.Email)), append(s.emails, r.Address.Email)
	}
}
