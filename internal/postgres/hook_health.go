package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// TallyHooks adds what a replica counted at its receivers.
func (db *DB) TallyHooks(ctx context.Context, tallies []record.HookTally) error {
	const q = `
INSERT INTO hook_health AS h (@i.*)
SELECT i.* FROM @i JOIN account a ON a.id = i.account_id
ORDER BY i.account_id
ON CONFLICT (account_id) DO UPDATE SET events = h.events + EXCLUDED.events, refused = h.refused + EXCLUDED.refused,
    last_event_at = greatest(h.last_event_at, EXCLUDED.last_event_at),
    last_refusal = CASE WHEN EXCLUDED.last_refused_at IS NULL THEN h.last_refusal ELSE EXCLUDED.last_refusal END,
    last_refused_at = greatest(h.last_refused_at, EXCLUDED.last_refused_at)`
	if len(tallies) == 0 {
		return nil
	}
	i := rowsAs("i", len(tallies))
	for _, t := range tallies {
		i.row().int("account_id", int(t.Account)).big("events", t.Events).big("refused", t.Refused).maybeTime("last_event_at", t.LastEvent).
			maybeTime("last_refused_at", t.LastRefused).text("last_refusal", t.LastRefusal)
	}
	_, err := db.api.Exec(ctx, q, i)
	return failed("note the health of receivers", err)
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
	return collect("read the health of receivers", query(ctx, db.api, q), func(row pgx.CollectableRow) (record.HookHealth, error) {
		var h record.HookHealth
		err := row.Scan(&h.Account, orNoTime(&h.LastEvent), orNoTime(&h.LastRefused), &h.LastRefusal, &h.Events, &h.Refused, orNoTime(&h.LastSent))
		return h, err
	})
}
