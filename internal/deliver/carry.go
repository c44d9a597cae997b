package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

// intentAge is how old an intent may be when its call starts: a process that was suspended for longer sends nothing.
const intentAge = 2 * time.Second

// turnAge is how old an intent may be when the call's slot comes. A rescuer's resend comes at least a minute later.
const turnAge = 10 * time.Second

// carryAll loads the claimed messages and carries each in a goroutine of its own. The accounts' concurrency bounds their
// number.
func (e *Engine) carryAll(items []*item) {
	for _, it := range items {
		it.acc.start()
		e.held.add(it.due.ID)
		e.heavy.Add(heavy(it.due.Facts.Bytes))
	}
	e.Metrics.Inflight.Add(float64(len(items)))
	e.carried.Go(func() {
		ids := make([]mail.ID, len(items))
		for i, it := range items {
			ids[i] = it.due.ID
		}
		ctx, cancel := context.WithTimeout(e.finish, dbWait)
		loaded, err := e.Store.Load(ctx, ids)
		cancel()
		if err != nil { // a partial load is treated as no load
			e.Log.Warn("load claimed messages", "error", err)
			loaded = nil
		}
		for _, it := range items {
			e.carried.Go(func() { e.carry(it, loaded[it.due.ID]) })
		}
	})
}

// carry takes one claimed message through intent, call and record. However it ends, the claim is closed.
func (e *Engine) carry(it *item, l queue.Loaded) {
	defer func() {
		if !it.called {
			e.Metrics.SlotsDropped.WithLabelValues(it.acc.name).Inc()
		}
		it.acc.done()
		it.acc.endProbes(it.probes, it.called)
		e.held.remove(it.due.ID)
		e.heavy.Add(-heavy(it.due.Facts.Bytes))
		e.Metrics.Inflight.Dec()
		e.nudge()
	}()
	result, ours := e.attempt(it, l)
	if ours {
		e.record(it, result)
	}
}

// attempt makes the call, or finds that it must not be made. It reports false when the claim is no longer ours to close.
func (e *Engine) attempt(it *item, l queue.Loaded) (queue.Result, bool) {
	none := queue.Result{ID: it.due.ID, N: it.due.Attempts + 1, Requeue: &queue.Requeue{Tries: it.due.Tries, Avoid: it.due.Avoid}}
	if l.Message == nil || len(l.Recipients) == 0 { // it could not be loaded; nothing was announced
		none.Requeue.In = time.Second
		return none, true
	}
	if it.client = it.acc.adapter(); it.client == nil { // newer settings came between the claim and here
		return none, true
	}
	c := e.newCall(it, l)
	if len(c.open) == 0 { // all were suppressed since it was accepted
		return suppressed(none, l), true
	}
	done, err := it.acc.allow()
	if err != nil {
		return none, true
	}
	announced, ours := e.announce(it, &c, l)
	if ours && len(c.open) == 0 { // all were suppressed since the claim
		done(errNeutral)
		return suppressed(none, l), true
	}
	if !announced {
		done(errNeutral)
		return notMade(none, c, "the call was announced and not made: nothing was sent"), ours
	}
	receipt, failure, settle := e.call(it, l.Message, c)
	if settle == nil {
		done(errNeutral)
		return notMade(none, c, "this replica was stopped before the call: nothing was sent"), true
	}
	it.called = true
	e.Metrics.SlotsUsed.WithLabelValues(c.name).Inc()
	c.throttles = it.acc.throttled(failure != nil && failure.Class == provider.Throttled, it.began)
	c.suspicion = it.acc.weigh(c, failure)
	result, health := next(c, receipt, failure, e.Policy, it.now(), jitter())
	if it.acc.limited() {
		result.Settle = settle
	}
	result.Announce, result.CalledAt = it.acc.announce, settle.Began
	addSuppressed(&result, l)
	done(verdict(health, failure))
	e.applyLocally(it, &result)
	e.observe(it, c, result, failure)
	return result, true
}

// notMade closes an attempt that was announced and not made. It sent nothing. If it was to repeat an earlier call, the
// outcome of that call is still unknown, and the message goes on waiting for it.
func notMade(r queue.Result, c call, why string) queue.Result {
	r.Class, r.Error = queue.Aborted, why
	if at, _ := queue.Repeated(c.due.Avoid); at != "" {
		failure := &provider.Error{Class: provider.Transient, Detail: why}
		r.Class, r.Requeue = string(provider.Uncertain), nil
		unknown(&r, c, failure)
		r.Unknown = &queue.Hanging{DecideIn: time.Second, Policy: queue.Repeating, Avoid: c.due.Avoid}
	}
	return r
}

