//go:build linux || darwin || freebsd

package devpg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// superuser is the only role of a new cluster.
const superuser = "sendgate"

// startGrace is how long a server may take to accept connections. Only recovery after a crash needs more than a second.
const startGrace = 60 * time.Second

// maxLog is the size in bytes above which the server's log is truncated at a start.
const maxLog = 10 << 20

// Cluster is a running private server. Its methods may be called from several goroutines.
type Cluster struct {
	place   place
	proc    *process
	program string // the server program
	socket  string // directory of the socket, or "" when the server listens on port
	port    int
	secret  string
	locks   []*os.File
	stop    sync.Once
	result  error
}

// starter is one call of Start, with the places that it may use.
type starter struct {
	opts     Options
	search   search
	shelters []string // places for clusters whose user cannot reach Dir
	sockets  []string // places for sockets whose name would be too long in Dir
	noSocket bool     // the system has no Unix sockets
}

// newStarter returns the starter for this machine, with downloads going to cache.
func newStarter(o Options, cache string) *starter {
	return &starter{
		opts: o,
		search: search{
			path:  filepath.SplitList(os.Getenv("PATH")),
			globs: installedGlobs(),
			fetch: fetcher{cache: cache, logf: o.logf}.fetch,
		},
		shelters: []string{"/var/lib/sendgate", "/var/tmp/sendgate"},
		sockets:  []string{os.TempDir(), "/tmp"},
	}
}

// Start starts the cluster of o.Dir, and makes it first if there is none. It returns when the server accepts
// connections. That takes about a second, or longer to download programs or to recover from a crash.
//
// A server that a killed process left behind is stopped first; its data are kept. Start returns ErrRunning if a live process
// uses the same Dir, and ErrNoPostgres if it can neither find nor fetch programs. If ctx is cancelled before Start returns, no
// process is left; afterwards the cluster no longer depends on ctx.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	return newStarter(o, cache).start(ctx)
}

// start does the work of Start, under the locks that it takes.
func (s *starter) start(ctx context.Context) (_ *Cluster, err error) {
	dir, err := filepath.Abs(s.opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("find directory: %w", err)
	}
	// The server's user may need to enter it; all secret files in it have a mode of their own.
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("create directory: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("find directory: %w", err)
	}
	if err := mayUse(dir); err != nil {
		return nil, err
	}
	c := &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.unlock())
		}
	}()
	if err := c.lock(dir); err != nil {
		return nil, err
	}
	bin, as, err := s.prepare(ctx, c, dir)
	if err != nil {
		return nil, err
	}
	if err := s.launch(ctx, c, bin, as); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare finds or makes the cluster of dir, and returns the programs and the user that can run it.
func (s *starter) prepare(ctx context.Context, c *Cluster, dir string) (programs, *account, error) {
	p, err := findPlace(dir)
	if err != nil {
		return programs{}, nil, err
	}
	as, err := accountFor(p.data())
	if err != nil {
		return programs{}, nil, err
	}
	exists, major := p.exists(), 0
	if exists {
		if major, err = p.majorOf(); err != nil {
			return programs{}, nil, err
		}
	}
	bin, err := s.search.find(ctx, major, as)
	if err != nil {
		return programs{}, nil, err
	}
	if !exists {
		if p, err = s.choosePlace(ctx, dir, bin, as); err != nil {
			return programs{}, nil, err
		}
	}
	if p.base != dir {
		if err := c.lock(p.base); err != nil {
			return programs{}, nil, err
		}
	}
	c.place = p
	if exists {
		return bin, as, s.recover(ctx, p, bin, as)
	}
	s.opts.logf("creating a PostgreSQL %d cluster in %s", bin.major, p.base)
	return bin, as, s.initialise(ctx, p, bin, as)
}

// recover makes sure that an existing cluster can be started: its user can reach it, and no server runs on it.
func (s *starter) recover(ctx context.Context, p place, bin programs, as *account) error {
	if as != nil {
		if _, err := version(ctx, bin.bin, p.data(), as); err != nil {
			return fmt.Errorf("%s, who owns %s, cannot reach it: %w", as, p.data(), err)
		}
	}
	return stopOrphan(p.data(), s.opts.logf)
}

