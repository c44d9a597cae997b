package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// bulk counts what a Bulk would change, does all its pages, and compares the two.
func (b *bed) bulk(t *testing.T, f record.Bulk) (sum record.BulkPage, pages int) {
	t.Helper()
	f.Upto = mail.IDAt(time.Now().Add(time.Minute))
	n, err := b.db.BulkCount(t.Context(), f)
	must(t, err)
	for {
		page, err := b.db.Bulk(t.Context(), "tester", f)
		must(t, err)
		pages++
		sum.Done, sum.MaybeSent, sum.Skipped = sum.Done+page.Done, sum.MaybeSent+page.MaybeSent, sum.Skipped+page.Skipped
		if page.Last.IsZero() {
			break
		}
		f.After, f.Audit = page.Last, nil
	}
	if all := sum.Done + sum.MaybeSent + sum.Skipped; n != all {
		t.Errorf("counted %d, then found %d", n, all)
	}
	return sum, pages
}

func TestBulkTakesWhatMatchesAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]record.Filter{
		"tenant":       {Tenant: mail.DefaultTenant, Tag: "wanted"},
		"tag":          {Tag: "wanted"},
		"stream":       {Stream: "wanted"},
		"sender":       {From: "Wanted@example.com"},
		"recipient":    {To: "wanted@Example.org"},
		"account":      {Account: "relay"},
		"scheduled":    {Status: mail.Scheduled, Tag: "wanted"},
		"other tenant": {Tenant: 99},
		"not yet":      {Since: time.Now().Add(30 * time.Second)},
		"too old":      {Until: time.Now().Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			wanted := with(func(s *record.Submission) {
				s.Message.Tags, s.Message.Stream, s.Message.From.Email = []string{"x", "wanted"}, "wanted", "wanted@example.com"
				s.Message.To = []mail.Address{{Email: "ann@example.org"}, {Email: "wanted@example.org"}}
				if filter.Status == mail.Scheduled {
					s.Message.SendAt = time.Now().Add(time.Hour)
				}
			})
			ids := b.accept(t, submission(), wanted)
			b.exec(t, `INSERT INTO attempt (message_id, n, account_id, owner, class, decision, started_at, finished_at) VALUES ($1, 1, $2, gen_random_uuid(), 'transient', '{}', now(), now())`, [16]byte(ids[1]), b.relay(t))
			want := []string{"queued: queued", "cancelled: cancelled cancelled"}
			if slices.Contains([]string{"other tenant", "not yet", "too old"}, name) {
				want[1] = "queued: queued queued"
			}
			b.bulk(t, record.Bulk{Action: record.BulkCancel, Filter: filter})
			if diff := cmp.Diff(want, []string{b.status(t, ids[0]), b.status(t, ids[1])}); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestBulkEndsWhatWaitsAndTellsWhy(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	waits := b.acceptN(t, 1)[0]
	b.bulk(t, record.Bulk{Action: record.BulkFail})
	if got := b.outcome(t, waits); got != (outcome{"settled", "failed: failed", ""}) {
		t.Errorf("what waited is %+v", got)
	}
	if got := get[string](t, b, `SELECT type || ' ' || name || ' ' || (bounce->>'text') FROM event`); got != "rejected failed ended by an operator" {
		t.Errorf("event = %q", got)
	}
	flying := b.flying(t).id
	before := b.rows(t, flying)
	for _, action := range []record.BulkAction{record.BulkCancel, record.BulkFail, record.BulkRequeue} {
		if sum, _ := b.bulk(t, record.Bulk{Action: action}); sum.Done != 0 {
			t.Errorf("%s: %+v of a message in flight", action, sum)
		}
	}
	if diff := cmp.Diff(before, b.rows(t, flying)); diff != "" {
		t.Errorf("a message in flight changed:\n%s", diff)
	}
}

func TestBulkGoesPageByPage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.fill(t, 1003)
	sum, pages := b.bulk(t, record.Bulk{Action: record.BulkCancel, Audit: map[string]any{"matched": 1003}})
	if sum.Done != 1003 || pages != 3 {
		t.Errorf("%+v in %d pages, want 1003 in 3", sum, pages)
	}
	if n := get[int](t, b, `SELECT count(*) FROM ready`); n != 0 {
		t.Errorf("%d wait still", n)
	}
	if got := list[string](t, b, `SELECT actor || ' ' || action || ' ' || detail::text FROM audit WHERE action LIKE 'message.%'`); len(got) != 1 || got[0] != `tester message.cancel {"matched": 1003}` {
		t.Errorf("audit = %q", got)
	}
}

func TestBulkRequeueHurriesRetriesOnly(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	scheduled := with(func(s *record.Submission) { s.Message.SendAt = time.Now().Add(time.Hour) })
	ids := b.accept(t, submission(), submission(), scheduled)
	b.exec(t, `UPDATE ready SET due = now() + interval '10 min', held = true WHERE id = $1`, [16]byte(ids[0]))
	sum, _ := b.bulk(t, record.Bulk{Action: record.BulkRequeue})
	got := list[string](t, b, `SELECT concat_ws(' ', due <= now(), held) FROM ready ORDER BY array_position($1, id)`, rawIDs(ids))
	if diff := cmp.Diff([]string{"t f", "t f", "f f"}, got); diff != "" || sum.Done != 1 {
		t.Errorf("%+v (-want +got)\n%s", sum, diff)
	}
}

func TestBulkDecidesUnknownMessages(t *testing.T) {
	t.Parallel()
	for action, want := range map[record.BulkAction]outcome{
		record.BulkFail:    {"settled", "failed_unknown: failed_unknown", "uncertain/deadline"},
		record.BulkRequeue: {"ready", "queued: queued", "uncertain/deadline"},
	} {
		b := newBed(t)
		f := b.fly(t, submission())
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile},
		})
		if sum, _ := b.bulk(t, record.Bulk{Action: action, Filter: record.Filter{Status: mail.Unknown}, Force: true}); sum.Done != 1 {
			t.Errorf("%s: %+v", action, sum)
		}
		_, _, err := b.db.DecideUnknown(t.Context(), false, 2)
		must(t, err)
		if got := b.outcome(t, f.id); got != want {
			t.Errorf("%s: %+v, want %+v", action, got, want)
		}
	}
}

