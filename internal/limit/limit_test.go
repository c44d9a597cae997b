package limit

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Thorough is for the tests of this package and of limit_test.
var Thorough = flag.Bool("thorough", false, "run the model of limits for a million calls, as its proof wants")

// documented are the windows that the product ships with.
func documented() map[string][]Window {
	return map[string][]Window{
		"sendgrid": {{N: 100, Per: 5 * time.Minute, Unit: Requests}, {N: 1000, Per: time.Hour, Unit: Requests}},
		"mailgun":  {{N: 2000, Per: time.Hour, Unit: Messages}},
		"postmark": {{N: 10, Per: time.Second, Unit: Requests}, {N: 500, Per: time.Minute, Unit: Requests}},
		"ses": {
			{N: 14, Per: time.Second, Unit: Requests},
			{N: 200, Per: time.Second, Unit: Recipients},
			{N: 50000, Per: 24 * time.Hour, Unit: Recipients},
		},
		"smtp": {{N: 1000, Per: time.Minute, Unit: Messages}},
	}
}

type call struct {
	at         time.Time
	recipients int
	joined     bool
}

func (c call) cost(w Window) int {
	if c.joined && w.Unit == Requests {
		return 0
	}
	return w.Cost(c.recipients)
}

// worst returns the highest cost of any sliding window of calls, which are sorted by time.
func worst(calls []call, w Window) int {
	most, sum, first := 0, 0, 0
	for _, c := range calls {
		sum += c.cost(w)
		for c.at.Sub(calls[first].at) >= w.Per {
			sum -= calls[first].cost(w)
			first++
		}
		most = max(most, sum)
	}
	return most
}

// flight is a call on its way.
type flight struct {
	start, arrive, end time.Time
	recipients         int
	joined             bool
}

// world drives one account under demand in virtual time. Every call starts at its slot or later, arrives some time after
// and is answered some time after that; slow tells how much each of the three takes.
type world struct {
	rng    *rand.Rand
	acc    *Account
	now    time.Time
	floor  time.Duration // shortest possible call
	slow   func(*rand.Rand) time.Duration
	air    []flight
	calls  []call
	ask    func() int
	stalls bool
	most   int // messages in one call
}

func newWorld(seed uint64, windows []Window) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), acc: &Account{}, now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
		floor: 2 * time.Millisecond, ask: func() int { return 1 }, most: 1,
		slow: func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(2 * time.Millisecond))) },
	}
	for _, x := range windows {
		w.acc.Ledgers = append(w.acc.Ledgers, Ledger{Window: x})
	}
	return w
}

func (w *world) run(span time.Duration) []call {
	until := w.now.Add(span)
	for w.now.Before(until) {
		w.land()
		w.claim()
		w.now = w.now.Add(time.Duration(5+w.rng.IntN(25)) * time.Millisecond)
		if w.stalls && w.rng.IntN(200) == 0 {
			w.now = w.now.Add(time.Duration(w.rng.IntN(5000)) * time.Millisecond)
		}
	}
	slices.SortFunc(w.calls, func(a, b call) int { return a.at.Compare(b.at) })
	return w.calls
}

// land settles the calls that have their answer by now.
func (w *world) land() {
	w.air = slices.DeleteFunc(w.air, func(f flight) bool {
		if f.end.After(w.now) {
			return false
		}
		if !f.joined {
			w.acc.Open.Calls--
		}
		w.acc.Open.Messages--
		w.acc.Open.Recipients -= f.recipients
		w.acc.Settle(w.now, f.end.Add(-w.floor), f.recipients, f.joined)
		return true
	})
}

func (w *world) claim() {
	for {
		n := w.ask()
		g := w.acc.Take(w.now, n, 250*time.Millisecond)
		if !g.OK {
			if len(w.air) == 0 && g.Retry.After(w.now.Add(time.Second)) {
				w.now = g.Retry.Add(-time.Second) // nothing else will happen
			}
			return
		}
		f := flight{start: g.Slot.Add(w.slow(w.rng)), recipients: n}
		f.arrive = f.start.Add(w.slow(w.rng))
		f.end = f.arrive.Add(w.floor + w.slow(w.rng))
		for i := 1; ; i++ {
			w.air, w.calls = append(w.air, f), append(w.calls, call{f.arrive, f.recipients, f.joined})
			if i == w.most {
				break
			}
			if f.joined, f.recipients = true, w.ask(); !w.acc.Join(g.Slot, f.recipients) {
				break
			}
		}
	}
}

// erratic is a machine under load: mostly quick, sometimes very late.
func erratic(r *rand.Rand) time.Duration {
	if r.IntN(20) == 0 {
		return time.Duration(r.Int64N(int64(3 * time.Second)))
	}
	return time.Duration(r.Int64N(int64(30 * time.Millisecond)))
}

