//go:build drill

package drill

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/postgres"
)

var fromFlag = flag.String("from", "", "commit or tag that D28 upgrades from; empty is the last one with an older schema")

// lockWait is how long a statement of the service may wait for a migration.
const lockWait = 2 * time.Second

// An older release is upgraded while mail goes on: first the schema, then one process after the other. One process goes back
// to the old release in between, as when an upgrade is stopped half-way. Old and new work side by side on the new schema.
func TestD28ReleaseIsUpgradedAndSetBack(t *testing.T) {
	old := olderRelease(t)
	drillTest(t, "D28", plan{release: old, load: load{plain: true}, byItself: true}, func(t *testing.T, r *rig) {
		r.report.tally("schema_before", r.schema(t))
		stop := r.watchLocks(t)
		began := time.Now()
		r.migrate(t, newRelease)
		r.report.figure("migrated", time.Since(began), 0)
		if n := r.schema(t); n != postgres.SchemaVersion {
			t.Errorf("schema = %d, want %d", n, postgres.SchemaVersion)
		}
		pause(t, *duration/4) // old processes on the new schema
		for _, step := range []struct {
			replica int
			release string
		}{{0, newRelease}, {0, old}, {1, newRelease}, {0, newRelease}} {
			r.change(t, r.replicas[step.replica], step.release)
			pause(t, *duration/4)
		}
		r.report.figure("longest_lock_wait", stop(), lockWait)
		for _, kind := range []string{"none", "500", "503", "429"} {
			if n := r.clients.answers(kind); n != 0 {
				t.Errorf("requests that failed (%s) = %d, want none", kind, n)
			}
		}
		if n := r.number(t, `SELECT count(*) FROM attempt WHERE class = 'uncertain' OR verdict_source IN ('webhook', 'lookup')`); n != 0 {
			t.Errorf("calls without an answer = %d, want none", n)
		}
		// The two old processes and the four new ones: each made calls.
		must(t, 10*time.Second, "each process has made calls", func() bool { return r.count(t.Context(), `SELECT count(DISTINCT owner) FROM attempt`) == 6 })
	})
}

// newRelease is the program of this tree.
const newRelease = ""

func programOf(t *testing.T, release string) string {
	t.Helper()
	if release != newRelease {
		return release
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// olderRelease builds an older commit of this repository and returns the path of its program.
func olderRelease(t *testing.T) string {
	t.Helper()
	root := strings.TrimSpace(string(git(t, "rev-parse", "--show-toplevel")))
	commit := *fromFlag
	if commit == "" {
		newest := fmt.Sprintf("migrations/%05d_*.sql", postgres.SchemaVersion)
		added := strings.TrimSpace(string(git(t, "-C", root, "log", "--diff-filter=A", "--format=%H", "-n", "1", "--", newest)))
		commit = added + "^"
	}
	commit = strings.TrimSpace(string(git(t, "rev-parse", "--verify", "--quiet", commit+"^{commit}")))
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree.tar")
	if err := os.WriteFile(tree, git(t, "-C", root, "archive", "--format=tar", commit), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, words := range [][]string{{"tar", "-xf", tree}, {"go", "build", "-o", "sendgate", "./cmd/sendgate"}} {
		cmd := exec.CommandContext(t.Context(), words[0], words[1:]...) //nolint:gosec // see above
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %.12s: %v\n%s", commit, err, out)
		}
	}
	t.Logf("from commit %.12s", commit)
	return filepath.Join(dir, "sendgate")
}

// git asks the repository that this file is in. Without its history there is no older release.
func git(t *testing.T, words ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", words...).Output() //nolint:gosec // our own words
	if err != nil && *fromFlag != "" {
		t.Fatalf("-from %s: git %s: %v", *fromFlag, words[0], err)
	}
	if err != nil {
		t.Skipf("needs this repository with its history, for an older release: git %s: %v", words[0], err)
	}
	return out
}

// migrate brings the schema to what a release wants, by its own command.
func (r *rig) migrate(t *testing.T, release string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programOf(t, release), "migrate", "up") //nolint:gosec // our own program
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "SENDGATE_DATABASE_URL=" + r.dsn}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("migrate up: %v\n%s", err, out)
	}
}

func (r *rig) schema(t *testing.T) int {
	t.Helper()
	return r.number(t, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`)
}

// change ends a process as a deployment does, and starts another release in its place.
func (r *rig) change(t *testing.T, x *replica, release string) {
	t.Helper()
	x.signal(t, syscall.SIGTERM)
	must(t, 5*time.Second, "it says that it is not ready", func() bool { return !x.ready(t.Context()) })
	x.up.Store(false)
	x.exits(t, 35*time.Second)
	x.release = release
	x.start(t)
}

// watchLocks measures how long statements of the service wait for locks, until stop is called.
func (r *rig) watchLocks(t *testing.T) (stop func() time.Duration) {
	t.Helper()
	const q = `SELECT coalesce(extract(epoch FROM max(clock_timestamp() - query_start)) * 1000, 0)::int FROM pg_stat_activity
		WHERE wait_event_type = 'Lock' AND application_name = 'sendgate'`
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	longest := 0
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			longest = max(longest, r.count(ctx, q))
			sleep(ctx, 20*time.Millisecond)
		}
	}()
	t.Cleanup(cancel)
	return func() time.Duration {
		cancel()
		<-done
		return time.Duration(longest) * time.Millisecond
	}
}
