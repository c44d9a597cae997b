package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/telemetry"
)

func TestMain(m *testing.M) {
	pgtest.Parallel(5)
	code := m.Run()
	for _, dir := range sharedDirs {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// sharedDirs are folders that several tests use. They are removed after the last test.
var sharedDirs []string

// bench is the environment of replicas: their own database, the emulated providers, an account of each kind in one pool, and
// keys.
type bench struct {
	dsn    string
	secret string
	keys   devKeys
	emu    *emulator.Emulator
	rows   *pgxpool.Pool // to query the stored rows
	http   *http.Client
}

// benchOptions shape a bench. The zero value has a fresh database and no limits.
type benchOptions struct {
	dsn    string                    // of a migrated database
	limits map[string][]limit.Window // of the accounts and of the emulators, by kind
	trust  bool                      // the emulators hold no limits, they only count
	emu    emulator.Options          // of the emulators beside; their limits are those above
}

func newBench(t *testing.T, o benchOptions) *bench {
	t.Helper()
	b := &bench{dsn: o.dsn, secret: strings.Repeat("5e", 32), http: newHTTPClient(t)}
	if b.dsn == "" {
		b.dsn = pgtest.NewURL(t)
	}
	_, b.keys.api, _ = httpapi.NewKey()
	_, b.keys.admin, _ = httpapi.NewKey()

	options := o.emu
	if !o.trust {
		options.Limits = o.limits
	}
	var err error
	if b.emu, err = emulated.New(options); err != nil {
		t.Fatal(err)
	}
	if err := b.emu.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.emu.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})

	// Keys, accounts and limits are written as sendgate dev does.
	a, err := New(b.config(t), quiet())
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), postgres.Options{URL: b.dsn, Box: a.box})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	d := &dev{DevOptions: DevOptions{Limits: "none"}, keys: b.keys, emu: b.emu, secret: b.secret}
	if err := errors.Join(d.storeKeys(t.Context(), db), d.storeAccounts(t.Context(), db)); err != nil {
		t.Fatal(err)
	}
	for account, windows := range o.limits {
		if err := db.SetLimits(t.Context(), "test", account, windows); err != nil {
			t.Fatal(err)
		}
	}
	if b.rows, err = pgxpool.New(t.Context(), b.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.rows.Close)
	return b
}

func newHTTPClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 70 * time.Second}
}

// environ is the environment of one replica. Later settings win.
func (b *bench) environ(extra ...string) []string {
	return append([]string{
		"SENDGATE_LISTEN=127.0.0.1:0", "SENDGATE_OPS_LISTEN=127.0.0.1:0", "SENDGATE_DATABASE_URL=" + b.dsn,
		"SENDGATE_SECRET_KEY=" + b.secret, "SENDGATE_LEASE=5s", "SENDGATE_DATABASE_CONNECTIONS=8",
	}, extra...)
}

