package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sendgate/sendgate/api"
)

// generator runs a loadPlan. Its counters may be read while it runs.
type generator struct {
	plan     loadPlan
	ids      *idLog
	next     atomic.Int64 // serial of the next message
	accepted atomic.Int64
	failed   atomic.Int64

	mu      sync.Mutex
	latency histogram
	errors  map[string]int64 // status or kind of failure -> messages
}

// run blocks until the plan or ctx is done. It waits for calls that are in progress when --duration ends.
func (g *generator) run(ctx context.Context) {
	until := ctx
	if g.plan.duration > 0 {
		var cancel context.CancelFunc
		until, cancel = context.WithTimeout(ctx, g.plan.duration)
		defer cancel()
	}
	began := time.Now()
	var wg sync.WaitGroup
	for range g.plan.cmd.Concurrency {
		wg.Go(func() {
			w := worker{g: g, conn: &loadConn{server: g.plan.server, timeout: g.plan.cmd.Timeout}, errors: map[string]int64{}}
			w.loop(ctx, until, began)
			g.add(&w)
		})
	}
	wg.Wait()
}

// worker is the loop of one connection, with its counts.
type worker struct {
	g       *generator
	conn    *loadConn
	request *loadRequest
	latency histogram
	errors  map[string]int64
}

// loop makes calls until there are no more or until ends.
func (w *worker) loop(ctx, until context.Context, began time.Time) {
	defer w.conn.close()
	for {
		due, ok := w.take(until, began)
		if !ok {
			return
		}
		status, answer, err := w.conn.call(ctx, w.request.bytes)
		w.latency.record(time.Since(due))
		w.settle(status, answer, err)
		if err != nil && !pause(until, 50*time.Millisecond) { // do not call a dead server in a tight loop
			return
		}
	}
}

// take numbers the messages of the next call and waits until the call is due. It returns false if there are no more calls.
func (w *worker) take(until context.Context, began time.Time) (time.Time, bool) {
	if until.Err() != nil {
		return time.Time{}, false
	}
	p := &w.g.plan
	k := int64(p.cmd.Batch)
	first := w.g.next.Add(k) - k
	if p.messages > 0 {
		k = min(k, p.messages-first)
	}
	if k <= 0 || !w.prepare(int(k)) {
		return time.Time{}, false
	}
	w.request.number(first)
	if p.cmd.Rate <= 0 {
		return time.Now(), true
	}
	due := began.Add(time.Duration(float64(first) / p.cmd.Rate * float64(time.Second)))
	return due, pause(until, time.Until(due))
}

// prepare builds the request for k messages. All calls share one request, except a shorter last one.
func (w *worker) prepare(k int) bool {
	if w.request != nil && len(w.request.serials) == k {
		return true
	}
	r, err := w.g.plan.request(k)
	if err != nil {
		w.g.failed.Add(int64(k))
		w.errors[err.Error()] += int64(k)
		return false
	}
	w.request = r
	return true
}

// pause waits for d and returns true, or false if ctx is done first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var idMark = []byte(`"id":"`)

const idLen = 36

// settle counts one answer. The common case, all accepted, is read by scanning for ids.
func (w *worker) settle(status int, answer []byte, err error) {
	g, k := w.g, int64(len(w.request.serials))
	if err != nil {
		g.failed.Add(k)
		w.errors[failureOf(err)] += k
		return
	}
	if status != http.StatusAccepted {
		g.failed.Add(k)
		w.errors[strconv.Itoa(status)] += k
		return
	}
	var got int64
	for rest := answer; ; got++ {
		i := bytes.Index(rest, idMark)
		if i < 0 || len(rest) < i+len(idMark)+idLen {
			break
		}
		rest = rest[i+len(idMark):]
		g.ids.add(rest[:idLen])
	}
	g.accepted.Add(got)
	if got < k {
		g.failed.Add(k - got)
		refusals(answer, k-got, w.errors)
	}
}

// refusals counts the refused items of a batch by their status.
func refusals(answer []byte, missing int64, errs map[string]int64) {
	var batch api.BatchResult
	if err := json.Unmarshal(answer, &batch); err != nil {
		errs["unreadable answer"] += missing
		return
	}
	for _, item := range batch.Results {
		if item.Error != nil {
			errs[strconv.Itoa(item.Error.Status)]++
			missing--
		}
	}
	if missing > 0 {
		errs["unreadable answer"] += missing
	}
}

// failureOf returns the kind of a failure, by which errors are counted.
func failureOf(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection closed"
	default:
		return "connection failed"
	}
}

// add adds the counts of a worker.
func (g *generator) add(w *worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.latency.merge(&w.latency)
	for kind, n := range w.errors {
		g.errors[kind] += n
	}
}
