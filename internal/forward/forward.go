// Package forward sends events to webhook endpoints.
//
// An Engine claims deliveries that are due, POSTs each with the signatures of Standard Webhooks, and records the outcome:
// delivered, to be tried again later, given up, or the endpoint disabled. The pure function next decides what an answer means.
// Events are delivered at least once: a receiver recognizes a repeated one by its webhook-id.
//
// Endpoints do not affect each other. Each may have a few calls at a time. One that fails has only one call at a time, and uses
// slots that failing endpoints share, so that any number of dead endpoints can't delay the others. The Client decides which
// addresses may be called.
//
// A newcomer's likeliest mistake is to record each delivery by itself. Results go through one recorder, which writes all
// that have gathered in one transaction.
package forward

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// Store is the part of the database that the engine needs.
type Store interface {
	// ClaimDeliveries takes deliveries that are due: at most each of an endpoint that works and one of an endpoint that
	// fails, minus busy. In all it takes at most healthy deliveries of endpoints that work, and failing of those that fail.
	// They are ours for the lease. It returns the secrets of each endpoint too. An error may come together with deliveries: it
	// is about others that are broken.
	ClaimDeliveries(ctx context.Context, each, healthy, failing int, lease time.Duration, busy map[mail.ID]int) (
		[]record.Delivery, map[mail.ID]map[string]seal.Secret, error)
	// FinishDeliveries records results in one transaction, and returns the endpoints that it disabled. A result without
	// an outcome gives its delivery back.
	FinishDeliveries(ctx context.Context, results []record.DeliveryResult) (disabled []mail.ID, err error)
	// EndpointSecrets returns an endpoint of the tenant and its secrets, or record.ErrNotFound.
	EndpointSecrets(ctx context.Context, tenant mail.TenantID, id mail.ID) (*record.Endpoint, map[string]seal.Secret, error)
}

// Options shape an Engine. Store, Client and Log are required.
type Options struct {
	Store   Store
	Client  *http.Client // calls public addresses only, and limits the time of each call
	Log     *slog.Logger
	Observe func(outcome string, took time.Duration) // called for each try
	Now     func() time.Time                         // to measure durations; default time.Now
	Clock   func() time.Time                         // the store's clock, for dates and signatures; default Now
	Jitter  func() float64                           // in [0, 1), default random
}

const (
	each       = 32   // deliveries of one endpoint held at a time
	width      = 4    // calls to one endpoint at a time
	calls      = 512  // calls at a time to endpoints that work
	weakCalls  = 64   // calls at a time to endpoints that fail
	testCalls  = 16   // calls at a time by Test
	maxHeld    = 4096 // deliveries held at a time
	lease      = 150 * time.Second
	longCall   = 20 * time.Second // no call takes longer
	busyPoll   = 250 * time.Millisecond
	idlePoll   = time.Second
	claimGap   = 20 * time.Millisecond // the least time between claims, so that each finds a batch
	dbWait     = 5 * time.Second
	recordMax  = 400 // results in one transaction
	recordTry  = 5
	recordWait = time.Second
)

// Engine is one replica's forwarding. Make it with New; call Run once. Test is safe for concurrent use.
type Engine struct {
	Options
	lanes   lanes
	strong  chan struct{} // slots for calls to endpoints that work
	weak    chan struct{} // slots for calls to endpoints that fail
	tests   chan struct{} // slots for calls by Test
	wake    chan struct{}
	stop    chan struct{} // closed when no further call may begin
	results chan record.DeliveryResult
	workers sync.WaitGroup
}

// New makes an engine that does nothing yet.
func New(o Options) (*Engine, error) {
	if o.Store == nil || o.Client == nil || o.Log == nil {
		return nil, errors.New("forward: Store, Client and Log are required")
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Clock == nil {
		o.Clock = o.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return &Engine{
		Options: o, lanes: lanes{byID: map[mail.ID]*lane{}},
		strong: make(chan struct{}, calls), weak: make(chan struct{}, weakCalls), tests: make(chan struct{}, testCalls),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), results: make(chan record.DeliveryResult, recordMax),
	}, nil
}

// Run forwards until ctx ends. Then it begins no further call, finishes those under way, which the Client's time limit bounds,
// gives back the other deliveries that it holds, and returns.
func (e *Engine) Run(ctx context.Context) {
	var recorder sync.WaitGroup
	recorder.Go(e.record)
	e.claimLoop(ctx)
	close(e.stop)
	for _, j := range e.lanes.drain() {
		e.results <- giveBack(j)
	}
	e.workers.Wait()
	close(e.results)
	recorder.Wait()
}

// claimLoop claims as soon as a lane runs empty, and at every poll.
func (e *Engine) claimLoop(ctx context.Context) {
	pause := busyPoll
	for {
		n, err := e.claim(ctx)
		switch {
		case err != nil:
			e.Log.WarnContext(ctx, "deliveries not claimed", "error", err)
			pause = idlePoll
		case n > 0:
			pause = busyPoll
		default:
			pause = min(pause*2, idlePoll)
		}
		if !rest(ctx, claimGap, nil) || !rest(ctx, pause, e.wake) {
			return
		}
	}
}

// rest waits for d or a signal on wake, and reports whether ctx is still valid.
func rest(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	}
	return ctx.Err() == nil
}

