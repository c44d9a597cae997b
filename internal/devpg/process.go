//go:build linux || darwin || freebsd

package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Grace periods of a shutdown. PostgreSQL's fast shutdown ends sessions and writes a checkpoint. Its immediate shutdown
// only exits, and the next start recovers from the log ("Shutting Down the Server" in its manual).
const (
	fastGrace      = 10 * time.Second
	immediateGrace = 5 * time.Second
)

// process is a server that we started.
type process struct {
	pid  int
	done chan struct{} // closed when the server has exited
	err  error         // how it exited; read after done
}

// run starts a program and reports its exit. One goroutine keeps one thread from start to exit: when the thread that started
// a child ends, the kernel acts as if the parent had died.
func run(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// exited reports whether the server has exited.
func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the server: fast, then immediately, then by force.
func (p *process) stop() error {
	return shutDown(p.pid, func(grace time.Duration) bool {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.done:
			return true
		case <-timer.C:
			return false
		}
	})
}

// shutDown sends pid the signals for a fast, an immediate and a forced end, until gone reports within the grace given
// that it has exited.
func shutDown(pid int, gone func(grace time.Duration) bool) error {
	steps := []struct {
		sig   syscall.Signal
		grace time.Duration
	}{{syscall.SIGINT, fastGrace}, {syscall.SIGQUIT, immediateGrace}, {syscall.SIGKILL, immediateGrace}}
	for _, step := range steps {
		if gone(0) {
			return nil
		}
		if err := syscall.Kill(pid, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop PostgreSQL process %d: %w", pid, err)
		}
		if gone(step.grace) {
			return nil
		}
	}
	return fmt.Errorf("stop PostgreSQL process %d: it does not end", pid)
}

// stopOrphan ends a server that still runs on data although its owner is gone, and removes the postmaster.pid of a server that
// does not run. The caller holds the lock of the place, so no live owner exists.
//
// PostgreSQL refuses to start on a stale postmaster.pid if any process has that id now, even a zombie. It also guards
// against leftover sessions by its shared memory, so removing the file is safe.
func stopOrphan(data string, logf func(string, ...any)) error {
	note := filepath.Join(data, "postmaster.pid")
	b, err := os.ReadFile(note)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for running server: %w", err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err == nil && pid > 1 && serves(pid, data) {
		logf("stopping the PostgreSQL that a killed process left behind (process %d)", pid)
		if err := shutDown(pid, func(grace time.Duration) bool { return unserved(pid, data, grace) }); err != nil {
			return err
		}
	}
	if err := os.Remove(note); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale note: %w", err)
	}
	return nil
}

// unserved waits until pid does not serve data any more. The process is not a child of ours, so it can only be polled.
func unserved(pid int, data string, grace time.Duration) bool {
	deadline := time.Now().Add(grace)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for serves(pid, data) {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}

// initialise makes a cluster in p with one superuser. The data directory gets its name only when it is complete.
func (s *starter) initialise(ctx context.Context, p place, bin programs, as *account) error {
	half, pwfile := filepath.Join(p.base, "half-made"), filepath.Join(p.base, "half-made.password")
	clear := func() error { return errors.Join(os.RemoveAll(half), os.RemoveAll(pwfile)) }
	if err := clear(); err != nil {
		return fmt.Errorf("clear half-made cluster: %w", err)
	}
	pw, err := p.secret()
	if err != nil {
		return err
	}
	err = errors.Join(os.Mkdir(half, 0o700), as.own(half), os.WriteFile(pwfile, []byte(pw+"\n"), 0o600), as.own(pwfile))
	if err == nil {
		err = s.initdb(ctx, half, pwfile, bin, as)
	}
	if err == nil {
		err = os.Rename(half, p.data())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create cluster in %s: %w", p.base, err), clear())
	}
	return os.Remove(pwfile)
}

// initdb runs the program of that name.
func (s *starter) initdb(ctx context.Context, data, pwfile string, bin programs, as *account) error {
	args := []string{
		"--pgdata=" + data, "--username=" + superuser, "--pwfile=" + pwfile, "--auth=scram-sha-256",
		"--encoding=UTF8", "--no-locale", "--no-instructions",
	}
	if s.opts.Fast {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin.bin, "initdb"), args...)
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = as.attr(syscall.SIGKILL)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // and the server that it runs
	cmd.WaitDelay = 5 * time.Second
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	proc, err := run(cmd)
	if err == nil {
		<-proc.done
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	if proc.err != nil {
		return fmt.Errorf("initdb: %w: %s", proc.err, tail(out.String(), 600))
	}
	return nil
}

// logSince returns the end of the server's log, as far as it was written after offset.
func logSince(path string, offset int64) string {
	f, err := os.Open(path)
	if err != nil {
		return "its log cannot be read"
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.NewSectionReader(f, offset, 1<<20))
	if err != nil {
		return "its log cannot be read"
	}
	return tail(string(b), 1500)
}

// tail returns at most the last n bytes of text.
func tail(text string, n int) string {
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-n):]
}
