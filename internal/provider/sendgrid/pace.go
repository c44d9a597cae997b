package sendgrid

import (
	"context"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

// lookupsPerMinute is how often an API key may ask for activity ("Email Activity", rate limit). It is no part of the
// account's limits, which are of sends.
const lookupsPerMinute = 6

// maxOpened caps the messages whose owner is remembered.
const maxOpened = 1000

// pace keeps requests to so many in any minute, and remembers whose message was opened, so that a look-up that takes more
// than a minute's requests goes on where it stopped. It is safe for concurrent use.
type pace struct {
	mu     sync.Mutex
	made   []time.Time       // the last requests, as many as a minute allows
	opened map[string]string // id of a message -> our id in it, "" for none
}

func newPace(perMinute int) *pace {
	return &pace{made: make([]time.Time, perMinute), opened: map[string]string{}}
}

// take makes room for a request at now, or returns how long it has to wait.
func (p *pace) take(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.made[0].Add(time.Minute).Sub(now); wait > 0 {
		return wait
	}
	p.made = append(p.made[1:], now)
	return 0
}

// wait waits for room, unless the context would end before.
func (p *pace) wait(ctx context.Context) error {
	for {
		wait := p.take(time.Now())
		if wait == 0 {
			return nil
		}
		if end, ok := ctx.Deadline(); ok && time.Until(end) < wait {
			return &provider.Error{
				Class: provider.Throttled, RetryAfter: wait, Detail: "sendgrid: the look-ups that a minute allows are used up",
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &provider.Error{Class: provider.Transient, Detail: "sendgrid: cancelled while it waited for its turn", Err: ctx.Err()}
		}
	}
}

// owner returns our id in a message that was opened before.
func (p *pace) owner(id string) (ours string, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ours, known = p.opened[id]
	return ours, known
}

func (p *pace) remember(id, ours string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.opened) >= maxOpened {
		clear(p.opened)
	}
	p.opened[id] = ours
}
