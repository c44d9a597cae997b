package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// ConfigVersion returns the version of the configuration. It is cheap: replicas poll it.
func (db *DB) ConfigVersion(ctx context.Context) (int64, error) {
	var v int64
	err := db.engine.QueryRow(ctx, `SELECT version FROM config_state`).Scan(&v)
	return v, failed("read configuration version", err)
}

// Config reads accounts, pools and rules in one snapshot. Capabilities are left empty: they belong to the kind. Deleted
// accounts are included as draining while messages of theirs are still in flight or unknown.
func (db *DB) Config(ctx context.Context) (*route.Config, error) {
	c := &route.Config{}
	err := unavailable(pgx.BeginTxFunc(ctx, db.api, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			if err := tx.QueryRow(ctx, `SELECT version FROM config_state`).Scan(&c.Version); err != nil {
				return err
			}
			for _, read := range []func(context.Context, pgx.Tx, *route.Config) error{readAccounts, db.readUnreadable, readLimits, readParks, readPools, readRules} {
				if err := read(ctx, tx, c); err != nil {
					return err
				}
			}
			return db.readErasureKey(ctx, tx)
		}))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

func readAccounts(ctx context.Context, tx pgx.Tx, c *route.Config) (err error) {
	rows := query(ctx, tx, `
		SELECT a.id, a.name, a.kind, a.settings, a.concurrency, a.paused, a.deleted_at IS NOT NULL, a.created_at, a.updated_at,
		       coalesce((SELECT array_agg(s.field ORDER BY s.field) FROM account_secret s WHERE s.account_id = a.id), '{}')
		FROM account a
		WHERE a.deleted_at IS NULL OR `+callsAtSQL("a.id")+`
		ORDER BY a.id`)
	c.Accounts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a route.Account, err error) {
		return a, row.Scan(&a.ID, &a.Name, &a.Kind, &a.Settings, &a.Concurrency, &a.Paused, &a.Draining, &a.CreatedAt,
			&a.UpdatedAt, &a.SecretFields)
	})
	return err
}

// readUnreadable tries to open all secrets: one that was sealed with a key that we don't have must not look usable.
func (db *DB) readUnreadable(ctx context.Context, tx pgx.Tx, c *route.Config) error {
	if db.box == nil { // commands that need no secret
		return nil
	}
	rows := query(ctx, tx, `SELECT account_id, field, sealed FROM account_secret ORDER BY account_id, field`)
	var id int32
	var field string
	var sealed []byte
	_, err := pgx.ForEachRow(rows, []any{&id, &field, &sealed}, func() error {
		if _, err := db.box.Open(sealed, binding(id, field)); err == nil {
			return nil
		}
		if a := accountOf(c, id); a != nil {
			a.Unreadable = append(a.Unreadable, field)
		}
		return nil
	})
	return err
}

// accountOf finds an account by its id.
func accountOf(c *route.Config, id int32) *route.Account {
	if i := slices.IndexFunc(c.Accounts, func(a route.Account) bool { return a.ID == id }); i >= 0 {
		return &c.Accounts[i]
	}
	return nil
}

func readLimits(ctx context.Context, tx pgx.Tx, c *route.Config) error {
	rows := query(ctx, tx, `SELECT account_id, n, per_ms, unit FROM account_limit ORDER BY account_id, per_ms, unit`)
	var id int32
	var perMS int64
	var w limit.Window
	_, err := pgx.ForEachRow(rows, []any{&id, &w.N, &perMS, &w.Unit}, func() error {
		w.Per = time.Duration(perMS) * time.Millisecond
		if a := accountOf(c, id); a != nil {
			a.Limits = append(a.Limits, w)
		}
		return nil
	})
	return err
}

func readParks(ctx context.Context, tx pgx.Tx, c *route.Config) error {
	rows := query(ctx, tx, `SELECT account_id, sender_domain, reason, since, probe_at FROM account_park ORDER BY account_id, sender_domain`)
	var id int32
	var key string
	var p route.Park
	_, err := pgx.ForEachRow(rows, []any{&id, &key, &p.Reason, &p.Since, &p.Next}, func() error {
		if a := accountOf(c, id); a != nil {
			park := route.ParkFor(key)
			park.Reason, park.Since, park.Next = p.Reason, p.Since, p.Next
			a.Parked = append(a.Parked, park)
		}
		return nil
	})
	return err
}

func readPools(ctx context.Context, tx pgx.Tx, c *route.Config) (err error) {
	rows := query(ctx, tx, `SELECT id, name, overflow, version FROM pool ORDER BY name`)
	c.Pools, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p route.Pool, err error) {
		return p, row.Scan(&p.ID, &p.Name, &p.Overflow, &p.Version)
	})
	if err != nil {
		return err
	}
	rows = query(ctx, tx, `SELECT p.pool_id, a.name, p.weight FROM pool_account p JOIN account a ON a.id = p.account_id
		WHERE a.deleted_at IS NULL ORDER BY a.name`)
	var pool int32
	var m route.Member
	_, err = pgx.ForEachRow(rows, []any{&pool, &m.Account, &m.Weight}, func() error {
		for i := range c.Pools {
			if c.Pools[i].ID == pool {
				c.Pools[i].Members = append(c.Pools[i].Members, m)
			}
		}
		return nil
	})
	return err
}

