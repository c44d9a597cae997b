package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pressly/goose/v3"
)

// catalog lists what the migrations made: tables, columns, indexes, constraints and functions.
func (b *bed) catalog(t *testing.T) string {
	t.Helper()
	return strings.Join(list[string](t, b, `
SELECT format('%s %s', c.relkind, c.relname) FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relname !~ '^goose|_\d{8}|pg_toast'
UNION ALL SELECT format('column %s.%s %s %s', table_name, column_name, data_type, column_default) FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name !~ '^goose|_\d{8}'
UNION ALL SELECT format('function %s', proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1`), "\n")
}

func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	b.flying(t) // not only on empty tables
	whole := b.catalog(t)
	must(t, b.db.Ping(ctx))
	down := func() {
		t.Helper()
		must(t, withGoose(b.url, func(p *goose.Provider) error {
			_, err := p.DownTo(ctx, 0)
			return err
		}))
	}
	down()
	if left := b.catalog(t); left != "" {
		t.Errorf("going down left:\n%s", left)
	}
	if err := b.db.Ping(ctx); !errors.Is(err, ErrSchema) {
		t.Errorf("Ping without a schema: %v, want ErrSchema", err)
	}
	var status bytes.Buffer
	must(t, MigrateStatus(ctx, b.url, &status))
	if !strings.Contains(status.String(), "00018_schema.sql") || !strings.Contains(status.String(), "pending") {
		t.Errorf("status before: %s", status.String())
	}
	var wg sync.WaitGroup
	var outs [3]bytes.Buffer
	for i := range outs { // replicas that start together
		wg.Go(func() {
			if err := Migrate(ctx, b.url, &outs[i]); err != nil {
				t.Errorf("migrate: %v", err)
			}
		})
	}
	wg.Wait()
	if all := outs[0].String() + outs[1].String() + outs[2].String(); strings.Count(all, "applied 00018_schema.sql") != 1 {
		t.Errorf("three replicas say: %s", all)
	}
	if again := b.catalog(t); again != whole {
		t.Errorf("down and up again gives\n%s\nwant\n%s", again, whole)
	}
	must(t, b.db.Ping(ctx))
	status.Reset()
	must(t, MigrateStatus(ctx, b.url, &status))
	if strings.Contains(status.String(), "pending") || !strings.Contains(status.String(), "applied 20") {
		t.Errorf("status after: %s", status.String())
	}
	if _, err := b.open(t, Options{}).Accept(ctx, submission()); err != nil {
		t.Errorf("accept on the new schema: %v", err)
	}
}

func TestPingRefusesAnOldSchema(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `DELETE FROM goose_db_version WHERE version_id = $1`, SchemaVersion)
	if err := b.db.Ping(t.Context()); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "sendgate migrate up") {
		t.Errorf("Ping: %v, want ErrSchema and what to do", err)
	}
	b.exec(t, `INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`, SchemaVersion+1)
	if err := b.db.Ping(t.Context()); err != nil {
		t.Errorf("Ping on a newer schema: %v, want the binary to run during a roll-out", err)
	}
}

func TestMigrateRefusesABadURLWithoutTellingThePassword(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(string) error{
		"Migrate":       func(url string) error { return Migrate(t.Context(), url, &bytes.Buffer{}) },
		"MigrateStatus": func(url string) error { return MigrateStatus(t.Context(), url, &bytes.Buffer{}) },
	} {
		err := f("postgres://u:hunter2@h:notaport/x")
		if err == nil || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%s: %v, want an error without the password", name, err)
		}
	}
}

func TestMigrateRefusesASchemaOfBeforeTheFirstRelease(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `DELETE FROM goose_db_version; INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (17, true)`)
	if err := Migrate(t.Context(), b.url, &bytes.Buffer{}); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "0.1.0") {
		t.Errorf("Migrate: %v, want ErrSchema and the release that upgrades it", err)
	}
}
