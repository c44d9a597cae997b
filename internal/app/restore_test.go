//go:build drill

package app

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/devpg"
	"github.com/sendgate/sendgate/internal/emulator"
)

// vault is where a database server and its backups are.
type vault struct {
	*bench
	options              devpg.Options
	cluster              *devpg.Cluster
	bin, data            string // of the server
	backup, archive, doc string // a base backup, its log, a dump
}

// newVault is a bench on a server of its own that archives its log.
func newVault(t *testing.T) *vault {
	t.Helper()
	dir := openDir(t)
	v := &vault{backup: filepath.Join(dir, "base"), archive: filepath.Join(dir, "wal"), doc: filepath.Join(dir, "sendgate.dump")}
	if err := os.Mkdir(v.archive, 0o700); err != nil {
		t.Fatal(err)
	}
	v.options = devpg.Options{Dir: filepath.Join(dir, "pg"), Log: t.Logf, Settings: map[string]string{
		"archive_mode": "on", "archive_command": fmt.Sprintf("test ! -f '%s/%%f' && cp '%%p' '%[1]s/%%f'", v.archive),
	}}
	v.start(t)
	t.Cleanup(func() { _ = v.cluster.Stop() })
	dsn, err := devpg.EnsureDatabase(t.Context(), v.cluster.URL(), "sendgate")
	if err != nil {
		t.Fatal(err)
	}
	if err := MigrateUp(t.Context(), dsn, t.Output()); err != nil {
		t.Fatal(err)
	}
	v.bench = newBench(t, benchOptions{dsn: dsn})
	if err := v.rows.QueryRow(t.Context(), `SELECT setting, current_setting('data_directory') FROM pg_config WHERE name = 'BINDIR'`).Scan(&v.bin, &v.data); err != nil {
		t.Fatal(err)
	}
	v.own(t, v.archive)
	return v
}

func (v *vault) start(t *testing.T) {
	t.Helper()
	cluster, err := devpg.Start(t.Context(), v.options)
	if err != nil {
		t.Fatal(err)
	}
	v.cluster = cluster
}

