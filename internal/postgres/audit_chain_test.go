package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// verify reads the chain in parts of two links, as a client does, and returns what is wrong: "kind link entry".
func (b *bed) verify(t *testing.T, expect string) (faults []string, head string) {
	t.Helper()
	v := api.AuditVerifier{Expect: expect}
	for place, more := (record.AuditPlace{}), true; more; {
		c, err := b.db.AuditChain(t.Context(), place, 2)
		must(t, err)
		page := api.AuditChainPage{Unlinked: c.Unlinked}
		for _, l := range c.Links {
			page.Data = append(page.Data, api.AuditLink{N: l.N, ID: l.ID, Hash: hex.EncodeToString(l.Hash), Content: l.Content})
		}
		v.Add(&page)
		place, more = c.Next, c.More
	}
	for _, f := range v.Faults() {
		faults = append(faults, fmt.Sprintf("%s %d", f.Kind, f.N))
	}
	return faults, v.Head()
}

// tamper changes the database as a superuser can who knows what protects it.
func (b *bed) tamper(t *testing.T, sql string) {
	t.Helper()
	_, err := b.sql.Exec(t.Context(), `BEGIN; SET LOCAL session_replication_role = replica; `+sql+`; COMMIT`)
	if isCode(err, "42501") {
		t.Skip("needs a server whose role is a superuser")
	}
	must(t, err)
}

// tenants makes audit entries.
func (b *bed) tenants(t *testing.T, db *DB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := db.CreateTenant(t.Context(), "ops", record.Tenant{Name: name, Weight: 1}); err != nil {
			t.Error(err)
		}
	}
}

func TestTheChainOfTheAuditShowsTampering(t *testing.T) {
	t.Parallel()
	const forged = `INSERT INTO audit (actor, action, target) VALUES ('ops', 'tenant.create', 'forged')`
	const anew = `; UPDATE audit_link SET hash = sha256(%s || convert_to(n || (SELECT audit_content(a) FROM audit a WHERE a.id = audit_id), 'UTF8')) WHERE n = %d`
	link := func(n int) string {
		before := "''::bytea"
		if n > 1 {
			before = fmt.Sprintf("(SELECT hash FROM audit_link WHERE n = %d)", n-1)
		}
		return fmt.Sprintf(anew, before, n)
	}
	entry := func(n int) string { return fmt.Sprintf("(SELECT audit_id FROM audit_link WHERE n = %d)", n) }
	for _, c := range []struct {
		name, sql string
		want      []string
		expecting string // what else a client sees that knows the last hash
	}{
		{"nothing", `SELECT`, nil, ""},
		{"a changed actor", `UPDATE audit SET actor = 'bob' WHERE id = ` + entry(2), []string{"changed 2"}, ""},
		{"a changed detail", `UPDATE audit SET after = '{"weight": 2}' WHERE id = ` + entry(5), []string{"changed 5"}, ""},
		{"a changed address", `UPDATE audit SET address = '192.0.2.1' WHERE id = ` + entry(1), []string{"changed 1"}, ""},
		{"a changed time", `UPDATE audit SET at = at + interval '1 microsecond' WHERE id = ` + entry(3), []string{"changed 3"}, ""},
		{"a missing entry", `DELETE FROM audit WHERE id = ` + entry(3), []string{"missing 3"}, ""},
		{"a missing link", `DELETE FROM audit_link WHERE n = 3`, []string{"unlinked 0", "missing 3"}, ""},
		{"a missing entry and its link", `DELETE FROM audit WHERE id = ` + entry(3) + `; DELETE FROM audit_link WHERE n = 3`, []string{"missing 3"}, ""},
		{"an entry without a link", forged, []string{"unlinked 0"}, ""},
		{"two entries that changed places", `UPDATE audit_link SET audit_id = -audit_id WHERE n IN (3, 4); UPDATE audit_link l SET audit_id = -o.audit_id FROM audit_link o
			WHERE l.n IN (3, 4) AND o.n IN (3, 4) AND o.n <> l.n`, []string{"reordered 3", "reordered 4"}, ""},
		{"a changed entry with a new hash", `UPDATE audit SET target = 'x' WHERE id = ` + entry(2) + link(2), []string{"changed 3"}, ""},
		{"the end cut off", `DELETE FROM audit WHERE id = ` + entry(5) + `; DELETE FROM audit_link WHERE n = 5`, nil, "cut_off 0"},
		{"the beginning cut off", `DELETE FROM audit WHERE id IN (` + entry(1) + `, ` + entry(2) + `); DELETE FROM audit_link WHERE n < 3`, []string{"cut_off 3"}, ""},
		{"all hashes made anew", `UPDATE audit SET target = 'x' WHERE id = ` + entry(4) + link(4) + link(5), nil, "cut_off 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.tenants(t, b.db, "t1", "t2", "t3", "t4", "t5")
			must(t, b.db.NoteFailedLogins(t.Context(), []record.FailedLogins{{From: "192.0.2.1/32", Keys: 3}}))
			faults, head := b.verify(t, "")
			if len(faults) > 0 {
				t.Fatalf("before: %v", faults)
			}
			b.tamper(t, c.sql)
			if got, _ := b.verify(t, ""); cmp.Diff(slices.Sorted(slices.Values(c.want)), slices.Sorted(slices.Values(got))) != "" {
				t.Errorf("faults = %q, want %q", got, c.want)
			}
			want := c.want
			if c.expecting != "" {
				want = append(want, c.expecting)
			}
			if got, _ := b.verify(t, head); cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))) != "" {
				t.Errorf("faults with the last hash known = %q, want %q", got, want)
			}
		})
	}
}