func TestNoSlidingWindowExceedsItsLimitHoweverLateCallsAre(t *testing.T) {
	t.Parallel()
	for kind, windows := range documented() {
		for seed := range uint64(8) {
			if !*Thorough && seed > 1 {
				break
			}
			w := newWorld(seed, windows)
			w.slow, w.stalls = erratic, seed%2 == 1
			w.ask = func() int { return 1 + w.rng.IntN(1+int(seed)*6) }
			calls := w.run(time.Hour)
			for _, x := range windows {
				if got := worst(calls, x); got > x.N {
					t.Errorf("%s seed %d: %d in a sliding window, limit %s", kind, seed, got, x)
				}
			}
		}
	}
}

// Messages that travel together cost one request, and each of them what it costs in the other windows.
func TestNoSlidingWindowIsExceededByCallsWithManyMessages(t *testing.T) {
	t.Parallel()
	windows := []Window{{N: 10, Per: time.Second, Unit: Requests}, {N: 700, Per: time.Minute, Unit: Messages}, {N: 30_000, Per: time.Hour, Unit: Recipients}}
	for seed := range uint64(4) {
		w := newWorld(seed, windows)
		w.slow, w.stalls, w.most = erratic, seed%2 == 1, 50
		w.ask = func() int { return 1 + w.rng.IntN(3) }
		calls := w.run(3 * time.Hour)
		for _, x := range windows {
			if got := worst(calls, x); got > x.N || x.Unit != Requests && got < x.N*9/10 {
				t.Errorf("seed %d: %d in a sliding window, limit %s", seed, got, x)
			}
		}
		if requests := len(slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.joined })); requests*10 > len(calls) {
			t.Errorf("seed %d: %d requests for %d messages, want a tenth at most", seed, requests, len(calls))
		}
	}
}

func TestAtLeast98PercentIsUsedUnderDemand(t *testing.T) {
	t.Parallel()
	cases := []Window{
		{N: 10, Per: time.Second, Unit: Requests},
		{N: 14, Per: time.Second, Unit: Requests},
		{N: 200, Per: time.Second, Unit: Recipients},
		{N: 500, Per: time.Minute, Unit: Requests},
		{N: 1000, Per: time.Minute, Unit: Messages},
		{N: 100, Per: 5 * time.Minute, Unit: Requests},
		{N: 2000, Per: time.Hour, Unit: Messages},
	}
	for _, x := range cases {
		w := newWorld(7, []Window{x})
		span := max(20*x.Per, 2*time.Minute)
		calls := w.run(span)
		want := 0.98 * float64(x.N) * float64(span) / float64(x.Per)
		if got := float64(len(calls)); got < want {
			t.Errorf("%s: %.0f calls in %s, want at least %.0f (98 %%)", x, got, span, want)
		}
		if got := worst(calls, x); got > x.N {
			t.Errorf("%s: %d in a sliding window", x, got)
		}
	}
}

func TestOpenCallsCountUntilTheyAreSettled(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	acc := &Account{Ledgers: []Ledger{{Window: Window{N: 2, Per: time.Minute, Unit: Requests}}}}
	for range 2 {
		if g := acc.Take(now, 1, time.Second); !g.OK {
			t.Fatalf("Take = %+v, want a grant", g)
		}
	}
	hours := now.Add(5 * time.Hour)
	if g := acc.Take(hours, 1, time.Second); g.OK || !g.Retry.Equal(hours.Add(openRetry)) {
		t.Errorf("Take with two calls open for hours = %+v, want a retry soon", g)
	}
	acc.Open.Calls--
	acc.Open.Messages--
	acc.Settle(hours, hours, 1, false)
	if g := acc.Take(hours, 1, time.Second); g.OK {
		t.Errorf("Take with one open and one just settled = %+v, want a refusal", g)
	}
	if g := acc.Take(hours.Add(62*time.Second), 1, time.Second); !g.OK {
		t.Errorf("Take a window after the settled one = %+v, want a grant", g)
	}
}

func TestCostOverTheLimitNeverFits(t *testing.T) {
	t.Parallel()
	acc := &Account{Ledgers: []Ledger{{Window: Window{N: 10, Per: time.Second, Unit: Recipients}}}}
	if g := acc.Take(time.Now(), 11, time.Hour); g.OK || !g.Retry.IsZero() {
		t.Errorf("Take(11 recipients of 10) = %+v, want a refusal without a retry time", g)
	}
}

func TestABlockHoldsWhateverTheWindowsSay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	acc := &Account{BlockedUntil: now.Add(90 * time.Second)}
	if g := acc.Take(now, 1, time.Second); g.OK || !g.Retry.Equal(now.Add(90*time.Second)) {
		t.Errorf("Take while blocked = %+v, want retry at +90s", g)
	}
	if g := acc.Take(now.Add(90*time.Second), 1, time.Second); !g.OK {
		t.Errorf("Take after the block = %+v, want a grant", g)
	}
}

