package limit_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// The model: a provider, a database with the limit state of one account, and one to five replicas that claim as the engine
// does, under demand without end, in virtual time and with every fault that the guarantee must bear. A meter at the
// provider, which knows nothing of the arithmetic, counts what arrives in every sliding window.
//
// Its clock is its own and not that of testing/synctest: a million calls of some goroutines each take minutes there, under
// the race detector, and goroutines that are due together run in an order that no seed repeats. The engine's own code
// runs against the same arithmetic in synctest in package deliver.

var (
	modelSeed  = flag.Uint64("model.seed", 1, "first seed of the model's worlds")
	modelWorld = flag.String("model.world", "", "run only the world of this name, verbosely")
)

// What the engine does, in its own figures: see package deliver.
const (
	horizon     = 50 * time.Millisecond // slots are not taken further ahead
	claimPause  = 4 * time.Millisecond
	intentAge   = 2 * time.Second // an intent that took longer is not followed by a call
	turnAge     = 10 * time.Second
	callTimeout = 30 * time.Second
	lease       = 15 * time.Second
	heartbeat   = 3 * time.Second
	sweep       = 2 * time.Second // rescue
	adoption    = 4 * heartbeat   // claims that their own replica does not know of
	maxClaim    = 64
	concurrency = 300
)

// kind is what happens.
type kind uint8

const (
	claims kind = iota
	announces
	starts
	arrives
	records
	releases // closes a claim that made no call
	commits  // of results that must be recorded
	rescues
	orphans
	dies
	joins
	pauses
	steps
	restarts
)

// happening is something that is due.
type happening struct {
	at   time.Duration // true time, since the beginning
	seq  int
	kind kind
	who  *replica
	call *flight
}

// agenda is a heap of happenings by time.
type agenda struct {
	heap []happening
	seq  int
}

func (q *agenda) less(i, k int) bool {
	a, b := &q.heap[i], &q.heap[k]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *agenda) add(h happening) {
	q.seq++
	h.seq = q.seq
	q.heap = append(q.heap, h)
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.less(i, up) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *agenda) next() happening {
	first, last := q.heap[0], len(q.heap)-1
	q.heap[0], q.heap = q.heap[last], q.heap[:last]
	for i := 0; ; {
		least := i
		for _, k := range [2]int{2*i + 1, 2*i + 2} {
			if k < last && q.less(k, least) {
				least = k
			}
		}
		if least == i {
			return first
		}
		q.heap[i], q.heap[least] = q.heap[least], q.heap[i]
		i = least
	}
}

// meter counts at the provider what arrived in each sliding window, exactly.
type meter struct {
	window limit.Window
	at     []time.Duration
	cost   []int
	sum    int
	peak   int
	total  int
}

func (m *meter) arrive(at time.Duration, recipients int) {
	cost := 1
	if m.window.Unit == limit.Recipients {
		cost = recipients
	}
	gone := 0
	for gone < len(m.at) && at-m.at[gone] >= m.window.Per {
		m.sum -= m.cost[gone]
		gone++
	}
	m.at, m.cost = append(m.at[gone:], at), append(m.cost[gone:], cost)
	m.sum += cost
	m.total += cost
	m.peak = max(m.peak, m.sum)
}

// replica is one process. Its clock has a phase and a pace of its own.
type replica struct {
	name        int
	phase       time.Duration
	drift       float64
	dead        bool
	died        time.Duration
	paused      time.Duration // until then nothing of it runs
	lease       time.Duration // until when its lease runs, if it is paused
	mute        time.Duration // until then its lease looks run out, for the database's clock was set forward
	way         time.Duration // the shortest way to the provider
	inflight    int
	floor       limit.Floor
	shortest    time.Duration // for the mistake noSpare
	calls       int
	reading     limit.Reading
	known       bool // reading is set
	incarnation int
	ended       []happening // what waits to be recorded, in one transaction
}

// local is the replica's monotonic clock.
func (r *replica) local(at time.Duration) time.Time {
	return epoch.Add(r.phase + at + time.Duration(float64(at)*r.drift))
}

