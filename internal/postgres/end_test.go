package postgres

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

func TestEndSettlesWhatWillNotBeSent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "gone@example.org", Reason: "manual", Origin: "api"}))
	ids := b.accept(t, submission("ann@example.org", "gone@example.org"), submission(), submission())
	owner, account := b.replica(t), b.relay(t)
	must(t, b.db.Claim(t.Context(), owner, quota(3), func(_ time.Time, due []queue.Due, _ map[int32]*limit.Account) queue.Claim {
		return queue.Claim{Take: []queue.Assignment{{Due: due[1], Account: account}}}
	}))
	must(t, b.db.Cancel(t.Context(), mail.DefaultTenant, ids[2]))
	taken, cancelled := b.rows(t, ids[1]), b.rows(t, ids[2])
	must(t, b.db.End(t.Context(), []queue.Ending{
		{ID: ids[2], Status: mail.Expired, Detail: "too late"},
		{ID: ids[0], Status: mail.Failed, Detail: "nobody takes it"},
		{ID: ids[1], Status: mail.Expired, Detail: "too late"},
	}))
	if got := b.place(t, ids[0]) + ", " + b.status(t, ids[0]); got != "settled, failed: failed suppressed" {
		t.Errorf("what ended is %q", got)
	}
	if got := get[string](t, b, `SELECT string_agg(detail, '|' ORDER BY n) FROM recipient WHERE message_id = $1`, [16]byte(ids[0])); got != "nobody takes it|" {
		t.Errorf("details = %q", got)
	}
	if diff := cmp.Diff(taken, b.rows(t, ids[1])); diff != "" {
		t.Errorf("a message that another claimed changed:\n%s", diff)
	}
	if diff := cmp.Diff(cancelled, b.rows(t, ids[2])); diff != "" {
		t.Errorf("a message that was cancelled changed:\n%s", diff)
	}
}

// A record that waits for the row of a message has not locked the limits yet, for which all replicas would wait with it.
func TestRecordsLockLimitsLast(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(5, limit.Requests))
	f := b.fly(t, submission())
	b.exec(t, `UPDATE inflight SET account_id = $1`, account)
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `SELECT FROM message WHERE id = $1 FOR UPDATE`, [16]byte(f.id))
	must(t, err)
	recorded := make(chan error, 1)
	go func() {
		r := sent(queue.Due{ID: f.id, Facts: &mail.Facts{Recipients: 1}})
		_, err := b.db.Record(t.Context(), f.owner, r)
		for ; err != nil && t.Context().Err() == nil; _, err = b.db.Record(t.Context(), f.owner, r) { // it waits for a second at most
		}
		recorded <- err
	}()
	until(t, "the record waits for the message", func() bool {
		return get[int](t, b, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) > 0
	})
	b.exec(t, `SELECT FROM rate_account WHERE account_id = $1 FOR UPDATE NOWAIT`, account)
	must(t, tx.Rollback(t.Context()))
	must(t, <-recorded)
	if got, want := b.used(t), "small 5 requests per 1h0m0s: 1; "; got != want {
		t.Errorf("used: %s, want %s", got, want)
	}
}
