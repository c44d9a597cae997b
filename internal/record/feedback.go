package record

import (
	"errors"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// Intake is one authentic request of a provider, on its way into the store.
type Intake struct {
	Account  int32
	Source   mail.EventSource
	Payloads []mail.Payload
	Once     *mail.Once
}

// ErrReplayed says that a token came with another body than before: the request is forged.
var ErrReplayed = errors.New("this token was used with another body")

// Taken counts what became of the events of an Intake.
type Taken struct {
	Stored     int // new, of a message that we know
	Duplicates int
	Orphans    int // of no message that we know; kept and tried again for a day
	Foreign    int // of a message that this account never sent; ignored
	Unmapped   int // among those stored
	Settled    int // unknown messages that they settled
}

// EventFilter selects events of one tenant. Zero fields select everything. Rows come newest first.
type EventFilter struct {
	Tenant       mail.TenantID
	Types        []mail.EventType
	MessageID    mail.ID
	Recipient    string
	Account      string
	Stream       string
	Since, Until time.Time // of receipt
	Before       mail.ID   // keyset cursor
	Limit        int
}

// StatsFilter selects what Stats counts: messages accepted in [Since, Until).
type StatsFilter struct {
	Tenant       mail.TenantID
	Since, Until time.Time
	By           string // account, stream or domain
	Limit        int
}

// Stat is one line of statistics, counted by recipient.
type Stat struct {
	Key                        string // name of the account, the stream or the recipients' domain
	Recipients                 int64
	Sent                       int64 // taken by a provider, whatever came after
	Delivered                  int64
	Deferred                   int64
	Bounced                    map[mail.BounceClass]int64
	Complained                 int64
	Suppressed                 int64
	Failed                     int64
	FailedUnknown              int64 // of Failed
	Unknown                    int64
	Opened                     int64
	Clicked                    int64
	Unsubscribed               int64
	SentP50, SentP95           time.Duration // from acceptance by us to that by the provider
	DeliveredP50, DeliveredP95 time.Duration // from acceptance by us to delivery
}

// HookHealth is how the receiver of one account is doing.
type HookHealth struct {
	Account     string
	LastEvent   time.Time
	LastRefused time.Time
	LastRefusal string // why
	Events      int64
	Refused     int64
	LastSent    time.Time // the account's last accepted attempt
}

// HookTally is what one replica counted since it last reported to the store.
type HookTally struct {
	Account         int32
	Events, Refused int64
	LastEvent       time.Time
	LastRefused     time.Time
	LastRefusal     string
}

// RawEvent is a stored payload that is to be parsed again.
type RawEvent struct {
	Origin  mail.ID
	Account string
	Raw     []byte
}

// Reprojected is what today's parser reads from a payload.
type Reprojected struct {
	Origin mail.ID
	Events []mail.Event
}

// Lookup is an unknown call that is due to be looked up at its provider.
type Lookup struct {
	ID         mail.ID
	N          int
	Account    int32
	Sender     string
	Recipients []string
	StartedAt  time.Time
	Until      time.Time     // the call began before this, if at all; zero: at StartedAt
	Waited     time.Duration // since the call ended, on the database's clock
	Age        time.Duration // since StartedAt, on the database's clock
}

// Verdict is what a look-up found.
type Verdict struct {
	ID                mail.ID
	N                 int
	Account           int32
	Found             bool // else it is proved that the provider never took the message
	ProviderMessageID string
	Payloads          []mail.Payload
}

// Endpoint is a webhook of a tenant: a URL that gets its events.
type Endpoint struct {
	ID             mail.ID
	Tenant         mail.TenantID
	URL            string
	Description    string
	Types          []mail.EventType // empty: all
	Streams        []string         // empty: all
	HeaderNames    []string         // of the owner's headers that are sent along; the values are secrets
	Unreadable     []string         // those of its secrets that our keys do not open: EndpointSecret, EndpointHeaders
	Disabled       bool
	DisabledReason string
	FailingSince   time.Time
	LastSuccess    time.Time
	Pending        int64 // deliveries that wait
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// The names of an endpoint's secrets.
const (
	EndpointSecret    = "secret"     // signs
	EndpointOldSecret = "old_secret" // signs too, while it is being replaced
	EndpointHeaders   = "headers"    // the owner's headers as a JSON object of names and values
)

// Sealed counts the sealed values of an installation.
type Sealed struct {
	Current    int      // under the present key
	Previous   int      // under one before it
	Resealed   int      // moved now from a previous key to the present one
	Changed    int      // by somebody else meanwhile, and so left alone
	Unreadable []string // the bindings of values that no key opens, such as account/1/api_key
}

// Delivery is one event on its way to one endpoint, claimed by this replica.
type Delivery struct {
	Endpoint Endpoint
	Event    mail.Event
	N        int       // 1-based try
	FirstAt  time.Time // when the first try was due
}

// DeliveryResult is what became of one try.
type DeliveryResult struct {
	Endpoint mail.ID
	Event    mail.ID
	N        int
	At       time.Time
	Took     time.Duration
	Status   int    // HTTP, 0 when none came
	Outcome  string // delivered, retry, failed, disabled
	Error    string // at most 500 bytes
	RetryIn  time.Duration
	Disable  string // why the endpoint is to be disabled; "": it is not
}

// The outcomes of a delivery.
const (
	DeliveryDone     = "delivered"
	DeliveryRetry    = "retry"
	DeliveryFailed   = "failed"   // given up
	DeliveryDisabled = "disabled" // and the endpoint with it
)

// DeliveryEntry is one line of an endpoint's delivery log.
type DeliveryEntry struct {
	ID mail.ID
	DeliveryResult
}

// CallTally is how the calls of an account ended that one replica made since it last reported to the store.
type CallTally struct {
	Account  int32
	Accepted int64 // messages
	Failed   int64 // transient, or of unknown outcome
	Made     int64
	Failure  string // of the last one that failed
}

// Outcome counts the events of one type about the mail of an account.
type Outcome struct {
	AccountID int32
	Account   string
	Stream    string // "" of events whose message is not known
	Type      string // a mail.EventType
	Bounce    string // the class of a bounce
	N         int64
}

// Counted is what was reported since the last count.
type Counted struct {
	Outcomes  []Outcome
	Delivered []Delay // at most 1,000: a sample where there are more
}

// Delay is how long after a provider took a mail it reports that it was delivered, by the provider's clock at the end.
type Delay struct {
	Account string
	After   time.Duration
}
