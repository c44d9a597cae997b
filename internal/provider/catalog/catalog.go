// Package catalog knows which kinds of provider exist. It is the one place that imports every adapter. All other code uses
// provider.Spec, provider.Provider and settings in JSON.
//
// It decides nothing about a single provider except its documented limits, which are this project's defaults and not the
// adapters' concern. The most likely mistake of a newcomer is to switch on a Kind somewhere else: a difference between kinds
// belongs in the adapter, or in a column of table.
package catalog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/resend"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
	"github.com/sendgate/sendgate/internal/provider/ses"
	"github.com/sendgate/sendgate/internal/provider/smtp"
	"github.com/sendgate/sendgate/internal/seal"
)

// entry is one kind.
type entry struct {
	spec   provider.Spec
	limits []limit.Window
	open   func(settings []byte, secrets map[string]seal.Secret) (provider.Provider, provider.Capabilities, error)

	// messageID is the Message-ID header with which the kind replaces ours; nil if it keeps ours.
	messageID func(settings []byte, providerID string) string
}

// table lists the kinds. The limits are those in their documentation, or those of a common plan. An account starts with them, and
// operators change them per account. SES counts recipients as well as calls.
func table() []entry {
	window := func(n int, per time.Duration, unit limit.Unit) limit.Window {
		return limit.Window{N: n, Per: per, Unit: unit}
	}
	return []entry{
		kind(sendgrid.Spec(), sendgrid.ParseConfig, sendgrid.New,
			window(100, 5*time.Minute, limit.Requests), window(1000, time.Hour, limit.Requests)),
		kind(mailgun.Spec(), mailgun.ParseConfig, mailgun.New,
			window(2000, time.Hour, limit.Messages)),
		kind(postmark.Spec(), postmark.ParseConfig, postmark.New,
			window(10, time.Second, limit.Requests), window(500, time.Minute, limit.Requests)),
		kind(resend.Spec(), resend.ParseConfig, resend.New,
			window(5, time.Second, limit.Requests)).replacing(resend.MessageIDHeader),
		kind(ses.Spec(), ses.ParseConfig, ses.New,
			window(14, time.Second, limit.Requests), window(200, time.Second, limit.Recipients),
			window(50_000, 24*time.Hour, limit.Recipients)).replacing(ses.MessageIDHeader),
		kind(smtp.Spec(), smtp.ParseConfig, smtp.New,
			window(1000, time.Minute, limit.Messages)),
	}
}

// kind makes the entry of an adapter from what every adapter package exports.
func kind[C any, P provider.Provider](
	spec provider.Spec, parse func([]byte, map[string]seal.Secret) (C, error), open func(C) (P, error), limits ...limit.Window,
) entry {
	return entry{
		spec: spec, limits: limits,
		open: func(settings []byte, secrets map[string]seal.Secret) (provider.Provider, provider.Capabilities, error) {
			config, err := parse(settings, secrets)
			if err != nil {
				return nil, provider.Capabilities{}, err
			}
			client, err := open(config)
			if err != nil {
				return nil, provider.Capabilities{}, err
			}
			if c, ok := any(config).(interface{ Capabilities() provider.Capabilities }); ok {
				return client, c.Capabilities(), nil // they depend on the settings
			}
			return client, spec.Capabilities, nil
		},
	}
}

// replacing sets the Message-ID with which the kind replaces ours.
func (e entry) replacing(messageID func(settings []byte, providerID string) string) entry {
	e.messageID = messageID
	return e
}

// Specs describes every kind.
func Specs() []provider.Spec {
	var specs []provider.Spec
	for _, e := range table() {
		specs = append(specs, e.spec)
	}
	return specs
}

// Spec describes one kind; false means that there is none of this name.
func Spec(kind provider.Kind) (provider.Spec, bool) {
	e, err := find(kind)
	return e.spec, err == nil
}

// New builds the adapter of an account and says what it can carry. An error is for the operator: it names the kind and the
// setting, and no secret. New opens no connection; the caller closes the provider.
func New(kind provider.Kind, settings []byte, secrets map[string]seal.Secret) (provider.Provider, provider.Capabilities, error) {
	e, err := find(kind)
	if err != nil {
		return nil, provider.Capabilities{}, err
	}
	p, can, err := e.open(settings, secrets)
	if err != nil {
		return nil, provider.Capabilities{}, named(kind, err)
	}
	return p, can, nil
}

// DocumentedLimits returns the windows that an account of the kind starts with, none for an unknown kind.
func DocumentedLimits(kind provider.Kind) []limit.Window {
	e, err := find(kind)
	if err != nil {
		return nil
	}
	return e.limits
}

func find(kind provider.Kind) (entry, error) {
	var known []string
	for _, e := range table() {
		if e.spec.Kind == kind {
			return e, nil
		}
		known = append(known, string(e.spec.Kind))
	}
	slices.Sort(known)
	return entry{}, fmt.Errorf("kind %.40q is unknown; want one of %s", string(kind), strings.Join(known, ", "))
}

// named makes sure that the error names the kind exactly once.
func named(kind provider.Kind, err error) error {
	if strings.HasPrefix(err.Error(), string(kind)) {
		return err
	}
	return fmt.Errorf("%s: %w", kind, err)
}

// Catalog is the catalog as a value, for code that takes one as an argument.
type Catalog struct{}

// Spec describes one kind; false means that there is none of this name.
func (Catalog) Spec(kind provider.Kind) (provider.Spec, bool) { return Spec(kind) }

// Validate builds the adapter and closes it. It makes no call: a wrong credential shows at the first send.
func (Catalog) Validate(kind provider.Kind, settings []byte, secrets map[string]seal.Secret) error {
	p, _, err := New(kind, settings, secrets)
	if err != nil {
		return err
	}
	return p.Close()
}

// DocumentedLimits returns the windows that an account of the kind starts with.
func (Catalog) DocumentedLimits(kind provider.Kind) []limit.Window { return DocumentedLimits(kind) }

// MessageIDHeader returns the Message-ID that recipients see on a mail that an account took, with its angle brackets, or "" if it
// is not known. ours and providerID come without brackets; settings is called only if they are needed.
func (Catalog) MessageIDHeader(kind provider.Kind, settings func() []byte, ours, providerID string) string {
	e, err := find(kind)
	if err != nil || e.messageID == nil {
		return "<" + ours + ">"
	}
	return e.messageID(settings(), providerID)
}
