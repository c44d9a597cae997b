package provider

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// MaxHook caps the body of one request of a provider, in bytes.
const MaxHook = 1 << 20

// MaxHookEvents caps the events of one request; more are answered 413.
const MaxHookEvents = 9999

// Hook is one request of a provider, or one bounce message, as it came.
type Hook struct {
	Header http.Header
	Body   []byte // raw, at most MaxHook
	Now    time.Time

	// Envelope of a message that came by LMTP; empty for HTTP.
	MailFrom, RcptTo string
}

// Batch is the content of an authentic request.
type Batch struct {
	Payloads []mail.Payload
	Once     *mail.Once // nil, or a token that may come with this body only
	Note     string     // the reason why there is no event: "subscription confirmed"
	Dropped  int        // events that were not read, because one request may have too many
}

// EventParser reads what a provider reports about messages. Implementations are safe for concurrent use. They build on the client
// of the account, so that a change of settings takes effect at once.
type EventParser interface {
	// Receive checks that a request is from the provider, on its raw bytes and before anything in it is trusted, and reads it.
	// An error is a *HookError; its status makes this provider stop or retry, whichever is right. An authentic request that
	// can't be read is one payload with one unmapped event, never an error.
	Receive(ctx context.Context, h *Hook) (Batch, error)
	// Parse reads one stored payload again. For each payload of a Batch it returns the events that came with it.
	Parse(raw []byte) []mail.Event
}

// HeaderChecker is an EventParser that can refuse some requests by their header, before a body is read. Receive checks requests
// that pass again, as a whole. Implementations are safe for concurrent use.
type HeaderChecker interface {
	CheckHeader(h http.Header, now time.Time) error
}

// HookError refuses a request. Reason is short and fit for a log and a metric: it never quotes the request.
type HookError struct {
	Status int    // of the answer
	Reason string // "signature", "timestamp", "unconfigured", "topic", "certificate", "too_large", ...
	Err    error

	Hint       string        // for the caller: a setting that turns this on; any stranger may read it
	Guess      bool          // a password or token was wrong: a caller with many such refusals may be guessing
	RetryAfter time.Duration // with a 429
}

// Error implements error.
func (e *HookError) Error() string {
	if e.Err == nil {
		return "hook refused: " + e.Reason
	}
	return fmt.Sprintf("hook refused: %s: %v", e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *HookError) Unwrap() error { return e.Err }

// Query asks a provider for one message.
type Query struct {
	MessageID  mail.ID
	InternetID string    // Message-ID without angle brackets
	Sender     string    // address of From
	Recipients []string  // addresses of the attempt
	From, To   time.Time // when the call was made, at the earliest and the latest
}

// Finding is the answer to a Query. Not found means that the provider does not show the message (yet); it is proof only
// after Spec.Lookup.Settled.
type Finding struct {
	Found             bool
	ProviderMessageID string
	Payloads          []mail.Payload // what else the provider reports about the message, if anything
}

// Finder looks up what happened to a call whose answer was lost. An error is an *Error. Throttled and Transient are tried again;
// Misconfigured (a key without the right to look up) leaves the decision to the deadline.
type Finder interface {
	Find(ctx context.Context, q *Query) (Finding, error)
}

// Registration is what a Registrar did at the provider.
type Registration struct {
	Again    bool              // store Settings and Secrets, then call Register again
	Done     []string          // what was changed, one line each
	Steps    []string          // what a human still has to do
	Settings map[string]any    // resulting settings of the account, such as a public key
	Secrets  map[string]string // resulting secrets; never shown
}

// Registrar sets up the provider through its own API, so that events come to our URL. It keeps the URLs of others. It is
// idempotent.
type Registrar interface {
	Register(ctx context.Context, url string) (Registration, error)
}
