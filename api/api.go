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
	ProviderMessageID                      string // of an attempt
	Since, Until                           time.Time
	Limit                                  int // 1..200, default 50
	Cursor                                 string
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

// List wraps every listing that has no cursor.
type List[T any] struct {
	Data []T `json:"data"`
}
