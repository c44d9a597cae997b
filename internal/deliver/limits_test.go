package deliver

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// limitStore is the limit state of one account, as the database keeps it, and a queue without end in front of it. Each
// exchange takes a few milliseconds.
type limitStore struct {
	fakeStore
	windows    []limit.Window
	recipients int

	mu   sync.Mutex
	acc  limit.Account
	open map[mail.ID]int
}

const exchange = 3 * time.Millisecond

func (s *limitStore) Config(context.Context) (*route.Config, error) {
	c := testConfig()
	c.Accounts[0].Limits = s.windows
	return c, nil
}

func (s *limitStore) Claim(_ context.Context, _ mail.ID, lanes []queue.LaneQuota,
	decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim,
) error {
	time.Sleep(exchange)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var due []queue.Due
	for range lanes[0].Max {
		due = append(due, queue.Due{
			ID: mail.NewID(), Lane: lanes[0].Lane, Due: now.Add(-time.Hour), ExpiresAt: now.Add(time.Hour),
			Facts: &mail.Facts{Recipients: s.recipients, SenderDomain: "example.com"},
		})
	}
	for _, a := range decide(now, due, map[int32]*limit.Account{7: &s.acc}).Take {
		s.open[a.Due.ID] = a.Due.Facts.Recipients
	}
	return nil
}

func (s *limitStore) Load(_ context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
	time.Sleep(exchange)
	loaded := map[mail.ID]queue.Loaded{}
	for _, id := range ids {
		l := queue.Loaded{Message: &mail.Message{ID: id}}
		for n := range s.recipients {
			l.Recipients = append(l.Recipients, mail.Recipient{N: n, Kind: mail.To, Status: mail.Queued})
		}
		loaded[id] = l
	}
	return loaded, nil
}

func (s *limitStore) Intend(context.Context, mail.ID, queue.Intent) (queue.Announced, error) {
	time.Sleep(exchange)
	return queue.Announced{OK: true}, nil
}

func (s *limitStore) Record(_ context.Context, _ mail.ID, r queue.Result) (bool, error) {
	time.Sleep(exchange)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acc.Open.Calls--
	s.acc.Open.Messages--
	s.acc.Open.Recipients -= s.open[r.ID]
	delete(s.open, r.ID)
	if r.Settle != nil {
		s.acc.Settle(time.Now(), r.Settle.At, r.Settle.Recipients, false)
	}
	return true, nil
}

// arrivals counts at the provider.
type arrivals struct {
	mu sync.Mutex
	at []time.Time
}

func (a *arrivals) Send(context.Context, *provider.Send) (provider.Receipt, error) {
	a.mu.Lock()
	n := len(a.at)
	a.mu.Unlock()
	time.Sleep(4*time.Millisecond + time.Duration(n%3)*time.Millisecond)
	a.mu.Lock()
	a.at = append(a.at, time.Now())
	a.mu.Unlock()
	time.Sleep(12*time.Millisecond + time.Duration(n%5)*time.Millisecond)
	return provider.Receipt{}, nil
}

func (*arrivals) Close() error { return nil }

// worst is the most that arrived in any sliding window.
func (a *arrivals) worst(per time.Duration) int {
	most, first := 0, 0
	for i, at := range a.at {
		for at.Sub(a.at[first]) >= per {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

var thorough = flag.Bool("thorough", false, "look at the engine's pace for longer, and at the quickest one too")

// The pace of the engine itself: what package limit proves in a model holds for the loops, the timers and the local pacers.
func TestReplicasUseAPacedLimitAndNeverExceedIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		windows    []limit.Window
		recipients int
		minute     int // what they let through
	}{
		"10/s":          {[]limit.Window{{N: 10, Per: time.Second, Unit: limit.Requests}}, 1, 600},
		"10/s, 500/min": {[]limit.Window{{N: 10, Per: time.Second, Unit: limit.Requests}, {N: 500, Per: time.Minute, Unit: limit.Requests}}, 1, 500},
		"14/s":          {[]limit.Window{{N: 14, Per: time.Second, Unit: limit.Requests}, {N: 200, Per: time.Second, Unit: limit.Recipients}}, 1, 840},
		"200 mailed/s":  {[]limit.Window{{N: 200, Per: time.Second, Unit: limit.Recipients}}, 4, 3000},
		"100/s":         {[]limit.Window{{N: 100, Per: time.Second, Unit: limit.Requests}}, 1, 6000},
		"1000/min":      {[]limit.Window{{N: 1000, Per: time.Minute, Unit: limit.Messages}}, 1, 1000},
	} {
		if c.minute > 3000 && !*thorough {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			store := &limitStore{windows: c.windows, recipients: c.recipients, open: map[mail.ID]int{}}
			store.secrets = func() error { return nil }
			for _, w := range c.windows {
				store.acc.Ledgers = append(store.acc.Ledgers, limit.Ledger{Window: w})
			}
			esp := &arrivals{}
			ctx, cancel := context.WithCancel(t.Context())
			var replicas sync.WaitGroup
			for range 3 {
				e := replicaOf(t, store, esp)
				replicas.Go(func() { e.claimLoop(ctx); e.carried.Wait() })
			}
			minutes := 2 // the first of them is not judged
			if *thorough {
				minutes = 3
			}
			time.Sleep(time.Duration(minutes) * time.Minute)
			cancel()
			replicas.Wait()
			last := slices.IndexFunc(esp.at, func(at time.Time) bool { return at.Sub(esp.at[0]) >= time.Minute })
			use := float64(len(esp.at)-last) / float64((minutes-1)*c.minute)
			t.Logf("%s: %.2f %% used", name, 100*use)
			if use < 0.98 {
				t.Errorf("%s: %.2f %% used under demand, want 98 %%", name, 100*use)
			}
			for _, w := range c.windows {
				if got := esp.worst(w.Per) * w.Cost(c.recipients); got > w.N {
					t.Errorf("%s: %d in a sliding window, limit %s", name, got, w)
				}
			}
		})
	}
}

