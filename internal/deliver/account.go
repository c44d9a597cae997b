package deliver

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// errNeutral is an outcome that says nothing about an account's health.
var errNeutral = errors.New("no verdict on the account")

// account is the live side of one configured account: its adapter, its breaker, its pacers and what is in flight here.
type account struct {
	name string
	kind provider.Kind

	mu        sync.Mutex // guards what follows, up to the blank line
	conf      route.Account
	client    provider.Provider
	failure   string // why there is no client
	inflight  int
	share     int           // this replica's part of the account's concurrency
	capped    time.Time     // since when inflight is at share and no call has ended; zero when it is not
	since     time.Time     // since when ends are counted
	ends      int           // calls that ended since then
	carried   int           // their messages
	gap       time.Duration // between two messages, in the last span of counting
	perCall   int           // messages in a call, in the same span
	turn      time.Time     // when the last message that is held for its turn is due again
	busy      time.Time     // no slot before this for calls of at least busyCost recipients
	busyCost  int
	blocked   time.Time // until then, as the provider asked
	throttles int       // throttled calls in a row
	counted   time.Time // when the last of them was counted
	probes    map[string]probe
	suspects  map[suspect]evidence

	lookup   provider.LookupSpec
	within   time.Duration // how long after a call the provider takes repeats for the same call; 0 never
	announce bool          // the provider reports no acceptance of its own
	batch    provider.BatchSpec
	lookups  *rate.Limiter // paces look-ups

	breaker *gobreaker.TwoStepCircuitBreaker[any]
	pacers  []pacer
	floor   floor
}

// breakerPause is how long an open breaker waits before one probe.
const breakerPause = 5 * time.Second

// The breaker judges by the calls of the last breakerSpan. Counts age out by bucket; one fixed window would drop them all
// at once, and a call as long as the window would never count.
const (
	breakerSpan   = time.Minute
	breakerBucket = 10 * time.Second
)

// slowAnswer is how long a call may be open before the breaker counts it as a failure, whatever its outcome. Otherwise a
// provider that takes mail but never answers would get more until the first calls are given up.
const slowAnswer = 10 * time.Second

var errSlow = errors.New("no answer yet")

func newAccount(conf route.Account, share int) *account {
	a := &account{name: conf.Name, kind: conf.Kind, share: share, lookups: rate.NewLimiter(lookupRate, lookupsAtOnce)}
	a.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Name: conf.Name, MaxRequests: 1, Interval: breakerSpan, BucketPeriod: breakerBucket, Timeout: breakerPause,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= 10 || c.Requests >= 50 && c.TotalFailures*2 >= c.Requests
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNeutral) },
	})
	a.configure(conf)
	return a
}

// allow asks the breaker for one call. done reports the outcome to the breaker; only the first report counts.
func (a *account) allow() (done func(error), err error) {
	tell, err := a.breaker.Allow()
	if err != nil {
		return nil, err
	}
	var once sync.Once
	slow := time.AfterFunc(slowAnswer, func() { once.Do(func() { tell(errSlow) }) })
	return func(err error) {
		slow.Stop()
		once.Do(func() { tell(err) })
	}, nil
}

// configure takes over settings that need no new adapter. The caller holds mu, or nobody else has a yet.
func (a *account) configure(conf route.Account) {
	a.conf = conf
	a.pacers = nil
	for _, w := range conf.Limits {
		if w.Per <= 10*time.Second {
			every := rate.Limit(float64(w.N) / w.Per.Seconds())
			a.pacers = append(a.pacers, pacer{w, rate.NewLimiter(every, max(w.N/4, 1)+1)})
		}
	}
	a.busy, a.blocked = time.Time{}, time.Time{}
	maps.DeleteFunc(a.probes, func(key string, _ probe) bool {
		return !slices.ContainsFunc(conf.Parked, func(p route.Park) bool { return p.Key() == key })
	})
}

