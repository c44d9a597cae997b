package deliver

import (
	"context"
	"time"

	"github.com/sendgate/sendgate/internal/queue"
)

const (
	booksEvery = time.Minute      // between two checks of the books
	booksWait  = 55 * time.Second // for one check, which takes much of that with ten million messages open
)

// keepBooks checks the books every minute. It has a loop of its own: with millions of messages open a check takes
// seconds, and no rescue must wait for that.
func (e *Engine) keepBooks(ctx context.Context) {
	for {
		next := time.Now().Add(booksEvery)
		if err := runJob(ctx, booksWait, e.checkBooks); err != nil && ctx.Err() == nil {
			e.Log.Error("books not checked", "error", err)
		}
		if !sleepUntil(ctx, next) {
			return
		}
	}
}

// checkBooks publishes the counts as metrics, and logs each contradiction as an error. If another replica is checking, it
// does nothing: that replica reports, and this one checks again in a minute.
func (e *Engine) checkBooks(ctx context.Context) error {
	a, done, err := e.Store.AccountingAlone(ctx)
	if err != nil || !done {
		return err
	}
	sum := a.Total()
	for state, n := range map[string]int{
		"ready": sum.Ready, "unstarted": sum.Unstarted, "started": sum.Started, "unknown": sum.Unknown,
	} {
		e.Metrics.Booked.WithLabelValues(state).Set(float64(n))
	}
	for _, kind := range queue.ViolationKinds() {
		e.Metrics.Violations.WithLabelValues(string(kind)).Set(float64(a.Count(kind)))
	}
	e.Metrics.UnknownAge.Set(a.UnknownAge.Seconds())
	e.Metrics.BooksAt.SetToCurrentTime()
	if err := e.Store.NoteBooks(ctx, &a); err != nil { // the replica that tells people may be another one
		e.Log.Warn("the check of the books was not noted", "error", err)
	}
	for _, v := range a.Violations {
		e.Log.Error("the books do not balance", "kind", v.Kind, "tenant", v.Tenant, "count", v.Count, "message_ids", v.IDs)
	}
	return nil
}
