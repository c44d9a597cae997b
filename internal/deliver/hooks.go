package deliver

import (
	"context"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

// named finds a live account by its name. The set is in memory: a flood of forged requests costs no look-up.
func (s *accounts) named(name string) *account {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range s.byID {
		if a.name == name {
			return a
		}
	}
	return nil
}

// Hook returns the parser of the events that an account's provider reports. known is false if there is no such account. The
// parser is nil while the account is not usable here; the provider must then try again later.
func (e *Engine) Hook(name string) (id int32, p provider.EventParser, known bool) {
	a := e.accounts.named(name)
	if a == nil {
		return 0, nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p, _ = a.client.(provider.EventParser)
	return a.conf.ID, p, true
}

// Current waits until this replica has the accounts as they were at the time of the call, or newer. It reports false if
// ctx ended first.
func (e *Engine) Current(ctx context.Context) bool { return e.readings.after(ctx, time.Now()) }

// readings holds when the last successful reading of the configuration began.
type readings struct {
	mu    sync.Mutex
	began time.Time
	next  chan struct{} // closed by the next reading; nil if nobody waits
}

func (r *readings) done(began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = began
	if r.next != nil {
		close(r.next)
		r.next = nil
	}
}

// after waits for a reading that began at a time or after it.
func (r *readings) after(ctx context.Context, at time.Time) bool {
	for {
		r.mu.Lock()
		if !r.began.Before(at) {
			r.mu.Unlock()
			return true
		}
		if r.next == nil {
			r.next = make(chan struct{})
		}
		next := r.next
		r.mu.Unlock()
		select {
		case <-next:
		case <-ctx.Done():
			return false
		}
	}
}

// Registrar returns the account's adapter as one that sets up events, if its provider has an API for that.
func (e *Engine) Registrar(name string) (provider.Registrar, bool) {
	a := e.accounts.named(name)
	if a == nil {
		return nil, false
	}
	r, ok := a.adapter().(provider.Registrar)
	return r, ok
}
