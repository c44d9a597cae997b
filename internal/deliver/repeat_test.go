package deliver

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

func TestEachUnknownCallWaitsTwiceAsLongAsTheLast(t *testing.T) {
	t.Parallel()
	for policy, first := range map[mail.Policy]time.Duration{mail.Resend: time.Minute, mail.Never: time.Minute, mail.Reconcile: 30 * time.Minute} {
		for resends, want := range []time.Duration{first, 2 * first, 4 * first, 8 * first} {
			c := testCall("a@example.org")
			c.due.OnAmbiguous, c.due.Resends = policy, resends
			r, _ := next(c, provider.Receipt{}, &provider.Error{Class: provider.Uncertain}, testPolicy(), noon(), 0)
			if r.Unknown.DecideIn != want || r.Unknown.Policy != policy {
				t.Errorf("%s, sent again %d times: %+v, want a wait of %s", policy, resends, r.Unknown, want)
			}
		}
	}
}

// Whatever comes of a call, what is known of other accounts is known for the next: whoever refused the message for good is
// not asked again, and whoever may have sent it comes last.
func TestWhatOtherAccountsSaidIsKeptWhateverComesNext(t *testing.T) {
	t.Parallel()
	others := map[string]queue.Avoid{
		"small":  {Final: true, Why: "too large"},
		"doubt":  {Last: true, Why: "a call may have sent it"},
		"down":   {Until: noon().Add(time.Hour), Why: "503"},
		"ses-eu": {Last: true, Why: "a call may have sent it"}, // the account of this call
	}
	putOff := provider.Receipt{Refused: []provider.Refusal{{Email: "b@example.org", Class: provider.Transient}}}
	for name, tc := range map[string]struct {
		receipt provider.Receipt
		failure *provider.Error
	}{
		"accepted for one":           {putOff, nil},
		"transient":                  {failure: &provider.Error{Class: provider.Transient}},
		"throttled":                  {failure: &provider.Error{Class: provider.Throttled}},
		"misconfigured":              {failure: &provider.Error{Class: provider.Misconfigured}},
		"refused there for good":     {failure: &provider.Error{Class: provider.Rejected, Elsewhere: true}},
		"refused for one":            {failure: &provider.Error{Class: provider.BadRecipient, Refused: []provider.Refusal{{Email: "b@example.org", Class: provider.BadRecipient}}}},
		"uncertain":                  {failure: &provider.Error{Class: provider.Uncertain}},
		"of a class that is unknown": {failure: &provider.Error{Class: "surprise"}},
	} {
		c := testCall("a@example.org", "b@example.org")
		c.due.Avoid = others
		r, _ := next(c, tc.receipt, tc.failure, testPolicy(), noon(), 0)
		var got map[string]queue.Avoid
		switch {
		case r.Requeue != nil:
			got = r.Requeue.Avoid
		case r.Unknown != nil:
			got = r.Unknown.Avoid
		}
		for account, want := range others {
			if account == c.name {
				if !got[account].Last {
					t.Errorf("%s: %s is %+v, want it to come last still", name, account, got[account])
				}
				continue
			}
			if diff := cmp.Diff(want, got[account]); diff != "" {
				t.Errorf("%s: what %s said (-want +got):\n%s", name, account, diff)
			}
		}
	}
}

func TestThrottledCallsThatWereUnderWayTogetherCountOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(route.Account{Name: "ses-eu", Concurrency: 8}, 8)
		together := func(want int, throttled ...bool) {
			t.Helper()
			time.Sleep(time.Second)
			began := time.Now()
			for i, yes := range throttled {
				time.Sleep(time.Minute) // however long each of them takes
				if got := a.throttled(yes, began); got != want && yes {
					t.Errorf("call %d of %d: %d are throttled in a row, want %d", i, len(throttled), got, want)
				}
			}
		}
		together(1, true, true, true, true, true, true, true, true)
		together(2, true, true, false, true) // one of them came through before the others were refused
		together(3, true)
		together(0, false)
		together(1, true, true)
	})
}

func TestAThrottledCallIsCountedByWhenItBegan(t *testing.T) {
	t.Parallel()
	a := newAccount(route.Account{Name: "ses-eu", Concurrency: 8}, 8)
	began := time.Now()
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() { a.throttled(true, began) })
	}
	all.Wait()
	if a.throttles != 1 {
		t.Errorf("64 answers at once count %d times, want once", a.throttles)
	}
}

// Through the engine: the wait of an account that throttles grows from call to call, and one that takes a call begins anew.
func TestWaitsOfAThrottledAccountGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{intend: func(context.Context, queue.Intent) (bool, error) { return true, nil }}
		store.load = func(_ context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
			m := &mail.Message{ID: ids[0], From: mail.Address{Email: "shop@example.com"}}
			return map[mail.ID]queue.Loaded{ids[0]: {Message: m, Recipients: testCall("a@example.org").open}}, nil
		}
		throttled := true
		e := testEngine(t, store, func(context.Context) (provider.Receipt, error) {
			if throttled {
				return provider.Receipt{}, &provider.Error{Class: provider.Throttled}
			}
			return provider.Receipt{}, nil
		})
		loadConfig(t, e)
		call := func() queue.Result {
			time.Sleep(time.Minute)
			e.carryAll([]*item{testItem(e)})
			e.carried.Wait()
			return <-store.recorded
		}
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			began := time.Now().Add(time.Minute)
			r := call()
			if r.Block == nil || r.Block.For != want {
				t.Errorf("blocked: %+v, want %s", r.Block, want)
			}
			if !r.CalledAt.Equal(began) || !r.Announce { // this kind reports no acceptance of its own
				t.Errorf("called at %s, to be announced %t; want %s and true", r.CalledAt, r.Announce, began)
			}
		}
		throttled = false
		call()
		throttled = true
		if r := call(); r.Block == nil || r.Block.For != time.Second {
			t.Errorf("after a call that was taken: %+v, want a second", r.Block)
		}
	})
}

