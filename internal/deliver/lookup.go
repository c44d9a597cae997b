package deliver

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
)

// Look-ups are few, and the providers' search APIs are slow and limited. lookupsAtOnce bounds one replica; lookupRate is
// per second and account.
const (
	lookupsAtOnce = 8
	lookupRate    = rate.Limit(2)
	lookupAgain   = 30 * time.Second // after one that failed
	lookupEarly   = time.Minute      // how much earlier than its intent a call may show by the provider's clock
)

// verdictOf decides what a look-up proves: that the provider has the message, that it never took it, or nothing. Absence
// proves nothing before the provider's own delay is over, or if the provider may have forgotten a call of that age.
func verdictOf(spec provider.LookupSpec, found bool, waited, age time.Duration) (v lookupResult) {
	switch {
	case found:
		return lookupFound
	case spec.Kept > 0 && age > spec.Kept:
		return lookupUnclear
	case spec.Settled > 0 && waited >= spec.Settled:
		return lookupAbsent
	}
	return lookupUnclear
}

type lookupResult string

// The results of a look-up, as the metric names them.
const (
	lookupFound   lookupResult = "found"
	lookupAbsent  lookupResult = "absent"
	lookupUnclear lookupResult = "unclear"
	lookupFailed  lookupResult = "failed"
)

// reconcile looks up unknown messages at the providers that have a look-up.
func (e *Engine) reconcile(ctx context.Context) {
	for {
		next := time.Now().Add(2 * time.Second)
		if err := e.lookUpDue(ctx); err != nil && ctx.Err() == nil {
			e.Log.Warn("look up unknown messages", "error", err)
		}
		if !sleepUntil(ctx, next) {
			return
		}
	}
}

// lookUpDue makes the look-ups that are due, and waits for all of them.
func (e *Engine) lookUpDue(ctx context.Context) error {
	var ids []int32
	e.accounts.each(func(id int32, a *account) {
		if a.finder() != nil {
			ids = append(ids, id)
		}
	})
	if len(ids) == 0 {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, dbWait)
	due, err := e.Store.DueLookups(ask, e.Policy.Lookups, ids, lookupsAtOnce)
	cancel()
	var all sync.WaitGroup
	for _, l := range due {
		all.Go(func() { e.lookUp(ctx, l) })
	}
	all.Wait()
	return err
}

func (e *Engine) lookUp(ctx context.Context, l record.Lookup) {
	a := e.accounts.get(l.Account)
	if a == nil {
		return
	}
	result := e.find(ctx, a, l)
	e.Metrics.Lookups.WithLabelValues(string(a.kind), string(result)).Inc()
	e.Log.Info("unknown message looked up", "message_id", l.ID, "n", l.N, "account", a.name, "result", string(result))
}

// find makes one look-up and applies what it proves.
func (e *Engine) find(ctx context.Context, a *account, l record.Lookup) lookupResult {
	f := a.finder()
	if f == nil || a.lookups.Wait(ctx) != nil {
		e.putOff(ctx, l)
		return lookupFailed
	}
	call, cancel := context.WithTimeout(ctx, e.CallTimeout)
	defer cancel()
	sender := mail.Address{Email: l.Sender}
	until := l.StartedAt
	if l.Until.After(until) {
		until = l.Until
	}
	found, err := f.Find(call, &provider.Query{
		MessageID: l.ID, InternetID: l.ID.String() + "@" + sender.Domain(), Sender: l.Sender, Recipients: l.Recipients,
		From: l.StartedAt.Add(-lookupEarly), To: until.Add(e.CallTimeout + lookupEarly),
	})
	if err != nil {
		e.lookupError(ctx, a, l, err)
		return lookupFailed
	}
	result := verdictOf(a.lookup, found.Found, l.Waited, l.Age)
	if result == lookupUnclear {
		e.giveBack(ctx, l, false, 0)
		return result
	}
	e.resolve(ctx, l, found)
	return result
}

// lookupError puts the look-up off, unless asking again would bring the same answer. In that case the next look-up of the
// schedule, or the deadline, decides.
func (e *Engine) lookupError(ctx context.Context, a *account, l record.Lookup, err error) {
	pe, _ := errors.AsType[*provider.Error](err)
	e.Log.Warn("look-up failed", "account", a.name, "message_id", l.ID, "error", err)
	if pe == nil || pe.Class == provider.Transient || pe.Class == provider.Throttled || pe.Class == provider.Uncertain {
		wait := lookupAgain
		if pe != nil {
			wait = max(wait, pe.RetryAfter)
		}
		e.giveBack(ctx, l, true, wait)
	}
}

// putOff gives back a look-up that could not be made, to repeat it later.
func (e *Engine) putOff(ctx context.Context, l record.Lookup) { e.giveBack(ctx, l, true, lookupAgain) }

// giveBack returns a look-up that settled nothing. With repeat it is made again after wait; else the schedule decides.
func (e *Engine) giveBack(ctx context.Context, l record.Lookup, repeat bool, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dbWait)
	defer cancel()
	if err := e.Store.ReturnLookup(ctx, l.ID, l.N, repeat, wait); err != nil {
		e.Log.Warn("look-up not given back", "message_id", l.ID, "error", err)
	}
}

// resolve records what a look-up proved.
func (e *Engine) resolve(ctx context.Context, l record.Lookup, found provider.Finding) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dbWait)
	defer cancel()
	settled, err := e.Store.Resolve(ctx, record.Verdict{
		ID: l.ID, N: l.N, Account: l.Account, Found: found.Found, ProviderMessageID: provider.Cut(found.ProviderMessageID),
		Payloads: found.Payloads,
	})
	if err != nil {
		e.Log.Warn("look-up not recorded", "message_id", l.ID, "error", err)
		e.putOff(ctx, l)
		return
	}
	if !settled {
		return
	}
	verdict := "sent"
	if !found.Found {
		verdict = "resent"
		e.nudge()
	}
	e.Metrics.Resolved.WithLabelValues("lookup", verdict).Inc()
}

// finder returns the account's look-up, or nil.
func (a *account) finder() provider.Finder {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.lookup.Works {
		return nil
	}
	f, _ := a.client.(provider.Finder)
	return f
}
