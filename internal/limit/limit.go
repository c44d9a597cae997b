// Package limit is the arithmetic of documented limits: "at most N per Per, in any sliding window, by all replicas
// together". It decides when the next call of an account may start. It does no I/O and reads no clock: the state comes
// from rows that the caller holds locked, and now is an argument, on the clock of the database.
//
// A provider counts a call when it arrives. We do not know when that is, only that it is between the start of the call
// and its answer. So a call counts as open from its claim to its answer, whatever the clock says. After that it counts in
// the bin of its latest possible arrival. A call may start if the open calls, the bins of the window before it (the oldest
// partial bin counted in full) and its own cost are at most N together. This assumes nothing about jitter, pauses or slow
// sockets: a late call is open for longer, and counts for longer.
//
// A token bucket of burst N would let up to 2N through in one window; so would a counter that is reset each period.
//
// A newcomer's likeliest mistake is to forget a call whose outcome is not known: it may have arrived, at any time until
// it was given up, so it is settled like any other.
package limit

import (
	"slices"
	"time"
)

// Slack stretches every window. It covers what open calls do not: replicas whose shortest times to the provider differ.
func (w Window) Slack() time.Duration {
	return min(max(w.Per/200, 5*time.Millisecond), 2*time.Second)
}

// smoothing is how far behind its even spacing a short window may catch up after a stall.
const smoothing = 200 * time.Millisecond

// openRetry is how long to wait before asking again while calls in flight fill a window.
const openRetry = 20 * time.Millisecond

// bins is how many bins a window is cut into. The use under demand is at least bins/(bins+1) of N.
func (w Window) bins() int64 {
	switch {
	case w.Per <= 10*time.Second:
		return 1000
	case w.Per <= time.Hour:
		return 120
	default:
		return 288
	}
}

// BinWidth is the width of one bin of the window.
func (w Window) BinWidth() time.Duration { return w.Per / time.Duration(w.bins()) }

// short windows are spaced evenly; long ones may be used up at once.
func (w Window) short() bool { return w.Per <= 10*time.Second }

// Bin holds the cost of the calls that ended in one bin. Its number counts bin widths since 1970.
type Bin struct {
	Number int64
	Used   int64
}

// Ledger is the state of one window: its bins in use, ascending. Without bins the window was never used.
type Ledger struct {
	Window Window
	Bins   []Bin
	TAT    time.Time // short windows: when the slots so far would be used up at an even pace
}

// earliest returns the first time at or after t at which a call of the given cost fits beside the open ones. It returns
// false if the call would not fit even without settled bins, so that only the end of open calls can make room.
func (l *Ledger) earliest(t time.Time, cost, open int) (time.Time, bool) {
	width, span := l.Window.BinWidth(), l.Window.Per+l.Window.Slack()
	floor := t.Add(-span).UnixNano() / int64(width)
	sum := int64(cost + open)
	i := len(l.Bins)
	for i > 0 && l.Bins[i-1].Number >= floor {
		i--
		sum += l.Bins[i].Used
	}
	for ; sum > int64(l.Window.N); i++ { // wait until the oldest bins have left the window
		if i == len(l.Bins) {
			return t, false
		}
		sum -= l.Bins[i].Used
		t = time.Unix(0, (l.Bins[i].Number+1)*int64(width)).Add(span)
	}
	return l.spaced(t), true
}

// spaced moves t of a short window up to its even spacing, less what may be caught up after a stall. This is the generic
// cell rate algorithm, for smoothness only. The count guards the limit.
func (l *Ledger) spaced(t time.Time) time.Time {
	if next := l.TAT.Add(-smoothing); l.Window.short() && next.After(t) {
		return next
	}
	return t
}

// pace notes a slot at t.
func (l *Ledger) pace(t time.Time, cost int) {
	if !l.Window.short() {
		return
	}
	if t.After(l.TAT) {
		l.TAT = t
	}
	l.TAT = l.TAT.Add(time.Duration(cost) * l.Window.Per / time.Duration(l.Window.N))
}

// charge books the cost of a call that arrived at t at the latest.
func (l *Ledger) charge(t time.Time, cost int) {
	n := t.UnixNano() / int64(l.Window.BinWidth())
	i, found := slices.BinarySearchFunc(l.Bins, n, func(b Bin, n int64) int { return int(b.Number - n) })
	if found {
		l.Bins[i].Used += int64(cost)
		return
	}
	l.Bins = slices.Insert(l.Bins, i, Bin{Number: n, Used: int64(cost)})
}

// prune forgets bins that can't matter any more at now.
func (l *Ledger) prune(now time.Time) {
	floor := now.Add(-l.Window.Per-l.Window.Slack()).UnixNano()/int64(l.Window.BinWidth()) - 1
	i := 0
	for i < len(l.Bins) && l.Bins[i].Number < floor {
		i++
	}
	l.Bins = l.Bins[i:]
}

// Used returns for each window the cost of the calls that ended in it before now.
func (a *Account) Used(now time.Time) []int {
	used := make([]int, len(a.Ledgers))
	for i := range a.Ledgers {
		used[i] = a.Ledgers[i].used(now.Add(-a.Ahead))
	}
	return used
}

