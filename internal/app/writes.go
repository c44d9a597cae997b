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

// fullFor is how long no probe is tried after the database refused a message because it is full or takes no writes: a probe is
// small, and may fit where the next message does not.
const fullFor = 10 * time.Second

// writes tracks whether the database can store messages: with a full disk it still answers queries but stores nothing. The zero
// value assumes that it can.
type writes struct {
	mu     sync.Mutex
	doubt  error         // why the last message was not stored, nil if it was
	sure   bool          // the server itself said that it takes no writes
	failed time.Time     // when the last message was noted
	hold   time.Duration // replaces fullFor unless zero
}

// note records the result of storing a message.
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

// check returns why nothing can be stored, or nil. After a message failed, a probe decides; a probe that works clears the
// doubt.
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
