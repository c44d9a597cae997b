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

// Batch is what an authentic request holds.
type Batch struct {
	Payloads []mail.Payload
	Once     *mail.Once // nil, or a token that may come with this body only
	Note     string     // what it was if it was no event: "subscription confirmed"
	Dropped  int        // events that were not read, since one request may have too many
}

// EventParser reads what a provider reports of messages. Implementations are safe for concurrent use, and build on the
// client of the account, so that a change of settings binds at once.
type EventParser interface {
	// Receive checks that a request is the provider's, on its raw bytes and before anything in it is believed, and reads
	// it. An error is a *HookError with the status that makes this provider stop or come back, as it should. What is
	// authentic but can't be read is one payload with one unmapped event, never an error.
	Receive(ctx context.Context, h *Hook) (Batch, error)
	// Parse reads one payload that was kept, again. For each payload of a Batch it returns the events that came with it.
	Parse(raw []byte) []mail.Event
}

// HeaderChecker is an EventParser that can refuse some requests by their header, before a body is read. What it lets through
// Receive checks again, as a whole. Implementations are safe for concurrent use.
type HeaderChecker interface {
	CheckHeader(h http.Header, now time.Time) error
}

// HookError refuses a request. Reason is short, fit for a log and a metric: it never quotes the request.
type HookError struct {
	Status int    // of the answer
	Reason string // "signature", "timestamp", "unconfigured", "topic", "certificate", "too_large", ...
	Err    error

	Hint       string        // for the caller: a setting that turns this on. Any stranger may read it
	Guess      bool          // a password or token was wrong: whoever has many of these refused may be guessing
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
	Payloads          []mail.Payload // what it tells of the message beside, if anything
}

// Finder looks up what became of a call whose answer was lost. An error is an *Error: Throttled and Transient are tried
// again, Misconfigured (a key that may not look up) leaves the decision to the deadline.
type Finder interface {
	Find(ctx context.Context, q *Query) (Finding, error)
}

// Registration is what a Registrar did at the provider.
type Registration struct {
	Again    bool              // store Settings and Secrets, then call Register once more
	Done     []string          // what was changed, a line each
	Steps    []string          // what is left for a human
	Settings map[string]any    // settings of the account that follow from it, such as a public key
	Secrets  map[string]string // secrets that follow from it; shown to nobody
}

// Registrar sets up at the provider that events come to our URL, by the provider's own API. URLs of others stay. It is
// idempotent.
type Registrar interface {
	Register(ctx context.Context, url string) (Registration, error)
}
