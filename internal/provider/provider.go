// Package provider is the interface between the engine and the email service providers (ESPs): the input of an adapter, its
// answers, and the closed set of classes for those answers.
//
// An adapter makes exactly one try per Send, with no retry by itself, by its SDK or by net/http. It turns its provider's
// words into one Class; no other code parses them.
//
// # How to add a provider
//
//  1. A folder internal/provider/KIND, its files named as in the other adapters: config.go (Config, Validate, Spec; secrets are
//     seal.Secret, and Spec.Settings says which setting directs which secret), message.go, send.go, answers.go (the table from
//     the provider's codes to Class, one entry per documented code), and for what comes back events.go and hook.go. If the
//     provider can be asked about a message, also find.go; without it Spec.Lookup stays zero. If its API sets up webhooks, also
//     register.go. If it takes several messages in one call, also SendBatch, in send.go or batch.go. The package comment names the provider's documentation pages.
//     Our message id must come back with each event. A provider without metadata gets it in a tag.
//     A limit for which Capabilities has no field is checked in send.go, as sendgrid does. It is a Rejected with Elsewhere, because
//     routing does not know of it.
//     The engine finds EventParser, HeaderChecker, Finder, Registrar and Batcher by a type assertion. A method with a wrong signature
//     compiles, and then no event is read, without an error. So each adapter has a line like this for each of them:
//     var _ provider.EventParser = (*Client)(nil)
//  2. suite_test.go calls providertest.Run: golden requests, every HTTP status, lost connections, bodies of strangers, repeats.
//     "go test -update" in the folder writes the golden files; read them before you keep them. hook_test.go calls
//     providertest.RunEvents: who is refused, and what is kept. directions_test.go calls providertest.CheckSettings.
//  3. A folder internal/emulator/KIND and a test internal/emulator/KIND_test.go, written from the same documentation and not from
//     the adapter. The package comment of internal/emulator says more, under "A new provider".
//  4. One line in the table of internal/provider/catalog (with the documented limits), one in internal/emulator/catalog, and the
//     kind in the enum of api/openapi.yaml: before smtp, in the same order everywhere. A variable for it in catalog/environ.go, and
//     in docker-compose.yml. Then run the tests of both catalogs, of internal/emulator and of the root. They take the kinds from
//     the catalogs, and name each table without the new kind: most are in internal/provider/catalog/*_test.go and in
//     internal/emulator/fault_test.go, hook_fault_test.go and mails_test.go.
//  5. A row in the README's tables of providers and of reports, one in the table of answers in docs/webhooks.md, and a section in
//     docs/providers.md and docs/webhooks.md. Tests want these. README also names the kinds in its first lines, and the variables
//     under "Real accounts".
//  6. Run the circle, from a send through the emulator to the event that comes back:
//     go test -tags drill ./internal/app -run TestEventsComeBack
//  7. If package deliver had to be changed, this interface is wrong: say so and fix the interface first.
package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// Kind names a provider, such as sendgrid or smtp. Package catalog lists them.
type Kind string

// MessageKey is the name under which our message id travels with a message.
const MessageKey = mail.MessageKey

// Provider sends messages through one account. Implementations are safe for concurrent use.
type Provider interface {
	// Send makes one call. A nil error means that the provider took responsibility for the message, except for the
	// recipients listed in Receipt.Refused. Every other outcome is an *Error. The context carries the deadline of the
	// whole call; a cancel before the first byte of the message was written is Transient, later it is Uncertain.
	Send(ctx context.Context, s *Send) (Receipt, error)
	// Close releases idle connections. No Send may be running.
	Close() error
}

// Batcher is an adapter that can send several messages in one call. The engine finds it by a type assertion.
type Batcher interface {
	// Batch says what one call takes, by the account's settings.
	Batch() BatchSpec
	// SendBatch makes one call for at least two messages, under the same rules as Send. It returns one outcome for each of
	// them, in the same order. If the whole call is refused and the fault may be in one of them, the outcome of each is
	// Transient and Shared: such a message goes alone next time. No Send.Key is passed to the provider: the key of a message
	// stands for a call with that message alone.
	SendBatch(ctx context.Context, all []*Send) []Outcome
}

// Outcome is what Send returns.
type Outcome struct {
	Receipt Receipt
	Err     error
	LeftOut bool // the message was not in the call
}

// ForAll gives the outcomes that are not set yet the error of a call that failed as a whole. A fault that may be in one of the
// messages is Transient for each: sent alone, each gets its own answer. The provider's words may be about another tenant's
// message, and are not passed on. Messages with the same content also have the same sender: a fault of that is each one's.
func ForAll(outcomes []Outcome, err error, alike bool) []Outcome {
	if e, ok := errors.AsType[*Error](err); ok && e.mayBeOfOne() && (!alike || e.Class != Misconfigured) {
		err = &Error{Class: Transient, Status: e.Status, Code: e.Code, Detail: "the call was refused for all of its messages", Shared: true}
	}
	for i := range outcomes {
		if outcomes[i].Err == nil {
			outcomes[i].Err = err
		}
	}
	return outcomes
}

