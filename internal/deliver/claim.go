package deliver

import (
	"context"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

const (
	claimPause = 4 * time.Millisecond // between claims: slots that become free meanwhile share a claim
	idlePoll   = 500 * time.Millisecond
	horizon    = 50 * time.Millisecond // how far ahead slots are taken; those of a replica that dies are lost for a while
	maxHold    = 15 * time.Second
	keepStuck  = 32 // messages for one full account that stay at the head of its lane, to go next
	fullRetry  = 20 * time.Millisecond
	laneNap    = 2 * time.Second // a lane without room is looked at again after this at the latest
)

// claimLoop claims whenever there may be something to claim and room for it.
func (e *Engine) claimLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-timer.C:
		}
		if ctx.Err() != nil { // select picks any ready case
			return
		}
		wait := e.claimOnce(ctx)
		timer.Reset(wait)
		if wait > claimPause { // let wakes that come close together share a claim
			select {
			case <-ctx.Done():
				return
			case <-time.After(claimPause):
			}
		}
	}
}

// claimOnce runs one claim and returns how long to wait for the next if nothing wakes the engine sooner.
func (e *Engine) claimOnce(ctx context.Context) time.Duration {
	owner, config := e.owner.Load(), e.config.Load()
	if owner == nil || config == nil {
		return 50 * time.Millisecond
	}
	now := time.Now()
	v := e.accounts.view(1)
	room := 0
	for _, a := range v.accounts {
		room += v.room(a)
	}
	quotas, wakes := e.lanes.ask(min(room, maxClaim), now)
	if len(quotas) == 0 {
		return until(now, wakes, room == 0)
	}
	c := &claim{engine: e, config: config, view: v, owner: *owner, started: now}
	start := time.Now()
	claimCtx, cancel := context.WithTimeout(e.finish, dbWait) // not ctx: a claim that a drain cuts off may still commit unnoticed
	defer cancel()
	if err := e.Store.Claim(claimCtx, *owner, quotas, c.decide); err != nil {
		if ctx.Err() == nil {
			e.Log.Warn("claim", "error", err)
		}
		c.undo()
		return idlePoll
	}
	e.Metrics.ClaimSeconds.Observe(time.Since(start).Seconds())
	e.learn(c, quotas)
	e.end(claimCtx, c)
	if e.config.Load().Version != config.Version { // rearrange skipped the rows that this claim had locked
		e.behind.Store(true)
	}
	if len(c.items) == 0 {
		if c.deeper {
			return claimPause
		}
		_, wakes = e.lanes.ask(0, now)
		return until(time.Now(), sooner(wakes, c.room), false)
	}
	e.Metrics.Claimed.Add(float64(len(c.items)))
	e.carryAll(c.items)
	return claimPause
}

// sooner returns the earlier of two times; a zero time counts as not set.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// until returns the wait before the next claim. It is short if no account has room (full).
func until(now, wakes time.Time, full bool) time.Duration {
	wait := idlePoll
	if full {
		wait = 20 * time.Millisecond
	}
	if !wakes.IsZero() {
		wait = min(wait, max(wakes.Sub(now), time.Millisecond))
	}
	return wait
}

// learn passes the results of the claim to the lanes.
func (e *Engine) learn(c *claim, quotas []queue.LaneQuota) {
	for _, q := range quotas {
		s := c.seen[q.Lane]
		if s == nil {
			s = &seen{}
		}
		asleep := time.Time{}
		if s.passing {
			c.deeper = c.deeper || s.rows >= q.Max
			if s.room.After(c.started) {
				c.room = sooner(c.room, s.room)
			}
		} else if s.rows > 0 && s.took == 0 && s.gone == 0 {
			asleep = c.started.Add(laneNap)
			if !s.room.IsZero() && s.room.Before(asleep) {
				asleep = s.room
			}
		}
		c.deeper = c.deeper || s.gone > 0 && s.rows >= q.Max
		e.lanes.learn(q, s.rows-s.stuck, s.took+s.aside+s.gone, s.oldest, asleep)
		e.lanes.leave(q.Lane, s.stuck)
	}
	for _, l := range c.moved {
		e.lanes.rewind(l)
	}
}