// own gives a tree to the user of the server.
func (v *vault) own(t *testing.T, tree string) {
	t.Helper()
	info, err := os.Stat(v.data)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // where devpg works, it is
	err = filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tool runs a program of the server.
func (v *vault) tool(t *testing.T, name string, args ...string) {
	t.Helper()
	path := filepath.Join(v.bin, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("this server came without %s", name)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// now is the server's time.
func (v *vault) now(t *testing.T) time.Time {
	t.Helper()
	var at time.Time
	if err := v.rows.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

// A way to back a database up and to bring it back. take returns the time that the backup reaches.
type backupWay struct {
	name   string
	before func(t *testing.T, v *vault)           // mail is accepted
	take   func(t *testing.T, v *vault) time.Time // once it is
	after  func(t *testing.T, v *vault)           // the mail was sent
	revive func(t *testing.T, v *vault, at time.Time)
}

func backupWays() []backupWay {
	none := func(*testing.T, *vault) {}
	base := func(t *testing.T, v *vault) {
		t.Helper()
		v.tool(t, "pg_basebackup", "--dbname="+v.cluster.URL(), "--pgdata="+v.backup, "--wal-method=stream", "--checkpoint=fast")
	}
	return []backupWay{
		{
			name: "pg_basebackup", before: none, after: none,
			take: func(t *testing.T, v *vault) time.Time { t.Helper(); base(t, v); return v.now(t) },
			revive: func(t *testing.T, v *vault, _ time.Time) {
				t.Helper()
				v.putBack(t)
				v.start(t)
			},
		},
		{
			name: "point in time", before: base,
			take: func(t *testing.T, v *vault) time.Time { t.Helper(); return v.now(t) },
			after: func(t *testing.T, v *vault) {
				t.Helper()
				var segment string
				if err := v.rows.QueryRow(t.Context(), `SELECT pg_walfile_name(pg_switch_wal())`).Scan(&segment); err != nil {
					t.Fatal(err)
				}
				eventually(t, settleTime, "the log is archived", func() bool {
					_, err := os.Stat(filepath.Join(v.archive, segment))
					return err == nil
				})
			},
			revive: func(t *testing.T, v *vault, at time.Time) {
				t.Helper()
				v.putBack(t)
				recovery := fmt.Sprintf("restore_command = 'cp ''%s/%%f'' ''%%p'''\nrecovery_target_time = '%s'\nrecovery_target_action = 'promote'\n",
					v.archive, at.Format("2006-01-02 15:04:05.999999-07:00"))
				v.addTo(t, "postgresql.auto.conf", recovery)
				v.addTo(t, "recovery.signal", "")
				v.start(t)
			},
		},
		{
			name: "pg_dump", before: none, after: none,
			take: func(t *testing.T, v *vault) time.Time {
				t.Helper()
				at := v.now(t) // a dump shows the database as it was when it began
				v.tool(t, "pg_dump", "--dbname="+v.dsn, "--format=custom", "--file="+v.doc)
				return at
			},
			revive: func(t *testing.T, v *vault, _ time.Time) {
				t.Helper()
				if err := os.RemoveAll(v.options.Dir); err != nil {
					t.Fatal(err)
				}
				v.start(t)
				dsn, err := devpg.EnsureDatabase(t.Context(), v.cluster.URL(), "sendgate")
				if err != nil {
					t.Fatal(err)
				}
				v.tool(t, "pg_restore", "--dbname="+dsn, "--exit-on-error", "--no-owner", v.doc)
				v.dsn = dsn
			},
		},
	}
}

// putBack puts the base backup where the data were.
func (v *vault) putBack(t *testing.T) {
	t.Helper()
	v.own(t, v.backup)
	if err := os.RemoveAll(v.data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(v.backup, v.data); err != nil {
		t.Fatal(err)
	}
}

func (v *vault) addTo(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(v.data, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	v.own(t, f.Name())
}

// lose ends the server and takes its data away, and brings back what the backup has.
func (v *vault) lose(t *testing.T, way backupWay, at time.Time) {
	t.Helper()
	v.rows.Close()
	if err := v.cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	way.revive(t, v, at)
	var err error
	if v.rows, err = pgxpool.New(t.Context(), v.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.rows.Close)
	eventually(t, settleTime, "the server takes writes", func() bool { return v.count(t.Context(), `SELECT 1 WHERE NOT pg_is_in_recovery()`) == 1 })
}

// run runs one command of the program on the database and returns what it said, and its exit code.
func (b *bench) run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = b.environ()
	out, _ := cmd.CombinedOutput() // the code says how it ended
	return string(out), cmd.ProcessState.ExitCode()
}

// restoreMail is the mail that is open when the backup ends, for each policy: mail of a pool whose accounts can be asked,
// mail to accounts that can't, and mail that no provider took although it was called.
func restoreMail() map[string]api.SendRequest {
	all := map[string]api.SendRequest{}
	add := func(name, policy string, m api.SendRequest) {
		m.To = []api.Address{{Email: strings.ReplaceAll(name, " ", "-") + "@example.org"}}
		m.OnAmbiguous = policy
		all[name] = m
	}
	for i := range 2 {
		for _, policy := range policies() {
			add(fmt.Sprintf("%s %d", policy, i), policy, letter(0))
		}
	}
	for _, account := range accountNames() {
		if !finds(account) {
			add("silent "+account, "reconcile", pinned(account))
		} else {
			m := pinned(account)
			m.Stream = "bulk" // so that it shares no call with another
			add("absent "+account, "reconcile", m)
		}
	}
	return all
}

// Not parallel: each has a database server of its own.
func TestARestoredDatabaseMailsNobodyTwice(t *testing.T) {
	for _, way := range backupWays() {
		t.Run(way.name, func(t *testing.T) { restoreBy(t, way) })
	}
}

func restoreBy(t *testing.T, way backupWay) {
	v := newVault(t)
	settings := []string{"SENDGATE_LEASE=2s", "SENDGATE_UNKNOWN_WAIT=3s", "SENDGATE_RECONCILE_DEADLINE=1h", "SENDGATE_LOOKUP_SCHEDULE=1s,40m"}
	p := v.serve(t, settings...)
	only(t, p.replica, "mailgun", "postmark", "sendgrid")
	becomes(t, p.api, send(t, p.api, letter(0)), settleTime, "sent")
	all := func(f func(context.Context, string) (*api.Account, error)) {
		for _, name := range accountNames() {
			if _, err := f(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	all(p.admin.PauseAccount)
	pause(t, 3*time.Second) // a change binds within two
	way.before(t, v)
	ids := map[string]string{}
	for name, m := range restoreMail() {
		ids[name] = send(t, p.api, m)
	}
	since := way.take(t, v)

	// What the backup does not know.
	v.faults(t, script(emulator.Fault{Mode: "black_hole", Match: "absent*"}))
	all(p.admin.ResumeAccount)
	young := send(t, p.api, letter(1))
	absent := 0
	for name := range restoreMail() {
		if strings.HasPrefix(name, "absent") {
			absent++
		}
	}
	want := len(restoreMail()) - absent + 2
	eventually(t, settleTime, "the mail is out", func() bool {
		return len(v.emu.Ledger()) == want && v.count(t.Context(), `SELECT count(*) FROM inflight WHERE started_at IS NOT NULL`) == absent
	})
	way.after(t, v)
	p.kill()
	v.lose(t, way, since)
	v.faults(t, nil)
	if n := v.count(t.Context(), `SELECT count(*) FROM ready`); n != len(ids) {
		t.Fatalf("the restored database has %d messages to send, want all %d: the test tests less than it says", n, len(ids))
	}

	v.restoreOnce(t, since, len(ids))
	p = v.serve(t, settings...)
	all(p.admin.ResumeAccount)
	if m, err := p.api.Message(t.Context(), young); err == nil {
		t.Errorf("a message that was accepted after the backup is there: %+v", m)
	}
	for name, id := range ids {
		if strings.HasPrefix(name, "reconcile") {
			m := becomes(t, p.api, id, settleTime, "sent", "delivered")
			if got := v.ledger()[id]; len(got) != 1 || !accepted(m, got[0].Provider, "lookup") {
				t.Errorf("%s: %s, ledger %v; want it settled by the look-up where it was sent", name, classes(m), got)
			}
		}
	}
	v.endWaits(t)
	v.checkRestored(t, p.api, ids)
}

// restoreOnce runs sendgate restore as an operator would, and once too often.
func (v *vault) restoreOnce(t *testing.T, since time.Time, n int) {
	t.Helper()
	at := since.Format(time.RFC3339Nano)
	eventually(t, settleTime, "the leases of the lost processes have run out", func() bool {
		out, code := v.run(t, "restore", "--since", at, "--dry-run")
		return code == 0 && !strings.Contains(out, "stop it first")
	})
	for _, tc := range []struct {
		args string
		says string
	}{
		{"--dry-run", fmt.Sprintf("would be held as unknown %d ", n)},
		{"--yes", fmt.Sprintf("held as unknown %d ", n)},
		{"--yes", "held as unknown 0 "},
	} {
		out, code := v.run(t, "restore", "--since", at, tc.args)
		if words := strings.Join(strings.Fields(out), " "); code != 0 || !strings.HasPrefix(words, tc.says) {
			t.Fatalf("restore %s: exit %d, want it to begin with %q\n%s", tc.args, code, tc.says, out)
		}
	}
}

// endWaits moves the time to when a look-up that finds nothing is proof, and then to the deadline of messages whose providers
// can't be asked.
func (v *vault) endWaits(t *testing.T) {
	t.Helper()
	exec := func(sql string) {
		if _, err := v.rows.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, settleTime, "each was looked up once", func() bool {
		return v.count(t.Context(), `SELECT count(*) FROM unknown_call WHERE due <= now() + interval '3 min'`) == 2 // whose provider can't be asked
	})
	exec(`UPDATE unknown SET since = since - interval '41 min'; UPDATE unknown_call SET due = now() WHERE due < 'infinity'`)
	eventually(t, settleTime, "only what can't be asked is left", func() bool {
		return v.count(t.Context(), `SELECT count(*) FROM unknown WHERE policy = 'reconcile'`) == 2
	})
	exec(`UPDATE unknown SET decide_at = now()`)
	v.settle(t, settleTime)
}

// checkRestored checks that each message ended as its policy says, and how often the providers had it.
func (v *vault) checkRestored(t *testing.T, c *api.Client, ids map[string]string) {
	t.Helper()
	ledger := v.ledger()
	for name, id := range ids {
		m := message(t, c, id)
		status, lines := "failed_unknown", 1
		switch strings.Fields(name)[0] {
		case "reconcile":
			status = m.Status // checked before
		case "absent":
			status = "sent"
		case "resend": // which asks for it
			status, lines = "sent", 2
		}
		if m.Status != status || len(ledger[id]) != lines {
			t.Errorf("%s: %s, by the providers' ledger sent %d times; want %s, %d (%s)", name, m.Status, len(ledger[id]), status, lines, classes(m))
		}
	}
	if n := v.count(t.Context(), `SELECT count(*) FROM unknown_call`); n != 0 {
		t.Errorf("%d calls are left of settled messages", n)
	}
}

// accepted reports whether the message shows an attempt at the account that was accepted, by that evidence.
func accepted(m *api.Message, account, source string) bool {
	for _, a := range m.Attempts {
		if a.Class == "accepted" {
			return a.Account == account && a.VerdictSource == source
		}
	}
	return false
}
