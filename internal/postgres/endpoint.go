package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// maxEndpoints is how many webhook endpoints a tenant may have. Each event is compared with all of them.
const maxEndpoints = 20

// shownPending is where the count of waiting deliveries stops: an exact count of millions would take seconds.
const shownPending = 10_000

const endpointColumns = `w.id, w.tenant_id, w.url, w.description, w.types, w.streams, w.header_names, w.disabled, w.disabled_reason,
	w.failing_since, w.last_success_at, w.created_at, w.updated_at`

// pendingColumn counts the deliveries that wait for an endpoint, up to shownPending.
var pendingColumn = fmt.Sprintf(`(SELECT count(*) FROM (SELECT FROM outbox o WHERE o.endpoint_id = w.id LIMIT %d) p)`, shownPending)

// scanEndpoint reads endpointColumns, and the columns after them into more.
func scanEndpoint(row pgx.Row, more ...any) (e record.Endpoint, err error) {
	var types []string
	err = row.Scan(append([]any{
		intoID(&e.ID), &e.Tenant, &e.URL, &e.Description, &types, &e.Streams, &e.HeaderNames, &e.Disabled, &e.DisabledReason,
		orNoTime(&e.FailingSince), orNoTime(&e.LastSuccess), &e.CreatedAt, &e.UpdatedAt,
	}, more...)...)
	for _, t := range types {
		e.Types = append(e.Types, mail.EventType(t))
	}
	return e, err
}

// endpointSecret is the name to which a secret of an endpoint is bound when it is sealed. A replaced secret keeps its name.
func endpointSecret(id mail.ID, name string) string {
	if name == record.EndpointOldSecret {
		name = record.EndpointSecret
	}
	return "endpoint/" + id.String() + "/" + name
}

// Endpoints lists the webhook endpoints of a tenant, oldest first. Pending counts no further than 10,000.
func (db *DB) Endpoints(ctx context.Context, tenant mail.TenantID) ([]record.Endpoint, error) {
	rows := query(ctx, db.api, `SELECT `+endpointColumns+`, `+pendingColumn+`, w.secret, w.headers FROM webhook_endpoint w
		WHERE w.tenant_id = $1 ORDER BY w.id`, tenant)
	return collect("list webhook endpoints", rows, func(row pgx.CollectableRow) (record.Endpoint, error) {
		var pending int64
		var secret, headers []byte
		e, err := scanEndpoint(row, &pending, &secret, &headers)
		e.Pending, e.Unreadable = pending, db.unreadable(e.ID, secret, headers)
		return e, err
	})
}

// Endpoint returns one webhook endpoint, or record.ErrNotFound, also for one of another tenant.
func (db *DB) Endpoint(ctx context.Context, tenant mail.TenantID, id mail.ID) (*record.Endpoint, error) {
	var pending int64
	var secret, headers []byte
	e, err := scanEndpoint(db.api.QueryRow(ctx, `SELECT `+endpointColumns+`, `+pendingColumn+`, w.secret, w.headers FROM webhook_endpoint w
		WHERE w.id = $1 AND w.tenant_id = $2`, [16]byte(id), tenant), &pending, &secret, &headers)
	if err = affectedRow(err, "webhook endpoint "+id.String()); err != nil {
		return nil, fmt.Errorf("read webhook endpoint: %w", unavailable(err))
	}
	e.Pending, e.Unreadable = pending, db.unreadable(id, secret, headers)
	return &e, nil
}

// unreadable names the secrets of an endpoint that do not open. A secret that is being replaced is not checked.
func (db *DB) unreadable(id mail.ID, secret, headers []byte) (names []string) {
	for _, s := range []struct {
		name   string
		sealed []byte
	}{{record.EndpointSecret, secret}, {record.EndpointHeaders, headers}} {
		if s.sealed == nil {
			continue
		}
		if _, err := db.box.Open(s.sealed, endpointSecret(id, s.name)); err != nil {
			names = append(names, s.name)
		}
	}
	return names
}