// claim is one run of decide, with the messages that it saw and took.
type claim struct {
	engine  *Engine
	config  *route.Config
	view    *view
	owner   mail.ID
	started time.Time // local
	dbNow   time.Time
	items   []*item
	seen    map[queue.Lane]*seen
	full    map[queue.Lane][]queue.Hold
	moved   []queue.Lane // lanes that got messages from other lanes
	ends    []queue.Ending
	lapses  []queue.Lapse
	endedIn []queue.Lane // the lanes of ends and lapses
	deeper  bool         // more due messages may lie behind those that were seen
	room    time.Time    // local: when the first full account has room again
	heavy   int64        // bytes of the large messages taken
}

// Large messages are limited by their total bytes, because each is in memory several times while it is carried.
// Ordinary messages, below largeMessage, do not wait for them.
const (
	largeMessage = 256 << 10
	maxHeavy     = 64 << 20 // of all large messages that one replica carries; a single one may be larger
	heavyRetry   = 100 * time.Millisecond
)

// heavy returns what a message of so many bytes counts towards maxHeavy.
func heavy(bytes int64) int64 {
	if bytes < largeMessage {
		return 0
	}
	return bytes
}

// tooHeavy reports whether a message does not fit beside the large ones that are carried already.
func (c *claim) tooHeavy(bytes int64) bool {
	carried := c.heavy + c.engine.heavy.Load()
	return heavy(bytes) > 0 && carried > 0 && carried+bytes > maxHeavy
}

// seen is what a claim saw of one lane.
type seen struct {
	rows, took int
	oldest     time.Time // due
	room       time.Time // local: when the first of its accounts has room again
	passing    bool      // messages wait for a full account while others are free: the next claim must look past them
	stuck      int       // such messages left at the head of the lane
	aside      int       // such messages that were put aside
	gone       int       // messages that block nobody behind them: ended, lapsed, or unfit for an account that is free
	perAccount map[int32]int
}

// item is one claimed message on its way.
type item struct {
	due      queue.Due
	acc      *account
	client   provider.Provider // of acc, from the start of the attempt
	account  int32
	owner    mail.ID
	decision []byte
	probes   []string  // keys of the parks that it is let through
	slot     time.Time // local
	dbNow    time.Time // the database's time at localNow, or a little more
	localNow time.Time

	announced time.Time // local: when its intent was requested
	began     time.Time // local: when its call began
	called    bool      // its slot was used
}

// now is the database's time, by our monotonic clock.
func (it *item) now() time.Time { return it.dbNow.Add(time.Since(it.localNow)) }