// verdict returns the outcome that the breaker gets.
func verdict(h health, failure *provider.Error) error {
	switch h {
	case healthy:
		return nil
	case failing:
		return failure
	case neutral:
	}
	return errNeutral
}

// newCall prepares the call of a claimed message. Its open recipients are those that are still queued.
func (e *Engine) newCall(it *item, l queue.Loaded) call {
	c := call{
		due: it.due, account: it.account, name: it.acc.name, kind: it.acc.kind, probes: it.probes, within: it.acc.within,
		sender: l.Message.From.Domain(), address: mail.FoldAddress(l.Message.From.Email),
	}
	for _, r := range l.Recipients {
		if r.Status == mail.Queued {
			c.open = append(c.open, r)
		}
	}
	return c
}

// suppressed closes a message whose recipients were all suppressed since acceptance.
func suppressed(r queue.Result, l queue.Loaded) queue.Result {
	r.Requeue = nil
	addSuppressed(&r, l)
	return r
}

// addSuppressed adds to the result the recipients that were found suppressed at the claim or with the intent.
func addSuppressed(r *queue.Result, l queue.Loaded) {
	for _, rc := range l.Recipients {
		if rc.Status == mail.Suppressed {
			r.Recipients = append(r.Recipients, queue.RecipientChange{N: rc.N, Status: mail.Suppressed, Detail: "on the suppression list"})
		}
	}
}

// announce commits the intent, and removes from the call the recipients that were suppressed since the claim. It reports
// whether the call may be made, and if not, whether the claim is still ours. If no recipient is left, it announced nothing.
func (e *Engine) announce(it *item, c *call, l queue.Loaded) (may, ours bool) {
	asked := time.Now()
	it.announced = asked
	answer, err := e.Store.Intend(e.finish, it.owner, queue.Intent{
		ID: it.due.ID, N: it.due.Attempts + 1, Account: it.account, Decision: it.decision,
		Tenant: it.due.Lane.Tenant, Stream: it.due.Facts.Stream, Open: c.open,
	})
	if err != nil { // it may have committed: nothing is sent, and the record closes the attempt if it exists
		return false, true
	}
	gone := func(r mail.Recipient) bool { return slices.Contains(answer.Suppressed, r.N) }
	c.open = slices.DeleteFunc(slices.Clone(c.open), gone)
	for i := range l.Recipients {
		if gone(l.Recipients[i]) {
			l.Recipients[i].Status = mail.Suppressed
		}
	}
	if !answer.OK && len(c.open) > 0 {
		e.Log.Warn("claim lost before its call", "message_id", it.due.ID)
		return false, false
	}
	return answer.OK && time.Since(asked) < intentAge, true
}

// call waits for the slot and makes exactly one call. settle holds the latest time at which the call can have arrived; it
// is nil if no call was made.
func (e *Engine) call(it *item, m *mail.Message, c call) (receipt provider.Receipt, failure *provider.Error, settle *queue.Settle) {
	if !sleepUntil(e.calls, it.slot) || !it.acc.pace(e.calls, len(c.open)) {
		return receipt, nil, nil
	}
	if time.Since(it.announced) > turnAge { // this process was suspended meanwhile
		return receipt, nil, nil
	}
	ctx, cancel := context.WithTimeout(e.calls, e.CallTimeout)
	defer cancel()
	start, began := time.Now(), it.now()
	it.began = start
	receipt, failure = e.send(ctx, it, m, c)
	took := time.Since(start)
	e.Metrics.CallSeconds.WithLabelValues(string(it.acc.kind)).Observe(took.Seconds())
	latest := time.Now()
	floor := it.acc.floor.note(took, latest)
	if failure == nil || failure.Class != provider.Uncertain { // a call without an answer may arrive until it is given up
		latest = latest.Add(-min(floor, took))
	}
	return receipt, failure, &queue.Settle{Began: began, At: latest, Recipients: len(c.open)}
}

// send calls the adapter. A panic there counts as an uncertain outcome.
func (e *Engine) send(ctx context.Context, it *item, m *mail.Message, c call) (receipt provider.Receipt, failure *provider.Error) {
	defer func() {
		if p := recover(); p != nil { // a bug in an adapter: whether it sent is not known
			e.Log.Error("adapter panicked", "account", c.name, "message_id", m.ID, "panic_type", fmt.Sprintf("%T", p))
			failure = &provider.Error{Class: provider.Uncertain, Detail: "the adapter panicked"}
		}
	}()
	receipt, err := it.client.Send(ctx, work(e.withUnsubscribe(m, c.open), c))
	return receipt, asError(err)
}

