package postgres

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// parents are the partitioned tables.
var parents = []string{"attempt", "body", "delivery", "event", "message", "recipient"}

// partitions lists the days of a table, as "20060102".
func (b *bed) partitions(t *testing.T, table string) []string {
	t.Helper()
	return list[string](t, b, `SELECT right(inhrelid::regclass::text, 8) FROM pg_inherits WHERE inhparent = $1::text::regclass AND NOT inhdetachpending ORDER BY 1`, table)
}

func day(offset int) time.Time { return time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, offset) }

// aged is a submission that was made on another day.
func aged(at time.Time) *record.Submission {
	return with(func(s *record.Submission) {
		id := mail.IDAt(at)
		copy(id[6:], s.Message.ID[6:])
		s.Message.ID, s.Message.CreatedAt = id, at
	})
}

func TestEnsurePartitionsKeepsAWeekAhead(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	if n, err := b.db.EnsurePartitions(ctx); n != 0 || err != nil {
		t.Errorf("EnsurePartitions on a new database = %d, %v; want nothing to do", n, err)
	}
	var want []string
	for d := -1; d <= 7; d++ {
		want = append(want, day(d).Format("20060102"))
	}
	for _, table := range parents {
		if got := b.partitions(t, table); !slices.Equal(got, want) {
			t.Errorf("%s has the days %v, want %v", table, got, want)
		}
	}
	ahead := func(want int) {
		t.Helper()
		if n, err := b.db.PartitionsAhead(ctx); n != want || err != nil {
			t.Errorf("PartitionsAhead = %d, %v; want %d", n, err, want)
		}
	}
	ahead(7)
	reader := b.begin(t) // a backup, which must not keep us from it
	_, err := reader.Exec(ctx, `SELECT FROM message, body, recipient, attempt`)
	must(t, err)
	if _, err := b.db.engine.Exec(ctx, `SELECT ensure_partitions($1::date, $1::date)`, day(40)); err != nil {
		t.Errorf("make partitions beside a long reader: %v", err)
	}
	must(t, reader.Rollback(ctx))
	b.exec(t, `DROP TABLE body_`+day(3).Format("20060102"))
	ahead(6)
	b.exec(t, `DROP TABLE message_`+day(7).Format("20060102")+`, attempt_`+day(7).Format("20060102"))
	ahead(5)
	if n, err := b.db.EnsurePartitions(ctx); n != 3 || err != nil {
		t.Errorf("EnsurePartitions = %d, %v; want the 3 that were missing", n, err)
	}
	ahead(7)
}

func TestPartitionsMeetAtMidnightUTC(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, tc := range []struct {
		at   time.Time
		want string
	}{
		{day(0), day(0).Format("20060102")},
		{day(0).Add(-time.Millisecond), day(-1).Format("20060102")},
		{day(1).Add(-time.Millisecond), day(0).Format("20060102")},
		{time.Now(), time.Now().UTC().Format("20060102")},
	} {
		id := b.accept(t, aged(tc.at.Truncate(time.Millisecond)))[0]
		for _, table := range []string{"message", "body"} {
			if got := get[string](t, b, `SELECT tableoid::regclass::text FROM `+table+` WHERE id = $1`, [16]byte(id)); got != table+"_"+tc.want {
				t.Errorf("a message of %s lies in %s, want %s_%s", tc.at, got, table, tc.want)
			}
		}
	}
}