// decide runs inside the claim's transaction. It is pure, except for the live view.
func (c *claim) decide(now time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim {
	c.dbNow = now
	local := time.Now()
	c.seen, c.full = map[queue.Lane]*seen{}, map[queue.Lane][]queue.Hold{}
	var out queue.Claim
	for _, d := range c.engine.lanes.interleave(due) {
		s := c.seen[d.Lane]
		if s == nil {
			s = &seen{}
			c.seen[d.Lane] = s
		}
		s.rows++
		if s.oldest.IsZero() || d.Due.Before(s.oldest) {
			s.oldest = d.Due
		}
		c.one(d, s, limits, local, &out)
	}
	for l, holds := range c.full { // where some messages could go, those that could not are held
		if c.seen[l].took > 0 {
			out.Hold = append(out.Hold, holds...)
		}
	}
	return out
}

// one decides on one message.
func (c *claim) one(d queue.Due, s *seen, limits map[int32]*limit.Account, local time.Time, out *queue.Claim) {
	if c.lapse(d) {
		s.gone++
		return
	}
	if !d.ExpiresAt.After(c.dbNow) {
		s.gone++
		c.end(d, mail.Expired, "not sent before expires_at")
		return
	}
	if c.tooHeavy(d.Facts.Bytes) || c.engine.held.has(d.ID) {
		if again := local.Add(heavyRetry); s.room.IsZero() || again.Before(s.room) {
			s.room = again
		}
		return
	}
	c.view.recipients = d.Facts.Recipients
	request := route.Request{Facts: d.Facts, Seed: route.Seed(d.ID), Avoid: d.Avoid, Now: c.dbNow}
	for {
		decision, verdict := route.Plan(c.config, c.view, request)
		switch verdict {
		case route.Chosen:
			if c.take(d, decision, limits, local, out) {
				s.took++
				return
			}
			continue // that account turned out to have no slot, and the view knows it now
		case route.Impossible:
			s.gone++
			if at, _ := queue.Repeated(d.Avoid); at != "" { // its account cannot carry it any more
				c.giveUpRepeat(d)
				return
			}
			c.end(d, mail.Failed, why(decision, d.Avoid))
		case route.Full:
			c.stay(d, s, decision, local, out)
		case route.Unfit:
			out.Hold = append(out.Hold, queue.Hold{ID: d.ID, Until: c.fitAgain(d, c.unfit(s, decision))})
		}
		if want := c.config.Lane(d.Facts); want != d.Lane.Number && verdict != route.Impossible {
			out.Relane = append(out.Relane, queue.Relane{ID: d.ID, Lane: want})
			c.moved = append(c.moved, queue.Lane{Number: want, Tenant: d.Lane.Tenant})
		}
		return
	}
}

// take tries to get the slot that the decision needs.
func (c *claim) take(d queue.Due, decision route.Decision, limits map[int32]*limit.Account, local time.Time, out *queue.Claim) bool {
	conf := c.config.Account(decision.Chosen)
	acc := c.view.accounts[conf.ID] // not nil: it has passed Health
	state := limits[conf.ID]
	if state == nil {
		state = &limit.Account{}
	}
	grant := limit.Grant{Retry: c.dbNow.Add(horizon/2 + fullRetry)}
	if state.Open.Calls < conf.Concurrency { // of all replicas: their shares may overlap while their number changes
		grant = state.Take(c.dbNow, d.Facts.Recipients, horizon)
	}
	if !grant.OK {
		retry := grant.Retry
		if retry.IsZero() { // the cost exceeds a window that was lowered since the configuration was read
			retry = c.dbNow.Add(laneNap)
		}
		wait := max(retry.Sub(c.dbNow)-horizon/2, 5*time.Millisecond)
		c.view.refuse(conf.ID, acc, local.Add(wait))
		return false
	}
	c.view.taken[conf.ID]++
	c.heavy += heavy(d.Facts.Bytes)
	c.engine.Metrics.SlotsGranted.WithLabelValues(conf.Name).Inc()
	out.Take = append(out.Take, queue.Assignment{Due: d, Account: conf.ID})
	c.items = append(c.items, &item{
		probes: acc.useProbes(conf.Parked, d.Facts), due: d, acc: acc, account: conf.ID, owner: c.owner, decision: decision.JSON(),
		slot: local.Add(grant.Slot.Sub(c.dbNow)), dbNow: c.dbNow, localNow: local,
	})
	return true
}

// stay leaves a message whose accounts are full, and notes when the first of them has room. If it waits for one account
// while others of its pool are free, it must not block messages for those. So only the next keepStuck messages for an
// account stay at the head of the lane; the rest are put aside until about their turn.
func (c *claim) stay(d queue.Due, s *seen, decision route.Decision, local time.Time, out *queue.Claim) {
	first := c.roomAt(decision, local)
	if s.room.IsZero() || first.Before(s.room) {
		s.room = first
	}
	waits := c.config.Account(decision.WaitsFor)
	if waits == nil || !c.othersFree(decision) {
		if wait := first.Sub(local); wait > time.Second {
			c.full[d.Lane] = append(c.full[d.Lane], queue.Hold{ID: d.ID, Until: c.dbNow.Add(wait)})
		}
		return
	}
	s.passing = true
	if s.perAccount == nil {
		s.perAccount = map[int32]int{}
	}
	if s.perAccount[waits.ID]++; s.perAccount[waits.ID] <= keepStuck {
		s.stuck++
		return
	}
	until := c.view.accounts[waits.ID].aside(local, first)
	out.Hold = append(out.Hold, queue.Hold{ID: d.ID, Until: c.dbNow.Add(until.Sub(local))})
	s.aside++
}

// roomAt returns when the first of the full accounts has room again, or maxHold from now if that is sooner.
func (c *claim) roomAt(decision route.Decision, local time.Time) time.Time {
	first := local.Add(maxHold)
	for _, cand := range decision.Candidates {
		if a := c.config.Account(cand.Account); a != nil {
			if t, ok := c.view.until[a.ID]; ok && t.Before(first) {
				first = t
			}
		}
	}
	return first
}

// othersFree reports whether an account that the message may not spill to could take a call now.
func (c *claim) othersFree(d route.Decision) bool {
	return slices.ContainsFunc(d.Candidates, func(cand route.Candidate) bool {
		a := c.config.Account(cand.Account)
		return cand.Code == "" && a != nil && c.view.Free(a).Code == ""
	})
}

// unfitPause is how long a message is held if no account has to recover for it: it waits for its own retry or an operator.
const unfitPause = time.Minute

// unfit notes a message that no account is fit for, and returns the pause before the next look at it. The pause is short
// if an account may recover. If one of its accounts is free, the messages behind it must not wait for it.
func (c *claim) unfit(s *seen, decision route.Decision) time.Duration {
	pause, free := unfitPause, false
	for _, cand := range decision.Candidates {
		a := c.config.Account(cand.Account)
		if a == nil || a.Paused || a.Draining || cand.Weight <= 0 {
			continue
		}
		if c.view.Health(a).Code != "" { // breakers close and accounts come back
			pause = breakerPause
			continue
		}
		free = free || c.view.Free(a).Code == ""
	}
	if free {
		s.gone++
	}
	return pause
}

// fitAgain returns when to look again at a message that no account is fit for: after the pause, or sooner if it may then
// retry an account, or must end or give up its repeat. A change of configuration frees it at once.
func (c *claim) fitAgain(d queue.Due, pause time.Duration) time.Time {
	at := c.dbNow.Add(pause)
	if _, r := queue.Repeated(d.Avoid); !r.By.IsZero() && r.By.Before(at) {
		at = r.By
	}
	for _, a := range d.Avoid {
		if !a.Final && a.Until.After(c.dbNow) && a.Until.Before(at) {
			at = a.Until
		}
	}
	if d.ExpiresAt.Before(at) {
		at = d.ExpiresAt
	}
	return at
}

// why explains in words why no account can carry a message. A provider's refusal of the content comes first.
func why(d route.Decision, avoid map[string]queue.Avoid) string {
	s := "no account can carry this message"
	for name, av := range avoid {
		if av.Kind != "" {
			s = av.Why + " (" + name + "); no account of another kind can carry this message"
		}
	}
	for _, c := range d.Candidates {
		s += "; " + c.Account + ": " + c.String()
	}
	return s
}

// undo forgets a claim whose commit failed. If it did commit after all, its rows are orphans, which keepLease finds.
// Nobody uses their slots.
func (c *claim) undo() {
	for _, it := range c.items {
		c.engine.Metrics.SlotsDropped.WithLabelValues(it.acc.name).Inc()
		it.acc.endProbes(it.probes, false)
	}
	c.items = nil
}
