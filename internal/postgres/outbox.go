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
		var endpoint, event [16]byte
		var d record.Delivery
		_, err = pgx.ForEachRow(rows, []any{&endpoint, &event, &d.N, &d.FirstAt}, func() error {
			d.Endpoint.ID, d.Event.ID = endpoint, event
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
	rows, err := db.hooks.Query(ctx, `SELECT `+endpointColumns+`, `+signerColumns+` FROM webhook_endpoint w WHERE w.id = ANY ($1)`, rawIDs(ids))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read endpoints: %w", unavailable(err))
	}
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

// eventsOf reads events as webhooks show them, by id.
func (db *DB) eventsOf(ctx context.Context, ids []mail.ID) (map[mail.ID]mail.Event, error) {
	const q = `
SELECT e.id, e.tenant_id, e.message_id, coalesce(e.n, -1), e.stream, e.type, e.name, e.recipient, e.at, e.source, e.provider_message_id,
       e.bounce, e.machine, e.url, coalesce((SELECT tags FROM message WHERE id = e.message_id), '{}'),
       coalesce(a.name, ''), coalesce(a.kind, '')
FROM event e LEFT JOIN account a ON a.id = e.account_id
WHERE e.id = ANY ($1)`
	rows, err := db.hooks.Query(ctx, q, rawIDs(ids))
	if err != nil {
		return nil, fmt.Errorf("read events: %w", unavailable(err))
	}
	events := make(map[mail.ID]mail.Event, len(ids))
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var e mail.Event
		var id [16]byte
		var message *[16]byte
		var bounce []byte
		err := row.Scan(&id, &e.Tenant, &message, &e.N, &e.Stream, &e.Type, &e.Name, &e.Recipient, &e.At, &e.Source,
			&e.ProviderMessageID, &bounce, &e.Machine, &e.URL, &e.Tags, &e.Account, &e.Provider)
		if err != nil {
			return struct{}{}, err
		}
		if e.ID = id; message != nil {
			e.MessageID = *message
		}
		e.Bounce, err = readBounce(bounce)
		events[e.ID] = e
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", unavailable(err))
	}
	return events, nil
}

// dropStale deletes deliveries whose event is gone.
func (db *DB) dropStale(ctx context.Context, stale []record.Delivery) error {
	if len(stale) == 0 {
		return nil
	}
	var endpoints, events []mail.ID
	for i := range stale {
		endpoints, events = append(endpoints, stale[i].Endpoint.ID), append(events, stale[i].Event.ID)
	}
	if _, err := db.hooks.Exec(ctx, deleteOutboxSQL, rawIDs(endpoints), rawIDs(events)); err != nil {
		return fmt.Errorf("drop deliveries of old events: %w", unavailable(err))
	}
	return nil
}

const deleteOutboxSQL = `
DELETE FROM outbox o USING unnest($1::uuid[], $2::uuid[]) AS d(endpoint_id, event_id)
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
	log             logColumns
	done, again     pairs
	tries           []int32
	waits           []time.Duration
	success, failed []mail.ID // endpoints; one with a success counts as not failed
	disable         []record.DeliveryResult
}

// pairs are keys of rows of the outbox, as columns.
type pairs struct{ endpoints, events [][16]byte }

func (p *pairs) add(r *record.DeliveryResult) {
	p.endpoints, p.events = append(p.endpoints, r.Endpoint), append(p.events, r.Event)
}

// logColumns are rows of the log, as columns.
type logColumns struct {
	ids [][16]byte
	pairs
	ns, took, status []int32
	at               []time.Time
	outcomes, errors []string
}

func (c *logColumns) add(id mail.ID, r *record.DeliveryResult) {
	c.pairs.add(r)
	c.ids, c.at = append(c.ids, id), append(c.at, r.At)
	c.ns, c.took = append(c.ns, int32(r.N)), append(c.took, int32(min(r.Took.Milliseconds(), 1<<30))) //nolint:gosec // few
	c.status = append(c.status, int32(r.Status))                                                      //nolint:gosec // of HTTP
	c.outcomes, c.errors = append(c.outcomes, r.Outcome), append(c.errors, clean(r.Error))
}

// tally groups results by the rows that they change.
func (db *DB) tally(results []record.DeliveryResult) *tallied {
	t := &tallied{}
	for i := range results {
		r := &results[i]
		if r.Outcome != "" {
			t.log.add(db.clock.NewID(), r)
		}
		switch r.Outcome {
		case record.DeliveryDone:
			t.done.add(r)
			t.success = append(t.success, r.Endpoint)
			continue
		case record.DeliveryFailed:
			t.done.add(r)
		case "":
			t.later(r, r.N-1)
			continue
		default:
			t.later(r, r.N)
		}
		t.failed = append(t.failed, r.Endpoint)
		if r.Disable != "" {
			t.disable = append(t.disable, *r)
		}
	}
	t.failed = slices.DeleteFunc(t.failed, func(id mail.ID) bool { return slices.Contains(t.success, id) })
	return t
}

// later puts a delivery off; tries is how many it has had.
func (t *tallied) later(r *record.DeliveryResult, tries int) {
	t.again.add(r)
	t.tries, t.waits = append(t.tries, int32(max(tries, 0))), append(t.waits, r.RetryIn) //nolint:gosec // ten at most
}

func (t *tallied) touched() []mail.ID { return slices.Concat(t.success, t.failed) }

func (t *tallied) queueOutbox(b *pgx.Batch) {
	if len(t.log.ids) > 0 {
		b.Queue(`INSERT INTO delivery (id, endpoint_id, event_id, n, at, took_ms, status, outcome, error)
			SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::timestamptz[], $6::int[], $7::int[], $8::text[], $9::text[])`,
			t.log.ids, t.log.endpoints, t.log.events, t.log.ns, t.log.at, t.log.took, t.log.status, t.log.outcomes, t.log.errors)
	}
	if len(t.done.events) > 0 {
		b.Queue(deleteOutboxSQL, t.done.endpoints, t.done.events)
	}
	if len(t.again.events) > 0 {
		b.Queue(`UPDATE outbox o SET due = now() + d.wait, tries = d.tries
			FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::interval[]) AS d(endpoint_id, event_id, tries, wait)
			WHERE o.endpoint_id = d.endpoint_id AND o.event_id = d.event_id`, t.again.endpoints, t.again.events, t.tries, t.waits)
	}
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
