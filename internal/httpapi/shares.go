package httpapi

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// holder is the party whose share a place counts against: a tenant, or the network of the client's address while the tenant
// is not known. The zero holder is nobody in particular; only the pool's size bounds it.
type holder struct {
	net    netip.Prefix
	tenant mail.TenantID
}

// pool shares out a fixed number of places, or bytes, of one scarce resource. A holder may take a further place only if it
// then has no more than it leaves free: one holder alone gets half, two get a third each, and a newcomer still finds
// something. Its first place only has to be free.
//
// A place that waits for its client (for a body or the next request) can be given to others when its patience is over: after
// patience without a byte, or with a flow below slowest.
//
// A pool is safe for concurrent use. Its memory is bounded by its size.
type pool struct {
	size, most int64 // most is a further bound of one holder; 0 for none

	mu      sync.Mutex
	taken   int64
	held    map[holder]int64
	waiting []*waiter       // for a place, in order of arrival
	slow    map[*place]bool // places that wait for their clients
}

// A client must send this fast to keep its place when others want one. While there is room, no client has to hurry.
const (
	patience = 2 * time.Second
	slowest  = 32 << 10 // bytes per second
)

func newPool(size, most int64) *pool {
	return &pool{size: size, most: most, held: map[holder]int64{}, slow: map[*place]bool{}}
}

// place is the part of a pool that one request, or one connection, holds. The pool's lock guards its fields.
type place struct {
	pool  *pool
	who   holder
	n     int64         // how much
	cut   func()        // ends the wait for the client; nil: the place can't be taken away
	since time.Time     // start of the last wait for the client
	left  time.Duration // rest of the patience
	read  int64         // bytes of the body
	gone  bool          // released, or given to others
}

type waiter struct {
	place *place
	ready chan struct{}
}

// take gives a place of size n, or nil when the holder has its share or nothing is left. With cut, the place may be taken away
// again while it waits for the client.
func (p *pool) take(who holder, n int64, cut func()) *place {
	x := &place{pool: p, who: who, cut: cut, left: patience}
	if !x.grow(n) {
		return nil
	}
	return x
}

// of returns how much a holder has.
func (p *pool) of(who holder) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[who]
}

