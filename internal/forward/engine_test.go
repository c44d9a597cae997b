package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestEventIsToldSignedAndOnce(t *testing.T) {
	t.Parallel()
	b, s := newBed(t), newSink(t, nil)
	id := b.endpoint(t, s)
	events := b.queue(t, id, 3)
	var outcomes sync.Map
	b.run(t, Options{Observe: func(outcome string, _ time.Duration) { outcomes.Store(outcome, true) }}, s)
	until(t, "an empty outbox", func() bool { return b.waiting(t, id) == 0 })
	got := map[string]bool{}
	for _, c := range s.got() {
		got[c.id] = true
		if !strings.Contains(c.body, `"type":"message.delivered"`) || !strings.Contains(c.body, `"id":"`+c.id+`"`) {
			t.Errorf("webhook %s has the body %s", c.id, c.body)
		}
	}
	want := map[string]bool{events[0].String(): true, events[1].String(): true, events[2].String(): true}
	if diff := cmp.Diff(want, got); diff != "" || len(s.got()) != 3 {
		t.Errorf("%d calls (-want +got):\n%s", len(s.got()), diff)
	}
	entries, err := b.db.Deliveries(t.Context(), mail.DefaultTenant, id, mail.ID{}, 10)
	must(t, err)
	if len(entries) != 3 || entries[0].Outcome != record.DeliveryDone || entries[0].Status != 204 || entries[0].N != 1 {
		t.Errorf("log %+v, want three deliveries at the first try", entries)
	}
	e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, id)
	must(t, err)
	if e.LastSuccess.IsZero() || !e.FailingSince.IsZero() {
		t.Errorf("endpoint %+v, want a success", e)
	}
	if _, ok := outcomes.Load(record.DeliveryDone); !ok {
		t.Error("nothing was counted")
	}
	if text := b.log.String(); strings.Contains(text, "canary") || strings.Contains(text, "whsec") {
		t.Errorf("the log tells what it must not:\n%s", text)
	}
}

// emptyStore has no deliveries, and counts how often it was asked.
type emptyStore struct {
	Store
	asked int
}

func (s *emptyStore) ClaimDeliveries(context.Context, int, int, int, time.Duration, map[mail.ID]int) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
	s.asked++
	return nil, nil, nil
}

// An idle engine asks once a second. It asks within a moment if it is woken, however often.
func TestWokenEngineAsksAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &emptyStore{}
		e, err := New(Options{Store: s, Client: http.DefaultClient, Log: slog.New(slog.DiscardHandler)})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); e.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		idle := s.asked
		if idle > 13 {
			t.Errorf("an idle engine asks %d times in 10 s", idle)
		}
		for range 10 {
			e.Wake()
		}
		time.Sleep(3 * claimGap)
		synctest.Wait()
		if n := s.asked - idle; n < 1 || n > 3 {
			t.Errorf("claims after 10 calls of Wake = %d, want 1 to 3", n)
		}
		cancel()
		<-done
	})
}

