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

// pace waits for the local pacers, before a call with so many messages and recipients.
func (a *account) pace(ctx context.Context, messages, recipients int) bool {
	a.mu.Lock()
	pacers := a.pacers
	a.mu.Unlock()
	for _, p := range pacers {
		cost := 1
		switch p.window.Unit {
		case limit.Messages:
			cost = messages
		case limit.Recipients:
			cost = recipients
		case limit.Requests:
		}
		if err := p.limiter.WaitN(ctx, min(cost, p.limiter.Burst())); err != nil {
			return false
		}
	}
	return true
}

// floor is limit.Floor, for calls that end at the same time.
type floor struct {
	mu sync.Mutex
	of limit.Floor
}

func (f *floor) note(took, late time.Duration, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of.Note(took, late, now)
}