// launch starts the server and waits until it accepts connections.
func (s *starter) launch(ctx context.Context, c *Cluster, bin programs, as *account) error {
	var err error
	if c.secret, err = c.place.secret(); err != nil {
		return err
	}
	listen, err := s.address(c, as)
	if err != nil {
		return err
	}
	log, offset, err := openLog(c.place.log())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own copy

	c.program = filepath.Join(bin.bin, "postgres")
	deadline := time.Now().Add(startGrace)
	for {
		cmd := exec.Command(c.program, append([]string{"-D", c.place.data()}, listen...)...)
		cmd.Dir = "/"
		cmd.Env = environment()
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = as.attr(syscall.SIGINT)
		if c.proc, err = run(cmd); err != nil {
			return errors.Join(fmt.Errorf("run postgres: %w", err), c.removeSocket())
		}
		if err = c.await(ctx, deadline); err == nil {
			return nil
		}
		text := logSince(c.place.log(), offset)
		err = errors.Join(fmt.Errorf("start PostgreSQL: %w", err), c.proc.stop())
		// Sessions of a killed server end a moment after it, and hold its shared memory until then: try again.
		again := strings.Contains(text, "pre-existing shared memory block") && time.Now().Before(deadline)
		if !again || !pause(ctx, 200*time.Millisecond) {
			return errors.Join(err, errors.New(text), c.removeSocket())
		}
	}
}

// pause waits for d and reports whether ctx is still valid then.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// address decides where the server listens, and returns the arguments for that and for its settings.
func (s *starter) address(c *Cluster, as *account) ([]string, error) {
	settings := s.opts.settings()
	settings["listen_addresses"], settings["port"] = "", "5432"
	c.socket = s.socketDir(c.place, as)
	settings["unix_socket_directories"] = c.socket
	if c.socket == "" {
		var err error
		if c.port, err = freePort(); err != nil {
			return nil, err
		}
		settings["listen_addresses"], settings["port"] = "127.0.0.1", strconv.Itoa(c.port)
		s.opts.logf("no place for a Unix socket: PostgreSQL listens on 127.0.0.1:%d", c.port)
	}
	var args []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args, nil
}

// openLog opens the server's log for appending and returns where its new part begins.
func openLog(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxLog {
		return f, 0, f.Truncate(0)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	return f, info.Size(), nil
}

// await polls until the server accepts a connection, exits, or runs out of time.
func (c *Cluster) await(ctx context.Context, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := errNotReady
		if c.place.ready() {
			attempt, cancelAttempt := context.WithTimeout(ctx, 5*time.Second)
			var conn *pgx.Conn
			conn, err = pgx.Connect(attempt, c.URL())
			cancelAttempt()
			if err == nil {
				return conn.Close(ctx)
			}
		}
		select {
		case <-tick.C:
		case <-c.proc.done:
			return fmt.Errorf("it exited: %w", c.proc.err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// URL returns the superuser's connection string for the database postgres. It holds a password.
func (c *Cluster) URL() string { return c.URLFor("postgres") }

// URLFor returns the superuser's connection string for the named database, which EnsureDatabase makes.
func (c *Cluster) URLFor(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, c.secret), Path: "/" + database}
	if c.socket == "" {
		u.Host = "127.0.0.1:" + strconv.Itoa(c.port)
		u.RawQuery = "sslmode=disable"
		return u.String()
	}
	// Only one parameter: the string is also written into files that a shell reads, where & would end the value.
	u.RawQuery = "host=" + strings.ReplaceAll(url.QueryEscape(c.socket), "+", "%20")
	return u.String()
}

// Done is closed when the server has exited, whether by Stop or by itself.
func (c *Cluster) Done() <-chan struct{} { return c.proc.done }

// Stop ends the server and returns when it has exited. It tries a fast shutdown, and after 10 s an immediate one, from which the
// next Start recovers. Further calls wait for the first and return its result.
func (c *Cluster) Stop() error {
	c.stop.Do(func() {
		died := c.proc.exited()
		c.result = errors.Join(c.proc.stop(), c.removeSocket(), c.unlock())
		if died {
			c.result = errors.Join(fmt.Errorf("PostgreSQL had exited by itself: %w", c.proc.err), c.result)
		}
	})
	return c.result
}

// lock takes the lock of dir and keeps it until the cluster is stopped.
func (c *Cluster) lock(dir string) error {
	f, err := lockDir(dir)
	if err != nil {
		return err
	}
	c.locks = append(c.locks, f)
	return nil
}

// unlock releases every lock.
func (c *Cluster) unlock() error {
	var errs []error
	for _, f := range c.locks {
		errs = append(errs, unlock(f))
	}
	c.locks = nil
	return errors.Join(errs...)
}

// removeSocket removes the directory of the socket.
func (c *Cluster) removeSocket() error {
	if c.socket == "" {
		return nil
	}
	if err := os.RemoveAll(c.socket); err != nil {
		return fmt.Errorf("remove socket directory: %w", err)
	}
	return nil
}