// flight is a claimed call.
type flight struct {
	incarnation         int
	recipients          int
	slot                time.Duration // true time at which the replica's timer is due
	claimed, announced  time.Duration
	started, end        time.Duration
	late                time.Duration // after its slot
	isAnnounced, closed bool          // closed: not open any more for the database
	answered            bool
}

var epoch = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// faults say what goes wrong; each is the mean time between two of them, and zero means never.
type faults struct {
	death, pause, join, restart, step time.Duration
	stall                             float64       // share of calls that are late at some point
	mute                              float64       // share of calls without an answer
	starved                           time.Duration // how long a turn of a processor takes, where too many wait for one
}

// fault is a seeded bug, to see that the proof notices it.
type fault uint8

const (
	none           fault = iota
	refill               // a restart forgets what was used
	openIgnored          // calls count from their answer on
	lateSent             // slots are used however late
	clockUnwatched       // nobody sees that the database's clock was set forward
	counterReset         // a window is reset each period
	lostUnbooked         // a rescuer books nothing for calls of the dead
	noSpare              // the shortest call is taken for the least way there and the least way back
)

// world is one run.
type world struct {
	name     string
	rng      *rand.Rand
	faults   faults
	acc      limit.Account // the rows
	meters   []*meter
	agenda   agenda
	now      time.Duration
	lock     time.Duration // until then the rows are locked
	offset   time.Duration // of the database's clock
	unseen   bool          // the clock was set, and nobody looked at it since
	stepped  time.Duration // when it was
	replicas []*replica
	flights  map[int][]*flight // by incarnation
	names    int
	ask      func(*rand.Rand) int
	head     int // recipients of the message that is next
	minutes  []int
	deaths   []time.Duration
	seen     map[string]int // what happened how often
	waiting  []kind         // faults that wait for calls to be in flight
	broken   fault          // the mistake that is seeded
}

func newWorld(name string, seed uint64, windows []limit.Window, replicas int, f faults) *world {
	w := &world{
		name: name, rng: rand.New(rand.NewPCG(seed, 7)), faults: f, flights: map[int][]*flight{}, seen: map[string]int{},
		ask: func(*rand.Rand) int { return 1 },
	}
	for _, x := range windows {
		w.acc.Ledgers = append(w.acc.Ledgers, limit.Ledger{Window: x})
		w.meters = append(w.meters, &meter{window: x})
	}
	for range replicas {
		w.join()
	}
	for _, x := range []struct {
		kind  kind
		every time.Duration
	}{{dies, f.death}, {pauses, f.pause}, {joins, f.join}, {restarts, f.restart}, {steps, f.step}} {
		w.plan(x.kind, x.every)
	}
	return w
}

// plan puts the next fault of a kind on the agenda.
func (w *world) plan(k kind, every time.Duration) {
	if every > 0 {
		w.agenda.add(happening{at: w.now + time.Duration(w.rng.ExpFloat64()*float64(every)), kind: k})
	}
}

