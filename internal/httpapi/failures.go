package httpapi

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
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

// clientPrefix returns the prefix that one host has: a single IPv4 address, or the /64 of an IPv6 host.
func clientPrefix(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() && !ip.Is4In6() {
		bits = 64
	}
	p, err := ip.Unmap().Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
