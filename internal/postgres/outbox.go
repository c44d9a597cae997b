package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// claimOutboxSQL takes deliveries that are due, and puts off their next time by the lease. It finds the endpoints that have
// deliveries by a loose scan of the index, whose cost depends on the number of endpoints, not of rows. They come in random
// order, so that none is always last when there is more than can be taken. From each it takes no more than its room.
const claimOutboxSQL = `
WITH RECURSIVE w AS (
    (SELECT endpoint_id AS id FROM outbox ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT n.id FROM w CROSS JOIN LATERAL (
        SELECT endpoint_id AS id FROM outbox WHERE endpoint_id > w.id ORDER BY endpoint_id LIMIT 1) n
), p AS MATERIALIZED (
    SELECT e.id, greatest(CASE WHEN $2::boolean THEN 1 ELSE $1::int END - coalesce(b.n, 0), 0) AS room
    FROM w
    CROSS JOIN LATERAL (SELECT id, disabled, failing_since FROM webhook_endpoint WHERE id = w.id OFFSET 0) e
    LEFT JOIN unnest($5::uuid[], $6::int[]) AS b(id, n) ON b.id = e.id
    WHERE NOT e.disabled AND (e.failing_since IS NOT NULL) = $2
    ORDER BY random()
), d AS MATERIALIZED (
    SELECT o.endpoint_id, o.event_id
    FROM p CROSS JOIN LATERAL (
        SELECT endpoint_id, event_id
        FROM outbox
        WHERE endpoint_id = p.id AND due <= now()
        ORDER BY due, event_id
        LIMIT p.room
        FOR UPDATE SKIP LOCKED) o
    LIMIT $3
)
UPDATE outbox o SET due = now() + $4::interval
FROM d
WHERE o.endpoint_id = d.endpoint_id AND o.event_id = d.event_id
RETURNING o.endpoint_id, o.event_id, o.tries, o.first_at`

// ClaimDeliveries takes deliveries that are due: at most each of any endpoint that works and one of any that fails, minus
// those that this replica holds already. In all it takes at most healthy deliveries of endpoints that work, and failing of
// those that fail. They are this replica's for the lease; after it they are due again. It returns them by the time of their
// events, with the secrets of each endpoint. If the secrets of an endpoint do not open, they are missing, and the error, which
// is returned together with the deliveries, says so.
func (db *DB) ClaimDeliveries(
	ctx context.Context, each, healthy, failing int, lease time.Duration, busy map[mail.ID]int,
) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
	ids, held := make([]mail.ID, 0, len(busy)), make([]int32, 0, len(busy))
	for id, n := range busy {
		ids, held = append(ids, id), append(held, int32(n)) //nolint:gosec // at most each
	}
	b := &pgx.Batch{}
	for _, sort := range []struct {
		failing bool
		limit   int
	}{{false, healthy}, {true, failing}} {
		b.Queue(claimOutboxSQL, each, sort.failing, max(sort.limit, 0), lease, rawIDs(ids), held)
	}
	claimed, err := db.claimed(ctx, b)
	if err != nil || len(claimed) == 0 {
		return nil, nil, err
	}
	return db.fillDeliveries(ctx, claimed)
}

// claimed runs the claims of a batch in one transaction.
func (db *DB) claimed(ctx context.Context, b *pgx.Batch) ([]record.Delivery, error) {
	results := db.hooks.SendBatch(ctx, b)
	var all []record.Delivery
	var err error
	for range b.Len() {
		var rows pgx.Rows
		if rows, err = results.Query(); err != nil {
			break
		}
		var d record.Delivery
		_, err = pgx.ForEachRow(rows, []any{intoID(&d.Endpoint.ID), intoID(&d.Event.ID), &d.N, &d.FirstAt}, func() error {
			d.N++
			all = append(all, d)
			return nil
		})
		if err != nil {
			break
		}
	}
	if err = errors.Join(err, results.Close()); err != nil {
		return nil, fmt.Errorf("claim deliveries: %w", unavailable(err))
	}
	slices.SortFunc(all, func(x, y record.Delivery) int { return bytes.Compare(x.Event.ID[:], y.Event.ID[:]) })
	return all, nil
}

