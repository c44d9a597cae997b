package postgres

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// hang makes a message unknown whose call ended so long ago.
func (b *bed) hang(t *testing.T, policy mail.Policy, ago time.Duration) flight {
	t.Helper()
	f := b.fly(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = policy }))
	b.record(t, f.owner, queue.Result{
		ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: policy},
	})
	b.exec(t, `UPDATE unknown SET since = now() - $2::interval WHERE id = $1`, [16]byte(f.id), ago)
	return f
}

func TestLookupsGoByTheSchedule(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	schedule := []time.Duration{time.Minute, 5 * time.Minute}
	early, due, never := b.hang(t, mail.Reconcile, 30*time.Second), b.hang(t, mail.Reconcile, 2*time.Minute), b.hang(t, mail.Never, time.Hour)
	ask := func(accounts ...int32) []mail.ID {
		t.Helper()
		found, err := b.db.DueLookups(t.Context(), schedule, accounts, 10)
		must(t, err)
		var ids []mail.ID
		for _, l := range found {
			if diff := cmp.Diff([]string{"ann@example.org"}, l.Recipients); diff != "" || l.Sender != "shop@example.com" || l.N != 1 || l.StartedAt.IsZero() {
				t.Errorf("look-up = %+v", l)
			}
			ids = append(ids, l.ID)
		}
		return ids
	}
	check := func(what string, got []mail.ID, want ...mail.ID) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("of another account", ask(due.account+1))
	check("first", ask(due.account), due.id)
	check("while it is asked", ask(due.account))
	must(t, b.db.ReturnLookup(t.Context(), due.id, 1, false, 0))
	check("before the second is due", ask(due.account))
	b.exec(t, `UPDATE unknown SET since = now() - interval '6 min' WHERE id = $1`, [16]byte(due.id))
	check("second", ask(due.account), due.id)
	must(t, b.db.ReturnLookup(t.Context(), due.id, 1, true, 0))
	check("second, which could not be made", ask(due.account), due.id)
	must(t, b.db.ReturnLookup(t.Context(), due.id, 1, false, 0))
	b.exec(t, `UPDATE unknown SET since = now() - interval '6 hours' WHERE id <> $1`, [16]byte(early.id))
	check("after the last, and never", ask(due.account, never.account))
}

func TestLookupSettlesWhatIsUnknown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	settle := func(v record.Verdict) bool {
		t.Helper()
		ok, err := b.db.Resolve(t.Context(), v)
		must(t, err)
		return ok
	}
	state := func(f flight) []string { return []string{b.place(t, f.id), b.status(t, f.id), b.attempts(t, f.id)} }

	f := b.hang(t, mail.Reconcile, time.Minute)
	payload := mail.Payload{Raw: []byte("{}"), Events: []mail.Event{told(f.id, mail.EventDelivered, "ann@example.org", 3)}}
	if !settle(record.Verdict{ID: f.id, N: 1, Account: f.account, Found: true, ProviderMessageID: "p1", Payloads: []mail.Payload{payload}}) {
		t.Error("the message was not settled")
	}
	if diff := cmp.Diff([]string{"settled", "delivered: delivered", "accepted/lookup"}, state(f)); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if settle(record.Verdict{ID: f.id, N: 1, Account: f.account}) {
		t.Error("a late absence unsettled it")
	}

	f = b.hang(t, mail.Reconcile, time.Hour)
	if !settle(record.Verdict{ID: f.id, N: 1, Account: f.account}) {
		t.Error("the message was not settled")
	}
	if diff := cmp.Diff([]string{"ready", "queued: queued", "transient/lookup"}, state(f)); diff != "" {
		t.Errorf("absent (-want +got):\n%s", diff)
	}
}

func TestReprojectRebuildsFromPayloads(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission("ann@example.org", "bob@example.org"))
	b.record(t, f.owner, sent(f.due))
	wrong := told(f.id, mail.EventUnmapped, "", 3)
	b.receive(t, hook(f.account, wrong))
	b.receive(t, hook(f.account, told(f.id, mail.EventBounced, "bob@example.org", 2, mail.MailboxFull)))
	raw, err := b.db.RawEvents(t.Context(), "relay", time.Time{}, mail.ID{}, 10)
	must(t, err)
	if len(raw) != 2 || string(raw[0].Raw) != "raw of " || raw[1].Account != "relay" {
		t.Fatalf("payloads = %+v", raw)
	}
	// Today the first payload tells of two recipients, and the second of a delivery.
	again := []record.Reprojected{
		{Origin: raw[0].Origin, Events: []mail.Event{
			told(f.id, mail.EventDelivered, "ann@example.org", 3), told(f.id, mail.EventOpened, "bob@example.org", 1),
		}},
		{Origin: raw[1].Origin, Events: []mail.Event{told(f.id, mail.EventDelivered, "bob@example.org", 2)}},
	}
	state := func() string { return b.status(t, f.id) }
	changed, messages, err := b.db.Reproject(t.Context(), again, true)
	if changed != 3 || messages != 1 || err != nil || state() != "bounced: sent bounced" {
		t.Errorf("dry run = %d, %d, %v; and the message is %s", changed, messages, err, state())
	}
	changed, messages, err = b.db.Reproject(t.Context(), again, false)
	if changed != 3 || messages != 1 || err != nil || state() != "delivered: delivered delivered" {
		t.Errorf("reproject = %d, %d, %v; and the message is %s", changed, messages, err, state())
	}
	if changed, _, err = b.db.Reproject(t.Context(), again, false); changed != 0 || err != nil {
		t.Errorf("a second time changes %d, %v", changed, err)
	}
	again[0].Events = again[0].Events[:1]
	if changed, _, err = b.db.Reproject(t.Context(), again, false); changed != 1 || err != nil {
		t.Errorf("an event less changes %d, %v", changed, err)
	}
	if got := get[string](t, b, `SELECT string_agg(type, ',' ORDER BY type) FROM event`); got != ",delivered,delivered" {
		t.Errorf("events are %q", got)
	}
}
