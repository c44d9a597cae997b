// Package app assembles the service: database, engine, API and the listener for operations. It starts them in order and
// stops them in reverse. It is the only package that imports all others, and it decides nothing that they could decide.
//
// The likeliest mistake of a newcomer is to start something without registering its end: Stop must take down everything
// that Start started, in the opposite order.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/dash"
	"github.com/sendgate/sendgate/internal/deliver"
	"github.com/sendgate/sendgate/internal/forward"
	"github.com/sendgate/sendgate/internal/hostcheck"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/notify"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// These types implement the store interfaces that the other packages declare.
var (
	_ httpapi.Store = (*store)(nil)
	_ notify.Store  = (*store)(nil)
	_ deliver.Store = (*postgres.DB)(nil)
)

// Times of a shutdown. For lingering the service reports that it is not ready and still serves, so that load balancers
// notice before anything is refused. Then listeners get closingGrace for the requests in progress. With the default
// Config.DrainTimeout of 25 s for the calls, the exit comes 30 s after the signal.
const (
	lingering    = 2 * time.Second
	closingGrace = 3 * time.Second
)

// App is one running service.
type App struct {
	cfg      config.Config
	log      *slog.Logger
	box      *seal.Box
	registry *prometheus.Registry
	metrics  *telemetry.Metrics
	db       *postgres.DB
	clock    *mail.Clock // the database's
	sessions bool        // connections are known to keep their sessions

	bodyBudget int64 // bytes of large bodies that are read at a time; 0 is the default

	certificate *keyPairFiles      // nil without TLS
	gate        dash.Gate          // lets people in at the dashboard; nil: package signin does
	mailbox     func() []dash.Mail // of the emulators; nil: there are none
	devLinks    bool               // one-time links may sign in without a password
	writes      writes
	engine      *deliver.Engine
	watch       *notify.Engine
	forward     *forward.Engine
	started     atomic.Bool // all parts are up
	leaving     atomic.Bool // not ready any more, but still serving
	draining    atomic.Bool // no new mail is accepted
	linger      time.Duration
	failed      chan error
	stops       []stop

	// URL, OpsURL and AdminURL are the addresses of the API, of the listener for operations and of the admin API, set once
	// Start has returned. AdminURL is "" if the admin API is served beside the API.
	URL, OpsURL, AdminURL string
	// LMTPAddr is the address that receives bounces, "" if none does.
	LMTPAddr string
}

// stop ends one thing that was started.
type stop struct {
	name string
	run  func(context.Context) error
}

// New checks the configuration and builds the service without starting anything.
func New(cfg config.Config, log *slog.Logger) (*App, error) {
	box, err := cfg.Box()
	if err != nil {
		return nil, err
	}
	var certificate *keyPairFiles
	if cfg.TLS() {
		certificate = &keyPairFiles{certFile: cfg.TLSCertFile, keyFile: cfg.TLSKeyFile}
	}
	registry := telemetry.NewRegistry()
	return &App{
		certificate: certificate,
		cfg:         cfg, log: log, box: box, registry: registry, metrics: telemetry.New(registry), failed: make(chan error, 4),
		linger: lingering, clock: mail.NewClock(nil, nil),
	}, nil
}

// Start brings the service up. If a part fails, the parts before it are stopped again.
func (a *App) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop())
		}
	}()
	if err := a.startOps(ctx); err != nil { // first up and last down: it reports the state of the rest
		return err
	}
	if err := a.openDatabase(ctx); err != nil {
		return err
	}
	if err := a.startEngine(); err != nil {
		return err
	}
	if err := a.startForward(); err != nil {
		return err
	}
	if err := a.startWatch(); err != nil {
		return err
	}
	if err := a.startLMTP(); err != nil {
		return err
	}
	if err := a.startAPI(ctx); err != nil {
		return err
	}
	a.started.Store(true)
	return nil
}

// Run waits until ctx ends or a part of the service fails, then stops the service.
func (a *App) Run(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
		a.log.Info("stopping: first not ready, then no new mail is accepted and calls in progress finish")
		a.leave()
	case err = <-a.failed:
	}
	return errors.Join(err, a.Stop())
}

// leave reports that this replica is not ready, and keeps serving for a while.
func (a *App) leave() {
	a.leaving.Store(true)
	timer := time.NewTimer(a.linger)
	defer timer.Stop()
	<-timer.C
}

// Stop takes the service down in reverse order. A second call does nothing.
func (a *App) Stop() error {
	a.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.DrainTimeout+5*time.Second)
	defer cancel()
	var errs []error
	for i := len(a.stops) - 1; i >= 0; i-- {
		if err := a.stops[i].run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", a.stops[i].name, err))
		}
	}
	a.stops = nil
	return errors.Join(errs...)
}

