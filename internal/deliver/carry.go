package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

// intentAge is how old an intent may be when its call starts: a process that was suspended for longer sends nothing.
const intentAge = 2 * time.Second

// turnAge is how old an intent may be when the call's slot comes. A rescuer's resend comes at least a minute later.
const turnAge = 10 * time.Second

// carryAll loads the claimed messages and carries each call in a goroutine of its own. The accounts' concurrency bounds
// their number.
func (e *Engine) carryAll(calls []*item) {
	var ids []mail.ID
	for _, first := range calls {
		first.acc.start()
		for _, it := range first.all() {
			e.carrying.add(it.due.ID)
			e.heavy.Add(heavy(it.due.Facts.Bytes))
			ids = append(ids, it.due.ID)
		}
	}
	e.Metrics.Inflight.Add(float64(len(ids)))
	e.intents.Add(int64(len(ids)))
	e.carried.Go(func() {
		ctx, cancel := context.WithTimeout(e.finish, dbWait)
		loaded, err := e.Store.Load(ctx, ids)
		cancel()
		if err != nil { // a partial load is treated as no load
			e.Log.Warn("load claimed messages", "error", err)
			loaded = nil
		}
		for _, first := range calls {
			e.carried.Go(func() { e.carry(first, loaded) })
		}
	})
}

// carry takes the messages of one call through intent, call and record. However it ends, their claims are closed.
func (e *Engine) carry(first *item, loaded map[mail.ID]queue.Loaded) {
	all := first.all()
	defer func() {
		if !first.called {
			e.Metrics.SlotsDropped.WithLabelValues(first.acc.name).Inc()
		}
		first.acc.done(len(all))
		first.acc.endProbes(first.probes, first.called)
		for _, it := range all {
			e.carrying.remove(it.due.ID)
			e.heavy.Add(-heavy(it.due.Facts.Bytes))
		}
		e.Metrics.Inflight.Sub(float64(len(all)))
		e.lanes.callEnded()
		e.nudge()
	}()
	e.attempt(all, loaded)
	each(all, func(it *item) {
		if !it.lost {
			e.record(it, it.result)
		}
	})
}

// attempt makes the call, or finds that it must not be made, and sets the result of each message. Without the first of its
// messages no call is made: the request was booked for that one. The others are free again at once.
func (e *Engine) attempt(all []*item, loaded map[mail.ID]queue.Loaded) {
	first := all[0]
	announced := sync.OnceFunc(func() { e.intents.Add(-int64(len(first.all()))) })
	defer announced()
	for _, it := range all {
		e.prepare(it, loaded[it.due.ID])
	}
	all = only(all, func(it *item) bool { return len(it.call.open) > 0 })
	if len(first.call.open) == 0 {
		return
	}
	done, err := first.acc.allow()
	if err != nil {
		return
	}
	each(all, e.announce)
	announced()
	all = only(all, func(it *item) bool { return it.ready })
	if !first.ready {
		e.abort(all, "the call was announced and not made: nothing was sent")
		done(errNeutral)
		return
	}
	outcomes, settle := e.call(all)
	if settle == nil {
		e.abort(all, "this replica was stopped before the call: nothing was sent")
		done(errNeutral)
		return
	}
	first.called = true
	e.Metrics.SlotsUsed.WithLabelValues(first.acc.name).Inc()
	overall, suspected := neutral, false // an account that took any message of the call is healthy
	var failure *provider.Error
	for i, it := range all {
		it.call.shared = len(all) > 1
		perr := asError(outcomes[i].Err)
		suspect := perr != nil && perr.Suspect
		if !suspect || !suspected { // one call is one piece of evidence, whatever the number of its messages
			it.call.suspicion = it.acc.weigh(it.call, perr)
		}
		suspected = suspected || suspect
		if h := e.conclude(it, outcomes[i], perr, *settle); h == healthy || h == failing && overall == neutral {
			overall, failure = h, perr
		}
	}
	done(verdict(overall, failure))
}

// prepare sets what becomes of a message if no call is made for it, and the recipients that the call is for: those that
// are still queued. There is none if the message must not be sent now.
func (e *Engine) prepare(it *item, l queue.Loaded) {
	it.loaded = l
	it.result = queue.Result{ID: it.due.ID, N: it.due.Attempts + 1, Requeue: &queue.Requeue{Tries: it.due.Tries, Avoid: it.due.Avoid}}
	if l.Message == nil || len(l.Recipients) == 0 { // it could not be loaded; nothing was announced
		it.result.Requeue.In = time.Second
		return
	}
	if it.client = it.acc.adapter(); it.client == nil { // newer settings came between the claim and here
		return
	}
	if it.call = e.newCall(it, l); len(it.call.open) == 0 { // all were suppressed since it was accepted
		it.result = suppressed(it.result, l)
	}
}

// abort closes the attempts of messages that were announced and whose call was not made.
func (e *Engine) abort(all []*item, why string) {
	for _, it := range all {
		it.result = notMade(it.result, it.call, why)
	}
}