func TestDropPartitionsKeepsDaysWithOpenMessages(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	b.exec(t, `SELECT ensure_partitions($1::date, $2::date)`, day(-20), day(-10))
	noon := func(d int) time.Time { return day(d).Add(12 * time.Hour) }
	ids := b.accept(t, aged(noon(-19)), aged(noon(-18)), aged(noon(-17)), aged(noon(-16)), aged(day(-14)), aged(day(-13).Add(-time.Millisecond)))
	owner, account := b.replica(t), b.relay(t)
	b.exec(t, `UPDATE ready SET lane = 99 WHERE id <> ALL ($1)`, rawIDs(ids[1:4]))
	due := b.claim(t, owner, account, 3)
	b.intend(t, owner, intent(due[1], account))
	b.intend(t, owner, intent(due[2], account))
	b.record(t, owner, queue.Result{ID: due[1].ID, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: mail.Never}})
	b.record(t, owner, sent(due[2]))
	if got := []string{b.place(t, ids[0]), b.place(t, ids[1]), b.place(t, ids[2]), b.place(t, ids[3])}; !slices.Equal(got, []string{"ready", "inflight", "unknown", "settled"}) {
		t.Fatalf("messages are %v", got)
	}
	kept := []string{day(-19).Format("20060102"), day(-18).Format("20060102"), day(-17).Format("20060102"), day(-14).Format("20060102"), day(-10).Format("20060102")}
	for d := -1; d <= 7; d++ {
		kept = append(kept, day(d).Format("20060102"))
	}
	for _, table := range parents {
		n, err := b.db.DropPartitions(ctx, table, day(-10).Add(23*time.Hour))
		if n != 6 || err != nil { // days 20, 16, 15, 13, 12 and 11 ago
			t.Errorf("DropPartitions(%s) = %d, %v; want 6", table, n, err)
		}
		if got := b.partitions(t, table); !slices.Equal(got, kept) {
			t.Errorf("%s keeps %v\nwant %v", table, got, kept)
		}
		if n, err := b.db.DropPartitions(ctx, table, day(-10).Add(23*time.Hour)); n != 0 || err != nil {
			t.Errorf("DropPartitions(%s) again = %d, %v; want 0", table, n, err)
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ $1`, `_(`+day(-20).Format("20060102")+`|`+day(-11).Format("20060102")+`)$`); n != 0 {
		t.Errorf("%d tables of dropped days are left", n)
	}
}

// A vacuum or an analyze gives way to whoever has waited for a second.
func TestDropPartitionsOutwaitsAVacuum(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `SELECT ensure_partitions($1::date, $2::date)`, day(-4), day(-2))
	for _, state := range []string{"attached", "detached"} {
		d := map[string]int{"attached": -4, "detached": -3}[state]
		table := "body_" + day(d).Format("20060102")
		if state == "detached" {
			b.exec(t, `ALTER TABLE body DETACH PARTITION `+table)
		}
		vacuum := b.begin(t)
		_, err := vacuum.Exec(t.Context(), `LOCK TABLE `+table+` IN SHARE UPDATE EXCLUSIVE MODE`) // as they do
		must(t, err)
		var gives sync.WaitGroup
		gives.Go(func() {
			time.Sleep(1500 * time.Millisecond)
			_ = vacuum.Rollback(t.Context())
		})
		if n, err := b.db.DropPartitions(t.Context(), "body", day(d+1)); n != 1 || err != nil {
			t.Errorf("DropPartitions beside a vacuum of an %s day = %d, %v; want it dropped", state, n, err)
		}
		gives.Wait()
	}
	var patience string
	must(t, b.db.engine.QueryRow(t.Context(), `SELECT current_setting('lock_timeout')`).Scan(&patience))
	if patience != "1s" {
		t.Errorf("lock_timeout of the pool = %s afterwards, want 1s", patience)
	}
}

func TestDropKeysForgetsOldKeysInSteps(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.accept(t, keyed("young"))
	b.exec(t, `INSERT INTO idempotency (tenant_id, key, fingerprint, message_id, created_at)
		SELECT 1, 'old-' || n, '\x00', gen_random_uuid(), now() - interval '25 h' FROM generate_series(1, 5001) n`)
	for _, want := range []int{5000, 1, 0} {
		if n, err := b.db.DropKeys(t.Context(), 24*time.Hour); n != want || err != nil {
			t.Errorf("DropKeys = %d, %v; want %d", n, err, want)
		}
	}
	if got := list[string](t, b, `SELECT key FROM idempotency`); !slices.Equal(got, []string{"young"}) {
		t.Errorf("keys left: %v", got)
	}
}

func TestQueueCountsWhatWaitsWhere(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if q, err := b.db.Queue(t.Context()); err != nil || q.Ready+q.Scheduled+q.Inflight+q.Unknown != 0 || !q.OldestDue.IsZero() {
		t.Errorf("Queue of nothing = %+v, %v", q, err)
	}
	other, err := b.db.CreateTenant(t.Context(), "ops", record.Tenant{Name: "other", Weight: 1})
	must(t, err)
	b.rescued(t)
	f := b.flying(t)
	ids := b.acceptN(t, 3)
	b.accept(t, with(func(s *record.Submission) { s.Message.SendAt = time.Now().Add(time.Hour) }), with(func(s *record.Submission) { s.Message.Tenant = other.ID }))
	b.exec(t, `UPDATE ready SET due = now() - interval '1 min' WHERE id = $1`, [16]byte(ids[1]))
	q, err := b.db.Queue(t.Context())
	must(t, err)
	got := fmt.Sprintf("%d ready, %d scheduled, %d in flight, %d unknown, %v", q.Ready, q.Scheduled, q.Inflight, q.Unknown, q.Tenants)
	if want := "4 ready, 1 scheduled, 1 in flight, 1 unknown, [{default 3 false} {other 1 false}]"; got != want {
		t.Errorf("queue: %s\nwant: %s", got, want)
	}
	if due := get[time.Time](t, b, `SELECT min(due) FROM ready`); !q.OldestDue.Equal(due) {
		t.Errorf("oldest due %s, want %s", q.OldestDue, due)
	}
	if len(q.Replicas) != 1 || q.Replicas[0].ID != f.owner.String() || q.Replicas[0].Host != "test" || !q.Replicas[0].LeaseUntil.After(q.Replicas[0].StartedAt) {
		t.Errorf("replicas = %+v", q.Replicas)
	}
}

// In a deep queue what is scheduled is found without a look at all that is due, the oldest without a look at the others, and
// counting ends where it says.
func TestTheQueueIsCountedWithoutReadingAllOfIt(t *testing.T) {
	t.Parallel()
	const n, most = 120_000, 100_000
	b := newOwnBed(t)
	b.exec(t, `INSERT INTO ready (id, lane, tenant_id, due) SELECT gen_random_uuid(), 1, 1, now() FROM generate_series(1, $1)`, n)
	b.exec(t, `VACUUM ANALYZE ready`)
	tx := b.begin(t)
	var q record.QueueState
	must(t, readDepth(t.Context(), tx, &q))
	if q.Ready != most || q.Scheduled != 0 {
		t.Errorf("ready, scheduled = %d, %d, want %d and none", q.Ready, q.Scheduled, most)
	}
	read := 0
	must(t, tx.QueryRow(t.Context(), `SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class
		WHERE oid = 'ready'::regclass OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'ready'::regclass)`).Scan(&read))
	if read < most || read > most+tenantsCounted+100 {
		t.Errorf("entries read = %d of %d, want those that are counted, a few of them twice", read, n)
	}
}

// While somebody holds an old snapshot, nothing that left the queue can be cleaned up; whoever watches is told by the number.
func TestTheQueueTellsOfRowsThatAreNotCleanedUp(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `ALTER TABLE ready SET (autovacuum_enabled = off)`)
	b.fill(t, 500)
	b.exec(t, `DELETE FROM ready; SELECT pg_stat_force_next_flush()`)
	dead := func() int64 {
		q, err := b.db.Queue(t.Context())
		must(t, err)
		return q.Dead
	}
	if n := dead(); n != 500 {
		t.Errorf("dead rows = %d, want 500", n)
	}
	b.exec(t, `VACUUM ready`)
	if n := dead(); n != 0 {
		t.Errorf("dead rows after a vacuum = %d, want none", n)
	}
}

func TestVitalsTellWhatDurabilityDependsOn(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	v, err := b.db.Vitals(t.Context())
	must(t, err)
	want := get[string](t, b, `SELECT concat_ws(' ', current_setting('server_version'), current_setting('server_version_num'),
		current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('max_connections'))`)
	got := fmt.Sprint(strings.Join([]string{
		v.Version, fmt.Sprint(v.VersionNum), v.Fsync, v.FullPageWrites, v.SynchronousCommit, fmt.Sprint(v.MaxConnections),
	}, " "))
	if got != want || v.InRecovery {
		t.Errorf("vitals %s (in recovery: %t), want %s", got, v.InRecovery, want)
	}
	if v.ClockSkew.Abs() > time.Minute { // one clock, read twice
		t.Errorf("this host's clock is %s off itself", v.ClockSkew)
	}
}
