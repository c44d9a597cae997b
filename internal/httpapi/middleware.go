package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/sendgate/sendgate/internal/record"
)

type contextKey int

const (
	requestIDKey contextKey = iota
	principalKey
	insiderKey
)

const maxRequestID = 128

// withRequestID takes the caller's X-Request-Id if it is harmless, or makes one. The answer carries it.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !validRequestID(id) {
			var random [12]byte
			_, _ = rand.Read(random[:]) // never fails since Go 1.24
			id = hex.EncodeToString(random[:])
		}
		w.Header().Set("X-Request-Id", id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey, id)))
	})
}

// validRequestID allows only characters that can break neither a log line nor a header.
func validRequestID(id string) bool {
	return id != "" && len(id) <= maxRequestID && only(id, base62+"-_.:/+=")
}

// requestID returns the id of the request in progress.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

// withHeaders sets headers of every answer: caches must not store it, and browsers must not guess its type.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// withAccessLog writes one line and counts one request. The query is left out: it may hold addresses.
func (s *Server) withAccessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.now()
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(ww, r)
		status, took, route := ww.Status(), s.now().Sub(start), routeOf(r)
		if status == 0 {
			status = http.StatusOK
		}
		s.metrics.HTTPRequests.WithLabelValues(route, strconv.Itoa(status)).Inc()
		s.metrics.HTTPSeconds.WithLabelValues(route).Observe(took.Seconds())
		level := slog.LevelInfo
		if ofStranger(route, status) {
			level = slog.LevelDebug
		}
		s.log.LogAttrs(r.Context(), level, "request answered",
			slog.String("request_id", requestID(r.Context())), slog.String("method", methodLabel(r.Method)),
			slog.String("route", route), slog.Int("status", status), slog.Duration("took", took),
			slog.Int("bytes", ww.BytesWritten()))
	})
}

// ofStranger reports whether anyone can cause such an answer, as often as they like. These are logged for debugging only.
// Metrics count them, and the code that refuses them logs samples.
func ofStranger(route string, status int) bool {
	open := strings.HasPrefix(route, "/hooks/") || strings.HasPrefix(route, "/u/") || route == "other" ||
		route == "/dash/signin" || route == record.WelcomePath
	return status == http.StatusUnauthorized || status == http.StatusTooManyRequests || open && status >= http.StatusBadRequest
}

// withRecover turns a panic of a handler into a 500, and its stack into a log line.
func (s *Server) withRecover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { //nolint:contextcheck // the request has it
			cause := recover()
			if cause == nil {
				return
			}
			if cause == http.ErrAbortHandler { //nolint:errorlint // the panic value itself is the signal
				panic(cause)
			}
			s.log.ErrorContext(r.Context(), "handler panicked",
				"request_id", requestID(r.Context()), "route", routeOf(r), "stack", string(debug.Stack()))
			s.writeProblem(w, r, fmt.Errorf("handler panicked: %v", cause))
		}()
		next.ServeHTTP(w, r)
	})
}

// routeOf returns the pattern that the request matched, or "other".
func routeOf(r *http.Request) string {
	rc := chi.RouteContext(r.Context())
	if rc == nil {
		return "other"
	}
	pattern := rc.RoutePattern()
	if pattern == "" || strings.HasSuffix(pattern, "/*") {
		return "other"
	}
	return pattern
}

// methodLabel keeps made-up methods out of logs and metrics.
func methodLabel(m string) string {
	if slices.Contains(methods, m) || m == http.MethodOptions {
		return m
	}
	return "OTHER"
}

// pathParam returns a part of the path, unescaped. It returns "" for text that is not UTF-8 or contains a control character:
// no name or address does, and Postgres would refuse it with an error.
func pathParam(r *http.Request, name string) string {
	plain := chi.URLParam(r, name)
	if r.URL.RawPath != "" {
		if unescaped, err := url.PathUnescape(plain); err == nil {
			plain = unescaped
		}
	}
	if !clean(plain) {
		return ""
	}
	return plain
}

// withShare bounds the concurrent requests of one address. A bound on connections is not enough: those of a proxy carry
// requests of everybody.
func (s *Server) withShare(requests *pool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.warnOfProxy(r)
			place := requests.take(s.stranger(r), 1, nil)
			if place == nil {
				w.Header().Set("Connection", "close")
				stopReading(w)()
				s.writeProblem(w, r, &refusal{
					status: http.StatusTooManyRequests, code: "too_many_requests", detail: "Your address has too many requests under way.",
					retryAfter: time.Second,
				})
				return
			}
			defer place.release()
			next.ServeHTTP(w, r)
		})
	}
}

// warnOfProxy logs, at most once an hour, that X-Forwarded-For of an untrusted peer is ignored. If the peer is a proxy, all of
// its clients count as one address.
func (s *Server) warnOfProxy(r *http.Request) {
	if r.Header.Get("X-Forwarded-For") == "" {
		return
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || s.trusted(peer.Addr().Unmap().WithZone("")) {
		return
	}
	now, last := s.now().Unix(), s.warned.Load()
	if now-last >= 3600 && s.warned.CompareAndSwap(last, now) {
		s.log.WarnContext(r.Context(), "X-Forwarded-For of a peer that SENDGATE_TRUSTED_PROXIES does not name is not believed. If it is your proxy, name it: "+
			"until then all of its clients share the allowance of one address", "peer", peer.Addr().String())
	}
}

// stranger returns the holder of the client's address.
func (s *Server) stranger(r *http.Request) holder { return network(s.clientIP(r)) }

// clientIP returns the address of the client: the peer of the connection or, if the peer is a trusted proxy, the last
// address in X-Forwarded-For that is not a trusted proxy.
func (s *Server) clientIP(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip := peer.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !s.trusted(ip) {
			return ip
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return ip
		}
		ip = next.Unmap().WithZone("")
	}
	return ip
}

func (s *Server) trusted(ip netip.Addr) bool { return within(s.proxies, ip) }
