package httpapi

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

var thorough = flag.Bool("thorough", false, "wait until the server itself gives up a request that does not end")

// inputServer is a running server under the table of bad inputs. Keys are of one tenant unless they say otherwise.
type inputServer struct {
	url    string
	stored func() inputCount
	fail   func(err error) // makes the store answer so, nil heals it
	keys   inputKeys
	gone   string // an address that the tenant has suppressed
}

// inputCount is how much is stored, of all tenants.
type inputCount struct{ messages, events int }

// inputKeys are full API keys.
type inputKeys struct {
	send       string // scope send, any sender domain
	read       string // scope read only
	restricted string // scope send, only from example.com
	other      string // scope send, of another tenant
	paused     string // scope send, of a tenant that is paused
	revoked    string
	expired    string
}

// inputRow is one request and its answer. n is its number in the table of bad inputs. Either raw or do replaces the
// ordinary request.
type inputRow struct {
	n       string
	name    string
	method  string                 // default POST
	path    string                 // default /v1/send
	key     func(inputKeys) string // default send
	header  http.Header            // replaces what is set by default
	body    string
	raw     string // sent as it is over a plain connection; KEY and HOST are filled in
	do      func(t *testing.T, s *inputServer)
	status  int
	code    string // of the problem, or of its first field
	field   string // the first field, "" not looked at
	stored  int    // messages that the row adds
	events  int    // events that the row adds
	closed  bool   // the connection is closed after the answer
	lingers bool   // the server waits for the rest of the request before it closes it
	noJSON  bool   // net/http answers this itself, in text
	answers func(t *testing.T, h http.Header, body []byte)
}

func TestBadInputs(t *testing.T) {
	t.Parallel()
	runInputs(t, newInputServer)
}

// runInputs runs the table against one server. Rows run one after the other, since each counts what was stored.
func runInputs(t *testing.T, newServer func(t *testing.T) *inputServer) {
	t.Helper()
	s := newServer(t)
	before := s.stored()
	for _, row := range inputRows() {
		t.Run(row.n+" "+row.name, func(t *testing.T) {
			switch {
			case row.do != nil:
				row.do(t, s)
			case row.raw != "":
				row.checkRaw(t, s)
			default:
				row.check(t, s)
			}
			after := s.stored()
			if got := after.messages - before.messages; got != row.stored {
				t.Errorf("messages stored = %d, want %d", got, row.stored)
			}
			if got := after.events - before.events; got != row.events {
				t.Errorf("events stored = %d, want %d", got, row.events)
			}
			before = after
		})
	}
}

