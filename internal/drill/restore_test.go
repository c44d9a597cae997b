//go:build drill

package drill

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// The database is lost under load, and an older state is restored: a base backup, and the log up to T. Only messages that
// were accepted after T are lost. Messages that were sent after T are not sent again, except under resend.
func TestD40DatabaseIsRestoredFromABackup(t *testing.T) {
	p := plan{
		load: load{clients: 6, share: 0.3, plain: true}, postgres: map[string]string{"wal_keep_size": "512MB"},
		// The deadline grows by a second for each message that is held.
		settings: []string{"SENDGATE_RECONCILE_DEADLINE=5s", "SENDGATE_LOOKUP_SCHEDULE=1s,3s"},
	}
	drillTest(t, "D40", p, func(t *testing.T, r *rig) {
		backup := r.pg.backUp(t, r)
		r.faults(t, slow())
		must(t, 20*time.Second, "some messages are open", func() bool { return r.count(t.Context(), openSQL) >= 2 })
		r.lapse.from = r.clock(t)
		pause(t, *duration)
		for _, x := range r.replicas {
			x.kill()
		}
		r.pg.bringBack(t, r, backup, r.lapse.from)
		young := r.number(t, `SELECT count(*) FROM message WHERE created_at > $1`, r.lapse.from)
		open := r.number(t, openSQL)
		r.report.tally("open_at_T", open)
		if young != 0 || open <= 0 {
			t.Errorf("the restored database has %d messages from after T and %d that are open: want none, and some", young, open)
		}
		since := slices.DeleteFunc(r.emu.Ledger(), func(e emulator.Entry) bool { return !e.At.After(r.lapse.from) })
		r.report.tally("sent_since_T", len(since))
		r.restore(t, r.lapse.from)
		r.lapse.until = r.clock(t)
		r.faults(t, nil)
		for _, x := range r.replicas {
			x.start(t)
		}
		pause(t, time.Second)
	})
}

// clock is the server's time.
func (r *rig) clock(t *testing.T) time.Time {
	t.Helper()
	var at time.Time
	if err := r.rows.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

// data is the server's own folder.
func (s *server) data() string { return filepath.Join(s.options.Dir, "data") }

// backUp takes a base backup of the running server and returns its folder.
func (s *server) backUp(t *testing.T, r *rig) string {
	t.Helper()
	var bin string
	if err := r.rows.QueryRow(t.Context(), `SELECT setting FROM pg_config WHERE name = 'BINDIR'`).Scan(&bin); err != nil {
		t.Fatal(err)
	}
	tool, to := filepath.Join(bin, "pg_basebackup"), filepath.Join(r.dir, "base")
	if _, err := os.Stat(tool); errors.Is(err, fs.ErrNotExist) {
		t.Skip("this server came without pg_basebackup")
	}
	args := []string{"--dbname=" + s.cluster.URL(), "--pgdata=" + to, "--wal-method=stream", "--checkpoint=fast", "--no-sync"}
	if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil { //nolint:gosec // the server's own
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	return to
}

// bringBack ends the server, puts the backup in the place of its data, and has it read the lost one's log up to a time.
func (s *server) bringBack(t *testing.T, r *rig, backup string, to time.Time) {
	t.Helper()
	info, err := os.Stat(s.data())
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // where devpg works, it is
	s.stopImmediately(t)
	gone := filepath.Join(filepath.Dir(s.data()), "lost")
	settings := fmt.Sprintf("restore_command = 'cp ''%s/pg_wal/%%f'' ''%%p'''\nrecovery_target_time = '%s'\nrecovery_target_action = 'promote'\n",
		gone, to.UTC().Format("2006-01-02 15:04:05.999999+00"))
	steps := []error{
		os.Rename(s.data(), gone), os.Rename(backup, s.data()), addTo(filepath.Join(s.data(), "postgresql.auto.conf"), settings),
		addTo(filepath.Join(s.data(), "recovery.signal"), ""),
		filepath.WalkDir(s.data(), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, int(owner.Uid), int(owner.Gid)))
		}),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	must(t, 30*time.Second, "the server takes writes", func() bool { return r.count(t.Context(), `SELECT 1 WHERE NOT pg_is_in_recovery()`) == 1 })
}

// addTo appends to a file, which need not exist.
func addTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