// mayBeOfOne reports whether the fault may be in one of several messages, and not in the account.
func (e *Error) mayBeOfOne() bool {
	switch e.Class {
	case Rejected, BadRecipient:
		return true
	case Misconfigured:
		return e.Suspect || e.Scope != ScopeAccount
	case Accepted, Transient, Throttled, Uncertain:
	}
	return false
}

// Send is the work of one message in a call. Message is shared and read-only. To, Cc and Bcc are the recipients of this attempt: those of the
// message that are not settled yet. At least one of the three is not empty.
type Send struct {
	Message     *mail.Message
	To, Cc, Bcc []mail.Address
	Attempt     int // 1-based

	// Key is the same for all calls of a message whose earlier calls may have sent it. An adapter with Spec.Repeat passes it
	// to the provider, and its request then depends only on Message, the recipients and the settings.
	Key string
}

// Envelope lists all recipients of the attempt.
func (s *Send) Envelope() []mail.Address {
	all := make([]mail.Address, 0, len(s.To)+len(s.Cc)+len(s.Bcc))
	return append(append(append(all, s.To...), s.Cc...), s.Bcc...)
}

// Receipt is the provider's acceptance.
type Receipt struct {
	ProviderMessageID string    // the id that later events use; "" when the provider gives none
	Detail            string    // the reply in the provider's words, at most 500 bytes
	Refused           []Refusal // recipients that were not taken although the message was
}

// Refusal is one recipient that the provider would not take. Class is BadRecipient (ends the recipient) or Transient
// (the recipient stays queued).
type Refusal struct {
	Email      string // canonical, as given in Send
	Class      Class
	Code       string      // provider's code or enhanced status
	Detail     string      // at most 500 bytes
	Suppressed bool        // the provider has the address on a suppression list
	Full       bool        // of Transient: the call had no more room; the recipient may go in another one at once
	Reason     mail.Reason // of BadRecipient, if the reply says it; a hard one keeps the address from being mailed again
	Rule       string      // the rule that decided on Reason
}

// Class is what happened, as the adapter reports it. The engine acts on the class and on nothing else.
type Class string

// The classes. The zero value is not a class.
const (
	Accepted      Class = "accepted"      // the provider took responsibility
	Transient     Class = "transient"     // nothing was sent; later or elsewhere it may work
	Throttled     Class = "throttled"     // nothing was sent; a limit was hit
	Rejected      Class = "rejected"      // nothing was sent; this content will never be taken here
	BadRecipient  Class = "bad_recipient" // nothing was sent; the recipients listed can't be mailed
	Misconfigured Class = "misconfigured" // nothing was sent; our credential, account or sender is wrong
	Uncertain     Class = "uncertain"     // the message may or may not have been taken
)

// Classes lists every class, for tables and tests.
func Classes() []Class {
	return []Class{Accepted, Transient, Throttled, Rejected, BadRecipient, Misconfigured, Uncertain}
}

// Scope says how much a Misconfigured affects, or a Rejected that is Suspect.
type Scope string

// The scopes.
const (
	ScopeAccount Scope = ""        // the whole account is parked
	ScopeSender  Scope = "sender"  // only this sender domain is parked on this account
	ScopeAddress Scope = "address" // only this sender address: others in the domain may be known there
)

// Error is any outcome of a call that is not an acceptance. It never holds a credential or a message body.
type Error struct {
	Class      Class
	Scope      Scope         // for Misconfigured, and for a Rejected with Suspect
	Status     int           // HTTP or SMTP status, 0 when none came
	Code       string        // the provider's own code: "406", "MessageRejected", "5.7.1"
	Detail     string        // the provider's words, at most 500 bytes, scrubbed
	RetryAfter time.Duration // for Throttled and Transient: earliest next try, 0 unknown
	Refused    []Refusal     // for BadRecipient: those concerned; empty means all. For Uncertain: those that were surely not taken
	Again      bool          // for Transient: only another message of the same call is at fault, so this one may go again at once
	Shared     bool          // for Transient: the fault may be in another message of the same call, so it says nothing of the account
	Elsewhere  bool          // for Rejected: a cap of this provider; another account may take the message
	Suspect    bool          // for Misconfigured, Rejected: one proves nothing; if others in a row get the same, Scope is at fault
	Final      bool          // for Uncertain: the same call would bring the same answer, so it is not repeated
	Err        error         // cause, if any
}

// Error implements error.
func (e *Error) Error() string {
	s := string(e.Class)
	if e.Status != 0 {
		s += fmt.Sprintf(": status %d", e.Status)
	}
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil && e.Detail == "" {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// MaxDetail caps Detail fields, in bytes.
const MaxDetail = 500

// Cut shortens s to MaxDetail bytes at a rune boundary and replaces control characters by spaces.
func Cut(s string) string {
	b := make([]rune, 0, min(len(s), MaxDetail))
	n := 0
	for _, r := range s {
		if r < 0x20 || r == 0x7f {
			r = ' '
		}
		if n += len(string(r)); n > MaxDetail {
			break
		}
		b = append(b, r)
	}
	return string(b)
}
