package queue

import (
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// Accounting is the books of the queue at one moment: the open messages of each tenant, and every contradiction. Every
// accepted message is in exactly one of the four places of Book, or it is settled: its status is final.
type Accounting struct {
	Books      []Book        // of the tenants that have open messages, by name
	Violations []Violation   // by kind, then tenant; none when the books balance
	UnknownAge time.Duration // of the message that has been unknown for longest; 0 when none is
}

// Book counts a tenant's open messages by where they are.
type Book struct {
	Tenant                             string
	Ready, Unstarted, Started, Unknown int
}

// Open returns how many there are in total.
func (b Book) Open() int { return b.Ready + b.Unstarted + b.Started + b.Unknown }

// Total sums up the tenants, under no name.
func (a *Accounting) Total() Book {
	var sum Book
	for _, b := range a.Books {
		sum.Ready, sum.Unstarted = sum.Ready+b.Ready, sum.Unstarted+b.Unstarted
		sum.Started, sum.Unknown = sum.Started+b.Started, sum.Unknown+b.Unknown
	}
	return sum
}

// Count returns how many messages or calls violate one rule.
func (a *Accounting) Count(kind ViolationKind) int {
	n := 0
	for _, v := range a.Violations {
		if v.Kind == kind {
			n += v.Count
		}
	}
	return n
}

// Violation is a broken rule of the books, for one tenant.
type Violation struct {
	Kind   ViolationKind
	Tenant string
	Count  int
	IDs    []mail.ID // of the first messages, at most three
}

// ViolationKind names the rule that was broken.
type ViolationKind string

// The rules of the books. They hold at every moment, because each move of a message is one transaction.
const (
	Lost         ViolationKind = "lost"          // open by its status, and in no place: nobody will send it
	Twice        ViolationKind = "twice"         // in more than one place: it may be sent twice
	NoMessage    ViolationKind = "no_message"    // in a place, without a message
	Ended        ViolationKind = "ended"         // in a place, though its status is final and no evidence made it so
	Misplaced    ViolationKind = "misplaced"     // unknown by its status and not by its place, or the other way round
	WrongTenant  ViolationKind = "wrong_tenant"  // queued for another tenant than its own
	OpenAttempt  ViolationKind = "open_attempt"  // a call without a result that is not under way
	AttemptState ViolationKind = "attempt_state" // a call is under way or unknown, but the attempts say otherwise
)

// ViolationKinds lists them all, those of messages before those of attempts.
func ViolationKinds() []ViolationKind {
	return []ViolationKind{Lost, Twice, NoMessage, Ended, Misplaced, WrongTenant, OpenAttempt, AttemptState}
}

// OfAttempts reports whether a rule is about calls and not about messages.
func (k ViolationKind) OfAttempts() bool { return k == OpenAttempt || k == AttemptState }

// Says returns in words what is wrong.
func (k ViolationKind) Says() string {
	switch k {
	case Lost:
		return "open, but in no queue: nobody will send them"
	case Twice:
		return "in two queues at once: they may be sent twice"
	case NoMessage:
		return "queued, but there is no such message"
	case Ended:
		return "settled without evidence, but still queued"
	case Misplaced:
		return "unknown by their status and not by their queue, or the other way round"
	case WrongTenant:
		return "queued for another tenant than their own"
	case OpenAttempt:
		return "with a call that has no result and is not under way"
	case AttemptState:
		return "in a call, or unknown, of which their attempts say otherwise"
	}
	return string(k)
}
