package mail

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"
)

// hands are the two clocks of a host, which a test sets.
type hands struct {
	wall time.Time
	mono time.Duration
}

func (h *hands) clock() *Clock {
	return NewClock(func() time.Time { return h.wall }, func() time.Duration { return h.mono })
}

// pass lets time go by.
func (h *hands) pass(d time.Duration) { h.wall, h.mono = h.wall.Add(d), h.mono+d }

func TestClockGoesByTheDatabaseWhateverTheWallClockShows(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	h := &hands{wall: at.Add(40 * time.Second), mono: time.Hour}
	c := h.clock()
	if got := c.Now(); !got.Equal(h.wall) || c.Check() != nil {
		t.Errorf("before a reading: %s, %v, want the wall clock", got, c.Check())
	}
	c.Learn(at, h.mono-100*time.Millisecond, h.mono+100*time.Millisecond)
	if got := c.Now(); !got.Equal(at) {
		t.Errorf("after a reading: %s, want %s", got, at)
	}
	h.pass(time.Minute)
	h.wall = h.wall.Add(-400 * 24 * time.Hour) // somebody sets it
	if got := c.Now(); !got.Equal(at.Add(time.Minute)) {
		t.Errorf("after the wall clock was set: %s, want %s", got, at.Add(time.Minute))
	}
	if got := c.NewID().Time(); !got.Equal(at.Add(time.Minute)) {
		t.Errorf("id of %s, want %s", got, at.Add(time.Minute))
	}
}

func TestClockMovesOnlyAsFarAsAReadingProves(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	h := &hands{wall: at}
	c := h.clock()
	c.Learn(at, 0, 0)
	for _, tc := range []struct {
		name       string
		shows      time.Duration // of the database, after at
		asked, got time.Duration
		want       time.Duration // Now after at, at mono 10 s
	}{
		{"slow, but right", 9 * time.Second, 5 * time.Second, 10 * time.Second, 10 * time.Second},
		{"ahead", 12 * time.Second, 9 * time.Second, 10 * time.Second, 12 * time.Second},
		{"behind", 5 * time.Second, 9 * time.Second, 10 * time.Second, 6 * time.Second},
	} {
		h.mono = tc.got
		c.Learn(at.Add(tc.shows), tc.asked, tc.got)
		if got := c.Now().Sub(at); got != tc.want {
			t.Errorf("%s: %s after the first reading, want %s", tc.name, got, tc.want)
		}
	}
}

func TestClockCheckTellsWhichSideIsAhead(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for ahead, want := range map[time.Duration]string{
		0: "", time.Minute: "", -time.Minute: "",
		61 * time.Second:      "clock: this host is 1m1s ahead of the database, more than 1m0s: set both by NTP",
		-400 * 24 * time.Hour: "clock: this host is 9600h0m0s behind the database, more than 1m0s: set both by NTP",
	} {
		h := &hands{wall: at.Add(ahead)}
		c := h.clock()
		c.Learn(at, 0, 0)
		err := c.Check()
		if (err == nil) != (want == "") || err != nil && (err.Error() != want || !errors.Is(err, ErrClock)) {
			t.Errorf("%s ahead: %v, want %q", ahead, err, want)
		}
	}
}

func TestEarliestFollowsNoClockThatLeapsAhead(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	const leap = 400 * 24 * time.Hour
	for name, change := range map[string]func(*hands, *Clock){
		"wall clock": func(h *hands, _ *Clock) { h.wall = h.wall.Add(leap) },
		"database":   func(h *hands, c *Clock) { c.Learn(at.Add(leap), h.mono, h.mono) },
		"both":       func(h *hands, c *Clock) { h.wall = h.wall.Add(leap); c.Learn(at.Add(leap), h.mono, h.mono) },
	} {
		h := &hands{wall: at}
		c := h.clock()
		c.Learn(at, 0, 0)
		h.pass(time.Hour)
		change(h, c)
		if got := c.Earliest(); !got.Equal(at.Add(time.Hour)) {
			t.Errorf("%s leapt: %s, want %s", name, got, at.Add(time.Hour))
		}
	}
	h := &hands{wall: at.Add(-leap)}
	c := h.clock()
	c.Learn(at, 0, 0)
	if got := c.Earliest(); !got.Equal(h.wall) {
		t.Errorf("wall clock behind: %s, want %s", got, h.wall)
	}
}

func TestIDsOfOneClockIncrease(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	h := &hands{wall: at}
	c := h.clock()
	c.Learn(at, 0, 0)
	last := c.NewID()
	for i := range 20_000 {
		if i%100 == 0 {
			h.pass(time.Microsecond)
		}
		if i == 10_000 { // the database's clock is set back within the bound
			c.Learn(at.Add(-30*time.Second), h.mono, h.mono)
		}
		id := c.NewID()
		if bytes.Compare(id[:], last[:]) <= 0 || id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Fatalf("id %d: %s after %s", i, id, last)
		}
		last = id
	}
	if _, err := ParseID(last.String()); err != nil || last.Time().Sub(at).Abs() > time.Second {
		t.Errorf("%s is of %s, %v", last, last.Time(), err)
	}
	c.Learn(at.Add(9*time.Hour), h.mono, h.mono) // a clock that was wrong, and is corrected
	c.NewID()
	c.Learn(at.Add(time.Second), h.mono, h.mono)
	if got := c.NewID().Time(); !got.Equal(at.Add(time.Second)) {
		t.Errorf("id of %s after the correction, want %s", got, at.Add(time.Second))
	}
}

func TestIDsAreUniqueOverGoroutines(t *testing.T) {
	t.Parallel()
	c := NewClock(nil, nil)
	const workers, each = 8, 2000
	all := make([][]ID, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				all[w] = append(all[w], c.NewID())
			}
		})
	}
	wg.Wait()
	seen := map[ID]bool{}
	for _, ids := range all {
		for _, id := range ids {
			seen[id] = true
		}
	}
	if len(seen) != workers*each {
		t.Errorf("%d ids, want %d", len(seen), workers*each)
	}
}
