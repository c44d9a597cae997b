package app

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

func TestDoctorTakesANewInstallationForHealthy(t *testing.T) {
	t.Parallel()
	none := noAccounts(nil)
	if none.OK || none.Level != "warn" || none.Fix == "" {
		t.Errorf("no account anywhere: %+v, want a warning that says how to get one", none)
	}
	soon := noAccounts([]route.Account{{Name: "sendgrid"}, {Name: "ses"}})
	if !soon.OK || !strings.Contains(soon.Detail, "sendgrid, ses") {
		t.Errorf("accounts of the environment: %+v, want them named", soon)
	}
}

func TestDoctorTellsSilenceFromPeace(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const m, h = time.Minute, time.Hour
	for _, c := range []struct {
		name     string
		kind     provider.Kind
		settings string
		health   record.HookHealth
		ok       bool
		says     string
	}{
		{"its first mail", "ses", "new", record.HookHealth{LastSent: ago(m / 2)}, true, "none yet"},
		{"its second mail", "ses", "new", record.HookHealth{LastSent: ago(m)}, false, "none has ever come"},
		{"one of many", "ses", "{}", record.HookHealth{LastSent: ago(m / 2)}, false, "none has ever come"},
		{"reports", "ses", "{}", record.HookHealth{Events: 7, LastEvent: ago(59 * m), LastSent: ago(m)}, true, "the last came 59 minutes ago"},
		{"fell silent", "ses", "{}", record.HookHealth{Events: 7, LastEvent: ago(h + m), LastSent: ago(m)}, false, "the last came 61 minutes ago, although it sent mail 1 minutes ago"},
		{"fell silent hours ago", "ses", "{}", record.HookHealth{Events: 7, LastEvent: ago(50 * h), LastSent: ago(5 * h)}, false, "2 days ago, although it sent mail 5 hours ago"},
		{"nothing about the last call", "ses", "{}", record.HookHealth{Events: 7, LastEvent: ago(h + 5*m), LastSent: ago(h)}, false, "65 minutes ago"},
		{"not for long enough", "ses", "{}", record.HookHealth{Events: 7, LastEvent: ago(h + m), LastSent: ago(2 * m)}, true, "61 minutes ago"},
		{"nothing to report since", "ses", "{}", record.HookHealth{Events: 7, LastEvent: ago(3 * h), LastSent: ago(4 * h)}, true, "3 hours ago"},
		{"event noted before its call", "ses", "{}", record.HookHealth{Events: 7, LastEvent: ago(3*h + m), LastSent: ago(3 * h)}, true, "3 hours ago"},
		{"never set up", "postmark", "{}", record.HookHealth{LastSent: ago(23 * h)}, false, "none has ever come, although it sent mail 23 hours ago"},
		{"wrong key", "mailgun", "{}", record.HookHealth{Refused: 3, LastRefusal: "signature", LastSent: ago(m)}, false, `3 requests were refused, the last for "signature"`},
		{"relay without a bounce domain", "smtp", `{"host":"x"}`, record.HookHealth{LastSent: ago(m)}, false, "are not seen"},
		{"relay", "smtp", `{"host":"x","bounce_domain":"b.example.com"}`, record.HookHealth{LastSent: ago(m)}, true, "bounces only"},
	} {
		a := route.Account{Name: "a", Kind: c.kind, Settings: json.RawMessage(c.settings), CreatedAt: ago(30 * 24 * h)}
		if c.settings == "new" {
			a.Settings, a.CreatedAt = json.RawMessage("{}"), ago(10*m)
		}
		got := receiverCheck(&a, c.health, now)
		if got.OK != c.ok || got.Level != "warn" || !strings.Contains(got.Detail, c.says) || got.Fix == "" {
			t.Errorf("%s: %+v, want ok %v and a detail with %q", c.name, got, c.ok, c.says)
		}
	}
}

