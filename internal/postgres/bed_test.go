package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// bed is a database without rows, the store on it, and a connection pool of the test's own to look behind the store's back.
type bed struct {
	url   string
	db    *DB
	sql   *pgxpool.Pool
	stage *stage // nil when the database is the test's own
}

// lane is where the messages of tests wait.
const lane int32 = 1

// patient is for tests that are not about time: a busy machine commits when it can.
const patient = 20 * time.Second

func newBed(t *testing.T) *bed {
	t.Helper()
	s := lend(t)
	b := &bed{url: s.URL, sql: s.sql, stage: s}
	b.db = b.open(t, Options{AcceptWait: patient})
	return b
}

// newOwnBed is newBed for a test that changes the schema, the statistics or the settings of the database, or needs
// connections of a known age.
func newOwnBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{url: pgtest.NewURL(t)}
	b.db = b.open(t, Options{AcceptWait: patient})
	var err error
	b.sql, err = lookingPool(b.url)
	must(t, err)
	t.Cleanup(b.sql.Close)
	return b
}

// open gives another store on the same database: another replica.
func (b *bed) open(t *testing.T, o Options) *DB {
	t.Helper()
	if o.Box == nil {
		o.Box = newBox(t, 1)
	}
	if b.stage != nil && o.URL == "" {
		o.AcceptWait = cmp.Or(o.AcceptWait, acceptWait)
		db := newDB(b.stage.pools(t, o.AcceptWait), o)
		t.Cleanup(db.stop)
		return db
	}
	o.URL = cmp.Or(o.URL, b.url)
	db, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func newBox(t *testing.T, fill byte) *seal.Box {
	t.Helper()
	box, err := seal.NewBox([]byte(strings.Repeat(string(rune(fill)), seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// exec changes the database directly, mostly its idea of when something happened.
func (b *bed) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := b.sql.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// begin opens a transaction that ends with the test, if not before.
func (b *bed) begin(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := b.sql.Begin(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// get reads one value.
func get[T any](t *testing.T, b *bed, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := b.sql.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// list reads one column.
func list[T any](t *testing.T, b *bed, sql string, args ...any) []T {
	t.Helper()
	rows, err := b.sql.Query(t.Context(), sql, args...)
	must(t, err)
	vs, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return vs
}

// submission is a valid message to the given recipients.
func submission(to ...string) *record.Submission {
	now := time.Now().UTC().Truncate(time.Millisecond)
	m := &mail.Message{
		ID: mail.NewID(), Tenant: mail.DefaultTenant, CreatedAt: now,
		From: mail.Address{Email: "shop@example.com", Name: "Shop"}, Subject: "Your order", Text: "Thank you.",
		Stream: mail.DefaultStream, ExpiresAt: now.Add(72 * time.Hour), OnAmbiguous: mail.Reconcile,
	}
	for _, email := range to {
		m.To = append(m.To, mail.Address{Email: email})
	}
	if len(to) == 0 {
		m.To = []mail.Address{{Email: "ann@example.org", Name: "Ann"}}
	}
	return &record.Submission{Message: m, Lane: lane, Fingerprint: sha256.Sum256([]byte("body"))}
}

// with is a submission that f changed.
func with(f func(*record.Submission)) *record.Submission {
	s := submission()
	f(s)
	return s
}

// accept stores the submissions and returns their ids. Those that are due now are due in this order: two committers may
// have shared the work.
func (b *bed) accept(t *testing.T, subs ...*record.Submission) []mail.ID {
	t.Helper()
	var ids []mail.ID
	for some := range slices.Chunk(subs, 200) { // a busy machine has little time for each
		accepted, errs := b.db.AcceptAll(t.Context(), some)
		for i := range some {
			must(t, errs[i])
			ids = append(ids, accepted[i].ID)
		}
	}
	if len(ids) > 1 {
		b.exec(t, `UPDATE ready SET due = (SELECT min(due) FROM ready WHERE id = ANY ($1)) WHERE id = ANY ($1) AND due <= now()`, rawIDs(ids))
	}
	return ids
}

// acceptN stores n plain messages.
func (b *bed) acceptN(t *testing.T, n int) []mail.ID {
	t.Helper()
	subs := make([]*record.Submission, n)
	for i := range subs {
		subs[i] = submission()
	}
	return b.accept(t, subs...)
}

// account creates an account and returns its id.
func (b *bed) account(t *testing.T, name string, windows ...limit.Window) int32 {
	t.Helper()
	a := route.Account{Name: name, Kind: provider.Kind("smtp"), Concurrency: 20, Limits: windows}
	must(t, b.db.CreateAccount(t.Context(), "tester", a, nil))
	return get[int32](t, b, `SELECT id FROM account WHERE name = $1 AND deleted_at IS NULL`, name)
}

// replica registers an owner with a lease that outlives the test.
func (b *bed) replica(t *testing.T) mail.ID {
	t.Helper()
	id := mail.NewID()
	must(t, b.db.Register(t.Context(), id, "test", time.Hour))
	return id
}

// expire ends the lease of a replica.
func (b *bed) expire(t *testing.T, owner mail.ID) {
	t.Helper()
	b.exec(t, `UPDATE replica SET lease_until = now() - interval '1 s' WHERE id = $1`, [16]byte(owner))
}

// quota asks for n rows of the lane that tests use.
func quota(n int) []queue.LaneQuota {
	return []queue.LaneQuota{{Lane: queue.Lane{Number: lane, Tenant: mail.DefaultTenant}, Max: n}}
}

// takeAll is a decision that gives every message to one account, limits aside.
func takeAll(account int32, taken *[]queue.Due) Decide {
	return func(_ time.Time, due []queue.Due, _ map[int32]*limit.Account) queue.Claim {
		var c queue.Claim
		for _, d := range due {
			c.Take = append(c.Take, queue.Assignment{Due: d, Account: account})
		}
		if taken != nil {
			*taken = append(*taken, due...)
		}
		return c
	}
}

// claim gives up to n due messages of the lane to an account.
func (b *bed) claim(t *testing.T, owner mail.ID, account int32, n int) []queue.Due {
	t.Helper()
	var taken []queue.Due
	must(t, b.db.Claim(t.Context(), owner, quota(n), takeAll(account, &taken)))
	return taken
}

// intent announces the next call of a claimed message.
func intent(d queue.Due, account int32) queue.Intent {
	return queue.Intent{ID: d.ID, N: d.Attempts + 1, Account: account, Decision: []byte(`{"chosen":"relay","candidates":[]}`)}
}

func (b *bed) intend(t *testing.T, owner mail.ID, in queue.Intent) bool {
	t.Helper()
	a, err := b.db.Intend(t.Context(), owner, in)
	must(t, err)
	return a.OK
}

func (b *bed) record(t *testing.T, owner mail.ID, r queue.Result) bool {
	t.Helper()
	ok, err := b.db.Record(t.Context(), owner, r)
	must(t, err)
	return ok
}

// flight is one message whose call has started.
type flight struct {
	id      mail.ID
	owner   mail.ID
	account int32
	due     queue.Due
}

// fly accepts a message, claims it and announces its call.
func (b *bed) fly(t *testing.T, s *record.Submission) flight {
	t.Helper()
	f := flight{id: b.accept(t, s)[0], owner: b.replica(t)}
	f.account = b.relay(t)
	f.due = b.claim(t, f.owner, f.account, 1)[0]
	if f.due.ID != f.id {
		t.Fatalf("claimed %s, want %s", f.due.ID, f.id)
	}
	if !b.intend(t, f.owner, intent(f.due, f.account)) {
		t.Fatal("intent refused")
	}
	return f
}

// relay is the account of tests that need any.
func (b *bed) relay(t *testing.T) int32 {
	t.Helper()
	ids := list[int32](t, b, `SELECT id FROM account WHERE name = 'relay' AND deleted_at IS NULL`)
	if len(ids) == 1 {
		return ids[0]
	}
	return b.account(t, "relay")
}

// place tells in which queue tables a message is: "ready", "inflight", "started", "unknown", several joined by +, or
// "settled".
func (b *bed) place(t *testing.T, id mail.ID) string {
	t.Helper()
	return get[string](t, b, `SELECT coalesce(string_agg(p, '+' ORDER BY p), 'settled') FROM (
		SELECT 'ready' AS p FROM ready WHERE id = $1 UNION ALL
		SELECT CASE WHEN started_at IS NULL THEN 'inflight' ELSE 'started' END FROM inflight WHERE id = $1 UNION ALL
		SELECT 'unknown' FROM unknown WHERE id = $1) x`, [16]byte(id))
}

// status gives the message's status and those of its recipients, in order: "queued: sent queued".
func (b *bed) status(t *testing.T, id mail.ID) string {
	t.Helper()
	return get[string](t, b, `SELECT m.status || ': ' || string_agg(r.status, ' ' ORDER BY r.n)
		FROM message m JOIN recipient r ON r.message_id = m.id WHERE m.id = $1 GROUP BY m.id, m.status`, [16]byte(id))
}

// attempts gives class and source of the verdict of each attempt, in order: "uncertain/rescue accepted/response".
func (b *bed) attempts(t *testing.T, id mail.ID) string {
	t.Helper()
	return get[string](t, b, `SELECT coalesce(string_agg(coalesce(class, 'open') || '/' || verdict_source, ' ' ORDER BY n), '')
		FROM attempt WHERE message_id = $1`, [16]byte(id))
}

// rows gives everything that is stored of a message, table by table, to compare two moments.
func (b *bed) rows(t *testing.T, id mail.ID) map[string]string {
	t.Helper()
	all := map[string]string{}
	for table, key := range map[string]string{
		"message": "id", "body": "id", "recipient": "message_id", "attempt": "message_id", "ready": "id", "inflight": "id", "unknown": "id",
	} {
		all[table] = get[string](t, b, `SELECT coalesce(json_agg(x ORDER BY to_json(x)::text), '[]')::text FROM `+table+` x WHERE `+key+` = $1`, [16]byte(id))
	}
	return all
}

// version is the configuration version.
func (b *bed) version(t *testing.T) int64 {
	t.Helper()
	v, err := b.db.ConfigVersion(t.Context())
	must(t, err)
	return v
}

// until polls for a condition that another goroutine brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return string(raw)
}
