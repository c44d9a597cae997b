package deliver

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/route"
)

// accounts is the set of live accounts.
type accounts struct {
	build Build
	spec  func(provider.Kind) (provider.Spec, bool)
	store configStore
	log   *slog.Logger

	mu       sync.RWMutex
	byID     map[int32]*account
	replicas int
}

func (s *accounts) init(o *Options) {
	s.build, s.spec, s.store, s.log, s.byID, s.replicas = o.Build, o.Spec, o.Store, o.Log, map[int32]*account{}, 1
}

func (s *accounts) get(id int32) *account {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

// all returns the accounts as they are now. One that is replaced later is used in its old form to the end.
func (s *accounts) all() map[int32]*account {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.byID)
}

func (s *accounts) each(f func(id int32, a *account)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, a := range s.byID {
		f(id, a)
	}
}

// reload brings the live accounts in line with the configuration and fills in the capabilities of each. A new
// adapter is made only if settings or secrets changed; the old one is closed when its calls are done. An error means that
// the database did not give the secrets of an account. That account is unusable until it is loaded again.
func (s *accounts) reload(ctx context.Context, c *route.Config) error {
	keep := map[int32]bool{}
	var errs []error
	for i := range c.Accounts {
		conf := &c.Accounts[i]
		keep[conf.ID] = true
		errs = append(errs, s.apply(ctx, conf))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.byID {
		if !keep[id] {
			delete(s.byID, id)
			a.retire()
		}
	}
	return errors.Join(errs...)
}

// apply brings one live account in line with its configuration, with a new adapter if needed.
func (s *accounts) apply(ctx context.Context, conf *route.Account) error {
	old, share := s.get(conf.ID), s.shareOf(conf.Concurrency) // not while old is locked: each locks s.mu first
	if old != nil && old.current(conf) {
		old.mu.Lock()
		conf.Capabilities = old.conf.Capabilities
		old.configure(*conf)
		old.share = share
		old.mu.Unlock()
		return nil
	}
	a := newAccount(*conf, share)
	spec, _ := s.spec(conf.Kind)
	a.lookup, a.within, a.announce = spec.Lookup, spec.Repeat.Within, !spec.Events.Accepted
	err := a.connect(ctx, s)
	conf.Capabilities = a.conf.Capabilities
	s.mu.Lock()
	s.byID[conf.ID] = a
	s.mu.Unlock()
	if old != nil {
		old.retire()
	}
	return err
}

func (s *accounts) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.byID {
		a.retire()
	}
}

// shareOf divides an account's concurrency over the replicas that are alive.
func (s *accounts) shareOf(concurrency int) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return max(concurrency/s.replicas, 1)
}

// setReplicas divides the concurrency of each account anew if the number of live replicas changed.
func (s *accounts) setReplicas(n int) {
	s.mu.Lock()
	changed := s.replicas != n
	s.replicas = n
	s.mu.Unlock()
	if changed {
		s.each(func(_ int32, a *account) {
			a.mu.Lock()
			a.share = max(a.conf.Concurrency/n, 1)
			a.mu.Unlock()
		})
	}
}
