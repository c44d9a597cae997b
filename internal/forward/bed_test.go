package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(closing{m}) }

// closing is the tests and the end of what they share.
type closing struct{ *testing.M }

// Run implements goleak.TestingM.
func (c closing) Run() int {
	code := c.M.Run()
	if s := made; s != nil {
		s.sql.Close()
		s.db.Close()
		if err := s.database.Drop(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}

// bed is a database with a store on it, and an engine that runs.
type bed struct {
	*shared
	log    *logged
	engine *Engine
}

// shared is a database that tests use in turn, because making one costs more than a test does with it.
type shared struct {
	turn     sync.Mutex
	database *pgtest.Database
	db       *postgres.DB
	sql      *pgxpool.Pool
}

// made is what stage made; TestMain closes it.
var made *shared

// stage is the shared part of every bed. The first test makes it.
var stage = sync.OnceValues(func() (*shared, error) {
	ctx := context.Background()
	d, err := pgtest.Make(ctx)
	if err != nil {
		return nil, err
	}
	box, err := seal.NewBox(bytes.Repeat([]byte{1}, seal.KeySize))
	if err != nil {
		return nil, err
	}
	s := &shared{database: d}
	if s.db, err = postgres.Open(ctx, postgres.Options{URL: d.URL, Box: box}); err != nil {
		return nil, err
	}
	if s.sql, err = pgxpool.New(ctx, d.URL); err != nil {
		return nil, err
	}
	made = s
	return s, nil
})

// logged is a log that tests read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// newBed waits for its turn, which lasts until the end of the test.
func newBed(t *testing.T) *bed {
	t.Helper()
	s, err := stage()
	must(t, err)
	s.turn.Lock()
	t.Cleanup(s.turn.Unlock)
	b := &bed{shared: s, log: &logged{}}
	b.exec(t, `TRUNCATE outbox, delivery, event, webhook_endpoint, audit, audit_link`)
	b.exec(t, `DELETE FROM tenant WHERE id <> $1`, mail.DefaultTenant)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// jailed is the client that the program has, with the sinks let through.
func jailed(t *testing.T, sinks ...*sink) *http.Client {
	t.Helper()
	var allow []jail.Target
	for _, s := range sinks {
		u, err := url.Parse(s.URL)
		must(t, err)
		at := netip.MustParseAddrPort(u.Host)
		allow = append(allow, jail.Target{Prefix: netip.PrefixFrom(at.Addr(), 32), Port: at.Port()})
	}
	c := jail.New(jail.Options{Allow: allow})
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// run starts an engine that calls the sinks and no other. The function it returns stops it and waits.
func (b *bed) run(t *testing.T, o Options, sinks ...*sink) (stop func()) {
	t.Helper()
	o.Log, o.Client = slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), jailed(t, sinks...)
	if o.Store == nil {
		o.Store = b.db
	}
	var err error
	b.engine, err = New(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.engine.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func (b *bed) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := b.sql.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func get[T any](t *testing.T, b *bed, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := b.sql.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// endpoint makes an endpoint at the sink, of the default tenant.
func (b *bed) endpoint(t *testing.T, s *sink, types ...mail.EventType) mail.ID {
	t.Helper()
	e := record.Endpoint{Tenant: mail.DefaultTenant, URL: s.URL + "/in?token=canary-query", Types: types}
	made, err := b.db.CreateEndpoint(t.Context(), "tester", e, s.secret, seal.Secret{})
	must(t, err)
	return made.ID
}

// queue stores n events and queues them for the endpoint alone.
func (b *bed) queue(t *testing.T, endpoint mail.ID, n int) []mail.ID {
	t.Helper()
	ids, raw := make([]mail.ID, n), make([][16]byte, n)
	for i := range ids {
		ids[i] = mail.NewID()
		raw[i] = ids[i]
	}
	b.exec(t, `INSERT INTO event (id, origin, tenant_id, type, stream, at, source, recipient, key)
		SELECT i, i, 1, 'delivered', 'bulk', now(), 'webhook', 'canary@example.org', i FROM unnest($1::uuid[]) i`, raw)
	b.exec(t, `INSERT INTO outbox (endpoint_id, event_id) SELECT $2, i FROM unnest($1::uuid[]) i`, raw, [16]byte(endpoint))
	return ids
}

func (b *bed) waiting(t *testing.T, endpoint mail.ID) int {
	t.Helper()
	return get[int](t, b, `SELECT count(*) FROM outbox WHERE endpoint_id = $1`, [16]byte(endpoint))
}

// until polls for the work of other goroutines.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// call is one webhook as a sink got it.
type call struct {
	id, stamp string
	body      string
}

// sink is a real receiver: it verifies each webhook with the library of Standard Webhooks, keeps it, and answers what
// answer says (nil: 204).
type sink struct {
	*httptest.Server
	secret seal.Secret

	mu      sync.Mutex
	calls   []call
	bad     []error
	now     int
	most    int // calls at a time
	arrived atomic.Int64
}

func newSink(t *testing.T, answer http.HandlerFunc) *sink {
	t.Helper()
	s := &sink{secret: secretOf(32)}
	wh, err := standardwebhooks.NewWebhook(s.secret.Reveal())
	must(t, err)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		err = errors.Join(err, wh.Verify(body, r.Header))
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(r.UserAgent(), "sendgate") {
			err = errors.Join(err, errors.New("not what a webhook looks like"))
		}
		s.enter(call{r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), string(body)}, err)
		defer s.leave()
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		if bad := s.refused(); len(bad) > 0 {
			t.Errorf("%d webhooks did not verify: %v", len(bad), bad[0])
		}
	})
	return s
}

func (s *sink) enter(c call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
	if err != nil {
		s.bad = append(s.bad, err)
	}
	s.now++
	s.most = max(s.most, s.now)
	s.arrived.Add(1)
}

func (s *sink) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
}

func (s *sink) got() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]call(nil), s.calls...)
}

func (s *sink) refused() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bad
}

// hanging is an answer that does not come before release is called.
func hanging() (answer http.HandlerFunc, release func()) {
	free := make(chan struct{})
	release = sync.OnceFunc(func() { close(free) })
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-free:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	}, release
}
