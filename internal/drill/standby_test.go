//go:build drill

package drill

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

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// following is how a second server follows the first.
type following int

const (
	alone       following = iota // there is no second one
	synchronous                  // a commit waits until it is on its disk
	asynchronous
)

// standby is a second server that receives what the first one logs, over a wire that can be cut.
type standby struct {
	*server
	wire *wire
}

// follow makes a standby from a base backup of the primary and waits until it has caught up.
func follow(t *testing.T, primary *server, how following) *standby {
	t.Helper()
	dir := openDir(t)
	s := &standby{server: &server{}, wire: newWire(t, primary.cluster.URL())}
	s.options = primary.options
	s.options.Dir = filepath.Join(dir, "standby")
	data := filepath.Join(s.options.Dir, "data")
	if err := os.Mkdir(s.options.Dir, 0o711); err != nil { //nolint:gosec // the server's user has to pass
		t.Fatal(err)
	}
	s.takeBackup(t, primary, data)
	s.start(t)
	t.Cleanup(func() { _ = s.cluster.Stop() })
	s.dsn = s.cluster.URLFor("sendgate")
	if how == synchronous {
		run(t, primary.dsn, `ALTER SYSTEM SET synchronous_standby_names = '*'`)
		run(t, primary.dsn, `SELECT pg_reload_conf()`)
	}
	want := map[following]string{synchronous: "sync", asynchronous: "async"}[how]
	must(t, 30*time.Second, "the standby follows", func() bool {
		return ask(t, primary.dsn, `SELECT coalesce(min(state || ' ' || sync_state), '') FROM pg_stat_replication`) == "streaming "+want
	})
	return s
}

// takeBackup copies the primary, over the wire that the standby will follow it by, and gives the copy to the user of the
// server, with the password by which it is known.
func (s *standby) takeBackup(t *testing.T, primary *server, data string) {
	t.Helper()
	bin := ask(t, primary.dsn, `SELECT setting FROM pg_config WHERE name = 'BINDIR'`)
	program := filepath.Join(bin, "pg_basebackup")
	if _, err := os.Stat(program); err != nil {
		t.Skip("this server came without pg_basebackup")
	}
	cmd := exec.CommandContext(t.Context(), program, "--dbname="+s.wire.dsn, "--pgdata="+data, //nolint:gosec // the server's own program
		"--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	config, err := pgx.ParseConfig(primary.dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.options.Dir, "password"), []byte(config.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	own(t, data, ask(t, primary.dsn, `SHOW data_directory`))
}

// own gives a tree to the owner of another.
func own(t *testing.T, tree, like string) {
	t.Helper()
	info, err := os.Stat(like)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // where drills work, it is
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

// eitherOf is a DSN with two servers that asks for the one that takes writes.
func eitherOf(t *testing.T, servers ...*server) string {
	t.Helper()
	var hosts, ports []string
	var last *pgx.ConnConfig
	for _, s := range servers {
		config, err := pgx.ParseConfig(s.dsn)
		if err != nil {
			t.Fatal(err)
		}
		hosts, ports, last = append(hosts, config.Host), append(ports, fmt.Sprint(config.Port)), config
	}
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable target_session_attrs=read-write",
		strings.Join(hosts, ","), strings.Join(ports, ","), last.User, last.Password, last.Database)
}

// cutOff lets nothing through to the standby any more. Everything that was committed when it returns is on the standby; what
// was committed since may not be.
func (s *standby) cutOff(t *testing.T, primary *server) time.Time {
	t.Helper()
	at := time.Now()
	end := ask(t, primary.dsn, `SELECT pg_current_wal_lsn()::text`)
	must(t, 30*time.Second, "the standby has what was committed", func() bool {
		return ask(t, s.dsn, `SELECT (pg_last_wal_receive_lsn() >= $1::pg_lsn)::text`, end) == "true"
	})
	s.wire.cut(t, true, true)
	return at
}

// lack is how many bytes of the primary's log the standby has not received.
func (s *standby) lack(t *testing.T, primary *server) string {
	t.Helper()
	has := ask(t, s.dsn, `SELECT pg_last_wal_receive_lsn()::text`)
	return ask(t, primary.dsn, `SELECT (pg_current_wal_lsn() - $1::pg_lsn)::bigint::text`, has)
}

// promote makes the standby the primary and returns the commit that it got to, and how long that took.
func (s *standby) promote(t *testing.T) (reached time.Time, took time.Duration) {
	t.Helper()
	began := time.Now()
	if got := ask(t, s.dsn, `SELECT pg_promote(true, 60)::text`); got != "true" {
		t.Fatalf("the standby was not promoted: %s", got)
	}
	took = time.Since(began)
	reached, err := time.Parse(time.RFC3339Nano, ask(t, s.dsn, `SELECT to_json(pg_last_xact_replay_timestamp()) #>> '{}'`))
	if err != nil {
		t.Fatal(err)
	}
	return reached, took
}

// ask runs one statement on its own session and returns its result, which is one text.
func ask(t *testing.T, dsn, query string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 70*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	var text string
	if err := c.QueryRow(ctx, query, args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}

// run is ask for what answers nothing.
func run(t *testing.T, dsn, statement string) {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(t.Context())) }()
	if _, err := c.Exec(t.Context(), statement).ReadAll(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
