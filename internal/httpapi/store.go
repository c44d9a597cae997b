package httpapi

import (
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// Store is the part of the database that the handlers need. Every method that changes configuration writes its audit entry
// and moves the configuration version in the same transaction. Errors: record.ErrNotFound for an unknown name,
// record.ErrConflict for a name that is taken, record.ErrStale for a stale version. *record.Unavailable means that the
// database can't answer: nothing was changed, and nothing will be. *record.OutcomeUnknown means that nobody knows whether
// the change was made.
type Store interface {
	SendStore
	MessageStore
	EventStore
	SuppressionStore
	KeyStore
	TenantStore
	UserStore
	AccountStore
	PoolStore
	RuleStore
	StateStore
}

// Kinds knows the provider kinds and checks an account's settings.
type Kinds interface {
	Spec(kind provider.Kind) (provider.Spec, bool)
	// Validate builds the adapter from settings and secrets and throws it away; an error is shown to the operator.
	Validate(kind provider.Kind, settings []byte, secrets map[string]seal.Secret) error
	DocumentedLimits(kind provider.Kind) []limit.Window
	// MessageIDHeader returns the Message-ID that recipients see on a mail that a provider accepted, "" if unknown.
	MessageIDHeader(kind provider.Kind, settings func() []byte, ours, providerID string) string
}

// Router decides for a message without sending it, by the configuration in force and the live state of this replica.
type Router interface {
	// Explain takes the present as the time of the request. A request without a seed gets one.
	Explain(r route.Request) route.Decision
}
