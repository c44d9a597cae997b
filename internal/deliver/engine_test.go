package deliver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// fakeStore answers what a test sets; everything else is a nil dereference.
type fakeStore struct {
	Store
	load      func(context.Context, []mail.ID) (map[mail.ID]queue.Loaded, error)
	claim     func(context.Context, func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error
	heartbeat func(context.Context) (int, error)
	intend    func(context.Context, queue.Intent) (bool, error)
	secrets   func() error
	recorded  chan queue.Result
	freed     int
	ended     []queue.Ending
	endFails  error
	gone      []int // who was suppressed between claim and intent
}

func (s *fakeStore) Load(ctx context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
	return s.load(ctx, ids)
}

func (s *fakeStore) Claim(ctx context.Context, _ mail.ID, _ []queue.LaneQuota,
	decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim,
) error {
	return s.claim(ctx, decide)
}

func (s *fakeStore) End(_ context.Context, endings []queue.Ending) error {
	s.ended = append(s.ended, endings...)
	return s.endFails
}

func (s *fakeStore) Intend(ctx context.Context, _ mail.ID, in queue.Intent) (queue.Announced, error) {
	ok, err := s.intend(ctx, in)
	return queue.Announced{OK: ok, Suppressed: s.gone}, err
}

func (s *fakeStore) Report(context.Context, mail.ID, record.ReplicaReport) error { return nil }

func (s *fakeStore) Heartbeat(ctx context.Context, _ mail.ID, _ time.Duration) (int, error) {
	return s.heartbeat(ctx)
}

func (s *fakeStore) Record(_ context.Context, _ mail.ID, r queue.Result) (bool, error) {
	s.recorded <- r
	return true, nil
}

func (s *fakeStore) Register(ctx context.Context, _ mail.ID, _ string, _ time.Duration) error {
	_, err := s.heartbeat(ctx)
	return err
}

func (*fakeStore) Orphans(context.Context, mail.ID, []mail.ID, map[mail.Policy]time.Duration) (int, error) {
	return 0, nil
}

func (*fakeStore) AccountingAlone(context.Context) (queue.Accounting, bool, error) {
	return queue.Accounting{}, false, nil // another replica is at it
}

func (*fakeStore) TallyCalls(context.Context, []record.CallTally) error { return nil }

func (*fakeStore) NoteBooks(context.Context, *queue.Accounting) error { return nil }

func (s *fakeStore) Secrets(context.Context, int32) (map[string]seal.Secret, error) {
	return nil, s.secrets()
}

func (*fakeStore) ConfigVersion(context.Context) (int64, error) { return 1, nil }

func (*fakeStore) Config(context.Context) (*route.Config, error) { return testConfig(), nil }

func (s *fakeStore) FreeHeld(context.Context, int) (bool, error) {
	s.freed++
	return true, nil
}

func (*fakeStore) Relane(context.Context, mail.ID, int, func(*mail.Facts) int32) (mail.ID, error) {
	return mail.ID{}, nil
}

// fakeProvider does what a test says.
type fakeProvider func(ctx context.Context) (provider.Receipt, error)

func (f fakeProvider) Send(ctx context.Context, _ *provider.Send) (provider.Receipt, error) {
	return f(ctx)
}

func (fakeProvider) Close() error { return nil }

func testConfig() *route.Config {
	return &route.Config{
		Version:  1,
		Accounts: []route.Account{{ID: 7, Name: "ses-eu", Concurrency: 300}},
		Pools:    []route.Pool{{ID: 1, Name: route.DefaultPool, Members: []route.Member{{Account: "ses-eu", Weight: 1}}}},
	}
}

// testEngine has one account, whose calls do what send says.
func testEngine(t *testing.T, store *fakeStore, send fakeProvider) *Engine {
	t.Helper()
	store.recorded = make(chan queue.Result, 300)
	if store.secrets == nil {
		store.secrets = func() error { return nil }
	}
	build := func(provider.Kind, []byte, map[string]seal.Secret) (provider.Provider, provider.Capabilities, error) {
		return send, provider.Capabilities{}, nil
	}
	e, err := New(Options{
		Store: store, Build: build, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.New(telemetry.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// loadConfig makes testConfig the one in force.
func loadConfig(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.refreshConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func testItem(e *Engine) *item {
	now := time.Now()
	return &item{
		due: queue.Due{ID: mail.NewID(), Facts: &mail.Facts{Recipients: 1}}, acc: e.accounts.get(7), account: 7,
		slot: now, dbNow: now, localNow: now, announced: now,
	}
}

// loaded is what the store loaded for a message.
func loaded(it *item, l queue.Loaded) map[mail.ID]queue.Loaded {
	return map[mail.ID]queue.Loaded{it.due.ID: l}
}

// A reading of the configuration, an upkeep job that walks the accounts and a heartbeat that changes their share each
// take two locks.
func TestReloadWalkAndHeartbeatDoNotLockEachOtherOut(t *testing.T) {
	t.Parallel()
	e := testEngine(t, &fakeStore{}, nil)
	loadConfig(t, e)
	var all sync.WaitGroup
	for _, f := range []func(int){
		func(int) { _ = e.accounts.reload(context.Background(), testConfig()) },
		func(int) { e.accounts.each(func(_ int32, a *account) { a.block(time.Time{}) }) },
		func(int) { e.accounts.each(func(_ int32, a *account) { a.block(time.Time{}) }) },
		func(i int) { e.accounts.setReplicas(1 + i%2) },
		func(i int) { e.accounts.setReplicas(1 + i%2) },
	} {
		all.Go(func() {
			for i := range 20000 {
				f(i)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("they wait for each other")
	}
}

func TestMessageOfAHalfFailedLoadGoesBackToTheQueue(t *testing.T) {
	t.Parallel()
	store := &fakeStore{load: func(_ context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
		return map[mail.ID]queue.Loaded{ids[0]: {Message: &mail.Message{ID: ids[0]}}}, errors.New("connection reset")
	}}
	e := testEngine(t, store, nil)
	loadConfig(t, e)
	e.carryAll([]*item{testItem(e)})
	if r := <-store.recorded; r.Requeue == nil {
		t.Errorf("the claim was closed with %+v and goes nowhere: the message is lost", r)
	}
	e.carried.Wait()
}

// claimOf runs one claim over n messages that expire after the given time.
func claimOf(t *testing.T, store *fakeStore, n int, expires time.Duration, change func(*queue.Due)) []queue.LaneQuota {
	t.Helper()
	store.claim = func(_ context.Context, decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
		now := time.Now()
		var due []queue.Due
		for range n {
			d := queue.Due{
				ID: mail.NewID(), Lane: queue.Lane{Number: 1, Tenant: 1}, Due: now.Add(-time.Hour), ExpiresAt: now.Add(expires),
				Facts: &mail.Facts{Recipients: 1, SenderDomain: "example.com"},
			}
			if change != nil {
				change(&d)
			}
			due = append(due, d)
		}
		decide(now, due, map[int32]*limit.Account{7: {}})
		return nil
	}
	e := testEngine(t, store, nil)
	loadConfig(t, e)
	owner := mail.NewID()
	e.owner.Store(&owner)
	e.lanes.note(queue.Lane{Number: 1, Tenant: 1})
	if wait := e.claimOnce(t.Context()); wait > claimPause {
		t.Errorf("the next claim waits for %s", wait)
	}
	quotas, _ := e.lanes.ask(200, time.Now())
	return quotas
}

func TestExpiredMessagesDoNotHoldUpThoseBehindThem(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	if quotas := claimOf(t, store, 16, -time.Minute, nil); len(quotas) == 0 {
		t.Error("the lane sleeps, though more may lie behind the messages that have expired")
	}
	if len(store.ended) != 16 || store.ended[0].Status != mail.Expired {
		t.Errorf("ended: %v, want 16 that expired", store.ended)
	}
}

func TestExpiredMessagesThatCouldNotBeEndedAreFoundAgain(t *testing.T) {
	t.Parallel()
	store := &fakeStore{endFails: &record.Unavailable{Reason: "database"}}
	quotas := claimOf(t, store, 16, -time.Minute, nil)
	if len(quotas) != 1 || !quotas[0].Low.IsZero() {
		t.Errorf("the next claim asks for %v, want the lane from its beginning", quotas)
	}
}

// Shares follow heartbeats: when a replica joins, the others are still at the whole of an account's concurrency.
func TestConcurrencyIsNotExceededWhileSharesMove(t *testing.T) {
	t.Parallel()
	in := testInput(testDue(), testDue(), testDue())
	in.limits = map[int32]*limit.Account{1: {Open: limit.Open{Calls: 298}}}
	if p := planClaim(in); len(p.Take) != 2 {
		t.Errorf("took %d beside 298 calls of all replicas, where 300 may be in flight", len(p.Take))
	}
}

// Messages whose sender an operator must put in order stand at the head of a lane whose account works.
func TestUnfitMessagesDoNotHoldUpThoseBehindThem(t *testing.T) {
	t.Parallel()
	avoid := func(d *queue.Due) {
		d.Avoid = map[string]queue.Avoid{"ses-eu": {Until: time.Now().Add(time.Hour), Why: "550"}}
	}
	if quotas := claimOf(t, &fakeStore{}, 16, time.Hour, avoid); len(quotas) == 0 {
		t.Error("the lane sleeps, though its account is free for what lies behind")
	}
}

// The rows that such a claim holds are locked while a change of configuration frees those that are held.
func TestMessagesHeldUnderAnOldConfigurationAreFreed(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	e := testEngine(t, store, nil)
	loadConfig(t, e)
	fresh, old := e.config.Load(), *e.config.Load()
	old.Version = 0
	e.config.Store(&old)
	store.claim = func(context.Context, func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
		e.config.Store(fresh)
		return nil
	}
	owner := mail.NewID()
	e.owner.Store(&owner)
	e.lanes.note(queue.Lane{Number: 1, Tenant: 1})
	e.claimOnce(t.Context())
	loadConfig(t, e)
	if store.freed == 0 {
		t.Error("they stay held for as long as the old configuration said")
	}
	if loadConfig(t, e); store.freed != 1 {
		t.Errorf("what is held was freed %d times, want once", store.freed)
	}
}

func TestSecretsThatCouldNotBeReadAreReadAgain(t *testing.T) {
	t.Parallel()
	failures := 1
	store := &fakeStore{secrets: func() error {
		if failures--; failures >= 0 {
			return &record.Unavailable{Reason: "database"}
		}
		return nil
	}}
	e := testEngine(t, store, func(context.Context) (provider.Receipt, error) { return provider.Receipt{}, nil })
	for range 2 {
		if err := e.refreshConfig(t.Context()); err != nil {
			t.Log(err)
		}
	}
	c := e.config.Load()
	if c == nil {
		t.Fatal("no configuration")
	}
	if why := newView(e.accounts.all(), time.Now()).Health(&c.Accounts[0]); why.Code != "" {
		t.Errorf("the account stays unusable: %s", why.Reason)
	}
}

func TestCallWithoutAnswerCountsUntilItWasGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var failure error
		e := testEngine(t, &fakeStore{}, func(context.Context) (provider.Receipt, error) {
			time.Sleep(400 * time.Millisecond)
			return provider.Receipt{}, failure
		})
		loadConfig(t, e)
		call1 := func() (*queue.Settle, time.Time) {
			it := testItem(e)
			it.client = it.acc.adapter()
			it.loaded.Message, it.call = &mail.Message{}, call{open: []mail.Recipient{{Kind: mail.To}}}
			_, settle := e.call([]*item{it})
			return settle, it.now()
		}
		for range 40 {
			call1()
		}
		if settle, end := call1(); !settle.At.Equal(end.Add(-394 * time.Millisecond)) {
			t.Errorf("an answered call counts %s before its end, want 394 ms", end.Sub(settle.At))
		}
		failure = &provider.Error{Class: provider.Uncertain, Detail: "connection reset"}
		if settle, end := call1(); settle.At.Before(end) {
			t.Errorf("a call without an answer counts %s before it was given up: it may have arrived later", end.Sub(settle.At))
		}
	})
}

func TestCallWhoseTurnComesLongAfterItsIntentIsNotMade(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		e := testEngine(t, &fakeStore{}, func(context.Context) (provider.Receipt, error) {
			calls++
			return provider.Receipt{}, nil
		})
		loadConfig(t, e)
		it := testItem(e)
		it.client = it.acc.adapter()
		it.slot = it.announced.Add(2 * time.Minute) // as if the process had been stopped for so long
		it.loaded.Message, it.call = &mail.Message{}, call{open: []mail.Recipient{{Kind: mail.To}}}
		_, settle := e.call([]*item{it})
		if settle != nil || calls != 0 {
			t.Errorf("it was made, %s after its intent: a rescuer may have had it sent again", 2*time.Minute)
		}
	})
}

func TestClaimThatEndsDuringTheDrainKeepsItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var beats atomic.Int64
		e := testEngine(t, &fakeStore{heartbeat: func(context.Context) (int, error) { beats.Add(1); return 1, nil }}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		e.claiming.Store(true)
		go func() { defer close(done); e.keepLease(ctx) }()
		synctest.Wait()
		cancel()
		time.Sleep(time.Second) // the claim's commit is under way
		id := mail.NewID()
		e.carrying.add(id)
		e.claiming.Store(false)
		before := beats.Load()
		time.Sleep(e.Lease)
		if beats.Load() == before {
			t.Error("no heartbeat for the length of a lease, with a message in flight")
		}
		e.carrying.remove(id)
		<-done
	})
}
