//go:build drill

package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// promise is one line of a client's log: a message that the client wants to send or, with an ID, the 202 that it got.
type promise struct {
	Key    string        `json:"key"` // Idempotency-Key
	ID     string        `json:"id,omitempty"`
	Policy string        `json:"policy"`
	Tenant string        `json:"tenant"`
	Poison bool          `json:"poison,omitempty"`
	Bare   bool          `json:"bare,omitempty"`  // sent without its key
	Open   bool          `json:"open,omitempty"`  // no client got the outcome
	Hasty  time.Duration `json:"hasty,omitempty"` // hangs up then, 0 never
	Took   time.Duration `json:"took,omitempty"`  // of the request that was answered
	At     time.Time     `json:"at,omitzero"`     // of the 202
	Tries  int           `json:"tries,omitempty"`
}

// clients send at a rate, each to any replica that is ready, and behave as real callers do. Most give a key, and repeat a
// request with it until it is answered or the drill has healed. Some give no key: they repeat a request that was refused with
// a 503, and give up if the outcome is unknown. Some of both kinds hang up early, and some send invalid requests in between.
type clients struct {
	rig     *rig
	ended   atomic.Bool        // no new messages
	cancel  context.CancelFunc // nothing more at all
	wg      sync.WaitGroup
	mu      sync.Mutex
	refused map[string]int // answers other than 202, by status; "none" for none
	took202 []answered
}

const perClient = 15 // messages a second that one client is asked for at most, unless there are too many

const patience = 40 * time.Second // of a client with one message

// One in so many messages is sent without a key, by a client that hangs up early, or after an invalid request.
const (
	bareEvery  = 5
	hastyEvery = 10
	wrongEvery = 20
	bareTag    = "bare"
)

func (r *rig) startClients(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &clients{rig: r, cancel: cancel, refused: map[string]int{}}
	r.clients = c
	n, perSecond := r.plan.load.clients, r.plan.load.perSecond()
	if n == 0 {
		n = min(max(12, int(perSecond/perClient)), 96)
	}
	every := time.Duration(float64(n) / perSecond * float64(time.Second))
	for i := range n {
		log, err := os.Create(filepath.Join(r.dir, fmt.Sprintf("client-%02d.jsonl", i)))
		if err != nil {
			t.Fatal(err)
		}
		c.wg.Go(func() {
			defer func() { _ = log.Close() }()
			c.run(ctx, i, every, log)
		})
	}
	t.Cleanup(func() {
		c.ended.Store(true)
		cancel()
		c.wg.Wait()
	})
}

// stop ends the sending of new messages; requests without an answer are still repeated.
func (c *clients) stop() { c.ended.Store(true) }

