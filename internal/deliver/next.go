package deliver

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

// Policy holds the waits and limits for unknown messages and for parks.
type Policy struct {
	UnknownWait       time.Duration   // resend and never: the wait for evidence before deciding
	ReconcileDeadline time.Duration   // reconcile: the same
	Lookups           []time.Duration // reconcile: when after the call the provider is asked
	ProbeAfter        time.Duration   // a park: before the first probe
	ProbeMax          time.Duration   // a park: before any later one
	ReconcileResend   bool            // reconcile, at its deadline: resend, else fail
	Repeats           []time.Duration // the wait before each repeat of a call that the provider lets us make again
	ResendMax         int             // how often a message is resent at most while an earlier call is unknown
}

// Waits gives the wait of each on_ambiguous policy.
func (p Policy) Waits() map[mail.Policy]time.Duration {
	return map[mail.Policy]time.Duration{
		mail.Resend: p.UnknownWait, mail.Never: p.UnknownWait, mail.Reconcile: p.ReconcileDeadline,
	}
}

// hanging makes a message wait after a call of unknown outcome. Each wait is twice as long as the last. So evidence of
// copies that may be on their way gets more time, and a provider that takes mail but never answers gets few copies.
func (p Policy) hanging(d queue.Due) *queue.Hanging {
	return &queue.Hanging{DecideIn: p.Waits()[d.OnAmbiguous] << d.Resends, Policy: d.OnAmbiguous, Avoid: d.Avoid}
}

// call is one call, with all that next needs to know about it.
type call struct {
	due     queue.Due
	account int32
	name    string           // of the account
	kind    provider.Kind    // of the account
	sender  string           // domain
	address string           // of the sender, folded
	open    []mail.Recipient // recipients that the call was for
	within  time.Duration    // how long after the first call the provider takes repeats for the same call
	shared  bool             // it carries other messages, too

	throttles int      // throttled calls of the account in a row, this one included
	suspicion evidence // against the account, or the sender on it, this call included
	probes    []string // keys of the parks that it was let through
}

// health is what an outcome says about the account's breaker.
type health int

const (
	neutral health = iota
	healthy
	failing
)

// next decides what happens to a message after a call. It is the table of error classes, as code. It is pure: now is the
// database's time, and jitter is a number in [0, 1).
func next(c call, receipt provider.Receipt, failure *provider.Error, p Policy, now time.Time, jitter float64) (queue.Result, health) {
	r, health := decide(c, receipt, failure, p, now, jitter)
	at, _ := queue.Repeated(c.due.Avoid)
	switch {
	case at != "" && failure != nil:
		return stillUnknown(r, c, failure, p, now), health
	case at != "" && r.Requeue != nil: // its next call is for other recipients
		r.Requeue.Avoid = unbound(r.Requeue.Avoid)
	}
	return r, health
}

// stillUnknown returns the result for a message whose repeated call was not accepted. The answer to the repeat says
// nothing about the first call. Its verdict on the account stays valid.
func stillUnknown(r queue.Result, c call, failure *provider.Error, p Policy, now time.Time) queue.Result {
	again := *failure
	again.Refused = slices.DeleteFunc(slices.Clone(failure.Refused), func(ref provider.Refusal) bool { return !ref.Full })
	r.Class, r.Recipients, r.Requeue = string(provider.Uncertain), nil, nil
	unknown(&r, c, &again)
	r.Unknown = p.uncertain(c, &again, now)
	return r
}

