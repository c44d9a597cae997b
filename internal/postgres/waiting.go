package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// waitingSQL looks for a message in all places where it can be. Messages before it in its lane are counted up to $2, by index.
const waitingSQL = `
SELECT m.facts, r.id IS NOT NULL, r.due, coalesce(r.held, false), coalesce(r.tries, 0), coalesce(r.avoid, u.avoid),
       CASE WHEN r.due <= now() THEN (SELECT count(*) FROM (
            SELECT FROM ready x WHERE x.lane = r.lane AND x.tenant_id = r.tenant_id AND (x.due, x.id) < (r.due, r.id) LIMIT $2) n) ELSE 0 END,
       f.id IS NOT NULL, u.id IS NOT NULL, u.decide_at, coalesce(u.policy, ''), coalesce(a.name, '')
FROM message m
LEFT JOIN ready r ON r.id = m.id
LEFT JOIN inflight f ON f.id = m.id
LEFT JOIN unknown u ON u.id = m.id
LEFT JOIN account a ON a.id = coalesce(f.account_id, u.account_id)
WHERE m.id = $1`

// Waiting says where a message of any tenant is, with the facts by which it is routed, or returns record.ErrNotFound.
func (db *DB) Waiting(ctx context.Context, id mail.ID) (*queue.Waiting, error) {
	w, err := readWaiting(ctx, db.api, id)
	if err != nil {
		return nil, fmt.Errorf("read where message %s stands: %w", id, unavailable(err))
	}
	return w, nil
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// readWaiting does the work of Waiting on a pool or in a transaction.
func readWaiting(ctx context.Context, on rowQuerier, id mail.ID) (*queue.Waiting, error) {
	w := &queue.Waiting{Facts: &mail.Facts{}}
	var facts, avoid []byte
	err := on.QueryRow(ctx, waitingSQL, [16]byte(id), queue.MaxAhead).Scan(&facts, &w.Ready, orNoTime(&w.Due), &w.Held, &w.Tries, &avoid, &w.Ahead,
		&w.Sending, &w.Unknown, orNoTime(&w.Decide), &w.Policy, &w.Account)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, record.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(facts, w.Facts); err != nil {
		return nil, fmt.Errorf("facts: %w", err)
	}
	if avoid != nil {
		if err := json.Unmarshal(avoid, &w.Avoid); err != nil {
			return nil, fmt.Errorf("avoid list: %w", err)
		}
	}
	return w, nil
}
