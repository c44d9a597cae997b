package pgtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/migrations"
)

// recorder is a test whose outcome another test looks at.
type recorder struct {
	testing.TB
	failed bool
	said   strings.Builder
}

func (r *recorder) Helper()                        {}
func (r *recorder) Failed() bool                   { return r.failed }
func (r *recorder) Log(args ...any)                { fmt.Fprintln(&r.said, args...) }
func (r *recorder) Logf(format string, a ...any)   { fmt.Fprintf(&r.said, format+"\n", a...) }
func (r *recorder) Errorf(format string, a ...any) { r.failed = true; r.Logf(format, a...) }

// databases lists the databases of the shared server.
func databases(t *testing.T) []string {
	t.Helper()
	h, err := server()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	err = h.session.do(t.Context(), func(conn *pgx.Conn) (err error) {
		names, err = listDatabases(t.Context(), conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestEachTestHasAMigratedDatabaseOfItsOwn(t *testing.T) { //nolint:tparallel // the group ends before what follows
	t.Parallel()
	names := make(chan string, 3)
	t.Run("users", func(t *testing.T) {
		for range cap(names) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				pool := New(t)
				var name string
				if err := pool.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
					t.Fatal(err)
				}
				names <- name
				var version int64
				const q = "SELECT max(version_id) FROM goose_db_version WHERE is_applied"
				if err := pool.QueryRow(t.Context(), q).Scan(&version); err != nil || version < 1 {
					t.Errorf("schema version = %d, %v; want the migrations applied", version, err)
				}
				if _, err := pool.Exec(t.Context(), "CREATE TABLE mine (x integer)"); err != nil {
					t.Errorf("a table of another test is here: %v", err)
				}
			})
		}
	})
	close(names)
	left := databases(t)
	seen := map[string]bool{}
	for name := range names {
		if seen[name] {
			t.Errorf("%s was given to two tests", name)
		}
		seen[name] = true
		if slices.Contains(left, name) {
			t.Errorf("%s still exists after its test", name)
		}
	}
}

func TestKeptConnectionIsAnError(t *testing.T) {
	t.Parallel()
	pool := New(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	closePool(r, pool, time.Millisecond)
	if !strings.Contains(r.said.String(), "1 connections were not given back") {
		t.Errorf("closePool said %q, want the kept connection", r.said.String())
	}
	conn.Release()
}

func TestDatabaseOfAFailedTestIsKeptWhereItCanBeSeen(t *testing.T) {
	t.Parallel()
	shared, err := server()
	if err != nil {
		t.Fatal(err)
	}
	for _, external := range []bool{true, false} {
		h := host{admin: shared.admin, session: shared.session, external: external}
		name := databaseName(shared.template)
		if err := h.clone(t.Context(), shared.template, name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.session.exec(context.Background(), "DROP DATABASE IF EXISTS "+quote(name)) })
		r := &recorder{TB: t, failed: true}
		h.finish(r, name)
		if got := slices.Contains(databases(t), name); got != external {
			t.Errorf("external %v: database of a failed test exists = %v", external, got)
		}
		if got := strings.Contains(r.said.String(), name); got != external {
			t.Errorf("external %v: said %q", external, r.said.String())
		}
	}
}

func TestTemplateIsMadeOnce(t *testing.T) {
	t.Parallel()
	h, err := server()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := ensureTemplate(t.Context(), h.session)
		if err != nil || got != h.template {
			t.Errorf("ensureTemplate = %s, %v; want %s", got, err, h.template)
		}
	}
	hash, err := hashMigrations(migrations.FS)
	if err != nil || hashOf(h.template) != hash {
		t.Errorf("template %s is not for hash %s (%v)", h.template, hash, err)
	}
}

func TestOnlyOldDatabasesAreDropped(t *testing.T) {
	t.Parallel()
	h, err := server()
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Join([]string{clonePrefix, "0123456789ab", stamp(time.Now().Add(-keepFor - time.Hour)), "x"}, "_")
	young := strings.Join([]string{clonePrefix, "0123456789ab", stamp(time.Now().Add(-keepFor + time.Hour)), "x"}, "_")
	for _, name := range []string{old, young} {
		if err := h.clone(t.Context(), h.template, name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.session.exec(context.Background(), "DROP DATABASE IF EXISTS "+quote(name)) })
	}
	all := append(databases(t), "postgres")
	err = h.session.do(t.Context(), func(conn *pgx.Conn) error { return dropOld(t.Context(), conn, all) })
	if err != nil {
		t.Fatal(err)
	}
	left := databases(t)
	if slices.Contains(left, old) || !slices.Contains(left, young) || !slices.Contains(left, h.template) {
		t.Errorf("left %v; want %s and the template kept, %s gone", left, young, old)
	}
}

// A template of yesterday lacks the tables of the last day that today's has.
func TestTemplateIsOfToday(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		made, now time.Time
		want      bool
	}{
		{midnight, midnight.Add(23*time.Hour + 59*time.Minute), true},
		{midnight.Add(-time.Second), midnight, false},
		{midnight.In(time.FixedZone("", -7200)), midnight, true},
	} {
		if got := ofToday(templatePrefix+"_0123456789ab_"+stamp(tc.made), tc.now); got != tc.want {
			t.Errorf("made at %s, used at %s: %t, want %t", tc.made, tc.now, got, tc.want)
		}
	}
	if ofToday("", midnight) {
		t.Error("no template is of today")
	}
}

func TestNamesSayWhatAndWhen(t *testing.T) {
	t.Parallel()
	now := time.Unix(time.Now().Unix(), 0)
	template := strings.Join([]string{templatePrefix, "0123456789ab", stamp(now)}, "_")
	if got := hashOf(template); got != "0123456789ab" {
		t.Errorf("hashOf(%s) = %s", template, got)
	}
	for _, name := range []string{template, databaseName(template)} {
		if at, ok := madeAt(name); !ok || at.Before(now) || at.After(now.Add(time.Minute)) {
			t.Errorf("madeAt(%s) = %v, %v; want %v", name, at, ok, now)
		}
		if len(name) > 63 {
			t.Errorf("%s is longer than a name in PostgreSQL can be", name)
		}
	}
	for _, name := range []string{"postgres", clonePrefix, clonePrefix + "_x", clonePrefix + "_x_!"} {
		if at, ok := madeAt(name); ok {
			t.Errorf("madeAt(%s) = %v, want none", name, at)
		}
	}
}

func TestEveryChangeOfTheMigrationsIsAnotherTemplate(t *testing.T) {
	t.Parallel()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	variants := []fstest.MapFS{
		{"1.sql": file("a"), "2.sql": file("b")},
		{"1.sql": file("a"), "3.sql": file("b")},
		{"1.sql": file("ab"), "2.sql": file("")},
		{"1.sql": file("a")},
	}
	seen := map[string]int{}
	for i, v := range variants {
		hash, err := hashMigrations(v)
		if err != nil {
			t.Fatal(err)
		}
		if j, dup := seen[hash]; dup {
			t.Errorf("variants %d and %d have the same hash", i, j)
		}
		seen[hash] = i
	}
}
