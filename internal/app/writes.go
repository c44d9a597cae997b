package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/record"
)

// fullFor is for how long a database that refused a message for want of space, or since it takes no writes, is believed:
// a probe is small, and fits where the next message may not.
const fullFor = 10 * time.Second

// writes knows whether what is accepted can be stored: a database whose disk is full answers every question and stores
// nothing. The zero value trusts it.
type writes struct {
	mu     sync.Mutex
	doubt  error         // why the last message was not stored, nil if it was
	sure   bool          // the server said that it can't
	failed time.Time     // when
	hold   time.Duration // fullFor, if it is zero
}

// note looks at what became of a message.
func (w *writes) note(a record.Accepted, err error) {
	if err == nil && a.Replayed || errors.Is(err, record.ErrMismatch) || errors.Is(err, record.ErrConflict) {
		return // nothing was to be stored
	}
	if u, ok := errors.AsType[*record.Unavailable](err); ok && u.Reason == "queue_full" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doubt, w.sure, w.failed = err, postgres.TakesNoWrites(err), time.Now()
}

// check returns why nothing can be stored. Once a message failed, a probe decides, and one that works ends the doubt.
func (w *writes) check(ctx context.Context, probe func(context.Context) error) error {
	w.mu.Lock()
	doubt, failed := w.doubt, w.failed
	sure := w.sure && time.Since(failed) < cmp.Or(w.hold, fullFor)
	w.mu.Unlock()
	if doubt == nil {
		return nil
	}
	if sure {
		return fmt.Errorf("the database stores nothing: %w", doubt)
	}
	if err := probe(ctx); err != nil {
		return fmt.Errorf("the database stores nothing: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed.Equal(failed) { // no other message failed meanwhile
		w.doubt = nil
	}
	return nil
}
