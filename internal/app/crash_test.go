package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// promises is a client's own record of every 202, on disk before the next request.
type promises struct {
	mu    sync.Mutex
	file  *os.File
	ids   map[string]string // id -> policy
	other map[string]int    // what else came back
}

func newPromises(t *testing.T) *promises {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "promises"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &promises{file: f, ids: map[string]string{}, other: map[string]int{}}
}

func (p *promises) note(id, policy string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintln(p.file, id); err != nil {
		return err
	}
	p.ids[id] = policy
	return p.file.Sync()
}

func (p *promises) refused(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind := "no answer"
	var problem *api.Problem
	if errors.As(err, &problem) {
		kind = fmt.Sprint(problem.Status)
	}
	p.other[kind]++
}

func (p *promises) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ids)
}

// load sends from a number of clients until ctx ends. Each asks where to send for every message.
func (p *promises) load(ctx context.Context, clients int, every time.Duration, where func(client int) *api.Client) *sync.WaitGroup {
	var wg sync.WaitGroup
	policies := []string{"never", "reconcile", "resend"}
	for c := range clients {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				m := letter(c*100_000 + i)
				m.OnAmbiguous = policies[i%len(policies)]
				got, err := where(c).Send(context.WithoutCancel(ctx), m, "")
				if err == nil {
					err = p.note(got.ID, m.OnAmbiguous)
				}
				if err != nil {
					p.refused(err)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return &wg
}

func TestEveryAcceptedMessageSurvivesKillsAndNoneIsSentTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	settings := []string{"SENDGATE_LEASE=2s", "SENDGATE_UNKNOWN_WAIT=1s", "SENDGATE_RECONCILE_DEADLINE=2s"}
	b.faults(t, map[string][]emulator.Fault{
		"mailgun":  {{Mode: "accept_then_drop", Count: 5}, {Mode: "latency", Latency: emulator.Duration(100 * time.Millisecond)}},
		"postmark": {{Mode: "accept_then_drop", Count: 5}, {Mode: "latency", Latency: emulator.Duration(300 * time.Millisecond)}},
		"ses":      {{Mode: "latency", Latency: emulator.Duration(100 * time.Millisecond)}},
	})
	var replicas [2]atomic.Pointer[process]
	for i := range replicas {
		replicas[i].Store(b.serve(t, settings...))
	}
	p := newPromises(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	clients := p.load(ctx, 16, 80*time.Millisecond, func(c int) *api.Client { return replicas[c%2].Load().api })
	for i := range 6 {
		pause(t, time.Second)
		victim := &replicas[i%2]
		victim.Load().kill()
		victim.Store(b.serve(t, settings...))
	}
	pause(t, time.Second)
	cancel()
	clients.Wait()
	b.faults(t, nil)
	t.Logf("accepted %d, other outcomes %v", p.count(), p.other)
	if p.count() < 200 {
		t.Errorf("accepted = %d: too few to show anything", p.count())
	}
	b.settle(t, 60*time.Second)
	b.audit(t, p)
}

// audit holds the promises, the database and the providers' ledger together.
func (b *bench) audit(t *testing.T, p *promises) {
	t.Helper()
	status := b.messageStatuses(t)
	ledger := b.ledger()
	tally := map[string]int{}
	twins := 0
	for id, policy := range p.ids {
		entries := len(ledger[id])
		tally[policy+" "+status[id]]++
		switch {
		case status[id] == "":
			t.Errorf("message %s was promised and is lost", id)
		case status[id] == "sent" && entries == 0:
			t.Errorf("message %s is sent and no provider has it", id)
		case status[id] != "sent" && status[id] != "failed_unknown":
			t.Errorf("message %s ended as %s", id, status[id])
		case policy != "resend" && entries > 1:
			t.Errorf("message %s, on_ambiguous %s, was sent %d times", id, policy, entries)
		case policy == "resend" && status[id] != "sent":
			t.Errorf("message %s, on_ambiguous resend, ended as %s", id, status[id])
		}
		twins += max(entries-1, 0)
	}
	uncertain := b.count(t.Context(), `SELECT count(*) FROM attempt t JOIN message m ON m.id = t.message_id
		WHERE m.on_ambiguous = 'resend' AND t.class = 'uncertain'`)
	t.Logf("%v; sent twice under resend: %d, their calls without an answer: %d", tally, twins, uncertain)
	if twins > uncertain {
		t.Errorf("sent twice = %d, want at most one for each of the %d calls without an answer", twins, uncertain)
	}
	b.checkAnnounced(t)
}

func (b *bench) messageStatuses(t *testing.T) map[string]string {
	t.Helper()
	rows, err := b.rows.Query(t.Context(), `SELECT id::text, status FROM message`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var id, status string
		if err := rows.Scan(&id, &status); err != nil {
			t.Fatal(err)
		}
		all[id] = status
	}
	return all
}

// checkAnnounced holds every call to the rule that its attempt was written down before it.
func (b *bench) checkAnnounced(t *testing.T) {
	t.Helper()
	for id, entries := range b.ledger() {
		for i, e := range entries {
			n := b.count(t.Context(), `SELECT count(*) FROM attempt t JOIN account a ON a.id = t.account_id
				WHERE t.message_id = $1 AND a.name = $2 AND t.started_at <= $3::timestamptz + interval '50 ms'`, id, e.Provider, e.At)
			if n < 1 {
				t.Errorf("message %s: call %d, to %s, has no attempt that began before it", id, i+1, e.Provider)
			}
		}
	}
}

func TestTerminationUnderLoadFailsNoRequestAndLeavesNothingUnknown(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	b.faults(t, map[string][]emulator.Fault{"ses": {{Mode: "latency", Latency: emulator.Duration(400 * time.Millisecond)}}})
	stays, goes := b.serve(t), b.serve(t)
	targets := newReadiness(t, b, stays.replica, goes.replica)
	p := newPromises(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	clients := p.load(ctx, 12, 10*time.Millisecond, targets.pick)
	pause(t, 1500*time.Millisecond)

	start := time.Now()
	goes.terminate(t)
	goes.exits(t, 30*time.Second)
	t.Logf("exit %s after SIGTERM", time.Since(start).Round(time.Millisecond))
	mine := b.count(t.Context(), `SELECT count(*) FROM inflight WHERE owner NOT IN (SELECT id FROM replica)`)
	if mine != 0 {
		t.Errorf("claims of the replica that drained = %d, want 0", mine)
	}
	if got := b.count(t.Context(), `SELECT count(*) FROM replica`); got != 1 {
		t.Errorf("replicas registered = %d, want 1", got)
	}
	pause(t, 500*time.Millisecond)
	cancel()
	clients.Wait()
	b.faults(t, nil)
	b.settle(t, 30*time.Second)

	t.Logf("accepted %d", p.count())
	if len(p.other) != 0 {
		t.Errorf("requests that failed = %v, want none", p.other)
	}
	if got := b.statuses(t); got["sent"] != p.count() || len(got) != 1 {
		t.Errorf("statuses = %v, want %d sent and nothing else", got, p.count())
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM attempt WHERE class <> 'accepted'`); n != 0 {
		t.Errorf("attempts that were not accepted = %d, want 0", n)
	}
	b.checkOnce(t)
}

func TestPausedReplicaSendsNothingThatAnotherTookOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	settings := []string{"SENDGATE_LEASE=2s", "SENDGATE_UNKNOWN_WAIT=30s", "SENDGATE_RECONCILE_DEADLINE=30s"}
	slow := []emulator.Fault{{Mode: "latency", Latency: emulator.Duration(200 * time.Millisecond)}}
	b.faults(t, map[string][]emulator.Fault{"ses": slow, "mailgun": slow, "smtp": slow, "sendgrid": slow, "postmark": slow})
	paused, other := b.serve(t, settings...), b.serve(t, settings...)
	const n = 1000
	submit(t, other.api, letters(n))
	eventually(t, settleTime, "both replicas carry messages", func() bool {
		return b.count(t.Context(), `SELECT count(DISTINCT owner) FROM inflight`) == 2
	})
	signal := func(sig syscall.Signal) {
		if err := paused.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	held := b.count(t.Context(), `SELECT count(*) FROM inflight`)
	pause(t, 5*time.Second)
	unknown := b.count(t.Context(), `SELECT count(*) FROM unknown`)
	signal(syscall.SIGCONT)
	b.faults(t, nil)
	b.settle(t, 20*time.Second)
	t.Logf("in flight at the pause: %d; unknown after the rescue: %d", held, unknown)
	b.checkOnce(t)
	// What was in a call when its replica was paused was sent, and the late answers say so.
	if got := b.statuses(t); got["sent"] != n {
		t.Errorf("statuses = %v, want %d sent", got, n)
	}
}

// readiness is a load balancer: it asks each replica whether it is ready and gives mail to those that are.
type readiness struct {
	ready [2]atomic.Bool
	of    [2]*replica
}

func newReadiness(t *testing.T, b *bench, of ...*replica) *readiness {
	t.Helper()
	r := &readiness{of: [2]*replica(of)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range r.of {
		r.ready[i].Store(true)
		wg.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				r.ready[i].Store(r.of[i].ready(ctx, b.http))
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

func (r *readiness) pick(client int) *api.Client {
	if i := client % 2; r.ready[i].Load() {
		return r.of[i].api
	}
	return r.of[(client+1)%2].api
}

// refusedStatus gives the status of a problem, or 0.
func refusedStatus(err error) int {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}
