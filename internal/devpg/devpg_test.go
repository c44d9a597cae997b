//go:build linux || darwin || freebsd

package devpg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStartMakesAClusterAndStopEndsItsServer(t *testing.T) {
	t.Parallel()
	m, err := model()
	if err != nil {
		t.Fatal(err)
	}
	if serves(m.process, filepath.Join(m.dir, "data")) {
		t.Errorf("server %d is alive after Stop", m.process)
	}
	if _, err := os.Stat(m.socket); m.socket == "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket directory %q after Stop: %v, want it gone", m.socket, err)
	}
}

// One server is enough for cases that only need a running server.
func TestRunningServer(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	c := mustStart(t, Options{Dir: dir, Settings: map[string]string{"work_mem": "7MB", "max_wal_size": "1GB"}})
	t.Run("only its owner reaches it", func(t *testing.T) {
		for path, want := range map[string]fs.FileMode{
			filepath.Join(dir, "password"):     0o600,
			filepath.Join(dir, "postgres.log"): 0o600,
			filepath.Join(dir, "data"):         0o700,
			host(t, c.URL()):                   0o700,
		} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("mode of %s = %v, want %v", path, got, want)
			}
		}
		if got := query(t, c.URL(), "SHOW listen_addresses"); got != "" {
			t.Errorf("listen_addresses = %q, want none", got)
		}
		stranger := strings.Replace(c.URL(), c.secret, "wrong", 1)
		if _, err := EnsureDatabase(t.Context(), stranger, "x"); err == nil {
			t.Error("a wrong password was let in")
		}
	})
	t.Run("a second start is refused", func(t *testing.T) {
		_, err := Start(t.Context(), Options{Dir: dir})
		if !errors.Is(err, ErrRunning) {
			t.Fatalf("second Start = %v, want ErrRunning", err)
		}
		for _, want := range []string{dir, fmt.Sprintf("process %d", os.Getpid()), "choose another directory"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("second Start says %q, want %q in it", err, want)
			}
		}
	})
	t.Run("settings", func(t *testing.T) {
		got := map[string]string{}
		all := query(t, c.URL(), `SELECT json_object_agg(name, current_setting(name))::text FROM unnest('{fsync, work_mem, max_wal_size,
			timezone, idle_in_transaction_session_timeout}'::text[]) name`)
		if err := json.Unmarshal([]byte(all), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"fsync": "off", "work_mem": "7MB", "max_wal_size": "1GB", "timezone": "UTC",
			"idle_in_transaction_session_timeout": "1min",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("settings in force (-want +got):\n%s", diff)
		}
		if fsync, set := (Options{}).settings()["fsync"]; set {
			t.Errorf("without Fast, fsync = %q, want the server's default", fsync)
		}
	})
	t.Run("databases from several processes at once", func(t *testing.T) {
		want := c.URLFor(`odd "name"`)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if dsn, err := EnsureDatabase(t.Context(), c.URL(), `odd "name"`); err != nil || dsn != want {
					t.Errorf("EnsureDatabase = %s, %v; want %s", dsn, err, want)
				}
			})
		}
		wg.Wait()
		if got := query(t, want, "SELECT current_database()::text"); got != `odd "name"` {
			t.Errorf("URLFor leads to %q", got)
		}
	})
}

func TestKilledOwnerAndKilledServerLoseNothing(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	cmd, _, dsn := ownerProcess(t, self(t), dir, nil)
	remember(t, dsn, "before the owner was killed")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed"

	c := mustStart(t, Options{Dir: dir, Settings: map[string]string{"synchronous_commit": "on"}})
	if got, want := recall(t, c.URL()), "before the owner was killed"; got != want {
		t.Errorf("after kill -9 of the owner the database has %q, want %q", got, want)
	}
	remember(t, c.URL(), "before the server was killed")
	if err := syscall.Kill(postmaster(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if err := c.Stop(); err == nil || !strings.Contains(err.Error(), "exited by itself") {
		t.Errorf("Stop after the server was killed = %v, want it said", err)
	}

	// At once: the killed server's sessions may still hold its memory.
	again := mustStart(t, Options{Dir: dir})
	if got, want := recall(t, again.URL()), "before the server was killed"; got != want {
		t.Errorf("after kill -9 of the server the database has %q, want %q", got, want)
	}
	pid := postmaster(t, dir)
	if err := again.Stop(); err != nil {
		t.Fatal(err)
	}
	if serves(pid, filepath.Join(dir, "data")) {
		t.Errorf("server %d outlived its third owner", pid)
	}
}

// TestOrphanIsStoppedFirst acts like a system on which a server does not notice that its owner died.
func TestOrphanIsStoppedFirst(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	data := filepath.Join(dir, "data")
	as, err := accountFor(data)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := newStarter(Options{}, "").search.find(t.Context(), 0, as)
	if err != nil {
		t.Fatal(err)
	}
	orphan := exec.Command(filepath.Join(bin.bin, "postgres"), "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories="+data)
	orphan.SysProcAttr = as.attr(syscall.SIGKILL)
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the orphan serves", func() bool {
		_, err := os.Stat(filepath.Join(data, "postmaster.pid"))
		return err == nil && serves(orphan.Process.Pid, data)
	})

	var lines []string
	again := mustStart(t, Options{Dir: dir, Log: func(f string, a ...any) { lines = append(lines, fmt.Sprintf(f, a...)) }})
	query(t, again.URL(), "SELECT 'up'")
	if serves(orphan.Process.Pid, data) {
		t.Error("the orphan still runs beside its successor")
	}
	if all := strings.Join(lines, "\n"); !strings.Contains(all, fmt.Sprintf("process %d", orphan.Process.Pid)) {
		t.Errorf("log = %q, want the orphan named", all)
	}
	_ = orphan.Wait() // only now: until here it was a zombie, which must not count as alive
}

