package postgres

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

const repeatWithin = 23 * time.Hour

// hangRepeat has one message whose call is to be made again.
func (b *bed) hangRepeat(t *testing.T) flight {
	t.Helper()
	f := b.fly(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = mail.Never }))
	again := &queue.Repeat{N: 1, By: time.Now().Add(time.Hour), Until: time.Now().Add(repeatWithin)}
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{
		DecideIn: time.Hour, Policy: queue.Repeating, Avoid: map[string]queue.Avoid{"relay": {Repeat: again}},
	}})
	return f
}

func (b *bed) repeat(t *testing.T, account int32, want int) {
	t.Helper()
	if n, err := b.db.RepeatUnknown(t.Context(), queue.RepeatRule{Within: map[int32]time.Duration{account: repeatWithin}, Wait: 10 * time.Second, Patience: 10 * time.Minute, Most: 2}); n != want || err != nil {
		t.Fatalf("RepeatUnknown = %d, %v; want %d", n, err, want)
	}
}

func TestACallIsMadeAgainWhenItsWaitIsOverAndIsNoTwin(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	twice := make(chan mail.ID, 9)
	b.db = b.open(t, Options{AcceptWait: patient, AcceptedTwice: func(id mail.ID) { twice <- id }})
	f := b.hangRepeat(t)
	b.repeat(t, f.account, 0)
	b.exec(t, `UPDATE unknown SET decide_at = now() WHERE id = $1`, [16]byte(f.id))
	if resent, failed, err := b.db.DecideUnknown(t.Context(), true, 2); resent+failed != 0 || err != nil {
		t.Fatalf("the deadline decided %d and %d, %v; want the repeat first", resent, failed, err)
	}
	b.repeat(t, f.account, 1)
	if got, want := b.outcome(t, f.id), (outcome{"ready", "queued: queued", "uncertain/repeat"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	owner := b.replica(t)
	d := b.claim(t, owner, f.account, 1)[0]
	if at, r := queue.Repeated(d.Avoid); at != "relay" || r.N != 1 || d.Resends != 0 || d.ResentAfter != 0 {
		t.Errorf("due = %+v, want it bound to the account and no resend", d)
	}
	// an event tells of the first call just before the second, which is answered with the same id
	b.receive(t, hook(f.account, told(f.id, mail.EventAccepted, "ann@example.org", 1)))
	if !b.intend(t, owner, intent(d, f.account)) {
		t.Fatal("intent refused")
	}
	r := sent(d)
	r.ProviderMessageID = "pm-1"
	b.record(t, owner, r)
	b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 2)))
	if place := b.place(t, f.id); place != "settled" || len(twice) != 0 {
		t.Errorf("the message is %s and %d twins were told, want it settled and none", place, len(twice))
	}
	if n := get[int](t, b, `SELECT resends FROM message WHERE id = $1`, [16]byte(f.id)); n != 0 {
		t.Errorf("%d resends are counted, want none", n)
	}
	b.balanced(t, "the repeat", "0 ready, 0 claimed, 0 in a call, 0 unknown")
}

// A provider that sent a second mail after all gives another id.
func TestARepeatWithAnotherIDIsATwin(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	twice := make(chan mail.ID, 9)
	b.db = b.open(t, Options{AcceptWait: patient, AcceptedTwice: func(id mail.ID) { twice <- id }})
	f := b.hangRepeat(t)
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	b.repeat(t, f.account, 1)
	owner := b.replica(t)
	d := b.claim(t, owner, f.account, 1)[0]
	b.intend(t, owner, intent(d, f.account))
	r := sent(d)
	r.ProviderMessageID = "pm-2"
	b.record(t, owner, r)
	b.exec(t, `UPDATE attempt SET provider_message_id = 'pm-1' WHERE n = 1`)
	b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 2)))
	if len(twice) != 1 {
		t.Errorf("%d twins were told, want one", len(twice))
	}
}

func TestALostCallIsMadeAgainWhereItsAccountTakesRepeats(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = mail.Resend }))
	repeats := func() string {
		return get[string](t, b, `SELECT concat_ws(' ', policy, avoid -> 'relay' -> 'repeat' ->> 'n', decide_at > now()) FROM unknown WHERE id = $1`, [16]byte(f.id))
	}
	for _, want := range []string{"repeat 1 t", "repeat 2 t", "resend 2 t"} {
		b.expire(t, f.owner)
		b.rescueAll(t)
		b.repeat(t, f.account+1, 0) // another account's rule leaves it alone
		b.repeat(t, f.account, 0)
		if got := repeats(); got != want {
			t.Fatalf("unknown = %s, want %s", got, want)
		}
		if want == "resend 2 t" {
			break
		}
		b.exec(t, `UPDATE unknown SET decide_at = now()`)
		b.repeat(t, f.account, 1)
		f.owner = b.replica(t)
		d := b.claim(t, f.owner, f.account, 1)[0]
		if !b.intend(t, f.owner, intent(d, f.account)) {
			t.Fatal("intent refused")
		}
	}
	b.balanced(t, "the lost repeats", "0 ready, 0 claimed, 0 in a call, 1 unknown")
}

func TestALapsedRepeatIsLeftToThePolicy(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.hangRepeat(t)
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	b.repeat(t, f.account, 1)
	over := map[string]queue.Avoid{"relay": {Repeat: &queue.Repeat{N: 1, Over: true}}}
	must(t, b.db.Lapse(t.Context(), []queue.Lapse{{ID: f.id, Avoid: over}}, waits))
	if got, want := b.outcome(t, f.id), (outcome{"unknown", "unknown: unknown", "uncertain/repeat"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	b.repeat(t, f.account, 0)
	if got := get[string](t, b, `SELECT policy FROM unknown WHERE id = $1`, [16]byte(f.id)); got != "never" {
		t.Errorf("policy = %s, want never", got)
	}
	b.balanced(t, "the lapse", "0 ready, 0 claimed, 0 in a call, 1 unknown")
	b.decide(t, true)
	if got, want := b.outcome(t, f.id), (outcome{"settled", "failed_unknown: failed_unknown", "uncertain/deadline"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	must(t, b.db.Lapse(t.Context(), []queue.Lapse{{ID: f.id, Avoid: over}}, waits))
	if place := b.place(t, f.id); place != "settled" {
		t.Errorf("a settled message is %s after a lapse", place)
	}
}