func (a *App) onStop(name string, run func(context.Context) error) {
	a.stops = append(a.stops, stop{name, run})
}

func (a *App) openDatabase(ctx context.Context) error {
	db, err := postgres.Open(ctx, postgres.Options{
		URL: a.cfg.DatabaseURL.Reveal(), Connections: a.cfg.DatabaseConnections, Box: a.box, AcceptQueue: a.cfg.AcceptQueue,
		AcceptQueueBytes: int64(a.cfg.AcceptQueueBytes), AcceptWait: a.cfg.AcceptWait, SoftLimit: a.cfg.SoftBounceLimit, Clock: a.clock,
		Observe: func(batch string, size int, _ time.Duration) {
			a.metrics.BatchSize.WithLabelValues(batch).Observe(float64(size))
		},
		AcceptedTwice: func(id mail.ID) {
			a.metrics.DuplicateAccepts.Inc()
			a.log.Warn("a message was accepted twice: its first call had no verdict", "message_id", id)
		},
	})
	if err != nil {
		return err
	}
	a.db = db
	a.onStop("database", func(context.Context) error { db.Close(); return nil })
	if err := a.awaitDatabase(ctx); err != nil {
		return err
	}
	a.startClock()
	return nil
}

// awaitDatabase waits up to a minute for a database that starts together with us. It does not wait if the schema does not fit,
// a pooler keeps no sessions, the secret key differs from that of the other processes, or this host's clock is off the
// database's.
func (a *App) awaitDatabase(ctx context.Context) error {
	deadline := time.Now().Add(time.Minute)
	for {
		err := a.checkSessions(ctx)
		if err == nil {
			err = a.db.Ping(ctx)
		}
		if err == nil {
			err = a.db.CheckKey(ctx)
		}
		if err == nil {
			err = a.db.ReadClock(ctx)
		}
		if err == nil {
			return a.db.Clock().Check()
		}
		if errors.Is(err, postgres.ErrPooled) || errors.Is(err, postgres.ErrSchema) || errors.Is(err, seal.ErrSealed) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("database %s: %w", postgres.SafeURL(a.cfg.DatabaseURL.Reveal()), err)
		}
		a.log.Warn("waiting for the database", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// checkSessions checks once that connections keep their sessions, before any code relies on it.
func (a *App) checkSessions(ctx context.Context) error {
	if a.sessions {
		return nil
	}
	pooler, err := postgres.CheckSessions(ctx, a.cfg.DatabaseURL.Reveal())
	if err == nil && pooler {
		a.log.Info("a pooler is in front of the database, and it keeps sessions", "connections", a.cfg.DatabaseConnections)
	}
	a.sessions = err == nil
	return err
}

func (a *App) startEngine() error {
	var unsubscribe deliver.Unsubscriber
	if links, err := a.links(); err != nil {
		return err
	} else if links != nil {
		unsubscribe = links
	}
	engine, err := deliver.New(deliver.Options{
		Store: a.db, Build: catalog.New, Spec: catalog.Spec, Unsubscribe: unsubscribe, Log: a.log, Metrics: a.metrics, Lease: a.cfg.Lease,
		Policy: deliver.Policy{
			UnknownWait: a.cfg.UnknownWait, ReconcileDeadline: a.cfg.ReconcileDeadline,
			ReconcileResend: a.cfg.ReconcileFallback == "resend", ResendMax: a.cfg.ResendMax, Lookups: a.cfg.LookupSchedule, Repeats: a.cfg.RepeatSchedule,
			ProbeAfter: a.cfg.ParkProbe,
		},
		Retention: a.cfg.Retention, BodyAge: a.cfg.BodyRetention, AuditAge: a.cfg.AuditRetention,
	})
	if err != nil {
		return err
	}
	a.engine = engine
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx, a.cfg.DrainTimeout) }()
	a.onStop("engine", func(context.Context) error {
		cancel()
		return <-done
	})
	return nil
}

