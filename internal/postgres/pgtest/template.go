package pgtest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // goose wants a database/sql handle
	"github.com/pressly/goose/v3"

	"github.com/sendgate/sendgate/internal/devpg"
	"github.com/sendgate/sendgate/migrations"
)

// Names are PREFIX_HASH_TIME or PREFIX_HASH_TIME_RANDOM. They say which migrations a database has and when it was made.
const (
	templatePrefix = "sendgate_template"
	clonePrefix    = "sendgate_test"
)

// keepFor is how long databases are kept that no test drops: those of failed and of killed tests.
const keepFor = 24 * time.Hour

// templateLock is the key of the advisory lock under which templates are made and old databases dropped.
const templateLock = 0x73656e6467617465

// stamp writes a time into a name.
func stamp(at time.Time) string { return strconv.FormatInt(at.Unix(), 36) }

// hashOf returns the hash in the name of a template or of a copy of one.
func hashOf(name string) string {
	hash, _, _ := strings.Cut(strings.TrimPrefix(name, templatePrefix+"_"), "_")
	return hash
}

// madeAt returns the time in the name of a template or of a copy of one, and whether it is such a name.
func madeAt(name string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(name, templatePrefix+"_")
	if !ok {
		if rest, ok = strings.CutPrefix(name, clonePrefix+"_"); !ok {
			return time.Time{}, false
		}
	}
	parts := strings.Split(rest, "_")
	if len(parts) < 2 {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(parts[1], 36, 64)
	return time.Unix(seconds, 0), err == nil
}

// ofToday reports whether a template was made on the day of now. The migrations make tables for the days around their own, so a
// template of yesterday differs from what they leave today.
func ofToday(name string, now time.Time) bool {
	at, ok := madeAt(name)
	return ok && at.UTC().Truncate(24*time.Hour).Equal(now.UTC().Truncate(24*time.Hour))
}

// hashMigrations gives a hash of the migrations in fsys: a template is good for exactly one content.
func hashMigrations(fsys fs.FS) (string, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return "", fmt.Errorf("list migrations: %w", err)
	}
	sum := sha256.New()
	for _, name := range names { // in lexical order, by the contract of fs.Glob's ReadDir
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return "", fmt.Errorf("read migration: %w", err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// ensureTemplate returns today's template for the migrations of this binary and makes it first if there is none.
func ensureTemplate(ctx context.Context, admin *session) (name string, err error) {
	hash, err := hashMigrations(migrations.FS)
	if err != nil {
		return "", err
	}
	err = admin.do(ctx, func(conn *pgx.Conn) error {
		name, err = findOrBuild(ctx, conn, admin.url, hash)
		return err
	})
	return name, err
}

// findOrBuild does the work of ensureTemplate. The processes that share the server take turns.
func findOrBuild(ctx context.Context, conn *pgx.Conn, admin, hash string) (string, error) {
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(templateLock)); err != nil {
		return "", fmt.Errorf("lock templates: %w", err)
	}
	defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock_all()") }()
	databases, err := listDatabases(ctx, conn)
	if err != nil {
		return "", err
	}
	for _, name := range databases {
		if strings.HasPrefix(name, templatePrefix+"_"+hash+"_") && ofToday(name, time.Now()) {
			return name, nil
		}
	}
	if err := dropOld(ctx, conn, databases); err != nil {
		return "", err
	}
	name := strings.Join([]string{templatePrefix, hash, stamp(time.Now())}, "_")
	return name, buildTemplate(ctx, conn, admin, name)
}

// listDatabases returns the names of the templates and of their copies.
func listDatabases(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE datname LIKE 'sendgate\\_te%' ORDER BY datname")
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	return names, nil
}

// dropOld drops the databases among names that are older than keepFor. Younger ones may belong to a run of another
// checkout on the same server.
func dropOld(ctx context.Context, conn *pgx.Conn, names []string) error {
	for _, name := range names {
		at, ok := madeAt(name)
		if !ok || time.Since(at) < keepFor {
			continue
		}
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("drop old database: %w", err)
		}
	}
	return nil
}

// buildTemplate migrates an empty database and only then gives it the template's name, so that a killed build leaves
// nothing that looks complete.
func buildTemplate(ctx context.Context, conn *pgx.Conn, admin, name string) error {
	build := strings.Replace(name, templatePrefix, clonePrefix, 1) + "_build" // an unfinished one is dropped as old
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(build)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop half-made template: %w", err)
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quote(build)+" TEMPLATE template0 ENCODING 'UTF8'"); err != nil {
		return fmt.Errorf("create template: %w", err)
	}
	url, err := devpg.WithDatabase(admin, build)
	if err != nil {
		return err
	}
	if err := migrate(ctx, url); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quote(build)+" RENAME TO "+quote(name)); err != nil {
		return fmt.Errorf("name template: %w", err)
	}
	return nil
}

// migrate runs every migration on the database at url.
func migrate(ctx context.Context, url string) (err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return fmt.Errorf("open template: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate template: %w", err)
	}
	return nil
}
