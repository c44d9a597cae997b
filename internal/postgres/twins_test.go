package postgres

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// A message that was sent again since nobody knew may turn out to have been accepted twice, in whatever order that comes
// to light. Each is told once.
func TestSecondAcceptanceIsTold(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var mu sync.Mutex
	var twice []mail.ID
	b.db = b.open(t, Options{AcceptWait: patient, AcceptedTwice: func(id mail.ID) {
		mu.Lock()
		defer mu.Unlock()
		twice = append(twice, id)
	}})
	seen := func() []mail.ID {
		mu.Lock()
		defer mu.Unlock()
		got := twice
		twice = nil
		return got
	}
	second := func(f flight) (mail.ID, queue.Due) { // the next call, under way
		t.Helper()
		owner := b.replica(t)
		d := b.claim(t, owner, f.account, 1)[0]
		if d.ID != f.id || !b.intend(t, owner, intent(d, f.account)) {
			t.Fatal("the second call does not start")
		}
		return owner, d
	}
	again := func() (flight, mail.ID, queue.Due) {
		t.Helper()
		f := b.hang(t, mail.Resend, time.Minute)
		b.decide(t, true)
		owner, d := second(f)
		return f, owner, d
	}
	accepted := func(d queue.Due, pmid string) queue.Result {
		r := sent(d)
		r.ProviderMessageID = pmid
		return r
	}
	delivered := func(f flight, pmid string, sec int) record.Intake {
		e := told(f.id, mail.EventDelivered, "ann@example.org", sec)
		e.ProviderMessageID = pmid
		return hook(f.account, e)
	}
	first := func(f flight) queue.Result {
		return queue.Result{ID: f.id, N: 1, Class: "accepted", ProviderMessageID: "pm-first", Recipients: changes("sent")}
	}
	check := func(what string, want ...mail.ID) {
		t.Helper()
		if diff := cmp.Diff(want, seen()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	f, owner, d := again()
	b.record(t, owner, accepted(d, "pm-second"))
	b.receive(t, delivered(f, "pm-second", 1))
	check("accepted once, as far as we know")
	b.receive(t, delivered(f, "pm-first", 2))
	check("an event of the first call, of the same account", f.id)
	b.receive(t, delivered(f, "pm-first", 3))
	b.receive(t, delivered(f, "pm-second", 4))
	check("more events of both")

	f, owner, d = again()
	b.record(t, owner, accepted(d, "pm-second"))
	b.record(t, f.owner, first(f))
	check("a late answer to the first call", f.id)

	f, owner, d = again()
	b.record(t, f.owner, first(f))
	check("a late answer to the first call, while the second is under way")
	b.record(t, owner, accepted(d, "pm-second"))
	check("then the second is accepted", f.id)

	f = b.hang(t, mail.Reconcile, time.Minute)
	b.lookedUp(t, f, false)
	owner, d = second(f)
	b.record(t, owner, accepted(d, "pm-second"))
	b.lookedUp(t, f, true)
	check("a look-up that was wrong", f.id)
	b.lookedUp(t, f, true)
	b.record(t, owner, accepted(d, "pm-second"))
	check("what is told again")

	f = b.hang(t, mail.Reconcile, time.Minute)
	b.receive(t, delivered(f, "pm-first", 1))
	check("evidence before anything was sent again")

	f = b.fly(t, submission("ann@example.org", "bob@example.org"))
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", ProviderMessageID: "pm-first", Recipients: changes("sent"), Requeue: &queue.Requeue{}})
	owner, d = second(f)
	b.record(t, owner, queue.Result{ID: d.ID, N: 2, Class: "accepted", ProviderMessageID: "pm-second", Recipients: changes("", "sent")})
	b.receive(t, delivered(f, "pm-first", 1))
	check("a call for a recipient that the first one put off")

	f = b.fly(t, submission())
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "transient", Requeue: &queue.Requeue{}})
	owner, d = second(f)
	b.record(t, owner, accepted(d, "pm-second"))
	b.receive(t, delivered(f, "another form of pm-second", 1))
	check("a call after one that failed for certain")
}

func TestSecondAcceptanceOfAnOrphanIsTold(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	twice := make(chan mail.ID, 9)
	b.db = b.open(t, Options{AcceptWait: patient, AcceptedTwice: func(id mail.ID) { twice <- id }})
	f := b.hang(t, mail.Resend, time.Minute)
	b.decide(t, true)
	owner := b.replica(t)
	d := b.claim(t, owner, f.account, 1)[0]
	b.intend(t, owner, intent(d, f.account))
	b.record(t, owner, sent(d))
	e := told(mail.ID{}, mail.EventDelivered, "ann@example.org", 1)
	e.ProviderMessageID = "pm-first"
	if taken := b.receive(t, hook(f.account, e)); taken.Orphans != 1 {
		t.Fatalf("taken = %+v, want an orphan", taken)
	}
	b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-first' WHERE n = 1; UPDATE orphan SET retry_at = now()`)
	if _, err := b.db.MatchOrphans(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if len(twice) != 1 || <-twice != f.id {
		t.Errorf("%d messages told, want the one", len(twice))
	}
}
