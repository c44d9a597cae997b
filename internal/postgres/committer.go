package postgres

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// committer is a group commit: many callers share one transaction. There is no timer; each worker takes all that waits, so
// latency adapts to load by itself. The queue is bounded in entries and in bytes.
type committer[T, R any] struct {
	opts    committerOptions
	run     func(ctx context.Context, batch []T) ([]R, []error)
	jobs    chan *job[T, R]
	pending atomic.Int64 // bytes
	wg      sync.WaitGroup
}

type committerOptions struct {
	name    string
	workers int
	batch   int   // entries per transaction
	weight  int64 // bytes after which a transaction takes no more, 0 for no bound
	queue   int
	bytes   int64
	sure    bool // once a value was taken, its caller waits until run has ended: run must end
	observe func(name string, size int, took time.Duration)
}

// job is one submitted value and its result.
type job[T, R any] struct {
	value T
	size  int64
	sure  bool
	state atomic.Int32 // waiting, taken or abandoned
	done  chan struct{}
	r     R
	err   error
}

const (
	waiting int32 = iota
	taken
	abandoned
)

// newCommitter starts the workers. run gets a batch and answers for each entry; its context does not depend on any caller's.
func newCommitter[T, R any](o committerOptions, run func(context.Context, []T) ([]R, []error)) *committer[T, R] {
	c := &committer[T, R]{opts: o, run: run, jobs: make(chan *job[T, R], o.queue)}
	for range o.workers {
		c.wg.Go(c.work)
	}
	return c
}

// close ends the queue, and waits until all jobs in it are done.
func (c *committer[T, R]) close() {
	close(c.jobs)
	c.wg.Wait()
}

// do submits one value and waits for its commit. If the context ends before a worker took the value, it is never written, and
// do returns *record.Unavailable. If it ends later, do waits on when the committer is sure, and else returns
// *record.OutcomeUnknown.
func (c *committer[T, R]) do(ctx context.Context, value T, size int64) (R, error) {
	j := c.job(value, size)
	if err := c.submit(j); err != nil {
		var none R
		return none, err
	}
	return j.wait(ctx)
}

func (c *committer[T, R]) job(value T, size int64) *job[T, R] {
	return &job[T, R]{value: value, size: size, sure: c.opts.sure, done: make(chan struct{})}
}

// submit puts a job into the queue, or returns *record.Unavailable when that is full.
func (c *committer[T, R]) submit(j *job[T, R]) error {
	full := &record.Unavailable{RetryAfter: time.Second, Reason: "queue_full"}
	if c.pending.Add(j.size) > c.opts.bytes {
		c.pending.Add(-j.size)
		return full
	}
	select {
	case c.jobs <- j:
		return nil
	default:
		c.pending.Add(-j.size)
		return full
	}
}

// wait waits for the result of a job, as do describes.
func (j *job[T, R]) wait(ctx context.Context) (R, error) {
	select {
	case <-j.done:
		return j.r, j.err
	case <-ctx.Done():
	}
	var none R
	if j.state.CompareAndSwap(waiting, abandoned) {
		return none, &record.Unavailable{RetryAfter: time.Second, Reason: "database", Err: context.Cause(ctx)}
	}
	if j.sure {
		<-j.done
	}
	select {
	case <-j.done: // committed at the last moment: say so
		return j.r, j.err
	default:
		return none, &record.OutcomeUnknown{Err: context.Cause(ctx)}
	}
}

// work commits batches until the queue is closed.
func (c *committer[T, R]) work() {
	for first := range c.jobs {
		batch := c.gather(first)
		if len(batch) == 0 {
			continue
		}
		start := time.Now()
		c.commit(batch)
		c.opts.observe(c.opts.name, len(batch), time.Since(start))
	}
}

// gather takes the jobs that wait, up to the size and weight of a batch, without those that their callers gave up.
func (c *committer[T, R]) gather(first *job[T, R]) []*job[T, R] {
	batch := make([]*job[T, R], 0, min(c.opts.batch, len(c.jobs)+1))
	weight := int64(0)
	add := func(j *job[T, R]) {
		c.pending.Add(-j.size)
		if j.state.CompareAndSwap(waiting, taken) {
			batch = append(batch, j)
			weight += j.size
		}
	}
	add(first)
	for len(batch) < c.opts.batch && (c.opts.weight == 0 || weight < c.opts.weight) {
		select {
		case j, ok := <-c.jobs:
			if !ok {
				return batch
			}
			add(j)
		default:
			return batch
		}
	}
	return batch
}

// commit runs a batch and answers its jobs.
func (c *committer[T, R]) commit(batch []*job[T, R]) {
	values := make([]T, len(batch))
	for i, j := range batch {
		values[i] = j.value
	}
	results, errs := c.run(context.Background(), values)
	for i, j := range batch {
		if errs != nil && errs[i] != nil {
			j.err = errs[i]
		} else {
			j.r = results[i]
		}
		close(j.done)
	}
}

// bisect runs a batch. If the database refuses it because of one of its rows, bisect halves it until only the bad rows fail:
// the callers in a batch have nothing to do with each other.
func bisect[T, R any](ctx context.Context, batch []T, run func(context.Context, []T) ([]R, error)) ([]R, []error) {
	results, err := run(ctx, batch)
	if err == nil {
		return results, make([]error, len(batch))
	}
	if len(batch) == 1 || !rowFault(err) {
		errs := make([]error, len(batch))
		for i := range errs {
			errs[i] = unavailable(err)
		}
		return make([]R, len(batch)), errs
	}
	half := len(batch) / 2
	left, leftErrs := bisect(ctx, batch[:half], run)
	right, rightErrs := bisect(ctx, batch[half:], run)
	return append(left, right...), append(leftErrs, rightErrs...)
}

// inOrder runs a batch sorted, and gives the answers in the order in which they were asked for.
func inOrder[T, R any](batch []T, compare func(a, b *T) int, run func(sorted []T) ([]R, []error)) ([]R, []error) {
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compare(&batch[a], &batch[b]) })
	sorted := make([]T, len(batch))
	for i, at := range order {
		sorted[i] = batch[at]
	}
	got, failures := run(sorted)
	out, errs := make([]R, len(batch)), make([]error, len(batch))
	for i, at := range order {
		out[at], errs[at] = got[i], failures[i]
	}
	return out, errs
}
