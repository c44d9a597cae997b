package deliver

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

// At a provider that takes an idempotency key, a call whose answer was lost can be made again: the provider sends the
// message once and gives the same answer. So such a call is repeated at its account, a few times with growing waits, before
// on_ambiguous decides. A repeat is not a resend: it is not counted as one, and it makes no second mail.
//
// The key stands for a call with one message. The provider knows no key of a message that shared a call, and would send that
// message again. So a shared call is not repeated, neither here nor by the replica that finds it after a crash: the claim says so.

// repeatPatience is how long a repeat may wait for its turn at an account that is busy, parked or throttled.
const repeatPatience = 10 * time.Minute

// uncertain decides what a call of unknown outcome waits for: its repeat, or evidence.
func (p Policy) uncertain(c call, failure *provider.Error, now time.Time) *queue.Hanging {
	have := queue.Repeat{Until: now.Add(c.within)}
	if r := c.due.Avoid[c.name].Repeat; r != nil {
		have = *r
	}
	if c.shared && c.within > 0 {
		h := p.hanging(c.due)
		h.Avoid = unrepeatable(c.due.Avoid, c.name)
		return h
	}
	if c.within <= 0 && have.N == 0 {
		return p.hanging(c.due)
	}
	over := have.Over || failure.Final || have.N >= len(p.Repeats)
	wait := time.Duration(0)
	if !over {
		wait = max(p.Repeats[have.N], failure.RetryAfter)
		over = now.Add(wait + repeatPatience).After(have.Until)
	}
	if over {
		h := p.hanging(c.due)
		h.Avoid = lapsed(c.due.Avoid)
		return h
	}
	again := queue.Repeat{N: have.N + 1, By: now.Add(wait + repeatPatience), Until: have.Until}
	avoid := maps.Clone(c.due.Avoid)
	if avoid == nil {
		avoid = map[string]queue.Avoid{}
	}
	avoid[c.name] = queue.Avoid{Last: c.due.Avoid[c.name].Last, Why: provider.Cut(failure.Error()), Repeat: &again}
	return &queue.Hanging{DecideIn: wait, Policy: queue.Repeating, Avoid: avoid}
}

// unrepeatable returns the avoid list of a message whose call of this account must not be repeated.
func unrepeatable(avoid map[string]queue.Avoid, account string) map[string]queue.Avoid {
	out := maps.Clone(avoid)
	if out == nil {
		out = map[string]queue.Avoid{}
	}
	a := out[account]
	a.Repeat = &queue.Repeat{Over: true}
	out[account] = a
	return out
}

// forbidRepeats notes in the claim which calls must not be repeated: those of several messages. If the replica dies during such
// a call, this note is what a rescuer finds. A message that is requeued because nothing was sent loses the note.
func (p *claimPlan) forbidRepeats(in *claimInput) {
	shared := map[mail.ID]bool{}
	for _, first := range p.items {
		if len(first.others) == 0 || !in.view.accounts[first.account].keyed {
			continue
		}
		for _, it := range first.all() {
			shared[it.due.ID] = true
		}
	}
	for i := range p.Take {
		if a := &p.Take[i]; shared[a.Due.ID] {
			at := slices.IndexFunc(in.config.Accounts, func(conf route.Account) bool { return conf.ID == a.Account })
			a.Due.Avoid = unrepeatable(a.Due.Avoid, in.config.Accounts[at].Name)
		}
	}
}

// lapsed returns the avoid list of a message whose call is not repeated any more.
func lapsed(avoid map[string]queue.Avoid) map[string]queue.Avoid {
	out := maps.Clone(avoid)
	for name, a := range out {
		if a.Repeat != nil {
			over := *a.Repeat
			over.Over = true
			a.Repeat = &over
			out[name] = a
		}
	}
	return out
}

// unbound returns the avoid list of a message whose repeat was accepted. Its next call is for other recipients, and may go
// to any account.
func unbound(avoid map[string]queue.Avoid) map[string]queue.Avoid {
	out := maps.Clone(avoid)
	for name, a := range out {
		if a.Repeat != nil {
			delete(out, name)
		}
	}
	return out
}

// sendKey is the same for all calls of a message that are for the same recipients.
func sendKey(d queue.Due) string {
	if d.ResentAfter == 0 {
		return d.ID.String()
	}
	return d.ID.String() + "/" + strconv.Itoa(d.ResentAfter)
}

// repeatUnknown makes those unknown messages ready whose call is to be made again.
func (e *Engine) repeatUnknown(ctx context.Context) error {
	if len(e.Policy.Repeats) == 0 {
		return nil
	}
	safe := map[int32]time.Duration{}
	e.accounts.each(func(id int32, a *account) {
		if a.within > 0 {
			safe[id] = a.within
		}
	})
	rule := queue.RepeatRule{Within: safe, Wait: e.Policy.Repeats[0], Patience: repeatPatience, Most: len(e.Policy.Repeats)}
	n, err := e.Store.RepeatUnknown(ctx, rule)
	if err != nil {
		return err
	}
	if n > 0 {
		e.Metrics.Resolved.WithLabelValues("repeat", "repeated").Add(float64(n))
		e.nudge()
	}
	return nil
}

// defaultRepeats are the waits before the repeats of a call.
func defaultRepeats() []time.Duration {
	return []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}
}