func replicaOf(t *testing.T, store Store, esp provider.Provider) *Engine {
	t.Helper()
	build := func(provider.Kind, []byte, map[string]seal.Secret) (provider.Provider, provider.Capabilities, error) {
		return esp, provider.Capabilities{}, nil
	}
	e, err := New(Options{
		Store: store, Build: build, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.New(telemetry.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	loadConfig(t, e)
	owner := mail.NewID()
	e.owner.Store(&owner)
	e.accounts.setReplicas(3)
	e.lanes.note(queue.Lane{Number: 1, Tenant: 1})
	return e
}

// dropStore lets a claim's way to its call end where a test says.
type dropStore struct {
	limitStore
	claimed, loaded, intended error
	none, gone, lost          bool
	late                      time.Duration
}

func (s *dropStore) Claim(ctx context.Context, owner mail.ID, lanes []queue.LaneQuota,
	decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim,
) error {
	lanes[0].Max = 1
	return errors.Join(s.limitStore.Claim(ctx, owner, lanes, decide), s.claimed)
}

func (s *dropStore) Load(ctx context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
	loaded, err := s.limitStore.Load(ctx, ids)
	if s.none {
		loaded[ids[0]].Recipients[0].Status = mail.Suppressed
	}
	return loaded, errors.Join(err, s.loaded)
}

func (s *dropStore) Intend(_ context.Context, _ mail.ID, in queue.Intent) (queue.Announced, error) {
	time.Sleep(s.late)
	if s.gone {
		return queue.Announced{Suppressed: []int{in.Open[0].N}}, nil
	}
	return queue.Announced{OK: !s.lost}, s.intended
}

func TestEachSlotThatNoCallIsMadeForIsCounted(t *testing.T) {
	t.Parallel()
	gone := errors.New("connection reset")
	for name, c := range map[string]struct {
		store   *dropStore
		arrange func(*Engine)
		want    float64
	}{
		"used":              {store: &dropStore{}, want: 0},
		"commit failed":     {store: &dropStore{claimed: gone}, want: 1},
		"not loaded":        {store: &dropStore{loaded: gone}, want: 1},
		"all suppressed":    {store: &dropStore{none: true}, want: 1},
		"suppressed since":  {store: &dropStore{gone: true}, want: 1},
		"intent failed":     {store: &dropStore{intended: gone}, want: 1},
		"claim lost":        {store: &dropStore{lost: true}, want: 1},
		"intent came late":  {store: &dropStore{late: intentAge}, want: 1},
		"breaker open":      {store: &dropStore{}, want: 1, arrange: tripBeforeItsCall},
		"calls are cut off": {store: &dropStore{}, want: 1, arrange: func(e *Engine) { e.cut() }},
		"account replaced":  {store: &dropStore{}, want: 1, arrange: func(e *Engine) { e.accounts.get(7).client = nil }},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := c.store
			s.recipients, s.open = 1, map[mail.ID]int{}
			s.secrets = func() error { return nil }
			esp := &arrivals{}
			e := replicaOf(t, s, esp)
			if c.arrange != nil {
				c.arrange(e)
			}
			e.claimOnce(t.Context())
			e.carried.Wait()
			if got := counted(t, e.Metrics.SlotsGranted); got != 1 {
				t.Errorf("%s: %v slots granted, want 1", name, got)
			}
			if got := counted(t, e.Metrics.SlotsDropped); got != c.want {
				t.Errorf("%s: %v slots dropped, want %v", name, got, c.want)
			}
			if got := 1 - float64(len(esp.at)); got != c.want {
				t.Errorf("%s: %d calls made", name, len(esp.at))
			}
		})
	}
}

// tripBeforeItsCall opens the breaker once the claim has been made.
func tripBeforeItsCall(e *Engine) {
	time.AfterFunc(exchange+exchange/2, func() {
		for range 10 {
			if done, err := e.accounts.get(7).breaker.Allow(); err == nil {
				done(errors.New("503"))
			}
		}
	})
}

// counted is the sum of a counter over its labels.
func counted(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}
