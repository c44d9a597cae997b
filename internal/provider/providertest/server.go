package providertest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// request is one request as the server got it.
type request struct {
	*http.Request
	body []byte
}

// server records every request and answers with its current handler.
type server struct {
	*httptest.Server

	mu       sync.Mutex
	requests []request
	handler  http.Handler
}

func newServer(t *testing.T, h http.Handler) *server {
	t.Helper()
	s := &server{handler: h}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the request did not arrive completely, so it does not count
	}
	s.mu.Lock()
	s.requests = append(s.requests, request{r, body})
	h := s.handler
	s.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.ServeHTTP(w, r)
}

func (s *server) answer(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

// take returns the requests since the last take.
func (s *server) take() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.requests
	s.requests = nil
	return got
}

// takeOne fails the test unless there was exactly one request since the last take.
func (s *server) takeOne(t *testing.T) {
	t.Helper()
	if got := len(s.take()); got != 1 {
		t.Errorf("requests = %d, want exactly 1", got)
	}
}

// fixed gives the same answer each time.
func fixed(status int, header http.Header, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for k, v := range header {
			w.Header()[http.CanonicalHeaderKey(k)] = v
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// drop ends the connection without an answer: with a reset, or as if the process had exited.
func drop(reset bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	})
}

// cut sends the head of an answer and the first byte of its body, then drops the connection.
func cut(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
		drop(true).ServeHTTP(w, r)
	})
}