// audited runs a change that replicas need not learn of: the change and its audit entry are one transaction. Detail must
// hold no secret.
func (db *DB) audited(ctx context.Context, actor, action, target string, detail any, f func(pgx.Tx) error) error {
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		return auditedIn(ctx, tx, actor, action, target, func() any { return detail }, f)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

// endpointDetail is the detail of an endpoint's audit entries.
func endpointDetail(e *record.Endpoint) map[string]any {
	return map[string]any{"tenant": e.Tenant, "url": e.URL, "types": e.Types, "streams": e.Streams, "headers": e.HeaderNames, "disabled": e.Disabled}
}

// CreateEndpoint stores a webhook endpoint and seals its secret and its headers, if any. It returns record.ErrConflict when
// the tenant has 20 endpoints, and record.ErrNotFound for a tenant that does not exist.
func (db *DB) CreateEndpoint(ctx context.Context, actor string, e record.Endpoint, secret, headers seal.Secret) (*record.Endpoint, error) {
	if e.ID.IsZero() {
		e.ID = db.clock.NewID()
	}
	err := db.audited(ctx, actor, "webhook_endpoint.create", e.ID.String(), endpointDetail(&e), func(tx pgx.Tx) error {
		// A statement of its own locks the tenant's row: the count must see endpoints that others made while it waited.
		var have int
		err := tx.QueryRow(ctx, `SELECT 0 FROM tenant WHERE id = $1 FOR NO KEY UPDATE`, e.Tenant).Scan(&have)
		if err = affectedRow(err, fmt.Sprintf("tenant %d", e.Tenant)); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM webhook_endpoint WHERE tenant_id = $1`, e.Tenant).Scan(&have); err != nil {
			return err
		}
		if have >= maxEndpoints {
			return fmt.Errorf("the tenant has %d webhook endpoints: %w", have, record.ErrConflict)
		}
		e, err = scanEndpoint(tx.QueryRow(ctx, `INSERT INTO webhook_endpoint AS w (id, tenant_id, url, description, types, streams, header_names, disabled, secret, headers)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING `+endpointColumns,
			[16]byte(e.ID), e.Tenant, e.URL, e.Description, eventTypes(e.Types), notNil(e.Streams), notNil(e.HeaderNames), e.Disabled,
			db.box.Seal(secret, endpointSecret(e.ID, record.EndpointSecret)), db.sealHeaders(e.ID, headers)))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// sealHeaders seals headers; it returns nil if there are none.
func (db *DB) sealHeaders(id mail.ID, headers seal.Secret) []byte {
	if headers.IsZero() {
		return nil
	}
	return db.box.Seal(headers, endpointSecret(id, record.EndpointHeaders))
}

// lockEndpoint reads an endpoint of the tenant for a change, or returns record.ErrNotFound.
func lockEndpoint(ctx context.Context, tx pgx.Tx, tenant mail.TenantID, id mail.ID) (record.Endpoint, error) {
	e, err := scanEndpoint(tx.QueryRow(ctx, `SELECT `+endpointColumns+` FROM webhook_endpoint w
		WHERE w.id = $1 AND w.tenant_id = $2 FOR NO KEY UPDATE`, [16]byte(id), tenant))
	return e, affectedRow(err, "webhook endpoint "+id.String())
}

// UpdateEndpoint lets change alter URL, Description, Types, Streams, HeaderNames and Disabled of an endpoint, while its row
// is locked. Headers replace the stored ones, unless they are nil. If change returns an error, UpdateEndpoint returns it and
// stores nothing. An endpoint that is enabled or gets another URL starts anew: earlier failures do not count. Its waiting
// deliveries stay, also while it is disabled.
func (db *DB) UpdateEndpoint(
	ctx context.Context, actor string, tenant mail.TenantID, id mail.ID, headers *seal.Secret, change func(*record.Endpoint) error,
) (*record.Endpoint, error) {
	var e record.Endpoint
	var refused error
	update := func(tx pgx.Tx) error {
		old, err := lockEndpoint(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		e = old
		if refused = change(&e); refused != nil {
			return refused
		}
		var sealed, secret, kept []byte
		if headers != nil {
			sealed = db.sealHeaders(id, *headers)
		}
		if old.Disabled && !e.Disabled || old.URL != e.URL {
			e.FailingSince = time.Time{}
		}
		if !e.Disabled {
			e.DisabledReason = ""
		}
		e, err = scanEndpoint(tx.QueryRow(ctx, `UPDATE webhook_endpoint w SET url = $2, description = $3, types = $4, streams = $5,
				disabled = $6, disabled_reason = $7, failing_since = $8, header_names = $9, headers = CASE WHEN $10 THEN $11 ELSE headers END,
				updated_at = now()
			WHERE id = $1 RETURNING `+endpointColumns+`, w.secret, w.headers`,
			[16]byte(id), e.URL, e.Description, eventTypes(e.Types), notNil(e.Streams), e.Disabled, e.DisabledReason, orNull(e.FailingSince),
			notNil(e.HeaderNames), headers != nil, sealed), &secret, &kept)
		if err != nil {
			return err
		}
		e.Unreadable = db.unreadable(id, secret, kept)
		return nil
	}
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		return auditedIn(ctx, tx, actor, "webhook_endpoint.update", id.String(), func() any { return endpointDetail(&e) }, update)
	})
	switch {
	case refused != nil:
		return nil, refused
	case err != nil:
		return nil, fmt.Errorf("webhook_endpoint.update: %w", err)
	}
	return &e, nil
}

// sweepBatch bounds one statement over an outbox.
const sweepBatch = 5000

// DeleteEndpoint removes an endpoint and its waiting deliveries, or returns record.ErrNotFound. It disables the endpoint
// first, so that no delivery is added while they are deleted in batches. Its log is dropped with the daily partitions.
func (db *DB) DeleteEndpoint(ctx context.Context, actor string, tenant mail.TenantID, id mail.ID) error {
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := lockEndpoint(ctx, tx, tenant, id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE webhook_endpoint SET disabled = true, disabled_reason = 'being deleted' WHERE id = $1`, [16]byte(id))
		return err
	})
	for more := true; more && err == nil; {
		tag, e := db.api.Exec(ctx, `DELETE FROM outbox WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM outbox WHERE endpoint_id = $1 LIMIT $2))`, [16]byte(id), sweepBatch)
		more, err = tag.RowsAffected() == sweepBatch, e
		if e != nil { // it is disabled already
			err = &record.OutcomeUnknown{Err: e}
		}
	}
	if err != nil {
		return fmt.Errorf("delete webhook endpoint: %w", err)
	}
	err = db.audited(ctx, actor, "webhook_endpoint.delete", id.String(), map[string]any{"tenant": tenant}, func(tx pgx.Tx) error {
		return execOne(ctx, tx, "webhook endpoint "+id.String(), `DELETE FROM webhook_endpoint WHERE id = $1 AND tenant_id = $2`, [16]byte(id), tenant)
	})
	if _, away := errors.AsType[*record.Unavailable](err); away {
		return &record.OutcomeUnknown{Err: err}
	}
	return err
}

