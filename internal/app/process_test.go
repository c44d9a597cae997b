//go:build drill

package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary builds the program, once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sendgate-app-test-")
	if err != nil {
		return "", err
	}
	sharedDirs = append(sharedDirs, dir)
	path := filepath.Join(dir, "sendgate")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/sendgate/sendgate/cmd/sendgate").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w: %s", err, out)
	}
	return path, nil
})

// process is the built program, running.
type process struct {
	*replica
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it has exited
	err  error         // how; read after done
}

// serve runs a replica in a process of its own.
func (b *bench) serve(t *testing.T, extra ...string) *process {
	t.Helper()
	p := b.launch(t, extra...)
	p.await(t, b.http)
	return p
}

// launch is serve without waiting for readiness.
func (b *bench) launch(t *testing.T, extra ...string) *process {
	t.Helper()
	type line struct {
		Msg, URL, Ops string
	}
	found := make(chan line, 1)
	p := spawn(t, b.environ(extra...), []string{"serve"}, func(_, errs io.Reader, log io.Writer) {
		lines := bufio.NewScanner(errs)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var l line
			if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "ready" {
				found <- l
			}
			_, _ = log.Write(append(lines.Bytes(), '\n'))
		}
	})
	select {
	case l := <-found:
		p.replica = b.client(l.URL, l.Ops)
	case <-p.done:
		t.Fatalf("serve exited: %v\n%s", p.err, p.log)
	case <-time.After(60 * time.Second):
		t.Fatalf("serve is not up after 60 s\n%s", p.log)
	}
	return p
}

// spawn starts the program. read gets its outputs and returns when both have ended. It is killed when the test ends.
func spawn(t *testing.T, env, args []string, read func(out, errs io.Reader, log io.Writer)) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, args...), log: &tail{}, done: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		read(out, errs, p.log)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of the log of process %d:\n%s", p.cmd.Process.Pid, p.log)
		}
	})
	return p
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have exited
	<-p.done
}

// terminate is SIGTERM.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// exits waits for a clean exit.
func (p *process) exits(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case <-p.done:
		if p.err != nil {
			t.Errorf("exit of process %d: %v", p.cmd.Process.Pid, p.err)
		}
	case <-time.After(within):
		t.Fatalf("process %d has not exited after %s", p.cmd.Process.Pid, within)
	}
}
