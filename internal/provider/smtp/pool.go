package smtp

import (
	"context"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

// quitTimeout is how long a server gets to answer QUIT.
const quitTimeout = time.Second

// pool keeps connections for reuse. The last used goes first, so that the others can grow old and close. A slot is the right
// to one connection in use. Idle connections hold no slot, and there are never more of them than slots.
type pool struct {
	dial        func(context.Context) (*session, *provider.Error)
	slots       chan struct{}
	maxMessages int
	idleTimeout time.Duration

	mu       sync.Mutex
	idle     []*session
	closed   bool
	quitting sync.WaitGroup
}

func newPool(cfg Config, dial func(context.Context) (*session, *provider.Error)) *pool {
	return &pool{
		dial: dial, slots: make(chan struct{}, cfg.MaxConnections),
		maxMessages: cfg.MaxMessagesPerConnection, idleTimeout: cfg.IdleTimeout,
	}
}

// get takes an idle connection or opens one. It waits for a slot as long as the context lasts. The caller returns the session
// with put; a failed get holds nothing.
func (p *pool) get(ctx context.Context) (*session, *provider.Error) {
	if err := ctx.Err(); err != nil {
		return nil, unreachable(ctx, "wait for a connection", err)
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, unreachable(ctx, "wait for a connection", ctx.Err())
	}
	if s := p.take(); s != nil {
		return s, nil
	}
	return p.open(ctx)
}

// replace swaps a dead connection for a fresh one under the same slot. The other idle ones are at least as old, so none of them
// is tried.
func (p *pool) replace(ctx context.Context, dead *session) (*session, *provider.Error) {
	dead.quit()
	return p.open(ctx)
}

func (p *pool) open(ctx context.Context) (*session, *provider.Error) {
	s, perr := p.dial(ctx)
	if perr != nil {
		<-p.slots
	}
	return s, perr
}

// take returns the most recently used idle session, or nil.
func (p *pool) take() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	s := p.idle[n-1]
	p.idle = p.idle[:n-1]
	s.idleTimer.Stop() // if it fires anyway, expire finds the session gone
	s.reused = true
	return s
}

// put gives a session back. It closes a session that is broken, used up or has had many error replies.
func (p *pool) put(s *session) {
	p.mu.Lock()
	if !s.broken && s.messages < p.maxMessages && s.errors < errorBudget/2 && !p.closed {
		s.idleTimer = time.AfterFunc(p.idleTimeout, func() { p.expire(s) })
		p.idle = append(p.idle, s)
	} else {
		p.quitting.Go(s.quit)
	}
	p.mu.Unlock()
	<-p.slots
}

// expire closes a session that was idle too long. The server would soon do the same, and the next message would fail on it.
func (p *pool) expire(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.idle {
		if other == s {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			p.quitting.Go(s.quit)
			return
		}
	}
}

// close ends all idle sessions and waits for those that are sending QUIT.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, s := range p.idle {
		s.idleTimer.Stop()
		p.quitting.Go(s.quit)
	}
	p.idle = nil
	p.mu.Unlock()
	p.quitting.Wait()
}