func TestStalePidOfAStrangerIsIgnored(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	as, err := accountFor(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command("sleep", "60")
	stranger.Dir = "/"
	stranger.SysProcAttr = as.attr(syscall.SIGKILL)
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	})
	note := fmt.Sprintf("%d\n%s\n", stranger.Process.Pid, filepath.Join(dir, "data"))
	if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	startAndStopAtOnce(t, dir)
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger was killed: %v", err)
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("changed my mind")
	_, err := Start(ctx, Options{Dir: dir, Fast: true, Log: func(string, ...any) { cancel(reason) }})
	if !errors.Is(err, reason) {
		t.Fatalf("Start = %v, want %v", err, reason)
	}
	for _, name := range []string{"data", "half-made", "half-made.password", "run"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after a cancelled Start: %v, want it gone", name, err)
		}
	}
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatalf("lock after a cancelled Start: %v", err)
	}
	if err := unlock(lock); err != nil {
		t.Error(err)
	}
}

// One cluster is enough for starts that fail, because they do not change it.
func TestStartsThatFailAndOneThatDoesNot(t *testing.T) {
	t.Parallel()
	dir := clusterDir(t)
	t.Run("a bad setting is reported from the log", func(t *testing.T) {
		_, err := Start(t.Context(), Options{Dir: dir, Settings: map[string]string{"no_such_setting": "1"}})
		if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
			t.Errorf("Start = %v, want what the server said", err)
		}
	})
	t.Run("cancelled while the server starts, it leaves no server", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newStarter(Options{Dir: dir, Fast: true, Log: func(string, ...any) { cancel() }}, "")
		s.sockets = nil
		s.noSocket = true // the last thing that is logged before the server runs
		if _, err := s.start(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("start = %v, want it cancelled", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "data", "postmaster.pid")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("postmaster.pid after a cancelled Start: %v, want it gone", err)
		}
	})
	t.Run("without sockets the server listens on loopback", func(t *testing.T) {
		s := newStarter(Options{Dir: dir, Fast: true, Log: t.Logf}, "")
		s.noSocket = true
		c, err := s.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Stop() })
		if !strings.Contains(c.URL(), "@127.0.0.1:") {
			t.Errorf("URL = %s, want a port of 127.0.0.1", c.URL())
		}
		if got := query(t, c.URL(), "SHOW listen_addresses"); got != "127.0.0.1" {
			t.Errorf("listen_addresses = %q, want 127.0.0.1", got)
		}
	})
}

func TestSocketOfALongDirectoryIsElsewhere(t *testing.T) {
	t.Parallel()
	from := clusterDir(t)
	dir := filepath.Join(filepath.Dir(from), strings.Repeat("long", 25))
	if err := os.Rename(from, dir); err != nil {
		t.Fatal(err)
	}
	c := mustStart(t, Options{Dir: dir})
	if got := recall(t, c.URL()); got != "kept" {
		t.Errorf("after a restart the database has %q, want %q", got, "kept")
	}
	socket := host(t, c.URL())
	if strings.HasPrefix(socket, dir) || len(socket) > maxSocketDir {
		t.Errorf("socket directory = %s, want a short one", socket)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket directory after Stop: %v, want it gone", err)
	}
}

func TestSocketDirectoryOfAnotherUserIsNotTaken(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's directory")
	}
	nobody, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	trap := filepath.Join(openDir(t), "trap")
	if err := errors.Join(os.Mkdir(trap, 0o700), os.Chown(trap, int(nobody.uid)+1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := makeSocketDir(trap, nobody); err == nil {
		t.Error("another user's directory was taken")
	}
	if _, err := os.Stat(trap); err != nil {
		t.Errorf("another user's directory was removed: %v", err)
	}
}