func (b *bench) config(t *testing.T, extra ...string) config.Config {
	t.Helper()
	cfg, err := config.Load(b.environ(extra...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// replica is one running service, seen from outside.
type replica struct {
	url, ops   string
	api, admin *api.Client
}

func (b *bench) client(url, ops string) *replica {
	return &replica{url: url, ops: ops, api: api.NewWith(url, b.keys.api, b.http), admin: api.NewWith(url, b.keys.admin, b.http)}
}

// start runs a replica in this process until the test ends.
func (b *bench) start(t *testing.T, extra ...string) *replica {
	t.Helper()
	log := &tail{}
	a, err := New(b.config(t, extra...), telemetry.NewLogger(log, slog.LevelInfo, "text"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log:\n%s", log)
		}
	})
	return b.begin(t, a)
}

// begin runs a service until the test ends.
func (b *bench) begin(t *testing.T, a *App) *replica {
	t.Helper()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.http.CloseIdleConnections()
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := b.client(a.URL, a.OpsURL)
	r.await(t, b.http)
	return r
}

// await waits until the replica says that it is ready.
func (r *replica) await(t *testing.T, c *http.Client) {
	t.Helper()
	eventually(t, settleTime, "the replica is ready", func() bool { return r.ready(t.Context(), c) })
}

func (r *replica) ready(ctx context.Context, c *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.ops+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// get fetches a page as a browser would.
func (b *bench) get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// binds waits until the replica uses the stored configuration.
func (b *bench) binds(t *testing.T, r *replica) {
	t.Helper()
	version := b.count(t.Context(), `SELECT version FROM config_state`)
	eventually(t, settleTime, "the configuration binds", func() bool {
		x, err := r.admin.Explain(t.Context(), letter(0))
		return err == nil && x.Decision.Config >= int64(version)
	})
}

// faults replaces the script of the providers.
func (b *bench) faults(t *testing.T, script map[string][]emulator.Fault) {
	t.Helper()
	if err := b.emu.SetFaults(script); err != nil {
		t.Fatal(err)
	}
}

// ledger groups what the providers accepted by message.
func (b *bench) ledger() map[string][]emulator.Entry {
	all := map[string][]emulator.Entry{}
	for _, e := range b.emu.Ledger() {
		all[e.MessageID] = append(all[e.MessageID], e)
	}
	return all
}

// shares counts what each provider accepted.
func (b *bench) shares() map[string]int {
	n := map[string]int{}
	for _, e := range b.emu.Ledger() {
		n[e.Provider]++
	}
	return n
}

// count runs a query for one number. It may be called from any goroutine; an error of the database is -1.
func (b *bench) count(ctx context.Context, query string, args ...any) int {
	n := -1
	if err := b.rows.QueryRow(ctx, query, args...).Scan(&n); err != nil {
		return -1
	}
	return n
}

// settleTime is more than a few messages need on a busy machine.
const settleTime = 2 * time.Minute

const openSQL = `SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM inflight) + (SELECT count(*) FROM unknown)`

// settle waits until nothing is queued, in flight or unknown.
func (b *bench) settle(t *testing.T, within time.Duration) {
	t.Helper()
	eventually(t, within, "every message is settled", func() bool { return b.count(t.Context(), openSQL) == 0 })
}

// checkOnce fails the test for each message that providers did not accept exactly once.
func (b *bench) checkOnce(t *testing.T) {
	t.Helper()
	for id, entries := range b.ledger() {
		if len(entries) != 1 {
			t.Errorf("ledger entries of %s = %d, want 1", id, len(entries))
		}
	}
}

// letter is the nth message of a test.
func letter(n int) api.SendRequest {
	return api.SendRequest{
		From: api.Address{Email: "shop@example.com"}, To: []api.Address{{Email: fmt.Sprintf("ann%d@example.org", n)}},
		Subject: fmt.Sprintf("Order %d", n), Text: "It is on its way.",
	}
}

func letters(n int) []api.SendRequest {
	all := make([]api.SendRequest, n)
	for i := range all {
		all[i] = letter(i)
	}
	return all
}

// submit sends all messages in batches and returns their ids. It repeats messages that are refused with a temporary error.
func submit(t *testing.T, c *api.Client, all []api.SendRequest) []string {
	t.Helper()
	ids := make([]string, 0, len(all))
	for chunk := range slices.Chunk(all, 250) {
		for len(chunk) > 0 {
			got, err := c.SendBatch(t.Context(), api.BatchRequest{Messages: chunk})
			var p *api.Problem
			if errors.As(err, &p) && p.Status == http.StatusServiceUnavailable {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var again []api.SendRequest
			for i, item := range got.Results {
				switch {
				case item.Error == nil:
					ids = append(ids, item.ID)
				case item.Error.Status == http.StatusServiceUnavailable:
					again = append(again, chunk[i])
				default:
					t.Fatal(item.Error)
				}
			}
			chunk = again
		}
	}
	return ids
}

// send sends one message, which must be accepted.
func send(t *testing.T, c *api.Client, m api.SendRequest) string {
	t.Helper()
	got, err := c.Send(t.Context(), m, "")
	if err != nil {
		t.Fatal(err)
	}
	return got.ID
}

func message(t *testing.T, c *api.Client, id string) *api.Message {
	t.Helper()
	m, err := c.Message(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// becomes waits until the message has one of the statuses and returns it.
func becomes(t *testing.T, c *api.Client, id string, within time.Duration, statuses ...string) *api.Message {
	t.Helper()
	var m *api.Message
	eventually(t, within, fmt.Sprintf("message %s is %s", id, strings.Join(statuses, " or ")), func() bool {
		m = message(t, c, id)
		return slices.Contains(statuses, m.Status)
	})
	return m
}

// eventually polls until the condition holds, and fails the test if it does not hold within the given time. Each pause is
// longer than the last, because most conditions cost a request and a query.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for wait := 10 * time.Millisecond; !holds(); wait = min(wait*3/2, 100*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		pause(t, wait)
	}
}

// pause lets time pass while a test watches for something that must not happen.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// tail keeps the end of a log.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Contains(p, []byte("request answered")) || bytes.Contains(p, []byte("attempt recorded")) {
		return len(p), nil
	}
	if l.buf = append(l.buf, p...); len(l.buf) > 64<<10 {
		l.buf = slices.Clone(l.buf[len(l.buf)-(8<<10):])
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf[max(0, len(l.buf)-(3<<10)):])
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
