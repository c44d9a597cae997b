//go:build linux || darwin || freebsd

package pgtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// meeting returns a directory for users of a shared server that is not the run's own.
func meeting(t *testing.T) shared {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s := shared{dir: dir, linger: 4 * poll}
	t.Cleanup(func() {
		s.awaitEnd(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// awaitEnd waits for the keeper to end, if there is one.
func (s shared) awaitEnd(t *testing.T) {
	t.Helper()
	eventually(t, "the keeper ends", func() bool {
		f, err := tryLock(s.keeper(), syscall.LOCK_EX)
		return err == nil && unlock(f) == nil
	})
}

// eventually polls until what holds, for at most a minute.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// mustJoin joins the shared server; leave ends that.
func mustJoin(t *testing.T, s shared) (url string, leave func()) {
	t.Helper()
	url, use, err := join(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return url, func() { _ = unlock(use) } // twice is harmless
}

// answers tells whether there is a server at url.
func answers(t *testing.T, url string) bool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	return err == nil && conn.Close(t.Context()) == nil
}

// keeperPid returns the process that runs the server.
func keeperPid(t *testing.T, s shared) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.cluster(), "lock")) // devpg notes there who holds the cluster
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestServerLivesAsLongAsItsUsersAndSurvivesItsKeeper(t *testing.T) {
	t.Parallel()
	s := meeting(t)
	url, leaveFirst := mustJoin(t, s)
	defer leaveFirst()
	again, leaveSecond := mustJoin(t, s)
	defer leaveSecond()
	if again != url {
		t.Errorf("second user got %s, want the first one's server", again)
	}
	leaveFirst()
	if f, err := tryLock(s.users(), syscall.LOCK_EX); err == nil {
		t.Errorf("no user left: %v", unlock(f))
	}
	if !answers(t, url) {
		t.Error("server is gone while it has a user")
	}
	leaveSecond()
	s.awaitEnd(t)
	if answers(t, url) {
		t.Error("server outlives its keeper")
	}
	for _, file := range []string{s.url(), s.inUse(), filepath.Join(s.cluster(), "data", "postmaster.pid")} {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after the last user: %v, want it gone", file, err)
		}
	}
	killedKeeperIsReplaced(t, s)
}

// killedKeeperIsReplaced goes on with the cluster that s has, since to make one is dear.
func killedKeeperIsReplaced(t *testing.T, s shared) {
	t.Helper()
	_, leave := mustJoin(t, s)
	defer leave()
	killed := keeperPid(t, s)
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keeper is reaped", func() bool {
		gone, err := syscall.Wait4(killed, nil, syscall.WNOHANG, nil)
		return gone == killed || errors.Is(err, syscall.ECHILD)
	})
	url, leaveAgain := mustJoin(t, s)
	defer leaveAgain()
	if !answers(t, url) {
		t.Error("no server after the keeper was killed")
	}
	if got := keeperPid(t, s); got == killed {
		t.Errorf("keeper is still process %d", got)
	}
	leave()
	leaveAgain()
}

func TestKeeperThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	s := meeting(t)
	if err := os.Mkdir(s.inUse(), 0o700); err != nil { // where the keeper wants a file
		t.Fatal(err)
	}
	url, _, err := join(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "note use") {
		t.Errorf("join = %q, %v; want the keeper's reason", url, err)
	}
}

func TestDirectoryOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	s := meeting(t)
	link := filepath.Join(s.dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if url, _, err := join(t.Context(), shared{dir: link}); err == nil {
		t.Errorf("join through a symbolic link = %q, want an error", url)
	}
}
