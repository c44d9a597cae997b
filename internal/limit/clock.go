package limit

import "time"

// If the database's clock is set forward, calls look older than they are: the windows would forget them and be filled
// twice. The database cannot notice such a jump, because it knows no other clock. A replica notices it if less time passed
// on its own clock between two readings. The first replica to notice adds the jump to Account.Ahead, where the others see
// it. The ledgers use the clock less Ahead, so for them it was not set.
//
// Two kinds of jumps stay unseen: one that is shorter than the two readings took, which Slack covers, and one before which
// no replica had read the clock. A replica whose own clock is slow sees small jumps where there are none. They cost nothing:
// the ledgers' time goes as slowly as that clock.

// Reading is one look at the database's clock, made while the state of an account was locked.
type Reading struct {
	At         time.Time     // what the clock showed
	Ahead      time.Duration // Account.Ahead
	Asked, Got time.Time     // on the replica's own monotonic clock: it showed At between the two
}

// jumpLeast is the least jump that is noted. It is below every Slack, and above what two clocks drift apart in seconds.
const jumpLeast = time.Millisecond

// Jump returns how far at most the database's clock was set forward between r and next, apart from what is noted already.
// It returns 0 if the time that passed may explain the whole difference.
func (r Reading) Jump(next Reading) time.Duration {
	went := next.At.Sub(r.At) - (next.Ahead - r.Ahead)
	if went-next.Got.Sub(r.Asked) < jumpLeast {
		return 0
	}
	return went - max(next.Asked.Sub(r.Got), 0)
}

// Forward notes that the database's clock was set forward by d.
func (a *Account) Forward(d time.Duration) {
	if d <= 0 {
		return
	}
	a.Ahead += d
	a.BlockedUntil = a.BlockedUntil.Add(d)
	a.Jumped = true
}

// Recall moves what is booked after now to now: the clock was set back since, and no call can have arrived later than now.
// Otherwise the account would send nothing until the clock has caught up.
func (a *Account) Recall(now time.Time) {
	now = now.Add(-a.Ahead)
	for i := range a.Ledgers {
		l := &a.Ledgers[i]
		if latest := now.Add(l.Window.Per + smoothing + time.Second); l.TAT.After(latest) {
			l.TAT, a.Changed = latest, true
		}
		last := now.UnixNano() / int64(l.Window.BinWidth())
		k, future := len(l.Bins), int64(0)
		for k > 0 && l.Bins[k-1].Number > last {
			k--
			future += l.Bins[k].Used
		}
		if future > 0 {
			l.Bins, a.Changed = l.Bins[:k], true
			l.charge(now, int(future))
		}
	}
}
