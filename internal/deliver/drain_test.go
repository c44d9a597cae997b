package deliver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// runStore has one message, and what else Run asks a store for: nothing.
type runStore struct {
	*fakeStore
	away         bool // it takes no results
	unregistered bool
}

func newRunStore() *runStore {
	given := false
	s := &runStore{fakeStore: &fakeStore{}}
	s.heartbeat = func(context.Context) (int, error) { return 1, nil }
	s.intend = granted
	s.claim = func(_ context.Context, decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
		if given {
			return nil
		}
		given = true
		now := time.Now()
		decide(now, []queue.Due{{
			ID: mail.NewID(), Lane: queue.Lane{Number: 1, Tenant: 1}, Due: now, ExpiresAt: now.Add(time.Hour),
			Facts: &mail.Facts{Recipients: 1, SenderDomain: "example.com"},
		}}, map[int32]*limit.Account{7: {}})
		return nil
	}
	s.load = func(_ context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
		loaded := map[mail.ID]queue.Loaded{}
		for _, id := range ids {
			loaded[id] = loadedFor(id)
		}
		return loaded, nil
	}
	return s
}

func (s *runStore) Record(ctx context.Context, owner mail.ID, r queue.Result) (bool, error) {
	if s.away {
		return false, &record.Unavailable{Reason: "database"}
	}
	return s.fakeStore.Record(ctx, owner, r)
}

func (s *runStore) Unregister(context.Context, mail.ID) error {
	s.unregistered = true
	return nil
}

func (*runStore) Lanes(context.Context) ([]queue.Lane, error) {
	return []queue.Lane{{Number: 1, Tenant: 1}}, nil
}

func (*runStore) Rescue(context.Context, map[mail.Policy]time.Duration) (unstarted, started int, err error) {
	return 0, 0, nil
}

func (*runStore) DecideUnknown(context.Context, bool, int) (resent, failed int, err error) {
	return 0, 0, nil
}

func (*runStore) RepeatUnknown(context.Context, queue.RepeatRule) (int, error) { return 0, nil }

func (*runStore) Tenants(context.Context) ([]record.Tenant, error) { return nil, nil }
func (*runStore) Blocks(context.Context) (map[int32]time.Duration, error) {
	return map[int32]time.Duration{}, nil
}
func (*runStore) MatchOrphans(context.Context, int) (int, error)                 { return 0, nil }
func (*runStore) Queue(context.Context) (record.QueueState, error)               { return record.QueueState{}, nil }
func (*runStore) EnsurePartitions(context.Context) (int, error)                  { return 0, nil }
func (*runStore) ForgetSecrets(context.Context) (int, error)                     { return 0, nil }
func (*runStore) Sweep(context.Context) (int, error)                             { return 0, nil }
func (*runStore) RetentionNow(context.Context) (time.Time, error)                { return time.Now(), nil }
func (*runStore) DropAudit(context.Context, time.Time) (int, error)              { return 0, nil }
func (*runStore) DropKeys(context.Context, time.Duration) (int, error)           { return 0, nil }
func (*runStore) DropPartitions(context.Context, string, time.Time) (int, error) { return 0, nil }

// drainDuring ends Run a second into a call that takes as long as named, and returns what Run said.
func drainDuring(t *testing.T, s *runStore, call, drain time.Duration) error {
	t.Helper()
	started := make(chan struct{})
	e := testEngine(t, s.fakeStore, func(ctx context.Context) (provider.Receipt, error) {
		close(started)
		if !sleepUntil(ctx, time.Now().Add(call)) {
			return provider.Receipt{}, &provider.Error{Class: provider.Uncertain, Detail: "cancelled after the write"}
		}
		return provider.Receipt{ProviderMessageID: "pm-1"}, nil
	})
	e.Store = s
	ctx, terminate := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx, drain) }()
	<-started
	time.Sleep(time.Second)
	terminate()
	return <-ended
}

func TestDrainLetsTheCallInFlightEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRunStore()
		err := drainDuring(t, s, 10*time.Second, 20*time.Second)
		if got := recordedClass(s.fakeStore); got != string(provider.Accepted) || err != nil {
			t.Errorf("the call is recorded as %q, Run said %v: want it accepted, as if nobody had asked to stop", got, err)
		}
		if !s.unregistered {
			t.Error("the replica is still registered: its lease has to run out before anybody knows that it is gone")
		}
	})
}

func TestCallThatOutlastsTheDrainIsCutOffAndUncertain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, start := newRunStore(), time.Now()
		err := drainDuring(t, s, 25*time.Second, 5*time.Second)
		if got := recordedClass(s.fakeStore); got != string(provider.Uncertain) || err == nil {
			t.Errorf("the call is recorded as %q, Run said %v: want it uncertain, and said so", got, err)
		}
		if took := time.Since(start); took > 10*time.Second { // of the bubble's time
			t.Errorf("the replica stopped after %s, with 5 s to drain", took)
		}
	})
}

// A replica that is not registered any more holds nothing, or so the others believe: no rescuer would look for a wait.
func TestReplicaThatLeavesAClaimBehindStaysRegistered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRunStore()
		s.away = true
		if err := drainDuring(t, s, 2*time.Second, 5*time.Second); err == nil {
			t.Error("Run said nothing of the claim that it could not close")
		}
		if s.unregistered {
			t.Error("it is taken for gone while its claim is open")
		}
	})
}

// stuckStore registers a replica and does not say so.
type stuckStore struct{ *runStore }

func (stuckStore) Register(ctx context.Context, _ mail.ID, _ string, _ time.Duration) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestReplicaThatStopsWhileItRegistersIsUnregistered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRunStore()
		e := testEngine(t, s.fakeStore, nil)
		e.Store = stuckStore{s}
		ctx, terminate := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx, 5*time.Second) }()
		synctest.Wait()
		terminate()
		if err := <-ended; err != nil || !s.unregistered {
			t.Errorf("Run said %v; unregistered: %t", err, s.unregistered)
		}
	})
}

// A claim that is cut off may have been committed, and then nobody carries what it took.
func TestDrainLetsTheClaimUnderWayEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRunStore()
		claim, claiming := s.claim, make(chan struct{}, 1)
		s.claim = func(ctx context.Context, decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
			claiming <- struct{}{}
			if !sleepUntil(ctx, time.Now().Add(2*time.Second)) {
				return ctx.Err()
			}
			return claim(ctx, decide)
		}
		e := testEngine(t, s.fakeStore, func(context.Context) (provider.Receipt, error) {
			return provider.Receipt{ProviderMessageID: "pm-1"}, nil
		})
		e.Store = s
		ctx, terminate := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx, 20*time.Second) }()
		<-claiming
		terminate()
		err := <-ended
		if got := recordedClass(s.fakeStore); got != string(provider.Accepted) || err != nil {
			t.Errorf("what was being claimed is recorded as %q, Run said %v: want it sent", got, err)
		}
	})
}
