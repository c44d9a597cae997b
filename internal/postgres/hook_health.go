package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// TallyHooks adds what a replica counted at its receivers.
func (db *DB) TallyHooks(ctx context.Context, tallies []record.HookTally) error {
	const q = `
INSERT INTO hook_health AS h (account_id, events, refused, last_event_at, last_refused_at, last_refusal)
SELECT i.* FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::text[])
    AS i(account_id, events, refused, last_event_at, last_refused_at, last_refusal)
JOIN account a ON a.id = i.account_id
ORDER BY i.account_id
ON CONFLICT (account_id) DO UPDATE SET events = h.events + EXCLUDED.events, refused = h.refused + EXCLUDED.refused,
    last_event_at = greatest(h.last_event_at, EXCLUDED.last_event_at),
    last_refusal = CASE WHEN EXCLUDED.last_refused_at IS NULL THEN h.last_refusal ELSE EXCLUDED.last_refusal END,
    last_refused_at = greatest(h.last_refused_at, EXCLUDED.last_refused_at)`
	if len(tallies) == 0 {
		return nil
	}
	n := len(tallies)
	ids, events, refused := make([]int32, n), make([]int64, n), make([]int64, n)
	last, lastRefused, why := make([]*time.Time, n), make([]*time.Time, n), make([]string, n)
	for i := range tallies {
		t := &tallies[i]
		ids[i], events[i], refused[i], why[i] = t.Account, t.Events, t.Refused, t.LastRefusal
		last[i], lastRefused[i] = orNull(t.LastEvent), orNull(t.LastRefused)
	}
	if _, err := db.api.Exec(ctx, q, ids, events, refused, last, lastRefused, why); err != nil {
		return fmt.Errorf("note the health of receivers: %w", unavailable(err))
	}
	return nil
}

// HookHealth reports the state of the receivers of all accounts, and when each account last sent (if within the last day).
func (db *DB) HookHealth(ctx context.Context) ([]record.HookHealth, error) {
	const q = `
SELECT a.name, h.last_event_at, h.last_refused_at, coalesce(h.last_refusal, ''), coalesce(h.events, 0), coalesce(h.refused, 0), s.at
FROM account a
LEFT JOIN hook_health h ON h.account_id = a.id
LEFT JOIN (SELECT account_id, max(finished_at) AS at FROM attempt
    WHERE started_at > now() - interval '1 day' AND class = 'accepted' GROUP BY account_id) s ON s.account_id = a.id
WHERE a.deleted_at IS NULL
ORDER BY a.name`
	rows, err := db.api.Query(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read the health of receivers: %w", unavailable(err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (record.HookHealth, error) {
		var h record.HookHealth
		var event, refused, sent *time.Time
		err := row.Scan(&h.Account, &event, &refused, &h.LastRefusal, &h.Events, &h.Refused, &sent)
		h.LastEvent, h.LastRefused, h.LastSent = orZero(event), orZero(refused), orZero(sent)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the health of receivers: %w", unavailable(err))
	}
	return list, nil
}
