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

// Store is what the handlers need of the database. Every method that changes configuration writes its audit entry and
// moves the configuration version in the same transaction. Unknown names answer mail.ErrNotFound, names taken
// mail.ErrConflict, a stale version mail.ErrStale, a database that can't answer *mail.Unavailable: then nothing is changed,
// and nothing will be. A change of which nobody knows whether it was made is *mail.OutcomeUnknown.
type Store interface {
	// Accept makes a submission durable, or refuses it: mail.ErrMismatch, *mail.Unavailable, *mail.OutcomeUnknown.
	Accept(ctx context.Context, s *record.Submission) (record.Accepted, error)
	// AcceptAll does so for many at once, each on its own account: errs[i] belongs to subs[i].
	AcceptAll(ctx context.Context, subs []*record.Submission) (accepted []record.Accepted, errs []error)
	// Replay gives the first answer to a submission whose key is there already, with the same fingerprint: mail.ErrNotFound,
	// mail.ErrMismatch.
	Replay(ctx context.Context, s *record.Submission) (record.Accepted, error)

	Message(ctx context.Context, t mail.TenantID, id mail.ID) (*record.View, error)
	Waiting(ctx context.Context, id mail.ID) (*queue.Waiting, error)           // of any tenant
	Messages(ctx context.Context, f record.Filter) ([]record.View, error)      // without Attempts
	Cancel(ctx context.Context, t mail.TenantID, id mail.ID) error             // mail.ErrConflict: too late
	Resend(ctx context.Context, t mail.TenantID, id mail.ID, force bool) error // mail.ErrConflict: not failed; mail.ErrMaybeSent: asks for force

	EventStore

	// Suppress stops mail to an address, unless a suppression is there that lasts as long.
	Suppress(ctx context.Context, s record.Suppression) error
	// ImportSuppressions does so for many and tells how many were new.
	ImportSuppressions(ctx context.Context, t mail.TenantID, list []record.Suppression) (added int64, err error)
	// Unsuppress forgets all suppressions of an address, or those of the given streams. Unless complaints is set, it forgets
	// none where one of them is a complaint's: mail.ErrForbidden.
	Unsuppress(ctx context.Context, actor string, t mail.TenantID, email string, complaints bool, streams ...string) error
	// FindSuppressions lists by address and stream, behind those of after, what Email, Stream and Reason of match select.
	FindSuppressions(ctx context.Context, match, after record.Suppression, limit int) ([]record.Suppression, error)

	KeyByID(ctx context.Context, id string) (*record.Key, error)
	// KeyIDs lists the ids of the keys that are neither revoked nor expired.
	KeyIDs(ctx context.Context) ([]string, error)
	TouchKey(ctx context.Context, id string) error
	Keys(ctx context.Context) ([]record.Key, error)
	CreateKey(ctx context.Context, actor string, k record.Key) error
	SetKeyNetworks(ctx context.Context, actor, id string, networks []netip.Prefix) error
	// RotateKey makes a key as the one of that id, which ends after the overlap; mail.ErrNotFound: it has ended already.
	RotateKey(ctx context.Context, actor, id, next string, hash []byte, overlap time.Duration) error
	RevokeKey(ctx context.Context, actor, id string) error

	Tenants(ctx context.Context) ([]record.Tenant, error)
	CreateTenant(ctx context.Context, actor string, t record.Tenant) (record.Tenant, error)
	UpdateTenant(ctx context.Context, actor, name string, weight int, paused bool) error

	// Config reads the whole routing configuration from the database. Capabilities may be empty: they are the kind's.
	Config(ctx context.Context) (*route.Config, error)
	// Secrets opens the secrets of an account, by its id, and gives those that open beside seal.ErrSealed, so that a change of its settings is validated with them.
	// Handlers give them to Kinds.Validate and to nobody else.
	Secrets(ctx context.Context, account int32) (map[string]seal.Secret, error)
	CreateAccount(ctx context.Context, actor string, a route.Account, secrets map[string]seal.Secret) error
	// UpdateAccount stores settings, concurrency and the given secrets; secrets that are not given stay. It also takes
	// the account out of its parks.
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
	Ping(ctx context.Context) error // database answers and its schema is ours
}

// EventStore keeps what providers report.
type EventStore interface {
	// ReceiveEvents makes what came durable and applies it: mail.ErrReplayed, *mail.Unavailable.
	ReceiveEvents(ctx context.Context, in record.Intake) (record.Taken, error)
	Events(ctx context.Context, f record.EventFilter) ([]mail.Event, error)
	// EventHead gives the place behind all events, and EventsAfter those behind a place, in an order in which nothing is
	// ever added before what was read. A place that is none is mail.ErrNotFound. None may be given although there are
	// more; next has moved on then.
	EventHead(ctx context.Context) (position string, err error)
	EventsAfter(ctx context.Context, f record.EventFilter, position string, limit int) (events []mail.Event, next string, err error)
	Stats(ctx context.Context, f record.StatsFilter) ([]record.Stat, error)

	HookHealth(ctx context.Context) ([]record.HookHealth, error)
	// RawEvents reads kept payloads by the time of their receipt, of one account or, for "", of all.
	RawEvents(ctx context.Context, account string, since time.Time, after mail.ID, limit int) ([]record.RawEvent, error)
	// Reproject puts what a parser makes of payloads today in the place of what it made of them before.
	Reproject(ctx context.Context, in []record.Reprojected, dryRun bool) (changed, messages int, err error)
}

// Kinds tells what provider kinds exist and checks an account's settings.
type Kinds interface {
	Spec(kind provider.Kind) (provider.Spec, bool)
	// Validate builds the adapter from settings and secrets and throws it away; an error is for the operator's eyes.
	Validate(kind provider.Kind, settings []byte, secrets map[string]seal.Secret) error
	DocumentedLimits(kind provider.Kind) []limit.Window
	// MessageIDHeader is the Message-ID under which recipients have a mail that was taken, "" if unknown.
	MessageIDHeader(kind provider.Kind, settings func() []byte, ours, providerID string) string
}

// Router answers for a message that is not sent, from the configuration in force and the live state of this replica.
type Router interface {
	// The time of the request is the present, and one without a seed gets one.
	Explain(r route.Request) route.Decision
}