func TestFailedTryIsRepeatedWithAFreshSignature(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var broken atomic.Bool
	broken.Store(true)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	id := b.endpoint(t, s)
	b.queue(t, id, 1)
	var skew atomic.Int64 // the clock is moved between the tries
	b.run(t, Options{
		Jitter: func() float64 { return .5 },
		Now:    func() time.Time { return time.Now().Add(time.Duration(skew.Load())) },
	}, s)
	until(t, "a failed try", func() bool { return get[int](t, b, `SELECT count(*) FROM delivery`) == 1 })
	if wait := get[time.Duration](t, b, `SELECT due - now() FROM outbox`); wait > 5*time.Second {
		t.Errorf("tried again in %s, want at most 5 s", wait)
	}
	skew.Store(int64(2 * time.Second))
	broken.Store(false)
	b.exec(t, `UPDATE outbox SET due = now()`)
	until(t, "an empty outbox", func() bool { return b.waiting(t, id) == 0 })
	calls := s.got()
	if len(calls) != 2 || calls[0].id != calls[1].id || calls[0].body != calls[1].body || calls[0].stamp == calls[1].stamp {
		t.Errorf("tries %+v, want two of one id and body, with other times", calls)
	}
	entries, err := b.db.Deliveries(t.Context(), mail.DefaultTenant, id, mail.ID{}, 10)
	must(t, err)
	want := []record.DeliveryEntry{
		{DeliveryResult: record.DeliveryResult{Endpoint: id, N: 2, Status: 200, Outcome: record.DeliveryDone}},
		{DeliveryResult: record.DeliveryResult{Endpoint: id, N: 1, Status: 502, Outcome: record.DeliveryRetry, Error: "Bad Gateway"}},
	}
	ignore := cmpopts.IgnoreFields(record.DeliveryEntry{}, "ID", "Event", "At", "Took")
	if diff := cmp.Diff(want, entries, ignore); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestDeadEndpointDelaysNoOther(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	answer, release := hanging()
	defer release()
	dead, alive := newSink(t, answer), newSink(t, nil)
	deadID, aliveID := b.endpoint(t, dead), b.endpoint(t, alive)
	b.queue(t, deadID, 10_000)
	stop := b.run(t, Options{}, dead, alive)
	until(t, "all that the dead one may take", func() bool { return dead.arrived.Load() == width })
	b.queue(t, aliveID, 100)
	until(t, "all events at the one that lives", func() bool { return b.waiting(t, aliveID) == 0 })
	if n := dead.arrived.Load(); n != width { // nothing that the dead one had was waited for
		t.Errorf("%d calls to the dead one, want %d that still wait", n, width)
	}
	if n := alive.arrived.Load(); n != 100 {
		t.Errorf("%d calls to the one that lives, want 100", n)
	}
	release()
	stop()
	if n := b.waiting(t, deadID); n < 9_000 {
		t.Errorf("%d wait for the dead one", n)
	}
}

func TestManyDeadEndpointsDelayNoOther(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	answer, release := hanging()
	defer release()
	dead, alive := newSink(t, answer), newSink(t, nil)
	for i := range 10 { // tenants of twenty endpoints each
		tenant, err := b.db.CreateTenant(t.Context(), "tester", record.Tenant{Name: fmt.Sprintf("dead-%d", i), Weight: 100})
		must(t, err)
		for range 20 {
			_, err := b.db.CreateEndpoint(t.Context(), "tester", record.Endpoint{Tenant: tenant.ID, URL: dead.URL}, dead.secret, seal.Secret{})
			must(t, err)
		}
	}
	b.exec(t, `UPDATE webhook_endpoint SET failing_since = now()`)
	b.exec(t, `INSERT INTO outbox (endpoint_id, event_id) SELECT w.id, new_event_id() FROM webhook_endpoint w, generate_series(1, 50)`)
	b.exec(t, `INSERT INTO event (id, origin, tenant_id, type, at, source, key)
		SELECT event_id, event_id, 1, 'delivered', now(), 'webhook', event_id FROM outbox`)
	aliveID := b.endpoint(t, alive)
	b.run(t, Options{}, dead, alive)
	until(t, "as many calls to the dead as there may be", func() bool { return dead.arrived.Load() == weakCalls })
	b.queue(t, aliveID, 50)
	until(t, "all events at the one that lives", func() bool { return b.waiting(t, aliveID) == 0 })
	if n := dead.arrived.Load(); n != weakCalls {
		t.Errorf("%d calls to the dead, want %d that still wait", n, weakCalls)
	}
	if n := get[int](t, b, `SELECT count(*) FROM outbox WHERE due > now()`); n != weakCalls {
		t.Errorf("%d deliveries to the dead are held, want no more than are called", n)
	}
}

func TestEndpointGetsFourCallsAtATimeAndNoQueryPerDelivery(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := newSink(t, nil)
	id := b.endpoint(t, s)
	b.queue(t, id, 1000)
	store := &counting{Store: b.db}
	b.run(t, Options{Store: store}, s)
	until(t, "a thousand events", func() bool { return b.waiting(t, id) == 0 })
	if s.most > width {
		t.Errorf("%d calls at a time, want at most %d", s.most, width)
	}
	if n := s.arrived.Load(); n != 1000 {
		t.Errorf("%d calls, want 1000", n)
	}
	if claims, finishes := store.claims.Load(), store.finishes.Load(); claims > 250 || finishes > 600 {
		t.Errorf("%d claims and %d records for 1000 deliveries", claims, finishes)
	}
}

// counting counts what an engine asks of its store.
type counting struct {
	Store
	claims, finishes atomic.Int64
}

func (c *counting) ClaimDeliveries(ctx context.Context, each, healthy, failing int, lease time.Duration, busy map[mail.ID]int) (
	[]record.Delivery, map[mail.ID]map[string]seal.Secret, error,
) {
	c.claims.Add(1)
	return c.Store.ClaimDeliveries(ctx, each, healthy, failing, lease, busy)
}

func (c *counting) FinishDeliveries(ctx context.Context, rs []record.DeliveryResult) ([]mail.ID, error) {
	c.finishes.Add(1)
	return c.Store.FinishDeliveries(ctx, rs)
}

func TestFailingEndpointIsTriedOneAtATime(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	answer, release := hanging()
	defer release()
	s := newSink(t, answer)
	id := b.endpoint(t, s)
	b.exec(t, `UPDATE webhook_endpoint SET failing_since = now()`)
	b.queue(t, id, 20)
	store := &counting{Store: b.db}
	b.run(t, Options{Store: store}, s)
	until(t, "some claims", func() bool { return store.claims.Load() > 5 })
	if n := s.arrived.Load(); n != 1 {
		t.Errorf("%d calls to a failing endpoint, want 1 at a time", n)
	}
	release() // it takes the first: it is well again
	until(t, "an empty outbox", func() bool { return b.waiting(t, id) == 0 })
}

func TestOwnersHeadersAreSentAlong(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := newSink(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if r.Header.Get("X-Key") != "v" || user != "u" || password != "p" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	made, err := b.db.CreateEndpoint(t.Context(), "tester", record.Endpoint{Tenant: mail.DefaultTenant, URL: s.URL}, s.secret,
		seal.NewSecret(`{"Authorization":"Basic dTpw","X-Key":"v","Content-Type":"text/plain"}`)) // ours stand above the owner's
	must(t, err)
	b.queue(t, made.ID, 3)
	b.run(t, Options{}, s)
	until(t, "an empty outbox", func() bool { return b.waiting(t, made.ID) == 0 })
	if n := s.arrived.Load(); n != 3 {
		t.Errorf("%d calls, want each to be taken at once", n)
	}
	r, err := b.engine.Test(t.Context(), mail.DefaultTenant, made.ID)
	if err != nil || r.Status != http.StatusOK {
		t.Errorf("test: %+v, %v", r, err)
	}
}

func TestGoneEndpointIsDisabledAndTheOthersAreTold(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	gone, listener := newSink(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }), newSink(t, nil)
	id := b.endpoint(t, gone)
	b.endpoint(t, listener, mail.EventEndpointDisabled)
	b.queue(t, id, 20)
	b.run(t, Options{}, gone, listener)
	until(t, "the news at the other endpoint", func() bool { return listener.arrived.Load() == 1 })
	if body := listener.got()[0].body; !strings.Contains(body, `"type":"endpoint.disabled"`) || !strings.Contains(body, `"url":"`+gone.URL) ||
		!strings.Contains(body, `"provider_type":"the endpoint answered 410 Gone"`) {
		t.Errorf("the news are %s", body)
	}
	e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, id)
	must(t, err)
	if !e.Disabled || e.DisabledReason == "" {
		t.Errorf("endpoint %+v, want it disabled", e)
	}
	if n := get[int](t, b, `SELECT count(*) FROM audit WHERE action = 'webhook_endpoint.disable'`); n != 1 {
		t.Errorf("%d audit entries, want 1", n)
	}
	until(t, "the log line", func() bool { return strings.Contains(b.log.String(), "webhook endpoint disabled") })
	if n := strings.Count(b.log.String(), "webhook endpoint disabled"); n != 1 {
		t.Errorf("%d log lines say so, want 1", n)
	}
	// When it is enabled again, it gets the waiting events.
	before := gone.arrived.Load()
	_, err = b.db.UpdateEndpoint(t.Context(), "tester", mail.DefaultTenant, id, nil, func(e *record.Endpoint) error { e.Disabled = false; return nil })
	must(t, err)
	until(t, "another try", func() bool { return gone.arrived.Load() > before })
}