// wait waits for a place, first come, first served among those whose share allows it. It returns nil when ctx ends first. cut
// is as in take.
func (p *pool) wait(ctx context.Context, who holder, cut func()) *place {
	w := &waiter{&place{pool: p, who: who, cut: cut, left: patience}, make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	p.admit()
	p.mu.Unlock()
	select {
	case <-w.ready:
		return w.place
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.waiting, w)
	if i < 0 { // the place came at the last moment
		return w.place
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	return nil
}

// admit gives the free places to those who wait.
func (p *pool) admit() {
	p.waiting = slices.DeleteFunc(p.waiting, func(w *waiter) bool {
		if !p.fits(w.place, 1) {
			return false
		}
		p.add(w.place, 1)
		close(w.ready)
		return true
	})
}

// fits reports whether a place may grow by more.
func (p *pool) fits(x *place, more int64) bool {
	free, all := p.size-p.taken-more, p.held[x.who]+more
	switch {
	case free < 0 || p.most > 0 && all > p.most:
		return false
	case more == 0 || x.who == (holder{}) || p.held[x.who] == x.n: // the holder is nobody, or has no other place
		return true
	}
	return all <= free
}

// add changes the size of a place by more, which may be negative.
func (p *pool) add(x *place, more int64) {
	x.n += more
	p.taken += more
	if p.held[x.who] += more; p.held[x.who] == 0 {
		delete(p.held, x.who)
	}
}

// grow enlarges the place by more and reports whether it could. Places whose patience is over may be taken away for it.
func (x *place) grow(more int64) bool {
	p := x.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for now := time.Now(); !p.fits(x, more); {
		victim := p.overdue(x.who, p.size-p.taken >= more, now)
		if victim == nil || victim == x {
			return false
		}
		p.drop(victim)
	}
	p.add(x, more)
	return true
}

// overdue picks the place to take away, among those whose patience is over: the longest overdue one of the holder that has
// most. With own (only its share keeps who out), it picks any of who's own places.
func (p *pool) overdue(who holder, own bool, now time.Time) *place {
	var worst *place
	for x := range p.slow {
		if x.n == 0 || now.Sub(x.since) < x.left || own && x.who != who {
			continue
		}
		if own {
			return x // any of them will do
		}
		if worst == nil || p.held[x.who] > p.held[worst.who] ||
			p.held[x.who] == p.held[worst.who] && now.Sub(x.since)-x.left > now.Sub(worst.since)-worst.left {
			worst = x
		}
	}
	return worst
}

// drop takes away a place that waits for its client.
func (p *pool) drop(x *place) {
	x.gone = true
	p.add(x, -x.n)
	delete(p.slow, x)
	x.cut()
}

// release gives a place back. A second call does nothing, nor does a call on nil.
func (x *place) release() {
	if x == nil {
		return
	}
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	x.gone = true
	x.pool.add(x, -x.n)
	delete(x.pool.slow, x)
	x.pool.admit()
}

// awaits notes that we wait for the client from now on.
func (x *place) awaits() {
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	if !x.gone && x.cut != nil {
		x.since = time.Now()
		x.pool.slow[x] = true
	}
}

// heard notes that n bytes have come from the client. It returns false if the place was lost meanwhile.
func (x *place) heard(n int) bool {
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	delete(x.pool.slow, x)
	x.read += int64(n)
	x.left = min(patience, x.left-time.Since(x.since)+time.Duration(n)*time.Second/slowest)
	return !x.gone
}

// paced reads a body that holds a place. A body that comes too slowly can lose the place to others.
type paced struct {
	*place
	from io.Reader
}

// Read implements io.Reader. When the place is lost, the error is errBusy, as if there had been no place.
func (b paced) Read(p []byte) (int, error) {
	b.awaits()
	n, err := b.from.Read(p)
	if !b.heard(n) {
		return 0, errBusy
	}
	return n, err
}

// network returns the holder of an address: the address itself, or its /64 for IPv6, since one host has a whole /64.
func network(ip netip.Addr) holder {
	bits := 32
	if ip.Is6() && !ip.Is4In6() {
		bits = 64
	}
	prefix, _ := ip.Unmap().Prefix(bits) // the zero prefix for an address that could not be read
	return holder{net: prefix}
}

// DefaultBodyBudget is how many bytes of large bodies one process holds at a time. Until its commit a message is in memory
// about four times: as JSON, decoded, composed and encoded.
const DefaultBodyBudget = 40 << 20

// freeBody is the part of every body, in bytes, that the budget does not count, so that ordinary mail is not refused because
// others send large attachments. The number of connections bounds the sum of these parts.
const freeBody = 64 << 10

// budget bounds the memory for request bodies and gives each tenant its share.
type budget struct{ *pool }

// share is the part of the budget that one request holds, from the reading of its body to the end of its handler.
type share struct{ paced }

// share takes a place for a body before any of it is read. So of many large bodies, those that fit are read to their end and
// the others are refused at once; otherwise all might run out of room half-way. announced is -1 if the length is not known.
// cut ends the reading of a body that stalls, so that others get its place.
func (b budget) share(who holder, body io.Reader, announced int64, cut func()) (*share, error) {
	x := b.take(who, max(0, announced-freeBody), cut)
	if x == nil {
		return nil, errBusy
	}
	return &share{paced{x, body}}, nil
}

var errBusy = &record.Unavailable{Reason: "busy", RetryAfter: 2 * time.Second}

// Read takes more from the budget when the body outgrows its place. When nothing is left it gives up at once: waiting would
// keep the memory of the part that was read.
func (s *share) Read(p []byte) (int, error) {
	n, err := s.paced.Read(p)
	if n == 0 {
		return 0, err
	}
	if more := s.read - freeBody - s.n; more > 0 && !s.grow(more) {
		return 0, errBusy
	}
	return n, err
}