func TestTheAuditCanOnlyBeAddedTo(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.tenants(t, b.db, "t1")
	must(t, b.db.NoteFailedLogins(t.Context(), []record.FailedLogins{{From: "192.0.2.1/32", Keys: 3}}))
	for _, sql := range []string{`UPDATE audit SET actor = 'x'`, `DELETE FROM audit WHERE actor = 'ops'`, `UPDATE audit SET actor = 'x' WHERE action = 'login.failed'`} {
		if _, err := b.sql.Exec(t.Context(), sql); !isCode(err, "42501") {
			t.Errorf("%s: %v, want that it is refused", sql, err)
		}
	}
	b.exec(t, `DELETE FROM audit WHERE action = 'login.failed'`) // as an earlier binary does
	if faults, _ := b.verify(t, ""); len(faults) > 0 {
		t.Errorf("faults = %q", faults)
	}
}

// Writers of two replicas get in line. Each transaction takes the lock of the chain last, whatever else it locks in which order.
func TestReplicasWriteOneChain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	dbs := []*DB{b.db, b.open(t, Options{AcceptWait: patient})}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for k := range 10 {
				b.tenants(t, dbs[i%2], fmt.Sprintf("t%d-%d", i, k))
			}
		})
	}
	tx := b.begin(t) // holds up nobody: its entry has an earlier id, and is linked when it is committed
	_, err := tx.Exec(t.Context(), `INSERT INTO audit (actor, action, target) VALUES ('slow', 'tenant.create', 'x')`)
	must(t, err)
	wg.Wait()
	must(t, tx.Commit(t.Context()))
	if faults, _ := b.verify(t, ""); len(faults) > 0 {
		t.Errorf("faults = %q", faults)
	}
	if n, last := get[int](t, b, `SELECT max(n) FROM audit_link`), get[string](t, b, `SELECT actor FROM audit JOIN audit_link ON audit_id = id ORDER BY n DESC LIMIT 1`); n != 61 || last != "slow" {
		t.Errorf("%d links, the last of %s; want 61, the last of the transaction that was committed last", n, last)
	}
}

