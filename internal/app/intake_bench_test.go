package app

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/devpg"
	"github.com/sendgate/sendgate/internal/postgres"
)

// The measurement is the test with more messages, on a server of its own that syncs:
//
//	go test ./internal/app -run TestIntake -v -intake 3000
//
// Each line names the load and is for that many messages with two events each; it takes some seconds. Without the flag the
// test only counts: every event is there once.
var (
	intakeMessages = flag.Int("intake", 0, "messages of each line of TestIntake; 0 checks counts with a few")
	intakeClients  = flag.Int("intake-clients", 64, "connections over which TestIntake posts, each with one request at a time")
	intakeSends    = flag.Int("intake-sends", 500, "messages a second that TestIntake sends beside the events")
)

// intakeLine is one kind of load: its provider, and how many events each request has. An empty kind means all of them in
// turn.
type intakeLine struct {
	kind  string
	batch int
	sends bool // mail is sent meanwhile
}

func (l intakeLine) String() string {
	name := fmt.Sprintf("%s by %d", l.kind, l.batch)
	if l.sends {
		name += " beside sends"
	}
	return name
}

// Not parallel as a measurement, which wants the machine.
func TestIntake(t *testing.T) {
	if *intakeMessages == 0 {
		t.Parallel()
	}
	n, rate, o := 20, 50, benchOptions{}
	if *intakeMessages > 0 {
		n, rate, o.dsn = *intakeMessages, *intakeSends, databaseIn(t, filepath.Join(openDir(t), "pg"))
	}
	b := newBench(t, o)
	r := b.start(t)
	h := newHerald(t, b, r)
	base := b.count(t.Context(), `SELECT count(*) FROM event`)
	for _, sends := range []bool{false, true} {
		lines := []intakeLine{{"sendgrid", 100, sends}} // the only one that reports several at once
		for _, kind := range append(hookKinds(), "all") {
			lines = append(lines, intakeLine{kind, 1, sends})
		}
		for _, l := range lines {
			if *intakeMessages == 0 && sends && l.kind != "all" {
				continue // without measurements, one line during sends covers all kinds
			}
			t.Run(l.String(), func(t *testing.T) {
				base = takeIn(t, b, r, h, l, n, rate, base)
			})
		}
	}
}

// takeIn sends n messages, posts their events and checks that they are stored. It returns the number of events.
func takeIn(t *testing.T, b *bench, r *replica, h *herald, l intakeLine, n, rate, base int) int {
	t.Helper()
	ids := sendThrough(t, b, r, l.kind, n)
	requests := h.report(t, ids, l)
	var beside *sending
	if l.sends {
		beside = startSending(t, r, rate)
	}
	before := b.cpu(t)
	took, spent := b.postAll(t, r, requests)
	note := b.cpu(t).since(before, 2*n)
	if beside != nil { // whose processor time is in it
		note = beside.end(t)
	}
	if *intakeMessages > 0 {
		slices.Sort(spent)
		t.Logf("%-28s %6.0f events/s, %5.0f requests/s, p50 %s p99 %s; load average %s; %s", l, float64(2*n)/took.Seconds(),
			float64(len(requests))/took.Seconds(), quantile(spent, 0.5), quantile(spent, 0.99), loadAverage(), note)
	}
	b.settle(t, settleTime)
	b.checkTaken(t, ids)
	got := b.count(t.Context(), `SELECT count(*) FROM event WHERE source = 'webhook'`)
	if got != base+2*n {
		t.Errorf("events stored = %d, want %d", got-base, 2*n)
	}
	return got
}

// databaseIn starts a server in a folder and gives it our tables. It writes to disk before it says so where figures are
// wanted.
func databaseIn(t *testing.T, dir string) string {
	t.Helper()
	cluster, err := devpg.Start(t.Context(), devpg.Options{Dir: dir, Log: t.Logf, Fast: *intakeMessages == 0})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	dsn, err := devpg.EnsureDatabase(t.Context(), cluster.URL(), "sendgate")
	if err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), dsn, io.Discard); err != nil {
		t.Fatal(err)
	}
	return dsn
}

// sendThrough sends n messages through the accounts of a line.
func sendThrough(t *testing.T, b *bench, r *replica, kind string, n int) []told {
	t.Helper()
	all := letters(n)
	for i := range all {
		all[i].Account = &[]string{kindOf(kind, i)}[0]
	}
	ids := submit(t, r.api, all)
	b.settle(t, 2*time.Minute)
	sent := make([]told, n)
	for i, id := range ids {
		sent[i] = told{id: id, to: all[i].To[0].Email}
	}
	return sent
}

func kindOf(kind string, i int) string {
	if kind != "all" {
		return kind
	}
	return hookKinds()[i%len(hookKinds())]
}

// report signs two events for each message: in a request, first all first events, then all second ones.
func (h *herald) report(t *testing.T, sent []told, l intakeLine) []request {
	t.Helper()
	chunks := slices.Collect(slices.Chunk(sent, l.batch))
	requests := make([]request, 2*len(chunks))
	var wg sync.WaitGroup
	for part := range 2 {
		wg.Go(func() {
			for i, chunk := range chunks {
				events := slices.Clone(chunk)
				for k := range events {
					events[k].second = part == 1
				}
				requests[2*i+part] = h.sign(t, kindOf(l.kind, i), events...)
			}
		})
	}
	wg.Wait()
	return requests
}

