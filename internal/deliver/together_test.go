package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sony/gobreaker/v2"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

func upTo(messages int) provider.BatchSpec { return provider.BatchSpec{Max: messages} }

func content(key string) func(*queue.Due) { return func(d *queue.Due) { d.Facts.Content = key } }

func tried(d *queue.Due) { d.Tries = 1 }

func TestMessagesTravelTogetherWhereTheyMay(t *testing.T) {
	t.Parallel()
	const alone, joins = "to account 1 in 0s", "joins it"
	window := func(n int, unit limit.Unit) *limit.Account {
		return &limit.Account{Ledgers: []limit.Ledger{{Window: limit.Window{N: n, Per: time.Minute, Unit: unit}}}}
	}
	transactional := func(n int) []queue.Due {
		due := dues(n)
		for i := range due {
			due[i].Facts.Stream = mail.DefaultStream
		}
		return due
	}
	for name, tc := range map[string]struct {
		due     []queue.Due
		batch   provider.BatchSpec
		arrange func(*claimInput)
		fates   []string
	}{
		"one message a call":               {due: dues(2), batch: upTo(0), fates: []string{"2 times: " + alone}},
		"as many as the provider takes":    {due: dues(5), batch: upTo(3), fates: []string{alone, "2 times: " + joins, alone, joins}},
		"transactional: not too many":      {due: transactional(150), batch: upTo(500), fates: []string{alone, "99 times: " + joins, alone, "49 times: " + joins}},
		"streams apart":                    {due: []queue.Due{testDue(), testDue(inStream("news")), testDue(inStream("news"))}, batch: upTo(9), fates: []string{"2 times: " + alone, joins}},
		"who failed before goes alone":     {due: []queue.Due{testDue(), testDue(tried), testDue()}, batch: upTo(9), fates: []string{"2 times: " + alone, joins}},
		"a repeat goes alone":              {due: []queue.Due{testDue(), testDue(repeating(noon().Add(time.Second)))}, batch: upTo(9), fates: []string{"2 times: " + alone}},
		"a large message goes alone":       {due: []queue.Due{testDue(), testDue(sized(largeMessage))}, batch: upTo(9), fates: []string{"2 times: " + alone}},
		"a call has so many bytes":         {due: []queue.Due{testDue(sized(200 << 10)), testDue(sized(200 << 10)), testDue(sized(200 << 10)), testDue(sized(200 << 10)), testDue(sized(200 << 10)), testDue(sized(200 << 10))}, batch: upTo(9), fates: []string{alone, "4 times: " + joins, alone}},
		"one request is left":              {due: dues(4), batch: upTo(9), arrange: func(in *claimInput) { in.limits[1] = window(1, limit.Requests) }, fates: []string{alone, "3 times: " + joins}},
		"one request and its call is full": {due: dues(4), batch: upTo(3), arrange: func(in *claimInput) { in.limits[1] = window(1, limit.Requests) }, fates: []string{alone, "2 times: " + joins, "stays"}},
		"two messages are left":            {due: dues(3), batch: upTo(9), arrange: func(in *claimInput) { in.limits[1] = window(2, limit.Messages) }, fates: []string{alone, joins, "stays"}},
		"few recipients are left":          {due: []queue.Due{testDue(to(2)), testDue(to(3)), testDue(to(1))}, batch: upTo(9), arrange: func(in *claimInput) { in.limits[1] = window(4, limit.Recipients) }, fates: []string{alone, "stays", alone}},
		"one call may be in flight":        {due: dues(3), batch: upTo(2), arrange: func(in *claimInput) { in.view.accounts[1].share = 1 }, fates: []string{alone, joins, "stays"}},
		"the breaker lets one through": {
			due: dues(2), batch: upTo(9), arrange: func(in *claimInput) { in.view.accounts[1].breaker = gobreaker.StateHalfOpen },
			fates: []string{alone, "to account 2 in 0s"},
		},
		"the same content": {
			due:   []queue.Due{testDue(content("x")), testDue(content("y")), testDue(content("x")), testDue(content("y")), testDue(), testDue()},
			batch: provider.BatchSpec{Max: 9, Alike: true}, fates: []string{"2 times: " + alone, "2 times: " + joins, "2 times: " + alone},
		},
		"a call has so many recipients": {
			due:   []queue.Due{testDue(to(3)), testDue(to(3)), testDue(to(2)), testDue(to(1))},
			batch: provider.BatchSpec{Max: 9, MaxRecipients: 5}, fates: []string{"2 times: " + alone, joins, alone},
		},
		"a probe goes alone, and nobody passes a park with others": {
			due: []queue.Due{testDue(), testDue(func(d *queue.Due) { d.Facts.SenderDomain = "example.net" }), testDue(), testDue(func(d *queue.Due) { d.Facts.SenderDomain = "example.net" })}, batch: upTo(9),
			arrange: func(in *claimInput) {
				in.config.Accounts[0].Parked = []route.Park{route.ParkFor("example.com")}
				in.view.accounts[1].parked, in.view.accounts[1].probes = in.config.Accounts[0].Parked, []string{"example.com"}
			},
			fates: []string{alone + ` as a probe of ["example.com"]`, alone, "to account 2 in 0s", joins},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := testInput(tc.due...)
			in.view.accounts[1].batch = tc.batch
			if tc.arrange != nil {
				tc.arrange(&in)
			}
			got := planClaim(in)
			if diff := cmp.Diff(tc.fates, fates(in, got)); diff != "" {
				t.Errorf("what becomes of the messages (-want +got):\n%s", diff)
			}
			joined := 0
			for _, a := range got.Take {
				if a.Joined {
					joined++
				}
			}
			if len(got.items)+joined != len(got.Take) {
				t.Errorf("%d calls and %d messages that joined, of %d that were taken", len(got.items), joined, len(got.Take))
			}
		})
	}
}

