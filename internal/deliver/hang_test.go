package deliver

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

func TestReplicaWhoseHeartbeatHangsStopsClaimingBeforeItsLeaseRunsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		store := &fakeStore{heartbeat: func(ctx context.Context) (int, error) {
			if hangs.Load() {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return 1, nil
		}}
		e := testEngine(t, store, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); e.keepLease(ctx) }()
		synctest.Wait()
		if e.owner.Load() == nil {
			t.Fatal("no lease to begin with")
		}
		hangs.Store(true)
		time.Sleep(e.Lease - time.Second)
		if e.owner.Load() != nil {
			t.Error("it still claims under a lease that is about to run out")
		}
		cancel()
		<-done
	})
}

func TestClaimThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{claim: func(ctx context.Context, _ func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		e := testEngine(t, store, nil)
		loadConfig(t, e)
		owner := mail.NewID()
		e.owner.Store(&owner)
		e.lanes.note(queue.Lane{Number: 1, Tenant: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		e.claimOnce(ctx)
		if ctx.Err() != nil {
			t.Error("one lost answer of the database stops this replica for as long as it runs")
		}
	})
}

func TestLoadThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{load: func(ctx context.Context, _ []mail.ID) (map[mail.ID]queue.Loaded, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		e := testEngine(t, store, nil)
		loadConfig(t, e)
		time.AfterFunc(time.Hour, e.abandon)
		e.carryAll([]*item{testItem(e)})
		<-store.recorded
		e.carried.Wait()
		if e.finish.Err() != nil {
			t.Error("the claim stays open for as long as the database owes an answer")
		}
	})
}
