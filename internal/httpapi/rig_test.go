package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// rig is a server over a fakeStore. Every exchange with it goes through the contract: what it answers must be what
// openapi.yaml says, and what it takes (2xx) must be what openapi.yaml allows.
type rig struct {
	t                 *testing.T
	store             *fakeStore
	notify            *fakeNotify
	clock             *clock
	server            *Server
	send, read, admin string // keys
	write             string // a key that changes suppressions and webhook endpoints
}

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	c := &clock{at: time.Date(2026, 1, 31, 8, 30, 0, 0, time.UTC)}
	store := newFakeStore(c.at)
	notify := &fakeNotify{store: store}
	o := Options{
		Notify: NotifyOptions{Store: notify, Test: notify},
		Store:  store, Router: fakeRouter{}, Kinds: fakeKinds{}, SecretKey: bytes.Repeat([]byte("k"), 32), Now: c.now,
		AcceptWait: 10 * time.Second,
	}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &rig{
		t: t, store: store, notify: notify, clock: c, server: s,
		send: store.addKey(nil, record.ScopeSend), read: store.addKey(nil, record.ScopeRead),
		admin: store.addKey(nil, record.ScopeAdmin),
		write: store.addKey(nil, record.ScopeSuppressionsWrite, record.ScopeComplaints, record.ScopeWebhooksWrite),
	}
}

// answer is what came back.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	problem api.Problem // of an error
}

// do makes a request. The body is JSON text, or "" for none; headers are name, value pairs. A stream is hung up on once
// it has sent what is there.
func (r *rig) do(method, target, key, body string, headers ...string) answer {
	r.t.Helper()
	req := httptest.NewRequest(method, target, bytes.NewReader([]byte(body)))
	if body == "" {
		req = httptest.NewRequest(method, target, http.NoBody)
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.HasPrefix(target, "/v1/events/stream") {
		ctx, hangUp := context.WithCancel(req.Context())
		hangUp()
		req = req.WithContext(ctx)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return r.exchange(req)
}

// exchange makes a prepared request and holds both sides to the contract.
func (r *rig) exchange(req *http.Request) answer {
	r.t.Helper()
	sent, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Body = io.NopCloser(bytes.NewReader(sent))
	rec := httptest.NewRecorder()
	r.server.Handler().ServeHTTP(rec, req)
	a := answer{status: rec.Code, header: rec.Header(), body: rec.Body.Bytes()}
	if a.status >= 400 && !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		if err := json.Unmarshal(a.body, &a.problem); err != nil {
			r.t.Fatalf("%s %s answered %d with %q, which is no problem: %v", req.Method, req.URL, a.status, a.body, err)
		}
		if _, known := problemTypes[a.problem.Code]; !known {
			r.t.Errorf("%s %s answered %s, which problemTypes does not explain", req.Method, req.URL, a.problem.Code)
		}
	}
	req.Body = io.NopCloser(bytes.NewReader(sent))
	r.hold(req, a)
	return a
}

// hold checks an exchange against the contract.
func (r *rig) hold(req *http.Request, a answer) {
	r.t.Helper()
	spec, err := contract()
	if err != nil {
		r.t.Fatal(err)
	}
	if a.header.Get("X-Request-Id") == "" || a.header.Get("Cache-Control") != "no-store" ||
		a.header.Get("X-Content-Type-Options") != "nosniff" {
		r.t.Errorf("%s %s: headers %v lack one that every answer has", req.Method, req.URL, a.header)
	}
	found, params, err := spec.router.FindRoute(req)
	if errors.Is(err, routers.ErrPathNotFound) || errors.Is(err, routers.ErrMethodNotAllowed) {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			r.t.Errorf("%s %s answered %d, but the contract does not know it", req.Method, req.URL, a.status)
		}
		return
	}
	if err != nil {
		r.t.Fatal(err)
	}
	in := &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Route: found,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true},
	}
	if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil && a.status < 300 {
		r.t.Errorf("%s %s answered %d, but the contract does not allow the request: %v", req.Method, req.URL, a.status, err)
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(req.Context(), out); err != nil {
		r.t.Errorf("%s %s: answer is not what the contract says: %v", req.Method, req.URL, err)
	}
}

// want fails unless the answer has the status and, if it is an error, the code.
func (r *rig) want(a answer, status int, code string) {
	r.t.Helper()
	if a.status != status || a.problem.Code != code {
		r.t.Fatalf("answer = %d %q, want %d %q; body: %s", a.status, a.problem.Code, status, code, a.body)
	}
}

// RoundTrip implements http.RoundTripper, so that an api.Client can call the server through the contract.
func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	inner := req.Clone(req.Context())
	inner.RequestURI = req.URL.RequestURI()
	inner.RemoteAddr = "192.0.2.1:1234"
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	a := r.exchange(inner)
	return &http.Response{
		StatusCode: a.status, Status: http.StatusText(a.status), Header: a.header,
		Body: io.NopCloser(bytes.NewReader(a.body)), Request: req,
	}, nil
}

// client gives an api.Client with the key.
func (r *rig) client(key string) *api.Client {
	return api.NewWith("http://sendgate.test", key, &http.Client{Transport: r})
}

// decoded reads the body of an answer.
func decoded[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("decode %s: %v", a.body, err)
	}
	return v
}

// spec is openapi.yaml, made strict: answers may hold nothing that it does not name.
type spec struct {
	doc    *openapi3.T
	router routers.Router
}

func contract() (*spec, error) { return loadContract() }

var loadContract = sync.OnceValues(func() (*spec, error) {
	for _, kind := range []string{"text/html", "text/event-stream", "text/csv", "application/yaml"} {
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.PlainBodyDecoder)
	}
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI())
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	doc.Servers = nil
	for _, s := range doc.Components.Schemas {
		strict(s.Value)
	}
	router, err := gorillamux.NewRouter(doc)
	return &spec{doc, router}, err
})

// strict closes every object that lists its properties and does not say whether it may have others.
func strict(s *openapi3.Schema) {
	if s == nil {
		return
	}
	if len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		no := false
		s.AdditionalProperties.Has = &no
	}
	for _, p := range s.Properties {
		if p.Ref == "" {
			strict(p.Value)
		}
	}
	if s.Items != nil && s.Items.Ref == "" {
		strict(s.Items.Value)
	}
	for _, list := range []openapi3.SchemaRefs{s.AnyOf, s.AllOf, s.OneOf} {
		for _, p := range list {
			if p.Ref == "" {
				strict(p.Value)
			}
		}
	}
}

// routesOf lists the server's routes as "METHOD /path".
func (r *rig) routesOf() []string {
	r.t.Helper()
	mux, ok := r.server.handler.(chi.Routes)
	if !ok {
		r.t.Fatal("the handler has no routes to walk")
	}
	var all []string
	err := chi.Walk(mux, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		all = append(all, method+" "+route)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}
