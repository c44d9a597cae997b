// Package deliver moves accepted messages to providers.
//
// An Engine claims due messages under a lease, asks route where each may go, takes a slot of that account's limits in the
// same transaction, announces the call durably (the intent), makes exactly one call and records its result. A retry is a
// later claim, so each attempt is a row that someone can look at. No transaction is open and no lock is held during a
// call. Failover is only for outcomes that prove that nothing was sent. A send whose answer was lost is unknown, and goes
// to no other provider until evidence, or its deadline, decides.
//
// Two pure functions decide: planClaim what becomes of each due message, and next what the outcome of a call means, by the
// class that the adapter gave. State that replicas must agree on is in the database and uses its clock.
//
// A newcomer's likeliest mistake is to drop a claimed message on an error path. Every claimed message must end in
// Record, or be rescued. A row with neither stays in flight for as long as its replica lives.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// Build makes the adapter of an account. Package catalog implements it.
type Build func(kind provider.Kind, settings []byte, secrets map[string]seal.Secret) (provider.Provider, provider.Capabilities, error)

// Options shape an Engine. Zero durations take the defaults named.
type Options struct {
	Store       Store
	Build       Build
	Log         *slog.Logger
	Metrics     *telemetry.Metrics
	Spec        func(provider.Kind) (provider.Spec, bool)
	Unsubscribe Unsubscriber  // nil: bulk mail gets no link
	Policy      Policy        // 60 s, 40 min, fail; look-ups after 1, 5 and 30 min; probes after 5 min, up to an hour apart
	Lease       time.Duration // 15 s: how long after its last heartbeat a replica keeps its claims
	CallTimeout time.Duration // 30 s: one provider call
	ConfigPoll  time.Duration // 500 ms: how soon a change of configuration binds here
	Retention   time.Duration // 90 days: messages, recipients, attempts
	BodyAge     time.Duration // 7 days: bodies
	AuditAge    time.Duration // audit entries, by whole days; 0: they are kept
	KeyAge      time.Duration // 72 h: idempotency keys
}

func (o *Options) defaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.Policy.UnknownWait, time.Minute)
	set(&o.Policy.ReconcileDeadline, 40*time.Minute)
	set(&o.Policy.ProbeAfter, 5*time.Minute)
	set(&o.Policy.ProbeMax, time.Hour)
	set(&o.Lease, 15*time.Second)
	set(&o.CallTimeout, 30*time.Second)
	set(&o.ConfigPoll, 500*time.Millisecond)
	set(&o.Retention, 90*24*time.Hour)
	set(&o.BodyAge, 7*24*time.Hour)
	set(&o.KeyAge, 72*time.Hour)
	if o.Policy.Lookups == nil {
		o.Policy.Lookups = []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute}
	}
	if o.Policy.Repeats == nil {
		o.Policy.Repeats = defaultRepeats()
	}
	if o.Spec == nil {
		o.Spec = func(provider.Kind) (provider.Spec, bool) { return provider.Spec{}, false }
	}
}

// Engine is one replica's delivery. Make it with New, run it with Run. Its other methods are safe for concurrent use.
type Engine struct {
	Options
	host     string
	accounts accounts
	config   atomic.Pointer[route.Config]
	readings readings                // of the configuration
	owner    atomic.Pointer[mail.ID] // the id under which this replica claims; nil while it has no lease
	behind   atomic.Bool             // the configuration is only partly in force: it must be read again
	wake     chan struct{}
	lanes    lanes
	carrying carrying
	ended    callTallies
	claiming atomic.Bool    // a claim may still add to carrying
	carried  sync.WaitGroup // messages that this replica carries
	heavy    atomic.Int64   // bytes of the large ones among them
	intents  atomic.Int64   // those of carried whose intent is not committed yet
	calls    context.Context
	cut      context.CancelFunc // ends calls: provider calls in flight are given up, and become unknown
	finish   context.Context
	abandon  context.CancelFunc // ends finish: nothing is written any more
}

// New makes an engine that does nothing yet.
func New(o Options) (*Engine, error) {
	if o.Store == nil || o.Build == nil || o.Log == nil || o.Metrics == nil {
		return nil, errors.New("deliver: Store, Build, Log and Metrics are required")
	}
	o.defaults()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	e := &Engine{Options: o, host: fmt.Sprintf("%s/%d", host, os.Getpid()), wake: make(chan struct{}, 1)}
	e.accounts.init(&e.Options)
	e.lanes.init()
	e.carrying.ids = map[mail.ID]int{}
	e.finish, e.abandon = context.WithCancel(context.Background())
	e.calls, e.cut = context.WithCancel(e.finish)
	return e, nil
}

