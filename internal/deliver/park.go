package deliver

import (
	"context"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

// A park ends by itself: from time to time one message is let through as a probe. The database gives the right to make the
// next probe to one replica, for Policy.ProbeAfter. That replica lets through the first message that would go there. If it
// is accepted, the park ends; the same refusal delays the next probe. After any other outcome the park stays as it is until
// the right to probe is given again.

// probeMargin is how long before its end a right to probe is no longer used, so that the call is over by then.
const probeMargin = 45 * time.Second

// probeSeek is how many held messages are looked at again when this replica may probe.
const probeSeek = 200

// takeProbes asks for the right to probe the parks that this replica knows of.
func (e *Engine) takeProbes(ctx context.Context) error {
	c := e.config.Load()
	if c == nil || !slices.ContainsFunc(c.Accounts, func(a route.Account) bool { return len(a.Parked) > 0 }) {
		return nil
	}
	lease := e.Policy.ProbeAfter
	until := time.Now().Add(lease - min(probeMargin, lease/2))
	taken, err := e.Store.TakeProbes(ctx, lease)
	if err != nil || len(taken) == 0 {
		return err
	}
	for id, keys := range taken {
		if a := e.accounts.get(id); a != nil {
			a.mayProbe(keys, until)
		}
	}
	if _, err := e.Store.FreeHeld(ctx, probeSeek); err != nil {
		return err
	}
	e.lanes.awaken()
	e.nudge()
	return nil
}

// probe is this replica's right to let one message through a park.
type probe struct {
	until time.Time
	used  bool
}

// mayProbe notes the right to probe these parks.
func (a *account) mayProbe(keys []string, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range keys {
		if a.probes == nil {
			a.probes = map[string]probe{}
		}
		a.probes[key] = probe{until: until}
	}
}

// useProbes notes that a message was let through these parks. Other messages are still kept out.
func (a *account) useProbes(keys []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range keys {
		if p, ok := a.probes[key]; ok {
			p.used = true
			a.probes[key] = p
		}
	}
}

// endProbes ends the rights that were used. If no call was made, another message may use them.
func (a *account) endProbes(keys []string, called bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range keys {
		if q, ok := a.probes[key]; ok && !called {
			q.used = false
			a.probes[key] = q
		} else {
			delete(a.probes, key)
		}
	}
}

// park notes a park locally, until the configuration with it is read from the database. It reports whether the park is
// new here.
func (a *account) park(p *queue.Park, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.ContainsFunc(a.conf.Parked, func(have route.Park) bool { return have.Key() == p.Key() }) {
		return false
	}
	parked := route.ParkFor(p.Key())
	parked.Reason, parked.Since = p.Reason, now
	a.conf.Parked = append(slices.Clone(a.conf.Parked), parked)
	return true
}

// unpark notes the end of parks in the same way.
func (a *account) unpark(keys []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conf.Parked = slices.DeleteFunc(slices.Clone(a.conf.Parked), func(p route.Park) bool { return slices.Contains(keys, p.Key()) })
}

// suspectsToPark is how many different messages in a row must get the same answer, with no acceptance between them, before
// it is taken to be about more than those messages.
const suspectsToPark = 3

// maxSuspicions bounds the rows of answers that an account remembers. Beyond that, it forgets all and starts again.
const maxSuspicions = 1000

// suspect names a row of equal answers by the sender domain that they are about ("" for the account) and their code.
type suspect struct{ domain, code string }

// evidence holds the messages of such a row. Each replica counts its own, which are a fair sample of all.
type evidence struct {
	ids     []mail.ID
	address string // of the sender of all; "" where they differ
}

func (e evidence) proves() bool { return len(e.ids) >= suspectsToPark }

// scope returns what the answer is about. If several messages had to get it, their senders show whether it is about one
// address or the whole domain.
func (e evidence) scope(failure *provider.Error) provider.Scope {
	switch {
	case !failure.Suspect || failure.Scope == provider.ScopeAccount:
		return failure.Scope
	case e.address == "":
		return provider.ScopeSender
	}
	return provider.ScopeAddress
}

// weigh counts the outcome of a call. It returns the evidence against the account, or the sender on it, this call included.
func (a *account) weigh(c call, failure *provider.Error) evidence {
	a.mu.Lock()
	defer a.mu.Unlock()
	if failure == nil { // it takes mail, of this sender too
		for s := range a.suspects {
			if s.domain == "" || s.domain == c.sender {
				delete(a.suspects, s)
			}
		}
		return evidence{}
	}
	if !failure.Suspect {
		return evidence{}
	}
	s := suspect{code: failure.Code}
	if failure.Scope != provider.ScopeAccount {
		s.domain = c.sender
	}
	e := a.suspects[s]
	switch {
	case len(e.ids) == 0:
		e.address = c.address
	case e.address != c.address:
		e.address = ""
	}
	if !slices.Contains(e.ids, c.due.ID) {
		e.ids = append(slices.Clone(e.ids), c.due.ID)
	}
	if a.suspects == nil || len(a.suspects) >= maxSuspicions {
		a.suspects = map[suspect]evidence{}
	}
	if a.suspects[s] = e; e.proves() { // after this park the count starts again
		delete(a.suspects, s)
	}
	return e
}

// Degraded lists the pools in which no account can take mail now.
func (e *Engine) Degraded() []string {
	c := e.config.Load()
	if c == nil {
		return nil
	}
	v := newView(e.accounts.all(), time.Now())
	var pools []string
	for i := range c.Pools {
		p := &c.Pools[i]
		works := func(m route.Member) bool { return m.Weight > 0 && v.works(c.Account(m.Account)) }
		if len(p.Members) > 0 && !slices.ContainsFunc(p.Members, works) {
			pools = append(pools, p.Name)
		}
	}
	return pools
}

// works reports whether an account takes mail at all, whatever its limits and its number of calls.
func (v *view) works(conf *route.Account) bool {
	if conf == nil || conf.Paused || conf.Draining {
		return false
	}
	whole := func(p route.Park) bool { return p.SenderDomain == "" }
	return !slices.ContainsFunc(conf.Parked, whole) && v.Health(conf).Code == ""
}
