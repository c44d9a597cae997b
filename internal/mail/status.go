package mail

// Status is the state of a recipient, and by Fold of a message.
type Status string

// The statuses. Scheduled and Sending are shown for a message that waits for its send_at or is in a call; they are
// derived, never stored for a recipient.
const (
	Scheduled     Status = "scheduled"
	Queued        Status = "queued"
	Sending       Status = "sending"
	Sent          Status = "sent"
	Delivered     Status = "delivered"
	Deferred      Status = "deferred"
	Unknown       Status = "unknown"
	Failed        Status = "failed"
	FailedUnknown Status = "failed_unknown"
	Bounced       Status = "bounced"
	Complained    Status = "complained"
	Suppressed    Status = "suppressed"
	Cancelled     Status = "cancelled"
	Expired       Status = "expired"
)

// ranks orders the statuses from best to worst, open ones (which outrank every final one) above 100. Doubt outranks a
// plain failure: a message that one recipient may have got must not look as if nobody got it.
var ranks = map[Status]int{
	Delivered: 1, Sent: 2, Cancelled: 3, Suppressed: 4, Expired: 5, Failed: 6, FailedUnknown: 7, Bounced: 8, Complained: 9,
	Deferred: 101, Scheduled: 102, Queued: 103, Sending: 104, Unknown: 105,
}

// Valid reports whether s is one of the statuses.
func (s Status) Valid() bool { return ranks[s] != 0 }

// Open reports whether the recipient may still be mailed, or its outcome is not yet known to us. Sent counts as final for
// the engine: no further call follows from it.
func (s Status) Open() bool { return ranks[s] > 100 }

// Fold gives the status of a message: the worst of its recipients that are still open, else the worst final one.
// A message without recipients is Failed.
func Fold(recipients []Status) Status {
	worst := Status("")
	for _, s := range recipients {
		if ranks[s] > ranks[worst] {
			worst = s
		}
	}
	if worst == "" {
		return Failed
	}
	return worst
}
