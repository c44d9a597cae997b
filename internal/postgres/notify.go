package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// maxNotifyRules is how many rules there may be: each incident makes a notice of each.
const maxNotifyRules = 50

// The names to which the secrets of a rule are bound.
const (
	notifyURL    = "url"
	notifySecret = "secret"
)

func notifyBinding(id, name string) string { return "notify/" + id + "/" + name }

func ruleBinding(id int32, name string) string { return notifyBinding(fmt.Sprint(id), name) }

const notifyColumns = `r.id, r.name, r.channel, r.kinds, r.origin, r.mail_from, r.mail_to, r.created_at, r.last_told_at, r.last_error`

func notifyInto(r *incident.Rule) []any {
	return []any{&r.ID, &r.Name, &r.Channel, &r.Kinds, &r.Origin, &r.From, &r.To, &r.CreatedAt, orNoTime(&r.LastTold), &r.LastError}
}

// NotifyRules lists the rules by name, without their secrets.
func (db *DB) NotifyRules(ctx context.Context) ([]incident.Rule, error) {
	return collect("list notify rules", query(ctx, db.api, `SELECT `+notifyColumns+` FROM notify_rule r ORDER BY r.name`),
		func(row pgx.CollectableRow) (r incident.Rule, err error) { return r, row.Scan(notifyInto(&r)...) })
}

// NotifyRule returns a rule with its secrets, or record.ErrNotFound.
func (db *DB) NotifyRule(ctx context.Context, name string) (*incident.Rule, error) {
	var r incident.Rule
	var url, secret []byte
	err := db.api.QueryRow(ctx, `SELECT `+notifyColumns+`, r.url, r.secret FROM notify_rule r WHERE r.name = $1`, name).
		Scan(append(notifyInto(&r), &url, &secret)...)
	if err = affectedRow(err, "notify rule "+name); err != nil {
		return nil, fmt.Errorf("read notify rule: %w", unavailable(err))
	}
	return &r, db.openRule(&r, url, secret)
}

// openRule opens the secrets of a rule.
func (db *DB) openRule(r *incident.Rule, url, secret []byte) error {
	for _, s := range []struct {
		name   string
		sealed []byte
		into   *seal.Secret
	}{{notifyURL, url, &r.URL}, {notifySecret, secret, &r.Secret}} {
		if s.sealed == nil {
			continue
		}
		opened, err := db.box.Open(s.sealed, ruleBinding(r.ID, s.name))
		if err != nil {
			return fmt.Errorf("%s of notify rule %s: %w", s.name, r.Name, err)
		}
		*s.into = opened
	}
	return nil
}

