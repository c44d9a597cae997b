package httpapi

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sendgate/sendgate/internal/record"
)

// failures counts, per client, acts that are allowed only perMinute times a minute, such as wrong keys. Its memory is bounded.
type failures[K comparable] struct {
	now       func() time.Time
	perMinute int // allowance; it may be used up at once

	mu      sync.Mutex
	clients map[K]*rate.Limiter
}

const failuresKept = 20_000

func newFailures[K comparable](now func() time.Time, perMinute int) *failures[K] {
	return &failures[K]{now: now, perMinute: perMinute, clients: map[K]*rate.Limiter{}}
}

// note counts a failure and returns how long the client should stay away, 0 if it is still within its allowance.
func (f *failures[K]) note(who K) time.Duration {
	now := f.now()
	reservation := f.client(who, now).ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

// over returns how long the client should stay away, 0 if its allowance permits one more failure. It counts nothing.
func (f *failures[K]) over(who K) time.Duration {
	f.mu.Lock()
	l := f.clients[who]
	f.mu.Unlock()
	if l == nil {
		return 0
	}
	missing := 1 - l.TokensAt(f.now())
	return max(0, time.Duration(missing*float64(time.Minute)/float64(f.perMinute)))
}

func (f *failures[K]) client(p K, now time.Time) *rate.Limiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.clients[p]
	if !ok {
		if len(f.clients) >= failuresKept {
			f.shrink(now)
		}
		l = rate.NewLimiter(rate.Every(time.Minute/time.Duration(f.perMinute)), f.perMinute)
		f.clients[p] = l
	}
	return l
}

// shrink forgets the clients that have their full allowance again or, if too many remain, all clients.
func (f *failures[K]) shrink(now time.Time) {
	for p, l := range f.clients {
		if l.TokensAt(now) >= float64(f.perMinute) {
			delete(f.clients, p)
		}
	}
	if len(f.clients) >= failuresKept {
		clear(f.clients)
	}
}

// logins counts failed attempts to log in, per address, for the audit. An address gets at most one entry a minute. Up to
// loginEntries addresses get their own; all others share one. So nobody can fill the audit, or push out an address that already
// has its entry for the minute.
type logins struct {
	mu  sync.Mutex
	now map[holder]*record.FailedLogins
}

const (
	loginEntries = 20 // per minute and replica
	loginMinute  = time.Minute
)

// others is the holder for all addresses without their own entry.
var others = holder{tenant: -1}

// note adds failed attempts to the entry of who, or to that of others.
func (l *logins) note(who holder, at time.Time, one record.FailedLogins) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		l.now = map[holder]*record.FailedLogins{}
	}
	f, from := l.now[who], who.net.String()
	if f == nil && len(l.now) >= loginEntries {
		who, from = others, "others"
		f = l.now[who]
	}
	if f == nil {
		f = &record.FailedLogins{From: from, Since: at.UTC().Truncate(time.Second)}
		l.now[who] = f
	}
	f.Keys, f.Passwords, f.Links = f.Keys+one.Keys, f.Passwords+one.Passwords, f.Links+one.Links
}

// FailedLogins returns and clears the counts once a minute has passed since the first attempt, or at once if all is set. The
// caller adds them to the store.
func (s *Server) FailedLogins(all bool) []record.FailedLogins {
	l := &s.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	due := all
	for _, f := range l.now {
		due = due || s.clock().Sub(f.Since) >= loginMinute
	}
	if !due {
		return nil
	}
	out := make([]record.FailedLogins, 0, len(l.now))
	for _, f := range l.now {
		out = append(out, *f)
	}
	l.now = nil
	return out
}
