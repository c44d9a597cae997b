//go:build drill

package drill

import (
	"flag"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/postgres"
)

// deepRows is the number of waiting messages in D23: a million take 4 GB of disk, 10_000_000 about 30 GB.
var deepRows = flag.Int("rows", 100_000, "messages that wait in D23, of use up to 10_000_000 (30 GB of disk)")

const (
	shallowRows  = 10_000
	deepLook     = time.Minute // how long the replicas send from a deep queue, at most
	claimP99     = 100 * time.Millisecond
	firstAttempt = 2 * time.Second  // of the mail of a tenant that has nothing waiting
	booksAtDepth = 50 * time.Second // which is what one of their statements gets, and a minute what all of them get
	deepResident = 300 << 20
)

// Many messages of other tenants wait, in several lanes, when the replicas start. Claims cost the same as with few messages,
// mail of a tenant without a backlog is sent at once, and the books can still be checked.
func TestD23TheQueueIsDeep(t *testing.T) {
	drillTest(t, "D23", plan{load: load{share: 0.5, plain: true}}, func(t *testing.T, r *rig) {
		b := r.newBacklog(t, true)
		shallow := b.workAt(t, shallowRows)
		began := time.Now()
		deep := b.workAt(t, *deepRows)
		// The wait of new mail for its first attempt. A message without one has waited until now.
		var accepted, tried int
		var p99 float64
		err := b.rig.rows.QueryRow(t.Context(), `
SELECT count(*), count(started_at), coalesce(percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM coalesce(started_at, now()) - created_at)), 0)
FROM (SELECT m.created_at, (SELECT min(started_at) FROM attempt WHERE message_id = m.id) AS started_at
      FROM message m JOIN tenant t ON t.id = m.tenant_id
      WHERE t.name = $1 AND m.id >= uuid_floor($2) AND m.created_at >= $2) x`, quietTenant, began).Scan(&accepted, &tried, &p99)
		if err != nil {
			t.Fatal(err)
		}
		b.rig.report.figure("first_attempt_p99", seconds(p99), firstAttempt)
		if tried == 0 {
			t.Errorf("messages of the tenant without a backlog: %d accepted, none tried", accepted)
		}
		r.report.figure("claim_p50_at_10k", shallow.quantile(0.5), 0)
		r.report.figure("claim_p50", deep.quantile(0.5), 2*shallow.quantile(0.5))
		r.report.figure("claim_p99_at_10k", shallow.quantile(0.99), 0)
		r.report.figure("claim_p99", deep.quantile(0.99), claimP99)
		b.checkDepth(t)
		b.checkBooks(t)
		r.clients.stop()
		r.clients.wg.Wait()
		r.rest(t)
		b.cut(t)
		for _, x := range r.replicas {
			x.start(t)
		}
	})
}

// workAt puts n messages into the queue while no replica runs. Then it starts the replicas and lets them send for a while, or
// until few messages are left. It returns how long their claims took.
func (b *backlog) workAt(t *testing.T, n int) claimTimes {
	t.Helper()
	r := b.rig
	r.rest(t)
	began := time.Now()
	b.fill(t, n)
	b.age(t)
	r.report.figure(fmt.Sprintf("filled_%d", n), time.Since(began), 0)
	for _, x := range r.replicas {
		x.start(t)
	}
	began, before := time.Now(), len(r.emu.Ledger())
	for end := began.Add(min(*duration, deepLook)); time.Now().Before(end) && !b.few(t, n/3); {
		pause(t, 500*time.Millisecond)
	}
	claims, sent, took := r.claimTimes(t), len(r.emu.Ledger())-before, time.Since(began)
	r.report.tally(fmt.Sprintf("drained_per_second_%d", n), int(float64(sent)/took.Seconds()))
	if claims.count() <= 0 {
		t.Fatal("no claims were made")
	}
	return claims
}

// rest ends all replicas as an operator would.
func (r *rig) rest(t *testing.T) {
	t.Helper()
	for _, x := range r.replicas {
		x.up.Store(false)
		x.signal(t, syscall.SIGTERM)
	}
	for _, x := range r.replicas {
		x.exits(t, 35*time.Second)
	}
}

// checkDepth checks that the queue was deep until the end, that messages of it were sent, and that no scheduled message was.
func (b *backlog) checkDepth(t *testing.T) {
	t.Helper()
	r := b.rig
	left, tried := b.waiting(t), b.tried(t)
	r.report.tally("waiting", left)
	if left < *deepRows/2 || tried == 0 {
		t.Errorf("waiting at the end = %d of %d, tried %d: the queue was not deep, or not worked at", left, *deepRows, tried)
	}
	if n := b.number(t, `SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id
WHERE a.message_id >= (SELECT lo FROM b) AND a.message_id < (SELECT hi FROM b) AND m.send_at > a.started_at`); n != 0 {
		t.Errorf("calls for messages that are scheduled for later = %d, want none", n)
	}
	began := time.Now()
	if _, err := r.admin.Queue(t.Context()); err != nil {
		t.Errorf("the depth of the queue can't be told: %v", err)
	}
	r.report.figure("queue_told", time.Since(began), 0)
	for _, x := range r.replicas {
		r.report.size("peak_"+x.name, peakMemory(t, x.cmd.Process.Pid), deepResident)
	}
}

// checkBooks runs the service's own check of its books over the whole queue.
func (b *backlog) checkBooks(t *testing.T) {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Options{URL: b.rig.pg.dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	began := time.Now()
	a, err := db.Accounting(t.Context())
	took := time.Since(began)
	b.rig.report.figure("books", took, booksAtDepth)
	if err != nil && took > booksAtDepth { // a statement of the check gets no more time: so many messages can't be checked on this machine
		t.Log(err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := len(a.Violations); n != 0 {
		t.Errorf("the books have %d violations, want none: %v", n, a.Violations)
	}
	if sum, left := a.Total(), b.waiting(t); sum.Ready < left {
		t.Errorf("the books count %d messages that wait, want at least %d", sum.Ready, left)
	}
}
