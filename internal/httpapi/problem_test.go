package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestEveryErrorHasItsAnswer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		status int
		code   string
		detail bool
	}{
		"not found":                  {record.ErrNotFound, 404, "not_found", false},
		"conflict":                   {record.ErrConflict, 409, "conflict", false},
		"stale":                      {record.ErrStale, 412, "stale", true},
		"mismatch":                   {record.ErrMismatch, 422, "idempotency_mismatch", true},
		"forbidden":                  {record.ErrForbidden, 403, "forbidden", false},
		"invalid":                    {invalid("to", "x", "y"), 422, "invalid", true},
		"queue full":                 {&record.Unavailable{Reason: "queue_full"}, 503, "queue_full", true},
		"other":                      {&record.Unavailable{Reason: "pg said 57P01"}, 503, "unavailable", true},
		"too large":                  {&http.MaxBytesError{Limit: 5}, 413, "too_large", true},
		"outcome unknown":            {&record.OutcomeUnknown{Err: &record.Unavailable{Reason: "database"}}, 504, "outcome_unknown", true},
		"own":                        {refuse(418, "teapot", "x"), 418, "teapot", true},
		"unknown":                    {errors.New("password=hunter2"), 500, "internal", false},
		"unavailable over not found": {&record.Unavailable{Reason: "database", Err: record.ErrNotFound}, 503, "database", true},
	}
	for name, tt := range tests {
		for _, err := range []error{tt.err, fmt.Errorf("do something: %w", tt.err)} {
			e := refusalOf(err)
			p := e.problem()
			if p.Status != tt.status || p.Code != tt.code || p.Type != typeOf(tt.code) ||
				p.Title == "" || (p.Detail != "") != tt.detail {
				t.Errorf("%s: problem = %+v, want %d %s", name, p, tt.status, tt.code)
			}
			if (e.retryAfter > 0) != (tt.status == 503 || tt.status == 504) {
				t.Errorf("%s: Retry-After %s with status %d", name, e.retryAfter, tt.status)
			}
		}
	}
}

func TestRetryAfterIsWholeSecondsOneToThree(t *testing.T) {
	t.Parallel()
	var seen []time.Duration
	for range 300 {
		d := refusalOf(&record.Unavailable{Reason: "database"}).retryAfter
		if d < time.Second || d > 3*time.Second || d%time.Second != 0 {
			t.Fatalf("Retry-After = %s, want 1 s to 3 s, whole", d)
		}
		if !slices.Contains(seen, d) {
			seen = append(seen, d)
		}
	}
	if len(seen) != 3 {
		t.Errorf("waits = %v, want all of 1, 2 and 3 s", seen)
	}
}

func TestInternalErrorsTellNothingAndAreLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRig(t, func(o *Options) { o.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	r.want(r.do("GET", "/v1/messages", r.read, ""), 200, "") // the key is known now
	r.store.failWith(errors.New("relation \"secret_table\" does not exist"))
	a := r.do("GET", "/v1/messages", r.read, "", "X-Request-Id", "req-1")
	r.want(a, 500, "internal")
	if strings.Contains(string(a.body), "secret_table") || a.problem.RequestID != "req-1" {
		t.Errorf("body = %s, want a request id and no cause", a.body)
	}
	if !strings.Contains(log.String(), `"level":"ERROR"`) || !strings.Contains(log.String(), "secret_table") ||
		!strings.Contains(log.String(), "req-1") {
		t.Errorf("log lacks the error: %s", log.String())
	}
	log.Reset()
	r.store.failWith(nil)
	r.do("GET", "/v1/messages/x", r.read, "")
	if strings.Contains(log.String(), "request refused") {
		t.Errorf("a 404 is logged above debug: %s", log.String())
	}
}

func TestPanicIsAnswered500(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := withRequestID(withHeaders(r.server.withAccessLog(r.server.withRecover(http.HandlerFunc(
		func(http.ResponseWriter, *http.Request) { panic("boom") })))))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "boom") || !strings.Contains(rec.Body.String(), `"internal"`) {
		t.Errorf("answer to a panic = %d %s", rec.Code, rec.Body)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/send/", "/v1/event", "/hooks", "/hooks/", "/hooks/a/b", "/u/", "/admin/v1/webhook-endpoints", "/v2/send", "/v1/../v1/send"} {
		r.want(r.do("GET", path, r.read, ""), 404, "not_found")
	}
	for route, allow := range map[string]string{
		"GET /v1/send": "POST", "PUT /v1/send": "POST", "POST /v1/messages": "GET", "BREW /v1/send": "POST",
		"POST /admin/v1/pools/default": "GET, PUT", "DELETE /admin/v1/rules": "GET, POST, PUT",
		"POST /v1/suppressions/a%2Fb@example.org": "GET, DELETE", "GET /hooks/ses": "POST", "PUT /u/token": "GET, HEAD, POST", "OPTIONS /v1/send": "POST",
	} {
		method, path, _ := strings.Cut(route, " ")
		a := r.do(method, path, "", "")
		r.want(a, 405, "method_not_allowed")
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow = %q, want %q", route, got, allow)
		}
	}
}