// fillDeliveries reads the endpoints and the events of the claimed deliveries. It drops deliveries whose event is past its
// retention: there is nothing left to send.
func (db *DB) fillDeliveries(ctx context.Context, claimed []record.Delivery) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
	var endpointIDs, eventIDs []mail.ID
	for i := range claimed {
		endpointIDs, eventIDs = append(endpointIDs, claimed[i].Endpoint.ID), append(eventIDs, claimed[i].Event.ID)
	}
	endpoints, secrets, broken, err := db.endpointsOf(ctx, endpointIDs)
	if err != nil {
		return nil, nil, err
	}
	events, err := db.eventsOf(ctx, eventIDs)
	if err != nil {
		return nil, nil, err
	}
	var ready, stale []record.Delivery
	for _, d := range claimed {
		event, known := events[d.Event.ID]
		if !known {
			stale = append(stale, d)
			continue
		}
		d.Endpoint, d.Event = endpoints[d.Endpoint.ID], event
		ready = append(ready, d)
	}
	return ready, secrets, errors.Join(broken, db.dropStale(ctx, stale))
}

// endpointsOf reads endpoints with their secrets. The error broken names secrets that do not open; one such endpoint must
// not stop the others.
func (db *DB) endpointsOf(ctx context.Context, ids []mail.ID) (all map[mail.ID]record.Endpoint, secrets map[mail.ID]map[string]seal.Secret, broken, err error) {
	rows := query(ctx, db.hooks, `SELECT `+endpointColumns+`, `+signerColumns+` FROM webhook_endpoint w WHERE w.id = ANY ($1)`, rawIDs(ids))
	all, secrets = map[mail.ID]record.Endpoint{}, map[mail.ID]map[string]seal.Secret{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var secret, old, headers []byte
		e, err := scanEndpoint(row, &secret, &old, &headers)
		if err != nil {
			return struct{}{}, err
		}
		opened, err := db.openEndpoint(e.ID, secret, old, headers)
		all[e.ID], secrets[e.ID], broken = e, opened, errors.Join(broken, err)
		return struct{}{}, nil
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read endpoints: %w", unavailable(err))
	}
	return all, secrets, broken, nil
}

// eventsOf reads events by id.
func (db *DB) eventsOf(ctx context.Context, ids []mail.ID) (map[mail.ID]mail.Event, error) {
	list, err := collect("read events", query(ctx, db.hooks, shownEvent+` WHERE e.id = ANY (@i.id)`, idRows(ids)), scanEvent)
	events := make(map[mail.ID]mail.Event, len(ids))
	for _, e := range list {
		events[e.ID] = e
	}
	return events, err
}

// dropStale deletes deliveries whose event is gone.
func (db *DB) dropStale(ctx context.Context, stale []record.Delivery) error {
	if len(stale) == 0 {
		return nil
	}
	d := rowsAs("d", len(stale))
	for i := range stale {
		d.row().id("endpoint_id", stale[i].Endpoint.ID).id("event_id", stale[i].Event.ID)
	}
	_, err := db.hooks.Exec(ctx, deleteOutboxSQL, d)
	return failed("drop deliveries of old events", err)
}

const deleteOutboxSQL = `
DELETE FROM outbox o USING @d
WHERE o.endpoint_id = d.endpoint_id AND o.event_id = d.event_id`

