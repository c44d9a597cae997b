//go:build linux || darwin || freebsd

package devpg

import (
	"flag"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var (
	starts   = flag.Int("starts", 1, "how often a real server is started and stopped at once, and ten times as often a process")
	thorough = flag.Bool("thorough", false, "run the tests that make clusters only to see rare cases")
)

// mustEnd fails the test if a stop hangs. A server that has enough time ends at the first of three signals.
func mustEnd(t *testing.T, stop func() error) {
	t.Helper()
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Fatalf("stop = %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("stop hangs")
	}
}

func TestProcessStopsRightAfterItsStart(t *testing.T) {
	t.Parallel()
	for range 10 * *starts {
		cmd := exec.Command("sleep", "60")
		p, err := run(cmd)
		if err != nil {
			t.Fatal(err)
		}
		mustEnd(t, p.stop)
		if err := syscall.Kill(p.pid, 0); err == nil {
			t.Fatalf("process %d is alive after its stop", p.pid)
		}
	}
}

func TestClusterStopsRightAfterItsStart(t *testing.T) {
	t.Parallel()
	if *starts < 2 {
		t.Skip("TestStalePidOfAStrangerIsIgnored does it once: for more of it run with -starts")
	}
	dir := clusterDir(t)
	for range *starts {
		startAndStopAtOnce(t, dir)
	}
}

func startAndStopAtOnce(t *testing.T, dir string) {
	t.Helper()
	c := mustStart(t, Options{Dir: dir})
	pid := postmaster(t, dir)
	mustEnd(t, c.Stop)
	if serves(pid, filepath.Join(dir, "data")) {
		t.Fatalf("server %d is alive after Stop", pid)
	}
}
