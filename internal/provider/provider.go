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
//     the provider's codes to Class, one entry per documented code), and for what comes back events.go, hook.go, find.go and
//     register.go. The package comment names the provider's documentation pages.
//  2. suite_test.go calls providertest.Run: golden requests, every HTTP status, lost connections, bodies of strangers, repeats.
//     directions_test.go calls providertest.CheckSettings.
//  3. A folder internal/emulator/KIND, written from the same documentation and not from the adapter.
//  4. One line in the table of internal/provider/catalog (with the documented limits) and one in that of
//     internal/emulator/catalog; the kind in arch_test.go, in the enum of api/openapi.yaml and, for an account from the
//     environment, in catalog/environ.go and docker-compose.yml. Tests fail without the rule in arch_test.go and the enum.
//  5. Rows in the README's tables of providers and events, and a section in docs/providers.md and docs/webhooks.md.
//  6. If package deliver had to be changed, this interface is wrong: say so and fix the interface first.
package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// Kind names a provider: sendgrid, mailgun, postmark, resend, ses, smtp.
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

// Send is the work of one call. Message is shared and read-only. To, Cc and Bcc are the recipients of this attempt: those of the
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
