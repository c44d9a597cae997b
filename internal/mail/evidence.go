package mail

import (
	"bytes"
	"slices"
	"time"
)

// Evidence is what events say about one recipient. It is folded by Max, which is commutative, associative and idempotent:
// events may come in any order and any number, before our own result or after it, and lead to one state.
type Evidence struct {
	Rank   int // 0: no event said anything
	At     time.Time
	Key    ID // of the event's content
	Status Status
	Bounce *Bounce
}

// The ranks: a later stage outranks an earlier one, and a bounce after a delivery (they come days later) outranks it.
// A message that was opened counts as delivered, unless another event says more.
const (
	rankAccepted = iota + 1
	rankDeferred
	rankOpened
	rankDelivered
	rankEnded
	rankComplained

	// A message is rejected before any host is asked to take it. If a recipient has both a rejection and a delivery, there
	// were two calls, and the delivery counts.
	rankRejected = rankOpened
)

// Evidence says what the event is worth as evidence about its recipient; its Rank is 0 when it changes nothing.
func (e *Event) Evidence(key ID) Evidence {
	v := Evidence{At: e.At, Key: key, Bounce: e.Bounce}
	switch e.Type {
	case EventAccepted:
		v.Rank, v.Status = rankAccepted, Sent
	case EventDeferred:
		v.Rank, v.Status = rankDeferred, Deferred
	case EventOpened, EventClicked:
		v.Rank, v.Status = rankOpened, Delivered
	case EventDelivered:
		v.Rank, v.Status = rankDelivered, Delivered
	case EventBounced:
		v.Rank, v.Status = rankEnded, Bounced
	case EventRejected:
		v.Rank, v.Status = rankRejected, rejectedStatus(e.Bounce)
	case EventComplained:
		v.Rank, v.Status = rankComplained, Complained
	case EventUnmapped, EventUnsubscribed, EventFailedUnknown, EventEndpointDisabled:
	}
	return v
}

// rejectedStatus returns Suppressed if the provider refuses to mail the address, and Failed if it refuses the message.
func rejectedStatus(b *Bounce) Status {
	if b == nil {
		return Failed
	}
	if slices.Contains([]Reason{SuppressedBounce, SuppressedComplaint, SuppressedUnsubscribe}, b.Reason) {
		return Suppressed
	}
	return Failed
}

// Max returns the weightier of two pieces of evidence: by rank, then by the provider's time, then by key.
func (v Evidence) Max(w Evidence) Evidence {
	if w.outweighs(v) {
		return w
	}
	return v
}

func (v Evidence) outweighs(w Evidence) bool {
	if v.Rank != w.Rank {
		return v.Rank > w.Rank
	}
	if !v.At.Equal(w.At) {
		return v.At.After(w.At)
	}
	return bytes.Compare(v.Key[:], w.Key[:]) > 0
}

// Detail returns the text of it that a recipient shows.
func (v Evidence) Detail() string {
	if v.Bounce == nil {
		return ""
	}
	if v.Bounce.Text != "" {
		return v.Bounce.Text
	}
	return string(v.Bounce.Reason)
}
