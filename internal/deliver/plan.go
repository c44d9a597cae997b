package deliver

import (
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

const (
	horizon     = 50 * time.Millisecond // how far ahead slots are taken; those of a replica that dies are lost for a while
	maxHold     = 15 * time.Second      // a message for a full account is looked at again after this at the latest
	keepAtHead  = 32                    // messages for one full account that stay at the head of a lane, to go next
	keepInCalls = 256                   // the same for an account whose calls carry many
	fullRetry   = 20 * time.Millisecond // after the replicas together reached the concurrency of an account
	heavyRetry  = 100 * time.Millisecond
	laneNap     = 2 * time.Second // a lane without room is looked at again after this at the latest
	unfitPause  = time.Minute     // how long a message is held that waits for its own retry or for an operator
)

// Large messages are limited by their total bytes, because each is in memory several times while it is carried.
// Ordinary messages, below largeMessage, do not wait for them.
const (
	largeMessage = 256 << 10
	maxHeavy     = 64 << 20 // of all large messages that one replica carries; a single one may be larger
)

// heavy returns what a message of so many bytes counts towards maxHeavy.
func heavy(bytes int64) int64 {
	if bytes < largeMessage {
		return 0
	}
	return bytes
}

// claimInput is all that planClaim needs to know.
type claimInput struct {
	now     time.Time // the database's
	config  *route.Config
	view    *view // of the accounts; its now is the same moment by our clock
	quotas  []queue.LaneQuota
	due     []queue.Due              // the messages found in these lanes, in the order of their turns
	limits  map[int32]*limit.Account // of all accounts
	carried map[mail.ID]bool         // those of due that this replica carries already
	heavy   int64                    // bytes of the large messages that this replica carries
}

// claimPlan says what becomes of the messages that a claim found, and what they showed.
type claimPlan struct {
	queue.Claim                // what the claim's transaction writes
	items       []*item        // the first message of each call, without the live side of its account
	ends        []queue.Ending // to be written after the commit
	lapses      []queue.Lapse  // the same

	lanes    map[queue.Lane]*laneReport // only lanes in which messages were found
	refilled []queue.Lane               // lanes that got messages from other lanes
	noSlot   []noSlot
	turns    map[int32]time.Time // by account, local: when the last message that is held for its turn is due again
	room     time.Time           // local: when a full account has room whose messages others pass meanwhile
	deeper   bool                // more due messages may lie behind those that were seen
}

// laneReport is what a claim saw of one lane.
type laneReport struct {
	rows, took int
	oldest     time.Time // due
	room       time.Time // local: when the first of its full accounts has room again, if that is known
	calls      bool      // an account has room again when one of its calls ends
	fill       int       // messages to look for to fill one call of its accounts
	asleep     time.Time // local: until then nothing of the lane can be taken; zero if something may
	atHead     int       // messages left at the head of the lane, for a full account; the next claim looks past them
	heldBack   int       // more messages for such an account, held until about their turn
	unfit      int       // messages held although one of their accounts is free: those behind them must not wait
	ended      int       // messages of ends and lapses
}

// noSlot is an account that had no slot before a time for a call to so many recipients.
type noSlot struct {
	account    int32
	until      time.Time // local
	recipients int
}

// planClaim decides what becomes of each message that a claim found. It is pure: it does no I/O and reads no clock. It
// takes slots from the limits and notes them in the view; both belong to this claim.
func planClaim(in claimInput) claimPlan {
	p := claimPlan{lanes: map[queue.Lane]*laneReport{}, turns: map[int32]time.Time{}}
	type line struct {
		lane    queue.Lane
		account int32
	}
	passed := map[line]int{}              // messages for a full account, while another account of their pool is free
	full := map[queue.Lane][]queue.Hold{} // messages whose accounts are all full: held if others of their lane are taken
	local := in.view.now
	for _, d := range in.due {
		lane := p.lanes[d.Lane]
		if lane == nil {
			lane = &laneReport{}
			p.lanes[d.Lane] = lane
		}
		lane.rows++
		lane.oldest = sooner(lane.oldest, d.Due)

		repeatsAt, repeat := queue.Repeated(d.Avoid)
		expired := !d.ExpiresAt.After(in.now)
		switch {
		case repeatsAt != "" && (expired || !repeat.By.After(in.now)):
			p.giveUpRepeat(d)
			lane.ended++
			continue
		case expired:
			p.end(d, mail.Expired, "not sent before expires_at")
			lane.ended++
			continue
		case in.carried[d.ID], heavy(d.Facts.Bytes) > 0 && in.heavy > 0 && in.heavy+d.Facts.Bytes > maxHeavy:
			lane.room = sooner(lane.room, local.Add(heavyRetry))
			continue
		}

		it, decision, verdict := p.place(&in, d)
		switch verdict {
		case route.Chosen:
			p.Take = append(p.Take, queue.Assignment{Due: d, Account: it.account, Joined: it.joined})
			if !it.joined {
				p.items = append(p.items, it)
			}
			lane.took++
			in.heavy += heavy(d.Facts.Bytes)
			continue
		case route.Impossible:
			if repeatsAt != "" { // its account cannot carry it any more
				p.giveUpRepeat(d)
			} else {
				p.end(d, mail.Failed, why(decision, d.Avoid))
			}
			lane.ended++
			continue
		case route.Full:
			first, calls := firstRoom(&in, decision)
			lane.fill = max(lane.fill, fillOne(&in, decision))
			lane.room, lane.calls = sooner(lane.room, first), lane.calls || calls
			if calls { // any moment
				first = local
			}
			account := in.config.Account(decision.WaitsFor)
			if account == nil || !othersFree(&in, decision) {
				if wait := first.Sub(local); wait > time.Second {
					full[d.Lane] = append(full[d.Lane], queue.Hold{ID: d.ID, Until: in.now.Add(wait)})
				}
				break
			}
			// It waits for one account while others of its pool are free, and must not block messages for those. So only the
			// next few messages for the account stay at the head of the lane. The rest are held until about their turn.
			at := line{d.Lane, account.ID}
			if passed[at]++; passed[at] <= max(keepAtHead, min(2*in.view.accounts[account.ID].perCall, keepInCalls)) {
				lane.atHead++
				break
			}
			turn := in.view.nextTurn(account, first)
			p.turns[account.ID] = turn
			p.Hold = append(p.Hold, queue.Hold{ID: d.ID, Until: in.now.Add(turn.Sub(local))})
			lane.heldBack++
		case route.Unfit:
			pause, free := unfit(&in, decision)
			if free {
				lane.unfit++
			}
			p.Hold = append(p.Hold, queue.Hold{ID: d.ID, Until: fitAgain(d, in.now, pause)})
		}
		if want := in.config.Lane(d.Facts); want != d.Lane.Number { // the configuration was changed
			p.Relane = append(p.Relane, queue.Relane{ID: d.ID, Lane: want})
			p.refilled = append(p.refilled, queue.Lane{Number: want, Tenant: d.Lane.Tenant})
		}
	}
	p.forbidRepeats(&in)
	for _, q := range in.quotas {
		lane := p.lanes[q.Lane]
		if lane == nil {
			continue
		}
		if lane.took > 0 { // otherwise the lane sleeps, and holding them would be wasted writes
			p.Hold = append(p.Hold, full[q.Lane]...)
		}
		switch {
		case lane.atHead > 0:
			p.room = sooner(p.room, lane.room)
		case lane.took+lane.ended+lane.unfit == 0:
			lane.asleep = sooner(local.Add(laneNap), lane.room)
		}
		p.deeper = p.deeper || lane.atHead+lane.ended+lane.unfit > 0 && lane.rows >= q.Max
	}
	return p
}

// end plans the end of a message that will not be sent.
func (p *claimPlan) end(d queue.Due, status mail.Status, why string) {
	p.ends = append(p.ends, queue.Ending{ID: d.ID, Status: status, Detail: why})
}

// giveUpRepeat plans that a call is not repeated any more: its message becomes unknown again.
func (p *claimPlan) giveUpRepeat(d queue.Due) {
	p.lapses = append(p.lapses, queue.Lapse{ID: d.ID, Avoid: lapsed(d.Avoid)})
}

// place routes a message to an account that has a slot for it, and takes the slot, or lets the message join a call that has
// one. The item is nil if there is none.
func (p *claimPlan) place(in *claimInput, d queue.Due) (*item, route.Decision, route.Verdict) {
	in.view.recipients, in.view.shares, in.view.resent = d.Facts.Recipients, nil, d.Resends > 0
	if together(d) {
		in.view.shares = d.Facts
	}
	request := route.Request{Facts: d.Facts, Seed: route.Seed(d.ID), Avoid: d.Avoid, Now: in.now}
	for {
		decision, verdict := route.Plan(in.config, in.view, request)
		if verdict != route.Chosen {
			return nil, decision, verdict
		}
		conf := in.config.Account(decision.Chosen)
		state := in.limits[conf.ID]
		if state == nil {
			state = &limit.Account{}
		}
		it := &item{due: d, account: conf.ID, decision: decision.JSON(), dbNow: in.now, localNow: in.view.now}
		if c := in.view.openCall(conf); c != nil {
			if !state.Join(c.slot, d.Facts.Recipients) {
				c.close()
				continue
			}
			it.joined, it.slot = true, c.first.slot
			c.join(it)
			return it, decision, verdict
		}
		grant := limit.Grant{Retry: in.now.Add(horizon/2 + fullRetry)}
		if state.Open.Calls < conf.Concurrency { // of all replicas: their shares may overlap while their number changes
			grant = state.Take(in.now, d.Facts.Recipients, horizon)
		}
		if grant.OK {
			it.probes, it.slot = in.view.take(conf, d.Facts), in.view.now.Add(grant.Slot.Sub(in.now))
			in.view.begin(it, grant.Slot)
			return it, decision, verdict
		}
		if grant.Retry.IsZero() { // the cost exceeds a window that was lowered since the configuration was read
			grant.Retry = in.now.Add(laneNap)
		}
		wait := grant.Retry.Sub(in.now)
		if !grant.Calls {
			wait = max(wait-horizon/2, 5*time.Millisecond)
		}
		retry := in.view.now.Add(wait)
		in.view.refuse(conf, retry) // so that the next plan leaves it out
		p.noSlot = append(p.noSlot, noSlot{conf.ID, retry, d.Facts.Recipients})
	}
}

// firstRoom returns when the first of the full accounts has room again, or maxHold from now if that is sooner. It also
// returns whether one has all its calls in flight: that has room when a call ends, which nobody knows ahead.
func firstRoom(in *claimInput, decision route.Decision) (first time.Time, calls bool) {
	first = in.view.now.Add(maxHold)
	for _, cand := range decision.Candidates {
		if a := in.config.Account(cand.Account); a != nil && in.view.accounts[a.ID] != nil {
			s := in.view.accounts[a.ID]
			first, calls = sooner(first, s.full), calls || s.packed
		}
	}
	return first, calls
}

// fillOne returns for how many messages to look to fill a call of one of the accounts; 0 if each takes one in a call.
func fillOne(in *claimInput, decision route.Decision) (n int) {
	for _, cand := range decision.Candidates {
		a := in.config.Account(cand.Account)
		if a == nil || in.view.accounts[a.ID] == nil {
			continue
		}
		if s := in.view.accounts[a.ID]; s.batch.Max > 1 {
			n = max(n, s.fill(1))
		}
	}
	return min(n, maxTogether)
}

// othersFree reports whether an account that the message may not spill to could take a call now.
func othersFree(in *claimInput, decision route.Decision) bool {
	return slices.ContainsFunc(decision.Candidates, func(cand route.Candidate) bool {
		a := in.config.Account(cand.Account)
		return cand.Code == "" && a != nil && in.view.Free(a).Code == ""
	})
}

// unfit returns the pause before the next look at a message that no account is fit for. The pause is short if an account
// may recover. It also returns whether one of its accounts is free.
func unfit(in *claimInput, decision route.Decision) (pause time.Duration, free bool) {
	pause = unfitPause
	for _, cand := range decision.Candidates {
		a := in.config.Account(cand.Account)
		if a == nil || a.Paused || a.Draining || cand.Weight <= 0 {
			continue
		}
		if in.view.Health(a).Code != "" { // breakers close and accounts come back
			pause = breakerPause
			continue
		}
		free = free || in.view.Free(a).Code == ""
	}
	return pause, free
}

// fitAgain returns when to look again at a message that no account is fit for: after the pause, or sooner if it may then
// retry an account, or must end or give up its repeat. A change of configuration frees it at once.
func fitAgain(d queue.Due, now time.Time, pause time.Duration) time.Time {
	at := now.Add(pause)
	if _, r := queue.Repeated(d.Avoid); !r.By.IsZero() && r.By.Before(at) {
		at = r.By
	}
	for _, a := range d.Avoid {
		if !a.Final && a.Until.After(now) && a.Until.Before(at) {
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
