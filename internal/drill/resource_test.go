//go:build drill

package drill

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// The disk of the database is full: 503 and no 202, and once there is room it heals without a restart.
func TestD12DatabaseDiskIsFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for a small file system")
	}
	disk := filepath.Join(openDir(t), "disk")
	if err := os.Mkdir(disk, 0o711); err != nil { //nolint:gosec // the server's user passes through
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=400m,mode=711", "sendgate-drill", disk).CombinedOutput(); err != nil {
		t.Skipf("needs to mount a small file system: %s", strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "umount", "--lazy", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	p := plan{postgresDir: disk, postgres: map[string]string{
		"min_wal_size": "32MB", "max_wal_size": "64MB", "wal_recycle": "off", "shared_buffers": "64MB", "checkpoint_timeout": "30s",
	}}
	drillTest(t, "D12", p, func(t *testing.T, r *rig) {
		free := fill(t, disk)
		full := time.Now()
		must(t, time.Minute, "somebody is told 503", func() bool { return r.clients.answers("503") > 5 })
		pause(t, *duration)
		n, _ := r.clients.acceptedSince(full.Add(*duration))
		r.report.tally("accepted_in_what_was_left", n)
		free()
		if !r.pg.alive() { // a server that can't write its log at all stops, and its supervisor starts it
			r.report.tally("server", "restarted")
			_ = r.pg.cluster.Stop()
			r.pg.start(t)
		}
		r.backAfter(t, "first202", time.Now(), 30*time.Second)
		pause(t, time.Second)
	})
}

// fill writes a file until the disk is full, and returns a function that removes it.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block, n := make([]byte, 1<<20), 0
	for ; n < 1000; n++ {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	if n >= 1000 {
		t.Fatal("the disk takes a gigabyte: it is not a small one")
	}
	return sync.OnceFunc(func() { _ = os.Remove(path) })
}

// A replica has few descriptors, and strangers hold connections to it. It refuses connections, does not use up the processor,
// and recovers afterwards.
func TestD31DescriptorsRunOut(t *testing.T) {
	p := plan{wrap: []string{"/bin/sh", "-c", `ulimit -n 256; exec "$@"`, "sh"}}
	drillTest(t, "D31", p, func(t *testing.T, r *rig) {
		x := r.replicas[0]
		held := holdSockets(t, x.api, 400)
		before, began := cpuOf(x.cmd.Process.Pid), time.Now()
		pause(t, *duration)
		use := 100 * (cpuOf(x.cmd.Process.Pid) - before).Seconds() / time.Since(began).Seconds()
		r.report.tally("sockets_held", held.n)
		r.report.tally("cpu_percent", int(use))
		if files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.cmd.Process.Pid)); len(files) < 200 { // none, when it has ended
			t.Errorf("descriptors in use = %d: they did not run out", len(files))
		}
		if use > 150 {
			t.Errorf("CPU while it refuses = %.0f %%: it spins", use)
		}
		held.release()
		must(t, 30*time.Second, "it answers again", func() bool { return x.ready(t.Context()) })
		r.backAfter(t, "first202", time.Now(), 5*time.Second)
	})
}

