// Package httpapi is the HTTP surface of sendgate: the sending API under /v1, the admin API under /admin/v1, and what is
// open to those who have no key: the receivers of providers' events under /hooks and the one-click links under /u. It
// decides who may call what, what a request must look like, and how each error is answered. It leaves storage to a
// Store, routing to a Router, provider kinds to Kinds and providers' signatures to Hooks, each declared here and given
// by package app.
//
// routes.go shows the whole surface, problem.go every error answer. A handler returns an error and writes nothing
// when it does; the one adapter in server.go turns it into application/problem+json.
//
// A newcomer's likeliest mistake: to answer 2xx for something that is not committed yet. Write the answer last.
package httpapi

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// Options is what a Server is made of. Store, Router, Kinds and SecretKey are required.
type Options struct {
	Store   Store
	Router  Router
	Kinds   Kinds
	Log     *slog.Logger
	Metrics *telemetry.Metrics // default: some that nobody reads

	MaxBody        int64            // cap on a request body in bytes, default 30 MiB
	BodyBudget     int64            // cap on what all large bodies take at a time, default 40 MiB, at least MaxBody
	AcceptWait     time.Duration    // how long a request waits for the database to tell of its key, default 5 s
	DefaultExpiry  time.Duration    // how long a message may wait before it expires, default 72 h
	SecretKey      []byte           // at least 32 bytes; cursors are signed with a key derived from it
	PreviousKeys   [][]byte         // of those before it: their cursors still open
	Now            func() time.Time // default time.Now; for what takes time
	Clock          func() time.Time // of the store, for what is dated; default Now
	NewID          func() mail.ID   // of a message that is accepted now; default mail.NewID
	Draining       func() bool      // true: nothing new is accepted, reads go on; default never
	TrustedProxies []netip.Prefix   // peers whose X-Forwarded-For is believed
	AdminApart     bool             // the admin API is served by AdminHandler, and not by Handler
	AdminNetworks  []netip.Prefix   // that the admin API answers to; none is all
	PublicURL      string           // base under which providers reach us; "" if it is not known

	Hooks       Hooks           // who reads the events of an account; default no account has a receiver
	Registrars  Registrars      // who sets up receivers at providers; default nobody
	Unsubscribe Unsubscriber    // opens the tokens of one-click links; default none is valid
	Webhooks    EndpointOptions // webhook endpoints
}

// Defaults of Options.
const (
	DefaultMaxBody    = 30 << 20
	DefaultAcceptWait = 5 * time.Second
	DefaultExpiry     = 72 * time.Hour

	minSecretKey = 32
)

// Server answers the HTTP API. It is safe for concurrent use. Close it after the listener has stopped.
type Server struct {
	store         Store
	router        Router
	kinds         Kinds
	log           *slog.Logger
	metrics       *telemetry.Metrics
	maxBody       int64
	defaultExpiry time.Duration
	now, clock    func() time.Time
	newID         func() mail.ID
	draining      func() bool
	proxies       []netip.Prefix
	adminApart    bool
	adminNetworks []netip.Prefix
	publicURL     string
	hooks         Hooks
	registrars    Registrars
	links         Unsubscriber
	webhooks      EndpointOptions

	keys               *keyring
	bodies, hookBodies budget
	cursors            *cursors
	touches            *toucher
	tally              *tally
	logins             logins
	handler, admin     http.Handler
	warned             atomic.Int64 // when it was last said that a proxy is not trusted, in seconds since 1970

	// By address.
	requests, lingering                *pool
	hookReads, hookWork, hookStrangers *pool
	badTokens                          *failures[holder]
	badPasswords                       *failures[guesser]
	// By tenant.
	stats, imports, streams, replays, tests *pool
	// By token.
	unsubscribes *failures[[sha256.Size]byte]
}

// New checks the options and builds the routes.
func New(o Options) (*Server, error) {
	if o.Store == nil || o.Router == nil || o.Kinds == nil {
		return nil, errors.New("new http server: store, router and kinds are required")
	}
	if len(o.SecretKey) < minSecretKey {
		return nil, errors.New("new http server: secret key must have at least 32 bytes")
	}
	s := &Server{
		store: o.Store, router: o.Router, kinds: o.Kinds, log: o.Log, metrics: o.Metrics, maxBody: o.MaxBody,
		defaultExpiry: o.DefaultExpiry, now: o.Now, clock: o.Clock, newID: o.NewID, draining: o.Draining, proxies: o.TrustedProxies,
		adminApart: o.AdminApart, adminNetworks: o.AdminNetworks, publicURL: o.PublicURL,
		hooks: o.Hooks, registrars: o.Registrars, links: o.Unsubscribe, webhooks: o.Webhooks,
	}
	s.setDefaults()
	s.setBounds()
	s.bodies = budget{newPool(max(cmp.Or(o.BodyBudget, DefaultBodyBudget), s.maxBody), 0)}
	s.hookBodies = budget{newPool(hookRoom, 0)}
	s.keys = newKeyring(o.Store, s.now, cmp.Or(o.AcceptWait, DefaultAcceptWait))
	s.cursors = newCursors(append([][]byte{o.SecretKey}, o.PreviousKeys...)...)
	s.touches = newToucher(o.Store, s.log, s.now)
	s.handler, s.admin = s.routes(), s.adminAlone()
	return s, nil
}

