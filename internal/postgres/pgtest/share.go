//go:build linux || darwin || freebsd

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// superviseEnv makes a test binary the keeper of the shared server in the directory that it names. lingerEnv says how long the
// server lingers.
const (
	superviseEnv = "SENDGATE_PGTEST_SUPERVISE"
	lingerEnv    = "SENDGATE_PGTEST_LINGER"
)

// startGrace is how long a process waits for its turn and for the server. The first start may have to download it.
const startGrace = 3 * time.Minute

// poll is the time between two looks at a lock or a file.
const poll = 25 * time.Millisecond

// shared is a directory that all test binaries of one user share.
//
// Each of them holds a shared lock on users as long as it lives; the kernel releases it however the process ends. The keeper
// holds keeper as long as the server runs, and stops the server when it can lock users exclusively. Whoever starts a keeper
// holds turn.
type shared struct {
	dir    string
	linger time.Duration // how long the server outlives its last user
}

func (s shared) users() string   { return filepath.Join(s.dir, "users.lock") }
func (s shared) keeper() string  { return filepath.Join(s.dir, "keeper.lock") }
func (s shared) turn() string    { return filepath.Join(s.dir, "turn.lock") }
func (s shared) url() string     { return filepath.Join(s.dir, "url") }
func (s shared) log() string     { return filepath.Join(s.dir, "keeper.log") }
func (s shared) cluster() string { return filepath.Join(s.dir, "pg") }
func (s shared) inUse() string   { return filepath.Join(s.dir, "in-use") }

// join makes this process a user of the shared server for the rest of its life, and returns the server's address. The
// file that it returns holds the lock and must stay open.
func join(ctx context.Context, s shared) (string, *os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, startGrace)
	defer cancel()
	if err := s.prepare(); err != nil {
		return "", nil, err
	}
	use, err := lock(ctx, s.users(), syscall.LOCK_SH)
	if err != nil {
		return "", nil, err
	}
	url, err := s.server(ctx)
	if err != nil {
		return "", nil, errors.Join(err, unlock(use))
	}
	return url, use, nil
}

// prepare makes the directory, and refuses one that another user put there under our name. Its mode gives access to the user
// that runs the server for root.
func (s shared) prepare() error {
	if err := os.Mkdir(s.dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create shared directory: %w", err)
	}
	info, err := os.Lstat(s.dir)
	if err != nil {
		return fmt.Errorf("look at shared directory: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory of this user", s.dir)
	}
	return nil
}

// server returns the address of the running server, or starts a keeper and waits for it.
func (s shared) server(ctx context.Context) (string, error) {
	turn, err := lock(ctx, s.turn(), syscall.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer func() { _ = unlock(turn) }()
	if url, err := s.running(ctx); err == nil {
		return url, nil
	}
	if err := os.Remove(s.url()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("remove stale address: %w", err)
	}
	pid, err := s.spawn()
	if err != nil {
		return "", err
	}
	return s.await(ctx, pid)
}

// running returns the address of the server if it has a live keeper and accepts connections.
func (s shared) running(ctx context.Context) (string, error) {
	if f, err := tryLock(s.keeper(), syscall.LOCK_EX); err == nil {
		return "", errors.Join(errors.New("no keeper"), unlock(f))
	}
	url, err := os.ReadFile(s.url())
	if err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, string(url))
	if err != nil {
		return "", err
	}
	return string(url), conn.Close(ctx)
}

// spawn starts this program again as the keeper. It has a session of its own and none of our files: so neither a terminal's
// signal nor the end of this process reaches it, and `go test` does not wait for it.
func (s shared) spawn() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find test binary: %w", err)
	}
	log, err := os.OpenFile(s.log(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open keeper's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(self)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), superviseEnv+"="+s.dir, lingerEnv+"="+s.linger.String())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start keeper: %w", err)
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// await polls for the address that the keeper writes, or for the keeper's end.
func (s shared) await(ctx context.Context, pid int) (string, error) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		url, err := os.ReadFile(s.url())
		if err == nil {
			return string(url), nil
		}
		if gone, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); gone == pid || errors.Is(err, syscall.ECHILD) {
			why, _ := os.ReadFile(s.log()) // if it can't be read, the reason is empty
			return "", errors.New(strings.TrimSpace(string(why)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for server (see %s): %w", s.log(), context.Cause(ctx))
		}
	}
}

// lock waits for a lock on the file at path. It polls, because flock(2) itself can't wait with a time limit.
func lock(ctx context.Context, path string, how int) (*os.File, error) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		f, err := tryLock(path, how)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) {
			return f, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		}
	}
}

// unlock releases a lock. To close the file alone might not release it at once: a child that another goroutine is just starting
// has a copy of the file until it runs its program, and a lock belongs to all copies.
func unlock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// tryLock takes a lock on the file at path, or fails with EWOULDBLOCK.
func tryLock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// memory is a file system in memory, on systems that have it. Each test's database is seven hundred files to make and to
// remove, which costs half as much there.
const memory = "/dev/shm"

// room is how many bytes must be free in it.
const room = 4 << 30

// sharedDir is the directory that the test binaries of this user share.
func sharedDir() string {
	dir := os.TempDir()
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") == "" && syscall.Statfs(memory, &fs) == nil && uint64(fs.Bavail)*uint64(fs.Bsize) >= room { //nolint:unconvert,gosec // types differ by system
		dir = memory
	}
	return filepath.Join(dir, "sendgate-pgtest-"+strconv.Itoa(os.Geteuid()))
}
