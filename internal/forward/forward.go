// Package forward tells webhook endpoints of events.
//
// An Engine claims deliveries that are due, POSTs each with the signatures of Standard Webhooks, and records what came of
// it: told, to be tried again later, given up, or the endpoint disabled. What an answer means is decided by next, a pure
// function. Events are told at least once: a receiver knows a repeated one by its webhook-id.
//
// Endpoints are kept apart. Each has a few calls at a time of its own; one that fails has a single one, out of slots
// that failing endpoints share, so that no number of dead endpoints delays the others. Which addresses may be called is
// the Client's to refuse.
//
// A newcomer's likeliest mistake is to record each delivery by itself. Results go through one recorder, which writes
// what has gathered in one transaction.
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

// Store is what the engine needs of the database.
type Store interface {
	// ClaimDeliveries takes deliveries that are due: at most each of an endpoint that takes what it is sent and one of an
	// endpoint that fails, minus busy, and in all no more than healthy and failing of the two sorts. They are ours for the
	// lease. The error may tell of some that are broken while the others are returned, with the secrets of each endpoint.
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
	Client  *http.Client // calls public addresses only, and bounds each call in time
	Log     *slog.Logger
	Observe func(outcome string, took time.Duration) // of each try
	Now     func() time.Time                         // default time.Now; for what takes time
	Clock   func() time.Time                         // of the store, for what is dated and signed; default Now
	Jitter  func() float64                           // in [0, 1), default random
}

const (
	each       = 32   // deliveries of one endpoint held at a time
	width      = 4    // calls to one endpoint at a time
	calls      = 512  // calls to endpoints that take what they are sent
	weakCalls  = 64   // calls to endpoints that fail
	testCalls  = 16   // calls on request
	maxHeld    = 4096 // deliveries held at a time
	lease      = 150 * time.Second
	longCall   = 20 * time.Second // no call takes longer
	busyPoll   = 250 * time.Millisecond
	idlePoll   = time.Second
	claimGap   = 20 * time.Millisecond // between claims at the least, so that each finds a batch
	dbWait     = 5 * time.Second
	recordMax  = 400 // results in one transaction
	recordTry  = 5
	recordWait = time.Second
)

// Engine is one replica's forwarding. Make it with New; call Run once. Test is safe for concurrent use.
type Engine struct {
	Options
	lanes   lanes
	strong  chan struct{} // slots for calls
	weak    chan struct{} // slots for calls to endpoints that fail
	tests   chan struct{} // slots for calls on request
	wake    chan struct{}
	stop    chan struct{} // closed when no call may begin
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

// Run forwards until ctx ends. Then it begins no call, finishes those under way, which the Client's time limit bounds,
// gives back what it holds beside, and returns.
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

// claimLoop claims as soon as a lane runs dry, and at every poll.
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

// rest waits for d or a word on wake, and reports whether ctx goes on.
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

// claim takes what there is room for and sets workers to it. It reports how much that was.
func (e *Engine) claim(ctx context.Context) (int, error) {
	busy, held, failing := e.lanes.busy()
	// What was claimed must not be forgotten because ctx ended meanwhile.
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
			e.nudge()
		}
	}
}

func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// deliver makes one try in a slot. Without one before the stop the delivery is given back; one whose lease is about to
// end is left alone, for another may have it.
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

func giveBack(j job) record.DeliveryResult {
	return record.DeliveryResult{Endpoint: j.Endpoint.ID, Event: j.Event.ID, N: j.N}
}

// Test sends an example event to an endpoint of the tenant, disabled or not, at once and once. It is neither logged nor
// does it change the endpoint. It returns record.ErrNotFound when there is no such endpoint.
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