// decide is next for a call that does not repeat another.
func decide(c call, receipt provider.Receipt, failure *provider.Error, p Policy, now time.Time, jitter float64) (queue.Result, health) {
	r := queue.Result{ID: c.due.ID, N: c.due.Attempts + 1}
	if failure == nil {
		r.Class, r.ProviderMessageID = string(provider.Accepted), provider.Cut(receipt.ProviderMessageID)
		if len(c.probes) > 0 {
			r.Unpark = &queue.Unpark{Account: c.account, Keys: c.probes}
		}
		accepted(&r, c, receipt, now, jitter)
		return r, healthy
	}
	r.Class, r.Status, r.Code, r.Error = string(failure.Class), failure.Status, provider.Cut(failure.Code), provider.Cut(failure.Error())
	switch failure.Class {
	case provider.Transient:
		if failure.Again {
			r.Requeue = &queue.Requeue{Tries: c.due.Tries, Avoid: c.due.Avoid}
			return r, neutral
		}
		again(&r, c, max(backoff(c.due.Tries, jitter), failure.RetryAfter), failure, now)
		if failure.Shared {
			return r, neutral
		}
		return r, failing
	case provider.Throttled:
		wait := failure.RetryAfter
		if wait <= 0 { // no time was given: 1 s, doubled while it goes on, up to a minute
			wait = min(time.Second<<min(max(c.throttles-1, 0), 6), time.Minute)
		}
		r.Block = &queue.Block{Account: c.account, For: wait, Reason: provider.Cut(failure.Detail)}
		r.Requeue = &queue.Requeue{Tries: c.due.Tries, Avoid: c.due.Avoid}
		return r, neutral
	case provider.Misconfigured:
		if failure.Suspect && !c.suspicion.proves() { // the fault may be in this message only: no park yet
			again(&r, c, backoff(c.due.Tries, jitter), failure, now)
			return r, neutral
		}
		r.Park = park(c, failure, c.suspicion.scope(failure), p)
		avoid(&r, c, queue.Avoid{Until: now.Add(parkNotice), Why: provider.Cut(failure.Error())})
		r.Requeue.Tries = c.due.Tries
		return r, neutral
	case provider.Rejected:
		rejected(&r, c, failure, p)
		return r, healthy
	case provider.BadRecipient:
		refused(&r, c, failure)
		return r, healthy
	case provider.Uncertain:
		unknown(&r, c, failure)
		r.Unknown = p.uncertain(c, failure, now)
		return r, failing
	case provider.Accepted:
	}
	// An error cannot have this class; providertest checks that of adapters. The message may have been sent.
	return decide(c, receipt, &provider.Error{Class: provider.Uncertain, Detail: "adapter bug: " + failure.Error()}, p, now, jitter)
}

// rejected lets another account try a message that this one will never take. A message over a limit of this provider goes
// to any other account. Content that it refused goes to one other kind of provider, whose second opinion is final. If many
// messages in a row got the same answer, the account or the sender is to blame, and is parked.
func rejected(r *queue.Result, c call, failure *provider.Error, p Policy) {
	if failure.Suspect && c.suspicion.proves() {
		r.Park = park(c, failure, c.suspicion.scope(failure), p)
	}
	here := queue.Avoid{Final: true, Why: provider.Cut(failure.Error())}
	if !failure.Elsewhere {
		for name, first := range c.due.Avoid {
			if first.Kind != "" {
				end(r, c, mail.Failed, failure.Error()+"; before, by "+name+": "+first.Why)
				return
			}
		}
		here.Kind = string(c.kind)
	}
	avoid(r, c, here)
	r.Requeue.Tries = c.due.Tries
}

// park takes out of routing the account, domain or address that the answer is about.
func park(c call, failure *provider.Error, scope provider.Scope, p Policy) *queue.Park {
	out := &queue.Park{Account: c.account, Reason: provider.Cut(failure.Error()), Wait: p.ProbeAfter, MaxWait: p.ProbeMax}
	switch scope {
	case provider.ScopeAccount:
	case provider.ScopeSender:
		out.SenderDomain = c.sender
	case provider.ScopeAddress:
		out.SenderDomain, out.Sender = c.sender, c.address
	}
	out.Probe = slices.Contains(c.probes, out.Key())
	return out
}

// accepted settles the recipients that were taken; those refused for now stay queued. Recipients for whom the call had no
// room go in another call at once, with its own slot and attempt. As long as calls fill up, the message makes progress.
// So its wait does not grow from call to call, even if other recipients have to wait.
func accepted(r *queue.Result, c call, receipt provider.Receipt, now time.Time, jitter float64) {
	refusals := byEmail(receipt.Refused)
	left, full := 0, 0
	for _, rc := range c.open {
		ref, ok := refusals[rc.Address.Email]
		switch {
		case !ok:
			r.Recipients = append(r.Recipients, queue.RecipientChange{N: rc.N, Status: mail.Sent, Detail: provider.Cut(receipt.Detail)})
		case ref.Class == provider.Transient:
			left++
			if ref.Full {
				full++
			}
		default:
			r.Recipients = append(r.Recipients, refusalChange(rc, ref))
		}
	}
	switch {
	case left == 0:
	case full == left:
		r.Requeue = &queue.Requeue{Tries: c.due.Tries, Avoid: c.due.Avoid}
	default:
		again(r, c, backoff(c.due.Tries, jitter), &provider.Error{Class: provider.Transient, Detail: "some recipients were put off"}, now)
		if full > 0 {
			r.Requeue.Tries = c.due.Tries
		}
	}
}