func readRules(ctx context.Context, tx pgx.Tx, c *route.Config) (err error) {
	rows := query(ctx, tx, `SELECT r.id, r.position, r.stream, r.tag, r.sender_domain, r.recipient_domain, p.name
		FROM rule r JOIN pool p ON p.id = r.pool_id ORDER BY r.position, r.id`)
	c.Rules, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r route.Rule, err error) {
		return r, row.Scan(&r.ID, &r.Position, &r.Stream, &r.Tag, &r.SenderDomain, &r.RecipientDomain, &r.Pool)
	})
	return err
}

// CreatePool stores a pool, or returns record.ErrConflict when the name is taken and record.ErrNotFound for an account that
// does not exist.
func (db *DB) CreatePool(ctx context.Context, actor string, p route.Pool) error {
	return db.change(ctx, actor, "pool.create", p.Name, poolDetail(p), func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO pool (name, overflow) VALUES ($1, $2) RETURNING id`, p.Name, string(p.Overflow)).Scan(&p.ID)
		if err != nil {
			return err
		}
		return setMembers(ctx, tx, p)
	})
}

// UpdatePool replaces a pool's overflow and weights and returns it with its new version. If ifVersion is neither 0 nor the
// version in force, it returns record.ErrStale.
func (db *DB) UpdatePool(ctx context.Context, actor string, p route.Pool, ifVersion int64) (route.Pool, error) {
	err := db.change(ctx, actor, "pool.update", p.Name, poolDetail(p), func(tx pgx.Tx) error {
		var version int64
		err := tx.QueryRow(ctx, `SELECT id, version FROM pool WHERE name = $1 FOR UPDATE`, p.Name).Scan(&p.ID, &version)
		if err = affectedRow(err, "pool "+p.Name); err != nil {
			return err
		}
		if ifVersion != 0 && ifVersion != version {
			return fmt.Errorf("pool %s is at version %d, not %d: %w", p.Name, version, ifVersion, record.ErrStale)
		}
		p.Version = version + 1
		_, err = tx.Exec(ctx, `UPDATE pool SET overflow = $2, version = $3 WHERE id = $1`, p.ID, string(p.Overflow), p.Version)
		if err != nil {
			return err
		}
		return setMembers(ctx, tx, p)
	})
	return p, err
}

func poolDetail(p route.Pool) any {
	return map[string]any{"overflow": p.Overflow, "accounts": p.Members}
}

// setMembers replaces the accounts of a pool.
func setMembers(ctx context.Context, tx pgx.Tx, p route.Pool) error {
	if _, err := tx.Exec(ctx, `DELETE FROM pool_account WHERE pool_id = $1`, p.ID); err != nil {
		return err
	}
	for _, m := range p.Members {
		err := execOne(ctx, tx, "account "+m.Account, `INSERT INTO pool_account (pool_id, account_id, weight)
			SELECT $1, id, $3 FROM account WHERE name = $2 AND deleted_at IS NULL`, p.ID, m.Account, m.Weight)
		if err != nil {
			return err
		}
	}
	return nil
}

// SetRules replaces all rules.
func (db *DB) SetRules(ctx context.Context, actor string, rules []route.Rule) error {
	return db.change(ctx, actor, "rules.replace", "rules", rules, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM rule`); err != nil {
			return err
		}
		for _, r := range rules {
			if _, err := insertRule(ctx, tx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// CreateRule stores a rule and returns it with its id; record.ErrNotFound when its pool does not exist.
func (db *DB) CreateRule(ctx context.Context, actor string, r route.Rule) (route.Rule, error) {
	err := db.change(ctx, actor, "rule.create", "rules", r, func(tx pgx.Tx) (err error) {
		r.ID, err = insertRule(ctx, tx, r)
		return err
	})
	return r, err
}

func insertRule(ctx context.Context, tx pgx.Tx, r route.Rule) (int64, error) {
	var id int64
	err := tx.QueryRow(ctx, `INSERT INTO rule (position, stream, tag, sender_domain, recipient_domain, pool_id)
		SELECT $1, $2, $3, $4, $5, id FROM pool WHERE name = $6 RETURNING id`,
		r.Position, r.Stream, r.Tag, r.SenderDomain, r.RecipientDomain, r.Pool).Scan(&id)
	return id, affectedRow(err, "pool "+r.Pool)
}

// DeleteRule removes a rule, or returns record.ErrNotFound.
func (db *DB) DeleteRule(ctx context.Context, actor string, id int64) error {
	return db.change(ctx, actor, "rule.delete", fmt.Sprint(id), nil, func(tx pgx.Tx) error {
		return execOne(ctx, tx, fmt.Sprintf("rule %d", id), `DELETE FROM rule WHERE id = $1`, id)
	})
}
