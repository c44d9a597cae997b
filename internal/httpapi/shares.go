package httpapi

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// holder is whose share a place counts against: the network of an address as long as we know no more of who is there, or a
// tenant. The zero holder is nobody in particular, and bounded by the pool alone.
type holder struct {
	net    netip.Prefix
	tenant mail.TenantID
}

// pool shares out so many places, or bytes, of one thing that there is not enough of for everybody. A holder may take a
// further place only while it then has no more than it leaves free: one alone gets half, two get a third each, and whoever
// comes next still finds something. Its first place is bound by what is free alone.
//
// What keeps us waiting for its client, for a body or for the next request, gives way to others when its patience is over:
// patience seconds without a byte, or a flow of less than slowest.
//
// A pool is safe for concurrent use. Its memory is bounded by its size.
type pool struct {
	size, most int64 // most is a further bound of one holder; 0 for none

	mu      sync.Mutex
	taken   int64
	held    map[holder]int64
	waiting []*waiter       // for a place, in their order
	slow    map[*place]bool // that wait for their clients
}

// What a client has to send to keep its place when others want one. Nobody is hurried while there is room.
const (
	patience = 2 * time.Second
	slowest  = 32 << 10 // bytes per second
)

func newPool(size, most int64) *pool {
	return &pool{size: size, most: most, held: map[holder]int64{}, slow: map[*place]bool{}}
}

// place is what one request, or one connection, has of a pool. Its fields belong to the pool's lock.
type place struct {
	pool  *pool
	who   holder
	n     int64         // how much
	cut   func()        // ends the waiting for the client; nil: there is none
	since time.Time     // since when we wait for the client, zero: we do not
	left  time.Duration // of the patience
	read  int64         // bytes of the body
	gone  bool          // it was given to others
}

type waiter struct {
	place *place
	ready chan struct{}
}

// take gives a place, or nil when the holder has its share or there is nothing left. With cut, the place may be taken away
// again while it waits for the client.
func (p *pool) take(who holder, n int64, cut func()) *place {
	x := &place{pool: p, who: who, cut: cut, left: patience}
	if !x.grow(n) {
		return nil
	}
	return x
}

// of tells how much a holder has.
func (p *pool) of(who holder) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[who]
}

// wait gives a place once there is one, first come, first served among those whose share allows it; nil when ctx ends before.
// Cut is that of take.
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
	if i < 0 { // it came at the last moment
		return w.place
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	return nil
}

// admit gives what is free to those who wait.
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

// fits reports whether a place may have so much more.
func (p *pool) fits(x *place, more int64) bool {
	free, all := p.size-p.taken-more, p.held[x.who]+more
	switch {
	case free < 0 || p.most > 0 && all > p.most:
		return false
	case more == 0 || x.who == (holder{}) || p.held[x.who] == x.n: // or nobody's share, or its holder has nothing beside it
		return true
	}
	return all <= free
}

// add gives a place so much more, or less.
func (p *pool) add(x *place, more int64) {
	x.n += more
	p.taken += more
	if p.held[x.who] += more; p.held[x.who] == 0 {
		delete(p.held, x.who)
	}
}

// grow reports whether the place got so much more. For that others may lose theirs, whose patience is over.
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

// overdue finds whose place is to be given to another: of those whose patience is over one of the holder that has most, and
// of that one's the longest overdue. Where only its share keeps a holder out, one of its own.
func (p *pool) overdue(who holder, own bool, now time.Time) *place {
	var worst *place
	for x := range p.slow {
		if x.n == 0 || now.Sub(x.since) < x.left || own && x.who != who {
			continue
		}
		if own {
			return x // whichever it is
		}
		if worst == nil || p.held[x.who] > p.held[worst.who] ||
			p.held[x.who] == p.held[worst.who] && now.Sub(x.since)-x.left > now.Sub(worst.since)-worst.left {
			worst = x
		}
	}
	return worst
}

// drop takes a place away from one who waits for its client.
func (p *pool) drop(x *place) {
	x.gone = true
	p.add(x, -x.n)
	delete(p.slow, x)
	x.cut()
}

// release gives a place back. A second call does nothing, and so does one for no place.
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

// heard notes that n bytes of the client have come. It reports false when the place was lost meanwhile.
func (x *place) heard(n int) bool {
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	delete(x.pool.slow, x)
	x.read += int64(n)
	x.left = min(patience, x.left-time.Since(x.since)+time.Duration(n)*time.Second/slowest)
	return !x.gone
}

// paced reads a body from a place, which is lost to others when it comes too slowly.
type paced struct {
	*place
	from io.Reader
}

// Read implements io.Reader. When the place is lost, it says so as if there had been none.
func (b paced) Read(p []byte) (int, error) {
	b.awaits()
	n, err := b.from.Read(p)
	if !b.heard(n) {
		return 0, errBusy
	}
	return n, err
}

// network gives the holder that an address belongs to: itself, or the /64 that one IPv6 host has to itself.
func network(ip netip.Addr) holder { return holder{net: clientPrefix(ip)} }