// holdSockets opens n connections that send nothing. It tries for 15 s: a machine that is busy answers some dials too late.
func holdSockets(t *testing.T, addr string, n int) held {
	t.Helper()
	var conns []net.Conn
	d := net.Dialer{Timeout: 300 * time.Millisecond}
	for end := time.Now().Add(15 * time.Second); len(conns) < n && time.Now().Before(end); {
		if c, err := d.DialContext(t.Context(), "tcp", addr); err == nil {
			conns = append(conns, c)
		}
	}
	release := sync.OnceFunc(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	t.Cleanup(release)
	return held{len(conns), release}
}

// cpuOf is the processor time that a process has used (proc(5): utime and stime, of 10 ms).
func cpuOf(pid int) time.Duration {
	f := stat(pid)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// Two thousand connections send a byte of a header every second. Normal clients are still served.
func TestD39SlowLoris(t *testing.T) {
	drillTest(t, "D39", plan{}, func(t *testing.T, r *rig) {
		addr := r.replicas[0].api
		held := holdSockets(t, addr, 1)
		held.release()
		stop, opened := drip(t, addr, 2000)
		pause(t, *duration)
		began := time.Now()
		pause(t, *duration)
		n, _ := r.clients.acceptedSince(began)
		r.report.tally("slow_connections", opened)
		r.report.tally("accepted_meanwhile", n)
		if opened < 1000 || n == 0 {
			t.Errorf("slow connections = %d, accepted beside them %d: want many and some", opened, n)
		}
		stop()
	})
}

// drip opens connections that send a request a byte at a time, and opens them again when they are closed.
func drip(t *testing.T, addr string, n int) (stop func(), opened int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	d := net.Dialer{Timeout: 2 * time.Second}
	up := make(chan struct{}, n)
	for range n {
		wg.Go(func() {
			c, err := d.DialContext(ctx, "tcp", addr)
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			up <- struct{}{}
			for _, b := range []byte("POST /v1/send HTTP/1.1\r\nHost: drip\r\nX-Slow: " + strings.Repeat("x", 200)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				sleep(ctx, time.Second)
			}
		})
	}
	pause(t, 3*time.Second)
	return func() { cancel(); wg.Wait() }, int64(len(up))
}

// One tenant has a long backlog at a limit that all tenants share. It does not delay another tenant's mail.
func TestD38TenantIsNoisy(t *testing.T) {
	drillTest(t, "D38", plan{limits: trickle(), load: load{share: 0.1, plain: true}}, func(t *testing.T, r *rig) {
		noisy := api.NewWith("http://"+r.replicas[0].api, r.keys["acme"], r.http)
		backlog := 0
		for batch := range 4 {
			var b api.BatchRequest
			for i := range 250 {
				x := load{plain: true}.compose(random(fmt.Sprintf("D38 %d", i)), 800+batch, i)
				at := time.Now().Add(time.Hour)
				x.request.ExpiresAt = &at
				b.Messages = append(b.Messages, x.request)
			}
			if _, err := noisy.SendBatch(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			backlog += len(b.Messages)
		}
		quiet := api.NewWith("http://"+r.replicas[1].api, r.keys["globex"], r.http)
		var slowest time.Duration
		for i := range 5 {
			began := time.Now()
			got, err := quiet.Send(t.Context(), load{plain: true}.compose(random("D38 quiet"), 700, i).request, "")
			if err != nil {
				t.Fatal(err)
			}
			must(t, 20*time.Second, "the quiet tenant's message is tried", func() bool {
				return r.count(t.Context(), `SELECT count(*) FROM attempt WHERE message_id = $1::uuid`, got.ID) > 0
			})
			slowest = max(slowest, time.Since(began))
		}
		left := r.number(t, `SELECT count(*) FROM ready`)
		r.report.figure("first_attempt", slowest, 2*time.Second)
		r.report.tally("backlog", left)
		if left < 200 {
			t.Errorf("backlog at the end = %d: the quiet tenant did not have to stand beside it", left)
		}
	})
}

// The rows that keep the limits are deleted under demand, those of the windows and those of the accounts: nobody sends
// more than before for that.
func TestD41LimitStateIsDeleted(t *testing.T) {
	drillTest(t, "D41", plan{limits: trickle(), load: load{share: 0.8, plain: true}}, func(t *testing.T, r *rig) {
		deleted := 0
		for _, table := range []string{"rate_window", "rate_account"} {
			pause(t, *duration/2)
			n := r.number(t, `WITH d AS (DELETE FROM `+table+` RETURNING 1) SELECT count(*) FROM d`)
			if n < 1 {
				t.Fatalf("there was nothing to delete in %s", table)
			}
			deleted += n
		}
		pause(t, *duration/2)
		if r.count(t.Context(), `SELECT count(*) FROM ready`) == 0 {
			t.Error("nothing waits: there is no demand, and the limits are not tried")
		}
		r.report.tally("rows_deleted", deleted)
	})
}
