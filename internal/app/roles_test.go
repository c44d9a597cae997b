//go:build drill

package app

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

// divide gives a database the two roles of docker/roles.sql, under names of its own, and returns the connection strings of both.
func divide(t *testing.T, dsn string) (asOwner, asServe string) {
	t.Helper()
	script, err := os.ReadFile("../../docker/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := conn.Config().Database
	suffix := name[max(0, len(name)-10):]
	owner, serve := "sendgate_owner_"+suffix, "sendgate_serve_"+suffix
	t.Cleanup(func() {
		ctx := context.Background()
		_, err := conn.PgConn().Exec(ctx, "DROP OWNED BY "+serve+", "+owner+" CASCADE; DROP ROLE IF EXISTS "+serve+", "+owner).ReadAll()
		if err = errors.Join(err, conn.Close(ctx)); err != nil {
			t.Errorf("drop the roles: %v", err)
		}
	})
	sql := strings.NewReplacer("sendgate_owner", owner, "sendgate_serve", serve).Replace(string(script)) +
		"ALTER ROLE " + owner + " LOGIN PASSWORD 'o'; ALTER ROLE " + serve + " LOGIN PASSWORD 's'"
	for range 2 { // it may run once more
		_, err = conn.PgConn().Exec(t.Context(), sql).ReadAll()
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42501" {
			t.Skipf("needs a server whose role is a superuser, to make roles: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(role, password string) string {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(role, password)
		return u.String()
	}
	return as(owner, "o"), as(serve, "s")
}

// The whole service runs as a role that may read and write rows, and nothing else.
func TestServiceRunsAsARoleThatOwnsNothing(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	var owner string
	owner, b.dsn = divide(t, b.dsn)
	r := b.start(t, settings...)
	want := map[string]int64{}
	var all []api.SendRequest
	for _, account := range accountNames() {
		for _, outcome := range outcomes() {
			all = append(all, letterTo(account, outcome+"@"+account+".example.org"))
			want[account] += int64(tellings(t, account, outcome))
		}
	}
	submit(t, r.api, all)
	b.awaitTold(t, want)
	b.checkOnce(t)
	b.amend(t, r, "sendgrid", func(map[string]any) {}, nil)
	if _, err := r.admin.CreateKey(t.Context(), api.KeyRequest{Name: "k", Scopes: []string{"send"}}); err != nil {
		t.Errorf("make a key: %v", err)
	}
	if err := postgres.Migrate(t.Context(), owner, &bytes.Buffer{}); err != nil {
		t.Errorf("migrate as the owner: %v", err)
	}
}

func TestTheRoleOfTheServiceMayNotChangeTheSchema(t *testing.T) {
	t.Parallel()
	_, dsn := divide(t, pgtest.NewURL(t))
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // it was only to try
	for _, q := range []string{
		`CREATE TABLE x ()`, `ALTER TABLE message ADD COLUMN x int`, `DROP TABLE body`, `TRUNCATE event`, `COPY (SELECT 1) TO PROGRAM 'true'`,
		`CREATE ROLE x`, `SELECT pg_read_file('/etc/passwd')`, `ALTER FUNCTION probe_write() SECURITY INVOKER`,
		`UPDATE audit SET actor = 'x'`, `DELETE FROM audit`, `TRUNCATE audit`, `INSERT INTO audit_link VALUES (1, 1, '')`, `UPDATE audit_link SET n = 2`,
		`DELETE FROM audit_link`, `ALTER TABLE audit DISABLE TRIGGER ALL`, `SELECT link_audit(NULL::audit)`,
	} {
		_, err := conn.Exec(t.Context(), q)
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "42501" {
			t.Errorf("%s: %v, want that the role may not", q, err)
		}
	}
	for _, q := range []string{`SELECT drop_day('account', current_date - 10)`, `SELECT drop_day('message', current_date)`, `SELECT drop_day('pg_class; DROP TABLE body; --', '2020-01-01')`} {
		if _, err := conn.Exec(t.Context(), q); err == nil {
			t.Errorf("%s is done, want it refused", q)
		}
	}
}

// Days are made and dropped, old rows are deleted, and the database is measured.
func TestMaintenanceRunsAsARoleThatOwnsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	super := b.dsn
	_, serve := divide(t, super)
	b.dsn = serve
	a, err := New(b.config(t), quiet())
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), postgres.Options{URL: serve, Box: a.box})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := pgxpool.New(t.Context(), super)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	now, ctx := time.Now(), t.Context()
	for _, q := range []string{
		`SELECT ensure_partitions(current_date - 12, current_date - 10)`, `ALTER TABLE body DETACH PARTITION body_` + now.AddDate(0, 0, -11).UTC().Format("20060102"),
		`DROP TABLE message_` + now.AddDate(0, 0, 6).UTC().Format("20060102"),
	} {
		if _, err := rows.Exec(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := db.EnsurePartitions(ctx); n != 1 || err != nil {
		t.Errorf("made %d days, %v; want the one that is missing", n, err)
	}
	for _, table := range []string{"message", "body", "recipient", "attempt", "event", "delivery"} {
		if n, err := db.DropPartitions(ctx, table, now.AddDate(0, 0, -5)); n != 3 || err != nil {
			t.Errorf("dropped %d days of %s, %v; want 3", n, table, err)
		}
	}
	_, sweepErr := db.Sweep(ctx)
	_, keyErr := db.DropKeys(ctx, time.Hour)
	if err := errors.Join(sweepErr, keyErr, db.ProbeWrite(ctx)); err != nil {
		t.Error(err)
	}
	if missing, err := db.MissingPrivileges(ctx); err != nil || len(missing) > 0 {
		t.Errorf("privileges that are missing = %v, %v", missing, err)
	}
	if rights, err := db.AuditRights(ctx); err != nil || len(rights) > 0 {
		t.Errorf("rights on the audit = %v, %v; want none but to add entries", rights, err)
	}
	if got := roleProblems(t, serve); got != "" {
		t.Errorf("doctor complains of %s", got)
	}
	if got := roleProblems(t, super); !strings.Contains(got, "superuser") {
		t.Errorf("doctor says of the superuser %q, want a warning", got)
	}
	role := strings.Split(strings.TrimPrefix(serve, "postgres://"), ":")[0]
	if _, err := rows.Exec(ctx, `REVOKE UPDATE ON message FROM `+role+`; REVOKE EXECUTE ON FUNCTION probe_write() FROM `+role); err != nil {
		t.Fatal(err)
	}
	checks := Doctor(ctx, b.config(t))
	at := slices.IndexFunc(checks, func(c Check) bool { return c.Name == "role" && !c.OK })
	if at < 0 || !strings.Contains(checks[at].Detail, "message") || !strings.Contains(checks[at].Detail, "probe_write") {
		t.Errorf("doctor says %+v, want what the role lacks", checks)
	}
}

// roleProblems is what doctor says of the role of a connection string.
func roleProblems(t *testing.T, dsn string) string {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Options{URL: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	vitals, err := db.Vitals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := roleCheck(t.Context(), db, vitals.Superuser); !c.OK {
		return c.Detail
	}
	return ""
}