// batchProvider answers a call of several messages as a test says, message by message.
type batchProvider struct {
	fakeProvider
	calls   int
	answer  func(i int) error
	leftOut int // which message is not in the call, from 1; 0 is none
}

func (*batchProvider) Batch() provider.BatchSpec { return provider.BatchSpec{Max: 10} }

func (p *batchProvider) SendBatch(_ context.Context, all []*provider.Send) []provider.Outcome {
	p.calls++
	outcomes := make([]provider.Outcome, len(all))
	for i := range all {
		outcomes[i] = provider.Outcome{Receipt: provider.Receipt{ProviderMessageID: fmt.Sprint("pm-", i)}, Err: p.answer(i), LeftOut: i+1 == p.leftOut}
	}
	return outcomes
}

// callOf is a call of n messages, whose store answers intents by announce.
func callOf(t *testing.T, n int, p *batchProvider, announce func(mail.ID) (bool, error)) (e *Engine, store *fakeStore, all []*item) {
	t.Helper()
	var mu sync.Mutex
	store = &fakeStore{intend: func(_ context.Context, in queue.Intent) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		return announce(in.ID)
	}}
	e = testEngine(t, store, nil)
	loadConfig(t, e)
	first := testItem(e)
	first.acc.client = p
	first.acc.conf.Limits = []limit.Window{{N: 10, Per: time.Minute, Unit: limit.Requests}}
	for range n - 1 {
		it := testItem(e)
		it.joined = true
		first.others = append(first.others, it)
	}
	first.acc.start()
	return e, store, first.all()
}

func TestEachMessageOfACallHasItsOwnResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &batchProvider{answer: func(i int) error {
			return []error{nil, &provider.Error{Class: provider.Rejected, Detail: "no"}, &provider.Error{Class: provider.Throttled}, errors.New("unexpected EOF")}[i]
		}}
		e, store, all := callOf(t, 4, p, func(mail.ID) (bool, error) { return true, nil })
		loads := map[mail.ID]queue.Loaded{}
		for _, it := range all {
			loads[it.due.ID] = loadedFor(it.due.ID)
		}
		e.carry(all[0], loads)
		got := map[mail.ID]queue.Result{}
		for range all {
			r := <-store.recorded
			got[r.ID] = r
		}
		for i, want := range []provider.Class{provider.Accepted, provider.Rejected, provider.Throttled, provider.Uncertain} {
			r := got[all[i].due.ID]
			if r.Class != string(want) || r.Settle == nil || r.Settle.Joined != (i > 0) || r.Settle.Recipients != 1 {
				t.Errorf("message %d: recorded %+v, settle %+v, want %s, and one request for all", i, r, r.Settle, want)
			}
		}
		if p.calls != 1 || all[0].acc.inflight != 0 || counted(t, e.Metrics.SlotsUsed) != 1 {
			t.Errorf("calls = %d, in flight = %d, slots used = %v; want one call, which has ended", p.calls, all[0].acc.inflight, counted(t, e.Metrics.SlotsUsed))
		}
	})
}

