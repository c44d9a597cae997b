package deliver

import (
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

// Hook gives the parser of what the provider of an account reports. Known is false when there is no such account; the
// parser is nil while the account is not usable here, so that its provider comes again later.
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

// Registrar gives what sets up an account's events at its provider, if it has an API for that.
func (e *Engine) Registrar(name string) (provider.Registrar, bool) {
	a := e.accounts.named(name)
	if a == nil {
		return nil, false
	}
	r, ok := a.adapter().(provider.Registrar)
	return r, ok
}