func TestRunFinishesItsCallsAndGivesTheRestBack(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	answer, release := hanging()
	defer release()
	s := newSink(t, answer)
	id := b.endpoint(t, s)
	b.queue(t, id, 30)
	stop := b.run(t, Options{}, s)
	until(t, "calls under way", func() bool { return s.arrived.Load() == width })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	until(t, "the rest given back", func() bool {
		return get[int](t, b, `SELECT count(*) FROM outbox WHERE due <= now() AND tries = 0`) == 30-width
	})
	select {
	case <-stopped:
		t.Fatal("Run left calls under way")
	default:
	}
	release()
	<-stopped
	if n := b.waiting(t, id); n != 30-width || s.arrived.Load() != width {
		t.Errorf("%d wait after %d calls, want %d after %d", n, s.arrived.Load(), 30-width, width)
	}
	if n := get[int](t, b, `SELECT count(*) FROM delivery WHERE outcome = 'delivered'`); n != width {
		t.Errorf("%d tries in the log, want %d", n, width)
	}
}

func TestForbiddenAddressIsAFailureThatTellsNoAddress(t *testing.T) {
	t.Parallel()
	b, s := newBed(t), newSink(t, nil)
	id := b.endpoint(t, s)
	b.queue(t, id, 1)
	b.run(t, Options{}) // without the sink among the exceptions
	until(t, "a failed try", func() bool { return get[int](t, b, `SELECT count(*) FROM delivery`) == 1 })
	if got := get[string](t, b, `SELECT error FROM delivery`); !strings.HasPrefix(got, "address not allowed") || strings.Contains(got, "127.0.0.1") {
		t.Errorf("the log says %q", got)
	}
	if s.arrived.Load() != 0 {
		t.Error("it was called")
	}
}