func (s *Server) setDefaults() {
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.metrics == nil {
		s.metrics = telemetry.New(prometheus.NewRegistry())
	}
	if s.maxBody <= 0 {
		s.maxBody = DefaultMaxBody
	}
	if s.defaultExpiry <= 0 {
		s.defaultExpiry = DefaultExpiry
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.clock == nil {
		s.clock = s.now
	}
	if s.newID == nil {
		s.newID = mail.NewID
	}
	if s.draining == nil {
		s.draining = func() bool { return false }
	}
	if s.hooks == nil {
		s.hooks = noHooks{}
	}
	if s.registrars == nil {
		s.registrars = noRegistrars{}
	}
	if s.links == nil {
		s.links = noLinks{}
	}
}

// setBounds makes what counts what strangers do, and what shares out that of which there is not enough for everybody.
func (s *Server) setBounds() {
	s.tally = newTally()
	s.requests, s.lingering = newPool(MaxConns, 0), newPool(lingerers, 0)
	s.hookReads, s.hookWork, s.hookStrangers = newPool(hookReads, 0), newPool(hookWork, 0), newPool(hookStrangers, 0)
	s.stats, s.imports, s.replays = newPool(statsAtOnce, 0), newPool(importsAtOnce, 0), newPool(replaysAtOnce, 0)
	s.streams, s.tests = newPool(maxStreams, streamsPerTenant), newPool(testsAtOnce, 0)
	s.badTokens = newFailures[holder](s.now, badTokensPerMinute)
	s.badPasswords = newFailures[guesser](s.now, badPasswordsPerMinute)
	s.unsubscribes = newFailures[[sha256.Size]byte](s.now, unsubscribesPerMinute)
}

// Handler returns the API as one http.Handler. It answers every path; package app mounts it beside the dashboard.
func (s *Server) Handler() http.Handler { return s.handler }

// AdminHandler returns the admin API alone, for an address of its own.
func (s *Server) AdminHandler() http.Handler { return s.admin }

// Close ends the background work (noting when keys were last used) and waits for it.
func (s *Server) Close() { s.touches.close() }

// answerTime is for an answer: from the end of the header, and again from the end of the body. It covers the longest wait
// for a commit, and for the outcome of one.
const answerTime = 60 * time.Second

// idleTime is how long a connection may wait for a request, the first one as any other; under pressure it gives way before, see
// Listener. It is longer than that of the proxies in front. Clients open connections ahead of their requests: one that is closed
// just when they use it costs a request its answer, and they may not repeat it.
const idleTime = 90 * time.Second

// bodyTime is for a body, from the end of the header, unless its handler has another.
const bodyTime = 60 * time.Second

// timeBody limits the reading of each body. The ReadTimeout of net/http would count from the opening of the connection.
func timeBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // an error: no connection, as in tests
		}
		h.ServeHTTP(w, r)
	})
}

// HTTPServer returns a server for the handler whose time limits hold against slow and silent clients. The caller
// listens, serves and shuts it down.
func HTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           timeBody(closeChunked(h)),
		ConnState:         watchConn,
		ReadHeaderTimeout: idleTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    28 << 10, // net/http adds 4 KiB: more than 32 KiB is a 431
	}
}

// closeChunked closes the connection after each request with a Transfer-Encoding, on every route, read or not. net/http drops a
// Content-Length beside it before we can see it. Such a request may be smuggling another one, and RFC 9112 section 6.1 wants its
// connection closed.
func closeChunked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// handlerFunc is a handler that leaves the answer to an error to the adapter.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// handle is the one adapter from handlerFunc to http.Handler.
func (s *Server) handle(h handlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body := r.Body // as it comes: handlers put bounds around it
		err := h(w, r)
		if err == nil {
			return
		}
		if r.ContentLength == 0 {
			s.writeProblem(w, r, err)
			return
		}
		place := s.lingering.take(s.stranger(r), 1, stopReading(w))
		if place == nil {
			w.Header().Set("Connection", "close")
			stopReading(w)() // net/http would wait for the rest
			s.writeProblem(w, r, err)
			return
		}
		defer place.release()
		hearOut(w, r, paced{place, body})
		s.writeProblem(w, r, err)
		linger(w, r, paced{place, body})
	}
}
