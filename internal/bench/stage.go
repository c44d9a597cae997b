package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/devpg"
	"github.com/sendgate/sendgate/internal/httpapi"
)

// stage is what all measurements share: a server and a program.
type stage struct {
	options
	version    string // of PostgreSQL
	temporary  string // "" if -dir names the folder
	cluster    *devpg.Cluster
	postmaster int
	databases  int
}

func newStage(ctx context.Context, o options) (*stage, error) {
	s := &stage{options: o}
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "sendgate-bench-")
		if err != nil {
			return nil, fmt.Errorf("make a folder: %w", err)
		}
		s.dir, s.temporary = dir, dir
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) prepare(ctx context.Context) (err error) {
	if err := os.Chmod(s.dir, 0o711); err != nil { //nolint:gosec // the server's user has to pass through
		return err
	}
	if s.program == "" {
		s.program = filepath.Join(s.dir, "sendgate")
		fmt.Fprintln(os.Stderr, "-- build sendgate")
		build := exec.CommandContext(ctx, "go", "build", "-o", s.program, "github.com/sendgate/sendgate/cmd/sendgate") //nolint:gosec // our own program
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build sendgate: %w", err)
		}
	}
	log := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "-- "+format+"\n", args...) }
	settings := map[string]string{"max_connections": "300", "shared_buffers": "512MB"}
	if s.explain {
		settings["shared_preload_libraries"], settings["pg_stat_statements.track_planning"] = "pg_stat_statements", "on"
	}
	if s.cluster, err = devpg.Start(ctx, devpg.Options{Dir: filepath.Join(s.dir, "pg"), Log: log, Settings: settings}); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.cluster.URL())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var data string
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('data_directory')`).Scan(&s.version, &data); err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	pid, err := os.ReadFile(filepath.Join(data, "postmaster.pid")) //nolint:gosec // of our own server
	if err != nil {
		return fmt.Errorf("find the server: %w", err)
	}
	first, _, _ := strings.Cut(string(pid), "\n")
	s.postmaster, err = strconv.Atoi(strings.TrimSpace(first))
	return err
}

func (s *stage) close() (err error) {
	if s.cluster != nil {
		err = s.cluster.Stop()
	}
	if s.temporary != "" {
		err = errors.Join(err, os.RemoveAll(s.temporary))
	}
	return err
}

// database makes an empty database.
func (s *stage) database(ctx context.Context) (string, error) {
	s.databases++
	return devpg.EnsureDatabase(ctx, s.cluster.URL(), fmt.Sprintf("bench_%d_%d", os.Getpid(), s.databases))
}

// process is a child. Its standard error is ours.
type process struct {
	cmd *exec.Cmd
	out io.ReadCloser // its standard output
}

func spawn(path string, args, env []string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...)} //nolint:gosec // our own programs
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a measurement that is killed
	var err error
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	return p, p.cmd.Start()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have exited
	time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
}

// roleEnv makes this program play a part of a measurement.
const roleEnv = "SENDGATE_BENCH_ROLE"

// part starts this program in a role, and decodes the line of JSON that it writes when it is ready.
func part(role string, env []string, ready any) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := spawn(self, nil, append(slices.Clone(env), roleEnv+"="+role))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	line, err := bufio.NewReader(p.out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, ready)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%s did not say that it is ready: %w", role, err)
	}
	return p, nil
}

// gateway is one running sendgate on a database of its own.
type gateway struct {
	process    *process
	program    string
	env        []string
	explain    bool
	postmaster int
	url, key   string
	providers  string // URL of the providers that answer at once
	admin      *api.Client
	rows       *pgxpool.Pool // for looking at what is stored
}

// gateway starts sendgate on an empty database.
func (s *stage) gateway(ctx context.Context, settings ...string) (*gateway, error) {
	dsn, err := s.database(ctx)
	if err != nil {
		return nil, err
	}
	_, adminKey, _ := httpapi.NewKey()
	env := append([]string{
		"SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + strings.Repeat("b7", 32), "SENDGATE_ADMIN_KEY=" + adminKey,
		"SENDGATE_LMTP_LISTEN=", "SENDGATE_LOG_LEVEL=warn",
	}, settings...)
	if err := migrate(ctx, s.program, env); err != nil {
		return nil, err
	}
	g := &gateway{postmaster: s.postmaster, explain: s.explain, program: s.program, env: env}
	if g.rows, err = pgxpool.New(ctx, dsn); err != nil {
		return nil, err
	}
	if _, err := g.rows.Exec(ctx, `SELECT ensure_partitions(current_date - $1::int, current_date)`, s.days); err != nil {
		return nil, fmt.Errorf("make days: %w", err)
	}
	if g.process, g.url, err = g.replica(ctx); err != nil {
		return nil, err
	}
	g.admin = api.NewWith(g.url, adminKey, &http.Client{Timeout: time.Minute})
	key, err := g.admin.CreateKey(ctx, api.KeyRequest{Name: "bench", Scopes: []string{"send", "webhooks:write"}})
	if err != nil {
		g.stop()
		return nil, fmt.Errorf("make a key: %w", err)
	}
	g.key = key.Secret
	return g, nil
}

// replica starts another process on the database, and returns its URL when it is ready.
func (g *gateway) replica(ctx context.Context) (*process, string, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, "", err
	}
	ops, err := freeAddr(ctx)
	if err != nil {
		return nil, "", err
	}
	p, err := spawn(g.program, []string{"serve"}, append(slices.Clone(g.env), "SENDGATE_LISTEN="+addr, "SENDGATE_OPS_LISTEN="+ops))
	if err != nil {
		return nil, "", fmt.Errorf("start sendgate: %w", err)
	}
	if err := await(ctx, "sendgate is ready", func() bool { return isReady(ctx, "http://"+ops+"/readyz") }); err != nil {
		p.stop()
		return nil, "", err
	}
	return p, "http://" + addr, nil
}

func migrate(ctx context.Context, program string, env []string) error {
	cmd := exec.CommandContext(ctx, program, "migrate", "up") //nolint:gosec // our own program
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate: %w\n%s", err, out)
	}
	return nil
}

func (g *gateway) stop() {
	g.process.stop()
	g.rows.Close()
}

// number is the only column of the only row of a statement.
func (g *gateway) number(ctx context.Context, sql string) (n int64, err error) {
	if err := g.rows.QueryRow(ctx, sql).Scan(&n); err != nil {
		return 0, fmt.Errorf("%s: %w", sql, err)
	}
	return n, nil
}

// accounts makes the accounts and puts them into the default pool.
func (g *gateway) accounts(ctx context.Context, all []api.AccountRequest) error {
	pool := api.Pool{Name: "default", Overflow: "spill"}
	for _, a := range all {
		if _, err := g.admin.CreateAccount(ctx, a); err != nil {
			return fmt.Errorf("make account %s: %w", a.Name, err)
		}
		pool.Accounts = append(pool.Accounts, api.PoolMember{Account: a.Name, Weight: 1})
	}
	if _, err := g.admin.PutPool(ctx, pool); err != nil {
		return fmt.Errorf("set the pool: %w", err)
	}
	return nil
}

func isReady(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// await polls until the condition holds, for at most ten minutes.
func await(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	return l.Addr().String(), l.Close()
}
