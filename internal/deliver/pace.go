package deliver

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sendgate/sendgate/internal/limit"
)

// pacer spreads calls in front of the socket. The shared limit has already decided. The pacer keeps a burst of late timers
// from becoming a burst at the provider.
type pacer struct {
	window  limit.Window
	limiter *rate.Limiter
}

// pace waits for the local pacers.
func (a *account) pace(ctx context.Context, recipients int) bool {
	a.mu.Lock()
	pacers := a.pacers
	a.mu.Unlock()
	for _, p := range pacers {
		if err := p.limiter.WaitN(ctx, min(p.window.Cost(recipients), p.limiter.Burst())); err != nil {
			return false
		}
	}
	return true
}

// floor is the shortest time that a recent call to this account took. A call cannot have arrived later than that long before
// its answer, give or take the network time of every call. Until floorCalls calls were seen, nothing is subtracted.
type floor struct {
	mu         sync.Mutex
	last, this time.Duration
	calls      int
	since      time.Time
}

const (
	floorCalls = 20
	floorAge   = 5 * time.Minute
)

// note counts a finished call and returns how much may be subtracted from its end.
func (f *floor) note(took time.Duration, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.since) > floorAge {
		f.last, f.since = 0, now
		if f.calls >= floorCalls {
			f.last = f.this
		}
		f.this, f.calls = 0, 0
	}
	if f.calls == 0 || took < f.this {
		f.this = took
	}
	f.calls++
	switch {
	case f.last > 0:
		return min(f.last, f.this)
	case f.calls >= floorCalls:
		return f.this
	}
	return 0
}
