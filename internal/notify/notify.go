// Package notify watches the service and tells people when something is wrong.
//
// One replica at a time has the lease of the watch. Every few seconds it gathers facts, lets package incident judge them,
// stores what began and what ended, and tells each of these by each rule that wants it, once: by a signed webhook, by a POST
// that Slack understands, or by mail through another account than the one that the incident is about.
//
// A newcomer's likeliest mistake is to tell first and store afterwards. The store makes a notice in the transaction that
// begins or ends an incident, and only notices are told. A notice is told again only if nobody knows that it was taken; then
// it has the same id.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// Store is what the watch needs of the database.
type Store interface {
	// LeaseWatch makes owner the one that watches, unless another is. EndWatch gives that up.
	LeaseWatch(ctx context.Context, owner mail.ID, lease time.Duration) (mine bool, err error)
	EndWatch(ctx context.Context, owner mail.ID) error
	// CountOutcomes counts what was reported since it was called last, by any replica.
	CountOutcomes(ctx context.Context) (record.Counted, error)
	IncidentFacts(ctx context.Context, c *route.Config) (*incident.Facts, error)
	OpenIncidents(ctx context.Context) ([]incident.Incident, error)
	// KeepIncidents stores a step and makes its notices. It returns record.ErrStale if owner does not have the lease.
	KeepIncidents(ctx context.Context, owner mail.ID, c incident.Changes) error
	DueNotices(ctx context.Context, limit int) ([]incident.Notice, error)
	FinishNotice(ctx context.Context, r incident.Result) error
	NotifyRule(ctx context.Context, name string) (*incident.Rule, error)
	// NoticeMail returns the status and the account of a mail that was made for a notice.
	NoticeMail(ctx context.Context, id mail.ID) (mail.Status, string, error)
	// Accept stores a mail. A key that was used before gives the mail that it made.
	Accept(ctx context.Context, sub *record.Submission) (record.Accepted, error)
	// Cancel returns record.ErrConflict when it is too late.
	Cancel(ctx context.Context, t mail.TenantID, id mail.ID) error
}

// Router knows the configuration in force and says which account would take a mail now.
type Router interface {
	Config() *route.Config // nil before it was first read
	Explain(r route.Request) route.Decision
}

// Options shape an Engine. All but Every, Log and Metrics are required.
type Options struct {
	Store   Store
	Router  Router
	Client  *http.Client // calls public addresses only, and limits the time of each call
	Sign    func(h http.Header, id string, at time.Time, body []byte, secret seal.Secret) error
	Reports func(provider.Kind) bool // the kind reports deliveries
	Log     *slog.Logger
	Metrics *telemetry.Metrics
	Clock   *mail.Clock   // the store's
	Every   time.Duration // between two looks; default 5 s
}

const (
	every    = 5 * time.Second
	lease    = 30 * time.Second
	dbWait   = 10 * time.Second // for one exchange with the database
	callWait = 10 * time.Second // for one webhook
	// restShare makes the looks take at most 2 % of the time of one connection.
	restShare = 50
	longest   = 30 * time.Second // between two looks
	atOnce    = 20               // notices that are told at a time
)

// Engine is the watch of one replica. Make it with New; call Run once. Test is safe for concurrent use.
type Engine struct {
	Options
	owner mail.ID
	mine  bool // this replica has the lease, as far as it knows
}

// New makes an engine that does nothing yet.
func New(o Options) (*Engine, error) {
	if o.Store == nil || o.Router == nil || o.Client == nil || o.Sign == nil || o.Reports == nil || o.Log == nil || o.Metrics == nil || o.Clock == nil {
		return nil, errors.New("notify: an option is missing")
	}
	if o.Every <= 0 {
		o.Every = every
	}
	return &Engine{Options: o, owner: o.Clock.NewID()}, nil
}

// Run watches until ctx ends, and then gives up the lease.
func (e *Engine) Run(ctx context.Context) {
	defer e.leave(context.WithoutCancel(ctx))
	for {
		took, err := e.look(ctx)
		if err != nil && ctx.Err() == nil {
			e.Log.WarnContext(ctx, "the watch failed", "error", err)
		}
		timer := time.NewTimer(max(e.Every, min(restShare*took, longest)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// leave gives up the lease, and its figures: another replica has them from now on.
func (e *Engine) leave(ctx context.Context) {
	if !e.mine {
		return
	}
	e.mine = false
	e.Metrics.Unwatched()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := e.Store.EndWatch(ctx, e.owner); err != nil {
		e.Log.WarnContext(ctx, "the lease of the watch was not given up", "error", err)
	}
}

// look judges and tells, if this replica is the one that watches. It returns how long the judging took.
func (e *Engine) look(ctx context.Context) (time.Duration, error) {
	c := e.Router.Config()
	if c == nil {
		return 0, nil
	}
	mine, err := e.Store.LeaseWatch(ctx, e.owner, lease)
	if e.mine && !mine {
		e.Metrics.Unwatched()
	}
	if e.mine = mine; err != nil || !mine {
		return 0, err
	}
	began := time.Now()
	open, err := e.judge(ctx, c)
	took := time.Since(began)
	// What was stored before is told in any case: the database may be back, and the judgement may not.
	return took, errors.Join(err, e.tell(ctx, open))
}

// judge brings the incidents in line with the facts, and returns those that are open.
func (e *Engine) judge(ctx context.Context, c *route.Config) ([]incident.Incident, error) {
	ctx, cancel := context.WithTimeout(ctx, dbWait)
	defer cancel()
	counts, err := e.Store.CountOutcomes(ctx)
	if err != nil {
		return nil, err
	}
	e.count(c, counts)
	f, err := e.Store.IncidentFacts(ctx, c)
	if err != nil {
		return nil, err
	}
	for i := range f.Accounts {
		if a := c.Account(f.Accounts[i].Name); a != nil {
			f.Accounts[i].Reports = e.Reports(a.Kind)
		}
	}
	open, err := e.Store.OpenIncidents(ctx)
	if err != nil {
		return nil, err
	}
	found := incident.Judge(f)
	changes := incident.Step(open, found, f.Now, e.Clock.NewID)
	if err := e.Store.KeepIncidents(ctx, e.owner, changes); err != nil {
		return nil, err
	}
	e.measure(f, found, changes.Keep)
	for i := range changes.Began {
		e.log(ctx, "an incident began", &changes.Began[i])
	}
	for i := range changes.Ended {
		e.log(ctx, "an incident ended", &changes.Ended[i])
	}
	return changes.Keep, nil
}

// log writes an incident without its subject and detail, which may name addresses.
func (e *Engine) log(ctx context.Context, msg string, in *incident.Incident) {
	e.Log.WarnContext(ctx, msg, "incident", in.ID, "kind", in.Kind, "account", in.Account, "since", in.Since) //nolint:sloglint // one of two
}
