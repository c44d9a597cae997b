package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/sendgate/sendgate/internal/mail"
)

// may opens a route to keys that have the scope, or one of the others.
func (s *Server) may(scope mail.Scope, h handlerFunc, others ...mail.Scope) http.HandlerFunc {
	return s.handle(func(w http.ResponseWriter, r *http.Request) error {
		key, err := s.authenticate(r)
		if err != nil {
			return err
		}
		if !key.May(scope) && !slices.ContainsFunc(others, key.May) {
			return errScopeMissing(scope)
		}
		if err := s.keys.spend(key); err != nil {
			return err
		}
		s.touches.touch(key.ID) //nolint:contextcheck // outlives the request
		return h(w, r.WithContext(context.WithValue(r.Context(), principalKey, key)))
	})
}

// errScopeMissing names the scope that the key lacks, in the words of RFC 6750 section 3.1 as well.
func errScopeMissing(scope mail.Scope) error {
	e := refuse(http.StatusForbidden, "scope_missing", "This key lacks the scope "+string(scope)+".")
	e.header = http.Header{"Www-Authenticate": {`Bearer realm="sendgate", error="insufficient_scope", scope="` + string(scope) + `"`}}
	return e
}

// sends opens a route by which mail is accepted: not to paused tenants, and not while the server drains.
func (s *Server) sends(h handlerFunc) http.HandlerFunc {
	return s.may(mail.ScopeSend, func(w http.ResponseWriter, r *http.Request) error {
		switch {
		case principal(r).TenantPaused:
			return refuse(http.StatusForbidden, "tenant_paused", "This tenant is paused. Nothing was stored.")
		case s.draining():
			return &mail.Unavailable{Reason: "draining", RetryAfter: time.Second}
		}
		return h(w, r)
	})
}

// principal returns the key that opened the request. It panics outside of may, which is a mistake in routes.go.
func principal(r *http.Request) *mail.Key {
	return r.Context().Value(principalKey).(*mail.Key) //nolint:errcheck,forcetypeassert // see above
}

// authenticate finds the key of a request. Whatever is wrong with it, the answer is the same, so that it tells nothing
// about which keys exist. Failures are counted per client address, but a good key is never held back by them:
// otherwise anyone could lock it out.
func (s *Server) authenticate(r *http.Request) (*mail.Key, error) {
	key, err := s.verify(r)
	if err == nil || !errors.Is(err, errUnauthorized) {
		return key, err
	}
	if wait := s.keys.failed(s.clientIP(r)); wait > 0 {
		e := refuse(http.StatusTooManyRequests, "too_many_failures", "Too many requests with a wrong key.")
		e.retryAfter = wait
		return nil, e
	}
	e := refuse(http.StatusUnauthorized, "unauthorized", "A valid API key is needed: Authorization: Bearer <key>.")
	e.header = http.Header{"Www-Authenticate": {`Bearer realm="sendgate"`}}
	e.cause = err
	return nil, e
}

var errUnauthorized = errors.New("unauthorized")

// verify compares the presented key with the stored one. An unknown id is compared too, with a hash that matches
// nothing, so that it takes as long as a wrong secret.
func (s *Server) verify(r *http.Request) (*mail.Key, error) {
	token, ok := bearer(r)
	if !ok {
		return nil, errUnauthorized
	}
	id, hash, err := ParseKey(token)
	if err != nil {
		return nil, errUnauthorized
	}
	key, err := s.keys.byID(r.Context(), id)
	if err != nil {
		return nil, err
	}
	stored := make([]byte, sha256.Size)
	if key != nil {
		stored = key.Hash
	}
	same := subtle.ConstantTimeCompare(hash, stored) == 1
	if key == nil || !same || !valid(key, s.clock()) {
		return nil, errUnauthorized
	}
	return key, nil
}

// valid reports whether the key is neither revoked nor expired.
func valid(k *mail.Key, now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

// bearer reads the one place where a key may stand (RFC 6750 section 2.1). Keys in the query or in a cookie are not
// looked at: they would end up in logs, or be sent by a browser that was tricked.
func bearer(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// keyring keeps keys for a moment, so that the database is not asked on every request. Unknown ids are kept as well.
// Its memory is bounded. A revoked key stops within keyTTL on every replica.
type keyring struct {
	store    Store
	now      func() time.Time
	wait     time.Duration      // for the database
	lookups  singleflight.Group // by key id
	failures *failures

	mu       sync.Mutex
	entries  map[string]keyEntry
	limiters map[string]*rate.Limiter
}

type keyEntry struct {
	key   *mail.Key // nil: there is no such key
	until time.Time
}

const (
	keyTTL   = time.Second
	keyPause = 100 * time.Millisecond // before a database that is away is asked again
	keysKept = 10_000
)

func newKeyring(store Store, now func() time.Time, wait time.Duration) *keyring {
	return &keyring{
		store: store, now: now, wait: wait, failures: newFailures(now, failuresPerMinute),
		entries: map[string]keyEntry{}, limiters: map[string]*rate.Limiter{},
	}
}

// byID returns the key of that id, nil when there is none, or an error when the store can't tell in time. Whoever sends mail
// waits as long for the key as for the commit: a moment without the database refuses nobody.
func (k *keyring) byID(ctx context.Context, id string) (*mail.Key, error) {
	now := k.now()
	k.mu.Lock()
	e, ok := k.entries[id]
	k.mu.Unlock()
	if ok && now.Before(e.until) {
		return e.key, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.wait)
	defer cancel()
	for {
		key, err := k.lookUp(ctx, id)
		if _, away := errors.AsType[*mail.Unavailable](err); !away || !wait(ctx, keyPause) {
			return key, err
		}
	}
}

// lookUp asks the store once, together with others who want to know.
func (k *keyring) lookUp(ctx context.Context, id string) (*mail.Key, error) {
	read := k.lookups.DoChan(id, func() (any, error) { return k.read(ctx, id) })
	select {
	case found := <-read:
		key, _ := found.Val.(*mail.Key)
		return key, found.Err
	case <-ctx.Done():
		return nil, &mail.Unavailable{Reason: "database", RetryAfter: time.Second, Err: ctx.Err()}
	}
}

// read asks the store, for all requests that wait for this key, and keeps the answer.
func (k *keyring) read(ctx context.Context, id string) (*mail.Key, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.wait) // longer than the one who asked first
	defer cancel()
	key, err := k.store.KeyByID(ctx, id)
	switch {
	case errors.Is(err, mail.ErrNotFound):
		key = nil
	case err != nil:
		return nil, err
	}
	k.keep(id, keyEntry{key: key, until: k.now().Add(keyTTL)})
	return key, nil
}

// keep stores an entry. When the ring is full, what is over is thrown out first, then anything.
func (k *keyring) keep(id string, e keyEntry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.entries) >= keysKept {
		now := k.now()
		for old, entry := range k.entries {
			if !now.Before(entry.until) {
				delete(k.entries, old)
			}
		}
		for old := range k.entries {
			if len(k.entries) < keysKept*9/10 {
				break
			}
			delete(k.entries, old)
		}
	}
	k.entries[id] = e
}

// forget drops a key that was just created or revoked here.
func (k *keyring) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, id)
}

// spend takes one request from the key's own rate, which is counted by this replica alone. A batch is one request.
func (k *keyring) spend(key *mail.Key) error {
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
	e := refuse(http.StatusTooManyRequests, "rate_limited", "This key is over its rate of requests per second.")
	e.retryAfter = max(wait, time.Second)
	return e
}

func (k *keyring) limiter(key *mail.Key) *rate.Limiter {
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
