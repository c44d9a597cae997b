package limit

import (
	"slices"
	"time"
)

// Floor learns from the calls of one account how much may be subtracted from the end of a call to get its latest arrival. The
// zero value has seen none. It is not safe for concurrent use.
//
// The shortest call is the least way to the provider and the least way back together. If that much is subtracted, the first
// of two calls may be booked too early by its way to the provider at most. The second call needs that long for its own way,
// so the two still arrive as far apart as the window wants. But that is so only if some call took the least time both ways.
// On a machine with too much work no call does: it waits for a processor on one way or the other, by turns. How long such a
// wait is shows in how late calls begin, so the greatest lateness remains, and floorSpare always.
type Floor struct {
	last, this time.Duration // shortest calls
	calls      int           // in this span
	since      time.Time
	late       [64]time.Duration // of the last calls, by turns
	next       int
}

const (
	floorCalls = 20              // before so many calls were seen, nothing is subtracted
	floorAge   = 5 * time.Minute // a shortest call is forgotten after twice that
	// floorSpare also bounds how far replicas may be apart: together with the least Slack it allows for shortest calls that
	// differ by 22 ms. It costs up to 0.6 % of a window of a second.
	floorSpare = 6 * time.Millisecond
)

// Note counts a call that began late, as measured by its slot, and ended at now. It returns how much may be subtracted from its
// end.
func (f *Floor) Note(took, late time.Duration, now time.Time) time.Duration {
	if now.Sub(f.since) > floorAge {
		f.last, f.since = 0, now
		if f.calls >= floorCalls {
			f.last = f.this
		}
		f.this, f.calls = 0, 0
	}
	if f.calls == 0 || took < f.this {
		f.this = took
	}
	f.calls++
	f.late[f.next%len(f.late)] = max(late, 0)
	f.next++
	shortest := f.this
	switch {
	case f.last > 0:
		shortest = min(f.last, f.this)
	case f.calls < floorCalls:
		return 0
	}
	return min(max(shortest-slices.Max(f.late[:])-floorSpare, 0), took)
}
