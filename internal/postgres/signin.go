package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// sessionsKept bounds the sessions of one person. Another sign-in ends the oldest.
const sessionsKept = 20

const (
	sessionColumns = `left(encode(s.hash, 'hex'), 32), p.name, p.role, s.network, s.agent, s.created_at, s.seen_at, s.expires_at
		FROM person_session s JOIN person p ON p.id = s.person_id`
	// sessionLives is of sessions that have not ended; $2 is the time that they may be idle.
	sessionLives = `p.disabled_at IS NULL AND s.expires_at > now() AND s.seen_at > now() - $2::interval`
)

func scanSession(row pgx.CollectableRow) (s record.Session, err error) {
	return s, row.Scan(&s.ID, &s.User, &s.Role, &s.From, &s.Agent, &s.CreatedAt, &s.SeenAt, &s.ExpiresAt)
}

// Login returns what a sign-in of that name is checked against and the secret of its authenticator, or record.ErrNotFound. A user
// without a password has no secret either.
func (db *DB) Login(ctx context.Context, name string) (l record.Login, totp seal.Secret, err error) {
	var sealed []byte
	into := append(userInto(&l.User), &l.Password, &sealed, &l.Step, &l.Networks)
	err = db.api.QueryRow(ctx, `SELECT `+userColumns+`, p.password, p.totp, p.totp_step, p.networks FROM person p WHERE p.name = $1`, name).Scan(into...)
	if err == nil && sealed != nil {
		totp, err = db.box.Open(sealed, personBinding(fmt.Sprint(l.ID), totpField))
	}
	return l, totp, failed("read login", affectedRow(err, "user "+name))
}

// SignIn begins a session and uses up the code of the sign-in. It returns record.ErrNotFound if meanwhile the code was used, the
// password was changed, or the user was disabled.
func (db *DB) SignIn(ctx context.Context, in record.SignIn) error {
	detail := map[string]any{"from": in.Session.From, "recovery_code": in.Step == 0}
	return db.userChange(ctx, record.ActorOf(in.User.Name), "session.start", in.User.Name, detail, func(tx pgx.Tx) error {
		err := execOne(ctx, tx, "sign-in", `UPDATE person SET totp_step = greatest(totp_step, $3)
			WHERE id = $1 AND password = $2 AND disabled_at IS NULL AND ($3 = 0 OR totp_step < $3)`, in.User.ID, in.Password, in.Step)
		if err == nil && in.Step == 0 {
			err = execOne(ctx, tx, "recovery code", `DELETE FROM person_code WHERE person_id = $1 AND hash = $2`, in.User.ID, in.Code)
		}
		if err != nil {
			return err
		}
		return startSession(ctx, tx, in.User.ID, in.Session)
	})
}

// startSession stores a session and ends the oldest ones beyond sessionsKept.
func startSession(ctx context.Context, tx pgx.Tx, user int32, s record.NewSession) error {
	b := &pgx.Batch{}
	b.Queue(`UPDATE person SET signed_in_at = now(),
		networks = CASE WHEN $2::cidr IS NULL THEN networks ELSE (ARRAY[$2::cidr] || array_remove(networks, $2::cidr))[1:8] END WHERE id = $1`, user, s.From)
	b.Queue(`INSERT INTO person_session (hash, person_id, network, agent, expires_at) VALUES ($1, $2, $3, $4, now() + $5)`,
		s.Hash, user, s.From, s.Agent, record.SessionLife)
	b.Queue(`DELETE FROM person_session WHERE hash IN (SELECT hash FROM person_session WHERE person_id = $1 ORDER BY created_at DESC OFFSET $2)`,
		user, sessionsKept)
	return tx.SendBatch(ctx, b).Close()
}

// SessionOf returns the session of a token with that hash, or record.ErrNotFound if it has ended. It counts as a use.
func (db *DB) SessionOf(ctx context.Context, hash []byte) (record.Session, error) {
	s, err := pgx.CollectExactlyOneRow(query(ctx, db.api, `SELECT `+sessionColumns+` WHERE s.hash = $1 AND `+sessionLives, hash, record.SessionIdle), scanSession)
	if err != nil {
		return s, failed("read session", affectedRow(err, "session"))
	}
	if db.clock.Now().Sub(s.SeenAt) < time.Minute {
		return s, nil
	}
	// A database that takes no writes is when people have to look. The session then ends a little early.
	_, _ = db.api.Exec(ctx, `UPDATE person_session SET seen_at = now() WHERE hash = $1`, hash)
	return s, nil
}

// EndSession ends the session of a token with that hash.
func (db *DB) EndSession(ctx context.Context, user string, hash []byte) error {
	return db.userChange(ctx, record.ActorOf(user), "session.end", user, nil, func(tx pgx.Tx) error {
		return execOne(ctx, tx, "session", `DELETE FROM person_session WHERE hash = $1`, hash)
	})
}

// LinkOf returns the link of a token with that hash, or record.ErrNotFound if it was used or has expired.
func (db *DB) LinkOf(ctx context.Context, hash []byte) (l record.Link, err error) {
	err = db.api.QueryRow(ctx, `SELECT `+userColumns+`, l.enter FROM person_link l JOIN person p ON p.id = l.person_id
		WHERE l.hash = $1 AND l.expires_at > now() AND p.disabled_at IS NULL`, hash).Scan(append(userInto(&l.User), &l.Enter)...)
	return l, failed("read link", affectedRow(err, "link"))
}

// useLink deletes a link and returns its user, or record.ErrNotFound.
func useLink(ctx context.Context, tx pgx.Tx, hash []byte, enter bool) (user int32, err error) {
	err = tx.QueryRow(ctx, `DELETE FROM person_link l USING person p WHERE l.hash = $1 AND l.enter = $2 AND l.expires_at > now()
		AND p.id = l.person_id AND p.disabled_at IS NULL RETURNING p.id`, hash, enter).Scan(&user)
	return user, affectedRow(err, "link")
}

// Enter uses up a link that signs in without a password.
func (db *DB) Enter(ctx context.Context, user string, link []byte, s record.NewSession) error {
	return db.userChange(ctx, record.ActorOf(user), "session.start", user, map[string]any{"from": s.From, "link": true}, func(tx pgx.Tx) error {
		id, err := useLink(ctx, tx, link, true)
		if err != nil {
			return err
		}
		return startSession(ctx, tx, id, s)
	})
}

// Welcome uses up a link and sets all that its user signs in with. It ends the user's other sessions and links and begins one.
func (db *DB) Welcome(ctx context.Context, user string, w record.Welcome, totp seal.Secret) error {
	return db.userChange(ctx, record.ActorOf(user), "user.welcome", user, map[string]any{"from": w.Session.From}, func(tx pgx.Tx) error {
		id, err := useLink(ctx, tx, w.Link, false)
		if err != nil {
			return err
		}
		sealed := db.box.Seal(totp, personBinding(fmt.Sprint(id), totpField))
		b := &pgx.Batch{}
		b.Queue(`UPDATE person SET password = $2, totp = $3, totp_step = $4 WHERE id = $1`, id, w.Password, sealed, w.Step)
		b.Queue(`DELETE FROM person_session WHERE person_id = $1`, id)
		b.Queue(`DELETE FROM person_link WHERE person_id = $1`, id)
		b.Queue(`DELETE FROM person_code WHERE person_id = $1`, id)
		b.Queue(`INSERT INTO person_code (person_id, hash) SELECT $1, unnest($2::bytea[])`, id, w.Codes)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		return startSession(ctx, tx, id, w.Session)
	})
}

const totpField = "totp"

func personBinding(id, name string) string { return "person/" + id + "/" + name }