// RotateEndpoint makes secret the one that signs. The previous secret signs too during the overlap; older ones do not.
func (db *DB) RotateEndpoint(
	ctx context.Context, actor string, tenant mail.TenantID, id mail.ID, secret seal.Secret, overlap time.Duration,
) (*record.Endpoint, error) {
	var e record.Endpoint
	detail := map[string]any{"tenant": tenant, "overlap_seconds": int64(overlap.Seconds())}
	err := db.audited(ctx, actor, "webhook_endpoint.rotate", id.String(), detail, func(tx pgx.Tx) (err error) {
		var before []byte
		err = tx.QueryRow(ctx, `SELECT secret FROM webhook_endpoint WHERE id = $1 AND tenant_id = $2 FOR NO KEY UPDATE`, [16]byte(id), tenant).Scan(&before)
		if err = affectedRow(err, "webhook endpoint "+id.String()); err != nil {
			return err
		}
		if len(db.unreadable(id, before, nil)) > 0 {
			before = nil // it can't sign
		}
		e, err = scanEndpoint(tx.QueryRow(ctx, `UPDATE webhook_endpoint w SET secret = $3, old_secret = $5,
				old_secret_until = now() + $4::interval, updated_at = now()
			WHERE id = $1 AND tenant_id = $2 RETURNING `+endpointColumns,
			[16]byte(id), tenant, db.box.Seal(secret, endpointSecret(id, record.EndpointSecret)), overlap, before))
		return affectedRow(err, "webhook endpoint "+id.String())
	})
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// EndpointSecrets returns an endpoint with the secrets that deliveries to it use now.
func (db *DB) EndpointSecrets(ctx context.Context, tenant mail.TenantID, id mail.ID) (*record.Endpoint, map[string]seal.Secret, error) {
	var secret, old, headers []byte
	e, err := scanEndpoint(db.api.QueryRow(ctx, `SELECT `+endpointColumns+`, `+signerColumns+` FROM webhook_endpoint w
		WHERE w.id = $1 AND w.tenant_id = $2`, [16]byte(id), tenant), &secret, &old, &headers)
	if err = affectedRow(err, "webhook endpoint "+id.String()); err != nil {
		return nil, nil, fmt.Errorf("read webhook endpoint: %w", unavailable(err))
	}
	secrets, err := db.openEndpoint(id, secret, old, headers)
	if err != nil {
		return nil, nil, err
	}
	return &e, secrets, nil
}

// signerColumns are the sealed secrets that deliveries use now.
const signerColumns = `w.secret, CASE WHEN w.old_secret_until > now() THEN w.old_secret END, w.headers`

// openEndpoint opens signerColumns. A secret that is being replaced and does not open is left out: the new one signs.
func (db *DB) openEndpoint(id mail.ID, secret, old, headers []byte) (map[string]seal.Secret, error) {
	secrets := map[string]seal.Secret{}
	for name, raw := range map[string][]byte{record.EndpointSecret: secret, record.EndpointOldSecret: old, record.EndpointHeaders: headers} {
		if raw == nil {
			continue
		}
		s, err := db.box.Open(raw, endpointSecret(id, name))
		if err != nil && name == record.EndpointOldSecret {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s of webhook endpoint %s: %w", name, id, err)
		}
		secrets[name] = s
	}
	return secrets, nil
}

// Deliveries lists the delivery tries of an endpoint, newest first, with ids less than before (zero id: from the newest).
func (db *DB) Deliveries(ctx context.Context, tenant mail.TenantID, id, before mail.ID, limit int) ([]record.DeliveryEntry, error) {
	var entries []record.DeliveryEntry
	err := db.inTx(ctx, func(tx pgx.Tx) (err error) {
		if err := ownEndpoint(ctx, tx, tenant, id); err != nil {
			return err
		}
		rows := query(ctx, tx, `SELECT id, event_id, n, at, took_ms, status, outcome, error FROM delivery
			WHERE endpoint_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3`, [16]byte(id), idOrNull(before), limit)
		entries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (record.DeliveryEntry, error) {
			e := record.DeliveryEntry{DeliveryResult: record.DeliveryResult{Endpoint: id}}
			var ms int64
			err := row.Scan(intoID(&e.ID), intoID(&e.Event), &e.N, &e.At, &ms, &e.Status, &e.Outcome, &e.Error)
			e.Took = time.Duration(ms) * time.Millisecond
			return e, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	return entries, nil
}

// ownEndpoint returns record.ErrNotFound unless the endpoint is the tenant's.
func ownEndpoint(ctx context.Context, tx pgx.Tx, tenant mail.TenantID, id mail.ID) error {
	err := tx.QueryRow(ctx, `SELECT FROM webhook_endpoint WHERE id = $1 AND tenant_id = $2`, [16]byte(id), tenant).Scan()
	return affectedRow(err, "webhook endpoint "+id.String())
}

func idOrNull(id mail.ID) *[16]byte {
	if id.IsZero() {
		return nil
	}
	raw := [16]byte(id)
	return &raw
}