func TestDoctorLooksAtEventsAndReach(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	look := func(settings ...string) map[string]string {
		t.Helper()
		cfg, err := config.Load(append([]string{"SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + strings.Repeat("ab", 32)}, settings...))
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, c := range Doctor(t.Context(), cfg) {
			if strings.HasPrefix(c.Name, "events of ") || c.Name == "admin API" || c.Name == "role" || c.Name == "unsubscribe" || strings.HasPrefix(c.Name, "SENDGATE_") {
				found[c.Name] = c.Level + ": " + c.Detail
				if c.OK {
					found[c.Name] = "ok"
				}
			}
		}
		return found
	}
	const superuser = "warn: a superuser: an attacker who takes over this process controls the database server"
	if diff := cmp.Diff(map[string]string{"admin API": "ok", "role": superuser}, look()); diff != "" {
		t.Errorf("new installation (-want +got)\n%s", diff)
	}
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context()) //nolint:errcheck // it was only used to prepare
	if _, err := db.Exec(t.Context(), `
		INSERT INTO account (name, kind, concurrency, created_at) SELECT name, 'ses', 1, now() - interval '2 hours' FROM unnest(ARRAY['fine', 'silent', 'idle']) AS a(name);
		INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, finished_at, class)
			SELECT uuid_floor(now()), id, gen_random_uuid(), id, '{}', now(), now(), 'accepted' FROM account WHERE name <> 'idle';
		INSERT INTO hook_health (account_id, events, last_event_at) SELECT id, 1, now() FROM account WHERE name = 'fine';
		INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
			VALUES (uuid_floor(now()), 1, 'sent', 'bulk', 'a@example.com', '', '{}', 'never', now(), now(), now())`); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"admin API":              "ok",
		"role":                   superuser,
		"events of fine":         "ok",
		"events of silent":       "warn: none has ever come, although it sent mail 0 minutes ago: its webhooks are not set up",
		"unsubscribe":            "warn: bulk mail goes out without a one-click unsubscribe link, which large mailbox providers demand",
		"SENDGATE_FORWARD_ALLOW": "warn: webhook endpoints may be at 10.0.0.0/8 port 8443, fd00::/8 port 443",
	}
	if diff := cmp.Diff(want, look("SENDGATE_FORWARD_ALLOW=10.0.0.0/8:8443,[fd00::/8]:443")); diff != "" {
		t.Errorf("findings (-want +got)\n%s", diff)
	}
	delete(want, "unsubscribe")
	delete(want, "SENDGATE_FORWARD_ALLOW")
	if diff := cmp.Diff(want, look("SENDGATE_PUBLIC_URL=https://send.example.com")); diff != "" {
		t.Errorf("with a public URL (-want +got)\n%s", diff)
	}
}

func TestDoctorLooksAtFailover(t *testing.T) {
	t.Parallel()
	const one, two = "postgres://sendgate:hunter2@a/sendgate", "postgres://sendgate:hunter2@a,b:5433/sendgate"
	for _, tc := range []struct {
		name, dsn string
		vitals    postgres.Vitals
		want      map[string]bool
	}{
		{"one server", one, postgres.Vitals{SynchronousCommit: "on"}, map[string]bool{}},
		{"one of several", two + "?target_session_attrs=read-write", postgres.Vitals{SynchronousCommit: "on"}, map[string]bool{"target_session_attrs": true}},
		{"any of several", two, postgres.Vitals{SynchronousCommit: "on"}, map[string]bool{"target_session_attrs": false}},
		{"any of several, by keywords", "host=a,b user=sendgate password=hunter2", postgres.Vitals{SynchronousCommit: "on"}, map[string]bool{"target_session_attrs": false}},
		{"asynchronous", one, postgres.Vitals{SynchronousCommit: "on", Standbys: 1}, map[string]bool{"standbys": false}},
		{"synchronous", one, postgres.Vitals{SynchronousCommit: "on", Standbys: 1, SynchronousStandbys: "ANY 1 (b, c)"}, map[string]bool{"standbys": true}},
		{"synchronous, but not here", one, postgres.Vitals{SynchronousCommit: "local", Standbys: 1, SynchronousStandbys: "*"}, map[string]bool{"standbys": false}},
	} {
		got := map[string]bool{}
		for _, c := range failoverChecks(tc.vitals, tc.dsn) {
			got[c.Name] = c.OK
			if c.Level != "warn" || c.Detail == "" || !c.OK && c.Fix == "" || strings.Contains(c.Detail+c.Fix, "hunter2") {
				t.Errorf("%s: %+v, want a warning that says what to do, and no secret", tc.name, c)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tc.name, diff)
		}
	}
}

func TestDoctorLooksAtTheServersSettings(t *testing.T) {
	t.Parallel()
	sound := postgres.Vitals{
		VersionNum: 150000, Fsync: "on", FullPageWrites: "on", SynchronousCommit: "on", MaxConnections: 100, IdleInTransaction: "10min",
	}
	for name, spoil := range map[string]func(*postgres.Vitals){
		"":                                    func(*postgres.Vitals) {},
		"database":                            func(v *postgres.Vitals) { v.VersionNum = 140000 },
		"primary":                             func(v *postgres.Vitals) { v.InRecovery = true },
		"fsync":                               func(v *postgres.Vitals) { v.Fsync = "off" },
		"full_page_writes":                    func(v *postgres.Vitals) { v.FullPageWrites = "off" },
		"synchronous_commit":                  func(v *postgres.Vitals) { v.SynchronousCommit = "off" },
		"max_connections":                     func(v *postgres.Vitals) { v.MaxConnections = 20 },
		"idle_in_transaction_session_timeout": func(v *postgres.Vitals) { v.IdleInTransaction = "0" },
		"clock":                               func(v *postgres.Vitals) { v.ClockSkew = -3 * time.Second },
	} {
		v := sound
		spoil(&v)
		failed := ""
		for _, c := range databaseChecks(v, 21) {
			if !c.OK {
				failed += c.Name
			}
		}
		if failed != name {
			t.Errorf("with %q wrong, doctor complains of %q", name, failed)
		}
	}
}

func TestDoctorReadsTheBooks(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	cfg, err := config.Load([]string{"SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + strings.Repeat("ab", 32)})
	if err != nil {
		t.Fatal(err)
	}
	said := func(checks []Check) []string {
		var lines []string
		for _, c := range checks {
			if strings.HasPrefix(c.Name, "accounting") {
				lines = append(lines, fmt.Sprintf("%s ok=%t: %s", c.Name, c.OK, c.Detail))
			}
		}
		return lines
	}
	if diff := cmp.Diff([]string{"accounting ok=true: 0 open messages, 0 unaccounted", "accounting of calls ok=true: 0 in progress, 0 unknown, 0 unaccounted"}, said(Doctor(t.Context(), cfg))); diff != "" {
		t.Errorf("a new installation (-want +got)\n%s", diff)
	}
	books, err := postgres.Open(t.Context(), postgres.Options{URL: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	look := func() []string {
		t.Helper()
		return said(bookChecks(t.Context(), books))
	}
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context()) //nolint:errcheck // it was only used to prepare
	exec := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
		SELECT (left(uuid_floor(now())::text, 23) || '-00000000000' || n)::uuid, 1, 'queued', 'transactional', 'a@example.com', '', '{}', 'never', now(), now(), now()
		FROM generate_series(1, 5) n;
		INSERT INTO ready (id, lane, tenant_id, due) SELECT id, 1, 1, now() FROM message`)
	if diff := cmp.Diff("accounting ok=true: 5 open messages, 0 unaccounted", look()[0]); diff != "" {
		t.Errorf("messages that wait (-want +got)\n%s", diff)
	}
	exec(`DELETE FROM ready WHERE right(id::text, 1) <> '5'`)
	var floor string
	if err := db.QueryRow(t.Context(), `SELECT left(min(id::text), 35) FROM message`).Scan(&floor); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"accounting ok=false: lost: 4 of tenant default open, but in no queue: nobody will send them: " + floor + "1, " + floor + "2, " + floor + "3, ...",
		"accounting of calls ok=true: 0 in progress, 0 unknown, 0 unaccounted",
	}
	if diff := cmp.Diff(want, look()); diff != "" {
		t.Errorf("lost messages (-want +got)\n%s", diff)
	}
}