func TestBrokenSecretFailsItsOwnEndpointOnly(t *testing.T) {
	t.Parallel()
	b, broken, sound := newBed(t), newSink(t, nil), newSink(t, nil)
	brokenID, soundID := b.endpoint(t, broken), b.endpoint(t, sound)
	b.exec(t, `UPDATE webhook_endpoint SET secret = 'nonsense' WHERE id = $1`, [16]byte(brokenID))
	b.queue(t, brokenID, 1)
	b.queue(t, soundID, 1)
	b.run(t, Options{}, broken, sound)
	until(t, "both tries", func() bool { return get[int](t, b, `SELECT count(*) FROM delivery`) == 2 })
	if broken.arrived.Load() != 0 || sound.arrived.Load() != 1 {
		t.Errorf("%d unsigned calls, %d signed ones", broken.arrived.Load(), sound.arrived.Load())
	}
	if got := get[string](t, b, `SELECT error FROM delivery WHERE endpoint_id = $1`, [16]byte(brokenID)); got != errSealed.Error() {
		t.Errorf("the log says %q, want %q", got, errSealed)
	}
}

func TestTestSendsAnExampleOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	statuses := map[int]string{204: record.DeliveryDone, 500: record.DeliveryFailed, 410: record.DeliveryFailed, 302: record.DeliveryFailed}
	for status, outcome := range statuses {
		s := newSink(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		id := b.endpoint(t, s, mail.EventBounced)
		b.exec(t, `UPDATE webhook_endpoint SET disabled = true WHERE id = $1`, [16]byte(id))
		before := get[string](t, b, `SELECT row_to_json(w)::text FROM webhook_endpoint w WHERE id = $1`, [16]byte(id))
		b.run(t, Options{}, s)
		r, err := b.engine.Test(t.Context(), mail.DefaultTenant, id)
		must(t, err)
		if r.Outcome != outcome || r.Status != status || r.N != 1 || r.RetryIn != 0 || r.Disable != "" || r.Endpoint != id {
			t.Errorf("%d: result %+v, want %s", status, r, outcome)
		}
		calls := s.got()
		if len(calls) != 1 || calls[0].id != r.Event.String() || !strings.Contains(calls[0].body, `"type":"message.test"`) {
			t.Errorf("%d: calls %+v", status, calls)
		}
		if diff := cmp.Diff(before, get[string](t, b, `SELECT row_to_json(w)::text FROM webhook_endpoint w WHERE id = $1`, [16]byte(id))); diff != "" {
			t.Errorf("%d: the endpoint changed:\n%s", status, diff)
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM delivery`); n != 0 {
		t.Errorf("%d tests are in the log", n)
	}
	for _, tenant := range []mail.TenantID{2, mail.DefaultTenant} {
		if _, err := b.engine.Test(t.Context(), tenant, mail.NewID()); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("test of no endpoint: %v, want %v", err, record.ErrNotFound)
		}
	}
}