// claim takes as many deliveries as there is room for, and starts workers for them. It reports how many it took.
func (e *Engine) claim(ctx context.Context) (int, error) {
	busy, held, failing := e.lanes.busy()
	// If ctx ends now, the claimed deliveries must still be handled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dbWait)
	defer cancel()
	until := e.Now().Add(lease - longCall)
	claimed, secrets, err := e.Store.ClaimDeliveries(ctx, each, maxHeld-held, weakCalls-failing, lease, busy)
	if err != nil && len(claimed) == 0 {
		return 0, err
	}
	if err != nil {
		e.Log.ErrorContext(ctx, "some deliveries can't be made", "error", err)
	}
	found := map[mail.ID]int{}
	for i := range claimed {
		found[claimed[i].Endpoint.ID]++
	}
	for _, d := range claimed {
		id := d.Endpoint.ID
		if l := e.lanes.add(job{Delivery: d, secrets: secrets[id], until: until}, found[id] >= each-busy[id]); l != nil {
			e.workers.Go(func() { e.work(l) })
		}
	}
	return len(claimed), nil
}

// work makes the calls of a lane, one after the other, until it is empty or has too many workers.
func (e *Engine) work(l *lane) {
	for {
		j, ok := e.lanes.take(l)
		if !ok {
			return
		}
		r, made := e.deliver(l, j)
		if made {
			e.results <- r
		}
		if dry := e.lanes.done(l, r); dry {
			e.Wake()
		}
	}
}

// Wake makes the engine claim soon, and not at its next poll: there are new deliveries.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// deliver makes one try when it has a slot. If the engine stops before that, the delivery is given back. If its lease is about
// to end, it is left alone, because another replica may take it; then deliver returns false.
func (e *Engine) deliver(l *lane, j job) (record.DeliveryResult, bool) {
	slots := e.strong
	if e.lanes.failing(l) {
		slots = e.weak
	}
	select {
	case <-e.stop:
		return giveBack(j), true
	case slots <- struct{}{}:
	}
	defer func() { <-slots }()
	switch {
	case e.stopping():
		return giveBack(j), true
	case e.Now().After(j.until):
		return record.DeliveryResult{}, false
	}
	a := e.tell(context.Background(), j.Endpoint.URL, &j.Event, j.secrets)
	r := next(&j.Delivery, a, e.Jitter())
	e.Observe(r.Outcome, r.Took)
	level := slog.LevelDebug
	if r.Outcome != record.DeliveryDone {
		level = slog.LevelInfo
	}
	e.Log.LogAttrs(context.Background(), level, "webhook sent", slog.String("endpoint", r.Endpoint.String()),
		slog.String("event", r.Event.String()), slog.Int("try", r.N), slog.String("outcome", r.Outcome),
		slog.Int("status", r.Status), slog.String("error", r.Error), slog.Duration("took", r.Took))
	return r, true
}

func (e *Engine) stopping() bool {
	select {
	case <-e.stop:
		return true
	default:
		return false
	}
}

// giveBack is the result of a delivery that was not tried.
func giveBack(j job) record.DeliveryResult {
	return record.DeliveryResult{Endpoint: j.Endpoint.ID, Event: j.Event.ID, N: j.N}
}

// Test sends an example event once and at once to an endpoint of the tenant, even to a disabled one. The try is not in the
// endpoint's log and does not change the endpoint. Test returns record.ErrNotFound when there is no such endpoint.
func (e *Engine) Test(ctx context.Context, tenant mail.TenantID, id mail.ID) (record.DeliveryResult, error) {
	endpoint, secrets, err := e.Store.EndpointSecrets(ctx, tenant, id)
	if errors.Is(err, seal.ErrSealed) {
		return record.DeliveryResult{Endpoint: id, Event: mail.NewID(), N: 1, At: e.Clock().UTC(), Outcome: record.DeliveryFailed, Error: errSealed.Error()}, nil
	}
	if err != nil {
		return record.DeliveryResult{}, err
	}
	select {
	case <-ctx.Done():
		return record.DeliveryResult{}, context.Cause(ctx)
	case e.tests <- struct{}{}:
	}
	defer func() { <-e.tests }()
	d := record.Delivery{Endpoint: *endpoint, N: 1, Event: mail.Event{
		ID: mail.NewID(), Type: "test", Tenant: tenant, At: e.Clock(), Source: mail.FromSystem, N: -1,
	}}
	r := next(&d, e.tell(ctx, endpoint.URL, &d.Event, secrets), 0)
	if r.Outcome != record.DeliveryDone {
		r.Outcome, r.RetryIn, r.Disable = record.DeliveryFailed, 0, ""
	}
	return r, nil
}