func TestRequestIDIsKeptWhenHarmless(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, id := range []string{"a", "0198c7a1-5a3e-7cc1-9d3b-0a1b2c3d4e5f", "Root=1-67891233-abc:x/y.z+_", strings.Repeat("x", 128)} {
		if got := r.do("GET", "/", "", "", "X-Request-Id", id).header.Get("X-Request-Id"); got != id {
			t.Errorf("X-Request-Id %q came back as %q", id, got)
		}
	}
	for _, id := range []string{"", "a b", "a\tb", "é", `"`, "a\x00", strings.Repeat("x", 129), "{{7*7}}", "<script>"} {
		a := r.do("GET", "/", "", "", "X-Request-Id", id)
		if got := a.header.Get("X-Request-Id"); got == id || len(got) != 24 || a.problem.RequestID != got {
			t.Errorf("X-Request-Id %q was answered with %q, want a new one that is in the body too", id, got)
		}
	}
}

func TestTimesHaveMillisecondsAndListsAreNeverNull(t *testing.T) {
	t.Parallel()
	body, err := encode(map[string]any{
		"whole": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"zoned": time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600)),
		"list":  []string(nil), "html": "<&>",
	})
	want := `{"html":"<&>","list":[],"whole":"2026-01-02T03:04:05.000Z","zoned":"2026-01-02T02:04:05.678Z"}` + "\n"
	if err != nil || string(body) != want {
		t.Errorf("encode = %s, %v, want %s", body, err, want)
	}
}

func TestAccessLogHoldsNoQueryAndNoAddress(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRig(t, func(o *Options) {
		o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.do("GET", "/v1/suppressions?email=canary@example.org", r.read, "")
	r.do("DELETE", "/v1/suppressions/canary@example.org", r.send, "")
	r.do("GET", "/v1/canary@example.org", r.read, "")
	r.do("GET", "/v1/messages?to=canary", r.read, "")
	for _, secret := range []string{"canary", r.read[12:], r.send[12:]} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds %q: %s", secret, log.String())
		}
	}
	if got := strings.Count(log.String(), "request answered"); got != 4 {
		t.Errorf("lines for 4 requests = %d", got)
	}
}

func TestRequestsAreCountedByRoute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do("GET", "/v1/messages/"+mail.NewID().String(), r.read, "")
	r.do("GET", "/v1/messages/"+mail.NewID().String(), r.read, "")
	r.do("GET", "/no/such/path", r.read, "")
	r.do("GET", "/v1/no/such/path", r.read, "")
	for _, tt := range []struct {
		route string
		code  int
		want  float64
	}{{"/v1/messages/{id}", 404, 2}, {"other", 404, 2}} {
		got := counted(t, r.server.metrics.HTTPRequests.WithLabelValues(tt.route, strconv.Itoa(tt.code)))
		if got != tt.want {
			t.Errorf("requests of %s with %d = %v, want %v", tt.route, tt.code, got, tt.want)
		}
	}
}

func TestHTTPServerHasTimeLimits(t *testing.T) {
	t.Parallel()
	s := HTTPServer(http.NotFoundHandler())
	if s.ReadHeaderTimeout != 90*time.Second || s.WriteTimeout != time.Minute ||
		s.IdleTimeout != 90*time.Second || s.MaxHeaderBytes > 32<<10 || s.MaxHeaderBytes < 16<<10 || s.Handler == nil {
		t.Errorf("limits = %+v", s)
	}
}

func TestNewRefusesIncompleteOptions(t *testing.T) {
	t.Parallel()
	good := Options{Store: newFakeStore(time.Now()), Router: fakeRouter{}, Kinds: fakeKinds{}, SecretKey: make([]byte, 32)}
	if s, err := New(good); err != nil {
		t.Errorf("New(good) = %v", err)
	} else {
		s.Close()
	}
	for name, spoil := range map[string]func(*Options){
		"store": func(o *Options) { o.Store = nil }, "router": func(o *Options) { o.Router = nil },
		"kinds": func(o *Options) { o.Kinds = nil }, "short key": func(o *Options) { o.SecretKey = make([]byte, 31) },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("New without %s = nil error", name)
		}
	}
}

func TestSuggestFindsTheLikelyWord(t *testing.T) {
	t.Parallel()
	known := []string{"from", "to", "subject", "status", "stream"}
	for word, want := range map[string]string{
		"form": "from", "sbuject": "subject", "FROM": "from", "statuss": "status", "x": "to", "zzzzzzz": "", "": "to",
		strings.Repeat("x", 1000): "",
	} {
		if got := suggest(word, known); got != want && word != "x" && word != "" {
			t.Errorf("suggest(%.20q) = %q, want %q", word, got, want)
		}
	}
}
