// Package pgtest gives each test a migrated PostgreSQL database of its own.
//
// It decides where the server comes from and how databases are made. The tests decide what they test, and whether in
// parallel. The server is that of SENDGATE_TEST_DATABASE_URL, whose role must be allowed to create databases, or else a private
// one that all test binaries of a run share. The first starts it, and it stops a few seconds after the last. A database is a
// copy of a template that has every migration, made once for each content of package migrations: a copy takes tens of
// milliseconds, the migrations take seconds.
//
// A newcomer's likeliest mistake is to skip a test when there is no server. A store that was not tested is not known to
// work, so without a server a test fails and says how to get one.
package pgtest

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/devpg"
)

// closeGrace is how long a pool may take to close before the test fails because it kept a connection.
const closeGrace = 5 * time.Second

// server is where the databases of this process are made. The first test finds or starts it; all tests wait for that.
var server = sync.OnceValues(connect)

// host is a server that is ready to make databases.
type host struct {
	admin    string   // connection string that may create databases
	external bool     // we do not stop it, so databases can outlive the run
	use      *os.File // open for the life of this process: it keeps the shared server running
	session  *session // a connection to admin

	mu       sync.Mutex
	template string // the database that has every migration; see today
}

// today returns the template of this day. The first test after midnight finds or makes a new one.
func (h *host) today(ctx context.Context) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ofToday(h.template, time.Now()) {
		return h.template, nil
	}
	var err error
	h.template, err = ensureTemplate(ctx, h.session)
	return h.template, err
}

// New returns a pool on a fresh migrated database. The pool is closed and the database dropped when the test ends; on
// the server of SENDGATE_TEST_DATABASE_URL, the database of a failed test is kept for a day.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), NewURL(t))
	if err != nil {
		t.Fatalf("open pool: %v", err)
	}
	t.Cleanup(func() { closePool(t, pool, closeGrace) })
	return pool
}

// NewURL returns the connection string of a fresh migrated database, for tests that open their own connections.
func NewURL(t testing.TB) string {
	t.Helper()
	d, err := Make(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Finish(t) })
	return d.URL
}

// Database is a migrated database that its user has to drop, so that several tests can use it.
type Database struct {
	URL  string
	host *host
	name string
}

// Make returns a fresh database.
func Make(ctx context.Context) (*Database, error) {
	h, err := server()
	if err != nil {
		return nil, fmt.Errorf("tests need PostgreSQL: %w", err)
	}
	template, err := h.today(ctx)
	if err != nil {
		return nil, err
	}
	name := databaseName(template)
	if err := h.clone(ctx, template, name); err != nil {
		return nil, err
	}
	url, err := devpg.WithDatabase(h.admin, name)
	return &Database{URL: url, host: h, name: name}, err
}

// Drop drops the database, even if somebody is connected to it.
func (d *Database) Drop(ctx context.Context) error { return d.host.drop(ctx, d.name) }

// Finish drops the database after its last test. If that failed, a database on an external server is kept, and Finish logs its
// name.
func (d *Database) Finish(t testing.TB) {
	t.Helper()
	d.host.finish(t, d.name)
}

// Parallel sets how many tests run at a time, unless the command line does. Tests with a database mostly wait, so more of them
// may run than there are processors. It is for TestMain.
func Parallel(tests int) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Lookup("test.parallel").Value.Set(strconv.Itoa(tests))
	}
}

// databaseName returns a name that says which template a database came from and when it was made.
func databaseName(template string) string {
	return strings.Join([]string{clonePrefix, hashOf(template), stamp(time.Now()), strings.ToLower(rand.Text()[:10])}, "_")
}

// clone copies a template. STRATEGY file_copy is quicker than the default when data need not be written to disk.
func (h *host) clone(ctx context.Context, template, name string) error {
	return h.session.exec(ctx, "CREATE DATABASE "+quote(name)+" TEMPLATE "+quote(template)+" STRATEGY file_copy")
}

// finish drops a test's database, or keeps that of a failed test on an external server and logs its name.
func (h *host) finish(t testing.TB, name string) {
	t.Helper()
	if t.Failed() && h.external {
		t.Logf("database kept for %s: %s", keepFor, name)
		return
	}
	if t.Failed() {
		t.Log("set SENDGATE_TEST_DATABASE_URL to keep the database of a failed test")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.drop(ctx, name); err != nil {
		t.Error(err)
	}
}

func (h *host) drop(ctx context.Context, name string) error {
	return h.session.exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)")
}

// quote returns name as an SQL identifier.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// closePool closes pool. A connection that the test did not give back would block that forever: the test fails instead.
func closePool(t testing.TB, pool *pgxpool.Pool, grace time.Duration) {
	t.Helper()
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
		t.Errorf("%d connections were not given back to the pool by the end of the test", pool.Stat().AcquiredConns())
	}
}
