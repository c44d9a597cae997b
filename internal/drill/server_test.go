//go:build drill

package drill

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/devpg"
)

// server is a PostgreSQL of the drill's own that syncs to disk, with a database that is empty.
type server struct {
	options devpg.Options
	cluster *devpg.Cluster
	dsn     string
}

func startServer(t *testing.T, dir string, settings map[string]string) *server {
	t.Helper()
	if dir == "" {
		dir = openDir(t)
	}
	s := &server{options: devpg.Options{Dir: filepath.Join(dir, "pg"), Settings: settings}}
	s.start(t)
	t.Cleanup(func() { _ = s.cluster.Stop() }) // it may have been killed
	var err error
	if s.dsn, err = devpg.EnsureDatabase(t.Context(), s.cluster.URL(), "sendgate"); err != nil {
		t.Fatal(err)
	}
	return s
}

// start starts the server again, at the same address.
func (s *server) start(t *testing.T) {
	t.Helper()
	cluster, err := devpg.Start(t.Context(), s.options)
	if err != nil {
		t.Fatal(err)
	}
	if s.cluster != nil && cluster.URL() != s.cluster.URL() {
		t.Fatal("the database is elsewhere after its restart: a drill needs it in its place")
	}
	s.cluster = cluster
}

// stopImmediately ends the server without a checkpoint, as pg_ctl -m immediate does: the next start recovers from the log.
func (s *server) stopImmediately(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(s.postmaster(t), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-s.cluster.Done()
	_ = s.cluster.Stop() // it says that the server exited by itself
}

// alive reports whether the server runs.
func (s *server) alive() bool {
	select {
	case <-s.cluster.Done():
		return false
	default:
		return true
	}
}

// freeze stops every process of the server, as a disk that hangs would, until thaw is called.
func (s *server) freeze(t *testing.T) (thaw func()) {
	t.Helper()
	postmaster := s.postmaster(t)
	pids := append(childrenOf(t, postmaster), postmaster)
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
	signal(syscall.SIGSTOP)
	must(t, 2*time.Second, "the server stands still", func() bool { return stateOf(postmaster) == "T" })
	thaw = sync.OnceFunc(func() { signal(syscall.SIGCONT) })
	t.Cleanup(thaw)
	return thaw
}

func (s *server) postmaster(t *testing.T) int {
	t.Helper()
	note, err := os.ReadFile(filepath.Join(s.options.Dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(note), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// stat reads the fields of a process after its name (proc(5)): state, parent and so on; nil when it has ended.
func stat(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)
}

func stateOf(pid int) string {
	if f := stat(pid); len(f) > 0 {
		return f[0]
	}
	return ""
}

func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if f := stat(pid); err == nil && len(f) > 1 && f[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// openDir is a folder of the drill that the server's own user may pass through, when the server runs as another.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil { //nolint:gosec // see above
			t.Fatal(err)
		}
	}
	return dir
}
