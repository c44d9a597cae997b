// Package signin lets people in at the dashboard: by name, password and a code of their authenticator, and then by a session. It
// decides what proves a person, how often somebody may guess, how long a session lasts, and which requests come from our own pages.
// What a person may do then is a matter of the role, in package record. The pages are plain forms; the dashboard's layout frames them.
//
// A session is a random token in a cookie. The store has its hash, the user and two ends: after an hour without a request and after
// a day. Nothing else is in the cookie, so that a sign-out, a disabled user or a new role binds at once, on every replica.
//
// The likeliest mistake of a newcomer is to answer early, for an unknown name or a used code, say. All refusals have the same words
// and take as long, or strangers learn who works here.
package signin

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/internal/dash"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// Store is the part of the database that the sign-in needs. All methods return record.ErrNotFound for what is not there, or has
// ended, or was used. Each change writes its audit entry in the same transaction.
type Store interface {
	Login(ctx context.Context, name string) (record.Login, seal.Secret, error)
	SignIn(ctx context.Context, in record.SignIn) error
	SessionOf(ctx context.Context, hash []byte) (record.Session, error)
	EndSession(ctx context.Context, user string, hash []byte) error
	UserSessions(ctx context.Context, name string) ([]record.Session, error)
	EndUserSessions(ctx context.Context, actor, name, id string) error
	LinkOf(ctx context.Context, hash []byte) (record.Link, error)
	CreateLink(ctx context.Context, actor, name string, link []byte, enter bool) error
	Enter(ctx context.Context, user string, link []byte, s record.NewSession) error
	Welcome(ctx context.Context, user string, w record.Welcome, totp seal.Secret) error
}

// Options are the parts and settings of a Gate. Store, Key and Client are required.
type Options struct {
	Store     Store
	Key       []byte                           // at least 32 bytes, the same in all replicas; secrets of new authenticators are derived from it
	Client    func(*http.Request) netip.Prefix // the network of a client that counts as one stranger
	Failed    func(*http.Request)              // is told of each failed sign-in, for the audit; default nobody
	Secure    bool                             // browsers reach us by https
	PublicURL string                           // at which they do so, if the proxy in front changes Host; "" if not known
	Links     bool                             // links that sign in without a password are taken; only for `sendgate dev`
	Log       *slog.Logger
	Now       func() time.Time // the store's clock; default time.Now
}

// Gate implements dash.Gate. It is safe for concurrent use.
type Gate struct {
	Options
	origin  *http.CrossOriginProtection
	guesses *guesses
	hashes  *hashes
	layout  func(w http.ResponseWriter, r *http.Request, status int, title string, content template.HTML)
}

const minKey = 32

// New checks the options.
func New(o Options) (*Gate, error) {
	if o.Store == nil || o.Client == nil || len(o.Key) < minKey {
		return nil, errors.New("new sign-in: store, client and a key of at least 32 bytes are required")
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(*http.Request) {}
	}
	g := &Gate{Options: o, origin: http.NewCrossOriginProtection(), guesses: newGuesses(o.Now)}
	if public, err := url.Parse(o.PublicURL); err != nil {
		return nil, err
	} else if public.Host != "" {
		if err := g.origin.AddTrustedOrigin(public.Scheme + "://" + public.Host); err != nil {
			return nil, err
		}
	}
	var err error
	g.hashes, err = newHashes()
	return g, err
}

// Routes implements dash.Gate.
func (g *Gate) Routes(r chi.Router, layout func(w http.ResponseWriter, r *http.Request, status int, title string, content template.HTML)) {
	g.layout = layout
	r.Get("/signin", g.page(g.askSignIn))
	r.Post("/signin", g.page(g.signIn))
	r.Post("/signout", g.page(g.signOut))
	r.Get("/welcome", g.page(g.askToken))
	r.Post("/welcome", g.page(g.welcome))
	r.Get("/welcome/token.js", g.script)
	r.Get("/sessions", g.page(g.listSessions))
	r.Post("/sessions", g.page(g.changeSessions))
}

// Person implements dash.Gate.
func (g *Gate) Person(r *http.Request) (dash.Person, bool, error) {
	s, token, err := g.session(r)
	if errors.Is(err, record.ErrNotFound) {
		return dash.Person{}, false, nil
	}
	if err != nil {
		return dash.Person{}, false, err
	}
	return dash.Person{Name: s.User, Role: s.Role, Token: csrfOf(token)}, true, nil
}

// session returns the session of a request and its token, or record.ErrNotFound.
func (g *Gate) session(r *http.Request) (record.Session, string, error) {
	c, err := r.Cookie(g.cookieName())
	if err != nil || c.Value == "" || len(c.Value) > maxToken {
		return record.Session{}, "", record.ErrNotFound
	}
	s, err := g.Store.SessionOf(r.Context(), record.HashToken(c.Value))
	return s, c.Value, err
}

// ErrForged says that a request did not come from a page of its session.
var ErrForged = errors.New("the request did not come from a page of this session: reload the page and try again")

// maxForm bounds a form, in bytes.
const maxForm = 1 << 20

// Check implements dash.Gate. Two proofs are needed: the browser says that the request has our origin, and the request has the
// token that only pages of the session show. It reads the form if the header X-CSRF-Token is missing.
func (g *Gate) Check(r *http.Request) error {
	if err := g.origin.Check(r); err != nil {
		return ErrForged
	}
	c, err := r.Cookie(g.cookieName())
	if err != nil {
		return ErrForged
	}
	given := r.Header.Get("X-CSRF-Token")
	if given == "" {
		r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
		given = r.PostFormValue("csrf")
	}
	if subtle.ConstantTimeCompare([]byte(given), []byte(csrfOf(c.Value))) != 1 {
		return ErrForged
	}
	return nil
}

// csrfOf derives the CSRF token from that of the session, so that it needs no place in the store and ends with the session.
func csrfOf(token string) string {
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write([]byte("sendgate csrf"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// maxToken bounds what is taken for a token.
const maxToken = 100

// cookieName has the prefix __Host- over https: then no other host of the domain can set this cookie (RFC 6265bis section 4.1.3.2).
func (g *Gate) cookieName() string {
	if g.Secure {
		return "__Host-sendgate"
	}
	return "sendgate"
}

// setCookie gives a browser a session, or takes it away with an empty token. The cookie is Lax and not Strict: with Strict, a
// link in an alert or a chat would lead people who are signed in to the sign-in. Nothing is changed by a GET, and Check guards
// the rest. It ends with the browser; the store knows when it ends before.
func (g *Gate) setCookie(w http.ResponseWriter, token string) {
	c := &http.Cookie{Name: g.cookieName(), Value: token, Path: "/", HttpOnly: true, Secure: g.Secure, SameSite: http.SameSiteLaxMode} //nolint:gosec // Secure wherever browsers use https
	if token == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// newSession makes a session with a new token. Earlier tokens of the browser are not taken over.
func (g *Gate) newSession(r *http.Request) (token string, s record.NewSession) {
	token, hash := record.NewToken()
	return token, record.NewSession{Hash: hash, From: g.Client(r), Agent: agentOf(r)}
}

const maxAgent = 200

// agentOf returns the User-Agent without what no database or page should hold.
func agentOf(r *http.Request) string {
	agent := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, r.UserAgent())
	return agent[:min(len(agent), maxAgent)]
}
