package httpapi

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// toucher stores in the background when a key was last used, at most once a minute per key and replica. If a write fails, the
// time is dropped: it only informs operators.
type toucher struct {
	store  Store
	log    *slog.Logger
	now    func() time.Time
	ctx    context.Context //nolint:containedctx // the life of the background work, ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	room   chan struct{}

	mu     sync.Mutex
	closed bool
	last   map[string]time.Time
}

const (
	touchEvery   = time.Minute
	touchTimeout = 5 * time.Second
	touchAtOnce  = 4
	touchKeys    = 10_000
)

func newToucher(store Store, log *slog.Logger, now func() time.Time) *toucher {
	ctx, cancel := context.WithCancel(context.Background())
	return &toucher{
		store: store, log: log, now: now, ctx: ctx, cancel: cancel,
		room: make(chan struct{}, touchAtOnce), last: map[string]time.Time{},
	}
}

// touch starts a write for the key if one is due and there is room.
func (t *toucher) touch(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if last, seen := t.last[id]; t.closed || seen && now.Sub(last) < touchEvery {
		return
	}
	select {
	case t.room <- struct{}{}:
	default:
		return
	}
	if len(t.last) >= touchKeys {
		clear(t.last)
	}
	t.last[id] = now
	t.wg.Go(func() { t.write(id) })
}

func (t *toucher) write(id string) {
	defer func() { <-t.room }()
	ctx, cancel := context.WithTimeout(t.ctx, touchTimeout)
	defer cancel()
	if err := t.store.TouchKey(ctx, id); err != nil {
		t.log.DebugContext(ctx, "key use not noted", "key_id", id, "error", err)
	}
}

func (t *toucher) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.wg.Wait()
}
