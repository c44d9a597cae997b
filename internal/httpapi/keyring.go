package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/record"
)

// keyring caches keys for a moment, so that the database is not asked on every request. Its memory is bounded. A revoked key
// stops within keyTTL plus keyGrace on every replica.
//
// An unknown id of the right form may be made up. The keyring looks up few unknown ids at a time, and none from an address
// that was wrong too often. Then the list of all ids decides, which is read at most once a second. None of this holds back a
// good key, whether it was used here before or not.
type keyring struct {
	store    Store
	now      func() time.Time
	wait     time.Duration      // how long to wait for the database
	lookups  singleflight.Group // by key id
	failures *limit.Tries[holder]
	places   *pool // for look-ups of unknown ids

	mu       sync.Mutex
	entries  map[string]keyEntry  // keys that exist
	unknown  map[string]time.Time // ids without a key, and until when that is believed
	ids      map[string]bool      // all ids, as of listed
	listed   time.Time
	limiters map[string]*rate.Limiter
}

type keyEntry struct {
	key *record.Key
	at  time.Time // when the read of it began
}

const (
	keyTTL     = time.Second
	keyGrace   = 500 * time.Millisecond // how much longer a key is good while it is read again
	keyPause   = 100 * time.Millisecond // before an unavailable database is asked again
	keysKept   = 10_000
	keyLookups = 2 // of unknown ids at a time: the pool has about six connections

	failuresPerMinute = 20
)

func newKeyring(store Store, now func() time.Time, wait time.Duration) *keyring {
	return &keyring{
		store: store, now: now, wait: wait, failures: perMinute[holder](now, failuresPerMinute), places: newPool(keyLookups, 0),
		entries: map[string]keyEntry{}, unknown: map[string]time.Time{}, limiters: map[string]*rate.Limiter{},
	}
}

// find returns the key of that id, nil if there is none, or an error if the store does not answer in time.
func (k *keyring) find(ctx context.Context, id string, who holder) (*record.Key, error) {
	now := k.now()
	k.mu.Lock()
	_, known := k.entries[id]
	none := now.Before(k.unknown[id])
	k.mu.Unlock()
	switch {
	case known:
		return k.byID(ctx, id)
	case none:
		return nil, nil //nolint:nilnil // nil stands for "no such key"
	}
	if k.failures.Over(who) == 0 {
		if place := k.places.take(who, 1, nil); place != nil {
			defer place.release()
			return unverified(k.byID(ctx, id))
		}
	}
	is, err := k.isListed(ctx, id)
	if err != nil || !is {
		return unverified(nil, err)
	}
	return k.byID(ctx, id)
}

// errUnverified is a failed look-up of an id that may be made up. Anyone can cause as many of these as they like.
type errUnverified struct{ error }

// Unwrap returns the cause.
func (e errUnverified) Unwrap() error { return e.error }

// unverified marks an error of a look-up as errUnverified.
func unverified(key *record.Key, err error) (*record.Key, error) {
	if err != nil {
		err = errUnverified{err}
	}
	return key, err
}

// isListed reports whether there is a key of that id. A no is by a list that is at most keyTTL old.
func (k *keyring) isListed(ctx context.Context, id string) (bool, error) {
	k.mu.Lock()
	is, fresh := k.ids[id], k.now().Sub(k.listed) < keyTTL
	k.mu.Unlock()
	if is || fresh {
		return is, nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.wait)
	defer cancel()
	read := k.lookups.DoChan("all", func() (any, error) { return nil, k.list(ctx) })
	select {
	case done := <-read:
		if done.Err != nil {
			return false, done.Err
		}
	case <-ctx.Done():
		return false, &record.Unavailable{Reason: "database", RetryAfter: time.Second, Err: ctx.Err()}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ids[id], nil
}

// list reads the ids of all keys from the store.
func (k *keyring) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.wait)
	defer cancel()
	at := k.now()
	ids, err := k.store.KeyIDs(ctx)
	if err != nil {
		return err
	}
	all := make(map[string]bool, len(ids))
	for _, id := range ids {
		all[id] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ids, k.listed = all, at
	return nil
}

