package httpapi

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// failures counts requests with wrong keys, or others that are bounded, per client: a single IPv4 address, or the /64
// that one IPv6 host has to itself. Its memory is bounded.
type failures struct {
	now       func() time.Time
	perMinute int // allowance, which may be used up at once

	mu      sync.Mutex
	clients map[netip.Prefix]*rate.Limiter
}

const (
	failuresPerMinute = 20
	failuresKept      = 20_000
)

func newFailures(now func() time.Time, perMinute int) *failures {
	return &failures{now: now, perMinute: perMinute, clients: map[netip.Prefix]*rate.Limiter{}}
}

// failed notes a failure and returns how long the client should stay away, 0 when it is still within its allowance.
func (k *keyring) failed(ip netip.Addr) time.Duration { return k.failures.note(ip) }

func (f *failures) note(ip netip.Addr) time.Duration {
	now := f.now()
	reservation := f.client(clientPrefix(ip), now).ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

func (f *failures) client(p netip.Prefix, now time.Time) *rate.Limiter {
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

// shrink forgets the clients that have their whole allowance again, and if that is not enough, all of them.
func (f *failures) shrink(now time.Time) {
	for p, l := range f.clients {
		if l.TokensAt(now) >= float64(f.perMinute) {
			delete(f.clients, p)
		}
	}
	if len(f.clients) >= failuresKept {
		clear(f.clients)
	}
}

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