// current reports whether the adapter of a still fits the settings. Changing a secret moves UpdatedAt.
func (a *account) current(conf *route.Account) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.client != nil && bytes.Equal(a.conf.Settings, conf.Settings) && a.conf.UpdatedAt.Equal(conf.UpdatedAt)
}

// connect makes the adapter. An account whose adapter can't be made takes no mail and says why. It returns an error only
// if the database was unavailable: a later try may succeed.
func (a *account) connect(ctx context.Context, s *accounts) error {
	secrets, err := s.store.Secrets(ctx, a.conf.ID)
	if err == nil {
		a.client, a.conf.Capabilities, err = s.build(a.conf.Kind, a.conf.Settings, secrets)
	}
	if b, ok := a.client.(provider.Batcher); ok {
		a.batch = b.Batch()
	}
	if err != nil {
		a.failure = "settings: " + provider.Cut(err.Error())
		s.log.Error("account is not usable", "account", a.conf.Name, "kind", a.conf.Kind, "error", err)
	}
	if _, away := errors.AsType[*record.Unavailable](err); away {
		return err
	}
	return nil
}

// retire closes the adapter once its calls are done.
func (a *account) retire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failure = "replaced by newer settings"
	a.closeIdle()
}

// closeIdle closes a retired adapter that nobody uses. The caller holds mu.
func (a *account) closeIdle() {
	if a.failure != "" && a.inflight == 0 && a.client != nil {
		_ = a.client.Close() // idle connections only
		a.client = nil
	}
}

// limited reports whether the account has windows.
func (a *account) limited() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.conf.Limits) > 0
}

// adapter returns the adapter, or nil if there is none: it could not be made, or the account was retired with no call booked.
func (a *account) adapter() provider.Provider {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.client
}

// start books one call in flight; done takes it back, with the number of its messages.
func (a *account) start() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inflight++
	if a.inflight >= a.share && a.capped.IsZero() {
		a.capped = time.Now()
	}
}

func (a *account) done(messages int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inflight--
	now := time.Now()
	if a.capped = (time.Time{}); a.inflight >= a.share {
		a.capped = now
	}
	a.ends++
	a.carried += messages
	a.measure(now)
	a.closeIdle()
}

// stallAfter is how long a full account may go without the end of a call before its messages may spill.
const stallAfter = 5 * time.Second

// stalled reports whether the account is full of calls that do not end. The caller holds mu.
func (a *account) stalled(now time.Time) bool {
	return !a.capped.IsZero() && now.Sub(a.capped) > stallAfter
}

// measure averages over spans of a second, because calls end in bursts. The caller holds mu.
func (a *account) measure(now time.Time) {
	switch span := now.Sub(a.since); {
	case a.since.IsZero():
		a.since = now
	case span > time.Second:
		a.gap, a.perCall = span/time.Duration(max(a.carried, 1)), a.carried/max(a.ends, 1)
		a.since, a.ends, a.carried = now, 0, 0
	}
}

// gapAt is the gap as measure would find it. The caller holds mu.
func (a *account) gapAt(now time.Time) time.Duration {
	if span := now.Sub(a.since); !a.since.IsZero() && span > time.Second {
		return span / time.Duration(max(a.carried, 1))
	}
	return a.gap
}

// holdUntil notes when the last message that is held for its turn at this account is due again.
func (a *account) holdUntil(turn, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.measure(now)
	a.turn = turn
}

// noSlot notes that a call of that cost finds no slot before until.
func (a *account) noSlot(until time.Time, cost int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy, a.busyCost = until, cost
}

// block notes here, as the shared state does for all replicas, that the provider asked for a pause.
func (a *account) block(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if until.After(a.blocked) {
		a.blocked = until
	}
}

// throttled counts the throttled calls in a row, this one included; another outcome resets the count. Calls that were
// under way together count once: a call that began before the last count changes nothing.
func (a *account) throttled(yes bool, began time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !began.After(a.counted):
	case yes:
		a.throttles++
		a.counted = time.Now()
	default:
		a.throttles = 0
	}
	return a.throttles
}