// The latency to the provider may differ between replicas by up to the slack, and the clock may be read too late.
func TestAWindowIsStretchedByItsSlackAndTheCallersLag(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	w := Window{N: 1, Per: time.Minute, Unit: Requests}
	acc := &Account{Ledgers: []Ledger{{Window: w}}, Lag: 7 * time.Millisecond}
	if g := acc.Take(now, 1, time.Second); !g.OK || !g.Slot.Equal(now.Add(7*time.Millisecond)) {
		t.Errorf("Take of an unused window = %+v, want a slot 7 ms ahead, by which now may be ahead", g)
	}
	acc = &Account{Ledgers: []Ledger{{Window: w}}}
	acc.Settle(now, now, 1, false)
	free := now.Add(w.BinWidth() + w.Per + w.Slack()) // now is where a bin begins
	if g := acc.Take(free.Add(-time.Nanosecond), 1, 0); g.OK || !g.Retry.Equal(free) {
		t.Errorf("Take = %+v before bin, window and slack are over, want a retry at %s", g, free)
	}
	if g := acc.Take(free, 1, 0); !g.OK {
		t.Errorf("Take = %+v when they are over, want a grant", g)
	}
}

func TestASlotBeyondTheHorizonOpensNothing(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	acc := &Account{Ledgers: []Ledger{{Window: Window{N: 2, Per: time.Minute, Unit: Requests}}}}
	acc.Settle(now, now, 1, false)
	acc.Settle(now, now, 1, false)
	for range 5 {
		if g := acc.Take(now, 1, time.Second); g.OK || g.Retry.Before(now.Add(time.Minute)) {
			t.Fatalf("Take in a full window = %+v, want a retry after a minute", g)
		}
	}
	if acc.Open.Calls != 0 || acc.Used(now)[0] != 2 {
		t.Errorf("open %d, used %d: want 0 and 2, a refusal costs nothing", acc.Open.Calls, acc.Used(now)[0])
	}
}

func TestShortWindowsAreSpacedEvenly(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	acc := &Account{Ledgers: []Ledger{{Window: Window{N: 10, Per: time.Second, Unit: Requests}}}}
	var slots []time.Duration
	for range 10 {
		g := acc.Take(now, 1, 2*time.Second)
		if !g.OK {
			t.Fatalf("Take = %+v, want a grant", g)
		}
		slots = append(slots, g.Slot.Sub(now))
	}
	if slots[0] != 0 || slots[9] < 600*time.Millisecond || slots[9] > time.Second {
		t.Errorf("slots at %v: want them spread over the second, but for what may be caught up", slots)
	}
}

func TestWindowValidate(t *testing.T) {
	t.Parallel()
	bad := []Window{
		{N: 0, Per: time.Second, Unit: Requests},
		{N: -1, Per: time.Second, Unit: Requests},
		{N: 1, Per: 0, Unit: Requests},
		{N: 1, Per: time.Millisecond, Unit: Requests},
		{N: 1, Per: 32 * 24 * time.Hour, Unit: Requests},
		{N: 1, Per: time.Second, Unit: "bytes"},
		{N: 10_000_001, Per: time.Second, Unit: Messages},
	}
	for _, w := range bad {
		if w.Validate() == nil {
			t.Errorf("Validate(%s) = nil, want an error", w)
		}
	}
	for _, ws := range documented() {
		for _, w := range ws {
			if err := w.Validate(); err != nil {
				t.Errorf("Validate(%s) = %v", w, err)
			}
		}
	}
}

func TestASpentAccountSendsAgainAWindowLater(t *testing.T) {
	t.Parallel()
	w := Window{N: 3, Per: time.Minute, Unit: Requests}
	lost := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	acc := &Account{Ledgers: []Ledger{{Window: w}}}
	acc.Settle(lost, lost.Add(-10*time.Second), 1, false)
	acc.Settle(lost, lost.Add(10*time.Second), 1, false)
	acc.Changed = false
	acc.Spend(lost)
	if !acc.Changed {
		t.Error("the account shows no change, so it would not be stored")
	}
	if got := acc.Used(lost.Add(10 * time.Second))[0]; got != 4 {
		t.Errorf("used = %d, want the whole window of 3 and the one that came later", got)
	}
	for _, tc := range []struct {
		after time.Duration
		want  bool
	}{{time.Second, false}, {59 * time.Second, false}, {62 * time.Second, true}} {
		probe := &Account{Ledgers: []Ledger{{Window: w, Bins: slices.Clone(acc.Ledgers[0].Bins)}}}
		if g := probe.Take(lost.Add(tc.after), 1, 0); g.OK != tc.want {
			t.Errorf("%s after it was spent: %+v, want a slot: %t", tc.after, g, tc.want)
		}
	}
}
