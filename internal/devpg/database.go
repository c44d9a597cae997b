package devpg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs of a database that exists already: usually the first; the second when two sessions create it at the same moment
// and collide in the catalogue's unique index (PostgreSQL Error Codes, appendix A).
const (
	duplicateDatabase = "42P04"
	uniqueViolation   = "23505"
)

// EnsureDatabase creates the database name on the server of dsn, unless it exists, and returns dsn with that database in
// place of its own. The role of dsn needs CREATEDB. Several processes may call it at once.
func EnsureDatabase(ctx context.Context, dsn, name string) (string, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", fmt.Errorf("connect to create database %q: %w", name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	var exists bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err != nil {
		return "", fmt.Errorf("look for database %q: %w", name, err)
	}
	if exists {
		return WithDatabase(dsn, name)
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && (pgErr.Code == duplicateDatabase || pgErr.Code == uniqueViolation) {
		err = nil // another process was quicker
	}
	if err != nil {
		return "", fmt.Errorf("create database %q: %w", name, err)
	}
	return WithDatabase(dsn, name)
}

// WithDatabase returns dsn, in its URL or its keyword form, with another database name.
func WithDatabase(dsn, name string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(name)
		return dsn + " dbname='" + quoted + "'", nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", errors.New("parse database URL: it is malformed") // the cause would print the password
	}
	u.Path = "/" + name
	return u.String(), nil
}
