package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// proxy stands in front of the database that a test can freeze or cut.
type proxy struct {
	url    string
	listen net.Listener
	mu     sync.Mutex
	frozen bool
	tap    func(fromClient bool, chunk []byte, cut func()) (drop bool) // looks at what goes through
	conns  []net.Conn
	wg     sync.WaitGroup
}

func newProxy(t *testing.T, b *bed) *proxy {
	t.Helper()
	cfg, err := pgx.ParseConfig(b.url)
	must(t, err)
	p := &proxy{}
	if p.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.url = fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=disable",
		p.listen.Addr().(*net.TCPAddr).Port, cfg.User, cfg.Password, cfg.Database)
	network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	p.wg.Go(func() {
		for {
			in, err := p.listen.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial(network, address)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			p.wg.Go(func() { p.pipe(in, out, true) })
			p.wg.Go(func() { p.pipe(out, in, false) })
		}
	})
	t.Cleanup(func() {
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) pipe(from, to net.Conn, fromClient bool) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		frozen, tap := p.frozen, p.tap
		p.mu.Unlock()
		if err != nil {
			return
		}
		if tap != nil {
			frozen = tap(fromClient, buf[:n], func() { _, _ = from.Close(), to.Close() }) || frozen
		}
		if frozen { // read and said nothing of it
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// freeze swallows everything from now on, both ways.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

// cut ends all connections and refuses new ones.
func (p *proxy) cut() {
	_ = p.listen.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// wantUnavailable checks an answer of a database that is away.
func wantUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	u, is := errors.AsType[*record.Unavailable](err)
	if !is {
		t.Errorf("%s: %v, want *mail.Unavailable", what, err)
		return
	}
	if u.Reason != "database" || u.RetryAfter <= 0 {
		t.Errorf("%s: reason %q, retry after %s", what, u.Reason, u.RetryAfter)
	}
}

// patience is more than a caller waits in these tests, with what a busy machine may add.
const patience = 10 * time.Second

// hasty is how long callers wait in tests of what they are told when they waited in vain.
const hasty = 500 * time.Millisecond

// answerOf waits for an Accept.
func answerOf(t *testing.T, db *DB) error {
	t.Helper()
	answer := make(chan error, 1)
	go func() {
		_, err := db.Accept(context.WithoutCancel(t.Context()), submission())
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience):
		return errors.New("Accept hangs while the database is away")
	}
}

func TestAcceptSaysUnavailableWhenTheDatabaseIsGone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := newProxy(t, b)
	db := b.open(t, Options{URL: p.url, AcceptWait: hasty})
	t.Cleanup(p.cut) // before the pools close, which wait for answers
	until(t, "an accept", func() bool { return answerOf(t, db) == nil })
	p.cut()
	for range 3 {
		wantUnavailable(t, "accept", answerOf(t, db))
	}
	if n := get[int](t, b, `SELECT count(*) FROM message`); n != 1 {
		t.Errorf("%d messages, want the 1 that was promised", n)
	}
}

func TestAcceptSaysUnavailableWhenTheDatabaseIsSilent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := newProxy(t, b)
	db := b.open(t, Options{URL: p.url, AcceptWait: hasty})
	t.Cleanup(p.cut) // before the pools close, which wait for answers
	until(t, "an accept", func() bool { return answerOf(t, db) == nil })
	p.freeze()
	var wg sync.WaitGroup
	for range 8 { // more than there are committers: some wait behind a batch that hangs
		wg.Go(func() { wantUnavailable(t, "accept", answerOf(t, db)) })
	}
	wg.Wait()
	p.cut() // else closing the pool waits for the driver's goodbyes
}