// FinishDeliveries records tries in one transaction. Each gets a row in the log. Deliveries that succeeded or were given up
// leave the outbox; the others are due later. The state of their endpoints is updated. An endpoint that is to be disabled is
// disabled at once, with an audit entry and an event for the tenant's other endpoints. It returns the endpoints that this call
// disabled. A result with the outcome "" was not a try: the delivery is due again at once.
func (db *DB) FinishDeliveries(ctx context.Context, results []record.DeliveryResult) ([]mail.ID, error) {
	if len(results) == 0 {
		return nil, nil
	}
	var disabled []mail.ID
	err := again(func() error {
		return pgx.BeginFunc(ctx, db.hooks, func(tx pgx.Tx) (err error) {
			t := db.tally(results)
			// All transactions that change several endpoints lock them in this order.
			_, err = tx.Exec(ctx, `SELECT FROM webhook_endpoint WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE`, rawIDs(t.touched()))
			if err != nil {
				return err
			}
			b := &pgx.Batch{}
			t.queueOutbox(b)
			t.queueSuccess(b)
			if err := tx.SendBatch(ctx, b).Close(); err != nil {
				return err
			}
			if disabled, err = db.disableEndpoints(ctx, tx, t.disable); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `UPDATE webhook_endpoint SET failing_since = coalesce(failing_since, now()) WHERE id = ANY ($1)`, rawIDs(t.failed))
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("finish deliveries: %w", unavailable(err))
	}
	return disabled, nil
}

// tallied are results of tries, grouped by the rows that they change.
type tallied struct {
	log, done, later *rowset
	success, failed  []mail.ID // endpoints; one with a success counts as not failed
	disable          []record.DeliveryResult
}

// tally groups results by the rows that they change.
func (db *DB) tally(results []record.DeliveryResult) *tallied {
	n := len(results)
	t := &tallied{log: rowsAs("l", n), done: rowsAs("d", n), later: rowsAs("d", 0)}
	for i := range results {
		r := &results[i]
		if r.Outcome != "" {
			t.log.row().id("id", db.clock.NewID()).id("endpoint_id", r.Endpoint).id("event_id", r.Event).int("n", r.N).time("at", r.At).
				int("took_ms", int(min(r.Took.Milliseconds(), 1<<30))).int("status", r.Status).text("outcome", r.Outcome).text("error", clean(r.Error))
		}
		switch r.Outcome {
		case record.DeliveryDone:
			t.done.row().id("endpoint_id", r.Endpoint).id("event_id", r.Event)
			t.success = append(t.success, r.Endpoint)
			continue
		case record.DeliveryFailed:
			t.done.row().id("endpoint_id", r.Endpoint).id("event_id", r.Event)
		case "":
			t.putOff(r, r.N-1)
			continue
		default:
			t.putOff(r, r.N)
		}
		t.failed = append(t.failed, r.Endpoint)
		if r.Disable != "" {
			t.disable = append(t.disable, *r)
		}
	}
	t.failed = slices.DeleteFunc(t.failed, func(id mail.ID) bool { return slices.Contains(t.success, id) })
	return t
}

// putOff makes a delivery due later; tries is how many it has had.
func (t *tallied) putOff(r *record.DeliveryResult, tries int) {
	t.later.row().id("endpoint_id", r.Endpoint).id("event_id", r.Event).int("tries", max(tries, 0)).wait("wait", r.RetryIn)
}

func (t *tallied) touched() []mail.ID { return slices.Concat(t.success, t.failed) }

func (t *tallied) queueOutbox(b *pgx.Batch) {
	t.log.queue(b, `INSERT INTO delivery (@l.*) SELECT * FROM @l`)
	t.done.queue(b, deleteOutboxSQL)
	t.later.queue(b, `UPDATE outbox o SET due = now() + d.wait, tries = d.tries FROM @d
		WHERE o.endpoint_id = d.endpoint_id AND o.event_id = d.event_id`)
}

func (t *tallied) queueSuccess(b *pgx.Batch) {
	if len(t.success) > 0 {
		b.Queue(`UPDATE webhook_endpoint SET last_success_at = now(), failing_since = NULL WHERE id = ANY ($1)`, rawIDs(t.success))
	}
}

// disableEndpoints disables those that are not disabled yet. An endpoint that answered 410 is disabled in any case; one that
// failed for too long is disabled only if no delivery to it has succeeded meanwhile.
func (db *DB) disableEndpoints(ctx context.Context, tx pgx.Tx, why []record.DeliveryResult) ([]mail.ID, error) {
	var disabled []mail.ID
	for _, r := range why {
		var url string
		var tenant mail.TenantID
		err := tx.QueryRow(ctx, `UPDATE webhook_endpoint SET disabled = true, disabled_reason = $2, updated_at = now()
			WHERE id = $1 AND NOT disabled AND ($3 OR failing_since IS NOT NULL) RETURNING url, tenant_id`,
			[16]byte(r.Endpoint), clean(r.Disable), r.Status == statusGone).Scan(&url, &tenant)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := db.announceDisabled(ctx, tx, tenant, url, r); err != nil {
			return nil, err
		}
		disabled = append(disabled, r.Endpoint)
	}
	return disabled, nil
}

const statusGone = 410 // RFC 9110 section 15.5.11

// announceDisabled writes the event that an endpoint was disabled, and its audit entry. The url of the event is the
// endpoint's, and its name is the reason.
func (db *DB) announceDisabled(ctx context.Context, tx pgx.Tx, tenant mail.TenantID, url string, r record.DeliveryResult) error {
	id := [16]byte(db.clock.NewID())
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO event (id, origin, tenant_id, type, name, at, source, url, key) VALUES ($1, $1, $2, $3, $4, now(), $5, $6, $1)`,
		id, tenant, string(mail.EventEndpointDisabled), clean(r.Disable), string(mail.FromSystem), url)
	b.Queue(`SELECT fan_out(ARRAY[$1::uuid], ARRAY[$2::int], ARRAY[$3::text], ARRAY[''])`, id, tenant, string(mail.EventEndpointDisabled))
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	return audit(ctx, tx, "system", "webhook_endpoint.disable", r.Endpoint.String(),
		map[string]any{"tenant": tenant, "url": url, "reason": r.Disable, "status": r.Status})
}