// CreateNotifyRule stores a rule and seals its secrets. It returns record.ErrConflict when the name is taken, or there are as
// many rules as there may be.
func (db *DB) CreateNotifyRule(ctx context.Context, actor string, r incident.Rule) (*incident.Rule, error) {
	detail := map[string]any{"channel": r.Channel, "kinds": notNil(r.Kinds), "origin": r.Origin}
	err := db.audited(ctx, actor, "notify_rule.create", r.Name, detail, func(tx pgx.Tx) error {
		var have int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM notify_rule`).Scan(&have); err != nil {
			return err
		}
		if have >= maxNotifyRules {
			return fmt.Errorf("there are %d notify rules: %w", have, record.ErrConflict)
		}
		// The secrets are bound to the id, so it is taken first.
		if err := tx.QueryRow(ctx, `SELECT nextval(pg_get_serial_sequence('notify_rule', 'id'))`).Scan(&r.ID); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `INSERT INTO notify_rule AS r (id, name, channel, kinds, url, origin, secret, mail_from, mail_to)
			OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING `+notifyColumns,
			r.ID, r.Name, string(r.Channel), kindNames(r.Kinds), db.sealOf(r.URL, ruleBinding(r.ID, notifyURL)), r.Origin,
			db.sealOf(r.Secret, ruleBinding(r.ID, notifySecret)), r.From, notNil(r.To)).Scan(notifyInto(&r)...)
	})
	if isCode(err, "23505") {
		return nil, fmt.Errorf("notify rule %s: the name is taken: %w", r.Name, record.ErrConflict)
	}
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// sealOf seals a secret; it returns nil if there is none.
func (db *DB) sealOf(s seal.Secret, binding string) []byte {
	if s.IsZero() {
		return nil
	}
	return db.box.Seal(s, binding)
}

func kindNames(kinds []incident.Kind) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return names
}

// DeleteNotifyRule removes a rule and what it has still to tell, or returns record.ErrNotFound.
func (db *DB) DeleteNotifyRule(ctx context.Context, actor, name string) error {
	return db.audited(ctx, actor, "notify_rule.delete", name, nil, func(tx pgx.Tx) error {
		return execOne(ctx, tx, "notify rule "+name, `DELETE FROM notify_rule WHERE name = $1`, name)
	})
}

// DueNotices lists notices that are to be told now, the oldest first, with the secrets of their rules. A notice whose secrets
// do not open comes without them.
func (db *DB) DueNotices(ctx context.Context, limit int) ([]incident.Notice, error) {
	rows := query(ctx, db.api, `
SELECT n.id, n.ended, n.tries, n.message_id, n.tried, `+incidentColumns+`, `+notifyColumns+`, r.url, r.secret
FROM notice n JOIN incident i ON i.id = n.incident_id JOIN notify_rule r ON r.id = n.rule_id
WHERE n.done_at IS NULL AND n.due <= now() ORDER BY n.due LIMIT $1`, limit)
	return collect("list notices", rows, func(row pgx.CollectableRow) (n incident.Notice, err error) {
		var url, secret []byte
		into := []any{intoID(&n.ID), &n.Ended, &n.Tries, orNoID(&n.Message), &n.Tried}
		into = append(append(append(into, incidentInto(&n.Incident)...), notifyInto(&n.Rule)...), &url, &secret)
		if err := row.Scan(into...); err != nil {
			return n, err
		}
		if err := db.openRule(&n.Rule, url, secret); err != nil {
			n.Rule.URL, n.Rule.Secret = seal.Secret{}, seal.Secret{}
		}
		return n, nil
	})
}

// FinishNotice records a try.
func (db *DB) FinishNotice(ctx context.Context, r incident.Result) error {
	n := r.Notice
	var done *time.Time
	if r.Done {
		now := db.clock.Now()
		done = &now
	}
	b := &pgx.Batch{}
	b.Queue(`UPDATE notice SET tries = $2, message_id = $3, tried = $4, done_at = $5, error = $6, due = now() + $7::interval WHERE id = $1`,
		[16]byte(n.ID), n.Tries, idOrNull(n.Message), notNil(n.Tried), done, r.Error, r.Again)
	b.Queue(`UPDATE notify_rule SET last_error = $2, last_told_at = CASE WHEN $3 THEN now() ELSE last_told_at END WHERE id = $1`,
		n.Rule.ID, r.Error, r.Done && r.Error == "")
	return failed("record a notice", db.api.SendBatch(ctx, b).Close())
}

// NoticeMail returns the status and the account of the mail of a notice, or record.ErrNotFound. If it has reached anybody, its status is
// sent, whatever became of the others.
func (db *DB) NoticeMail(ctx context.Context, id mail.ID) (status mail.Status, account string, err error) {
	err = db.api.QueryRow(ctx, `
SELECT CASE WHEN EXISTS (SELECT FROM recipient WHERE message_id = $1 AND status IN ('sent', 'delivered', 'deferred', 'complained')) THEN 'sent' ELSE status END,
       coalesce(facts->>'acc', '') FROM message WHERE id = $1`, [16]byte(id)).Scan(&status, &account)
	return status, account, failed("read the mail of a notice", affectedRow(err, "message "+id.String()))
}