// Some messages of a call may be lost on the way to it. The request is booked for the first, so without that there is no call.
func TestACallIsMadeForTheMessagesThatAreLeft(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fails func(i int) (ok bool, err error)
		none  map[int]bool // could not be loaded
		calls int
		want  []string // classes; "" is free again, "lost" is nobody's
	}{
		"all":                     {fails: func(int) (bool, error) { return true, nil }, calls: 1, want: []string{"accepted", "accepted", "accepted"}},
		"one claim is lost":       {fails: func(i int) (bool, error) { return i != 1, nil }, calls: 1, want: []string{"accepted", "lost", "accepted"}},
		"one intent fails":        {fails: func(i int) (bool, error) { return i != 2, failIf(i == 2) }, calls: 1, want: []string{"accepted", "accepted", "aborted"}},
		"the first is lost":       {fails: func(i int) (bool, error) { return i != 0, nil }, want: []string{"lost", "aborted", "aborted"}},
		"the first can't load":    {fails: func(int) (bool, error) { return true, nil }, none: map[int]bool{0: true}, want: []string{"", "", ""}},
		"a joined one can't load": {fails: func(int) (bool, error) { return true, nil }, none: map[int]bool{1: true}, calls: 1, want: []string{"accepted", "", "accepted"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &batchProvider{answer: func(int) error { return nil }}
			at := map[mail.ID]int{}
			e, store, all := callOf(t, 3, p, func(id mail.ID) (bool, error) { return tc.fails(at[id]) })
			loads := map[mail.ID]queue.Loaded{}
			for i, it := range all {
				at[it.due.ID] = i
				if !tc.none[i] {
					loads[it.due.ID] = loadedFor(it.due.ID)
				}
			}
			e.carry(all[0], loads)
			got := []string{"lost", "lost", "lost"}
			for len(store.recorded) > 0 {
				r := <-store.recorded
				got[at[r.ID]] = r.Class
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || p.calls != tc.calls {
				t.Errorf("calls = %d, want %d; recorded (-want +got):\n%s", p.calls, tc.calls, diff)
			}
		})
	}
}

// What one call says of its account does not depend on how many messages it has.
func TestACallIsOnePieceOfEvidence(t *testing.T) {
	t.Parallel()
	shared := &provider.Error{Class: provider.Transient, Shared: true}
	suspect := &provider.Error{Class: provider.Rejected, Elsewhere: true, Suspect: true, Code: "1235"}
	for name, tc := range map[string]struct {
		answer  func(i int) error
		calls   int
		breaker gobreaker.State
		parks   bool
	}{
		"the fault may be in one message":     {func(int) error { return shared }, 12, gobreaker.StateClosed, false},
		"one of many is uncertain":            {func(i int) error { return map[int]error{1: errors.New("unexpected EOF")}[i] }, 12, gobreaker.StateClosed, false},
		"all fail":                            {func(int) error { return errors.New("unexpected EOF") }, 10, gobreaker.StateOpen, false},
		"a call of suspects":                  {func(int) error { return suspect }, 1, gobreaker.StateClosed, false},
		"as many calls of suspects as proves": {func(int) error { return suspect }, suspectsToPark, gobreaker.StateClosed, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &batchProvider{answer: tc.answer}
			e, store, _ := callOf(t, 1, p, func(mail.ID) (bool, error) { return true, nil })
			parks := false
			for range tc.calls {
				first := testItem(e)
				loads := map[mail.ID]queue.Loaded{}
				for range 3 {
					it := testItem(e)
					it.joined = true
					first.others = append(first.others, it)
				}
				for _, it := range first.all() {
					loads[it.due.ID] = loadedFor(it.due.ID)
				}
				first.acc.start()
				e.carry(first, loads)
				for range first.all() {
					parks = (<-store.recorded).Park != nil || parks
				}
			}
			if got := e.accounts.get(7).breaker.State(); got != tc.breaker || parks != tc.parks {
				t.Errorf("breaker %s, parked %t; want %s, %t", got, parks, tc.breaker, tc.parks)
			}
		})
	}
}

