package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/sendgate/sendgate/migrations"
)

// SchemaVersion is the newest migration that this binary knows. It is also the oldest schema that it runs on.
const SchemaVersion = 20

// firstSchema is the schema of the first release, 0.1.0. Migrations start there: what came before was never released.
const firstSchema = 18

// Migrate brings the schema up to date. Several replicas may call it at once: an advisory lock lets one of them work. Out gets
// a line per migration.
func Migrate(ctx context.Context, dsn string, out io.Writer) error {
	if _, err := CheckSessions(ctx, dsn); err != nil {
		return err
	}
	return withGoose(dsn, func(p *goose.Provider) error {
		if have, err := p.GetDBVersion(ctx); err == nil && 0 < have && have < firstSchema {
			return fmt.Errorf("%w: it is at version %d, of before the first release; run sendgate migrate up of release 0.1.0 first", ErrSchema, have)
		}
		results, err := p.Up(ctx)
		for _, r := range results {
			_, _ = fmt.Fprintf(out, "applied %s in %s\n", r.Source.Path, r.Duration.Round(time.Millisecond))
		}
		if err != nil {
			return fmt.Errorf("migrate %s: %w", SafeURL(dsn), err)
		}
		return nil
	})
}

// MigrateStatus writes a line per migration: applied or pending.
func MigrateStatus(ctx context.Context, dsn string, out io.Writer) error {
	if _, err := CheckSessions(ctx, dsn); err != nil {
		return err
	}
	return withGoose(dsn, func(p *goose.Provider) error {
		states, err := p.Status(ctx)
		if err != nil {
			return fmt.Errorf("migration status of %s: %w", SafeURL(dsn), err)
		}
		for _, s := range states {
			at := "pending"
			if s.State == goose.StateApplied {
				at = "applied " + s.AppliedAt.UTC().Format(time.RFC3339)
			}
			_, _ = fmt.Fprintf(out, "%05d  %-30s  %s\n", s.Source.Version, s.Source.Path, at)
		}
		return nil
	})
}

func withGoose(dsn string, f func(*goose.Provider) error) error {
	cfg, err := parseURL(dsn)
	if err != nil {
		return err
	}
	inSession(cfg.ConnConfig, nil)
	handle := stdlib.OpenDB(*cfg.ConnConfig)
	defer func() { _ = handle.Close() }()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return fmt.Errorf("migration lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, handle, migrations.FS, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	return f(p)
}

// ErrSchema says that the schema is not one that this binary runs on.
var ErrSchema = errors.New("schema does not fit this binary")

func (db *DB) checkSchema(ctx context.Context) error {
	const q = `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`
	var have int64
	err := db.api.QueryRow(ctx, q).Scan(&have)
	switch {
	case isCode(err, "42P01"):
		return fmt.Errorf("%w: no tables yet; run: sendgate migrate up", ErrSchema)
	case err != nil:
		return unavailable(err)
	case have < SchemaVersion:
		return fmt.Errorf("%w: it is at version %d, want %d; run: sendgate migrate up", ErrSchema, have, SchemaVersion)
	}
	return nil
}