func (l *Ledger) used(now time.Time) int {
	floor := now.Add(-l.Window.Per).UnixNano() / int64(l.Window.BinWidth())
	sum := int64(0)
	for _, b := range l.Bins {
		if b.Number >= floor {
			sum += b.Used
		}
	}
	return int(sum)
}

// Account is the limit state of one account: all its windows, its open calls, and a block that a provider's 429 set.
type Account struct {
	BlockedUntil time.Time
	Ledgers      []Ledger
	Open         Open
	Lag          time.Duration // how far the caller's now may be ahead of the clock
	Ahead        time.Duration // how far that clock was set forward so far, see Forward
	Changed      bool          // the ledgers must be written back
	Jumped       bool          // Ahead and BlockedUntil must be written back
}

// Spend books every window as used up at t, because the use before t is not known. It replaces what was booked up to t;
// what was booked later stays.
func (a *Account) Spend(t time.Time) {
	t = t.Add(-a.Ahead)
	for i := range a.Ledgers {
		l := &a.Ledgers[i]
		n := t.UnixNano() / int64(l.Window.BinWidth())
		later := slices.DeleteFunc(l.Bins, func(b Bin) bool { return b.Number <= n })
		l.Bins = slices.Insert(later, 0, Bin{Number: n, Used: int64(l.Window.N)})
		a.Changed = true
	}
}

// Open counts the calls that are claimed and not settled, of all replicas, with their messages and recipients.
type Open struct {
	Calls, Messages, Recipients int
}

// In returns the open cost in a window's unit.
func (o Open) In(w Window) int {
	switch w.Unit {
	case Recipients:
		return o.Recipients
	case Messages:
		return o.Messages
	case Requests:
	}
	return o.Calls
}

// Grant is the answer to Take.
type Grant struct {
	OK    bool
	Slot  time.Time // when OK: when the call may start by the caller's reading of the clock, Lag included; later is safe
	Retry time.Time // when not OK: the earliest time worth asking again; zero: this cost never fits a window
	Calls bool      // when not OK: open calls fill a window, and Retry is a guess
}

// Take opens one call with the given number of recipients, at the earliest common slot of all windows at or after now.
// A slot beyond now+horizon is not taken: slots far ahead would bind mail to an account for too long.
func (a *Account) Take(now time.Time, recipients int, horizon time.Duration) Grant {
	grant := a.take(now.Add(-a.Ahead), recipients, horizon)
	if !grant.Slot.IsZero() {
		grant.Slot = grant.Slot.Add(a.Ahead + a.Lag)
	}
	if !grant.Retry.IsZero() {
		grant.Retry = grant.Retry.Add(a.Ahead)
	}
	return grant
}

// take is Take in the ledgers' time.
func (a *Account) take(now time.Time, recipients int, horizon time.Duration) Grant {
	slot := now
	if until := a.BlockedUntil.Add(-a.Ahead); until.After(slot) {
		slot = until
	}
	for moved := true; moved; {
		moved = false
		for i := range a.Ledgers {
			l := &a.Ledgers[i]
			cost := l.Window.Cost(recipients)
			if cost > l.Window.N {
				return Grant{}
			}
			t, ok := l.earliest(slot, cost, a.Open.In(l.Window))
			if !ok {
				return Grant{Retry: now.Add(openRetry), Calls: true}
			}
			if t.After(slot) {
				slot, moved = t, true
			}
		}
	}
	if slot.After(now.Add(horizon)) {
		return Grant{Retry: slot}
	}
	for i := range a.Ledgers {
		l := &a.Ledgers[i]
		l.pace(slot, l.Window.Cost(recipients))
		a.Changed = a.Changed || l.Window.short()
	}
	a.Open.Calls++
	a.Open.Messages++
	a.Open.Recipients += recipients
	return Grant{OK: true, Slot: slot}
}

// Join adds a message to a call that Take has just opened for a slot. It costs no request. Join reports whether the other
// windows have room for the message by then.
func (a *Account) Join(slot time.Time, recipients int) bool {
	slot = slot.Add(-a.Ahead - a.Lag)
	for i := range a.Ledgers {
		l := &a.Ledgers[i]
		if l.Window.Unit == Requests {
			continue
		}
		if t, ok := l.earliest(slot, l.Window.Cost(recipients), a.Open.In(l.Window)); !ok || t.After(slot) {
			return false
		}
	}
	for i := range a.Ledgers {
		if l := &a.Ledgers[i]; l.Window.Unit != Requests {
			l.pace(slot, l.Window.Cost(recipients))
			a.Changed = a.Changed || l.Window.short()
		}
	}
	a.Open.Messages++
	a.Open.Recipients += recipients
	return true
}

// Settle books a message whose call is no longer open: it arrived at t at the latest. A message that joined its call costs no
// request.
func (a *Account) Settle(now, t time.Time, recipients int, joined bool) {
	now, t = now.Add(-a.Ahead), t.Add(-a.Ahead)
	for i := range a.Ledgers {
		l := &a.Ledgers[i]
		l.prune(now.Add(-a.Lag))
		if l.Window.Unit != Requests || !joined {
			l.charge(t, l.Window.Cost(recipients))
		}
		a.Changed = true
	}
}
