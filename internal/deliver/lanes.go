package deliver

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	maxClaim    = 1000
	markMargin  = 2 * time.Second        // rows due before the mark may still appear for less than this: an accept gives up before
	markForget  = 30 * time.Second       // after this a full sweep looks for rows that were missed
	laneMaxIdle = time.Minute            // lanes that were not seen for so long are forgotten
	meet        = 250 * time.Millisecond // lanes that wake within this of each other are asked together
)

// lanes is what this replica knows of the queues: which hold messages, how far each is emptied, and which wait for room at
// an account.
type lanes struct {
	mu    sync.Mutex
	known map[queue.Lane]*lane
	ended bool // a call ended since ask looked
	turn  int  // where the next claim begins, so that no tenant is always last
}

type lane struct {
	seen   time.Time
	low    time.Time // on the database's clock: nothing older is ready
	swept  time.Time
	asleep time.Time // all its accounts are full until then
	calls  bool      // or until a call ends
	appeal int       // rows to ask for next: grows while all that is asked for is taken
	atHead int       // rows at the head that wait for their account while other messages pass them
	weight int       // of its tenant
}

func (l *lanes) init() { l.known = map[queue.Lane]*lane{} }

// note makes a lane known.
func (l *lanes) note(id queue.Lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ensure(id).seen = time.Now()
}

func (l *lanes) ensure(id queue.Lane) *lane {
	if l.known[id] == nil {
		l.known[id] = &lane{appeal: 16, weight: 100}
	}
	return l.known[id]
}

// refresh adds the lanes that the database lists, sets the weights of tenants, and forgets lanes that were not seen lately.
func (l *lanes) refresh(ids []queue.Lane, tenants []record.Tenant, now time.Time) {
	weights := make(map[mail.TenantID]int, len(tenants))
	for _, t := range tenants {
		weights[t.ID] = t.Weight
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.ensure(id).seen = now
	}
	for id, x := range l.known {
		if w := weights[id.Tenant]; w > 0 {
			x.weight = w
		}
		if now.Sub(x.seen) > laneMaxIdle {
			delete(l.known, id)
		}
	}
}

// awaken makes the next claim look at every lane again, after a change of accounts, pools or limits.
func (l *lanes) awaken() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.known {
		x.asleep, x.low = time.Time{}, time.Time{}
	}
}

// callEnded wakes the lanes that wait for the end of a call.
func (l *lanes) callEnded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

// rewind makes the next claim look at a lane from its beginning, where messages may lie again.
func (l *lanes) rewind(id queue.Lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.ensure(id)
	x.seen, x.low, x.asleep = time.Now(), time.Time{}, time.Time{}
}

// ask divides room for n messages over the lanes that are awake, by tenant weight, and returns when the first sleeping
// one wakes. A lane that wakes within a moment is asked together with an awake one of the same pool. Tenants that wait for
// one account get its slots by turns only if they are in one claim; otherwise the one that wakes first takes all.
func (l *lanes) ask(n int, now time.Time) (quotas []queue.LaneQuota, wakes time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	var ids []queue.Lane
	awake := map[int32]bool{}
	for id, x := range l.known {
		if l.ended && x.calls {
			x.asleep = time.Time{}
		}
		awake[id.Number] = awake[id.Number] || !x.asleep.After(now)
	}
	l.ended = false
	for id, x := range l.known {
		switch {
		case !x.asleep.After(now), awake[id.Number] && !x.asleep.After(now.Add(meet)):
			ids = append(ids, id)
			total += x.weight
		case wakes.IsZero() || x.asleep.Before(wakes):
			wakes = x.asleep
		}
	}
	if n <= 0 {
		return nil, wakes
	}
	if len(ids) > n { // more lanes than messages: take turns
		sortLanes(ids)
		l.turn %= len(ids)
		ids = append(ids[l.turn:], ids[:l.turn]...)[:n]
		l.turn += n
	}
	for _, id := range ids {
		x := l.known[id]
		if now.Sub(x.swept) > markForget {
			x.low, x.swept = time.Time{}, now
		}
		share := max(n*x.weight/max(total, 1), 1)
		quotas = append(quotas, queue.LaneQuota{Lane: id, Max: min(share, x.appeal) + x.atHead, Low: x.low})
	}
	return quotas, wakes
}

// learn notes how a claim went in one lane.
func (l *lanes) learn(q queue.LaneQuota, saw *laneReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.known[q.Lane]
	if x == nil {
		return
	}
	if !saw.oldest.IsZero() {
		x.low = saw.oldest.Add(-markMargin)
	}
	x.asleep, x.calls = saw.asleep, saw.calls
	least := max(16, saw.fill) // when there is room again
	took := saw.took + saw.heldBack + saw.unfit + saw.ended
	switch {
	case took >= q.Max-x.atHead:
		x.appeal = min(x.appeal*2, maxClaim)
	case took == 0 && saw.rows > saw.atHead:
		x.appeal = max(x.appeal/2, least)
	case took < saw.rows-saw.atHead:
		x.appeal = max(took*2, least)
	}
}

// interleave puts the messages that were found into the order of their turns: lanes take turns by tenant weight, and the
// order within a lane stays.
func (l *lanes) interleave(due []queue.Due) []queue.Due {
	l.mu.Lock()
	weights := map[queue.Lane]int{}
	for i := range due {
		if x := l.known[due[i].Lane]; x != nil {
			weights[due[i].Lane] = x.weight
		}
	}
	l.mu.Unlock()
	type turn struct {
		at  float64
		due queue.Due
	}
	turns, n := make([]turn, len(due)), map[queue.Lane]int{}
	for i, d := range due {
		n[d.Lane]++
		turns[i] = turn{float64(n[d.Lane]) / float64(max(weights[d.Lane], 1)), d}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	out := make([]queue.Due, len(due))
	for i := range turns {
		out[i] = turns[i].due
	}
	return out
}

// leaveAtHead notes how many rows stay at the head of a lane. The next claim looks past them.
func (l *lanes) leaveAtHead(id queue.Lane, rows int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.known[id]; x != nil {
		x.atHead = min(rows, maxClaim)
	}
}

func sortLanes(ids []queue.Lane) {
	slices.SortFunc(ids, func(a, b queue.Lane) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Tenant, b.Tenant))
	})
}
