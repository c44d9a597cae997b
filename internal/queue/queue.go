// Package queue holds the types for mail that waits: lanes, claims, intents, results, and the books that prove that each
// open message is in one place. It names the policy for calls that may be repeated (Repeating). It does no I/O: the store
// moves messages, and package deliver says when.
//
// A newcomer's likeliest mistake is to read a lane as a promise. It is a hint: the claim decides where a message goes.
package queue

import (
	"cmp"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// Lane is one queue of ready messages: those of one tenant that go to one pool (its id), or are pinned to one account
// (minus its id). The lane is a hint that keeps a full pool's backlog out of everybody's way; where the message goes
// is decided when it is claimed.
type Lane struct {
	Number int32
	Tenant mail.TenantID
}

// LaneQuota says how many messages a claim may look at in one lane. Rows due before Low are skipped: they were claimed
// earlier and are dead rows in the index.
type LaneQuota struct {
	Lane
	Max int
	Low time.Time
}

// Avoid is one account that a message avoids, because an attempt there failed. Until, on the database's clock,
// is when it may be tried again; Final says never. Last says that a call there may have sent the message: it is chosen
// only when no other account is fit.
type Avoid struct {
	Until time.Time `json:"until,omitzero"`
	Final bool      `json:"final,omitempty"`
	Last  bool      `json:"last,omitempty"`
	Why   string    `json:"why"`
	Kind  string    `json:"kind,omitempty"` // the kind of provider that refused the content: that kind is not asked again

	Repeat *Repeat `json:"repeat,omitempty"` // a call of this account may have sent the message, and can be made again
}

// Repeat is a call of unknown outcome that its provider lets us make again: with the same key it sends the message once.
// Until the repeats are over no other account gets the message.
type Repeat struct {
	N     int       `json:"n"`              // how often the call was, or is to be, made again
	By    time.Time `json:"by,omitzero"`    // when the next repeat is given up, if it could not be made
	Until time.Time `json:"until,omitzero"` // when the provider may have forgotten the key
	Over  bool      `json:"over,omitempty"` // no repeat is left: on_ambiguous decides
}

// Repeating is the policy of an unknown message whose call will be made again, before on_ambiguous decides.
const Repeating mail.Policy = "repeat"

// Repeated returns the account at which the next call repeats one that may have sent the message, or "" if it repeats none.
func Repeated(avoid map[string]Avoid) (account string, r Repeat) {
	for name, a := range avoid {
		if a.Repeat != nil && !a.Repeat.Over {
			return name, *a.Repeat
		}
	}
	return "", Repeat{}
}

// Due is a message that is ready to be sent.
type Due struct {
	ID          mail.ID
	Lane        Lane
	Due         time.Time
	Attempts    int // calls made so far
	Tries       int // those that count for the backoff
	ResentAfter int // calls up to this number were for other recipients than those open now
	Resends     int // how often it was resent while the outcome of the last call was unknown
	Avoid       map[string]Avoid
	Facts       *mail.Facts
	OnAmbiguous mail.Policy
	ExpiresAt   time.Time
}

// Waiting says where an unsettled message is: exactly one of Ready, Sending and Unknown is true. For a settled message all
// are false.
type Waiting struct {
	Facts   *mail.Facts
	Ready   bool      // it waits for its turn
	Due     time.Time // Ready: when it is looked at next
	Held    bool      // Ready: put off, because no account was fit or its own was full
	Ahead   int       // Ready and due: how many of its lane come first, at most MaxAhead
	Tries   int       // Ready: calls that failed and will be repeated
	Avoid   map[string]Avoid
	Sending bool        // a replica carries it
	Unknown bool        // the outcome of its last call is unknown
	Decide  time.Time   // Unknown: when it is decided without evidence
	Policy  mail.Policy // Unknown: how it is decided
	Account string      // Sending and Unknown: whose call it is
}

// MaxAhead is where counting for Ahead stops.
const MaxAhead = 10000

// Claim is what one claim does with the messages it looked at. Those in none of the lists stay as they are.
type Claim struct {
	Take   []Assignment
	Hold   []Hold   // put off until a time
	Relane []Relane // configuration moved them to another lane
}

// Assignment gives one message to one account.
type Assignment struct {
	Due     Due
	Account int32
	Joined  bool // it travels in the call of an earlier one of the same claim
}

// Hold puts a message off. Held messages are freed by every change of configuration.
type Hold struct {
	ID    mail.ID
	Until time.Time
}

// Relane moves a message to another lane.
type Relane struct {
	ID   mail.ID
	Lane int32
}

// Ending closes the open recipients of a message that will not be sent.
type Ending struct {
	ID     mail.ID
	Status mail.Status // Expired, Failed or Cancelled
	Detail string
}

// Lapse is a message whose call could not be made again in time. It is unknown once more, and on_ambiguous decides.
type Lapse struct {
	ID    mail.ID
	Avoid map[string]Avoid
}

// RepeatRule says which calls that were lost with their replica are made again, and when.
type RepeatRule struct {
	Within   map[int32]time.Duration // by account: how long after the first call repeats count as the same call
	Wait     time.Duration
	Patience time.Duration // how long after the wait a repeat may still be made
	Most     int
}

// Loaded is a claimed message with what is needed to send it.
type Loaded struct {
	Message    *mail.Message
	Recipients []mail.Recipient // all, with their status now; those suppressed since acceptance are Suppressed
}

// Intent is the durable announcement of one call.
type Intent struct {
	ID       mail.ID
	N        int // 1-based attempt number
	Account  int32
	Decision []byte
	Tenant   mail.TenantID
	Stream   string
	Open     []mail.Recipient // the recipients of the call
}

// Announced is the answer to an intent.
type Announced struct {
	OK         bool  // the call may be made; false: the claim is lost, or no recipient is left
	Suppressed []int // by N: those of Open that were suppressed before the intent was written; the call leaves them out
}

// Result is the outcome for one claimed message, with or without a call.
type Result struct {
	ID                mail.ID
	N                 int
	Class             string // a provider class, or Aborted
	Status            int
	Code              string
	Error             string
	ProviderMessageID string
	Recipients        []RecipientChange
	Requeue           *Requeue
	Unknown           *Hanging
	Park              *Park
	Unpark            *Unpark
	Block             *Block
	Settle            *Settle
	CalledAt          time.Time // when the call began, on the database's clock; zero without one
	Announce          bool      // acceptance is an event: this provider reports none of its own
}

// Aborted is the class of an attempt that was announced but not made: nothing was sent.
const Aborted = "aborted"

// RecipientChange is the new state of one recipient.
type RecipientChange struct {
	N      int
	Status mail.Status
	Detail string
	Bounce *mail.Bounce // of Failed and Suppressed, if more is known than Detail
}

// Requeue makes a message ready again, due after In.
type Requeue struct {
	In    time.Duration
	Tries int
	Avoid map[string]Avoid
	Held  bool
}

// Hanging keeps a message whose send has no known outcome until evidence comes, or DecideIn is over.
type Hanging struct {
	DecideIn time.Duration
	Policy   mail.Policy
	Avoid    map[string]Avoid // for the next call, if there is one
}

// Park takes an account, one sender domain on it, or one address of that domain, out of routing until a probe is accepted
// or an operator touches it.
type Park struct {
	Account      int32
	SenderDomain string // "" for the whole account
	Sender       string // one address, folded; "" for all of its domain
	Reason       string
	Wait         time.Duration // until the first probe
	MaxWait      time.Duration // until any other
	Probe        bool          // a probe found it: the next one waits twice as long as this one did
}

// Key names the park on its account: the address, the domain, or "".
func (p *Park) Key() string { return cmp.Or(p.Sender, p.SenderDomain) }

// Unpark ends parks of an account, by their keys: a probe of theirs was accepted.
type Unpark struct {
	Account int32
	Keys    []string
}

// Settle books a call to the account's limits. Without it no call was made.
type Settle struct {
	Began      time.Time // on the database's clock
	At         time.Time // its latest possible arrival at the provider, by our own clock: the database's may be set meanwhile
	Recipients int
	Joined     bool // another message of the call costs its request
}

// Block gives an account no slot for a time, at every replica.
type Block struct {
	Account int32
	For     time.Duration
	Reason  string
}
