package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

type ownedIntent struct {
	mail.Intent
	owner mail.ID
}

// Intend announces one call: it writes the attempt row and marks the claim as started, durably, before the caller may
// write to the socket. It reports false when the claim is no longer the owner's, or the owner's lease has run out: then
// nothing may be sent. On an error the outcome is not known, and nothing may be sent either.
func (db *DB) Intend(ctx context.Context, owner mail.ID, in mail.Intent) (bool, error) {
	return db.intents.do(ctx, ownedIntent{in, owner}, 1)
}

// The inflight row is the lock between this and a rescuer: whoever updates or deletes it first wins. It is also that
// between two claims of one replica for one call, the first of which was lost with a crash of the server: they may be for
// different accounts, and the limits of the one in the row are charged.
const intentSQL = `
WITH i AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::jsonb[], $5::uuid[]) AS i(id, n, account_id, decision, owner)
), alive AS MATERIALIZED ( -- looked at once, and not for each call: its rows are written every few seconds
    SELECT id FROM replica WHERE id = ANY ($5) AND lease_until > clock_timestamp()
), u AS (
    UPDATE inflight f SET started_at = clock_timestamp()
    FROM i
    WHERE f.id = ANY ($1) AND f.id = i.id AND f.owner = i.owner AND f.n = i.n AND f.account_id = i.account_id AND f.started_at IS NULL
      AND i.owner IN (SELECT id FROM alive)
    RETURNING i.id, i.n, i.owner, i.account_id, i.decision, f.started_at
)
INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at)
SELECT id, n, owner, account_id, decision, started_at FROM u
RETURNING message_id, n, owner, account_id`

// announced is what tells one intent from another.
type announced struct {
	ID      [16]byte
	N       int32
	Owner   [16]byte
	Account int32
}

func (db *DB) intentBatch(ctx context.Context, batch []ownedIntent) ([]bool, []error) {
	return bisect(ctx, batch, db.intentOnce)
}

func (db *DB) intentOnce(ctx context.Context, batch []ownedIntent) ([]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n := len(batch)
	ids, owners, ns := make([][16]byte, n), make([][16]byte, n), make([]int32, n)
	accounts, decisions := make([]int32, n), make([][]byte, n)
	for i, in := range batch {
		ids[i], owners[i], accounts[i], decisions[i] = in.ID, in.owner, in.Account, in.Decision
		ns[i] = int32(in.N) //nolint:gosec // see queueTake
	}
	rows, err := db.engine.Query(ctx, intentSQL, ids, ns, accounts, decisions, owners)
	if err != nil {
		return nil, fmt.Errorf("intend: %w", err)
	}
	started, err := pgx.CollectRows(rows, pgx.RowToStructByPos[announced])
	if err != nil {
		return nil, fmt.Errorf("intend: %w", err)
	}
	ok := make(map[announced]bool, n)
	for _, a := range started {
		ok[a] = true
	}
	out := make([]bool, n)
	for i := range batch { // a call that the batch announces twice is one call: its first announcer makes it
		a := announced{ids[i], ns[i], owners[i], accounts[i]}
		out[i] = ok[a]
		delete(ok, a)
	}
	return out, nil
}