// conclude sets the result of a message whose call was made, and returns what it says about the account.
func (e *Engine) conclude(it *item, o provider.Outcome, failure *provider.Error, settle queue.Settle) health {
	it.call.throttles = it.acc.throttled(failure != nil && failure.Class == provider.Throttled, it.began)
	result, health := next(it.call, o.Receipt, failure, e.Policy, it.now(), jitter())
	if it.acc.limited() && (!o.LeftOut || !it.joined) { // the first costs the request of the others, whether it was in it or not
		settle.Recipients, settle.Joined = len(it.call.open), it.joined
		result.Settle = &settle
	}
	result.Announce, result.CalledAt = it.acc.announce, settle.Began
	addSuppressed(&result, it.loaded)
	it.result = result
	e.applyLocally(it, &result)
	e.observe(it, it.call, result, failure)
	return health
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

// announce commits the intent of a message, and removes from its call the recipients that were suppressed since the claim.
// It sets whether the call may be made for it, and if not, its result, or that the claim is not ours any more.
func (e *Engine) announce(it *item) {
	it.announced = time.Now()
	answer, err := e.Store.Intend(e.finish, it.owner, queue.Intent{
		ID: it.due.ID, N: it.due.Attempts + 1, Account: it.account, Decision: it.decision,
		Tenant: it.due.Lane.Tenant, Stream: it.due.Facts.Stream, Open: it.call.open,
	})
	const why = "the call was announced and not made: nothing was sent"
	if err != nil { // it may have committed: nothing is sent, and the record closes the attempt if it exists
		it.result = notMade(it.result, it.call, why)
		return
	}
	gone := func(r mail.Recipient) bool { return slices.Contains(answer.Suppressed, r.N) }
	it.call.open = slices.DeleteFunc(slices.Clone(it.call.open), gone)
	for i := range it.loaded.Recipients {
		if gone(it.loaded.Recipients[i]) {
			it.loaded.Recipients[i].Status = mail.Suppressed
		}
	}
	switch {
	case len(it.call.open) == 0: // it announced nothing
		it.result = suppressed(it.result, it.loaded)
	case !answer.OK:
		e.Log.Warn("claim lost before its call", "message_id", it.due.ID)
		it.lost = true
	case time.Since(it.announced) >= intentAge:
		it.result = notMade(it.result, it.call, why)
	default:
		it.ready = true
	}
}

// call waits for the slot and makes exactly one call for all of its messages. settle holds the latest time at which the
// call can have arrived; it is nil if no call was made.
func (e *Engine) call(all []*item) (outcomes []provider.Outcome, settle *queue.Settle) {
	first, recipients := all[0], 0
	for _, it := range all {
		recipients += len(it.call.open)
	}
	if !sleepUntil(e.calls, first.slot) {
		return nil, nil
	}
	late := time.Since(first.slot) // where the intents took longer than the slot was ahead, this counts that too
	if !first.acc.pace(e.calls, len(all), recipients) {
		return nil, nil
	}
	if slices.ContainsFunc(all, func(it *item) bool { return time.Since(it.announced) > turnAge }) { // this process was suspended meanwhile
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(e.calls, e.CallTimeout)
	defer cancel()
	start, began := time.Now(), first.now()
	for _, it := range all {
		it.began = start
	}
	outcomes = e.send(ctx, all)
	took := time.Since(start)
	e.Metrics.CallSeconds.WithLabelValues(string(first.acc.kind)).Observe(took.Seconds())
	latest := time.Now()
	floor := first.acc.floor.note(took, late, latest)
	lost := func(o provider.Outcome) bool {
		failure := asError(o.Err)
		return failure != nil && failure.Class == provider.Uncertain
	}
	if !slices.ContainsFunc(outcomes, lost) { // a call without an answer may arrive until it is given up
		latest = latest.Add(-floor)
	}
	return outcomes, &queue.Settle{Began: began, At: latest}
}

// send calls the adapter. A panic there counts as an uncertain outcome.
func (e *Engine) send(ctx context.Context, all []*item) (outcomes []provider.Outcome) {
	first := all[0]
	defer func() {
		if p := recover(); p != nil { // a bug in an adapter: whether it sent is not known
			e.Log.Error("adapter panicked", "account", first.acc.name, "message_id", first.due.ID, "panic_type", fmt.Sprintf("%T", p))
			outcomes = uncertain(len(all), "the adapter panicked")
		}
	}()
	work := make([]*provider.Send, len(all))
	for i, it := range all {
		work[i] = workOf(e.withUnsubscribe(it.loaded.Message, it.call.open), it.call)
	}
	if len(all) == 1 {
		receipt, err := first.client.Send(ctx, work[0])
		return []provider.Outcome{{Receipt: receipt, Err: err}}
	}
	batcher, _ := first.client.(provider.Batcher) // account.connect has seen it
	if outcomes = batcher.SendBatch(ctx, work); len(outcomes) != len(all) {
		e.Log.Error("adapter answered for other messages than it was given", "account", first.acc.name, "kind", first.acc.kind)
		return uncertain(len(all), "adapter bug: one outcome is missing")
	}
	return outcomes
}

// uncertain returns n outcomes of a call that may have sent its messages.
func uncertain(n int, why string) []provider.Outcome {
	return slices.Repeat([]provider.Outcome{{Err: &provider.Error{Class: provider.Uncertain, Detail: why}}}, n)
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

// workOf returns the adapter's input: the message and the recipients that are open.
func workOf(m *mail.Message, c call) *provider.Send {
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
	e.ended.note(it.account, r.Class, r.Error)
	if r.Class == string(provider.Accepted) {
		e.taken(it, c)
	}
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
