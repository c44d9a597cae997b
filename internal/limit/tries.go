package limit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Tries counts, per client, acts that are allowed only so often, such as guesses of a key. A client may use up its allowance at
// once, and gets it back bit by bit. Its memory is bounded. It is safe for concurrent use.
type Tries[K comparable] struct {
	now   func() time.Time
	most  int           // the allowance
	every time.Duration // after which one more act is allowed

	mu      sync.Mutex
	clients map[K]*rate.Limiter
}

// TriesKept is how many clients a Tries remembers.
const TriesKept = 20_000

// NewTries allows each client most acts at once, and one more every so often.
func NewTries[K comparable](now func() time.Time, most int, every time.Duration) *Tries[K] {
	return &Tries[K]{now: now, most: most, every: every, clients: map[K]*rate.Limiter{}}
}

// Note counts an act and returns how long the client should stay away, 0 if it is still within its allowance.
func (t *Tries[K]) Note(who K) time.Duration {
	now := t.now()
	reservation := t.client(who, now).ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

// Over returns how long the client should stay away, 0 if its allowance permits one more act. It counts nothing.
func (t *Tries[K]) Over(who K) time.Duration {
	t.mu.Lock()
	l := t.clients[who]
	t.mu.Unlock()
	if l == nil {
		return 0
	}
	missing := 1 - l.TokensAt(t.now())
	return max(0, time.Duration(missing*float64(t.every)))
}

// Clients returns how many clients are remembered, at most TriesKept.
func (t *Tries[K]) Clients() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.clients)
}

func (t *Tries[K]) client(who K, now time.Time) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.clients[who]
	if !ok {
		if len(t.clients) >= TriesKept {
			t.shrink(now)
		}
		l = rate.NewLimiter(rate.Every(t.every), t.most)
		t.clients[who] = l
	}
	return l
}

// shrink forgets the clients that have their full allowance again or, if too many remain, all clients.
func (t *Tries[K]) shrink(now time.Time) {
	for who, l := range t.clients {
		if l.TokensAt(now) >= float64(t.most) {
			delete(t.clients, who)
		}
	}
	if len(t.clients) >= TriesKept {
		clear(t.clients)
	}
}
