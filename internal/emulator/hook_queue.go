package emulator

import (
	"container/heap"
	"context"
	"maps"
	"sync"
	"time"
)

// maxPendingEvents is how many events of one provider may wait; events of further messages are counted as dropped.
const maxPendingEvents = 200_000

// hookWorkers is how many requests of one provider run at the same time.
const hookWorkers = 32

// HookStats counts what happened to one provider's events since Start.
type HookStats struct {
	Events  int64         `json:"events"`   // sent, with an answer that means success to the provider
	Posted  int64         `json:"posted"`   // requests, including repetitions
	OK      int64         `json:"ok"`       // those that were taken
	Refused map[int]int64 `json:"refused"`  // those that were refused, by the status of the answer
	Failed  int64         `json:"failed"`   // those without an answer
	Retried int64         `json:"retried"`  // those that were repetitions
	GivenUp int64         `json:"given_up"` // events that are not tried any more
	Dropped int64         `json:"dropped"`  // events never sent: by mode hook_drop, or because too many were waiting
	Pending int           `json:"pending"`  // events that are waiting for their time
	Held    int           `json:"held"`     // events that mode hook_hold keeps
}

// task is one job of a queue at some time: to send the next event of a plan, or to repeat a post.
type task struct {
	due       time.Time
	plan      []Event
	faultsMet bool // the plan is one event, and the faults that keep it from being sent now were applied
	repeat    *Post
}

// size is how many events wait in the task.
func (x *task) size() int {
	if x.repeat != nil {
		return len(x.repeat.Events)
	}
	return len(x.plan)
}

// tasks is a heap, the earliest first.
type tasks []*task

func (a tasks) Len() int           { return len(a) }
func (a tasks) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a tasks) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }

// Push implements heap.Interface.
func (a *tasks) Push(x any) { *a = append(*a, x.(*task)) } //nolint:errcheck // only tasks are pushed

// Pop implements heap.Interface.
func (a *tasks) Pop() any {
	old := *a
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	return last
}

// hookQueue sends the events of one provider. Its one permanent goroutine waits for due tasks and starts a goroutine per post.
// When all workers are busy, the rest waits in the heap. No other code has to wait.
type hookQueue struct {
	*Host
	wake chan struct{}
	busy chan struct{} // has an item for each post in progress

	mu      sync.Mutex
	tasks   tasks
	held    []*task // of one event each
	pending int     // events in the heap
	stats   HookStats
}

func newHookQueue(h *Host) *hookQueue {
	return &hookQueue{Host: h, wake: make(chan struct{}, 1), busy: make(chan struct{}, hookWorkers)}
}

// add puts tasks into the heap if there is room. limited is false for tasks that were counted before.
func (q *hookQueue) add(limited bool, more ...*task) {
	q.mu.Lock()
	for _, x := range more {
		if limited && q.pending+len(q.held)+x.size() > maxPendingEvents {
			q.stats.Dropped += int64(x.size())
			continue
		}
		q.pending += x.size()
		heap.Push(&q.tasks, x)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends, and then waits for the posts in progress.
func (q *hookQueue) run(ctx context.Context) {
	var posts sync.WaitGroup
	defer posts.Wait()
	for ctx.Err() == nil {
		due, wait := q.next(q.e.now())
		if len(due) == 0 {
			sleep(ctx, q.wake, wait)
			continue
		}
		for _, p := range q.sort(due) {
			select {
			case q.busy <- struct{}{}:
			case <-ctx.Done():
				return
			}
			posts.Go(func() {
				defer func() { <-q.busy }()
				q.deliver(ctx, p)
			})
		}
		if len(due) < q.kind.Batch {
			sleep(ctx, nil, q.e.opt.EventPace) // lets a batch fill, as SendGrid does for up to 30 s
		}
	}
}

// sleep waits for the given time, for a wake-up, or until ctx ends.
func sleep(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-t.C:
	}
}

// next takes the due tasks out of the heap: one task, or as many as fit into a batch. The rest of a plan goes back. If nothing is
// due, it returns how long to wait.
func (q *hookQueue) next(now time.Time) (due []*task, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(due) < max(q.kind.Batch, 1) && len(q.tasks) > 0 && !q.tasks[0].due.After(now) {
		x := q.tasks[0]
		if len(x.plan) > 1 {
			due = append(due, &task{plan: x.plan[:1:1]})
			q.pending--
			x.plan = x.plan[1:]
			x.due = x.plan[0].due
			heap.Fix(&q.tasks, 0)
			continue
		}
		heap.Pop(&q.tasks)
		q.pending -= x.size()
		due = append(due, x)
	}
	if len(due) > 0 {
		return due, 0
	}
	if len(q.tasks) == 0 {
		return nil, time.Hour
	}
	return nil, q.tasks[0].due.Sub(now)
}

// release sends the held events.
func (q *hookQueue) release() {
	q.mu.Lock()
	held := q.held
	q.held = nil
	q.mu.Unlock()
	now := q.e.now()
	for _, x := range held {
		x.due = now
	}
	q.add(false, held...)
}

func (q *hookQueue) count(change func(*HookStats)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change(&q.stats)
}

func (q *hookQueue) snapshot() HookStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Pending, s.Held = q.pending, len(q.held)
	s.Refused = make(map[int]int64, len(q.stats.Refused))
	maps.Copy(s.Refused, q.stats.Refused)
	return s
}

// schedule plans the events of accepted messages, if there is a receiver.
func (h *Host) schedule(messages []*Message) {
	if h.ownHook() == nil && len(h.provider.Registered(nil)) == 0 {
		return
	}
	planned := make([]*task, 0, len(messages))
	for _, m := range messages {
		plan := h.plan(m)
		if len(plan) == 0 {
			continue
		}
		if len(plan) > 1 && h.takeHook(modeHookShuffle, m.To) != nil {
			shuffle(plan)
		}
		planned = append(planned, &task{due: plan[0].due, plan: plan})
	}
	h.queue.add(true, planned...)
}
