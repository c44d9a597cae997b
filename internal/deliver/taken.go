package deliver

import (
	"context"
	"sync"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// taken counts a message that a provider has taken.
func (e *Engine) taken(it *item, c call) {
	m := it.loaded.Message
	stream := m.Stream
	if conf := e.config.Load(); conf != nil {
		stream = conf.KnownStream(stream)
	}
	e.Metrics.Sent.WithLabelValues(c.name, stream).Add(float64(len(c.open)))
	due := m.CreatedAt
	if m.SendAt.After(due) {
		due = m.SendAt
	}
	e.Metrics.SentSeconds.WithLabelValues(c.name).Observe(max(it.now().Sub(due), 0).Seconds())
	if failedElsewhere(c.due.Avoid, c.name) {
		e.Metrics.Failovers.WithLabelValues(c.name).Inc()
	}
}

// failedElsewhere reports whether another account failed the message before.
func failedElsewhere(avoid map[string]queue.Avoid, account string) bool {
	for name := range avoid {
		if name != account {
			return true
		}
	}
	return false
}

// callTallies counts how calls ended, until they are reported to the store.
type callTallies struct {
	mu sync.Mutex
	by map[int32]*record.CallTally
}

// note counts one message of a call, if the call was made.
func (c *callTallies) note(account int32, class, failure string) {
	if class == queue.Aborted {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.of(account)
	t.Made++
	switch provider.Class(class) { //nolint:exhaustive // the others say nothing about whether the provider works
	case provider.Accepted:
		t.Accepted++
	case provider.Transient, provider.Uncertain:
		t.Failed++
		t.Failure = incident.Veil(failure)
	}
}

// of returns the tally of an account. The caller holds mu.
func (c *callTallies) of(account int32) *record.CallTally {
	if c.by == nil {
		c.by = map[int32]*record.CallTally{}
	}
	if c.by[account] == nil {
		c.by[account] = &record.CallTally{Account: account}
	}
	return c.by[account]
}

// take returns what was counted, and begins anew.
func (c *callTallies) take() []record.CallTally {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []record.CallTally
	for _, t := range c.by {
		all = append(all, *t)
	}
	c.by = nil
	return all
}

// tallyCalls reports how calls ended. What could not be stored is counted again the next time.
func (e *Engine) tallyCalls(ctx context.Context) error {
	all := e.ended.take()
	err := e.Store.TallyCalls(ctx, all)
	if err == nil {
		return nil
	}
	e.ended.mu.Lock()
	defer e.ended.mu.Unlock()
	for _, t := range all {
		to := e.ended.of(t.Account)
		to.Accepted, to.Failed, to.Made = to.Accepted+t.Accepted, to.Failed+t.Failed, to.Made+t.Made
		if to.Failure == "" {
			to.Failure = t.Failure
		}
	}
	return err
}
