// Package app puts the rooms together: database, engine, API and the listener for operations, started in order and
// stopped in reverse. It is the only package that imports all others, and it decides nothing that they could.
//
// A newcomer's likeliest mistake is to start something without registering its end: whatever start adds to an App, stop
// must take down, in the opposite order.
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
	"github.com/sendgate/sendgate/internal/deliver"
	"github.com/sendgate/sendgate/internal/forward"
	"github.com/sendgate/sendgate/internal/hostcheck"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// The packages that declare what they need of the store get it from one type.
var (
	_ httpapi.Store = (*store)(nil)
	_ deliver.Store = (*postgres.DB)(nil)
)

// How a service leaves: for lingering it says that it is not ready and serves on, so that whoever balances load by
// readiness has looked before anything is refused; then listeners get closingGrace for the requests under way. With
// Config.DrainTimeout for the calls, its default of 25 s, that makes 30 s from the signal to the exit.
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
	sessions bool        // connections keep their sessions

	bodyBudget int64 // of large bodies that are read at a time; 0 is the default

	certificate *keyPairFiles // nil without TLS
	writes      writes
	engine      *deliver.Engine
	forward     *forward.Engine
	started     atomic.Bool // all parts are up
	leaving     atomic.Bool // not ready any more, though requests are still served
	draining    atomic.Bool // no new mail is taken
	linger      time.Duration
	failed      chan error
	stops       []stop

	// URL is where the API listens and OpsURL where the listener for operations does, once Start has returned; AdminURL is
	// where the admin API does, "" for beside the API.
	URL, OpsURL, AdminURL string
	// LMTPAddr is where bounces come in, "" for nowhere.
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

// Start brings the service up. When a part fails, those before it are stopped again.
func (a *App) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop())
		}
	}()
	if err := a.startOps(ctx); err != nil { // first up and last down: it tells how the rest is
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
	if err := a.startLMTP(); err != nil {
		return err
	}
	if err := a.startAPI(ctx); err != nil {
		return err
	}
	a.started.Store(true)
	return nil
}

// Run waits until ctx ends or a part of the service fails, and stops it.
func (a *App) Run(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
		a.log.Info("stopping: not ready from now on, then no new mail is taken and calls under way finish")
		a.leave()
	case err = <-a.failed:
	}
	return errors.Join(err, a.Stop())
}

// leave says that this replica is not ready and serves on for a while.
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
	_, err = db.RefoldSuppressions(ctx) // before anything is accepted
	return err
}

// awaitDatabase gives a database that starts together with us a minute. A schema that does not fit is final, and so are a
// pooler that keeps no sessions, a secret key that is not the one of the processes that are there, and a clock that is not the
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

// checkSessions makes sure, once, that connections keep their sessions, before any of them relies on it.
func (a *App) checkSessions(ctx context.Context) error {
	if a.sessions {
		return nil
	}
	pooler, err := postgres.CheckSessions(ctx, a.cfg.DatabaseURL.Reveal())
	if err == nil && pooler {
		a.log.Info("a pooler is in front of the database; it keeps sessions", "connections", a.cfg.DatabaseConnections)
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
		Retention: a.cfg.Retention, BodyAge: a.cfg.BodyRetention,
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
		Store: &store{DB: a.db, engine: a.engine, metrics: a.metrics, writes: &a.writes}, Router: a.engine, Kinds: catalog.Catalog{}, Log: a.log, Metrics: a.metrics,
		MaxBody: int64(a.cfg.MaxBodyBytes), BodyBudget: a.bodyBudget, AcceptWait: a.cfg.AcceptWait, DefaultExpiry: a.cfg.DefaultExpiry, SecretKey: keys[0], PreviousKeys: keys[1:],
		Draining: a.draining.Load, TrustedProxies: a.proxies(), AdminApart: a.cfg.AdminListen != "", AdminNetworks: a.cfg.AdminNetworks, PublicURL: a.cfg.PublicURL, Clock: a.clock.Now, NewID: a.clock.NewID,
		Hooks: a.engine, Registrars: a.engine, Unsubscribe: links,
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
	if a.cfg.AdminListen != "" { // up before the API and down after it: operators see how that ends
		if a.AdminURL, err = a.listenFor(ctx, "admin", a.cfg.AdminListen, server.AdminHandler()); err != nil {
			return fmt.Errorf("SENDGATE_ADMIN_LISTEN: %w", err)
		}
	}
	if a.URL, err = a.listenFor(ctx, "api", a.cfg.Listen, server.Handler()); err != nil {
		return fmt.Errorf("SENDGATE_LISTEN: %w", err)
	}
	return nil
}

// listenFor serves a handler of the API, by TLS if there is a certificate, and gives its URL.
func (a *App) listenFor(ctx context.Context, name, listen string, h http.Handler) (string, error) {
	scheme := "http"
	if a.cfg.TLS() {
		scheme = "https"
	}
	addr, err := a.listen(ctx, name, listen, httpapi.HTTPServer(telemetry.Handler(h, name)), a.cfg.TLS())
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

// ready says whether this replica should get requests.
func (a *App) ready(ctx context.Context) error {
	switch {
	case !a.started.Load():
		return errors.New("starting")
	case a.leaving.Load() || a.draining.Load():
		return errors.New("draining")
	case a.engine.Config() == nil:
		return errors.New("configuration not read yet")
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
		_ = limited.Close() // a server that has not begun to serve does not know its listener
		<-served
		return errors.Join(err, server.Close()) // nor, until it ends, the connection that it just accepted
	})
	return l.Addr().String(), nil
}

// shutDown lets requests under way finish for closingGrace. What is slower, such as a body that trickles in, is cut off:
// nothing was promised to it.
func shutDown(ctx context.Context, server *http.Server) error {
	grace, cancel := context.WithTimeout(ctx, closingGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return server.Close()
	}
	return nil
}
