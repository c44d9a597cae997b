package app

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/devpg"
	"github.com/sendgate/sendgate/internal/postgres"
)

// answers is what clients saw of a service whose database comes and goes.
type answers struct {
	mu      sync.Mutex
	ids     []string
	taken   []time.Time // of the 202s
	refused map[int]int // by status, 0 for none
	slowest time.Duration
}

func (a *answers) note(id string, err error, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slowest = max(a.slowest, took)
	if err != nil {
		a.refused[refusedStatus(err)]++
		return
	}
	a.ids, a.taken = append(a.ids, id), append(a.taken, time.Now())
}

// between tells how many were accepted from one time to another.
func (a *answers) between(from, to time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, at := range a.taken {
		if at.After(from) && at.Before(to) {
			n++
		}
	}
	return n
}

func (a *answers) load(ctx context.Context, clients int, c *api.Client) *sync.WaitGroup {
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			tick := time.NewTicker(60 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				start := time.Now()
				got, err := c.Send(context.WithoutCancel(ctx), letter(n*100_000+i), "")
				if err != nil {
					got = &api.SendResult{}
				}
				a.note(got.ID, err, time.Since(start))
				<-tick.C
			}
		})
	}
	return &wg
}

// It has a database server of its own.
func TestDatabaseOutageLosesNothingAndIsAnsweredWith503(t *testing.T) {
	t.Parallel()
	options := devpg.Options{Dir: filepath.Join(openDir(t), "pg"), Log: t.Logf, Fast: true}
	cluster, err := devpg.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cluster.Stop() }() // a second Stop does nothing
	dsn, err := devpg.EnsureDatabase(t.Context(), cluster.URL(), "sendgate")
	if err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), dsn, io.Discard); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, benchOptions{dsn: dsn})
	r := b.start(t)
	a := &answers{refused: map[int]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	clients := a.load(ctx, 8, r.api)
	pause(t, time.Second)

	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	pause(t, 10*time.Second)
	up := time.Now()
	next, err := devpg.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := next.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if next.URLFor("sendgate") != cluster.URLFor("sendgate") {
		t.Fatal("the database is elsewhere after the restart: this test needs it in its place")
	}
	back := time.Now()
	eventually(t, settleTime, "mail is accepted again", func() bool { return a.between(back, time.Now()) > 0 })
	t.Logf("down for %s; first 202 at most %s after the database took connections", back.Sub(down).Round(time.Millisecond),
		time.Since(back).Round(time.Millisecond))
	pause(t, time.Second)

	thaw := freeze(t, options.Dir)
	frozen := time.Now()
	pause(t, 4*time.Second)
	thaw()
	eventually(t, settleTime, "mail is accepted after the freeze", func() bool { return a.between(frozen.Add(4*time.Second), time.Now()) > 0 })
	cancel()
	clients.Wait()
	checkOutage(t, b, a, a.between(down, up))
	becomes(t, r.api, send(t, r.api, letter(1)), settleTime, "sent")
}

// freeze stops every process of the server in its tracks, as a hanging disk would, until the function that it returns is
// called. Where processes can't be listed it does nothing.
func freeze(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	note, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(note), "\n")
	postmaster, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		t.Fatal(err)
	}
	pids := append(childrenOf(t, postmaster), postmaster)
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
	signal(syscall.SIGSTOP)
	thaw = sync.OnceFunc(func() { signal(syscall.SIGCONT) })
	t.Cleanup(thaw)
	return thaw
}

func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil { // it has ended
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ") // proc(5): pid (comm) state ppid
		fields := strings.Fields(rest)
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func checkOutage(t *testing.T, b *bench, a *answers, duringOutage int) {
	t.Helper()
	t.Logf("accepted %d, refused %v, slowest answer %s", len(a.ids), a.refused, a.slowest.Round(time.Millisecond))
	if duringOutage != 0 {
		t.Errorf("202s while the database was down = %d, want 0", duringOutage)
	}
	if len(a.refused) != 1 || a.refused[http.StatusServiceUnavailable] == 0 {
		t.Errorf("refusals by status = %v, want 503 only", a.refused)
	}
	if a.slowest > 15*time.Second {
		t.Errorf("slowest answer = %s: requests hang", a.slowest)
	}
	b.settle(t, 40*time.Second)
	status := b.messageStatuses(t)
	ledger := b.ledger()
	for _, id := range a.ids {
		if status[id] != "sent" && status[id] != "failed_unknown" {
			t.Errorf("message %s was promised and is %q", id, status[id])
		}
		if n := len(ledger[id]); n > 1 {
			t.Errorf("ledger entries of %s = %d, want 1", id, n)
		}
	}
}
