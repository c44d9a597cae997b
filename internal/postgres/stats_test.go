package postgres

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func (b *bed) stats(t *testing.T, f record.StatsFilter) []record.Stat {
	t.Helper()
	if f.Tenant == 0 {
		f.Tenant = mail.DefaultTenant
	}
	if f.Since.IsZero() {
		f.Since, f.Until = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	f.Limit = max(f.Limit, 10)
	got, err := b.db.Stats(t.Context(), f)
	must(t, err)
	return got
}

// attempted writes an accepted or failed call that ended after the given time.
func (b *bed) attempted(t *testing.T, id mail.ID, n int, account int32, class string, after time.Duration) {
	t.Helper()
	b.exec(t, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, finished_at, class)
		SELECT id, $2, id, $3, '{}', created_at, created_at + $4, $5 FROM message WHERE id = $1`, [16]byte(id), n, account, after, class)
}

func (b *bed) ended(t *testing.T, id mail.ID, n int, status, class string, rank int) {
	t.Helper()
	b.exec(t, `UPDATE recipient SET status = $3, event_rank = $5,
		bounce = CASE WHEN $4 = '' THEN NULL ELSE jsonb_build_object('class', $4::text) END
		WHERE message_id = $1 AND n = $2`, [16]byte(id), n, status, class, rank)
}

func bounced(hard, soft, policy int64) map[mail.BounceClass]int64 {
	return map[mail.BounceClass]int64{mail.Hard: hard, mail.Soft: soft, mail.PolicyClass: policy}
}

// statsBed has two messages of three recipients each, one of another tenant and one that is older.
func statsBed(t *testing.T) (*bed, time.Time) {
	t.Helper()
	b := newBed(t)
	relay, other := b.relay(t), b.account(t, "other")
	to := []string{"ann@example.org", "bob@example.org", "cy@example.net"}
	first := b.accept(t, submission(to...))[0]
	second := b.accept(t, with(func(s *record.Submission) {
		s.Message.To = submission(to...).Message.To
		s.Message.Stream = "news"
	}))[0]
	b.accept(t, with(func(s *record.Submission) { s.Message.Tenant = 2 }))
	made := get[time.Time](t, b, `SELECT created_at FROM message WHERE id = $1`, [16]byte(first))
	b.attempted(t, first, 1, other, "transient", time.Second)
	b.attempted(t, first, 2, relay, "accepted", 2*time.Second)
	b.attempted(t, first, 3, other, "aborted", 3*time.Second)
	b.attempted(t, second, 1, other, "uncertain", time.Second)
	b.ended(t, first, 0, "delivered", "", 4)
	b.ended(t, first, 1, "complained", "", 6)
	b.ended(t, first, 2, "bounced", "soft", 5)
	b.ended(t, second, 0, "failed_unknown", "", 0)
	b.ended(t, second, 1, "bounced", "", 0)
	b.ended(t, second, 2, "unknown", "", 0)
	event := func(kind mail.EventType, n int, after time.Duration, machine bool) {
		b.happened(t, relay, &mail.Event{Type: kind, MessageID: first, N: n, At: made.Add(after), Machine: machine})
	}
	event(mail.EventDelivered, 0, 10*time.Second, false)
	event(mail.EventDelivered, 0, 20*time.Second, false) // the first counts
	event(mail.EventDelivered, 1, 30*time.Second, false)
	event(mail.EventOpened, 0, time.Minute, false)
	event(mail.EventOpened, 0, 2*time.Minute, false)
	event(mail.EventOpened, 1, time.Minute, true) // a machine
	event(mail.EventClicked, 0, time.Minute, false)
	event(mail.EventUnsubscribed, 1, time.Minute, false)
	return b, made
}

func TestStatsCountRecipients(t *testing.T) {
	t.Parallel()
	b, made := statsBed(t)
	first := record.Stat{
		Recipients: 3, Sent: 3, Delivered: 2, Bounced: bounced(0, 1, 0), Complained: 1, Opened: 1, Clicked: 1, Unsubscribed: 1,
		SentP50: 2 * time.Second, SentP95: 2 * time.Second, DeliveredP50: 10 * time.Second, DeliveredP95: 30 * time.Second,
	}
	second := record.Stat{Recipients: 3, Bounced: bounced(1, 0, 0), Failed: 1, FailedUnknown: 1, Unknown: 1}
	named := func(s record.Stat, key string) record.Stat { s.Key = key; return s }
	for by, want := range map[string][]record.Stat{
		"account": {named(second, "other"), named(first, "relay")},
		"stream":  {named(second, "news"), named(first, "transactional")},
		"domain": {
			{
				Key: "example.org", Recipients: 4, Sent: 2, Delivered: 2, Bounced: bounced(1, 0, 0), Complained: 1, Failed: 1, FailedUnknown: 1, Opened: 1, Clicked: 1,
				Unsubscribed: 1, SentP50: 2 * time.Second, SentP95: 2 * time.Second, DeliveredP50: 10 * time.Second, DeliveredP95: 30 * time.Second,
			},
			{Key: "example.net", Recipients: 2, Sent: 1, Bounced: bounced(0, 1, 0), Unknown: 1, SentP50: 2 * time.Second, SentP95: 2 * time.Second},
		},
	} {
		if diff := cmp.Diff(want, b.stats(t, record.StatsFilter{By: by})); diff != "" {
			t.Errorf("by %s (-want +got):\n%s", by, diff)
		}
	}
	if got := b.stats(t, record.StatsFilter{By: "stream", Since: made.Add(-time.Hour), Until: made}); len(got) != 0 {
		t.Errorf("before the messages came: %+v, want nothing", got)
	}
	if got := b.stats(t, record.StatsFilter{By: "stream", Tenant: 3}); len(got) != 0 {
		t.Errorf("of a tenant without messages: %+v, want nothing", got)
	}
}

func TestStatsOfScheduledMessagesBeginWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.accept(t, with(func(s *record.Submission) { s.Message.SendAt = s.Message.CreatedAt.Add(time.Hour) }))[0]
	b.attempted(t, id, 1, b.relay(t), "accepted", time.Hour+3*time.Second)
	if got := b.stats(t, record.StatsFilter{By: "account"})[0].SentP50; got != 3*time.Second {
		t.Errorf("accepted to sent = %s, want 3 s after it was due", got)
	}
}

func TestStatsRefuseWhatTheyCantCount(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var bad *mail.Invalid
	if _, err := b.db.Stats(t.Context(), record.StatsFilter{By: "email; DROP TABLE event"}); !errors.As(err, &bad) || bad.Fields[0].Field != "by" {
		t.Errorf("unknown key: %v", err)
	}
	lock := b.begin(t)
	if _, err := lock.Exec(t.Context(), `LOCK TABLE message IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	const waiting = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%WITH m AS MATERIALIZED%' AND pid <> pg_backend_pid()`
	done := make(chan error, 1)
	go func() {
		_, err := b.db.Stats(t.Context(), record.StatsFilter{By: "stream", Tenant: 1, Since: time.Now().Add(-time.Hour), Until: time.Now(), Limit: 1})
		done <- err
	}()
	until(t, "the statement to be cancelled, as by its timeout", func() bool {
		return slices.Contains(list[bool](t, b, `SELECT pg_cancel_backend(pid) FROM (`+waiting+`) x`), true)
	})
	if err := <-done; !errors.As(err, &bad) || bad.Fields[0].Code != "too_much" {
		t.Errorf("cancelled statement: %v, want a complaint about the span", err)
	}
}
