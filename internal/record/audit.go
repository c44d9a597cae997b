package record

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// AuditEntry is one change of configuration or of suppressions, a read of message bodies, an export, or failed logins.
type AuditEntry struct {
	ID            int64
	At            time.Time
	Actor         string // key id, "system", or "stranger"
	Name          string // of the key
	Address       string // of the client; "" for what the service does by itself, or on the command line of its host
	RequestID     string
	Action        string // "pool.update"
	Target        string
	Detail        json.RawMessage // secrets never
	Before, After json.RawMessage // the fields that the change made different, without secrets; nil: there was, or is, no such object
}

// FailedLogins are the wrong keys, webhook passwords and unsubscribe links that came from one address within a minute. If there
// are too many addresses, the rest are counted together in one of "others".
type FailedLogins struct {
	From      string    `json:"-"`
	Since     time.Time `json:"since"`
	Keys      int64     `json:"keys,omitempty"`
	Passwords int64     `json:"webhook_passwords,omitempty"`
	Links     int64     `json:"unsubscribe_links,omitempty"`
	SignIns   int64     `json:"sign_ins,omitempty"`
}

// BodyReads are messages whose bodies one key read within a minute, each once.
type BodyReads struct {
	Key      string    `json:"-"`
	Caller   Caller    `json:"-"` // of the first read
	Since    time.Time `json:"since"`
	Messages []mail.ID `json:"messages"`
}

// AuditFilter selects audit entries. Zero fields select everything.
type AuditFilter struct {
	Actor        string // id or name of a key, or "system"
	Action       string // "pool.update", or what comes before the dot: "pool"
	Target       string
	Since, Until time.Time
	Before       int64 // the id of the last row seen; rows come newest first
	Limit        int
}

// AuditPlace is how far somebody has read the chain of the audit: the last link, and the greatest id of an entry. The zero place is
// the beginning.
type AuditPlace struct{ N, ID int64 }

// AuditChain is a part of the chain of the audit, by n. Unlinked are ids of entries that should have a link and have none, at most 20.
type AuditChain struct {
	Links    []AuditLink
	Unlinked []int64
	Next     AuditPlace
	More     bool
}

// AuditLink is one link of the chain, as migration 00021 describes it.
type AuditLink struct {
	N       int64
	ID      int64  // of the entry
	Hash    []byte // SHA-256 of the hash before it, N in decimal, and Content
	Content string // what the entry says, as a JSON array; "" if it is gone
}

// Caller says who makes a request, for the audit.
type Caller struct {
	Name      string // of the key
	Address   string
	RequestID string
}

type callerKey struct{}

// WithCaller returns a context in which changes are the caller's.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns the caller of a context; the zero Caller if there is none.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
