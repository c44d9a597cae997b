package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

const (
	claimPause = 4 * time.Millisecond // between claims: slots that become free meanwhile share a claim
	idlePoll   = 500 * time.Millisecond
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

// item is one claimed message on its way. The first of a call has the slot, and the others with it.
type item struct {
	due      queue.Due
	others   []*item // that joined its call
	joined   bool    // it is one of the others
	acc      *account
	client   provider.Provider // of acc, from the start of the attempt
	account  int32
	owner    mail.ID
	decision []byte
	probes   []string  // keys of the parks that it is let through
	slot     time.Time // local
	dbNow    time.Time // the database's time at localNow, or a little more
	localNow time.Time

	loaded    queue.Loaded
	call      call
	announced time.Time // local: when its intent was requested
	ready     bool      // its call was announced and may be made
	began     time.Time // local: when its call began
	called    bool      // its slot was used
	result    queue.Result
	lost      bool // the claim is not ours to close any more
}

// all returns the messages of a call by its first.
func (it *item) all() []*item { return append([]*item{it}, it.others...) }

// now is the database's time, by our monotonic clock.
func (it *item) now() time.Time { return it.dbNow.Add(time.Since(it.localNow)) }

// claimOnce runs one claim and returns how long to wait for the next if nothing wakes the engine sooner. What becomes of
// the messages is decided by planClaim; all that follows from it happens here.
func (e *Engine) claimOnce(ctx context.Context) time.Duration {
	owner, config := e.owner.Load(), e.config.Load()
	if owner == nil || config == nil {
		return 50 * time.Millisecond
	}
	now := time.Now()
	// Intents that wait for the disk for too long are given up, so no more messages are claimed than it takes soon.
	room := min(newView(e.accounts.all(), now).room(), maxClaim-int(e.intents.Load()))
	quotas, wakes := e.lanes.ask(room, now)
	if len(quotas) == 0 {
		return until(now, wakes, room <= 0)
	}

	var live map[int32]*account
	var plan claimPlan // stays empty if no message is due
	start := time.Now()
	claimCtx, cancel := context.WithTimeout(e.finish, dbWait) // not ctx: a claim that a drain cuts off may still commit unnoticed
	defer cancel()
	err := e.Store.Claim(claimCtx, *owner, quotas, func(dbNow time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim {
		local := time.Now()
		live = e.accounts.all()
		plan = planClaim(claimInput{
			now: dbNow, config: config, view: newView(live, local), quotas: quotas, due: e.lanes.interleave(due), limits: limits,
			carried: e.carrying.among(due), heavy: e.heavy.Load(),
		})
		for _, full := range plan.noSlot { // true whether or not the claim commits
			live[full.account].noSlot(full.until, full.recipients)
		}
		for id, turn := range plan.turns {
			live[id].holdUntil(turn, local)
		}
		return plan.Claim
	})
	for _, first := range plan.items {
		e.Metrics.SlotsGranted.WithLabelValues(live[first.account].name).Inc()
		for _, it := range first.all() {
			it.acc, it.owner = live[it.account], *owner
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			e.Log.Warn("claim", "error", err)
		}
		// If it did commit after all, its rows are orphans, which keepLease finds. Nobody uses their slots.
		for _, it := range plan.items {
			e.Metrics.SlotsDropped.WithLabelValues(it.acc.name).Inc()
		}
		return idlePoll
	}
	e.Metrics.ClaimSeconds.Observe(time.Since(start).Seconds())
	for _, it := range plan.items {
		it.acc.useProbes(it.probes)
	}

	for _, q := range quotas {
		saw := plan.lanes[q.Lane]
		if saw == nil {
			saw = &laneReport{}
		}
		e.lanes.learn(q, saw)
		e.lanes.leaveAtHead(q.Lane, saw.atHead)
	}
	for _, l := range plan.refilled {
		e.lanes.rewind(l)
	}
	e.endMessages(claimCtx, plan)

	if e.config.Load().Version != config.Version { // rearrange skipped the rows that this claim had locked
		e.behind.Store(true)
	}
	if len(plan.items) > 0 {
		e.Metrics.Claimed.Add(float64(len(plan.Take)))
		e.carryAll(plan.items)
		return claimPause
	}
	if plan.deeper {
		return claimPause
	}
	_, wakes = e.lanes.ask(0, now)
	return until(time.Now(), sooner(wakes, plan.room), false)
}

// endMessages ends the messages that will not be sent and gives up repeats, after the claim is committed. It is not part of
// the claim: the claim locks the limits of all accounts, and nobody may wait for rows of messages with those locks.
func (e *Engine) endMessages(ctx context.Context, plan claimPlan) {
	var err error
	if len(plan.ends) > 0 {
		err = e.Store.End(ctx, plan.ends)
	}
	if len(plan.lapses) > 0 {
		err = errors.Join(err, e.Store.Lapse(ctx, plan.lapses, e.Policy.Waits()))
	}
	if err != nil { // the next claim finds them again
		e.Log.Warn("end messages", "count", len(plan.ends)+len(plan.lapses), "error", err)
		for id, saw := range plan.lanes {
			if saw.ended > 0 {
				e.lanes.rewind(id)
			}
		}
	}
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