// Entries of before the upgrade keep what they say, and get links. Those that an earlier binary writes afterwards get them too.
func TestTheUpgradeLinksOldEntries(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	must(t, withGoose(b.url, func(p *goose.Provider) error {
		_, err := p.DownTo(ctx, 19)
		return err
	}))
	const old = `INSERT INTO audit (actor, action, target, detail) VALUES ('ops', 'pool.update', 'old', '{"a": 1.50, "b": "ü\u0001"}'), ('stranger', 'login.failed', '192.0.2.1/32', NULL),
		('system', 'account.park', 'ses', NULL)`
	b.exec(t, old)
	before := list[string](t, b, `SELECT concat_ws('|', id, at, actor, action, target, detail) FROM audit ORDER BY id`)
	must(t, Migrate(ctx, b.url, &strings.Builder{}))
	if diff := cmp.Diff(before, list[string](t, b, `SELECT concat_ws('|', id, at, actor, action, target, detail) FROM audit ORDER BY id`)); diff != "" {
		t.Errorf("old entries (-before +after):\n%s", diff)
	}
	b.exec(t, old)
	b.tenants(t, b.db, "t1")
	if faults, _ := b.verify(t, ""); len(faults) > 0 {
		t.Errorf("faults = %q", faults)
	}
	if n := get[int](t, b, `SELECT count(*) FROM audit_link`); n != 5 {
		t.Errorf("%d links, want 5", n)
	}
	b.tamper(t, `UPDATE audit SET target = 'x' WHERE id = (SELECT min(id) FROM audit)`)
	if faults, _ := b.verify(t, ""); cmp.Diff([]string{"changed 1"}, faults) != "" {
		t.Errorf("faults after an old entry was changed = %q", faults)
	}
}

func TestOldAuditEntriesAreDroppedWithAWitness(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx, now := t.Context(), time.Now()
	for i := range 6 {
		b.exec(t, `INSERT INTO audit (at, actor, action, target) VALUES ($1, 'ops', 'tenant.create', 'x')`, now.AddDate(0, 0, -100+10*i))
	}
	cut := hex.EncodeToString(get[[]byte](t, b, `SELECT hash FROM audit_link WHERE n = 3`))
	if _, err := b.db.DropAudit(ctx, now.AddDate(0, 0, -29)); err == nil {
		t.Error("entries of less than 30 days can be dropped")
	}
	if n, err := b.db.DropAudit(ctx, now.AddDate(0, 0, -75)); n != 3 || err != nil {
		t.Fatalf("dropped %d, %v; want 3", n, err)
	}
	if n, err := b.db.DropAudit(ctx, now.AddDate(0, 0, -75)); n != 0 || err != nil {
		t.Errorf("dropped %d again, %v", n, err)
	}
	if faults, _ := b.verify(t, cut); len(faults) > 0 {
		t.Errorf("faults = %q", faults)
	}
	must(t, second(b.db.DropAudit(ctx, now.AddDate(0, 0, -65))))
	if faults, _ := b.verify(t, ""); len(faults) > 0 {
		t.Errorf("faults after more were dropped = %q", faults)
	}
	b.tamper(t, `UPDATE audit SET actor = 'x' WHERE id = (SELECT audit_id FROM audit_link ORDER BY n LIMIT 1)`)
	if faults, _ := b.verify(t, ""); cmp.Diff([]string{"changed 5"}, faults) != "" {
		t.Errorf("faults after the first that is left was changed = %q", faults)
	}
	b.tamper(t, `DELETE FROM audit WHERE id = (SELECT audit_id FROM audit_link WHERE n = 7)`)
	if n, err := b.db.DropAudit(ctx, now.AddDate(0, 0, -31)); n != 2 || err != nil {
		t.Errorf("dropped %d, %v; want those before the missing one, 2", n, err)
	}
}

func second[T any](_ T, err error) error { return err }

