package postgres

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// An event that has the provider's id is about the call that has it, or else about one whose answer nobody read: not about
// a call that was refused.
func TestEventProvesTheCallThatMayHaveItsID(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	call := func(id mail.ID, n int, class, pmid, source string) {
		b.exec(t, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, finished_at, class, provider_message_id, verdict_source)
			VALUES ($1, $2, $1, $3, '{}', now(), now(), $4, $5, $6)`, [16]byte(id), n, account, class, pmid, source)
	}
	for _, tc := range []struct {
		name  string
		calls [][3]string // class, provider's id, source of the verdict
		want  []string
	}{
		{"known by its id", [][3]string{{"uncertain", "pm-1", "response"}, {"uncertain", "", "response"}}, []string{"accepted pm-1 seen by webhook", "uncertain  unseen"}},
		{"found by a look-up, then refused", [][3]string{{"accepted", "", "lookup"}, {"transient", "", "response"}}, []string{"accepted  unseen", "transient  unseen"}},
		{"of unknown outcome, then refused", [][3]string{{"uncertain", "", "response"}, {"transient", "", "response"}}, []string{"accepted pm-1 seen by webhook", "transient  unseen"}},
		{"the last of two of unknown outcome", [][3]string{{"uncertain", "", "response"}, {"uncertain", "", "response"}}, []string{"uncertain  unseen", "accepted pm-1 seen by webhook"}},
		{"an id that is known already", [][3]string{{"uncertain", "theirs", "response"}}, []string{"accepted theirs seen by webhook"}},
	} {
		id := b.accept(t, submission("ann@example.org"))[0]
		for i, c := range tc.calls {
			call(id, i+1, c[0], c[1], c[2])
		}
		b.receive(t, hook(account, told(id, mail.EventDelivered, "ann@example.org", 1)))
		if diff := cmp.Diff(tc.want, list[string](t, b, `SELECT format('%s %s %s', class, provider_message_id, CASE WHEN seen_at IS NULL THEN 'unseen' ELSE 'seen by ' || seen_by END)
		FROM attempt WHERE message_id = $1 ORDER BY n`, [16]byte(id))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// The first proof of a call stays: a second event does not date it anew.
func TestFirstProofOfACallStays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	id := b.given(t, account, 1, "ann@example.org")
	b.receive(t, hook(account, told(id, mail.EventAccepted, "ann@example.org", 1)))
	b.exec(t, `UPDATE attempt SET seen_at = now() - interval '1 day', class = 'transient', finished_at = now() WHERE message_id = $1`, [16]byte(id))
	b.receive(t, hook(account, told(id, mail.EventDelivered, "ann@example.org", 2)))
	if n := get[int](t, b, `SELECT count(*) FROM attempt WHERE seen_at < now() - interval '1 hour'`); n != 1 {
		t.Error("a second event dated the proof anew")
	}
}

// An orphan enters the stream of events when it finds its message, behind what a reader has read by then.
func TestAdoptedOrphanEntersTheStream(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	early := mail.NewID()
	b.receive(t, hook(account, told(early, mail.EventDelivered, "ann@example.org", 1), told(early, mail.EventDelivered, "nobody@example.org", 2)))
	b.accept(t, submission("other@example.org"))
	head, err := b.db.EventHead(t.Context())
	must(t, err)
	s := submission("ann@example.org")
	s.Message.ID = early
	b.accept(t, s)
	b.exec(t, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at) VALUES ($1, 1, $1, $2, '{}', now())`, [16]byte(early), account)
	b.exec(t, `UPDATE orphan SET retry_at = now()`)
	if n, err := b.db.MatchOrphans(t.Context(), 10); n != 2 || err != nil {
		t.Fatalf("matched %d, %v", n, err)
	}
	var got []mail.Event
	until(t, "both events in the stream", func() bool {
		got, _, err = b.db.EventsAfter(t.Context(), record.EventFilter{Tenant: mail.DefaultTenant}, head, 10)
		must(t, err)
		return len(got) == 2
	})
	for _, e := range got {
		if want := map[string]int{"ann@example.org": 0, "nobody@example.org": -1}[e.Recipient]; e.N != want || e.MessageID != early {
			t.Errorf("event about %s: recipient %d of %s, want %d", e.Recipient, e.N, e.MessageID, want)
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM event WHERE n IS NULL`); n != 1 {
		t.Errorf("%d events are about no recipient, want one", n)
	}
}

// Orphans that are not a day old stay, whether they were tried or not.
func TestOrphansAreForgottenByTheirAge(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	b.receive(t, hook(account, told(mail.NewID(), mail.EventDelivered, "ann@example.org", 1), told(mail.NewID(), mail.EventDelivered, "bob@example.org", 2)))
	b.exec(t, `UPDATE orphan SET retry_at = now(), expires_at = CASE WHEN event_id = (SELECT id FROM event WHERE recipient = 'ann@example.org') THEN now() ELSE expires_at END`)
	if n, err := b.db.MatchOrphans(t.Context(), 10); n != 0 || err != nil {
		t.Fatalf("matched %d, %v", n, err)
	}
	got := list[string](t, b, `SELECT recipient FROM event JOIN orphan ON event_id = id`)
	if diff := cmp.Diff([]string{"bob@example.org"}, got); diff != "" {
		t.Errorf("orphans left (-want +got):\n%s", diff)
	}
	if n := get[int](t, b, `SELECT count(*) FROM event`); n != 2 {
		t.Errorf("%d events are kept, want both", n)
	}
}

// Each end of a recipient counts in its place, and what a machine opened or clicked in none.
func TestStatsCountEveryEnd(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	relay := b.relay(t)
	ends := []struct {
		status, class string
		rank          int
	}{
		{"sent", "", 0},
		{"delivered", "", 3},
		{"deferred", "", 2},
		{"complained", "", 6},
		{"bounced", "hard", 5},
		{"bounced", "soft", 5},
		{"bounced", "policy", 5},
		{"bounced", "", 0},
		{"suppressed", "", 0},
		{"suppressed", "", 5},
		{"failed", "", 0},
		{"failed", "", 5},
		{"failed_unknown", "", 0},
		{"expired", "", 0},
		{"unknown", "", 0},
		{"queued", "", 0},
		{"cancelled", "", 0},
	}
	to := make([]string, len(ends))
	for i := range ends {
		to[i] = string(rune('a'+i)) + "@example.org"
	}
	id := b.accept(t, submission(to...))[0]
	for i, e := range ends {
		b.ended(t, id, i, e.status, e.class, e.rank)
	}
	for _, kind := range []mail.EventType{mail.EventOpened, mail.EventClicked} {
		b.happened(t, relay, &mail.Event{Type: kind, MessageID: id, N: 0, At: time.Now(), Machine: true})
		b.happened(t, relay, &mail.Event{Type: kind, MessageID: id, N: 1, At: time.Now()})
	}
	want := []record.Stat{{
		Key: "transactional", Recipients: 17, Sent: 9, Delivered: 2, Deferred: 1, Bounced: bounced(2, 1, 1), Complained: 1, Suppressed: 2,
		Failed: 4, FailedUnknown: 1, Unknown: 1, Opened: 1, Clicked: 1,
	}}
	if diff := cmp.Diff(want, b.stats(t, record.StatsFilter{By: "stream"})); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

// A message counts for the account that took it, or for the last that tried.
func TestStatsNameTheAccountThatTriedLast(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	first, second := b.relay(t), b.account(t, "second")
	id := b.accept(t, submission("ann@example.org"))[0]
	b.attempted(t, id, 1, first, "transient", time.Second)
	b.attempted(t, id, 2, second, "transient", 2*time.Second)
	if got := b.stats(t, record.StatsFilter{By: "account"})[0].Key; got != "second" {
		t.Errorf("counts for %s, want the last that tried", got)
	}
}

// What is due first is told first: a try that was put off does not stand in front of what came later.
func TestDeliveryThatIsDueFirstIsTakenFirst(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	endpoint := b.endpoint(t)
	events := b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 3)
	b.exec(t, `UPDATE outbox SET due = now() - CASE event_id WHEN $1 THEN interval '1 s' WHEN $2 THEN interval '3 s' ELSE interval '2 s' END`,
		[16]byte(events[0]), [16]byte(events[1]))
	for i, want := range []mail.ID{events[1], events[2], events[0]} {
		if diff := cmp.Diff(map[mail.ID][]mail.ID{endpoint: {want}}, b.take(t, 1, nil)); diff != "" {
			t.Errorf("claim %d (-want +got):\n%s", i+1, diff)
		}
	}
}

// What an event settled before our own record came is not reported once more by it.
func TestRecordReportsNothingThatAnEventSettled(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission("ann@example.org"))
	b.receive(t, hook(f.account, told(f.id, mail.EventBounced, "ann@example.org", 1, mail.InvalidAddress)))
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", Announce: true, Recipients: changes("sent"), Settle: sent(f.due).Settle})
	if got := list[string](t, b, `SELECT type || ' ' || source FROM event`); len(got) != 1 || got[0] != "bounced webhook" {
		t.Errorf("events = %v, want the bounce alone", got)
	}
	if got := b.status(t, f.id); got != "bounced: bounced" {
		t.Errorf("status = %s", got)
	}
}

// A message is changed when its status is: an event that changes nothing leaves its time alone.
func TestEventThatChangesNothingLeavesTheTimeOfItsMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	id := b.given(t, account, 1, "ann@example.org")
	b.receive(t, hook(account, told(id, mail.EventDelivered, "ann@example.org", 1)))
	b.exec(t, `UPDATE message SET updated_at = now() - interval '1 day'`)
	b.receive(t, hook(account, told(id, mail.EventDelivered, "ann@example.org", 2)))
	if n := get[int](t, b, `SELECT count(*) FROM message WHERE updated_at < now() - interval '1 hour' AND status = 'delivered'`); n != 1 {
		t.Error("a second delivery of a delivered message changed it")
	}
	b.receive(t, hook(account, told(id, mail.EventComplained, "ann@example.org", 3)))
	if n := get[int](t, b, `SELECT count(*) FROM message WHERE updated_at > now() - interval '1 hour' AND status = 'complained'`); n != 1 {
		t.Error("a complaint does not say when it came")
	}
}

// Replicas tell of refusals in any order: the latest stays.
func TestLatestRefusalStays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	now := time.Now().UTC().Truncate(time.Second)
	for _, at := range []time.Duration{0, -time.Hour} {
		must(t, b.db.TallyHooks(t.Context(), []record.HookTally{{Account: account, Refused: 1, LastRefused: now.Add(at), LastRefusal: "signature"}}))
	}
	health, err := b.db.HookHealth(t.Context())
	must(t, err)
	if len(health) != 1 || health[0].Refused != 2 || !health[0].LastRefused.Equal(now) {
		t.Errorf("health = %+v, want two refusals, the last at %s", health, now)
	}
}
