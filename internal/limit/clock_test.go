package limit

import (
	"testing"
	"time"
)

func TestJumpIsWhatTheTimeThatPassedDoesNotExplain(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	at, local := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), time.Now()
	last := Reading{At: at, Asked: local, Got: local.Add(4 * ms)}
	// the next question comes a minute after the last answer, and takes 6 ms
	next := func(went, ahead time.Duration) Reading {
		return Reading{At: at.Add(went), Ahead: ahead, Asked: local.Add(time.Minute + 4*ms), Got: local.Add(time.Minute + 10*ms)}
	}
	for name, c := range map[string]struct {
		went, ahead, want time.Duration
	}{
		"quick answer":               {time.Minute, 0, 0},
		"slow answer":                {time.Minute + 10*ms, 0, 0},
		"set forward":                {time.Minute + 5*time.Second, 0, 5 * time.Second},
		"set forward by little":      {time.Minute + 20*ms, 0, 20 * ms},
		"set back":                   {-time.Hour, 0, 0},
		"another noted it":           {time.Minute + time.Hour, time.Hour, 0},
		"another noted a part of it": {time.Minute + time.Hour, 40 * time.Minute, 20 * time.Minute},
	} {
		if got := last.Jump(next(c.went, c.ahead)); got != c.want {
			t.Errorf("%s: jump of %s, want %s", name, got, c.want)
		}
	}
}

func TestClockThatIsSetForwardRefillsNothing(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	acc := &Account{
		BlockedUntil: now.Add(time.Second),
		Ledgers:      []Ledger{{Window: Window{N: 2, Per: time.Minute, Unit: Requests}}},
	}
	acc.Settle(now, now, 1, false)
	acc.Settle(now, now, 1, false)
	acc.Forward(time.Hour)
	now = now.Add(time.Hour)
	if g := acc.Take(now, 1, time.Second); g.OK || g.Retry.Before(now.Add(time.Minute)) || g.Retry.After(now.Add(63*time.Second)) {
		t.Errorf("Take an hour later by the clock, at once by any other = %+v, want a retry after the window", g)
	}
	if got := acc.Used(now); got[0] != 2 {
		t.Errorf("used %d, want 2", got[0])
	}
	if want := now.Add(time.Second); !acc.BlockedUntil.Equal(want) {
		t.Errorf("blocked until %s, want %s: as long as before", acc.BlockedUntil, want)
	}
	later := now.Add(62 * time.Second)
	if g := acc.Take(later, 1, time.Second); !g.OK || !g.Slot.Equal(later) {
		t.Errorf("Take a window later = %+v, want a slot at once", g)
	}
}

func TestClockThatIsSetBackStopsNothing(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	acc := &Account{Ledgers: []Ledger{{Window: Window{N: 2, Per: time.Second, Unit: Requests}}}}
	for range 2 {
		if g := acc.Take(now, 1, time.Second); !g.OK {
			t.Fatalf("Take = %+v, want a grant", g)
		}
		acc.Open = Open{}
		acc.Settle(now, now, 1, false)
	}
	now = now.Add(-time.Hour)
	acc.Recall(now)
	if g := acc.Take(now, 1, 100*time.Millisecond); g.OK {
		t.Errorf("Take = %+v, want none: both calls may have arrived just now", g)
	}
	now = now.Add(3 * time.Second)
	if g := acc.Take(now, 1, 100*time.Millisecond); !g.OK {
		t.Errorf("Take three windows later = %+v, want a grant", g)
	}
}
