//go:build unix

package pgtest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer starts PgBouncer in front of the server of a connection string, with its default settings except those given. It
// returns the connection string through it. PgBouncer is stopped when the test ends. Without the program the test is skipped.
func PgBouncer(t testing.TB, dsn string, settings map[string]string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer")
	}
	if err != nil {
		t.Skip("needs PgBouncer (Debian's package pgbouncer)")
	}
	server, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	dir, as := bouncerPlace(t, server.Host)
	port := freePort(t)
	ini := filepath.Join(dir, "pgbouncer.ini")
	write(t, filepath.Join(dir, "users"), fmt.Sprintf("%q %q\n", server.User, server.Password))
	text := fmt.Sprintf("[databases]\n* = host=%s port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = md5\nauth_file = %s/users\n", server.Host, server.Port, port, dir)
	for name, value := range settings {
		text += name + " = " + value + "\n"
	}
	write(t, ini, text)
	log, err := os.Create(filepath.Join(dir, "log")) //nolint:gosec // in a folder of its own
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, ini)
	cmd.Stderr, cmd.SysProcAttr = log, as
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if said, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("PgBouncer said:\n%s", said)
		}
	})
	through := url.URL{
		Scheme: "postgres", User: url.UserPassword(server.User, server.Password), Host: "127.0.0.1:" + strconv.Itoa(port),
		Path: "/" + server.Database, RawQuery: "sslmode=disable",
	}
	await(t, through.Host)
	return through.String()
}

// bouncerPlace makes a folder for PgBouncer, and says which user runs it. PgBouncer refuses to run as root, so for root that is
// the owner of the folder of the server's socket, or else nobody.
func bouncerPlace(t testing.TB, server string) (dir string, as *syscall.SysProcAttr) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sendgate-pgbouncer-") // the folders of t.TempDir are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Geteuid() != 0 {
		return dir, nil
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // it has to be read by somebody else
		t.Fatal(err)
	}
	id := &syscall.Credential{Uid: 65534, Gid: 65534}
	var info syscall.Stat_t
	if err := syscall.Stat(server, &info); err == nil && info.Uid != 0 {
		id.Uid, id.Gid = info.Uid, info.Gid
	}
	return dir, &syscall.SysProcAttr{Credential: id}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // as above; the server is a test's
		t.Fatal(err)
	}
}

// freePort returns a TCP port on loopback that was free a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it is only to be free again
	addr, _ := l.Addr().(*net.TCPAddr)
	return addr.Port
}

// await waits until something listens on addr.
func await(t testing.TB, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("nothing listens on %s: %v", addr, err)
		}
	}
}