func TestAProviderThatSaysWhenToComeBackIsBelieved(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]time.Duration{0: 4 * time.Second, time.Second: 4 * time.Second, time.Hour: time.Hour} {
		r, _ := next(testCall("a@example.org"), provider.Receipt{}, &provider.Error{Class: provider.Transient, RetryAfter: after}, testPolicy(), noon(), 0.5)
		if got := r.Requeue.Avoid["ses-eu"].Until.Sub(noon()); got != want {
			t.Errorf("Retry-After %s: away for %s, want %s", after, got, want)
		}
	}
}

// A provider that refuses the whole call may say of one recipient that he will do later: he is not the bad one.
func TestARecipientWhoIsOnlyPutOffDoesNotEnd(t *testing.T) {
	t.Parallel()
	failure := &provider.Error{Class: provider.BadRecipient, Refused: []provider.Refusal{
		{Email: "a@example.org", Class: provider.Transient, Detail: "greylisted"},
		{Email: "b@example.org", Class: provider.BadRecipient, Detail: "no such user"},
	}}
	r, _ := next(testCall("a@example.org", "b@example.org"), provider.Receipt{}, failure, testPolicy(), noon(), 0)
	want := []queue.RecipientChange{{N: 1, Status: mail.Failed, Detail: "no such user"}}
	if diff := cmp.Diff(want, r.Recipients); diff != "" || r.Requeue == nil {
		t.Errorf("requeue %+v, recipients (-want +got):\n%s", r.Requeue, diff)
	}
}

func TestBackoffDoublesFromTryToTry(t *testing.T) {
	t.Parallel()
	want := 2 * time.Second
	for tries := range 20 {
		if got := backoff(tries, 0.5); got != want {
			t.Errorf("backoff(%d) = %s, want %s", tries, got, want)
		}
		want = min(2*want, 30*time.Minute)
	}
}

// What every replica will learn from the record binds here at once, and is not taken back by a shorter wait.
func TestABlockBindsHereAtOnceAndIsNotShortened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := testEngine(t, &fakeStore{}, nil)
		loadConfig(t, e)
		it := testItem(e)
		for _, wait := range []time.Duration{time.Minute, time.Hour, time.Second} {
			e.applyLocally(it, &queue.Result{Block: &queue.Block{Account: 7, For: wait}})
		}
		if got := time.Until(it.acc.blocked); got != time.Hour {
			t.Errorf("blocked for %s, want an hour", got)
		}
	})
}

type decideStore struct {
	fakeStore
	fallback bool
	most     int
}

func (s *decideStore) DecideUnknown(_ context.Context, fallback bool, most int) (resent, failed int, err error) {
	s.fallback, s.most = fallback, most
	return 0, 0, nil
}

func TestTheBoundOfRepetitionsIsThatOfThePolicy(t *testing.T) {
	t.Parallel()
	store := &decideStore{}
	e := testEngine(t, &store.fakeStore, nil)
	e.Store = store
	for _, want := range []Policy{{ResendMax: 0}, {ResendMax: 2, ReconcileResend: true}, {ResendMax: 7}} {
		e.Policy = want
		if err := e.decideUnknown(t.Context()); err != nil || store.most != want.ResendMax || store.fallback != want.ReconcileResend {
			t.Errorf("decides with %d and %t, %v; want %+v", store.most, store.fallback, err, want)
		}
	}
}

func TestAMessageThatNobodyTakesNowIsLookedAtAgainWhenThatMayChange(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		avoid map[string]queue.Avoid
		want  time.Duration
	}{
		"refused for good":      {map[string]queue.Avoid{"a": {Final: true}}, time.Minute},
		"an account comes back": {map[string]queue.Avoid{"a": {Until: noon().Add(5 * time.Second)}, "b": {Final: true}}, 5 * time.Second},
		"it came back":          {map[string]queue.Avoid{"a": {Until: noon().Add(-time.Second)}}, time.Minute},
		"it comes back later":   {map[string]queue.Avoid{"a": {Until: noon().Add(time.Hour)}}, time.Minute},
		"it may have sent it":   {map[string]queue.Avoid{"a": {Last: true}}, time.Minute},
	} {
		d := queue.Due{Avoid: tc.avoid, ExpiresAt: noon().Add(30 * time.Second)}
		want := min(tc.want, 30*time.Second)
		if got := fitAgain(d, noon(), time.Minute).Sub(noon()); got != want {
			t.Errorf("%s, expiring first: after %s, want %s", name, got, want)
		}
		d.ExpiresAt = noon().Add(time.Hour)
		if got := fitAgain(d, noon(), time.Minute).Sub(noon()); got != tc.want {
			t.Errorf("%s: after %s, want %s", name, got, tc.want)
		}
	}
}
