package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sendgate/sendgate/internal/record"
)

// change runs one change of configuration: the change itself, its audit entry and the new configuration version are one
// transaction. A name that is taken becomes record.ErrConflict. Detail must hold no secret.
func (db *DB) change(ctx context.Context, actor, action, target string, detail any, f func(pgx.Tx) error) error {
	return db.changeWith(ctx, actor, action, target, func() any { return detail }, f)
}

// changeWith is change for a detail that is known only after f has run.
func (db *DB) changeWith(ctx context.Context, actor, action, target string, detail func() any, f func(pgx.Tx) error) error {
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		if err := auditedIn(ctx, tx, actor, action, target, detail, f); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, bumpSQL)
		return err
	})
	switch {
	case isCode(err, "23505"):
		return fmt.Errorf("%s: the name is taken: %w", target, record.ErrConflict)
	case err != nil:
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

// auditedIn runs a change in its transaction and writes its audit entry, which has what the change made different.
func auditedIn(ctx context.Context, tx pgx.Tx, actor, action, target string, detail func() any, f func(pgx.Tx) error) error {
	noun, _, _ := strings.Cut(action, ".")
	before, err := snapshot(ctx, tx, noun, target, " FOR NO KEY UPDATE")
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	after, err := snapshot(ctx, tx, noun, target, "")
	if err != nil {
		return err
	}
	e := record.AuditEntry{Actor: actor, Action: action, Target: target}
	if e.Before, e.After, err = difference(before, after); err != nil {
		return fmt.Errorf("compare for the audit: %w", err)
	}
	return writeAudit(ctx, tx, e, detail())
}

// snapshots read one object as the audit shows it, by its noun and its name. A secret is never among its fields.
var snapshots = map[string]string{
	"account": `SELECT jsonb_build_object('kind', kind, 'settings', settings, 'concurrency', concurrency, 'paused', paused,
			'limits', coalesce((SELECT jsonb_agg(jsonb_build_object('unit', unit, 'per_ms', per_ms, 'n', n) ORDER BY unit, per_ms)
				FROM account_limit WHERE account_id = id), '[]'),
			'parked', coalesce((SELECT jsonb_agg(sender_domain ORDER BY sender_domain) FROM account_park WHERE account_id = id), '[]'))
		FROM account WHERE name = $1 AND deleted_at IS NULL`,
	"pool": `SELECT jsonb_build_object('overflow', overflow, 'accounts', coalesce((SELECT jsonb_object_agg(a.name, m.weight)
			FROM pool_account m JOIN account a ON a.id = m.account_id WHERE m.pool_id = pool.id), '{}'))
		FROM pool WHERE name = $1`,
	"rule": `SELECT to_jsonb(rule) FROM rule WHERE id::text = $1`,
	"key": `SELECT jsonb_build_object('name', name, 'tenant', tenant_id, 'scopes', scopes, 'sender_domains', sender_domains, 'networks', networks,
			'rate_per_second', rate_per_second, 'expires_at', expires_at, 'revoked_at', revoked_at)
		FROM api_key WHERE id = $1`,
	"tenant": `SELECT jsonb_build_object('weight', weight, 'paused', paused) FROM tenant WHERE name = $1`,
	"webhook_endpoint": `SELECT jsonb_build_object('url', url, 'description', description, 'types', types, 'streams', streams, 'headers', header_names,
			'disabled', disabled, 'disabled_reason', disabled_reason, 'old_secret_until', old_secret_until)
		FROM webhook_endpoint WHERE id::text = $1`,
}

// snapshot reads an object. It is nil if there is none, or if the noun has no objects to compare.
func snapshot(ctx context.Context, tx pgx.Tx, noun, target, lock string) (object []byte, err error) {
	sql := snapshots[noun]
	if noun == "rules" { // all of them, which are few
		sql, lock = `SELECT jsonb_build_object($1::text, coalesce(jsonb_agg(to_jsonb(rule) - 'id' ORDER BY position, id), '[]')) FROM rule`, ""
	}
	if sql == "" {
		return nil, nil
	}
	err = tx.QueryRow(ctx, sql+lock, target).Scan(&object)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return object, err
}

// difference leaves the fields that differ. An object that was made or deleted keeps all of them.
func difference(before, after []byte) (json.RawMessage, json.RawMessage, error) {
	if before == nil || after == nil {
		return before, after, nil
	}
	var old, now map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(before, &old), json.Unmarshal(after, &now)); err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(old, func(field string, value json.RawMessage) bool {
		same := bytes.Equal(value, now[field])
		if same {
			delete(now, field)
		}
		return same
	})
	if len(old) == 0 && len(now) == 0 {
		return nil, nil, nil
	}
	left, err := json.Marshal(old)
	right, err2 := json.Marshal(now)
	return left, right, errors.Join(err, err2)
}

