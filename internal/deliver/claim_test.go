package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

// claimWith runs one claim of an engine with accounts for most messages (full), for few (ses-eu), and one that is parked. The
// store finds the messages, and commits or not. claimWith returns the wait for the next claim.
func claimWith(t *testing.T, store *fakeStore, due []queue.Due, commit error, arrange func(*Engine)) (*Engine, time.Duration) {
	t.Helper()
	c := testConfig()
	c.Accounts = append(c.Accounts,
		route.Account{ID: 8, Name: "parked", Concurrency: 300, Parked: []route.Park{{}}}, route.Account{ID: 9, Name: "full", Concurrency: 300})
	c.Pools[0].Overflow = route.Wait
	c.Pools[0].Members = append(c.Pools[0].Members, route.Member{Account: "parked", Weight: 1}, route.Member{Account: "full", Weight: 1e12})
	e := testEngine(t, store, nil)
	if err := e.accounts.reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	e.config.Store(c)
	owner := mail.NewID()
	e.owner.Store(&owner)
	e.lanes.note(testLane())
	if arrange != nil {
		arrange(e)
	}
	store.claim = func(_ context.Context, decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
		decide(noon(), due, map[int32]*limit.Account{9: {BlockedUntil: noon().Add(time.Hour)}})
		return commit
	}
	if store.load == nil {
		store.load = func(context.Context, []mail.ID) (map[mail.ID]queue.Loaded, error) { return nil, nil }
	}
	wait := e.claimOnce(t.Context())
	e.carried.Wait()
	return e, wait
}

// The next claims know what this one found out about the accounts. A right to probe is used up only if the claim is committed
// and its call is made.
func TestAccountsLearnFromAClaim(t *testing.T) {
	t.Parallel()
	for name, commit := range map[string]error{"committed": nil, "not committed": errors.New("connection reset")} {
		began := time.Now()
		var parked *account
		loaded := 0
		store := &fakeStore{load: func(_ context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
			if loaded = len(ids); len(parked.standing(began).probes) > 0 {
				t.Errorf("%s: another message may be let through while the probe is carried", name)
			}
			return nil, nil
		}}
		due := dues(1 + keepAtHead + 1) // a probe, those that stay, and one that is held for its turn
		e, _ := claimWith(t, store, due, commit, func(e *Engine) {
			parked = e.accounts.get(8)
			parked.mayProbe([]string{""}, began.Add(time.Hour))
		})
		if n := len(parked.standing(began).probes); n != 1 || (loaded == 1) != (commit == nil) {
			t.Errorf("%s: %d messages carried and %d rights to probe after it, want one probe if committed, whose call was not made", name, loaded, n)
		}
		full := e.accounts.get(9)
		if full.busy.Before(began.Add(59*time.Minute)) || full.busyCost != 1 || !full.turn.After(began.Add(maxHold)) {
			t.Errorf("%s: the full account has no slot until %s for %d recipients, and its last turn is at %s",
				name, full.busy, full.busyCost, full.turn)
		}
	}
}

func TestLanesLearnFromAClaim(t *testing.T) {
	t.Parallel()
	free := func(d *queue.Due) { d.Facts.Account = "ses-eu" }
	for name, tc := range map[string]struct {
		due   []queue.Due
		heavy int64
		asks  int // for so many rows of the lane next
	}{
		"all that was asked for is gone":  {slices.Repeat([]queue.Due{testDue(expiring(noon()))}, 32), 0, 64},
		"few wait at the head":            {append(dues(3), testDue(free)), 0, 32 + 3},
		"some are held for their turn":    {dues(keepAtHead + 32), 0, 64 + keepAtHead},
		"less than was asked for is gone": {append(slices.Repeat([]queue.Due{testDue(sized(1 << 20))}, 3), testDue(free)), maxHeavy, 16},
	} {
		e, _ := claimWith(t, &fakeStore{}, tc.due, nil, func(e *Engine) {
			e.lanes.known[testLane()].appeal = 32
			e.heavy.Store(tc.heavy)
		})
		if quotas, _ := e.lanes.ask(maxClaim, time.Now()); len(quotas) != 1 || quotas[0].Max != tc.asks {
			t.Errorf("%s: the next claim asks for %+v, want %d rows", name, quotas, tc.asks)
		}
	}
}

func TestALaneThatGotAMessageIsLookedAt(t *testing.T) {
	t.Parallel()
	e, _ := claimWith(t, &fakeStore{}, []queue.Due{testDue(func(d *queue.Due) { d.Facts.Account = "parked" })}, nil, nil)
	if quotas, _ := e.lanes.ask(maxClaim, time.Now()); !slices.ContainsFunc(quotas, func(q queue.LaneQuota) bool { return q.Number == -8 }) {
		t.Errorf("the next claim asks for %+v, want the lane of the account that the message is pinned to", quotas)
	}
}

func TestTheNextClaimComesWhenTheFullAccountHasRoom(t *testing.T) {
	t.Parallel()
	const soon = 300 * time.Millisecond
	_, wait := claimWith(t, &fakeStore{}, dues(3), nil, func(e *Engine) { e.accounts.get(9).block(time.Now().Add(soon)) })
	if wait > soon {
		t.Errorf("the next claim waits for %s, but the account has room after %s", wait, soon)
	}
}

// The end of a call wakes the engine. Until then there is nothing to look for, although others of the pool are free.
func TestAnAccountWithAllItsCallsInFlightIsNotPolledFor(t *testing.T) {
	t.Parallel()
	e, wait := claimWith(t, &fakeStore{}, dues(3), nil, func(e *Engine) { e.accounts.get(9).inflight = 300 })
	if wait < idlePoll/2 {
		t.Errorf("the next claim comes after %s, though no call has ended", wait)
	}
	if quotas, _ := e.lanes.ask(maxClaim, time.Now()); len(quotas) != 1 {
		t.Errorf("when a call ends, the next claim asks for %+v, want the lane", quotas)
	}
}

func BenchmarkClaim(b *testing.B) {
	for name, calls := range map[string]int{"all taken": 0, "one account full": 300} {
		b.Run(name, func(b *testing.B) {
			config := &route.Config{Version: 1, Pools: []route.Pool{{ID: 1, Name: route.DefaultPool, Overflow: route.Wait}}}
			e := &Engine{}
			e.accounts.byID = map[int32]*account{}
			e.lanes.init()
			e.carrying.ids = map[mail.ID]int{}
			for i := range 4 {
				conf := route.Account{ID: int32(i + 1), Name: fmt.Sprintf("account-%d", i+1), Concurrency: 300} //nolint:gosec // a handful
				config.Accounts = append(config.Accounts, conf)
				config.Pools[0].Members = append(config.Pools[0].Members, route.Member{Account: conf.Name, Weight: 1})
				e.accounts.byID[conf.ID] = newAccount(conf, 300)
			}
			e.accounts.byID[1].inflight = calls
			due := dues(maxClaim)
			for i := range due {
				due[i].Lane.Tenant = mail.TenantID(i % 8) //nolint:gosec // a handful
			}
			b.ReportAllocs()
			for b.Loop() {
				planClaim(claimInput{
					now: noon(), config: config, view: newView(e.accounts.all(), time.Now()), due: e.lanes.interleave(due),
					carried: e.carrying.among(due),
				})
			}
		})
	}
}