// An entry has who made the change, from where, by which request, and what the change made different.
func TestAuditSaysWhoAndWhatBeforeAndAfter(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := record.WithCaller(t.Context(), record.Caller{Name: "alice", Address: "10.0.3.7", RequestID: "r-1"})
	_, err := b.db.CreateTenant(ctx, "key-1", record.Tenant{Name: "t1", Weight: 1})
	must(t, err)
	must(t, b.db.UpdateTenant(ctx, "key-1", "t1", 2, false))
	must(t, b.db.UpdateTenant(ctx, "key-1", "t1", 2, false)) // changes nothing
	entries, err := b.db.Audit(ctx, record.AuditFilter{Actor: "alice", Limit: 3})
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%s %s %s %s %s: %s -> %s", e.Actor, e.Name, e.Address, e.RequestID, e.Action, e.Before, e.After))
	}
	want := []string{
		"key-1 alice 10.0.3.7 r-1 tenant.update:  -> ",
		`key-1 alice 10.0.3.7 r-1 tenant.update: {"weight": 1} -> {"weight": 2}`,
		`key-1 alice 10.0.3.7 r-1 tenant.create:  -> {"paused": false, "weight": 1}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

// Every object that has a snapshot can be read by it.
func TestEverySnapshotIsRead(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	err := b.db.inTx(t.Context(), func(tx pgx.Tx) error {
		for noun := range snapshots {
			if _, err := snapshot(t.Context(), tx, noun, "nothing", " FOR NO KEY UPDATE"); err != nil {
				t.Errorf("%s: %v", noun, err)
			}
		}
		rules, err := snapshot(t.Context(), tx, "rules", "rules", "")
		if string(rules) != `{"rules": []}` {
			t.Errorf("rules = %s", rules)
		}
		return err
	})
	must(t, err)
}

// An entry that can't be linked is not stored, and neither is what it is about.
func TestWithoutALinkNothingIsChanged(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(7381004)`)
	must(t, err)
	_, err = b.db.CreateTenant(t.Context(), "ops", record.Tenant{Name: "t1", Weight: 1})
	if _, ok := errors.AsType[*record.Unavailable](err); !ok {
		t.Errorf("while the chain is locked: %v, want unavailable", err)
	}
	must(t, tx.Rollback(context.Background()))
	if n := get[int](t, b, `SELECT (SELECT count(*) FROM tenant WHERE name = 't1') + (SELECT count(*) FROM audit)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// A writer waits until the one before it has committed or given up, and links to what is there then.
func TestWritersOfTheChainWaitForEachOther(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `INSERT INTO audit (actor, action, target) VALUES ('first', 'tenant.create', 'x'); SET CONSTRAINTS ALL IMMEDIATE`)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.tenants(t, b.db, "t1")
	}()
	for get[int](t, b, `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0 {
		select {
		case <-done:
			t.Fatal("the second writer did not wait")
		default:
		}
	}
	must(t, tx.Commit(t.Context()))
	<-done
	if faults, _ := b.verify(t, ""); len(faults) > 0 || get[int](t, b, `SELECT count(*) FROM audit_link`) != 2 {
		t.Errorf("faults = %q", faults)
	}
}

func TestReadsOfBodiesAreInTheAudit(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one, two := mail.NewID(), mail.NewID()
	since := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	left, err := b.db.NoteBodyReads(record.WithCaller(t.Context(), record.Caller{Name: "nobody"}), []record.BodyReads{
		{Key: "key-1", Caller: record.Caller{Name: "alice", Address: "10.0.3.7"}, Since: since, Messages: []mail.ID{one}},
		{Key: "key-2", Since: since, Messages: []mail.ID{one, two}},
	})
	must(t, err)
	got := list[string](t, b, `SELECT concat_ws('|', actor, name, address, action, target, detail) FROM audit ORDER BY id`)
	want := []string{
		fmt.Sprintf(`key-1|alice|10.0.3.7|message.read|%s|{"since": "2026-01-31T12:00:00Z", "messages": ["%[1]s"]}`, one),
		fmt.Sprintf(`key-2|||message.read||{"since": "2026-01-31T12:00:00Z", "messages": ["%s", "%s"]}`, one, two),
	}
	if diff := cmp.Diff(want, got); diff != "" || len(left) > 0 {
		t.Errorf("%d left; audit (-want +got):\n%s", len(left), diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left, err := b.db.NoteBodyReads(ctx, []record.BodyReads{{Key: "key-3"}}); err == nil || len(left) != 1 {
		t.Errorf("without a database: %d left, %v; want what was not stored", len(left), err)
	}
}
