// Package record holds the types of what the store keeps and returns, apart from mail that waits: submissions, views and
// attempts of messages, tenants, keys and their scopes, suppressions, audit, events on their way in and out; and the errors
// of the store. It does no I/O.
//
// A newcomer's likeliest mistake is to answer 503 for an OutcomeUnknown. Only Unavailable says that nothing was stored.
package record

import (
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// Errors that cross package borders. httpapi/problem.go gives each its status.
var (
	ErrNotFound  = errors.New("not found")
	ErrConflict  = errors.New("conflict")
	ErrMaybeSent = errors.New("a provider may have sent it already")                // 409, asks for force
	ErrStale     = errors.New("changed by someone else")                            // If-Match did not match
	ErrMismatch  = errors.New("idempotency key was used with another request body") // 422
	ErrForbidden = errors.New("not allowed")
)

// Unavailable says that nothing was or will be stored, and when to try again: 503 with Retry-After.
type Unavailable struct {
	RetryAfter time.Duration
	Reason     string // queue_full, database, storage_full, clock, draining
	Err        error
}

// Error implements error.
func (u *Unavailable) Error() string {
	if u.Err != nil {
		return "unavailable: " + u.Reason + ": " + u.Err.Error()
	}
	return "unavailable: " + u.Reason
}

// Unwrap returns the cause.
func (u *Unavailable) Unwrap() error { return u.Err }

// OutcomeUnknown says that the request may or may not be stored: the database's confirmation of the COMMIT was lost. It does
// not unwrap, because the cause may be an Unavailable, which says that nothing was stored.
type OutcomeUnknown struct{ Err error }

// Error implements error.
func (u *OutcomeUnknown) Error() string {
	if u.Err != nil {
		return "outcome unknown: " + u.Err.Error()
	}
	return "outcome unknown"
}

// Submission is a validated message on its way into the store.
type Submission struct {
	Message     *mail.Message
	Key         string   // Idempotency-Key, "" for none; unique per tenant
	Fingerprint [32]byte // of the parsed request, compared when the key repeats
	Lane        int32    // the queue it starts in, by the configuration in force
}

// Accepted is the store's answer to a Submission, which the caller gets with the 202.
type Accepted struct {
	ID         mail.ID
	Status     mail.Status
	Recipients []RecipientStatus
	Replayed   bool // the key was seen before with the same fingerprint
}

// RecipientStatus is one line of an Accepted.
type RecipientStatus struct {
	Email  string      `json:"email"`
	Status mail.Status `json:"status"`
}

// Attempt is one call to one account for one message.
type Attempt struct {
	N                 int
	Account           string
	Provider          string
	Decision          json.RawMessage // route.Decision
	Class             string          // "" while the call is open
	Status            int             // HTTP or SMTP status, 0 if none came
	Code              string          // the provider's own code
	Error             string
	ProviderMessageID string
	VerdictSource     string // response, rescue, webhook, lookup, deadline, restore
	StartedAt         time.Time
	FinishedAt        time.Time
}

// View is a message as the API shows it.
type View struct {
	Message    *mail.Message // without bodies in listings
	Status     mail.Status
	UpdatedAt  time.Time
	Recipients []mail.Recipient
	Attempts   []Attempt
	Waiting    *queue.Waiting // nil in listings
	Events     []mail.Event   // oldest first by the provider's time; without payloads, at most MaxShownEvents
}

// MaxShownEvents caps the events of a View.
const MaxShownEvents = 1000

// Filter selects messages of one tenant. Zero fields select everything. Before is the id of the last row seen; rows
// come newest first.
type Filter struct {
	Tenant                                  mail.TenantID
	Status                                  mail.Status
	To, From, Tag, Stream, Account, Subject string
	ProviderMessageID                       string // of an attempt
	Since, Until                            time.Time
	Before                                  mail.ID // keyset cursor
	Limit                                   int
}

// Tenant is the owner of keys and messages.
type Tenant struct {
	ID        mail.TenantID
	Name      string
	Weight    int // share of the claim under contention, 1..1000
	Paused    bool
	CreatedAt time.Time
}

// Key is an API key as stored: the secret itself is shown once, at creation, and only its hash is kept.
type Key struct {
	ID            string // 8 hex characters, public part
	Tenant        mail.TenantID
	Name          string
	Hash          []byte // SHA-256 of the secret part
	Scopes        []Scope
	SenderDomains []string       // empty: any
	Networks      []netip.Prefix // from which it is accepted; empty: any
	RatePerSecond int            // 0: no limit
	TenantPaused  bool
	CreatedAt     time.Time
	ExpiresAt     time.Time
	RevokedAt     time.Time
	LastUsedAt    time.Time
}

// Suppression stops mail of one tenant to one address.
type Suppression struct {
	Tenant    mail.TenantID
	Email     string
	Stream    string  // "" is every stream
	Reason    string  // hard_bounce, soft_bounce, complaint, unsubscribe, manual
	Origin    string  // api, webhook, response, import, unsubscribe
	Account   string  // whose event it was
	MessageID mail.ID // of the message that led to it
	Detail    string
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	By        string    // the key that adds it, for the audit; "" when no key does
}

// MaxCounted is where counting the queue stops: this figure means so many or more. Counting must not slow down sending.
const MaxCounted = 100_000

// QueueState is the depth of the queue at one moment.
type QueueState struct {
	Ready, Scheduled, Inflight, Unknown int64
	Dead                                int64 // rows that left the queue and are not cleaned up yet, as the server estimates
	OldestDue                           time.Time
	Tenants                             []TenantDepth
	Replicas                            []Replica
	Webhooks                            int64 // events that wait for their endpoints
}

// TenantDepth is how many messages of a tenant are due. More means that there are more than were counted.
type TenantDepth struct {
	Tenant string
	Ready  int64
	More   bool
}

// Replica is one running engine and its lease.
type Replica struct {
	ID                    string
	Host                  string
	StartedAt, LeaseUntil time.Time
	Report                *ReplicaReport // nil before the first one
}

// ReplicaReport is what a replica did since the report before, a fifth of its lease earlier.
type ReplicaReport struct {
	Accepted float64         `json:"accepted"` // messages per second
	Accounts []AccountReport `json:"accounts"` // by name
}

// AccountReport is the part of a ReplicaReport about one account.
type AccountReport struct {
	Account string  `json:"account"`
	Sent    float64 `json:"sent"`    // messages per second that the provider accepted
	Breaker string  `json:"breaker"` // closed, half-open, open
}
