package emulator

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// maxPendingEvents is how many events of one provider may wait; events of messages beyond are counted as dropped.
const maxPendingEvents = 200_000

// A lane posts at most laneWorkers requests at a time, and SendGrid's puts at most maxBatchEvents into one.
const (
	laneWorkers    = 32
	maxBatchEvents = 500
)

// HookStats is what became of one provider's events since Start.
type HookStats struct {
	Events  int64         `json:"events"`   // told, with an answer that the provider takes for success
	Posted  int64         `json:"posted"`   // requests, repetitions included
	OK      int64         `json:"ok"`       // of them, taken
	Refused map[int]int64 `json:"refused"`  // of them, by the status of the answer
	Failed  int64         `json:"failed"`   // of them, without an answer
	Retried int64         `json:"retried"`  // of them, repetitions
	GivenUp int64         `json:"given_up"` // events that are tried no more
	Dropped int64         `json:"dropped"`  // events never told: by mode hook_drop, or because too many waited
	Pending int           `json:"pending"`  // events that wait for their time
	Held    int           `json:"held"`     // events that mode hook_hold keeps
}

// errand is one thing that a lane has to do at some time: tell what is next in a plan, or repeat a post.
type errand struct {
	due    time.Time
	plan   []happening
	judged bool // the plan is one event that faults have met already
	again  *post
}

// size is how many events wait in it.
func (x *errand) size() int {
	if x.again != nil {
		return len(x.again.events)
	}
	return len(x.plan)
}

// agenda is a heap, the earliest first.
type agenda []*errand

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }

// Push implements heap.Interface.
func (a *agenda) Push(x any) { *a = append(*a, x.(*errand)) } //nolint:errcheck // only errands are pushed

// Pop implements heap.Interface.
func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	return last
}

// lane tells the events of one provider. Its one standing goroutine waits for what is due and starts a goroutine per
// post; when all workers are busy the rest waits in the agenda, and nobody else does.
type lane struct {
	e      *Emulator
	kind   string
	herald herald
	wake   chan struct{}
	busy   chan struct{} // as many as there are posts under way

	mu      sync.Mutex
	agenda  agenda
	held    []*errand
	pending int // events in the agenda
	stats   HookStats
}

func newLane(e *Emulator, kind string, h herald) *lane {
	return &lane{e: e, kind: kind, herald: h, wake: make(chan struct{}, 1), busy: make(chan struct{}, laneWorkers)}
}

// add puts errands into the agenda, as far as there is room; limited is false for what was counted before.
func (l *lane) add(limited bool, errands ...*errand) {
	l.mu.Lock()
	for _, x := range errands {
		if limited && l.pending+l.heldEvents()+x.size() > maxPendingEvents {
			l.stats.Dropped += int64(x.size())
			continue
		}
		l.pending += x.size()
		heap.Push(&l.agenda, x)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) heldEvents() int { return len(l.held) } // each holds one event

// run works until ctx ends, and then waits for the posts under way.
func (l *lane) run(ctx context.Context) {
	var posts sync.WaitGroup
	defer posts.Wait()
	for ctx.Err() == nil {
		due, wait := l.next(l.e.now())
		if len(due) == 0 {
			l.sleep(ctx, wait)
			continue
		}
		for _, p := range l.sort(due) {
			select {
			case l.busy <- struct{}{}:
			case <-ctx.Done():
				return
			}
			posts.Go(func() {
				defer func() { <-l.busy }()
				l.tell(ctx, p)
			})
		}
		if l.kind == kindSendGrid && len(due) < maxBatchEvents {
			l.pause(ctx, l.e.timing.pace) // lets a batch gather, as SendGrid does for up to 30 s
		}
	}
}

// sleep waits for the given time, for an addition, or for the end.
func (l *lane) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-l.wake:
	case <-t.C:
	}
}

func (l *lane) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// next takes what is due out of the agenda: one errand, or for SendGrid as many as go into a batch. What is left of a
// plan goes back. Without any it tells how long to wait.
func (l *lane) next(now time.Time) (due []*errand, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := 1
	if l.kind == kindSendGrid {
		most = maxBatchEvents
	}
	for len(due) < most && len(l.agenda) > 0 && !l.agenda[0].due.After(now) {
		x := l.agenda[0]
		if len(x.plan) > 1 {
			due = append(due, &errand{plan: x.plan[:1:1]})
			l.pending--
			x.plan = x.plan[1:]
			x.due = x.plan[0].due
			heap.Fix(&l.agenda, 0)
			continue
		}
		heap.Pop(&l.agenda)
		l.pending -= x.size()
		due = append(due, x)
	}
	if len(due) > 0 {
		return due, 0
	}
	if len(l.agenda) == 0 {
		return nil, time.Hour
	}
	return nil, l.agenda[0].due.Sub(now)
}

// release lets held events go.
func (l *lane) release() {
	l.mu.Lock()
	held := l.held
	l.held = nil
	l.mu.Unlock()
	now := l.e.now()
	for _, x := range held {
		x.due = now
	}
	l.add(false, held...)
}

func (l *lane) count(change func(*HookStats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}

func (l *lane) snapshot() HookStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Pending, s.Held = l.pending, l.heldEvents()
	s.Refused = make(map[int]int64, len(l.stats.Refused))
	for status, n := range l.stats.Refused {
		s.Refused[status] = n
	}
	return s
}

// schedule plans what becomes of accepted messages, if there is anybody to tell.
func (e *Emulator) schedule(letters []*letter) {
	if len(letters) == 0 || !e.hooks.any(letters[0].Provider) {
		return
	}
	lane := e.lanes[letters[0].Provider]
	errands := make([]*errand, 0, len(letters))
	for _, l := range letters {
		plan := e.timing.plan(l)
		if len(plan) == 0 {
			continue
		}
		if len(plan) > 1 && e.faults.takeAt(queue{l.Provider, modeHookShuffle}, l.To, e.now(), nil) != nil {
			shuffle(plan)
		}
		errands = append(errands, &errand{due: plan[0].due, plan: plan})
	}
	lane.add(true, errands...)
}

// releaseUnheld lets go what was held by a fault that is gone.
func (e *Emulator) releaseUnheld() {
	left := e.faults.left(e.now())
	for kind, lane := range e.lanes {
		holds := false
		for _, f := range left[kind] {
			holds = holds || f.Mode == modeHookHold
		}
		if !holds {
			lane.release()
		}
	}
}
