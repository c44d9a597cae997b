package httpapi

import (
	"context"
	"net/netip"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// Store is the part of the database that the handlers need. Every method that changes configuration writes its audit entry
// and moves the configuration version in the same transaction. Errors: record.ErrNotFound for an unknown name,
// record.ErrConflict for a name that is taken, record.ErrStale for a stale version. *record.Unavailable means that the
// database can't answer: nothing was changed, and nothing will be. *record.OutcomeUnknown means that nobody knows whether
// the change was made.
type Store interface {
	// Accept makes a submission durable, or refuses it: record.ErrMismatch, *record.Unavailable, *record.OutcomeUnknown.
	Accept(ctx context.Context, s *record.Submission) (record.Accepted, error)
	// AcceptAll is Accept for many at once. Each one succeeds or fails on its own: errs[i] belongs to subs[i].
	AcceptAll(ctx context.Context, subs []*record.Submission) (accepted []record.Accepted, errs []error)
	// Replay returns the first answer to a submission with the same idempotency key and fingerprint. Errors:
	// record.ErrNotFound for an unknown key, record.ErrMismatch for another fingerprint.
	Replay(ctx context.Context, s *record.Submission) (record.Accepted, error)

	Message(ctx context.Context, t mail.TenantID, id mail.ID) (*record.View, error)
	Waiting(ctx context.Context, id mail.ID) (*queue.Waiting, error)           // of any tenant
	Messages(ctx context.Context, f record.Filter) ([]record.View, error)      // without Attempts
	Cancel(ctx context.Context, t mail.TenantID, id mail.ID) error             // record.ErrConflict: too late
	Resend(ctx context.Context, t mail.TenantID, id mail.ID, force bool) error // ErrConflict: not failed; ErrMaybeSent: needs force

	EventStore

	// Suppress stops mail to an address, unless there is a suppression that lasts at least as long.
	Suppress(ctx context.Context, s record.Suppression) error
	// ImportSuppressions is Suppress for many and returns how many were new.
	ImportSuppressions(ctx context.Context, t mail.TenantID, list []record.Suppression) (added int64, err error)
	// Unsuppress removes all suppressions of an address, or those of the given streams. If one of them comes from a complaint
	// and complaints is not set, it removes none: record.ErrForbidden.
	Unsuppress(ctx context.Context, actor string, t mail.TenantID, email string, complaints bool, streams ...string) error
	// FindSuppressions lists the suppressions that Email, Stream and Reason of match select, by address and stream, starting
	// behind after.
	FindSuppressions(ctx context.Context, match, after record.Suppression, limit int) ([]record.Suppression, error)

	KeyByID(ctx context.Context, id string) (*record.Key, error)
	// KeyIDs lists the ids of the keys that are neither revoked nor expired.
	KeyIDs(ctx context.Context) ([]string, error)
	TouchKey(ctx context.Context, id string) error
	Keys(ctx context.Context) ([]record.Key, error)
	CreateKey(ctx context.Context, actor string, k record.Key) error
	SetKeyNetworks(ctx context.Context, actor, id string, networks []netip.Prefix) error
	// RotateKey makes a new key with the rights of key id; the old key ends after the overlap. record.ErrNotFound: it has ended
	// already.
	RotateKey(ctx context.Context, actor, id, next string, hash []byte, overlap time.Duration) error
	RevokeKey(ctx context.Context, actor, id string) error

	Tenants(ctx context.Context) ([]record.Tenant, error)
	CreateTenant(ctx context.Context, actor string, t record.Tenant) (record.Tenant, error)
	UpdateTenant(ctx context.Context, actor, name string, weight int, paused bool) error

	// Config reads the whole routing configuration from the database. Capabilities may be empty: then those of the kind hold.
	Config(ctx context.Context) (*route.Config, error)
	// Secrets opens the secrets of an account, so that a change of its settings can be validated with them. If some do not open,
	// it returns the others with seal.ErrSealed. Handlers pass secrets to Kinds.Validate and nowhere else.
	Secrets(ctx context.Context, account int32) (map[string]seal.Secret, error)
	CreateAccount(ctx context.Context, actor string, a route.Account, secrets map[string]seal.Secret) error
	// UpdateAccount stores settings, concurrency and the given secrets; other secrets stay. It also ends the account's parks.
	UpdateAccount(ctx context.Context, actor string, a route.Account, secrets map[string]seal.Secret) error
	SetLimits(ctx context.Context, actor, account string, windows []limit.Window) error
	PauseAccount(ctx context.Context, actor, account string) error
	ResumeAccount(ctx context.Context, actor, account string) error // unpauses and clears parks
	DeleteAccount(ctx context.Context, actor, account string) error // drains first

	CreatePool(ctx context.Context, actor string, p route.Pool) error
	UpdatePool(ctx context.Context, actor string, p route.Pool, ifVersion int64) (route.Pool, error) // 0: any version
	SetRules(ctx context.Context, actor string, rules []route.Rule) error                            // replaces all
	CreateRule(ctx context.Context, actor string, r route.Rule) (route.Rule, error)
	DeleteRule(ctx context.Context, actor string, id int64) error

	Queue(ctx context.Context) (record.QueueState, error)
	LimitStates(ctx context.Context) ([]limit.State, error)
	Audit(ctx context.Context, f record.AuditFilter) ([]record.AuditEntry, error)
	Ping(ctx context.Context) error // the database answers and has our schema
}

// EventStore keeps the events that providers report.
type EventStore interface {
	// ReceiveEvents stores events and applies them. Errors: record.ErrReplayed, *record.Unavailable.
	ReceiveEvents(ctx context.Context, in record.Intake) (record.Taken, error)
	Events(ctx context.Context, f record.EventFilter) ([]mail.Event, error)
	// EventHead returns the position behind all events. EventsAfter returns events behind a position; no event is ever added
	// before one that was read. A position that is not valid is record.ErrNotFound. The list may be empty although more
	// events follow; next has then moved on.
	EventHead(ctx context.Context) (position string, err error)
	EventsAfter(ctx context.Context, f record.EventFilter, position string, limit int) (events []mail.Event, next string, err error)
	Stats(ctx context.Context, f record.StatsFilter) ([]record.Stat, error)

	HookHealth(ctx context.Context) ([]record.HookHealth, error)
	// RawEvents reads kept payloads by time of receipt, of one account, or of all if account is "".
	RawEvents(ctx context.Context, account string, since time.Time, after mail.ID, limit int) ([]record.RawEvent, error)
	// Reproject replaces the events that were once parsed from payloads by those that the parser finds in them today.
	Reproject(ctx context.Context, in []record.Reprojected, dryRun bool) (changed, messages int, err error)
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