// newInputServer runs the real handler and the real time limits over the in-memory store. Its one pool has two
// accounts: small can't carry much, and neither carries non-ASCII local parts.
func newInputServer(t *testing.T) *inputServer {
	t.Helper()
	now := time.Now()
	store := newFakeStore(now)
	store.tenants = append(store.tenants,
		record.Tenant{ID: 2, Name: "other", Weight: 1}, record.Tenant{ID: 3, Name: "paused", Weight: 1, Paused: true})
	store.suppressions[suppressionKey{mail.DefaultTenant, "gone@example.org", ""}] = record.Suppression{Email: "gone@example.org"}
	srv, err := New(Options{
		Store: store, Router: planRouter{}, Kinds: fakeKinds{}, SecretKey: bytes.Repeat([]byte{1}, 32), Hooks: inputHooks(1),
		Unsubscribe: idLinks{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = HTTPServer(srv.Handler())
	ts.Start()
	t.Cleanup(ts.Close)
	return &inputServer{
		url: ts.URL, fail: store.failWith, gone: "gone@example.org",
		stored: func() inputCount {
			store.mu.Lock()
			defer store.mu.Unlock()
			return inputCount{messages: len(store.messages), events: store.kept}
		},
		keys: inputKeys{
			send:       store.addKey(nil, record.ScopeSend),
			read:       store.addKey(nil, record.ScopeRead),
			restricted: store.addKey(func(k *record.Key) { k.SenderDomains = []string{"example.com"} }, record.ScopeSend),
			other:      store.addKey(func(k *record.Key) { k.Tenant = 2 }, record.ScopeSend),
			paused:     store.addKey(func(k *record.Key) { k.Tenant = 3 }, record.ScopeSend),
			revoked:    store.addKey(func(k *record.Key) { k.RevokedAt = now }, record.ScopeSend),
			expired:    store.addKey(func(k *record.Key) { k.ExpiresAt = now.Add(-time.Second) }, record.ScopeSend),
		},
	}
}

// planRouter asks the real planner, so that its codes are the ones that send.go looks for.
type planRouter struct{}

func (planRouter) Explain(r route.Request) route.Decision {
	c := &route.Config{
		Version: 1, Accounts: []route.Account{
			{ID: 1, Name: "big", Kind: "ses", Capabilities: provider.Capabilities{MaxBytes: 40 << 20}},
			{ID: 2, Name: "small", Kind: "ses", Capabilities: provider.Capabilities{MaxBytes: 1 << 20, ForbiddenExtensions: []string{"exe"}}},
		},
		Pools: []route.Pool{{ID: 1, Name: route.DefaultPool, Overflow: route.Spill, Members: []route.Member{{Account: "big", Weight: 1}, {Account: "small", Weight: 1}}}},
	}
	r.Now = time.Now()
	d, _ := route.Plan(c, idleView{}, r)
	return d
}

type idleView struct{}

func (idleView) Health(*route.Account) route.Why { return route.Why{} }
func (idleView) Free(*route.Account) route.Why   { return route.Why{} }

func (idleView) Probe(*route.Account, route.Park) bool { return false }

// sendJSON is a valid send with some members replaced; a value of "" takes the member out. Members are given as JSON.
func sendJSON(changes ...string) string {
	members := map[string]string{
		"from": `"shop@example.com"`, "to": `["ann@example.org"]`, "subject": `"hi"`, "text": `"hello"`,
	}
	for i := 0; i < len(changes); i += 2 {
		if members[changes[i]] = changes[i+1]; changes[i+1] == "" {
			delete(members, changes[i])
		}
	}
	all := make([]string, 0, len(members))
	for name, value := range members {
		all = append(all, `"`+name+`":`+value)
	}
	return "{" + strings.Join(all, ",") + "}"
}

func quoted(s string) string {
	b, _ := json.Marshal(s) //nolint:errchkjson // a string always encodes
	return string(b)
}

// listOf gives a JSON list of n elements made by one.
func listOf(n int, one func(i int) string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = one(i)
	}
	return "[" + strings.Join(all, ",") + "]"
}

// rawSend is a request head and body for a plain connection.
func rawSend(head, body string) string {
	return "POST /v1/send HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer KEY\r\nContent-Type: application/json\r\n" + head + "\r\n" + body
}

func (r *inputRow) check(t *testing.T, s *inputServer) {
	t.Helper()
	resp, err := r.request(t, s)
	if err != nil {
		t.Fatal(err)
	}
	r.checkAnswer(t, resp)
	if r.closed && !resp.Close {
		t.Error("the answer does not close the connection")
	}
}

// request sends the row's request. It may be called from any goroutine.
func (r *inputRow) request(t *testing.T, s *inputServer) (*http.Response, error) {
	t.Helper()
	method, path, key := cmp.Or(r.method, http.MethodPost), cmp.Or(r.path, "/v1/send"), s.keys.send
	if r.key != nil {
		key = r.key(s.keys)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	for name, values := range r.header {
		req.Header[name] = values
	}
	return (&http.Client{}).Do(req)
}

// checkRaw writes in the background, since a server that refuses early stops reading.
func (r *inputRow) checkRaw(t *testing.T, s *inputServer) {
	t.Helper()
	conn := dialRaw(t, s)
	text := strings.NewReplacer("KEY", s.keys.send, "HOST", conn.RemoteAddr().String()).Replace(r.raw)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.WriteString(conn, text) })
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	r.checkAnswer(t, resp)
	if r.closed {
		if r.lingers && !*thorough {
			if !resp.Close {
				t.Error("the answer does not say that the connection is closed")
			}
			_ = conn.CloseWrite() // else the server waits for the rest
		}
		if _, err := in.ReadByte(); err == nil {
			t.Error("the connection goes on after the answer")
		}
	}
	_ = conn.Close()
	wg.Wait()
}

func dialRaw(t *testing.T, s *inputServer) *net.TCPConn {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn) //nolint:forcetypeassert // it was dialled as such
}

// checkAnswer holds an answer to the row and to what all answers have in common.
func (r *inputRow) checkAnswer(t *testing.T, resp *http.Response) {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != r.status {
		t.Fatalf("status = %d, want %d: %.300s", resp.StatusCode, r.status, body)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode >= 400 && !r.noJSON {
		r.checkProblem(t, kind, body)
	}
	if resp.StatusCode == http.StatusAccepted && kind != "application/json" {
		t.Errorf("Content-Type = %s, want application/json", kind)
	}
	if resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests {
		if resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if r.answers != nil {
		r.answers(t, resp.Header, body)
	}
}

func (r *inputRow) checkProblem(t *testing.T, kind string, body []byte) {
	t.Helper()
	if kind != "application/problem+json" {
		t.Errorf("Content-Type = %s, want application/problem+json", kind)
	}
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("problem %.300s: %v", body, err)
	}
	code, field := p.Code, ""
	if len(p.Errors) > 0 {
		field = p.Errors[0].Field
		if p.Code == "invalid" {
			code = p.Errors[0].Code
		}
	}
	if p.Status != r.status || p.RequestID == "" || p.Title == "" {
		t.Errorf("problem lacks status, request_id or title: %.300s", body)
	}
	if r.code != "" && code != r.code {
		t.Errorf("code = %s, want %s: %.300s", code, r.code, body)
	}
	if r.field != "" && field != r.field {
		t.Errorf("field = %s, want %s: %.300s", field, r.field, body)
	}
}
