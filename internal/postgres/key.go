package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

const keyColumns = `k.id, k.tenant_id, k.name, k.hash, k.scopes, k.sender_domains, k.networks, k.rate_per_second, t.paused, k.created_at,
	k.expires_at, k.revoked_at, k.last_used_at FROM api_key k JOIN tenant t ON t.id = k.tenant_id`

func scanKey(row pgx.CollectableRow) (record.Key, error) {
	var k record.Key
	err := row.Scan(&k.ID, &k.Tenant, &k.Name, &k.Hash, &k.Scopes, &k.SenderDomains, &k.Networks, &k.RatePerSecond, &k.TenantPaused,
		&k.CreatedAt, orNoTime(&k.ExpiresAt), orNoTime(&k.RevokedAt), orNoTime(&k.LastUsedAt))
	return k, err
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// KeyByID returns the key with that public id, or record.ErrNotFound. Revoked and expired keys are returned as such.
func (db *DB) KeyByID(ctx context.Context, id string) (*record.Key, error) {
	rows := query(ctx, db.api, `SELECT `+keyColumns+` WHERE k.id = $1`, id)
	k, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("key: %w", record.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", unavailable(err))
	}
	return &k, nil
}

// maxKeyIDs is more than any installation has.
const maxKeyIDs = 100_000

// KeyIDs lists the ids of the keys that are neither revoked nor expired.
func (db *DB) KeyIDs(ctx context.Context) ([]string, error) {
	rows := query(ctx, db.api, `SELECT id FROM api_key WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) LIMIT $1`, maxKeyIDs)
	return collect("list ids of keys", rows, pgx.RowTo[string])
}

// TouchKey notes that a key was used.
func (db *DB) TouchKey(ctx context.Context, id string) error {
	_, err := db.api.Exec(ctx, `UPDATE api_key SET last_used_at = now() WHERE id = $1`, id)
	return failed("touch key", err)
}

// Keys lists all keys, newest first.
func (db *DB) Keys(ctx context.Context) ([]record.Key, error) {
	return collect("list keys", query(ctx, db.api, `SELECT `+keyColumns+` ORDER BY k.created_at DESC, k.id LIMIT 1000`), scanKey)
}

// CreateKey stores a key. Its hash is that of the secret part; the secret itself is never stored. It returns
// record.ErrConflict when the id is taken and record.ErrNotFound for a tenant that does not exist.
func (db *DB) CreateKey(ctx context.Context, actor string, k record.Key) error {
	return db.change(ctx, actor, "key.create", k.ID, map[string]any{"name": k.Name, "scopes": k.Scopes, "tenant": k.Tenant, "networks": notNil(k.Networks)},
		func(tx pgx.Tx) error {
			return execOne(ctx, tx, fmt.Sprintf("tenant %d", k.Tenant), `INSERT INTO api_key (id, tenant_id, name, hash, scopes, sender_domains, rate_per_second, expires_at, networks)
				SELECT $1, id, $3, $4, $5, $6, $7, $8, $9 FROM tenant WHERE id = $2`, k.ID, k.Tenant, k.Name, k.Hash, k.Scopes, notNil(k.SenderDomains),
				k.RatePerSecond, orNull(k.ExpiresAt), notNil(k.Networks))
		})
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// SetKeyNetworks sets the networks from which a key is accepted; no networks means anywhere.
func (db *DB) SetKeyNetworks(ctx context.Context, actor, id string, networks []netip.Prefix) error {
	return db.change(ctx, actor, "key.update", id, map[string]any{"networks": notNil(networks)}, func(tx pgx.Tx) error {
		return execOne(ctx, tx, "key "+id, `UPDATE api_key SET networks = $2 WHERE id = $1`, id, notNil(networks))
	})
}

// RotateKey makes a copy of a key with another id and hash. The old key ends after the overlap. It returns record.ErrNotFound
// when the old key does not exist or has ended already.
func (db *DB) RotateKey(ctx context.Context, actor, id, next string, hash []byte, overlap time.Duration) error {
	detail := map[string]any{"next": next, "overlap_seconds": int(overlap / time.Second)}
	return db.change(ctx, actor, "key.rotate", id, detail, func(tx pgx.Tx) error {
		return execOne(ctx, tx, "key "+id, `WITH old AS (
				UPDATE api_key SET expires_at = least(expires_at, now() + $4)
				WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) RETURNING id)
			INSERT INTO api_key (id, tenant_id, name, hash, scopes, sender_domains, networks, rate_per_second, expires_at)
			SELECT $2, tenant_id, name, $3, scopes, sender_domains, networks, rate_per_second, expires_at
			FROM api_key WHERE id IN (SELECT id FROM old)`, id, next, hash, overlap)
	})
}

// RevokeKey makes a key invalid at once.
func (db *DB) RevokeKey(ctx context.Context, actor, id string) error {
	return db.change(ctx, actor, "key.revoke", id, nil, func(tx pgx.Tx) error {
		return execOne(ctx, tx, "key "+id, `UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1`, id)
	})
}

// Tenants lists all tenants by name.
func (db *DB) Tenants(ctx context.Context) ([]record.Tenant, error) {
	return collect("list tenants", query(ctx, db.api, `SELECT id, name, weight, paused, created_at FROM tenant ORDER BY name`), func(row pgx.CollectableRow) (t record.Tenant, err error) {
		return t, row.Scan(&t.ID, &t.Name, &t.Weight, &t.Paused, &t.CreatedAt)
	})
}

// CreateTenant stores a tenant and returns it with its id, or record.ErrConflict when the name is taken.
func (db *DB) CreateTenant(ctx context.Context, actor string, t record.Tenant) (record.Tenant, error) {
	err := db.change(ctx, actor, "tenant.create", t.Name, nil, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO tenant (name, weight, paused) VALUES ($1, $2, $3) RETURNING id, created_at`,
			t.Name, t.Weight, t.Paused).Scan(&t.ID, &t.CreatedAt)
	})
	return t, err
}

// UpdateTenant sets a tenant's share and whether it may send.
func (db *DB) UpdateTenant(ctx context.Context, actor, name string, weight int, paused bool) error {
	detail := map[string]any{"weight": weight, "paused": paused}
	return db.change(ctx, actor, "tenant.update", name, detail, func(tx pgx.Tx) error {
		return execOne(ctx, tx, "tenant "+name, `UPDATE tenant SET weight = $2, paused = $3 WHERE name = $1`, name, weight, paused)
	})
}
