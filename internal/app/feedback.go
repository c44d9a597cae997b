package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/forward"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/lmtp"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/series"
	"github.com/sendgate/sendgate/internal/unsub"
)

// jail returns which addresses of the callers' choice may be called: public ones, and those that the operator allowed.
func (a *App) jail() jail.Options {
	var o jail.Options
	for _, t := range a.cfg.ForwardAllow {
		o.Allow = append(o.Allow, jail.Target{Prefix: t.Prefix, Port: t.Port})
	}
	return o
}

// links returns the signer of one-click unsubscribe links, or nil without a public URL.
func (a *App) links() (*unsub.Signer, error) {
	if a.cfg.PublicURL == "" {
		return nil, nil //nolint:nilnil // bulk mail gets no links then
	}
	keys := a.derivedKeys("sendgate unsubscribe key")
	s, err := unsub.New(keys[0], a.cfg.PublicURL, keys[1:]...)
	if err != nil {
		return nil, fmt.Errorf("SENDGATE_PUBLIC_URL: %w", err)
	}
	return s, nil
}

// startForward starts the delivery of events to webhook endpoints.
func (a *App) startForward() error {
	engine, err := forward.New(forward.Options{
		Store: a.db, Client: jail.New(a.jail()), Log: a.log, Clock: a.clock.Now,
		Observe: func(outcome string, _ time.Duration) { a.metrics.Deliveries.WithLabelValues(outcome).Inc() },
	})
	if err != nil {
		return err
	}
	a.forward = engine
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		engine.Run(ctx)
	}()
	a.onStop("webhook deliveries", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
	return nil
}

// tallyEvery is how often counts are stored.
const tallyEvery = 5 * time.Second

// readsKept is how many audit entries of reads are kept while the database is away; the oldest are lost first.
const readsKept = 10_000

// startTally stores this replica's counts at intervals and once more at the end: those for plots, of its receivers, of failed
// logins, and of reads of bodies.
func (a *App) startTally(s *httpapi.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var reads []record.BodyReads // not stored yet
	sampler := series.NewSampler(a.registry)
	tell := func(all bool) {
		ctx, cancel := context.WithTimeout(context.Background(), tallyEvery)
		defer cancel()
		if err := a.storeSeries(ctx, sampler); err != nil {
			a.log.Warn("counts for plots not stored", "error", err)
		}
		if err := a.db.TallyHooks(ctx, s.Tallies()); err != nil {
			a.log.Warn("counts of receivers not stored", "error", err)
		}
		if err := a.db.NoteFailedLogins(ctx, s.FailedLogins(all)); err != nil {
			a.log.Warn("failed logins not stored", "error", err)
		}
		reads = append(reads, s.BodyReads(all)...)
		reads = reads[max(0, len(reads)-readsKept):]
		var err error
		if reads, err = a.db.NoteBodyReads(ctx, reads); err != nil {
			a.log.Warn("reads of bodies not in the audit yet", "entries", len(reads), "error", err)
		}
	}
	go func() {
		defer close(done)
		ticker := time.NewTicker(tallyEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				tell(false)
			case <-ctx.Done():
				tell(true)
				return
			}
		}
	}()
	a.onStop("counts", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// storeSeries adds what this process counted to the counts of all replicas.
func (a *App) storeSeries(ctx context.Context, s *series.Sampler) error {
	gained, keep, err := s.Take(a.clock.Now())
	if err != nil {
		return err
	}
	if err := a.db.AddSeries(ctx, gained); err != nil {
		return err
	}
	keep()
	return nil
}

// startLMTP starts the listener for bounces of SMTP relays.
func (a *App) startLMTP() error {
	if a.cfg.LMTPListen == "" {
		return nil
	}
	server, err := lmtp.New(lmtp.Options{Listen: a.cfg.LMTPListen, Receive: a.receiveBounce, Knows: a.knowsBounce, Log: a.log})
	if err != nil {
		return fmt.Errorf("SENDGATE_LMTP_LISTEN: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("SENDGATE_LMTP_LISTEN: %w", err)
	}
	a.LMTPAddr = server.Addr().String()
	a.onStop("lmtp listener", server.Stop)
	return nil
}

// knowsBounce reports whether an address bears the mark of a relay account. Right after the start, before the accounts are
// read, it returns true for any address.
func (a *App) knowsBounce(rcptTo string) bool {
	c := a.engine.Config()
	if c == nil {
		return true
	}
	for _, conf := range c.Accounts {
		_, parser, _ := a.engine.Hook(conf.Name)
		if k, ok := parser.(interface{ Knows(rcptTo string) bool }); ok && k.Knows(rcptTo) {
			return true
		}
	}
	return false
}

// receiveBounce gives one bounce to the relay account whose mark its recipient address bears. It tries each account, since
// only the account's key can verify the mark.
func (a *App) receiveBounce(ctx context.Context, mailFrom, rcptTo string, body []byte) error {
	h := &provider.Hook{Header: http.Header{}, Body: body, Now: a.clock.Now(), MailFrom: mailFrom, RcptTo: rcptTo}
	refused := error(&provider.HookError{Status: http.StatusNotFound, Reason: "unknown recipient"})
	c := a.engine.Config()
	if c == nil {
		return errors.New("the accounts have not been read yet")
	}
	for _, conf := range c.Accounts {
		id, parser, _ := a.engine.Hook(conf.Name)
		if conf.Kind != "smtp" || parser == nil {
			continue
		}
		batch, err := parser.Receive(ctx, h)
		if err != nil {
			refused = err
			if he, ok := errors.AsType[*provider.HookError](err); ok && (he.Reason == "signature" || he.Reason == "unconfigured") {
				continue // perhaps it is another account's
			}
			return err
		}
		return a.keepBounce(ctx, conf.Name, id, batch)
	}
	return refused
}

// keepBounce stores the events of a bounce and counts them.
func (a *App) keepBounce(ctx context.Context, account string, id int32, batch provider.Batch) error {
	if len(batch.Payloads) == 0 {
		a.log.Info("mail to a bounce address ignored", "account", account, "note", provider.Cut(batch.Note))
		return nil
	}
	taken, err := a.store().ReceiveEvents(ctx, record.Intake{
		Account: id, Source: mail.FromWebhook, Payloads: batch.Payloads,
	})
	if err != nil {
		return err
	}
	a.metrics.HookRequests.WithLabelValues(account, "stored").Inc()
	if batch.Dropped > 0 {
		a.metrics.HookEvents.WithLabelValues(account, "dropped").Add(float64(batch.Dropped))
		a.log.Warn("report names too many recipients", "account", account, "dropped", batch.Dropped)
	}
	n := int64(taken.Stored + taken.Orphans)
	if err := a.db.TallyHooks(ctx, []record.HookTally{{Account: id, Events: n, LastEvent: a.clock.Now()}}); err != nil {
		a.log.Warn("counts of receivers not stored", "error", err)
	}
	return nil
}
