package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// replaySQL queues one batch of events for an endpoint, with the filter of fan_out. It returns no row when no event is left.
const replaySQL = `
WITH e AS (
    SELECT id, type, stream FROM event WHERE tenant_id = $2 AND id > $3 AND id < $4 ORDER BY id LIMIT $5
), o AS (
    INSERT INTO outbox (endpoint_id, event_id)
    SELECT w.id, e.id
    FROM webhook_endpoint w CROSS JOIN e
    WHERE w.id = $1 AND e.type <> ''
      AND (w.types = '{}' OR e.type = ANY (w.types))
      AND (w.streams = '{}' OR e.stream = '' OR e.stream = ANY (w.streams))
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT e.id, (SELECT count(*) FROM o) FROM e ORDER BY e.id DESC LIMIT 1`

// ReplayEndpoint queues the events received in [since, until) that pass the endpoint's filter, delivered before or not. It
// works in batches and returns how many it queued; a delivery that waits already is not queued twice. When ctx ends, it
// returns how many it has queued so far, with ctx's error. An endpoint of another tenant is not found.
func (db *DB) ReplayEndpoint(
	ctx context.Context, actor string, tenant mail.TenantID, id mail.ID, since, until time.Time,
) (int64, error) {
	detail := map[string]any{"tenant": tenant, "since": since.UTC(), "until": until.UTC()}
	err := db.audited(ctx, actor, "webhook_endpoint.replay", id.String(), detail, func(tx pgx.Tx) error {
		return ownEndpoint(ctx, tx, tenant, id)
	})
	if err != nil {
		return 0, err
	}
	var queued int64
	after, end := mail.IDAt(since), mail.IDAt(until) // no event has such an id: it has no UUID version
	for {
		var n int64
		var last [16]byte
		err := db.api.QueryRow(ctx, replaySQL, [16]byte(id), tenant, [16]byte(after), [16]byte(end), replayBatch).Scan(&last, &n)
		queued += n
		after = last
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return queued, nil
		case ctx.Err() != nil:
			return queued, fmt.Errorf("replay: %w", context.Cause(ctx))
		case err != nil:
			return queued, fmt.Errorf("replay: %w", &record.OutcomeUnknown{Err: err}) // earlier batches stay queued
		}
	}
}

// replayBatch is how many events one statement reads. That takes a fraction of its time limit.
const replayBatch = 2000