func (c *clients) run(ctx context.Context, client int, every time.Duration, log *os.File) {
	rng := random(fmt.Sprintf("%s client %d", c.rig.id, client))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; !c.ended.Load(); n++ {
		x := c.rig.plan.load.compose(rng, client, n)
		p := promise{Key: fmt.Sprintf("%s-%d-%d", c.rig.id, client, n), Policy: x.policy, Tenant: x.tenant, Poison: x.poison}
		if p.Bare = rng.IntN(bareEvery) == 0; p.Bare {
			x.request.Tags = []string{bareTag}
		}
		if rng.IntN(hastyEvery) == 0 {
			p.Hasty = time.Duration(50+rng.IntN(950)) * time.Millisecond
		}
		if note(log, p) != nil {
			return
		}
		if rng.IntN(wrongEvery) == 0 {
			c.sendWrong(ctx, x)
		}
		if (c.send(ctx, x, &p) || p.Open) && note(log, p) != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// note writes a line and waits for the disk.
func note(log *os.File, p promise) error {
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if _, err := log.Write(append(line, '\n')); err != nil {
		return err
	}
	return log.Sync()
}

// send repeats one request until it has its 202, and reports whether it got one.
func (c *clients) send(ctx context.Context, x letter, p *promise) bool {
	deadline := time.Now().Add(patience)
	for p.Tries = 1; time.Now().Before(deadline) && ctx.Err() == nil; p.Tries++ {
		r := c.pick(p.Tries)
		if r == nil {
			sleep(ctx, 50*time.Millisecond)
			continue
		}
		start := time.Now()
		got, err := c.try(ctx, r, x, p)
		if err == nil {
			p.At = time.Now()
			p.ID, p.Took = got.ID, p.At.Sub(start)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.took202 = append(c.took202, answered{start, time.Now()})
			return true
		}
		if hungUp := p.Hasty > 0 && errors.Is(err, context.DeadlineExceeded); !hungUp && c.refuse(err) { // it will be refused again
			return false
		}
		if p.Bare && !neverStored(err) {
			p.Open = true
			return false
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return false
}

// try makes one request.
func (c *clients) try(ctx context.Context, r *replica, x letter, p *promise) (*api.SendResult, error) {
	if p.Hasty > 0 && p.Tries == 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Hasty)
		defer cancel()
	}
	key := p.Key
	if p.Bare {
		key = ""
	}
	return api.NewWith("http://"+r.api, c.rig.keys[x.tenant], c.rig.http).Send(ctx, x.request, key)
}

// neverStored reports whether an answer says that the request may be repeated without a key, or whether the request can't
// have arrived.
func neverStored(err error) bool {
	p, answered := errors.AsType[*api.Problem](err)
	return answered && p.Status != http.StatusGatewayTimeout || errors.Is(err, syscall.ECONNREFUSED)
}

// sendWrong sends a request that no server may accept.
func (c *clients) sendWrong(ctx context.Context, x letter) {
	r := c.pick(1)
	if r == nil {
		return
	}
	x.request.To, x.request.Cc = nil, nil
	_, err := api.NewWith("http://"+r.api, c.rig.keys[x.tenant], c.rig.http).Send(ctx, x.request, "")
	p, answered := errors.AsType[*api.Problem](err)
	if err == nil || answered && p.Status < 500 && p.Status != http.StatusUnprocessableEntity {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refused["wrong"]++
	}
}

// pick chooses among the replicas that are up, another one at each try.
func (c *clients) pick(try int) *replica {
	var up []*replica
	for _, r := range c.rig.replicas {
		if r.up.Load() {
			up = append(up, r)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return up[(try+int(c.rig.turn.Add(1)))%len(up)]
}

// answered is one 202: when the request began, and when the answer came.
type answered struct{ asked, came time.Time }

// refuse counts an answer other than a 202 and reports whether it is final.
func (c *clients) refuse(err error) bool {
	kind, final := "none", false
	if p, ok := errors.AsType[*api.Problem](err); ok {
		kind, final = strconv.Itoa(p.Status), p.Status < 500 && p.Status != 429
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[kind]++
	return final
}

// answers counts the answers other than 202, by kind.
func (c *clients) answers(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused[kind]
}

// acceptedSince counts the 202s since a time, and returns when the first of them came.
func (c *clients) acceptedSince(at time.Time) (n int, first time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.took202 {
		if x.came.After(at) {
			if n == 0 {
				first = x.came
			}
			n++
		}
	}
	return n, first
}

// askedSince counts the 202s to requests that began after a time. Others may have been committed before it.
func (c *clients) askedSince(at time.Time) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.took202 {
		if x.asked.After(at) {
			n++
		}
	}
	return n
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// promises reads the clients' logs from disk: the result of each message, by key.
func (r *rig) promises(t *testing.T) []promise {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(r.dir, "client-*.jsonl"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("logs of clients: %v, %v", paths, err)
	}
	byKey := map[string]promise{}
	for _, path := range paths {
		readLines(t, path, func(p promise) { byKey[p.Key] = p })
	}
	all := make([]promise, 0, len(byKey))
	for _, p := range byKey {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b promise) int { return int(a.Took - b.Took) })
	return all
}

// readLines reads a file of JSON lines.
func readLines[T any](t *testing.T, path string, each func(T)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var x T
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		each(x)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}
