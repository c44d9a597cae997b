// Package httpapi is the HTTP surface of sendgate: the sending API under /v1, the admin API under /admin/v1, and two parts
// that need no key: the receivers of providers' events under /hooks and the one-click links under /u. It decides who may
// call what, what a request must look like, and how each error is answered. Storage is the work of a Store, routing of a
// Router, provider kinds of Kinds and providers' signatures of Hooks. These interfaces are declared here; package app
// supplies them.
//
// routes.go shows the whole surface, problem.go every error answer. A handler that returns an error writes no answer;
// the one adapter in server.go turns the error into application/problem+json. Most handlers return the answer as a value;
// handle.go writes it. It is one package because all handlers share the keys, the bounds and the error answers of one Server.
//
// The likeliest mistake of a newcomer is to answer 2xx before the commit. Write the answer last.
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

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// Options are the parts and settings of a Server. Store, Router, Kinds and SecretKey are required.
type Options struct {
	Store   Store
	Router  Router
	Kinds   Kinds
	Log     *slog.Logger
	Metrics *telemetry.Metrics // default: a set that nobody reads

	MaxBody        int64            // cap on a request body in bytes, default 30 MiB
	BodyBudget     int64            // cap on the bytes of all large bodies together, default 40 MiB, at least MaxBody
	AcceptWait     time.Duration    // how long a request waits until its key is read from the database, default 10 s
	DefaultExpiry  time.Duration    // how long a message may wait before it expires, default 72 h
	SecretKey      []byte           // at least 32 bytes; cursors are signed with a key derived from it
	PreviousKeys   [][]byte         // earlier secret keys; cursors signed with them still open
	Now            func() time.Time // for measuring how long things take; default time.Now
	Clock          func() time.Time // the store's clock, for stored dates; default Now
	NewID          func() mail.ID   // makes the id of an accepted message; default mail.NewID
	Draining       func() bool      // true: new messages are refused, reads go on; default never
	TrustedProxies []netip.Prefix   // peers whose X-Forwarded-For is believed
	AdminApart     bool             // the admin API is served by AdminHandler, and not by Handler
	AdminNetworks  []netip.Prefix   // clients the admin API answers; empty: all
	PublicURL      string           // base under which providers reach us; "" if it is not known

	Hooks       Hooks           // parsers of an account's events; default no account has a receiver
	Registrars  Registrars      // set up receivers at providers; default none
	Unsubscribe Unsubscriber    // opens the tokens of one-click links; default none is valid
	Webhooks    EndpointOptions // webhook endpoints
	Notify      NotifyOptions   // incidents, and who is told

	// Dash makes the dashboard at /dash, which is served where the admin API is. Default none.
	Dash func(*Server) (http.Handler, error)
}

// Defaults of Options.
const (
	DefaultMaxBody    = 30 << 20
	DefaultAcceptWait = 10 * time.Second
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
	notify        NotifyOptions

	keys               *keyring
	bodies, hookBodies budget
	cursors            *cursors
	touches            *toucher
	tally              *tally
	logins             logins
	reads              bodyReads
	handler, admin     http.Handler
	inside             http.Handler // the API for As
	dash               http.Handler // nil without one
	warned             atomic.Int64 // when the log last warned of an untrusted proxy, in seconds since 1970

	// These count by address.
	requests, lingering                *pool
	hookReads, hookWork, hookStrangers *pool
	badTokens                          *limit.Tries[holder]
	badPasswords                       *limit.Tries[guesser]
	// These count by tenant.
	stats, imports, streams, replays, tests *pool
	// This counts by token.
	unsubscribes *limit.Tries[[sha256.Size]byte]
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
		store: o.Store, router: o.Router, kinds: o.Kinds, now: o.Now, clock: o.Clock, newID: o.NewID, draining: o.Draining,
		log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)), metrics: cmp.Or(o.Metrics, telemetry.New(prometheus.NewRegistry())),
		maxBody: cmp.Or(o.MaxBody, DefaultMaxBody), defaultExpiry: cmp.Or(o.DefaultExpiry, DefaultExpiry),
		proxies: o.TrustedProxies, adminApart: o.AdminApart, adminNetworks: o.AdminNetworks, publicURL: o.PublicURL,
		hooks: cmp.Or[Hooks](o.Hooks, noHooks{}), registrars: cmp.Or[Registrars](o.Registrars, noRegistrars{}),
		links: cmp.Or[Unsubscriber](o.Unsubscribe, noLinks{}), webhooks: o.Webhooks, notify: o.Notify,
	}
	s.setFunctions()
	s.setBounds()
	s.bodies = budget{newPool(max(cmp.Or(o.BodyBudget, DefaultBodyBudget), s.maxBody), 0)}
	s.hookBodies = budget{newPool(hookRoom, 0)}
	s.keys = newKeyring(o.Store, s.now, cmp.Or(o.AcceptWait, DefaultAcceptWait))
	s.cursors = newCursors(append([][]byte{o.SecretKey}, o.PreviousKeys...)...)
	s.touches = newToucher(o.Store, s.log, s.now)
	s.inside = s.withinRoutes()
	if o.Dash != nil {
		var err error
		if s.dash, err = o.Dash(s); err != nil {
			return nil, err
		}
	}
	s.handler, s.admin = s.routes(), s.adminAlone()
	return s, nil
}

