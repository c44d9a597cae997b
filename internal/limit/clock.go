package limit

import "time"

// A clock that is set forward makes calls look older than they are: the windows would forget them and be filled twice.
// Nothing in the database shows such a jump, since all that it knows of time is that clock. What shows it is that a
// replica saw less time pass between two readings. The first to see it adds it to Account.Ahead, by which the others know,
// and the ledgers go by the clock less that: for them it was not set.
//
// Two jumps stay unseen: one that is shorter than the two readings took, which Slack bears, and one at a time when no
// replica had read the clock before. A replica whose own clock is slow sees small jumps that are none. They cost nothing:
// the ledgers' time goes as slowly as that clock.

// Reading is one look at the database's clock, made while the state of an account was locked.
type Reading struct {
	At         time.Time     // what the clock showed
	Ahead      time.Duration // Account.Ahead
	Asked, Got time.Time     // on the replica's own monotonic clock: it showed At between the two
}

// jumpLeast is the least jump that is worth noting. It is below every Slack, and above what two clocks drift apart in seconds.
const jumpLeast = time.Millisecond

// Jump returns by how much at most the database's clock was set forward between r and next, apart from what is noted
// already, and 0 if the time that passed may explain it all.
func (r Reading) Jump(next Reading) time.Duration {
	went := next.At.Sub(r.At) - (next.Ahead - r.Ahead)
	if went-next.Got.Sub(r.Asked) < jumpLeast {
		return 0
	}
	return went - max(next.Asked.Sub(r.Got), 0)
}

// Forward tells that the database's clock was set forward by d.
func (a *Account) Forward(d time.Duration) {
	if d <= 0 {
		return
	}
	a.Ahead += d
	a.BlockedUntil = a.BlockedUntil.Add(d)
	a.Jumped = true
}

// Recall brings what is booked after now, by a clock that was set back since, to now: no call can have arrived later. Else
// the account would stand still until the clock has caught up.
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