// refused settles the recipients that the provider named. The message is sent again at once for the others. If the
// provider named nobody or everybody, the message ends.
func refused(r *queue.Result, c call, failure *provider.Error) {
	refusals := byEmail(failure.Refused)
	for _, rc := range c.open {
		if ref, ok := refusals[rc.Address.Email]; ok && ref.Class != provider.Transient {
			r.Recipients = append(r.Recipients, refusalChange(rc, ref))
		}
	}
	left := len(c.open) - len(r.Recipients)
	if len(r.Recipients) == 0 {
		end(r, c, mail.Failed, failure.Error())
		return
	}
	if left > 0 {
		r.Requeue = &queue.Requeue{Tries: c.due.Tries, Avoid: c.due.Avoid}
	}
}

// unknown marks recipients unknown, except those that were surely not taken. Recipients that may go in another call stay
// queued until this one is decided.
func unknown(r *queue.Result, c call, failure *provider.Error) {
	refusals := byEmail(failure.Refused)
	for _, rc := range c.open {
		switch ref, ok := refusals[rc.Address.Email]; {
		case !ok:
			r.Recipients = append(r.Recipients, queue.RecipientChange{N: rc.N, Status: mail.Unknown, Detail: provider.Cut(failure.Error())})
		case ref.Class != provider.Transient:
			r.Recipients = append(r.Recipients, refusalChange(rc, ref))
		}
	}
}

func byEmail(refused []provider.Refusal) map[string]provider.Refusal {
	m := make(map[string]provider.Refusal, len(refused))
	for _, ref := range refused {
		m[ref.Email] = ref
	}
	return m
}

// refusalChange is the new state of a recipient that the provider refused.
func refusalChange(rc mail.Recipient, ref provider.Refusal) queue.RecipientChange {
	status := mail.Failed
	if ref.Suppressed {
		status = mail.Suppressed
	}
	detail := ref.Detail
	if ref.Code != "" {
		detail = ref.Code + " " + detail
	}
	c := queue.RecipientChange{N: rc.N, Status: status, Detail: provider.Cut(detail)}
	if ref.Reason != "" {
		c.Bounce = &mail.Bounce{Class: ref.Reason.Class(), Reason: ref.Reason, Rule: ref.Rule, Code: provider.Cut(ref.Code), Text: provider.Cut(ref.Detail)}
	}
	return c
}

// end gives every recipient of the call one status.
func end(r *queue.Result, c call, status mail.Status, detail string) {
	for _, rc := range c.open {
		r.Recipients = append(r.Recipients, queue.RecipientChange{N: rc.N, Status: status, Detail: provider.Cut(detail)})
	}
}

// again requeues a message, which avoids the account for the wait. Another account may take it at once.
func again(r *queue.Result, c call, wait time.Duration, failure *provider.Error, now time.Time) {
	avoid(r, c, queue.Avoid{Until: now.Add(wait), Why: provider.Cut(failure.Error())})
}

// avoid requeues a message with one more try, and notes how it avoids the account of the call.
func avoid(r *queue.Result, c call, a queue.Avoid) {
	a.Last = c.due.Avoid[c.name].Last
	all := map[string]queue.Avoid{c.name: a}
	for name, other := range c.due.Avoid {
		if name != c.name {
			all[name] = other
		}
	}
	r.Requeue = &queue.Requeue{Tries: c.due.Tries + 1, Avoid: all}
}

// parkNotice is how long a message avoids an account that its own call parked. By then every replica knows the park.
const parkNotice = 2 * time.Second

const (
	firstBackoff = 2 * time.Second
	maxBackoff   = 30 * time.Minute
)

// backoff is the wait after the given number of failed tries: 2 s, doubled each time up to 30 min. It is spread by a
// fifth either way, so that messages that failed together do not come back together.
func backoff(tries int, jitter float64) time.Duration {
	wait := maxBackoff
	if tries < 10 {
		wait = min(firstBackoff<<max(tries, 0), maxBackoff)
	}
	return time.Duration(float64(wait) * (0.8 + 0.4*jitter))
}

// jitter is the source of jitter outside of tests.
func jitter() float64 { return rand.Float64() } //nolint:gosec // spreading load, not guarding a secret
