package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

const userColumns = `p.id, p.name, p.role, p.password <> '', (SELECT count(*) FROM person_code c WHERE c.person_id = p.id),
	p.created_at, p.disabled_at, p.signed_in_at`

func userInto(u *record.User) []any {
	return []any{&u.ID, &u.Name, &u.Role, &u.Ready, &u.Codes, &u.CreatedAt, orNoTime(&u.DisabledAt), orNoTime(&u.SignedInAt)}
}

func scanUser(row pgx.CollectableRow) (u record.User, err error) { return u, row.Scan(userInto(&u)...) }

// Users lists all users by name.
func (db *DB) Users(ctx context.Context) ([]record.User, error) {
	return collect("list users", query(ctx, db.api, `SELECT `+userColumns+` FROM person p ORDER BY p.name LIMIT 1000`), scanUser)
}

// User returns the user of that name, or record.ErrNotFound.
func (db *DB) User(ctx context.Context, name string) (record.User, error) {
	u, err := pgx.CollectExactlyOneRow(query(ctx, db.api, `SELECT `+userColumns+` FROM person p WHERE p.name = $1`, name), scanUser)
	return u, failed("read user", affectedRow(err, "user "+name))
}

// CreateUser stores a user, and the hash of the token of a link to set a password with. It returns record.ErrConflict when the
// name is taken.
func (db *DB) CreateUser(ctx context.Context, actor, name string, role record.Role, link []byte) error {
	return db.userChange(ctx, actor, "user.create", name, map[string]any{"role": role}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO person (name, role) VALUES ($1, $2)`, name, string(role)); err != nil {
			return err
		}
		return insertLink(ctx, tx, name, link, false)
	})
}

// SetUser changes the role of a user, or whether the user may sign in; nil leaves it. A change ends all sessions of the user.
func (db *DB) SetUser(ctx context.Context, actor, name string, role *record.Role, disabled *bool) error {
	detail := map[string]any{}
	if role != nil {
		detail["role"] = *role
	}
	if disabled != nil {
		detail["disabled"] = *disabled
	}
	return db.userChange(ctx, actor, "user.update", name, detail, func(tx pgx.Tx) error {
		err := execOne(ctx, tx, "user "+name, `UPDATE person SET role = coalesce($2, role),
			disabled_at = CASE $3::boolean WHEN true THEN coalesce(disabled_at, now()) WHEN false THEN NULL ELSE disabled_at END WHERE name = $1`,
			name, (*string)(role), disabled)
		if err != nil {
			return err
		}
		return endSessions(ctx, tx, name)
	})
}

// ResetUser takes away all that a user signs in with, and stores a link to set it anew.
func (db *DB) ResetUser(ctx context.Context, actor, name string, link []byte) error {
	return db.userChange(ctx, actor, "user.reset", name, nil, func(tx pgx.Tx) error {
		if err := execOne(ctx, tx, "user "+name, `UPDATE person SET password = '', totp = NULL, totp_step = 0 WHERE name = $1`, name); err != nil {
			return err
		}
		for _, table := range []string{"person_code", "person_link", "person_session"} {
			if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE person_id = (SELECT id FROM person WHERE name = $1)`, name); err != nil {
				return err
			}
		}
		return insertLink(ctx, tx, name, link, false)
	})
}

// CreateLink stores a further link of a user. With enter it signs in without a password.
func (db *DB) CreateLink(ctx context.Context, actor, name string, link []byte, enter bool) error {
	return db.userChange(ctx, actor, "user.link", name, nil, func(tx pgx.Tx) error { return insertLink(ctx, tx, name, link, enter) })
}

func insertLink(ctx context.Context, tx pgx.Tx, name string, link []byte, enter bool) error {
	return execOne(ctx, tx, "user "+name, `INSERT INTO person_link (hash, person_id, enter, expires_at) SELECT $2, id, $3, now() + $4 FROM person WHERE name = $1`,
		name, link, enter, record.LinkLife)
}

// UserSessions lists the sessions of a user that have not ended, newest first.
func (db *DB) UserSessions(ctx context.Context, name string) ([]record.Session, error) {
	if _, err := db.User(ctx, name); err != nil {
		return nil, err
	}
	rows := query(ctx, db.api, `SELECT `+sessionColumns+` WHERE p.name = $1 AND `+sessionLives+` ORDER BY s.created_at DESC, s.hash LIMIT $3`,
		name, record.SessionIdle, sessionsKept)
	return collect("list sessions", rows, scanSession)
}

// EndUserSessions ends the session of a user with that id, or all with an empty id. It returns record.ErrNotFound for an unknown
// user or session.
func (db *DB) EndUserSessions(ctx context.Context, actor, name, id string) error {
	return db.userChange(ctx, actor, "session.end", name, nil, func(tx pgx.Tx) error {
		if id == "" {
			if err := execOne(ctx, tx, "user "+name, `SELECT 1 FROM person WHERE name = $1`, name); err != nil {
				return err
			}
			return endSessions(ctx, tx, name)
		}
		return execOne(ctx, tx, "session "+id, `DELETE FROM person_session s USING person p
			WHERE p.id = s.person_id AND p.name = $1 AND left(encode(s.hash, 'hex'), 32) = $2`, name, id)
	})
}

func endSessions(ctx context.Context, tx pgx.Tx, name string) error {
	_, err := tx.Exec(ctx, `DELETE FROM person_session WHERE person_id = (SELECT id FROM person WHERE name = $1)`, name)
	return err
}

// userChange runs a change of one user and writes its audit entry, in one transaction. The engine reads no users, so the version
// of the configuration stays.
func (db *DB) userChange(ctx context.Context, actor, action, name string, detail any, f func(pgx.Tx) error) error {
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		return audit(ctx, tx, actor, action, name, detail)
	})
	switch {
	case isCode(err, "23505"):
		return fmt.Errorf("%s: the name is taken: %w", name, record.ErrConflict)
	case err != nil:
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}
