package limit_test

import (
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// announce commits the intent, or finds that the claim is gone.
func (w *world) announce(h happening) {
	r, f := h.who, h.call
	if f.closed && w.broken != lateSent {
		w.drop(r, "claim lost before its call")
		return
	}
	if r.mute > w.now { // the lease looks run out: the claim stays until it is given back
		w.drop(r, "lease looked run out")
		w.agenda.add(happening{at: w.now + w.span(time.Second, adoption), kind: orphans, who: r, call: f})
		return
	}
	f.isAnnounced, f.announced = true, w.now
	took := w.span(500*time.Microsecond, 4*time.Millisecond)
	if w.chance(w.faults.stall / 4) {
		took = w.span(0, 4*time.Second)
	}
	if took > intentAge && w.broken != lateSent {
		w.agenda.add(happening{at: w.now + took, kind: releases, who: r, call: f})
		return
	}
	late := w.span(0, 500*time.Microsecond)
	if s := w.faults.starved; s > 0 { // it waits for its turn like the others
		late = w.span(0, 3*s)
	}
	if w.chance(w.faults.stall / 4) {
		late = w.span(0, 15*time.Second)
	}
	start := max(w.now+took, f.slot) + late
	f.late = start - f.slot
	w.agenda.add(happening{at: start, kind: starts, who: r, call: f})
}

// drop counts a slot that no call is made for.
func (w *world) drop(r *replica, why string) {
	w.seen["dropped: "+why]++
	r.inflight--
}

// start makes the call, unless it is too late. Its latency to the provider is the replica's shortest plus a random delay. In
// a starved world each way has to wait for a processor too.
func (w *world) start(h happening) {
	r, f := h.who, h.call
	if w.now-f.announced > turnAge && w.broken != lateSent {
		w.agenda.add(happening{at: w.now, kind: releases, who: r, call: f})
		return
	}
	if len(w.waiting) > 0 {
		k := w.waiting[0]
		w.waiting = w.waiting[1:]
		w.agenda.add(happening{at: w.now + w.span(0, 5*time.Millisecond), kind: k})
	}
	f.started = w.now
	out, work := r.way+w.span(0, 2*time.Millisecond), w.span(8*time.Millisecond, 14*time.Millisecond)
	if w.chance(w.faults.stall) {
		out += w.span(0, 3*time.Second)
	}
	if w.chance(w.faults.stall) {
		work += w.span(0, 5*time.Second)
	}
	back := r.way + w.span(0, 2*time.Millisecond)
	if s := w.faults.starved; s > 0 {
		out, work, back = r.way, 0, r.way
		for range 4 { // turns for a processor, each before the call arrives or after it
			if w.chance(0.5) {
				out += w.span(s/2, s)
			} else {
				back += w.span(s/2, s)
			}
		}
	}
	f.end, f.answered = w.now+out+work+back, true
	if w.chance(w.faults.mute) {
		f.end, f.answered = w.now+callTimeout, false
		out = w.span(r.way, 8*time.Second)
	}
	w.agenda.add(happening{at: w.now + out, kind: arrives, who: r, call: f})
	delay := time.Duration(0)
	if w.chance(w.faults.stall / 4) {
		delay = w.span(0, 8*time.Second)
	}
	w.agenda.add(happening{at: f.end + delay, kind: records, who: r, call: f})
}

func (w *world) arrive(h happening) {
	if h.who.dead && w.now > h.who.died+5*time.Second { // its system has closed the connection
		return
	}
	w.seen["called"]++
	for _, m := range w.meters {
		m.arrive(w.now, h.call.recipients)
	}
	if m := int(w.now / time.Minute); m >= len(w.minutes) {
		w.minutes = append(w.minutes, make([]int, m-len(w.minutes)+1)...)
	}
	w.minutes[int(w.now/time.Minute)]++
}

// record waits for the next transaction of its replica: results are committed in groups.
func (w *world) record(h happening) {
	if h.who.ended = append(h.who.ended, h); len(h.who.ended) == 1 {
		w.agenda.add(happening{at: max(w.now, w.lock), kind: commits, who: h.who})
	}
}

// commit closes claims: those with a call at its latest arrival; those without were never open.
func (w *world) commit(h happening) {
	w.locked(h, func(r *replica, now time.Time, asked, _ time.Duration) {
		for _, e := range r.ended {
			if e.kind == releases {
				w.drop(r, "too late for its call")
			} else {
				r.inflight--
			}
			w.settle(r, e, now, asked)
		}
		r.ended = r.ended[:0]
	})
}

func (w *world) settle(r *replica, e happening, now time.Time, asked time.Duration) {
	f := e.call
	if f.closed { // a rescuer was first, and booked it
		w.seen["answer after the rescue"]++
		return
	}
	w.close(f)
	if e.kind == releases {
		return
	}
	at, took := r.local(f.end), f.end-f.started
	floor := r.floor.Note(took, f.late, at)
	if r.calls++; r.calls == 1 || took < r.shortest {
		r.shortest = took
	}
	if w.broken == noSpare && r.calls >= 20 {
		floor = r.shortest
	}
	if f.answered {
		at = at.Add(-floor)
	}
	w.acc.Settle(now, r.reading.At.Add(at.Sub(r.local(asked))), f.recipients, false)
}

// close takes a call out of the open ones.
func (w *world) close(f *flight) {
	f.closed = true
	w.acc.Open.Calls--
	w.acc.Open.Messages--
	w.acc.Open.Recipients -= f.recipients
	if open := w.flights[f.incarnation]; len(open) > 64 && open[0].closed {
		w.flights[f.incarnation] = slices.DeleteFunc(open, func(f *flight) bool { return f.closed })
	}
}

func (w *world) orphan(h happening) {
	w.locked(h, func(*replica, time.Time, time.Duration, time.Duration) {
		if !h.call.closed {
			w.close(h.call)
		}
	})
}

// rescue takes back the claims of a replica whose lease ran out; any other replica does it.
func (w *world) rescue(h happening) {
	lost := h.who
	if !lost.dead && (lost.paused <= w.now || w.now < lost.lease) {
		return // it went on in time, and the first that it did was to renew its lease
	}
	rescuer := w.awake()
	if rescuer == nil {
		h.at = w.now + sweep
		w.agenda.add(h)
		return
	}
	h.who = rescuer
	if w.lock > w.now {
		h.who, h.at = lost, w.lock
		w.agenda.add(h)
		return
	}
	w.locked(h, func(_ *replica, now time.Time, _, _ time.Duration) {
		for _, f := range slices.Clone(w.flights[lost.incarnation]) {
			if f.closed {
				continue
			}
			w.close(f)
			if f.isAnnounced && w.broken != lostUnbooked {
				w.seen["rescued call"]++
				w.acc.Settle(now, now, f.recipients, false)
			} else {
				w.seen["rescued claim"]++
			}
		}
	})
	delete(w.flights, lost.incarnation)
	w.names++
	lost.incarnation = w.names // should it come back, it is another
}

func (w *world) awake() *replica {
	for _, r := range w.replicas {
		if !r.dead && r.paused <= w.now {
			return r
		}
	}
	return nil
}

// fault lets something go wrong, and plans the next of its kind.
func (w *world) fault(k kind) {
	alive := slices.DeleteFunc(slices.Clone(w.replicas), func(r *replica) bool { return r.dead || r.paused > w.now })
	if w.acc.Open.Calls == 0 && w.chance(0.8) { // where windows are spent at once nothing is in flight most of the time
		w.waiting = append(w.waiting, k)
		return
	}
	switch k { //nolint:exhaustive // the others are no faults
	case dies:
		w.plan(k, w.faults.death)
		if len(alive) > 1 {
			w.die(alive[w.rng.IntN(len(alive))])
		}
	case pauses:
		w.plan(k, w.faults.pause)
		if len(alive) > 1 {
			w.pause(alive[w.rng.IntN(len(alive))])
		}
	case joins:
		w.plan(k, w.faults.join)
		if len(alive) < 5 && !w.unseen {
			w.seen["join"]++
			w.join()
		}
	case restarts:
		if w.unseen {
			w.agenda.add(happening{at: w.now + time.Second, kind: k})
			return
		}
		w.plan(k, w.faults.restart)
		w.restart(alive)
	case steps:
		w.step(alive)
	default:
	}
}

func (w *world) die(r *replica) {
	w.seen["death"]++
	w.deaths = append(w.deaths, w.now)
	r.dead, r.died = true, w.now
	w.replicas = slices.DeleteFunc(w.replicas, func(x *replica) bool { return x == r })
	beat := w.now - w.span(0, heartbeat)
	w.agenda.add(happening{at: max(w.now, beat+lease+w.span(0, sweep)), kind: rescues, who: r})
}

// pause stops a process for a while, as a snapshot of its machine does. If the pause is long, its claims are rescued.
func (w *world) pause(r *replica) {
	w.seen["pause"]++
	r.paused = w.now + w.span(10*time.Millisecond, 40*time.Second)
	r.lease = w.now - w.span(0, heartbeat) + lease
	w.agenda.add(happening{at: r.lease + w.span(0, sweep), kind: rescues, who: r})
}

// restart ends all replicas, half of them without a drain, and starts others.
func (w *world) restart(alive []*replica) {
	w.seen["restart"]++
	for _, r := range alive {
		w.die(r)
	}
	if w.broken == refill {
		for i := range w.acc.Ledgers {
			w.acc.Ledgers[i].Bins = nil
		}
	}
	for range max(len(alive), 1) {
		w.join()
	}
}

// step sets the database's clock. Every replica must have read the clock since it was last set, and no new replica may be the
// first to read it afterwards, because nobody can notice a jump of a clock that no process watches.
func (w *world) step(alive []*replica) {
	blind := func(r *replica) bool { return !r.known || r.reading.Asked.Before(r.local(w.stepped)) }
	if len(alive) == 0 || slices.ContainsFunc(w.replicas, blind) {
		w.agenda.add(happening{at: w.now + time.Second, kind: steps})
		return
	}
	w.plan(steps, w.faults.step)
	w.stepped = w.now
	by := w.span(100*time.Millisecond, 5*time.Second) // a jump that is shorter than two readings is not seen
	if w.chance(0.3) {
		by = w.span(time.Minute, 2*time.Hour)
	}
	if w.chance(0.5) {
		w.seen["clock back"]++
		w.offset -= by
		return
	}
	w.seen["clock forward"]++
	w.offset += by
	w.unseen = true
	if by > lease-heartbeat {
		for _, r := range w.replicas {
			r.mute = w.now + w.span(0, heartbeat)
		}
	}
}

// windows of the shapes that providers document.
func shapes() map[string][]limit.Window {
	return map[string][]limit.Window{
		"sendgrid": {{N: 100, Per: 5 * time.Minute, Unit: limit.Requests}, {N: 1000, Per: time.Hour, Unit: limit.Requests}},
		"mailgun":  {{N: 2000, Per: time.Hour, Unit: limit.Messages}},
		"postmark": {{N: 10, Per: time.Second, Unit: limit.Requests}, {N: 500, Per: time.Minute, Unit: limit.Requests}},
		"ses": {
			{N: 14, Per: time.Second, Unit: limit.Requests},
			{N: 200, Per: time.Second, Unit: limit.Recipients},
			{N: 50000, Per: 24 * time.Hour, Unit: limit.Recipients},
		},
		"smtp":  {{N: 1000, Per: time.Minute, Unit: limit.Messages}},
		"other": {{N: 100, Per: time.Second, Unit: limit.Requests}, {N: 10000, Per: time.Hour, Unit: limit.Requests}},
	}
}