func TestBulkResendLeavesAloneWhatMayHaveBeenSent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ids := b.acceptN(t, 4)
	b.exec(t, `DELETE FROM ready`)
	b.exec(t, `UPDATE recipient SET status = 'failed'; UPDATE message SET status = 'failed'`)
	b.exec(t, `UPDATE recipient SET status = 'failed_unknown' WHERE message_id = $1`, [16]byte(ids[1])) // as if an event came meanwhile
	b.exec(t, `DELETE FROM body WHERE id = $1`, [16]byte(ids[2]))
	b.exec(t, `UPDATE message SET status = 'delivered' WHERE id = $1`, [16]byte(ids[3]))
	failed := record.Bulk{Action: record.BulkResend, Filter: record.Filter{Status: mail.Failed}}
	if sum, _ := b.bulk(t, failed); sum != (record.BulkPage{Done: 1, MaybeSent: 1, Skipped: 1}) {
		t.Errorf("%+v, want one of each", sum)
	}
	places := func() (all []string) {
		for _, id := range ids {
			all = append(all, b.place(t, id))
		}
		return all
	}
	if diff := cmp.Diff([]string{"ready", "settled", "settled", "settled"}, places()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	failed.Force = true
	b.bulk(t, failed)
	if diff := cmp.Diff([]string{"ready", "ready", "settled", "settled"}, places()); diff != "" {
		t.Errorf("with force (-want +got)\n%s", diff)
	}
}

// An account may make a call again safely, but not after an operator has decided otherwise.
func TestBulkEndsRepeatsOfUnknownMessages(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.hangRepeat(t)
	if sum, _ := b.bulk(t, record.Bulk{Action: record.BulkFail, Filter: record.Filter{Status: mail.Unknown}}); sum.Done != 1 {
		t.Fatalf("bulk = %+v", sum)
	}
	b.repeat(t, f.account, 0)
	_, _, err := b.db.DecideUnknown(t.Context(), true, 2)
	must(t, err)
	if got := fmt.Sprint(b.outcome(t, f.id)); !strings.Contains(got, "failed_unknown") {
		t.Errorf("the message is %s, want failed_unknown", got)
	}
}