// The first message costs the request of the others: it is booked even if the adapter left it out.
func TestOnlyAJoinedMessageThatWasNotInTheCallCostsNothing(t *testing.T) {
	t.Parallel()
	for out := range 2 {
		p := &batchProvider{answer: func(i int) error {
			return map[int]error{out: &provider.Error{Class: provider.Transient, Again: true}}[i]
		}, leftOut: out + 1}
		e, store, all := callOf(t, 2, p, func(mail.ID) (bool, error) { return true, nil })
		loads := map[mail.ID]queue.Loaded{}
		for _, it := range all {
			loads[it.due.ID] = loadedFor(it.due.ID)
		}
		e.carry(all[0], loads)
		for range all {
			r := <-store.recorded
			i := slices.IndexFunc(all, func(it *item) bool { return it.due.ID == r.ID })
			if (r.Settle == nil) != (i == 1 && out == 1) || r.Settle != nil && r.Settle.Joined != (i == 1) {
				t.Errorf("message %d is left out, message %d: settled %+v", out, i, r.Settle)
			}
			if i == out && (r.Requeue == nil || r.Requeue.In != 0 || r.Requeue.Tries != 0) {
				t.Errorf("message %d is left out: requeued %+v, want it at once", out, r.Requeue)
			}
		}
	}
}

func TestAMessageDoesNotTryWithOthersForEver(t *testing.T) {
	t.Parallel()
	if !together(testDue(func(d *queue.Due) { d.Attempts = maxRides - 1 })) || together(testDue(func(d *queue.Due) { d.Attempts = maxRides })) {
		t.Errorf("a message must go alone after %d calls", maxRides)
	}
}

// An intent that waits for a slow disk is given up, and its message is claimed again. So no more are claimed than wait.
func TestNothingIsClaimedWhileManyIntentsWait(t *testing.T) {
	t.Parallel()
	s := &limitStore{recipients: 1, open: map[mail.ID]int{}}
	s.secrets = func() error { return nil }
	e := replicaOf(t, s, &arrivals{})
	e.intents.Store(maxClaim)
	if wait := e.claimOnce(t.Context()); wait > 20*time.Millisecond || len(s.open) != 0 {
		t.Errorf("claimed %d, looks again after %s; want nothing, and soon", len(s.open), wait)
	}
	e.intents.Store(0)
	e.claimOnce(t.Context())
	e.carried.Wait()
	if n := e.intents.Load(); n != 0 {
		t.Errorf("intents that wait after all are made = %d", n)
	}
}

// While open calls fill a low limit, a lane is looked at again and again in vain. It must still ask for a whole call's messages
// when the limit has room.
func TestCallsAreFullUnderALowLimit(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{100 * time.Millisecond, 900 * time.Millisecond} {
		l, ids := testLanes(1)
		acc := &limit.Account{Ledgers: []limit.Ledger{{Window: limit.Window{N: 1, Per: time.Second, Unit: limit.Requests}}}}
		var open []*item
		busy, calls, messages, perCall := time.Time{}, 0, 0, 0
		for now := noon(); now.Before(noon().Add(30 * time.Second)); now = now.Add(5 * time.Millisecond) {
			for len(open) > 0 && !open[0].slot.Add(took).After(now) {
				acc.Open = limit.Open{}
				acc.Settle(now, open[0].slot.Add(took), 1, false)
				open = open[1:]
				l.callEnded()
			}
			in := testInput()
			in.config.Accounts, in.config.Pools[0].Members = in.config.Accounts[:1], in.config.Pools[0].Members[:1]
			in.view = &view{now: now, accounts: map[int32]*standing{1: {share: 64, inflight: len(open), busy: busy, busyCost: 1, batch: upTo(500), perCall: perCall}}}
			if in.quotas, _ = l.ask(min(in.view.room(), maxClaim), now); len(in.quotas) == 0 {
				continue
			}
			in.now, in.limits, in.due = now, map[int32]*limit.Account{1: acc}, dues(in.quotas[0].Max)
			for i := range in.due {
				in.due[i].Lane, in.due[i].ExpiresAt = ids[0], now.Add(time.Hour)
			}
			p := planClaim(in)
			for _, full := range p.noSlot {
				busy = full.until
			}
			l.learn(in.quotas[0], p.lanes[ids[0]])
			l.leaveAtHead(ids[0], p.lanes[ids[0]].atHead)
			for _, it := range p.items {
				perCall = len(it.all())
				open, calls = append(open, it), calls+1
				if calls > 3 { // the first ones find out how many may travel together
					messages += perCall
				}
			}
		}
		if calls < 10 || messages < 99*(calls-3) {
			t.Errorf("calls of %s: %d messages in %d calls, want a hundred in each", took, messages, calls-3)
		}
	}
}

func failIf(yes bool) error {
	if yes {
		return errors.New("connection reset")
	}
	return nil
}
