//go:build linux || darwin || freebsd

package devpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// helperEnv makes this binary a process that owns a cluster in the directory it names, until its input ends.
const helperEnv = "SENDGATE_DEVPG_TEST_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		if err := owner(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if modelDir != "" {
		_ = os.RemoveAll(modelDir)
	}
	os.Exit(code)
}

// owner starts a cluster, writes its address, and stops it when its input ends.
func owner(dir string) error {
	c, err := Start(context.Background(), Options{Dir: dir, Fast: true})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, c.URL())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return c.Stop()
}

// ownerProcess runs owner in a process of its own and returns it with the address. It is killed at the end of the test.
func ownerProcess(t *testing.T, binary, dir string, as *account) (*exec.Cmd, io.Closer, string) {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), helperEnv+"="+dir, "HOME="+filepath.Dir(dir))
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: as.uid, Gid: as.gid}}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("owner said %q, %v", line, err)
	}
	return cmd, stdin, strings.TrimSpace(line)
}

// self returns the path of this binary.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// openDir returns a new directory that every user may enter, unlike t.TempDir.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// modelDir is the folder that model made; TestMain removes it.
var modelDir string

// made is a cluster that was made, started and stopped once.
type made struct {
	dir     string
	process int
	socket  string
}

// model is a cluster to copy, which remembers "kept", since making one takes a second or more of work. There is a space in its
// name, for the socket's name travels in a URL.
var model = sync.OnceValues(func() (made, error) {
	root, err := os.MkdirTemp("", "devpgmodel")
	if err != nil {
		return made{}, err
	}
	modelDir = root
	if err := os.Chmod(root, 0o755); err != nil {
		return made{}, err
	}
	m := made{dir: filepath.Join(root, "a folder", "pg")}
	c, err := Start(context.Background(), Options{Dir: m.dir, Fast: true})
	if err != nil {
		return made{}, err
	}
	m.process, m.socket = c.proc.pid, c.socket
	return m, errors.Join(store(context.Background(), c.URL(), "kept"), c.Stop())
})

// clusterDir returns a directory with a cluster that was stopped.
func clusterDir(t *testing.T) string {
	t.Helper()
	from, err := model()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(openDir(t), "pg")
	if out, err := exec.Command("cp", "-a", from.dir, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy cluster: %v: %s", err, out)
	}
	return dir
}

// mustStart starts a cluster and stops it at the end of the test, if it still runs.
func mustStart(t *testing.T, o Options) *Cluster {
	t.Helper()
	o.Fast = true
	if o.Log == nil {
		o.Log = t.Logf
	}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop() })
	return c
}

// query runs a statement that returns one text on a connection of its own.
func query(t *testing.T, dsn, statement string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var answer string
	if err := conn.QueryRow(t.Context(), statement).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return answer
}

// remember stores a word in the database at dsn; recall reads it.
func remember(t *testing.T, dsn, word string) {
	t.Helper()
	if err := store(t.Context(), dsn, word); err != nil {
		t.Fatal(err)
	}
}

// store is remember without a test.
func store(ctx context.Context, dsn, word string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "DROP TABLE IF EXISTS memory; CREATE TABLE memory AS SELECT '"+word+"'::text AS word")
	return err
}

func recall(t *testing.T, dsn string) string {
	t.Helper()
	return query(t, dsn, "SELECT word FROM memory")
}

// postmaster returns the process id of the server on the cluster in dir.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// eventually polls until what holds, for at most ten seconds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// host returns the directory of the socket in a connection string.
func host(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("host")
}
