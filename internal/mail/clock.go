package mail

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ClockBound is how far this host's clock and the database's may be apart. Beyond it one of them is wrong, and nobody knows
// which. Then nothing is accepted: a message with a wrong date is in the wrong place of every list.
const ClockBound = time.Minute

// ErrClock says that the two clocks are further apart than ClockBound.
var ErrClock = errors.New("clock")

// Clock gives the database's time, which all replicas use to date what they keep. Between two readings it follows the
// monotonic clock of this process, so that setting the wall clock changes nothing. Before the first reading it is the
// wall clock. A Clock is safe for concurrent use.
type Clock struct {
	wall func() time.Time
	mono func() time.Duration

	mu     sync.Mutex
	known  bool
	offset time.Duration // the database's time since 1970 less mono
	first  time.Duration // offset by the first reading
	last   int64         // ticks of the last id
}

// NewClock returns a clock over a wall clock and a monotonic one. Nil means those of this host.
func NewClock(wall func() time.Time, mono func() time.Duration) *Clock {
	if wall == nil {
		wall = time.Now
	}
	if mono == nil {
		start := time.Now()
		mono = func() time.Duration { return time.Since(start) }
	}
	return &Clock{wall: wall, mono: mono}
}

// Mono returns the monotonic time. Learn takes it for the moments before and after a reading.
func (c *Clock) Mono() time.Duration { return c.mono() }

// Learn takes a reading: the database's clock showed at between asked and got. The offset moves only as far as the reading
// proves it wrong, so that a slow reading does no harm.
func (c *Clock) Learn(at time.Time, asked, got time.Duration) {
	since := time.Duration(at.UnixNano())
	least, most := since-got, since-asked
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		c.known, c.offset = true, least+(most-least)/2
		c.first = c.offset
	}
	c.offset = min(max(c.offset, least), most)
}

// Now returns the database's time, in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Clock) now() time.Time {
	if !c.known {
		return c.wall().UTC()
	}
	return time.Unix(0, int64(c.offset+c.mono())).UTC()
}

// Earliest returns the earliest time by any of three clocks: the wall clock, the database's, and the first reading of the
// database's plus the time that passed since. Deletion by age uses it, so that a clock that jumps ahead deletes nothing too
// early.
func (c *Clock) Earliest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	earliest := c.now()
	if wall := c.wall(); wall.Before(earliest) {
		earliest = wall
	}
	if steady := time.Unix(0, int64(c.first+c.mono())); c.known && steady.Before(earliest) {
		earliest = steady
	}
	return earliest.UTC()
}

// Ahead returns how far the wall clock is ahead of the database's; it is negative if the wall clock is behind.
func (c *Clock) Ahead() time.Duration { return c.wall().Round(0).Sub(c.Now()) }

// Check returns an ErrClock that says which clock is ahead while the clocks are further apart than ClockBound.
func (c *Clock) Check() error {
	ahead := c.Ahead()
	if ahead.Abs() <= ClockBound {
		return nil
	}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	return fmt.Errorf("%w: this host is %s %s the database, more than %s: set both by NTP",
		ErrClock, ahead.Abs().Round(time.Second), side, ClockBound)
}

// ticksPerMilli is the resolution of the time in an id: 12 bits below the millisecond (RFC 9562 section 6.2, method 3).
const ticksPerMilli = 1 << 12

// NewID makes the id of something that happens now. Ids of one clock are strictly increasing, unless the clock was corrected
// by more than ClockBound: then nothing with the earlier ids was kept.
func (c *Clock) NewID() ID {
	var id ID
	_, _ = rand.Read(id[8:]) // never fails
	c.mu.Lock()
	now := c.now().UnixNano()
	tick := now/1e6*ticksPerMilli + now%1e6*ticksPerMilli/1e6
	if tick <= c.last && c.last-tick < ClockBound.Milliseconds()*ticksPerMilli {
		tick = c.last + 1
	}
	c.last = tick
	c.mu.Unlock()
	binary.BigEndian.PutUint64(id[:8], uint64(tick/ticksPerMilli)<<16|0x7000|uint64(tick%ticksPerMilli)) //nolint:gosec // after 1970
	id[8] = id[8]&0x3f | 0x80
	return id
}