// byID returns the key of that id as find does. It waits as long for the key as a send waits for its commit, so that a short
// outage of the database refuses no request. A known key is good for keyGrace more while it is read again.
func (k *keyring) byID(ctx context.Context, id string) (*record.Key, error) {
	k.mu.Lock()
	e, known := k.entries[id]
	k.mu.Unlock()
	switch age := k.now().Sub(e.at); {
	case known && age < keyTTL:
		return e.key, nil
	case known && age < keyTTL+keyGrace:
		k.lookups.DoChan(id, func() (any, error) { return k.read(ctx, id) })
		return e.key, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.wait)
	defer cancel()
	for {
		key, err := k.lookUp(ctx, id)
		if _, away := errors.AsType[*record.Unavailable](err); !away || !wait(ctx, keyPause) {
			return key, err
		}
	}
}

// lookUp asks the store once, together with other requests for the same key.
func (k *keyring) lookUp(ctx context.Context, id string) (*record.Key, error) {
	read := k.lookups.DoChan(id, func() (any, error) { return k.read(ctx, id) })
	select {
	case found := <-read:
		key, _ := found.Val.(*record.Key)
		return key, found.Err
	case <-ctx.Done():
		return nil, &record.Unavailable{Reason: "database", RetryAfter: time.Second, Err: ctx.Err()}
	}
}

// read asks the store, for all requests that wait for this key, and keeps the answer.
func (k *keyring) read(ctx context.Context, id string) (*record.Key, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.wait) // may outlive the request that asked first
	defer cancel()
	at := k.now()
	key, err := k.store.KeyByID(ctx, id)
	if errors.Is(err, record.ErrNotFound) {
		k.keepUnknown(id, at.Add(keyTTL))
		return nil, nil //nolint:nilnil // nil stands for "no such key"
	}
	if err != nil {
		return nil, err
	}
	k.keep(id, keyEntry{key: key, at: at})
	return key, nil
}

// keep stores a key. When the ring is full, a tenth of the others, chosen at random, is thrown out.
func (k *keyring) keep(id string, e keyEntry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.entries) >= keysKept {
		for old := range k.entries {
			if len(k.entries) < keysKept*9/10 {
				break
			}
			delete(k.entries, old)
		}
	}
	k.entries[id] = e
}

// keepUnknown notes that there is no key of that id, until the given time.
func (k *keyring) keepUnknown(id string, until time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, id)
	if len(k.unknown) >= keysKept {
		clear(k.unknown)
	}
	k.unknown[id] = until
}

// forget drops what is cached about a key that was just created or revoked here.
func (k *keyring) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, id)
	delete(k.unknown, id)
	k.listed = time.Time{}
}

// spend takes one request from the key's own rate. Each replica counts for itself. A batch is one request.
func (k *keyring) spend(key *record.Key) error {
	if key.RatePerSecond <= 0 {
		return nil
	}
	now := k.now()
	reservation := k.limiter(key).ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	reservation.CancelAt(now)
	return &refusal{
		status: http.StatusTooManyRequests, code: "rate_limited", detail: "This key is over its rate of requests per second.",
		retryAfter: max(wait, time.Second),
	}
}

// limiter returns the key's rate limiter, a new one if its rate has changed.
func (k *keyring) limiter(key *record.Key) *rate.Limiter {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, ok := k.limiters[key.ID]
	if !ok || l.Burst() != key.RatePerSecond {
		if len(k.limiters) >= keysKept {
			clear(k.limiters)
		}
		l = rate.NewLimiter(rate.Limit(key.RatePerSecond), key.RatePerSecond)
		k.limiters[key.ID] = l
	}
	return l
}

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