func TestStoreComesBackAfterItsConnectionsWereKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.acceptN(t, 1)
	_, err := b.db.Config(t.Context())
	must(t, err)
	b.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'sendgate'`)
	until(t, "an accept after the connections were killed", func() bool {
		_, err := b.db.Accept(t.Context(), submission())
		if err != nil {
			wantUnavailable(t, "accept", err)
		}
		return err == nil
	})
	until(t, "a read after the connections were killed", func() bool {
		_, err := b.db.Config(t.Context())
		return err == nil
	})
}

func TestEveryMethodSaysUnavailableWhenTheDatabaseIsGone(t *testing.T) {
	t.Parallel()
	db, err := Open(t.Context(), Options{Box: newBox(t, 1), AcceptWait: hasty, URL: "postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable"})
	must(t, err) // it connects lazily
	t.Cleanup(db.Close)
	ctx, id := t.Context(), mail.NewID()
	calls := map[string]func() error{
		"Accept": func() error { _, err := db.Accept(ctx, submission()); return err },
		"AcceptAll": func() error {
			_, errs := db.AcceptAll(ctx, []*record.Submission{submission(), submission()})
			return errs[1]
		},
		"Message":    func() error { _, err := db.Message(ctx, 1, id); return err },
		"Messages":   func() error { _, err := db.Messages(ctx, record.Filter{Tenant: 1, Limit: 1}); return err },
		"Cancel":     func() error { return db.Cancel(ctx, 1, id) },
		"Resend":     func() error { return db.Resend(ctx, 1, id, false) },
		"Suppress":   func() error { return db.Suppress(ctx, record.Suppression{Tenant: 1, Email: "a@b.c"}) },
		"Unsuppress": func() error { return db.Unsuppress(ctx, "tester", 1, "a@b.c", true) },
		"FindSuppressions": func() error {
			_, err := db.FindSuppressions(ctx, record.Suppression{Tenant: 1}, record.Suppression{}, 1)
			return err
		},
		"KeyByID":      func() error { _, err := db.KeyByID(ctx, "00000000"); return err },
		"TouchKey":     func() error { return db.TouchKey(ctx, "00000000") },
		"Keys":         func() error { _, err := db.Keys(ctx); return err },
		"CreateKey":    func() error { return db.CreateKey(ctx, "t", record.Key{ID: "00000000"}) },
		"RevokeKey":    func() error { return db.RevokeKey(ctx, "t", "00000000") },
		"Tenants":      func() error { _, err := db.Tenants(ctx); return err },
		"CreateTenant": func() error { _, err := db.CreateTenant(ctx, "t", record.Tenant{Name: "x"}); return err },
		"UpdateTenant": func() error { return db.UpdateTenant(ctx, "t", "x", 1, true) },
		"Config":       func() error { _, err := db.Config(ctx); return err },
		"ConfigVersion": func() error {
			_, err := db.ConfigVersion(ctx)
			return err
		},
		"Secrets":       func() error { _, err := db.Secrets(ctx, 1); return err },
		"CreateAccount": func() error { return db.CreateAccount(ctx, "t", route.Account{}, map[string]seal.Secret{}) },
		"UpdateAccount": func() error { return db.UpdateAccount(ctx, "t", route.Account{}, nil) },
		"SetLimits":     func() error { return db.SetLimits(ctx, "t", "a", nil) },
		"PauseAccount":  func() error { return db.PauseAccount(ctx, "t", "a") },
		"ResumeAccount": func() error { return db.ResumeAccount(ctx, "t", "a") },
		"DeleteAccount": func() error { return db.DeleteAccount(ctx, "t", "a") },
		"CreatePool":    func() error { return db.CreatePool(ctx, "t", route.Pool{}) },
		"UpdatePool":    func() error { _, err := db.UpdatePool(ctx, "t", route.Pool{}, 0); return err },
		"SetRules":      func() error { return db.SetRules(ctx, "t", nil) },
		"CreateRule":    func() error { _, err := db.CreateRule(ctx, "t", route.Rule{}); return err },
		"DeleteRule":    func() error { return db.DeleteRule(ctx, "t", 1) },
		"Queue":         func() error { _, err := db.Queue(ctx); return err },
		"LimitStates":   func() error { _, err := db.LimitStates(ctx); return err },
		"Audit":         func() error { _, err := db.Audit(ctx, record.AuditFilter{Limit: 1}); return err },
		"Ping":          func() error { return db.Ping(ctx) },
		"Lanes":         func() error { _, err := db.Lanes(ctx); return err },
		"Claim": func() error {
			return db.Claim(ctx, id, quota(1), func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim { return queue.Claim{} })
		},
		"Load": func() error { _, err := db.Load(ctx, []mail.ID{id}); return err },
		"Intend": func() error {
			_, err := db.Intend(ctx, id, queue.Intent{ID: id, N: 1, Decision: []byte("{}")})
			return err
		},
		"Record":           func() error { _, err := db.Record(ctx, id, queue.Result{ID: id, N: 1}); return err },
		"Register":         func() error { return db.Register(ctx, id, "h", time.Second) },
		"Heartbeat":        func() error { _, err := db.Heartbeat(ctx, id, time.Second); return err },
		"Unregister":       func() error { return db.Unregister(ctx, id) },
		"Rescue":           func() error { _, _, err := db.Rescue(ctx, nil); return err },
		"Orphans":          func() error { _, err := db.Orphans(ctx, id, nil, nil); return err },
		"DecideUnknown":    func() error { _, _, err := db.DecideUnknown(ctx, true, 2); return err },
		"FreeHeld":         func() error { _, err := db.FreeHeld(ctx, 1); return err },
		"Relane":           func() error { _, err := db.Relane(ctx, id, 1, nil); return err },
		"Blocks":           func() error { _, err := db.Blocks(ctx); return err },
		"EnsurePartitions": func() error { _, err := db.EnsurePartitions(ctx); return err },
		"DropPartitions":   func() error { _, err := db.DropPartitions(ctx, "body", time.Now()); return err },
		"DropKeys":         func() error { _, err := db.DropKeys(ctx, time.Hour); return err },
		"Vitals":           func() error { _, err := db.Vitals(ctx); return err },
		"PartitionsAhead":  func() error { _, err := db.PartitionsAhead(ctx); return err },
	}
	for name, call := range calls {
		err := call()
		wantUnavailable(t, name, err)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
}

func TestFullDiskIsToldAsSuch(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"53100": "storage_full", "53300": "database", "57P01": "database", "57014": "database", "40P01": "database",
		"55P03": "database", "58030": "database", "25006": "database", "08006": "database", "23505": "", "22021": "",
	} {
		err := unavailable(fmt.Errorf("accept: %w", &pgconn.PgError{Code: code}))
		u, is := errors.AsType[*record.Unavailable](err)
		if is != (want != "") || is && u.Reason != want {
			t.Errorf("SQLSTATE %s becomes %v, want reason %q", code, err, want)
		}
	}
	if err := unavailable(io.ErrUnexpectedEOF); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestOpenRefusesABadURLWithoutTellingThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://u:hunter2@h:notaport/x", "postgres://u:hunter2@%zz/x", "host=h password=hunter2 port=x"} {
		_, err := Open(t.Context(), Options{URL: url, Box: newBox(t, 1)})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) = %v, want an error without the password", url, err)
		}
		if s := SafeURL(url); strings.Contains(s, "hunter2") {
			t.Errorf("SafeURL(%q) = %q", url, s)
		}
	}
}

func TestAConnectionToAServerThatTakesNoWritesIsDialledAnew(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	name := get[string](t, b, `SELECT current_database()`)
	b.exec(t, `ALTER DATABASE `+name+` SET default_transaction_read_only = on`)
	demoted := b.open(t, Options{AcceptWait: hasty}) // its connections stay as they were dialled
	for range 3 {
		_, err := demoted.Accept(t.Context(), submission())
		wantUnavailable(t, "accept on a standby", err)
	}
	b.exec(t, `SET default_transaction_read_only = off; ALTER DATABASE `+name+` RESET default_transaction_read_only`)
	refused := 0
	for range 8 {
		if _, err := demoted.Accept(t.Context(), submission()); err != nil {
			refused++
		}
	}
	if refused > 4 { // one for each connection that may be left
		t.Errorf("%d of 8 were refused once the server took writes, want no more than there were connections", refused)
	}
}

func TestVitalsSeeWhatOthersAreAllowed(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `ALTER DATABASE `+get[string](t, b, `SELECT current_database()`)+` SET idle_in_transaction_session_timeout = '7min'`)
	v, err := b.open(t, Options{}).Vitals(t.Context())
	must(t, err)
	if v.IdleInTransaction != "7min" || v.Standbys != 0 || v.SynchronousStandbys != "" {
		t.Errorf("vitals = %+v, want 7min and no standbys", v)
	}
}
