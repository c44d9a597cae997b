// Package api is the HTTP contract of sendgate in Go: the wire types and a small client. The full contract, with its
// descriptions, is openapi.yaml beside this file; a test checks the server against it. Nothing here imports the server.
//
// JSON is snake_case, times are RFC 3339 in UTC with milliseconds, ids are UUIDv7 strings.
package api

import (
	"encoding/json"
	"time"
)

// Address is a mailbox. Requests may also use the short forms "ann@example.org" and "Ann <ann@example.org>".
type Address struct {
	Email string `json:"email"`
	Name  string `json:"name,omitempty"`
}

// Attachment is one file. Content is standard base64. A ContentID makes it an inline part.
type Attachment struct {
	Filename    string  `json:"filename"`
	ContentType string  `json:"content_type,omitempty"`
	Content     string  `json:"content"`
	ContentID   *string `json:"content_id,omitempty"`
}

// Calendar is an iCalendar object (text, not Base64), such as an invitation, a reply or a cancellation. Its METHOD is Method.
type Calendar struct {
	Method  string `json:"method"` // PUBLISH, REQUEST, REPLY, ADD, CANCEL, REFRESH, COUNTER, DECLINECOUNTER
	Content string `json:"content"`
}

// SendRequest is the body of POST /v1/send.
type SendRequest struct {
	From        Address           `json:"from"`
	To          []Address         `json:"to"`
	Cc          []Address         `json:"cc,omitempty"`
	Bcc         []Address         `json:"bcc,omitempty"`
	ReplyTo     []Address         `json:"reply_to,omitempty"`
	Subject     string            `json:"subject"`
	Text        string            `json:"text,omitempty"`
	HTML        string            `json:"html,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Attachments []Attachment      `json:"attachments,omitempty"`
	Calendar    *Calendar         `json:"calendar,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Stream      string            `json:"stream,omitempty"`
	SendAt      *time.Time        `json:"send_at,omitempty"`
	ExpiresAt   *time.Time        `json:"expires_at,omitempty"`
	OnAmbiguous string            `json:"on_ambiguous,omitempty"`
	Account     *string           `json:"account,omitempty"`
}

// BatchRequest is the body of POST /v1/send/batch: 1 to 1,000 messages.
type BatchRequest struct {
	Messages []SendRequest `json:"messages"`
}

// SendResult is the 202 of POST /v1/send.
type SendResult struct {
	ID         string            `json:"id"`
	Status     string            `json:"status"`
	Recipients []RecipientStatus `json:"recipients"`
}

// RecipientStatus is the state of one recipient.
type RecipientStatus struct {
	Email  string `json:"email"`
	Status string `json:"status"`
}

// BatchResult is the 202 of POST /v1/send/batch, in the order of the request.
type BatchResult struct {
	Results []BatchItem `json:"results"`
}

// BatchItem is a SendResult, or the reason why this one message was refused.
type BatchItem struct {
	*SendResult
	Error *Problem `json:"error,omitempty"`
}

// Problem is every error answer (RFC 9457, application/problem+json).
type Problem struct {
	Type      string         `json:"type"` // "/problems/" + code, which the server explains
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail,omitempty"`
	Code      string         `json:"code"`
	RequestID string         `json:"request_id,omitempty"`
	Errors    []FieldProblem `json:"errors,omitempty"`

	// RetryAfter is how long to wait before the next try, from the header of the answer; 0 if it has none. Only the client
	// sets it.
	RetryAfter time.Duration `json:"-"`
}