// audit writes the entry of a change outside of the configuration, in its transaction. Detail must hold no secret.
func audit(ctx context.Context, tx pgx.Tx, actor, action, target string, detail any) error {
	return writeAudit(ctx, tx, record.AuditEntry{Actor: actor, Action: action, Target: target}, detail)
}

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// writeAudit writes an entry, with the caller that the context names. The commit links it to the entry before it.
func writeAudit(ctx context.Context, on execer, e record.AuditEntry, detail any) error {
	raw, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("encode audit detail: %w", err)
	}
	c := record.CallerOf(ctx)
	_, err = on.Exec(ctx, `INSERT INTO audit (actor, name, address, request_id, action, target, detail, before, after)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, e.Actor, c.Name, c.Address, c.RequestID, e.Action, e.Target, raw, e.Before, e.After)
	return err
}

// Note writes an audit entry of something that changes nothing, such as an export. Detail must hold no secret.
func (db *DB) Note(ctx context.Context, actor, action, target string, detail any) error {
	err := writeAudit(ctx, db.api, record.AuditEntry{Actor: actor, Action: action, Target: target}, detail)
	return failed("note "+action, err)
}

// NoteFailedLogins adds failed logins to the audit, one entry for each address. That bounds their number, see
// record.FailedLogins.
func (db *DB) NoteFailedLogins(ctx context.Context, all []record.FailedLogins) error {
	for _, f := range all {
		if err := db.Note(ctx, "stranger", "login.failed", f.From, f); err != nil {
			return err
		}
	}
	return nil
}

// NoteBodyReads adds reads of bodies to the audit, and returns those that it did not store.
func (db *DB) NoteBodyReads(ctx context.Context, all []record.BodyReads) ([]record.BodyReads, error) {
	for i, r := range all {
		target := ""
		if len(r.Messages) == 1 {
			target = r.Messages[0].String()
		}
		if err := db.Note(record.WithCaller(ctx, r.Caller), r.Key, "message.read", target, r); err != nil {
			return all[i:], err
		}
	}
	return nil, nil
}

// execOne runs a statement that changes a row, or returns record.ErrNotFound.
func execOne(ctx context.Context, tx pgx.Tx, what, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		return fmt.Errorf("%s: %w", what, record.ErrNotFound)
	}
	return err
}

// Audit lists changes and failed logins, newest first.
func (db *DB) Audit(ctx context.Context, f record.AuditFilter) ([]record.AuditEntry, error) {
	if strings.Contains(f.Target, "@") {
		f.Target = veiled(f.Target)
	}
	rows := query(ctx, db.api, `SELECT a.id, a.at, a.actor, coalesce(nullif(a.name, ''), k.name, ''), a.address, a.request_id, a.action, a.target, a.detail, a.before, a.after
		FROM audit a LEFT JOIN api_key k ON k.id = a.actor
		WHERE ($1 = 0 OR a.id < $1) AND ($2 = '' OR a.actor = $2 OR a.name = $2 OR k.name = $2) AND ($3 = '' OR a.action = $3 OR a.action LIKE $3 || '.%')
		  AND ($4 = '' OR a.target = $4) AND ($5::timestamptz IS NULL OR a.at >= $5) AND ($6::timestamptz IS NULL OR a.at < $6)
		ORDER BY a.id DESC LIMIT $7`, f.Before, f.Actor, f.Action, f.Target, orNull(f.Since), orNull(f.Until), f.Limit)
	return collect("list audit", rows, func(row pgx.CollectableRow) (e record.AuditEntry, err error) {
		return e, row.Scan(&e.ID, &e.At, &e.Actor, &e.Name, &e.Address, &e.RequestID, &e.Action, &e.Target, &e.Detail, &e.Before, &e.After)
	})
}
