package mail

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// EventType is the normalised name of an event that a provider reports.
type EventType string

// The types of events. Unmapped is an event for which we have no type: it is kept and counted, and changes nothing.
const (
	EventUnmapped     EventType = ""
	EventAccepted     EventType = "accepted"     // the provider took responsibility
	EventDeferred     EventType = "deferred"     // the receiving host put it off; the provider tries again
	EventDelivered    EventType = "delivered"    // the receiving host took it
	EventBounced      EventType = "bounced"      // it came back, for good; Bounce says why
	EventRejected     EventType = "rejected"     // dropped before it was tried; Bounce says why
	EventComplained   EventType = "complained"   // the recipient called it spam
	EventUnsubscribed EventType = "unsubscribed" // the recipient asked for no more of this
	EventOpened       EventType = "opened"
	EventClicked      EventType = "clicked"

	// EventFailedUnknown is ours: a message was given up although a provider may have it.
	EventFailedUnknown EventType = "failed_unknown"

	EventEndpointDisabled EventType = "endpoint_disabled" // ours: a webhook endpoint was given up; not about a message
)

// EventTypes lists the types that a caller may filter by.
func EventTypes() []EventType {
	return []EventType{
		EventAccepted, EventDeferred, EventDelivered, EventBounced, EventRejected, EventComplained, EventUnsubscribed,
		EventOpened, EventClicked, EventFailedUnknown, EventEndpointDisabled,
	}
}

// BounceClass says what a bounce is about: hard the address, soft the present moment, policy us and not the address.
type BounceClass string

// The bounce classes. A rejection by a provider's own suppression list has none.
const (
	Hard        BounceClass = "hard"
	Soft        BounceClass = "soft"
	PolicyClass BounceClass = "policy"
)

// Bounce says why a recipient was not reached.
type Bounce struct {
	Class    BounceClass `json:"class,omitempty"`
	Reason   Reason      `json:"reason"`
	Code     string      `json:"code,omitempty"`     // SMTP reply or the provider's number: "550", "605"
	Enhanced string      `json:"enhanced,omitempty"` // RFC 3463: "5.1.1"
	Text     string      `json:"text,omitempty"`     // the words of the receiving host or the provider, at most 500 bytes
	Rule     string      `json:"rule,omitempty"`     // what decided: "reply/mailbox_unknown", "mailgun/605"
}

// Reason is the cause of a bounce, in one word.
type Reason string

// The reasons, by class. Those of the last group are reported before the provider tried at all.
const (
	InvalidAddress Reason = "invalid_address" // hard
	InvalidDomain  Reason = "invalid_domain"
	Inactive       Reason = "inactive"

	MailboxFull     Reason = "mailbox_full" // soft
	MessageTooLarge Reason = "message_too_large"
	Content         Reason = "content"
	ThrottledThere  Reason = "throttled"
	Connection      Reason = "connection"
	TimedOut        Reason = "timed_out"
	Technical       Reason = "technical"
	Undetermined    Reason = "undetermined"

	BlockedPolicy Reason = "blocked_policy" // policy
	Reputation    Reason = "reputation"
	AuthFailure   Reason = "auth_failure"

	SuppressedBounce      Reason = "suppressed_bounce" // no class: the provider has the address on a list
	SuppressedComplaint   Reason = "suppressed_complaint"
	SuppressedUnsubscribe Reason = "suppressed_unsubscribe"
	InvalidInput          Reason = "invalid_input"
	OtherReason           Reason = "other"
)

// Class returns the class of a bounce with this reason, "" for reasons reported before sending.
func (r Reason) Class() BounceClass {
	switch r {
	case InvalidAddress, InvalidDomain, Inactive:
		return Hard
	case MailboxFull, MessageTooLarge, Content, ThrottledThere, Connection, TimedOut, Technical, Undetermined:
		return Soft
	case BlockedPolicy, Reputation, AuthFailure:
		return PolicyClass
	case SuppressedBounce, SuppressedComplaint, SuppressedUnsubscribe, InvalidInput, OtherReason:
	}
	return ""
}

// EventSource says how we know of an event.
type EventSource string

// The sources of events, and of the verdict on an attempt.
const (
	FromWebhook     EventSource = "webhook"
	FromLookup      EventSource = "lookup"
	FromResponse    EventSource = "response"    // the answer to our own call
	FromUnsubscribe EventSource = "unsubscribe" // our one-click endpoint
	FromSystem      EventSource = "system"      // sendgate about itself
)

// Event is one fact about one recipient. Adapters fill what the provider said; the store fills the rest.
type Event struct {
	Type              EventType
	Name              string    // the provider's own word: "bounce", "failed/permanent", "Bounce/HardBounce"
	UniqueID          string    // the provider's id of the event, as unique as it gets; "" when it gives none
	MessageID         ID        // ours, as it came back; zero when the provider did not say
	ProviderMessageID string    // finds the message where MessageID is zero
	Recipient         string    // canonical address; "" when the event names none
	ByMessage         bool      // all recipients know its proof: it is about a sole recipient; of several it suppresses none
	At                time.Time // when it happened, on the provider's clock, UTC
	Bounce            *Bounce   // of bounced, rejected and deferred
	Machine           bool      // opened or clicked by a machine
	URL               string    // clicked
	Detail            string    // tells apart two events of one kind in one second; not shown

	ID       ID // given at receipt
	Origin   ID // the event that keeps the payload
	Part     int
	Tenant   TenantID
	Account  string
	Provider string
	Stream   string
	Tags     []string
	N        int // of the recipient, -1 if the message has no such recipient
	Source   EventSource
	Raw      []byte
	Position string // where a stream goes on after this event
}

// Keys returns two keys that identify a repeated event: one from the provider's id, and one from the content, for a
// provider that gives a repetition a new id. The first equals the second if there is no id.
func (e *Event) Keys(account int32) (byID, byContent ID) {
	about := e.MessageID.String()
	if e.MessageID.IsZero() {
		about = e.ProviderMessageID
	}
	byContent = eventKey(account, "content", about, FoldAddress(e.Recipient), e.Name, e.At.UTC().Format(time.RFC3339Nano), e.URL, e.Detail)
	if e.UniqueID == "" {
		return byContent, byContent
	}
	return eventKey(account, "id", e.UniqueID, FoldAddress(e.Recipient)), byContent
}

// eventKey hashes the parts with their lengths, so that different parts give different keys.
func eventKey(account int32, parts ...string) ID {
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, account)
	for _, p := range parts {
		_ = binary.Write(h, binary.BigEndian, uint32(len(p))) //nolint:gosec // events are capped far below
		h.Write([]byte(p))
	}
	return ID(h.Sum(nil)[:16])
}

// Payload is one unit that a provider sent: its bytes, and the events that it reports. A payload that could not be
// read has one unmapped event.
type Payload struct {
	Raw    []byte
	Events []Event
}

// Once is a token that may come with one body only.
type Once struct {
	Token ID
	Body  [32]byte // SHA-256
}