// dbWait bounds one exchange with the database outside of the lease. A server that vanished silently never answers, and
// only a new connection finds its successor.
const dbWait = 10 * time.Second

// recordGrace is the time for recording calls that were cut off as unknown.
const recordGrace = 3 * time.Second

// Run claims and delivers until ctx ends, then drains: it claims nothing more and finishes what it claimed, for at most
// drain. Calls that take longer are cut off and recorded as unknown; Run then returns an error that says how many.
func (e *Engine) Run(ctx context.Context, drain time.Duration) error {
	var loops sync.WaitGroup
	e.claiming.Store(true)
	loops.Go(func() { e.watchConfig(ctx) })
	loops.Go(func() { e.keepLease(ctx) })
	loops.Go(func() { e.maintain(ctx, e.quickJobs()) })
	loops.Go(func() { e.maintain(ctx, e.slowJobs()) })
	loops.Go(func() { e.reconcile(ctx) })
	loops.Go(func() { e.keepBooks(ctx) })
	loops.Go(func() {
		defer e.claiming.Store(false)
		e.claimLoop(ctx)
	})
	<-ctx.Done()
	done := make(chan struct{})
	go func() {
		defer close(done)
		loops.Wait()
		e.carried.Wait()
	}()
	var err error
	if !within(done, drain) {
		err = fmt.Errorf("drain: %d messages were in flight after %s: they are unknown now", e.carrying.count(), drain)
		e.cut()
		within(done, recordGrace)
	}
	clean := e.carrying.count() == 0
	e.abandon()
	<-done
	e.unregister(clean)
	e.accounts.close()
	return err
}

// within waits at most d and reports whether done was closed by then.
func within(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// unregister gives up the lease after a clean drain.
func (e *Engine) unregister(clean bool) {
	id := e.owner.Load()
	if id == nil || !clean { // without a clean drain the lease must run out: its claims need a rescuer
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := e.Store.Unregister(ctx, *id); err != nil {
		e.Log.Warn("replica not unregistered", "error", err)
	}
}

// Wake tells the engine that a message is ready in the lane.
func (e *Engine) Wake(l queue.Lane) {
	e.lanes.note(l)
	e.nudge()
}

// nudge wakes the claim loop and never blocks.
func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Config returns the configuration in force here, or nil before the first reading.
func (e *Engine) Config() *route.Config { return e.config.Load() }

// Lane returns the lane of a message with these facts, by the configuration in force here.
func (e *Engine) Lane(f *mail.Facts) int32 {
	if c := e.config.Load(); c != nil {
		return c.Lane(f)
	}
	return 0
}

// Explain routes a message that is not sent, as it would be routed here and now. A request without a seed gets one.
func (e *Engine) Explain(r route.Request) route.Decision {
	c := e.config.Load()
	if c == nil {
		return route.Decision{Candidates: []route.Candidate{}}
	}
	if r.Seed == 0 {
		r.Seed = route.Seed(mail.NewID())
	}
	r.Now = time.Now()
	v := newView(e.accounts.all(), r.Now)
	v.recipients = r.Facts.Recipients
	d, _ := route.Plan(c, v, r)
	return d
}

// carrying counts the claims that this replica carries, by message. The replica does not claim a message that it carries: a
// crash of the database may lose a claim, and the replica would then have the message twice, with one attempt number and
// one owner. The result of one call would close the other attempt, whose call is still under way.
type carrying struct {
	mu  sync.Mutex
	ids map[mail.ID]int
}

func (c *carrying) add(id mail.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids[id]++
}

func (c *carrying) remove(id mail.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids[id]--; c.ids[id] == 0 {
		delete(c.ids, id)
	}
}

// among returns those of the messages that are carried.
func (c *carrying) among(due []queue.Due) map[mail.ID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[mail.ID]bool{}
	for i := range due {
		if c.ids[due[i].ID] > 0 {
			found[due[i].ID] = true
		}
	}
	return found
}

func (c *carrying) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ids)
}

func (c *carrying) list() []mail.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]mail.ID, 0, len(c.ids))
	for id := range c.ids {
		ids = append(ids, id)
	}
	return ids
}
