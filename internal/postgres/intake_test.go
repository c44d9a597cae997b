package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// fact0 is when the events of tests happened, on the provider's clock.
var fact0 = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// told is one event about the n-th recipient of tests, sec seconds after fact0.
func told(id mail.ID, what mail.EventType, recipient string, sec int, reason ...mail.Reason) mail.Event {
	e := mail.Event{
		Type: what, Name: string(what), UniqueID: fmt.Sprint(id, what, recipient, sec), MessageID: id, Recipient: recipient,
		At: fact0.Add(time.Duration(sec) * time.Second), ProviderMessageID: "pm-1",
	}
	for _, r := range reason {
		e.Bounce = &mail.Bounce{Class: r.Class(), Reason: r, Code: "550", Text: "because of " + string(r)}
		e.Detail, e.UniqueID = e.Bounce.Text, e.UniqueID+string(r)
	}
	return e
}

// hook is a request with one payload for each event.
func hook(account int32, events ...mail.Event) record.Intake {
	in := record.Intake{Account: account, Source: mail.FromWebhook}
	for _, e := range events {
		in.Payloads = append(in.Payloads, mail.Payload{Raw: []byte("raw of " + e.Name), Events: []mail.Event{e}})
	}
	return in
}

func (b *bed) receive(t *testing.T, in record.Intake) record.Taken {
	t.Helper()
	taken, err := b.db.ReceiveEvents(t.Context(), in)
	must(t, err)
	return taken
}

func TestEventsMoveRecipientsToTheirFate(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	cases := map[string]struct {
		events []func(mail.ID) mail.Event
		want   string
	}{
		"accepted":                   {say(mail.EventAccepted, 1), "sent: sent"},
		"deferred":                   {say(mail.EventDeferred, 2, mail.MailboxFull), "deferred: deferred"},
		"delivered":                  {say(mail.EventDelivered, 3), "delivered: delivered"},
		"opened says delivered":      {say(mail.EventOpened, 4), "delivered: delivered"},
		"bounced":                    {say(mail.EventBounced, 5, mail.InvalidAddress), "bounced: bounced"},
		"rejected for its content":   {say(mail.EventRejected, 5, mail.Content), "failed: failed"},
		"rejected by a list":         {say(mail.EventRejected, 5, mail.SuppressedBounce), "suppressed: suppressed"},
		"complained":                 {say(mail.EventComplained, 6), "complained: complained"},
		"bounce after delivery":      {append(say(mail.EventDelivered, 9), say(mail.EventBounced, 5, mail.MailboxFull)...), "bounced: bounced"},
		"late deferral":              {append(say(mail.EventDelivered, 3), say(mail.EventDeferred, 9)...), "delivered: delivered"},
		"open after a bounce":        {append(say(mail.EventBounced, 3, mail.MailboxFull), say(mail.EventOpened, 9)...), "bounced: bounced"},
		"unsubscribed changes none":  {say(mail.EventUnsubscribed, 3), "sent: sent"},
		"unmapped changes none":      {say(mail.EventUnmapped, 3), "sent: sent"},
		"complaint beats all before": {append(say(mail.EventComplained, 3), say(mail.EventBounced, 9, mail.InvalidAddress)...), "complained: complained"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := b.fly(t, submission("kim@example.org"))
			b.record(t, f.owner, sent(f.due))
			for _, e := range tc.events {
				b.receive(t, hook(f.account, e(f.id)))
			}
			if got := b.status(t, f.id); got != tc.want {
				t.Errorf("status = %s, want %s", got, tc.want)
			}
		})
		b.exec(t, `DELETE FROM suppression`)
	}
}

func say(what mail.EventType, sec int, reason ...mail.Reason) []func(mail.ID) mail.Event {
	return []func(mail.ID) mail.Event{func(id mail.ID) mail.Event { return told(id, what, "kim@example.org", sec, reason...) }}
}

func TestEachEventIsTakenOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	b.record(t, f.owner, sent(f.due))
	e := told(f.id, mail.EventDelivered, "Ann@Example.org", 3)
	if diff := cmp.Diff(record.Taken{Stored: 1, Duplicates: 1}, b.receive(t, hook(f.account, e, e))); diff != "" {
		t.Errorf("twice in one request (-want +got):\n%s", diff)
	}
	renamed := e
	renamed.UniqueID = "another id for the same"
	for range 3 {
		for _, again := range []mail.Event{e, renamed} {
			if diff := cmp.Diff(record.Taken{Duplicates: 1}, b.receive(t, hook(f.account, again))); diff != "" {
				t.Errorf("again (-want +got):\n%s", diff)
			}
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM event WHERE source = 'webhook'`); n != 1 {
		t.Errorf("%d events are kept, want 1", n)
	}
	if got := get[string](t, b, `SELECT convert_from(raw, 'UTF8') FROM event WHERE source = 'webhook'`); got != "raw of delivered" {
		t.Errorf("payload = %q", got)
	}
}

func TestEventOfAnotherAccountIsIgnored(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	b.record(t, f.owner, sent(f.due))
	before := b.rows(t, f.id)
	other := b.account(t, "other")
	if diff := cmp.Diff(record.Taken{Foreign: 1}, b.receive(t, hook(other, told(f.id, mail.EventComplained, "ann@example.org", 3)))); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, b.rows(t, f.id)); diff != "" {
		t.Errorf("the message changed:\n%s", diff)
	}
	if n := get[int](t, b, `SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM suppression)`); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

func TestTokenComesWithOneBodyOnly(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	in := hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 3))
	in.Once = &mail.Once{Token: mail.NewID(), Body: [32]byte{1}}
	b.receive(t, in)
	b.receive(t, in) // as it was
	forged := hook(f.account, told(f.id, mail.EventComplained, "ann@example.org", 4))
	forged.Once = &mail.Once{Token: in.Once.Token, Body: [32]byte{2}}
	if _, err := b.db.ReceiveEvents(t.Context(), forged); !errors.Is(err, record.ErrReplayed) {
		t.Errorf("error = %v, want ErrReplayed", err)
	}
	if got := b.status(t, f.id); got != "delivered: delivered" {
		t.Errorf("status = %s", got)
	}
}

// Whatever comes first, the call's own outcome or an event that proves it, the message ends the same.
func TestEventProvesACallWithoutAnswer(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	uncertain := func(t *testing.T, f flight) {
		t.Helper()
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown", "unknown"),
			Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile},
		})
	}
	rescue := func(t *testing.T, f flight) {
		t.Helper()
		b.expire(t, f.owner)
		_, _, err := b.db.Rescue(t.Context(), map[mail.Policy]time.Duration{mail.Reconcile: time.Hour})
		must(t, err)
	}
	event := func(t *testing.T, f flight) {
		t.Helper()
		b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 3)))
	}
	cases := map[string][]func(*testing.T, flight){
		"answer lost, then event":  {uncertain, event},
		"event, then answer lost":  {event, uncertain},
		"replica died, then event": {rescue, event},
		"event, then replica died": {event, rescue},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			f := b.fly(t, submission("ann@example.org", "bob@example.org"))
			for _, step := range steps {
				step(t, f)
			}
			got := []string{b.place(t, f.id), b.status(t, f.id), b.attempts(t, f.id)}
			want := []string{"settled", "sent: delivered sent", "accepted/webhook"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A decision without evidence gives way to evidence: what was given up was sent, and what waits to be sent again is called
// back.
func TestEvidenceAfterTheDeadline(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for policy, want := range map[mail.Policy][]string{
		mail.Never:  {"settled", "delivered: delivered", "accepted/webhook"},
		mail.Resend: {"settled", "delivered: delivered", "accepted/webhook"},
	} {
		f := b.fly(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = policy }))
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{Policy: policy},
		})
		_, _, err := b.db.DecideUnknown(t.Context(), false, 2)
		must(t, err)
		if got := b.place(t, f.id); policy == mail.Resend && got != "ready" {
			t.Fatalf("%s: the message is %s after its deadline", policy, got)
		}
		b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 3)))
		got := []string{b.place(t, f.id), b.status(t, f.id), b.attempts(t, f.id)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", policy, diff)
		}
	}
}

func TestEventsSuppressByRule(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db.softLimit = 2
	steps := []struct {
		what   mail.EventType
		reason []mail.Reason
		want   string // suppressions after it; each step starts with what the one before left of counts, and without any
	}{
		{mail.EventBounced, []mail.Reason{mail.BlockedPolicy}, ""},
		{mail.EventRejected, []mail.Reason{mail.SuppressedBounce}, ""},
		{mail.EventBounced, []mail.Reason{mail.Content}, ""},
		{mail.EventBounced, []mail.Reason{mail.MailboxFull}, ""},
		{mail.EventDelivered, nil, ""}, // not in a row
		{mail.EventBounced, []mail.Reason{mail.MailboxFull}, ""},
		{mail.EventBounced, []mail.Reason{mail.Connection}, "ann@example.org//soft_bounce//30d"},
		{mail.EventBounced, []mail.Reason{mail.InvalidAddress}, "ann@example.org//hard_bounce/relay"},
		{mail.EventComplained, nil, "ann@example.org//complaint/relay"},
		{mail.EventUnsubscribed, nil, "ann@example.org/bulk/unsubscribe/relay"},
	}
	for i, s := range steps {
		f := b.fly(t, with(func(s *record.Submission) { s.Message.Stream = "bulk" }))
		b.record(t, f.owner, sent(f.due))
		b.receive(t, hook(f.account, told(f.id, s.what, "ann@example.org", i, s.reason...)))
		got := get[string](t, b, `SELECT coalesce(string_agg(email || '/' || stream || '/' || reason || '/' || account ||
			CASE WHEN expires_at > now() + interval '29 days' THEN '/30d' ELSE '' END, ' ' ORDER BY email), '') FROM suppression`)
		if got != s.want {
			t.Errorf("after step %d (%s %v) suppressed are %q, want %q", i, s.what, s.reason, got, s.want)
		}
		b.exec(t, `DELETE FROM suppression`)
	}
}

func TestUnsubscribeStopsTheStreamAndExpiryEndsIt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	bulk := func() *record.Submission { return with(func(s *record.Submission) { s.Message.Stream = "bulk" }) }
	f := b.fly(t, bulk())
	b.record(t, f.owner, sent(f.due))
	b.receive(t, hook(f.account, told(f.id, mail.EventUnsubscribed, "ann@example.org", 3)))
	status := func(s *record.Submission) mail.Status {
		a, err := b.db.Accept(t.Context(), s)
		must(t, err)
		return a.Status
	}
	if got := status(bulk()); got != mail.Suppressed {
		t.Errorf("the stream's next mail is %s, want suppressed", got)
	}
	if got := status(submission()); got != mail.Queued {
		t.Errorf("mail of another stream is %s, want queued", got)
	}
	b.exec(t, `UPDATE suppression SET expires_at = now()`)
	if got := status(bulk()); got != mail.Queued {
		t.Errorf("after its expiry the stream's mail is %s, want queued", got)
	}
}

// A suppression that comes between acceptance and claim holds.
func TestSuppressionBindsAtTheClaim(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.accept(t, with(func(s *record.Submission) { s.Message.Stream = "bulk" }))[0]
	for stream, want := range map[string]mail.Status{"other": mail.Queued, "bulk": mail.Suppressed} {
		b.exec(t, `INSERT INTO suppression (tenant_id, email, stream, reason, origin) VALUES (1, 'ann@example.org', $1, 'unsubscribe', 'api')`, stream)
		loaded, err := b.db.Load(t.Context(), []mail.ID{id})
		must(t, err)
		if got := loaded[id].Recipients[0].Status; got != want {
			t.Errorf("suppressed for %s: the recipient is %s, want %s", stream, got, want)
		}
		b.exec(t, `DELETE FROM suppression`)
	}
}

func TestOrphansFindTheirMessageLater(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	early := told(mail.ID{}, mail.EventBounced, "ann@example.org", 3, mail.InvalidAddress)
	early.ProviderMessageID = "their-id"
	lost := told(mail.NewID(), mail.EventDelivered, "ann@example.org", 3)
	if diff := cmp.Diff(record.Taken{Orphans: 2}, b.receive(t, hook(f.account, early, lost))); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	r := sent(f.due)
	r.ProviderMessageID = "their-id"
	b.record(t, f.owner, r)
	b.exec(t, `UPDATE orphan SET retry_at = now()`)
	n, err := b.db.MatchOrphans(t.Context(), 100)
	if n != 1 || err != nil {
		t.Errorf("matched %d, %v; want 1", n, err)
	}
	if got := b.status(t, f.id); got != "bounced: bounced" {
		t.Errorf("status = %s, want bounced", got)
	}
	b.exec(t, `UPDATE orphan SET expires_at = now(), retry_at = now()`)
	if _, err := b.db.MatchOrphans(t.Context(), 100); err != nil {
		t.Error(err)
	}
	if n := get[int](t, b, `SELECT count(*) FROM orphan`); n != 0 {
		t.Errorf("%d orphans are left after a day", n)
	}
	v, err := b.db.Message(t.Context(), mail.DefaultTenant, f.id)
	must(t, err)
	if len(v.Events) != 1 || v.Recipients[0].Bounce == nil || v.Recipients[0].Bounce.Class != mail.Hard {
		t.Errorf("the message shows %+v and %+v", v.Events, v.Recipients)
	}
}

func TestOwnEndsAreReported(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission("ann@example.org", "bob@example.org", "cy@example.org"))
	b.record(t, f.owner, queue.Result{
		ID: f.id, N: 1, Class: "accepted", Announce: true, ProviderMessageID: "p1", CalledAt: fact0,
		Recipients: []queue.RecipientChange{{N: 0, Status: mail.Sent}, {N: 1, Status: mail.Failed, Detail: "no"}, {N: 2, Status: mail.Suppressed, Detail: "listed"}},
	})
	expired := b.accept(t, submission())[0]
	must(t, b.db.End(t.Context(), []queue.Ending{{ID: expired, Status: mail.Expired, Detail: "too late"}}))
	var got []string
	for _, id := range []mail.ID{f.id, expired} {
		v, err := b.db.Message(t.Context(), mail.DefaultTenant, id)
		must(t, err)
		for _, e := range v.Events {
			if id == f.id && !e.At.Equal(fact0) {
				t.Errorf("%s is dated %s, want the beginning of its call", e.Type, e.At)
			}
			line := fmt.Sprintf("%s %s %s by %s of %q", e.Recipient, e.Type, e.Name, e.Source, e.Account)
			if e.Bounce != nil {
				line += fmt.Sprintf(": %s, %s", e.Bounce.Reason, e.Bounce.Text)
			}
			got = append(got, line)
		}
	}
	want := `ann@example.org accepted sent by response of "relay"
bob@example.org rejected failed by response of "relay": other, no
cy@example.org rejected suppressed by response of "relay": suppressed_bounce, listed
ann@example.org rejected expired by response of "": other, too late`
	if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestRefusalOfAnAddressSuppressesIt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission("ann@example.org", "Bob@example.org"))
	refused := func(n int, r mail.Reason) queue.RecipientChange {
		return queue.RecipientChange{N: n, Status: mail.Failed, Detail: "no", Bounce: &mail.Bounce{Class: r.Class(), Reason: r, Text: "550 no"}}
	}
	b.record(t, f.owner, queue.Result{
		ID: f.id, N: 1, Class: "bad_recipient",
		Recipients: []queue.RecipientChange{refused(0, mail.BlockedPolicy), refused(1, mail.InvalidAddress)},
	})
	want := []string{"bob@example.org//hard_bounce/response/relay/550 no"}
	got := list[string](t, b, `SELECT email || '/' || stream || '/' || reason || '/' || origin || '/' || account || '/' || detail FROM suppression`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("suppressed (-want +got):\n%s", diff)
	}
}

func TestWhatAProviderRejectedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	b.record(t, f.owner, sent(f.due))
	b.receive(t, hook(f.account, told(f.id, mail.EventRejected, "ann@example.org", 3, mail.Content)))
	if err := b.db.Resend(t.Context(), mail.DefaultTenant, f.id, false); !errors.Is(err, record.ErrConflict) {
		t.Errorf("Resend = %v, want ErrConflict", err)
	}
	if got := b.status(t, f.id); got != "failed: failed" {
		t.Errorf("status = %s", got)
	}
}