// asError gives every error a class. An error without one is uncertain: the message may have been sent.
func asError(err error) *provider.Error {
	if err == nil {
		return nil
	}
	if pe, ok := errors.AsType[*provider.Error](err); ok {
		return pe
	}
	return &provider.Error{Class: provider.Uncertain, Detail: "the adapter gave no class", Err: err}
}

// work returns the adapter's input: the message and the recipients that are open.
func work(m *mail.Message, c call) *provider.Send {
	s := &provider.Send{Message: m, Attempt: c.due.Attempts + 1, Key: sendKey(c.due)}
	for _, r := range c.open {
		switch r.Kind {
		case mail.To:
			s.To = append(s.To, r.Address)
		case mail.Cc:
			s.Cc = append(s.Cc, r.Address)
		case mail.Bcc:
			s.Bcc = append(s.Bcc, r.Address)
		}
	}
	return s
}

// sleepUntil waits for a time. It reports false if ctx ended first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// applyLocally makes blocks and parks hold here at once. The other replicas learn of them from the record.
func (e *Engine) applyLocally(it *item, r *queue.Result) {
	if r.Block != nil {
		it.acc.block(time.Now().Add(r.Block.For))
	}
	if r.Park != nil && it.acc.park(r.Park, it.now()) {
		e.Log.Error("account parked", "account", it.acc.name, "sender_domain", r.Park.SenderDomain,
			"one_address", r.Park.Sender != "", "reason", domainsOnly(r.Park.Reason))
	} else if r.Park != nil && r.Park.Probe {
		e.Log.Warn("account stays parked: a probe was refused", "account", it.acc.name, "sender_domain", r.Park.SenderDomain,
			"reason", domainsOnly(r.Park.Reason))
	}
	if r.Unpark != nil {
		it.acc.unpark(r.Unpark.Keys)
		e.Log.Info("account takes mail again: a probe was accepted", "account", it.acc.name, "parks", len(r.Unpark.Keys))
	}
}

var localPart = regexp.MustCompile(`[^\s<>"'(),:;=]+@`)

// domainsOnly removes the local parts of addresses from a provider's text, which may name the sender or a recipient. Logs
// hold only the domains of addresses.
func domainsOnly(s string) string { return localPart.ReplaceAllString(s, "*@") }

// record tries until the result is written. While the database is unreachable, the claim stays ours as long as the lease
// does. After that a rescuer marks the message unknown, and this result settles it when it arrives.
func (e *Engine) record(it *item, r queue.Result) {
	for pause := 50 * time.Millisecond; ; pause = min(pause*2, time.Second) {
		ours, err := e.Store.Record(e.finish, it.owner, r)
		if err == nil {
			if !ours {
				e.Log.Warn("result came after a rescue and found the message settled", "message_id", r.ID, "class", r.Class)
			}
			return
		}
		if !sleepUntil(e.finish, time.Now().Add(pause)) {
			e.Log.Error("result not recorded", "message_id", r.ID, "class", r.Class, "error", err)
			return
		}
	}
}

// observe counts and logs one attempt.
func (e *Engine) observe(it *item, c call, r queue.Result, failure *provider.Error) {
	kind := string(it.acc.kind)
	e.Metrics.Attempts.WithLabelValues(c.name, kind, r.Class).Inc()
	if r.Unknown != nil {
		e.Metrics.UnknownTotal.WithLabelValues(kind, cause(failure)).Inc()
	}
	level := slog.LevelDebug
	if r.Class != string(provider.Accepted) {
		level = slog.LevelInfo
	}
	e.Log.Log(context.Background(), level, "attempt recorded", "message_id", r.ID, "n", r.N, "account", c.name,
		"class", r.Class, "status", r.Status, "code", r.Code, "recipients", len(c.open), "took", it.now().Sub(it.dbNow))
}

// cause returns the metric's label for how a call ended without a verdict: with an answer that proves nothing, without an
// answer in time, or on a broken connection.
func cause(failure *provider.Error) string {
	switch {
	case failure.Status != 0:
		return "answer"
	case errors.Is(failure, context.DeadlineExceeded), errors.Is(failure, os.ErrDeadlineExceeded):
		return "timeout"
	}
	return "broken"
}
