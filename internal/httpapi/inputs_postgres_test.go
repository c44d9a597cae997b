package httpapi

import (
	"bytes"
	"context"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// The same table over the real store: what is refused leaves no row in any table, and what is accepted is complete.
func TestBadInputsLeaveNoRowInPostgres(t *testing.T) {
	t.Parallel()
	var pool *pgxpool.Pool
	runInputs(t, func(t *testing.T) *inputServer {
		t.Helper()
		s, p := newPostgresServer(t)
		pool = p
		return s
	})
	const strays = `
SELECT (SELECT count(*) FROM body WHERE id NOT IN (SELECT id FROM message))
     + (SELECT count(*) FROM recipient WHERE message_id NOT IN (SELECT id FROM message))
     + (SELECT count(*) FROM ready WHERE id NOT IN (SELECT id FROM message))
     + (SELECT count(*) FROM idempotency WHERE message_id NOT IN (SELECT id FROM message))
     + (SELECT count(*) FROM message m WHERE NOT EXISTS (SELECT 1 FROM body b WHERE b.id = m.id)
                                          OR NOT EXISTS (SELECT 1 FROM recipient r WHERE r.message_id = m.id))`
	var n int
	if err := pool.QueryRow(t.Context(), strays).Scan(&n); err != nil || n != 0 {
		t.Errorf("rows without their message, or messages without their rows = %d, %v; want none", n, err)
	}
}

// brittleStore is the real store, which a test can make fail.
type brittleStore struct {
	*postgres.DB
	mu  sync.Mutex
	err error
}

func (s *brittleStore) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *brittleStore) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *brittleStore) Accept(ctx context.Context, sub *record.Submission) (record.Accepted, error) {
	if err := s.failure(); err != nil {
		return record.Accepted{}, err
	}
	return s.DB.Accept(ctx, sub)
}

func (s *brittleStore) AcceptAll(ctx context.Context, subs []*record.Submission) ([]record.Accepted, []error) {
	if err := s.failure(); err != nil {
		return make([]record.Accepted, len(subs)), slices.Repeat([]error{err}, len(subs))
	}
	return s.DB.AcceptAll(ctx, subs)
}

func newPostgresServer(t *testing.T) (*inputServer, *pgxpool.Pool) {
	t.Helper()
	dsn := pgtest.NewURL(t)
	box, err := seal.NewBox(bytes.Repeat([]byte{1}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), postgres.Options{URL: dsn, Box: box, AcceptWait: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store := &brittleStore{DB: db}
	srv, err := New(Options{
		Store: store, Router: planRouter{}, Kinds: fakeKinds{}, SecretKey: bytes.Repeat([]byte{1}, 32),
		Hooks: inputHooks(postgresAccount(t, db, pool)), Unsubscribe: idLinks{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = HTTPServer(srv.Handler())
	ts.Start()
	t.Cleanup(ts.Close)
	if err := db.Suppress(t.Context(), record.Suppression{Tenant: mail.DefaultTenant, Email: "gone@example.org", Reason: "manual", Origin: "api"}); err != nil {
		t.Fatal(err)
	}
	return &inputServer{
		url: ts.URL, fail: store.failWith, gone: "gone@example.org", keys: postgresKeys(t, db), stored: counter(t, pool),
	}, pool
}

func counter(t *testing.T, pool *pgxpool.Pool) func() inputCount {
	t.Helper()
	return func() inputCount {
		var n inputCount
		const sql = `SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM event)`
		if err := pool.QueryRow(context.Background(), sql).Scan(&n.messages, &n.events); err != nil {
			t.Error(err)
		}
		return n
	}
}

func postgresAccount(t *testing.T, db *postgres.DB, pool *pgxpool.Pool) (id int32) {
	t.Helper()
	if err := db.CreateAccount(t.Context(), "test", route.Account{Name: "made-up", Kind: "ses", Concurrency: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := pool.QueryRow(t.Context(), `SELECT id FROM account`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *brittleStore) ReceiveEvents(ctx context.Context, in record.Intake) (record.Taken, error) {
	if err := s.failure(); err != nil {
		return record.Taken{}, err
	}
	return s.DB.ReceiveEvents(ctx, in)
}

func postgresKeys(t *testing.T, db *postgres.DB) inputKeys {
	t.Helper()
	tenant := func(name string, paused bool) mail.TenantID {
		made, err := db.CreateTenant(t.Context(), "test", record.Tenant{Name: name, Weight: 1, Paused: paused})
		if err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	key := func(k record.Key, scope record.Scope) string {
		id, full, hash := NewKey()
		k.ID, k.Hash, k.Name, k.Scopes = id, hash, "test", []record.Scope{scope}
		if k.Tenant == 0 {
			k.Tenant = mail.DefaultTenant
		}
		if err := db.CreateKey(t.Context(), "test", k); err != nil {
			t.Fatal(err)
		}
		return full
	}
	revoked := key(record.Key{}, record.ScopeSend)
	id, _, err := ParseKey(revoked)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.RevokeKey(t.Context(), "test", id); err != nil {
		t.Fatal(err)
	}
	return inputKeys{
		send: key(record.Key{}, record.ScopeSend), read: key(record.Key{}, record.ScopeRead),
		restricted: key(record.Key{SenderDomains: []string{"example.com"}}, record.ScopeSend),
		other:      key(record.Key{Tenant: tenant("other", false)}, record.ScopeSend),
		paused:     key(record.Key{Tenant: tenant("paused", true)}, record.ScopeSend),
		revoked:    revoked,
		expired:    key(record.Key{ExpiresAt: time.Now().Add(-time.Second)}, record.ScopeSend),
	}
}
