package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// may opens a route to keys that have the scope or one of the others.
func (s *Server) may(scope record.Scope, h handlerFunc, others ...record.Scope) http.HandlerFunc {
	return s.handle(func(w http.ResponseWriter, r *http.Request) error {
		key, err := s.caller(r)
		if err != nil {
			return err
		}
		if !key.May(scope) && !slices.ContainsFunc(others, key.May) {
			return errScopeMissing(scope)
		}
		if err := s.keys.spend(key); err != nil {
			return err
		}
		if key.Hash != nil { // a person at the dashboard has none
			s.touches.touch(key.ID) //nolint:contextcheck // outlives the request
		}
		ctx := record.WithCaller(r.Context(), record.Caller{Name: key.Name, Address: s.clientIP(r).String(), RequestID: requestID(r.Context())})
		return h(w, r.WithContext(context.WithValue(ctx, principalKey, key)))
	})
}

// caller returns the key of a request, or one that stands for the person at the dashboard whose call it is.
func (s *Server) caller(r *http.Request) (*record.Key, error) {
	if i, ok := r.Context().Value(insiderKey).(*insider); ok {
		return i.principal(r)
	}
	key, err := s.authenticate(r)
	if err != nil {
		return nil, err
	}
	return key, s.fromItsNetworks(r, key)
}

// errScopeMissing names the scope that the key lacks, also in the form of RFC 6750 section 3.1.
func errScopeMissing(scope record.Scope) error {
	return &refusal{
		status: http.StatusForbidden, code: "scope_missing", detail: "This key lacks the scope " + string(scope) + ".",
		header: http.Header{"Www-Authenticate": {`Bearer realm="sendgate", error="insufficient_scope", scope="` + string(scope) + `"`}},
	}
}

// sends opens a route that accepts mail. It refuses paused tenants, and everyone while the server drains.
func (s *Server) sends(h handlerFunc) http.HandlerFunc {
	return s.may(record.ScopeSend, func(w http.ResponseWriter, r *http.Request) error {
		switch {
		case principal(r).TenantPaused:
			return refuse(http.StatusForbidden, "tenant_paused", "This tenant is paused. Nothing was stored.")
		case s.draining():
			return &record.Unavailable{Reason: "draining", RetryAfter: time.Second}
		}
		return h(w, r)
	})
}

// principal returns the key that opened the request. It panics outside of may, which is a mistake in routes.go.
func principal(r *http.Request) *record.Key {
	return r.Context().Value(principalKey).(*record.Key) //nolint:errcheck,forcetypeassert // see above
}

// authenticate finds the key of a request. The answer is the same for every kind of bad key, so that it does not reveal which
// keys exist. Failures are counted per client address. They never hold back a good key: otherwise anyone could lock it out.
func (s *Server) authenticate(r *http.Request) (*record.Key, error) {
	who := s.stranger(r)
	key, err := s.verify(r, who)
	if err == nil || !errors.Is(err, errUnauthorized) {
		return key, err
	}
	if r.Header.Get("Authorization") != "" {
		s.logins.note(who, s.clock(), record.FailedLogins{Keys: 1})
	}
	if wait := s.keys.failures.Note(who); wait > 0 {
		if skipped, due := s.tally.sample(noAccount, s.now()); due {
			s.log.WarnContext(r.Context(), "too many requests with a wrong key", "from", who.net.String(), "refused_since_last_line", skipped)
		}
		return nil, &refusal{
			status: http.StatusTooManyRequests, code: "too_many_failures", detail: "Too many requests with a wrong key.", retryAfter: wait,
		}
	}
	return nil, &refusal{
		status: http.StatusUnauthorized, code: "unauthorized", detail: "A valid API key is needed: Authorization: Bearer <key>.",
		header: http.Header{"Www-Authenticate": {`Bearer realm="sendgate"`}}, cause: err,
	}
}

var errUnauthorized = errors.New("unauthorized")

// noAccount is the id for sampling log lines about requests with a wrong key.
const noAccount = 0

// verify compares the presented key with the stored one. An unknown id is compared with a hash that matches nothing, so that
// it takes as long as a wrong secret.
func (s *Server) verify(r *http.Request, who holder) (*record.Key, error) {
	token, ok := bearer(r)
	if !ok {
		return nil, errUnauthorized
	}
	id, hash, err := ParseKey(token)
	if err != nil {
		return nil, errUnauthorized
	}
	key, err := s.keys.find(r.Context(), id, who)
	if err != nil {
		return nil, err
	}
	stored := make([]byte, sha256.Size)
	if key != nil {
		stored = key.Hash
	}
	same := subtle.ConstantTimeCompare(hash, stored) == 1
	if key == nil || !same || !valid(key, s.clock()) {
		return nil, errUnauthorized
	}
	return key, nil
}

// valid reports whether the key is neither revoked nor expired.
func valid(k *record.Key, now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

// bearer reads the key from the Authorization header (RFC 6750 section 2.1). Keys in the query or a cookie are ignored: a
// query ends up in logs, and a browser can be tricked into sending a cookie.
func bearer(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// withAdminNetworks answers only clients in the admin networks, on every path. It refuses others before their key is checked,
// so that the answer reveals nothing about keys.
func (s *Server) withAdminNetworks(next http.Handler) http.Handler {
	return s.handle(func(w http.ResponseWriter, r *http.Request) error {
		if from := s.clientIP(r); !admits(s.adminNetworks, from) {
			return errAddress(from, "may not use the admin API")
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// fromItsNetworks refuses a key that is used from outside its networks. The key is right, so it may be stolen: the log says so,
// at most once a minute.
func (s *Server) fromItsNetworks(r *http.Request, key *record.Key) error {
	from := s.clientIP(r)
	if admits(key.Networks, from) {
		return nil
	}
	if skipped, due := s.tally.sample(strayKey, s.now()); due {
		s.log.WarnContext(r.Context(), "a key was used from an address outside of its networks", "key_id", key.ID, "from", from.String(), "refused_since_last_line", skipped)
	}
	return errAddress(from, "may not use this key")
}

// strayKey is the id for sampling log lines about keys used from outside their networks.
const strayKey = -1

// admits reports whether a list of networks contains an address. An empty list admits all.
func admits(networks []netip.Prefix, ip netip.Addr) bool {
	return len(networks) == 0 || within(networks, ip)
}

// errAddress names the client's address as we see it, but not the networks that are allowed.
func errAddress(from netip.Addr, mayNot string) error {
	return refuse(http.StatusForbidden, "address_not_allowed", "Requests from the address "+from.String()+" "+mayNot+".")
}