// post posts a request once and returns the status of the answer, 0 for none.
func (q request) post(t *testing.T, b *bench, r *replica) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/hooks/"+q.account, bytes.NewReader(q.body))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header = q.header
	resp, err := b.http.Do(req)
	if err != nil {
		t.Logf("post to %s: %v", q.account, err)
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	_ = resp.Body.Close()
	return resp.StatusCode
}

// postAll posts all requests, each until it is taken, and returns how long that took and each of the answers.
func (b *bench) postAll(t *testing.T, r *replica, all []request) (took time.Duration, spent []time.Duration) {
	t.Helper()
	spent = make([]time.Duration, len(all))
	var next, again atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for range *intakeClients {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all) && t.Context().Err() == nil; i = int(next.Add(1)) - 1 {
				begun := time.Now()
				for status := 0; status != http.StatusOK; {
					switch status = all[i].post(t, b, r); status {
					case http.StatusOK:
					case http.StatusServiceUnavailable:
						again.Add(1)
					default:
						t.Errorf("the answer to events of %s = %d", all[i].account, status)
						return
					}
				}
				spent[i] = time.Since(begun)
			}
		})
	}
	wg.Wait()
	took = time.Since(start)
	if n := again.Load(); n > 0 {
		t.Logf("%d answers of 503, posted again", n)
	}
	return took, spent
}

func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(share*float64(len(sorted)-1))].Round(100 * time.Microsecond)
}

// cpu is the processor time that was used so far, by the database server and by this process, which has the service, the
// clients and the emulators. On a machine with other work it says more than a rate.
type cpu struct{ here, postgres time.Duration }

func (b *bench) cpu(t *testing.T) cpu {
	t.Helper()
	if *intakeMessages == 0 {
		return cpu{}
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	c := cpu{here: time.Duration(u.Utime.Nano() + u.Stime.Nano())}
	for _, pid := range childrenOf(t, b.count(t.Context(), `SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int`)) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil { // it has ended
			continue
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		for _, ticks := range strings.Fields(rest)[11:13] { // proc(5): utime and stime, of 10 ms
			n, _ := strconv.Atoi(ticks)
			c.postgres += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return c
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

// since gives the share of each event.
func (c cpu) since(before cpu, events int) string {
	return fmt.Sprintf("CPU of an event %s here, %s in Postgres", ((c.here - before.here) / time.Duration(events)).Round(time.Microsecond),
		((c.postgres - before.postgres) / time.Duration(events)).Round(time.Microsecond))
}

// loadAverage is that of the last minute, where the system tells.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(raw), " ")
	return one
}

// checkTaken compares the events that were sent for messages with the events that the messages show.
func (b *bench) checkTaken(t *testing.T, sent []told) {
	t.Helper()
	ids := make([]string, len(sent))
	for i, s := range sent {
		ids[i] = s.id
	}
	const where = ` WHERE message_id = ANY ($1::uuid[]) AND `
	for what, query := range map[string]string{
		"messages delivered":       `SELECT count(*) FROM message WHERE id = ANY ($1::uuid[]) AND status = 'delivered'`,
		"recipients with evidence": `SELECT count(*) FROM recipient` + where + `event_rank > 0 AND status = 'delivered'`,
		"attempts accepted":        `SELECT count(*) FROM attempt` + where + `class = 'accepted'`,
		"deliveries":               `SELECT count(DISTINCT message_id) FROM event` + where + `type = 'delivered' AND raw IS NOT NULL`,
	} {
		if got := b.count(t.Context(), query, ids); got != len(sent) {
			t.Errorf("%s = %d, want %d", what, got, len(sent))
		}
	}
}

// sending is mail that is sent at a rate, and how long its acceptance took.
type sending struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	start  time.Time
	first  sync.Once
	going  chan struct{} // closed by the first answer
	mu     sync.Mutex
	spent  []time.Duration
	failed int
}

// startSending sends rate messages a second with 32 clients, even if answers are slow. It returns after the first answer, so
// that events posted next run at the same time as the sends.
func startSending(t *testing.T, r *replica, rate int) *sending {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &sending{cancel: cancel, start: time.Now(), going: make(chan struct{})}
	due := make(chan int, 4*rate)
	s.wg.Go(func() {
		defer close(due)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				for ; n < int(time.Since(s.start).Seconds()*float64(rate)); n++ {
					due <- n
				}
			}
		}
	})
	for range 32 {
		s.wg.Go(func() {
			for n := range due {
				s.send(context.WithoutCancel(ctx), r.api, n)
				s.first.Do(func() { close(s.going) })
			}
		})
	}
	<-s.going
	return s
}

func (s *sending) send(ctx context.Context, c *api.Client, n int) {
	begun := time.Now()
	_, err := c.Send(ctx, letter(1_000_000+n), "")
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed++
		return
	}
	s.spent = append(s.spent, time.Since(begun))
}

// end stops the sending and says how it went.
func (s *sending) end(t *testing.T) string {
	t.Helper()
	s.cancel()
	s.wg.Wait()
	if s.failed > 0 || len(s.spent) == 0 {
		t.Errorf("messages refused beside the load = %d, accepted %d", s.failed, len(s.spent))
	}
	slices.Sort(s.spent)
	return fmt.Sprintf("%.0f messages/s accepted beside it, p50 %s p99 %s", float64(len(s.spent))/time.Since(s.start).Seconds(),
		quantile(s.spent, 0.5), quantile(s.spent, 0.99))
}
