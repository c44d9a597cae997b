//go:build drill

package drill

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// replica is one serve process. It keeps its addresses over restarts.
type replica struct {
	name           string
	api, ops, lmtp string // host:port
	env, wrap      []string
	release        string // path of its program; newRelease is this tree's
	dir            string
	http           *http.Client
	cmd            *exec.Cmd
	done           chan struct{} // closed when the process has exited
	err            error         // how; read after done
	up             atomic.Bool   // may get requests: it is ready and is not being stopped
}

// start runs the process and waits until it is ready.
func (r *replica) start(t *testing.T) {
	t.Helper()
	r.launch(t)
	must(t, time.Minute, r.name+" is ready", func() bool {
		select {
		case <-r.done:
			t.Fatalf("%s exited: %v\n%s", r.name, r.err, r.tail())
		default:
		}
		return r.ready(t.Context())
	})
	r.up.Store(true)
}

// launch is start without waiting.
func (r *replica) launch(t *testing.T) {
	t.Helper()
	path := programOf(t, r.release)
	log, err := os.OpenFile(r.logPath(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own copy
	words := append(slices.Clone(r.wrap), path, "serve")
	r.cmd = exec.Command(words[0], words[1:]...) //nolint:gosec // our own program
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr, r.cmd.SysProcAttr = r.env, log, log, dies()
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.done = make(chan struct{})
	cmd, done := r.cmd, r.done
	go func() {
		defer close(done)
		r.err = cmd.Wait()
	}()
}

func (r *replica) logPath() string { return filepath.Join(r.dir, r.name+".log") }

// tail is the end of its log.
func (r *replica) tail() string {
	text, err := os.ReadFile(r.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

func (r *replica) ready(ctx context.Context) bool {
	status, _ := r.get(ctx, "/readyz")
	return status == http.StatusOK
}

// get asks the listener for operations.
func (r *replica) get(ctx context.Context, path string) (status int, body string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return fetch(ctx, r.http, "http://"+r.ops+path)
}

// kill is kill -9; it returns when the process is gone.
func (r *replica) kill() {
	r.up.Store(false)
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill() // it may have exited
	<-r.done
}

func (r *replica) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// pauseProcess is SIGSTOP, verified; resume is SIGCONT.
func (r *replica) pauseProcess(t *testing.T) (resume func()) {
	t.Helper()
	r.signal(t, syscall.SIGSTOP)
	must(t, time.Second, r.name+" stands still", func() bool { return stateOf(r.cmd.Process.Pid) == "T" })
	return func() { r.signal(t, syscall.SIGCONT) }
}

// exits waits for the process to exit by itself and returns how long that took; an exit code other than 0 is a failure.
func (r *replica) exits(t *testing.T, within time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	select {
	case <-r.done:
	case <-time.After(within):
		t.Fatalf("%s has not exited after %s\n%s", r.name, within, r.tail())
	}
	if r.err != nil {
		t.Errorf("exit of %s: %v\n%s", r.name, r.err, r.tail())
	}
	return time.Since(began)
}

// nextPort counts the ports that drills fixed.
var nextPort atomic.Int32

// fixedAddr is an address that is free, and stays so: below the ports that systems give out by themselves.
func fixedAddr(t *testing.T) string {
	t.Helper()
	for range 200 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+(53*os.Getpid()+int(nextPort.Add(1)))%10_000)
		if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}