// setFunctions sets the functions that the options leave out.
func (s *Server) setFunctions() {
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
}

// setBounds makes the counters of failed attempts and the pools that share out scarce resources.
func (s *Server) setBounds() {
	s.tally = newTally()
	s.requests, s.lingering = newPool(MaxConns, 0), newPool(lingerers, 0)
	s.hookReads, s.hookWork, s.hookStrangers = newPool(hookReads, 0), newPool(hookWork, 0), newPool(hookStrangers, 0)
	s.stats, s.imports, s.replays = newPool(statsAtOnce, 0), newPool(importsAtOnce, 0), newPool(replaysAtOnce, 0)
	s.streams, s.tests = newPool(maxStreams, streamsPerTenant), newPool(testsAtOnce, 0)
	s.badTokens = perMinute[holder](s.now, badTokensPerMinute)
	s.badPasswords = perMinute[guesser](s.now, badPasswordsPerMinute)
	s.unsubscribes = perMinute[[sha256.Size]byte](s.now, unsubscribesPerMinute)
}

// Handler returns the API as one http.Handler. It answers every path.
func (s *Server) Handler() http.Handler { return s.handler }

// AdminHandler returns the admin API alone, for its own address.
func (s *Server) AdminHandler() http.Handler { return s.admin }

// Close ends the background work (noting when keys were last used) and waits for it.
func (s *Server) Close() { s.touches.close() }

// answerTime limits an answer. It starts at the end of the header, and again at the end of the body. It covers the longest
// wait for a commit and for its outcome.
const answerTime = 60 * time.Second

// idleTime is how long a connection may wait for a request, be it the first or a later one. Under pressure it is closed
// earlier, see Listener. It is longer than the idle time of proxies in front. Clients open connections ahead of their
// requests: if we close one just as it is used, the request gets no answer, and the client may not be able to repeat it.
const idleTime = 90 * time.Second

// bodyTime limits the reading of a body, from the end of the header, unless its handler sets another limit.
const bodyTime = 60 * time.Second

// timeBody limits the reading of each body. The ReadTimeout of net/http would start when the connection opens.
func timeBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // an error means no connection, as in tests
		}
		h.ServeHTTP(w, r)
	})
}

// HTTPServer returns a server for the handler, with time limits against slow and silent clients. The caller listens,
// serves and shuts it down.
func HTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           timeBody(closeChunked(h)),
		ConnState:         watchConn,
		ReadHeaderTimeout: idleTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    28 << 10, // net/http adds 4 KiB: more than 32 KiB is a 431
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReceiveBufferPerConnection: http2Unread, MaxReceiveBufferPerStream: http2Unread},
	}
}

// http2Unread bounds what one HTTP/2 connection may send before we read it, in bytes. net/http keeps it in our memory, and its
// default of 1 MiB would be 4 GiB for MaxConns. One upload moves at most so much per round trip.
const http2Unread = 128 << 10

// closeChunked closes the connection after each request with a Transfer-Encoding, on every route, whether its body was read
// or not. If such a request also has a Content-Length, it may be smuggling another request, and RFC 9112 section 6.1 wants
// its connection closed. net/http drops that Content-Length before we can see it.
func closeChunked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// handlerFunc is a handler that returns errors and lets the adapter answer them.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// handle is the one adapter from handlerFunc to http.Handler.
func (s *Server) handle(h handlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body := r.Body // the original; handlers wrap r.Body with limits
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