// FieldProblem is one mistake in one field, named by its path ("to[3].email").
type FieldProblem struct {
	Field   string `json:"field"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Message is GET /v1/messages/{id}. Listings leave out attempts, events, headers and bodies.
type Message struct {
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	SendAt      *time.Time        `json:"send_at,omitempty"`
	ExpiresAt   *time.Time        `json:"expires_at,omitempty"`
	From        Address           `json:"from"`
	Subject     string            `json:"subject"`
	Stream      string            `json:"stream"`
	Tags        []string          `json:"tags,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	OnAmbiguous string            `json:"on_ambiguous"`
	Account     string            `json:"account,omitempty"`
	Recipients  []Recipient       `json:"recipients,omitempty"`

	// These are only in GET /v1/messages/{id}. Bodies, reply_to, headers, attachments and calendar are there only while they
	// are kept.
	ReplyTo     []Address         `json:"reply_to,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Text        string            `json:"text,omitempty"`
	HTML        string            `json:"html,omitempty"`
	Attachments []AttachmentInfo  `json:"attachments,omitempty"`
	Waiting     *Waiting          `json:"waiting,omitempty"` // until the message is settled
	Calendar    *Calendar         `json:"calendar,omitempty"`
	Attempts    []Attempt         `json:"attempts,omitzero"`
	Events      []Event           `json:"events,omitzero"`
}

// Waiting says why a Message has not been sent yet, as one replica sees it.
type Waiting struct {
	Code      string     `json:"code"` // scheduled, retry, turn, no_account, sending, unknown, or the code of a Candidate
	Reason    string     `json:"reason"`
	Account   string     `json:"account,omitempty"`
	Due       *time.Time `json:"due,omitempty"`   // when the queue looks at it next, at the latest
	Until     *time.Time `json:"until,omitempty"` // when the reason ends, if known
	Ahead     int        `json:"ahead,omitempty"` // how many messages of its queue come first
	AheadMore bool       `json:"ahead_more,omitempty"`
	Decision  *Decision  `json:"decision,omitempty"`
}

// AttachmentInfo describes an attachment of a Message without its content.
type AttachmentInfo struct {
	Filename    string `json:"filename"`
	ContentType string `json:"content_type,omitempty"`
	ContentID   string `json:"content_id,omitempty"`
	Size        int    `json:"size"` // bytes, decoded
}

// Recipient is one recipient of a Message.
type Recipient struct {
	Email     string    `json:"email"`
	Name      string    `json:"name,omitempty"`
	Kind      string    `json:"kind"` // to, cc, bcc
	Status    string    `json:"status"`
	Detail    string    `json:"detail,omitempty"`
	Bounce    *Bounce   `json:"bounce,omitempty"` // why it bounced, from the event that settled it
	UpdatedAt time.Time `json:"updated_at"`
}

// Attempt is one call to a provider.
type Attempt struct {
	N                 int             `json:"n"`
	Account           string          `json:"account"`
	Provider          string          `json:"provider"`
	Decision          json.RawMessage `json:"decision,omitempty"`
	Class             string          `json:"class,omitempty"` // absent while the call is open
	StartedAt         time.Time       `json:"started_at"`
	TookMS            *int64          `json:"took_ms,omitempty"`
	ProviderMessageID string          `json:"provider_message_id,omitempty"`
	MessageIDHeader   string          `json:"message_id_header,omitempty"` // as recipients see it; if accepted, or maybe
	VerdictSource     string          `json:"verdict_source,omitempty"`
	Status            int             `json:"status,omitempty"` // HTTP or SMTP status
	Code              string          `json:"code,omitempty"`   // the provider's own code
	Error             string          `json:"error,omitempty"`
}

// Page is one page of a listing. Send NextCursor back with the same filter to get the next page; the last page has none.
type Page[T any] struct {
	Data       []T    `json:"data"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// MessagePage is one page of GET /v1/messages, newest first.
type MessagePage = Page[Message]

// MessageQuery is the query of GET /v1/messages.
type MessageQuery struct {
	Status, To, From, Tag, Stream, Account string
	Since, Until                           time.Time
	Limit                                  int // 1..200, default 50
	Cursor                                 string
}

// Limit is one window of an account, in its provider's unit.
type Limit struct {
	N    int    `json:"n"`
	Per  string `json:"per"`  // Go duration: "1s", "5m", "24h"
	Unit string `json:"unit"` // requests, messages, recipients
}

// Account is one configured account. Secrets are never part of it.
type Account struct {
	Name     string          `json:"name"`
	Kind     string          `json:"kind"`
	Settings json.RawMessage `json:"settings"`
	Secrets  []string        `json:"secrets"` // names of the secrets that are set

	// UnreadableSecrets are the names of the secrets that do not open with the server's keys. The account is parked until they
	// are given again, or until the server gets their key.
	UnreadableSecrets []string `json:"unreadable_secrets,omitempty"`

	Capabilities json.RawMessage `json:"capabilities"`
	Concurrency  int             `json:"concurrency"`
	Limits       []Limit         `json:"limits"`
	State        string          `json:"state"` // active, paused, parked, draining
	Parked       []Park          `json:"parked,omitempty"`
	CreatedAt    time.Time       `json:"created_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
}

// Park says why an account, or one sender domain or sender address on it, gets no mail.
type Park struct {
	SenderDomain string    `json:"sender_domain,omitempty"`
	Sender       string    `json:"sender,omitempty"` // the address, if only one is parked
	Reason       string    `json:"reason"`
	Since        time.Time `json:"since"`
	NextProbe    time.Time `json:"next_probe,omitzero"` // earliest time at which a message may go through as a probe
}

// AccountRequest creates an account (POST) or changes one (PATCH). In a PATCH absent fields stay. Name, kind and limits
// can't be changed by it; limits have their own call.
type AccountRequest struct {
	Name        string            `json:"name,omitempty"`
	Kind        string            `json:"kind,omitempty"`
	Settings    json.RawMessage   `json:"settings,omitempty"` // an object, replaced as a whole
	Secrets     map[string]string `json:"secrets,omitempty"`  // replaces the secrets that it names
	Concurrency *int              `json:"concurrency,omitempty"`
	Limits      *[]Limit          `json:"limits,omitempty"` // absent on create: the kind's documented limits
}

// LimitsRequest replaces the limits of an account.
type LimitsRequest struct {
	Limits []Limit `json:"limits"`
}

// AccountLimits are the limits of an account, and those that its provider documents.
type AccountLimits struct {
	Limits     []Limit `json:"limits"`
	Documented []Limit `json:"documented"`
}

// Pool is a named set of accounts with weights.
type Pool struct {
	Name     string       `json:"name"`
	Overflow string       `json:"overflow"` // spill, wait
	Accounts []PoolMember `json:"accounts"`
	Version  int64        `json:"version"`
}

// PoolMember is one account of a pool.
type PoolMember struct {
	Account string  `json:"account"`
	Weight  float64 `json:"weight"`
}

// PoolRequest creates a pool (POST) or replaces its overflow rule and accounts (PUT, without a name).
type PoolRequest struct {
	Name     string       `json:"name,omitempty"`
	Overflow string       `json:"overflow,omitempty"` // default spill
	Accounts []PoolMember `json:"accounts"`
}

// RulesRequest replaces all rules at once. All rules get new ids.
type RulesRequest struct {
	Rules []Rule `json:"rules"`
}

// Rule routes matching messages to a pool. Empty fields match everything; the lowest position wins.
type Rule struct {
	ID              int64  `json:"id,omitempty"`
	Position        int    `json:"position"`
	Stream          string `json:"stream,omitempty"`
	Tag             string `json:"tag,omitempty"`
	SenderDomain    string `json:"sender_domain,omitempty"`
	RecipientDomain string `json:"recipient_domain,omitempty"`
	Pool            string `json:"pool"`
}

// Key is an API key. Secret is present only once, in the answer that creates it.
type Key struct {
	ID            string     `json:"id"`
	Tenant        string     `json:"tenant"`
	Name          string     `json:"name"`
	Scopes        []string   `json:"scopes"`
	SenderDomains []string   `json:"sender_domains,omitempty"`
	Networks      []string   `json:"networks,omitempty"` // CIDRs that it is accepted from; empty: anywhere
	RatePerSecond int        `json:"rate_per_second,omitempty"`
	CreatedAt     time.Time  `json:"created_at"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`
	RevokedAt     *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt    *time.Time `json:"last_used_at,omitempty"`
	Secret        string     `json:"secret,omitempty"`
}

// KeyRequest creates a key.
type KeyRequest struct {
	Tenant        string     `json:"tenant,omitempty"` // default "default"
	Name          string     `json:"name"`
	Scopes        []string   `json:"scopes"` // such as send, events:read; see openapi.yaml, "Keys"
	SenderDomains []string   `json:"sender_domains,omitempty"`
	Networks      []string   `json:"networks,omitempty"` // at most 32
	RatePerSecond int        `json:"rate_per_second,omitempty"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`
}

// KeyPatch changes a key. Absent fields stay; an empty list of networks means anywhere.
type KeyPatch struct {
	Networks *[]string `json:"networks,omitempty"`
}

// KeyRotateRequest says how long the old key stays valid beside the new one; the default is a day.
type KeyRotateRequest struct {
	OverlapSeconds *int `json:"overlap_seconds,omitempty"`
}

// Tenant is an owner of keys and messages.
type Tenant struct {
	Name      string    `json:"name"`
	Weight    int       `json:"weight"` // 1..1000
	Paused    bool      `json:"paused"`
	CreatedAt time.Time `json:"created_at"`
}

// TenantRequest creates a tenant (POST) or changes one (PATCH, absent fields stay, the name can't be changed).
type TenantRequest struct {
	Name   string `json:"name,omitempty"`
	Weight *int   `json:"weight,omitempty"` // default 100
	Paused *bool  `json:"paused,omitempty"`
}

// Queue is GET /admin/v1/queue.
type Queue struct {
	AtLeast   []string    `json:"at_least,omitempty"` // lower bounds (counting stopped): ready, scheduled, unknown
	Ready     int64       `json:"ready"`              // due now
	Scheduled int64       `json:"scheduled"`          // due later
	Inflight  int64       `json:"inflight"`
	Unknown   int64       `json:"unknown"`
	OldestDue *time.Time  `json:"oldest_due,omitempty"`
	Tenants   []TenantRow `json:"tenants"`
	Replicas  []Replica   `json:"replicas"`
}

// TenantRow is one tenant's share of the queue.
type TenantRow struct {
	Tenant string `json:"tenant"`
	Ready  int64  `json:"ready"`
	More   bool   `json:"more,omitempty"` // there are more than Ready
}

// Replica is one running engine.
type Replica struct {
	ID         string    `json:"id"`
	Host       string    `json:"host"`
	StartedAt  time.Time `json:"started_at"`
	LeaseUntil time.Time `json:"lease_until"`
}

// WindowState is one line of GET /admin/v1/limits.
type WindowState struct {
	Account      string     `json:"account"`
	Limit        Limit      `json:"limit"`
	Used         int        `json:"used"` // in the window that ends now
	Free         int        `json:"free"`
	BlockedUntil *time.Time `json:"blocked_until,omitempty"`
}

// AuditEntry is one change of configuration.
type AuditEntry struct {
	ID        int64           `json:"id"`
	At        time.Time       `json:"at"`
	Actor     string          `json:"actor"`                // id of the key, or "system"
	ActorName string          `json:"actor_name,omitempty"` // name of the key
	Action    string          `json:"action"`
	Target    string          `json:"target"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}

// Suppression stops mail to one address.
type Suppression struct {
	Email     string     `json:"email"`
	Stream    string     `json:"stream,omitempty"` // absent: every stream
	Reason    string     `json:"reason"`
	Origin    string     `json:"origin"` // api, import, webhook, response (of a provider to our call), unsubscribe
	Account   string     `json:"account,omitempty"`
	MessageID string     `json:"message_id,omitempty"`
	Detail    string     `json:"detail,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// SuppressionPage is one page of GET /v1/suppressions, by address.
type SuppressionPage = Page[Suppression]

// SuppressionRequest adds a suppression.
type SuppressionRequest struct {
	Email     string     `json:"email"`
	Stream    string     `json:"stream,omitempty"` // only this stream; absent: every stream
	Reason    string     `json:"reason,omitempty"` // manual (default), hard_bounce, soft_bounce, complaint, unsubscribe
	Detail    string     `json:"detail,omitempty"` // at most 200 characters
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// AuditFilter selects audit entries; zero fields select everything.
type AuditFilter struct {
	Actor, Action, Target string
	Since, Until          time.Time
	Cursor                string
	Limit                 int
}

// AuditPage is one page of GET /admin/v1/audit, newest first.
type AuditPage = Page[AuditEntry]

// Explanation is the answer of POST /admin/v1/route/explain: the facts that routing knows about the message, and where it
// would go now. Nothing is stored or sent.
type Explanation struct {
	Facts    Facts    `json:"facts"`
	Decision Decision `json:"decision"`
}

// Facts are the properties of a message that routing uses.
type Facts struct {
	Account          string   `json:"account,omitempty"` // pinned
	Stream           string   `json:"stream"`
	Tags             []string `json:"tags"`
	SenderDomain     string   `json:"sender_domain"`
	RecipientDomains []string `json:"recipient_domains"` // at most 20
	Recipients       int      `json:"recipients"`
	Bytes            int64    `json:"bytes"`
	Attachments      int      `json:"attachments"`
	NeedsSMTPUTF8    bool     `json:"needs_smtputf8"`
	Calendar         bool     `json:"calendar"`
}

// Decision says where a message goes and why; Attempt.Decision holds one.
type Decision struct {
	Config     int64       `json:"config"`         // configuration version in force
	Rule       int64       `json:"rule,omitempty"` // id of the rule that matched
	Pool       string      `json:"pool,omitempty"`
	Pinned     bool        `json:"pinned,omitempty"`
	Chosen     string      `json:"chosen,omitempty"`    // absent when no account can take the message now
	WaitsFor   string      `json:"waits_for,omitempty"` // the account that it waits for, if it may not spill
	Spilled    bool        `json:"spilled,omitempty"`
	Probe      bool        `json:"probe,omitempty"` // the account is parked, and this message tests it
	Candidates []Candidate `json:"candidates"`
	Omitted    int         `json:"omitted,omitempty"` // number of candidates left out of a stored decision
}

// Candidate is one account that routing considered. Without a Reason it could take the message.
type Candidate struct {
	Account string     `json:"account"`
	Weight  float64    `json:"weight"`
	Code    string     `json:"code,omitempty"`   // why not; "" when it could take the message
	Reason  string     `json:"reason,omitempty"` // the same for people
	Until   *time.Time `json:"until,omitempty"`  // when that ends, if known
}

// List wraps every listing that has no cursor.
type List[T any] struct {
	Data []T `json:"data"`
}
