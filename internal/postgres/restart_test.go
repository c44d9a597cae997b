package postgres

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// What was spent stays spent when the last replica goes and a first one comes, however the last one went.
func TestAStartRefillsNoWindow(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for name, stop := range map[string]func(owner mail.ID){
		"drained": func(owner mail.ID) { must(t, b.db.Unregister(t.Context(), owner)) },
		"killed":  func(owner mail.ID) { b.expire(t, owner) },
	} {
		account := b.account(t, name, hourly(3, limit.Requests))
		b.acceptN(t, 5)
		owner := b.replica(t)
		taken, err := spend(t.Context(), b.db, owner, account, 3)
		must(t, err)
		for _, d := range taken {
			b.intend(t, owner, intent(d, account))
			b.record(t, owner, sent(d))
		}
		stop(owner)
		db, next := b.open(t, Options{}), mail.NewID()
		must(t, db.Register(t.Context(), next, "test", time.Hour))
		_, _, err = db.Rescue(t.Context(), waits)
		must(t, err)
		if taken, err := spend(t.Context(), db, next, account, 5); err != nil || len(taken) != 0 {
			t.Errorf("%s: the first replica to start took %d slots, %v; all 3 of this hour are spent", name, len(taken), err)
		}
		must(t, db.Unregister(t.Context(), next))
		b.exec(t, `DELETE FROM ready`)
	}
}

// A claim may be lost when the server crashes: it sent nothing. Whatever else the store says is done is on the disk, and
// a connection that made a claim is no exception afterwards. A record that books its call waits for the disk too, when it has let go
// of the limits: see the next test.
func TestOnlyClaimsDoNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$`)
	b.exec(t, `CREATE TABLE waited (what text, setting text, UNIQUE (what, setting))`)
	b.exec(t, `CREATE FUNCTION note_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO waited VALUES (TG_ARGV[0], current_setting('synchronous_commit')) ON CONFLICT DO NOTHING;
		RETURN NULL; END $$`)
	for table, events := range map[string]string{
		"message": "INSERT", "idempotency": "INSERT", "inflight": "INSERT", "attempt": "INSERT OR UPDATE", "unknown": "INSERT", "event": "INSERT",
	} {
		b.exec(t, `CREATE TRIGGER note_wait AFTER `+events+` ON `+table+` FOR EACH ROW EXECUTE FUNCTION note_wait('`+table+`')`)
	}
	b.db = b.open(t, Options{AcceptWait: patient}) // its connections know of the setting
	for range 8 {                                  // more than there are connections
		f := b.fly(t, with(func(s *record.Submission) { s.Key = s.Message.ID.String() }))
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown"),
			Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile},
		})
		b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 3)))
	}
	want := []string{"attempt on", "event on", "idempotency on", "inflight off", "message on", "unknown on"}
	if diff := cmp.Diff(want, list[string](t, b, `SELECT what || ' ' || setting FROM waited ORDER BY 1`)); diff != "" {
		t.Errorf("what waited for the disk (-want +got):\n%s", diff)
	}
}

func TestRecordReturnsWhenTheDiskHasIt(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$`)
	b.db = b.open(t, Options{AcceptWait: patient})
	f := b.fly(t, submission())
	seen := b.watch(t, &b.db.engine)
	for _, ours := range []bool{true, false} { // done, and found done
		seen.seen = nil
		r := sent(f.due)
		if got := b.record(t, f.owner, r); got != ours {
			t.Fatalf("record = %t, want %t", got, ours)
		}
		find := func(sql string) int {
			return slices.IndexFunc(seen.seen, func(s statement) bool { return s.sql == sql })
		}
		early, commit, waits := find(notSyncedSQL) >= 0, find("commit"), find(commitSQL)
		if commit < 0 || waits < 0 || early != ours || early && waits < commit {
			t.Errorf("record that closes a claim %t: it commits early %t, at statement %d, and waits for the disk at %d", ours, early, commit, waits)
		}
	}
	var setting string
	must(t, b.db.engine.QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&setting))
	if setting != "on" {
		t.Errorf("synchronous_commit after a record = %s, want on", setting)
	}
}