func (a *App) startAPI(ctx context.Context) error {
	var links httpapi.Unsubscriber
	if l, err := a.links(); err != nil {
		return err
	} else if l != nil {
		links = l
	}
	keys := a.derivedKeys("sendgate cursor key")
	server, err := httpapi.New(httpapi.Options{
		Store: a.store(), Router: a.engine, Kinds: catalog.Catalog{}, Log: a.log, Metrics: a.metrics,
		MaxBody: int64(a.cfg.MaxBodyBytes), BodyBudget: a.bodyBudget, AcceptWait: a.cfg.AcceptWait, DefaultExpiry: a.cfg.DefaultExpiry, SecretKey: keys[0], PreviousKeys: keys[1:],
		Draining: a.draining.Load, TrustedProxies: a.proxies(), AdminApart: a.cfg.AdminListen != "", AdminNetworks: a.cfg.AdminNetworks, PublicURL: a.cfg.PublicURL, Clock: a.clock.Now, NewID: a.clock.NewID,
		Hooks: a.engine, Registrars: a.engine, Unsubscribe: links, Dash: a.dashboard,
		Notify: httpapi.NotifyOptions{Store: a.db, Test: a.watch},
		Webhooks: httpapi.EndpointOptions{
			Endpoints: a.db, TestDelivery: a.forward,
			CheckWebhookURL: func(raw string) error { return jail.CheckURL(raw, a.jail()) },
		},
	})
	if err != nil {
		return err
	}
	a.onStop("api handlers", func(context.Context) error { server.Close(); return nil })
	a.startTally(server)
	if a.cfg.AdminListen != "" { // up before the API and down after it, so that operators can watch it end
		if a.AdminURL, err = a.listenFor(ctx, "admin", a.cfg.AdminListen, server.AdminHandler()); err != nil {
			return fmt.Errorf("SENDGATE_ADMIN_LISTEN: %w", err)
		}
	}
	if a.URL, err = a.listenFor(ctx, "api", a.cfg.Listen, server.Handler()); err != nil {
		return fmt.Errorf("SENDGATE_LISTEN: %w", err)
	}
	return nil
}

// listenFor serves a handler of the API, over TLS if there is a certificate, and returns its URL.
func (a *App) listenFor(ctx context.Context, name, listen string, h http.Handler) (string, error) {
	scheme := "http"
	if a.cfg.TLS() {
		scheme = "https"
	}
	addr, err := a.listen(ctx, name, listen, httpapi.HTTPServer(h), a.cfg.TLS())
	return scheme + "://" + addr, err
}

func (a *App) startOps(ctx context.Context) error {
	addr, err := a.listen(ctx, "ops", a.cfg.OpsListen, httpapi.HTTPServer(telemetry.Ops(a.registry, a.ready, hostcheck.Rule{Inside: true, Names: a.cfg.OpsHosts, Setting: "SENDGATE_OPS_HOSTS"})), false)
	if err != nil {
		return fmt.Errorf("SENDGATE_OPS_LISTEN: %w", err)
	}
	a.OpsURL = "http://" + addr
	return nil
}

// ready returns why this replica should get no requests, or nil. With a telemetry.Degraded it still gets them.
func (a *App) ready(ctx context.Context) error {
	switch {
	case !a.started.Load():
		return errors.New("starting")
	case a.leaving.Load() || a.draining.Load():
		return errors.New("draining")
	case a.engine.Config() == nil:
		return errors.New("the configuration has not been read yet")
	}
	if err := a.db.Ping(ctx); err != nil {
		return err
	}
	if err := a.clock.Check(); err != nil {
		return err
	}
	if err := a.writes.check(ctx, a.db.ProbeWrite); err != nil {
		return err
	}
	if pools := a.engine.Degraded(); len(pools) > 0 {
		return telemetry.Degraded("no account can send in pool " + strings.Join(pools, ", "))
	}
	return nil
}

// listen serves server at addr, registers its end, and returns the address it got.
func (a *App) listen(ctx context.Context, name, addr string, server *http.Server, withTLS bool) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", fmt.Errorf("%s listener: %w", name, err)
	}
	server.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
	if withTLS {
		server.TLSConfig = a.certificate.config()
	}
	limited := httpapi.Listener(l, httpapi.MaxConns, a.proxies())
	served := make(chan struct{})
	go func() {
		defer close(served)
		var err error
		if withTLS {
			if err = a.certificate.read(); err == nil {
				err = server.ServeTLS(limited, "", "")
			}
		} else {
			err = server.Serve(limited)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			a.failed <- fmt.Errorf("%s listener: %w", name, err)
		}
	}()
	a.onStop(name+" listener", func(ctx context.Context) error {
		err := shutDown(ctx, server)
		_ = limited.Close() // Shutdown closes no listener that is not served yet
		<-served
		return errors.Join(err, server.Close()) // also ends a connection accepted just now
	})
	return l.Addr().String(), nil
}

// shutDown gives requests in progress closingGrace to finish. Slower ones, such as a body that trickles in, are cut off:
// they were promised nothing yet.
func shutDown(ctx context.Context, server *http.Server) error {
	grace, cancel := context.WithTimeout(ctx, closingGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return server.Close()
	}
	return nil
}