func (w *world) span(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Int64N(int64(most-least)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) join() {
	w.names++
	r := &replica{
		name: w.names, phase: w.span(0, time.Hour), drift: (w.rng.Float64() - 0.5) * 40e-6, incarnation: w.names,
		way: w.span(2*time.Millisecond, 3*time.Millisecond), // they differ by less than the least Slack, jitter included
	}
	w.replicas = append(w.replicas, r)
	w.agenda.add(happening{at: w.now + w.span(0, 20*time.Millisecond), kind: claims, who: r})
}

// run ends after so many calls have arrived, or so much time has passed.
func (w *world) run(calls int, span time.Duration) {
	for w.meters[0].total < calls && w.now < span {
		h := w.agenda.next()
		if h.at < w.now {
			panic("the agenda goes back in time")
		}
		w.now = h.at
		w.happen(h)
	}
}

func (w *world) happen(h happening) {
	if h.who != nil && h.kind != arrives && h.kind != rescues {
		if h.who.dead {
			return
		}
		if h.who.paused > w.now { // timers that came due meanwhile fire together
			h.at = h.who.paused + w.span(0, time.Millisecond)
			w.agenda.add(h)
			return
		}
	}
	switch h.kind { //nolint:exhaustive // the others are faults
	case claims:
		w.claim(h)
	case announces:
		w.announce(h)
	case starts:
		w.start(h)
	case arrives:
		w.arrive(h)
	case records, releases:
		w.record(h)
	case commits:
		w.commit(h)
	case rescues:
		w.rescue(h)
	case orphans:
		w.orphan(h)
	default:
		w.fault(h.kind)
	}
}

// locked runs f as a transaction of r that locks the rows. If they are locked already, the step is postponed.
func (w *world) locked(h happening, f func(r *replica, now time.Time, asked, got time.Duration)) {
	if w.lock > w.now {
		h.at = w.lock
		w.agenda.add(h)
		return
	}
	trip := w.span(100*time.Microsecond, 600*time.Microsecond)
	if w.chance(w.faults.stall / 4) {
		trip = w.span(0, 30*time.Millisecond)
	}
	asked, got := w.now, w.now+trip
	shown := epoch.Add(w.offset + asked + w.span(0, trip))
	r := h.who
	reading := limit.Reading{At: shown, Ahead: w.acc.Ahead, Asked: r.local(asked), Got: r.local(got)}
	if r.known && w.broken != clockUnwatched {
		w.acc.Forward(r.reading.Jump(reading))
		reading.Ahead = w.acc.Ahead
	}
	w.unseen = w.unseen && !r.known
	r.reading, r.known = reading, true
	now := shown.Add(reading.Got.Sub(reading.Asked))
	w.acc.Recall(now)
	w.acc.Lag = reading.Got.Sub(reading.Asked)
	f(r, now, asked, got)
	w.lock = got + w.span(50*time.Microsecond, 200*time.Microsecond)
}

func (w *world) claim(h happening) {
	w.locked(h, func(r *replica, now time.Time, asked, got time.Duration) {
		alive := 0
		for _, x := range w.replicas {
			if !x.dead {
				alive++
			}
		}
		decided := got + w.span(0, 100*time.Microsecond)
		w.acc.Lag = decided - asked
		wait, taken := claimPause, 0
		for taken < maxClaim && r.inflight < max(concurrency/alive, 1) && w.acc.Open.Calls < concurrency {
			if w.head == 0 {
				w.head = w.ask(w.rng)
			}
			g := w.take(now)
			if !g.OK {
				if taken == 0 {
					wait = max(g.Retry.Sub(now)-horizon/2, 5*time.Millisecond)
				}
				break
			}
			taken++
			r.inflight++
			f := &flight{incarnation: r.incarnation, recipients: w.head, claimed: got, slot: decided + g.Slot.Sub(now)}
			w.head = 0
			w.flights[r.incarnation] = append(w.flights[r.incarnation], f)
			load := w.span(300*time.Microsecond, 2*time.Millisecond)
			if w.chance(w.faults.stall / 4) {
				load = w.span(0, 3*time.Second)
			}
			w.agenda.add(happening{at: got + load, kind: announces, who: r, call: f})
		}
		if taken == 0 && r.inflight > 0 && wait == claimPause {
			wait = 20 * time.Millisecond
		}
		w.agenda.add(happening{at: got + wait + w.span(0, time.Millisecond), kind: claims, who: r})
	})
}

// take asks the arithmetic for a slot, or its broken version.
func (w *world) take(now time.Time) limit.Grant {
	open := w.acc.Open
	switch w.broken { //nolint:exhaustive // the others are broken elsewhere
	case openIgnored:
		w.acc.Open = limit.Open{}
	case counterReset:
		for i := range w.acc.Ledgers {
			l := &w.acc.Ledgers[i]
			begin := now.Truncate(l.Window.Per).UnixNano() / int64(l.Window.BinWidth())
			l.Bins = slices.DeleteFunc(l.Bins, func(b limit.Bin) bool { return b.Number < begin })
		}
	default:
	}
	before := w.acc.Open
	g := w.acc.Take(now, w.head, horizon)
	w.acc.Open.Calls += open.Calls - before.Calls
	w.acc.Open.Messages += open.Messages - before.Messages
	w.acc.Open.Recipients += open.Recipients - before.Recipients
	return g
}
