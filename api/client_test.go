package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

const key = "sg_00000000_secret"

// serve returns a client of a server with one handler.
func serve(t *testing.T, h http.HandlerFunc) *api.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := api.New(srv.URL+"/", key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientSendsKeyBodyAndIdempotencyKey(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		want := `{"from":{"email":"a@example.com"},"to":[{"email":"b@example.org"}],"subject":"x","text":"y"}`
		if r.Method != http.MethodPost || r.URL.Path != "/v1/send" || string(body) != want ||
			r.Header.Get("Authorization") != "Bearer "+key || r.Header.Get("Idempotency-Key") != "k1" ||
			r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("request = %s %s %v\n%s", r.Method, r.URL, r.Header, body)
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"id":"1","status":"queued","recipients":[{"email":"b@example.org","status":"queued"}]}`)
	})
	got, err := c.Send(t.Context(), api.SendRequest{
		From: api.Address{Email: "a@example.com"}, To: []api.Address{{Email: "b@example.org"}}, Subject: "x", Text: "y",
	}, "k1")
	want := &api.SendResult{
		ID: "1", Status: "queued", Recipients: []api.RecipientStatus{{Email: "b@example.org", Status: "queued"}},
	}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("Send = %s, %v", cmp.Diff(want, got), err)
	}
}

func TestClientGivesProblems(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"type":"t","title":"Draining","status":503,"code":"draining","request_id":"r"}`)
	})
	_, err := c.Queue(t.Context())
	var p *api.Problem
	if !errors.As(err, &p) {
		t.Fatalf("error = %v, want a *Problem", err)
	}
	want := &api.Problem{Type: "t", Title: "Draining", Status: 503, Code: "draining", RequestID: "r", RetryAfter: 7 * time.Second}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("problem (-want +got):\n%s", diff)
	}
}

func TestClientGivesProblemsOfWhatIsNoProblemDocument(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", "r")
		http.Error(w, "<h1>Bad gateway</h1>", http.StatusBadGateway)
	})
	err := c.RevokeKey(t.Context(), "1")
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusBadGateway || p.RequestID != "r" {
		t.Fatalf("error = %#v, want a *Problem with status 502", err)
	}
	if strings.Contains(err.Error(), "<h1>") {
		t.Errorf("the error holds the page: %v", err)
	}
}

func TestProblemReadsAsOneLine(t *testing.T) {
	t.Parallel()
	p := &api.Problem{Code: "invalid", Detail: "Some fields can't be accepted."}
	for _, f := range []string{"a", "b", "c", "d", "e"} {
		p.Errors = append(p.Errors, api.FieldProblem{Field: f, Message: "is wrong"})
	}
	want := "invalid: Some fields can't be accepted.; a: is wrong; b: is wrong; c: is wrong; and 2 more"
	if got := p.Error(); got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if got := (&api.Problem{Status: 502}).Error(); got != "status 502" {
		t.Errorf("Error() without a code = %q", got)
	}
}

func TestClientFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var leaked atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get("Authorization") != "")
	}))
	defer other.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	_, err := c.Message(t.Context(), "1")
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusTemporaryRedirect {
		t.Errorf("error = %v, want a *Problem with status 307", err)
	}
	if leaked.Load() {
		t.Error("the key went to another server")
	}
}

// net/http repeats a request on a fresh connection when a kept-alive one breaks, if it believes that it may.
func TestClientNeverSendsTwice(t *testing.T) {
	t.Parallel()
	var sends atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"data":[]}`)
			return
		}
		sends.Add(1)
		conn, _, err := w.(http.Hijacker).Hijack() //nolint:forcetypeassert // HTTP/1.1
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	})
	if _, err := c.Keys(t.Context()); err != nil { // leaves a connection to be used again
		t.Fatal(err)
	}
	_, err := c.Send(t.Context(), api.SendRequest{Subject: "x"}, "k1")
	var p *api.Problem
	if err == nil || errors.As(err, &p) {
		t.Errorf("error of a broken connection = %v, want a transport error", err)
	}
	if got := sends.Load(); got != 1 {
		t.Errorf("sends = %d, want 1", got)
	}
}

func TestClientStopsWithItsContext(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.Queue(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

func TestClientCapsAnswers(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := []byte(strings.Repeat(" ", 1<<20))
		for range 66 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if _, err := c.Queue(t.Context()); err == nil || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("error of an endless answer = %v", err)
	}
}

func TestClientErrorsHoldNoKey(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close() // nobody listens now
	c, err := api.New(srv.URL, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Queue(t.Context()); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error = %v, want one without the key", err)
	}
}

func TestNewRefusesWhatIsNoBaseURL(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "localhost:8025", "ftp://x", "http://", "http://user:pw@x", "http://x?y=1", "http://x#y", "http://%"} {
		if _, err := api.New(bad, key); err == nil {
			t.Errorf("New(%q) = nil error", bad)
		} else if strings.Contains(err.Error(), "pw") {
			t.Errorf("New(%q): the error holds the password", bad)
		}
	}
}

func TestMessageQueryNamesOnlyWhatIsSet(t *testing.T) {
	t.Parallel()
	queries := make(chan string, 2)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		queries <- r.URL.RawQuery
		_, _ = io.WriteString(w, `{"data":[]}`)
	})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	for q, want := range map[api.MessageQuery]string{
		{}: "",
		{Status: "failed", To: "a+b@example.org", Since: at, Limit: 5, Cursor: "c"}: "cursor=c&limit=5&since=2026-01-02T02%3A04%3A05Z&status=failed&to=a%2Bb%40example.org",
	} {
		if _, err := c.Messages(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if got := <-queries; got != want {
			t.Errorf("query = %q, want %q", got, want)
		}
	}
}
