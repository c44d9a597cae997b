package emulator

import (
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// Stats counts what came in for one provider since Start. Requests is the sum of the five ends, once all are answered.
type Stats struct {
	Requests  int64         `json:"requests"`  // send calls; for SMTP transactions, counted at MAIL
	Accepted  int64         `json:"accepted"`  // at least one message went into the ledger, whatever the answer was
	Rejected  int64         `json:"rejected"`  // answered with an error other than a throttle, or abandoned
	Throttled int64         `json:"throttled"` // 429, SMTP 450 4.7.1 or 421
	Tested    int64         `json:"tested"`    // accepted in a test mode: nobody is mailed
	Faulted   int64         `json:"faulted"`   // no answer, nothing accepted
	Windows   []WindowStats `json:"windows"`
	Lookups   int64         `json:"lookups"` // look-ups with a valid credential, whatever the answer was
	Hooks     HookStats     `json:"hooks"`
}

// WindowStats is one configured window and its counts.
type WindowStats struct {
	limit.Window     // per is in nanoseconds
	Used         int `json:"used"` // admitted in the window that ends now
	Peak         int `json:"peak"` // the highest count ever in one window, including refused requests
}

// Cost is what one call counts as, by unit.
type Cost struct{ Requests, Messages, Recipients int }

func (c Cost) in(u limit.Unit) int {
	switch u {
	case limit.Requests:
		return c.Requests
	case limit.Messages:
		return c.Messages
	case limit.Recipients:
		return c.Recipients
	}
	return 0
}

// End says how a call ended, for Stats.
type End int

// The ends of a call.
const (
	EndAccepted End = iota
	EndRejected
	EndThrottled
	EndTested
	EndFaulted
)

// meter counts one provider's calls and holds its windows. Each call reads the clock under the lock, so that the windows' hits
// are in order of time.
type meter struct {
	now     func() time.Time
	mu      sync.Mutex
	total   Stats
	windows []*window
}

// limit sets the windows.
func (m *meter) limit(windows []limit.Window) error {
	for _, w := range windows {
		if err := w.Validate(); err != nil {
			return err
		}
		m.windows = append(m.windows, &window{Window: w})
	}
	return nil
}

// Arrive counts a call that has begun.
func (m *meter) Arrive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total.Requests++
}

// look counts a look-up.
func (m *meter) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total.Lookups++
}

// Finish counts how a call ended.
func (m *meter) Finish(e End) {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := &m.total
	*[]*int64{&total.Accepted, &total.Rejected, &total.Throttled, &total.Tested, &total.Faulted}[e]++
}

// See counts an authenticated call for the peaks, whatever its result.
func (m *meter) See(c Cost) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, w := range m.windows {
		w.seen.add(now, w.Per, c.in(w.Unit))
		w.peak = max(w.peak, w.seen.sum)
	}
}

// Full is a window without room, and the time when it has room again.
type Full struct {
	limit.Window
	Until time.Time
}

// Admit charges all windows. If one has no room, it charges none and returns the one that has room last.
func (m *meter) Admit(c Cost) *Full {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var worst *Full
	for _, w := range m.windows {
		w.taken.expire(now, w.Per)
		if until := w.roomAt(now, c.in(w.Unit)); until.After(now) && (worst == nil || until.After(worst.Until)) {
			worst = &Full{w.Window, until}
		}
	}
	if worst != nil {
		return worst
	}
	for _, w := range m.windows {
		w.taken.add(now, w.Per, c.in(w.Unit))
	}
	return nil
}

// Tightest returns the window with the least room, its remaining room, and when it next gets more; nil without windows.
func (m *meter) Tightest() (w *Full, remaining int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, c := range m.windows {
		c.taken.expire(now, c.Per)
		if left := c.N - c.taken.sum; w == nil || left < remaining {
			w, remaining = &Full{c.Window, now}, left
			if len(c.taken.hits) > 0 {
				w.Until = c.taken.hits[0].at.Add(c.Per)
			}
		}
	}
	return w, remaining
}

func (m *meter) stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	s := m.total
	s.Windows = make([]WindowStats, 0, len(m.windows))
	for _, w := range m.windows {
		w.taken.expire(now, w.Per)
		s.Windows = append(s.Windows, WindowStats{Window: w.Window, Used: w.taken.sum, Peak: w.peak})
	}
	return s
}

// Stats returns the counts of each kind.
func (e *Emulator) Stats() map[string]Stats {
	all := map[string]Stats{}
	for _, h := range e.hosts {
		s := h.stats()
		s.Hooks = h.queue.snapshot()
		all[h.kind.Name] = s
	}
	return all
}

// window is one limit over the half-open span (now-Per, now].
type window struct {
	limit.Window
	taken track // admitted calls: these fill the window
	seen  track // all calls
	peak  int
}

// roomAt is the time when n more fit: now, or when enough of the oldest hits have expired. A charge larger than the whole window
// never fits; then the result is when the window is empty.
func (w *window) roomAt(now time.Time, n int) time.Time {
	over := w.taken.sum + n - w.N
	if over <= 0 {
		return now
	}
	at := now.Add(w.Per)
	for _, h := range w.taken.hits {
		at = h.at.Add(w.Per)
		if over -= h.n; over <= 0 {
			break
		}
	}
	return at
}

// track is a queue of charges in order of time.
type track struct {
	hits []hit
	sum  int
}

type hit struct {
	at time.Time
	n  int
}

func (t *track) add(now time.Time, per time.Duration, n int) {
	t.expire(now, per)
	if n > 0 {
		t.hits = append(t.hits, hit{now, n})
		t.sum += n
	}
}

// expire drops hits that are per or older. The memory stays in proportion to the window, because append copies only the rest when
// it grows.
func (t *track) expire(now time.Time, per time.Duration) {
	dead := 0
	for dead < len(t.hits) && now.Sub(t.hits[dead].at) >= per {
		t.sum -= t.hits[dead].n
		dead++
	}
	t.hits = t.hits[dead:]
}
