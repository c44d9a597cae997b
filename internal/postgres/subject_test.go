package postgres

import (
	"encoding/json"
	"errors"
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

const canary = "Canary.Person@Example.org"

// traces lists the columns of all tables that contain the address, in whatever letter case, or the name. Bytes are read as text.
func (b *bed) traces(t *testing.T) (found []string) {
	t.Helper()
	columns := list[string](t, b, `SELECT format('%I %I %s', c.relname, a.attname, format_type(a.atttypid, NULL)) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1`)
	if len(columns) < 100 {
		t.Fatalf("only %d columns", len(columns))
	}
	for _, c := range columns {
		table, rest, _ := strings.Cut(c, " ")
		column, kind, _ := strings.Cut(rest, " ")
		text := column + "::text"
		if kind == "bytea" {
			text = "encode(" + column + ", 'escape')"
		}
		n := get[int](t, b, `SELECT count(*) FROM `+table+` WHERE `+text+` ILIKE '%canary.person%' OR `+text+` ILIKE '%canary person%'`)
		if n > 0 {
			found = append(found, fmt.Sprintf("%s.%s %d", table, column, n))
		}
	}
	return found
}

// eraseAll does all steps after the first.
func (b *bed) eraseAll(t *testing.T, q record.SubjectQuery) (sum record.Erased) {
	t.Helper()
	for {
		e, next, err := b.db.EraseSubject(t.Context(), "key-1", q)
		must(t, err)
		sum.Messages, sum.Events, sum.Open = sum.Messages+e.Messages, sum.Events+e.Events, sum.Open+e.Open
		if q.Cursor = next; next == "" {
			return sum
		}
	}
}

// sent settles a message by an accepted call whose answer repeats the address.
func (b *bed) sent(t *testing.T, s *record.Submission) mail.ID {
	t.Helper()
	f := b.fly(t, s)
	r := queue.Result{ID: f.id, N: 1, Class: "accepted", ProviderMessageID: "theirs"}
	for _, x := range s.Message.Recipients() {
		r.Recipients = append(r.Recipients, queue.RecipientChange{N: x.N, Status: mail.Sent})
	}
	b.record(t, f.owner, r)
	if b.place(t, f.id) != "settled" {
		t.Fatalf("%s is %s", f.id, b.place(t, f.id))
	}
	return f.id
}

// letters stores one message to the canary alone and one to others as well, each with all that can name it.
func (b *bed) letters(t *testing.T) (alone, shared mail.ID) {
	t.Helper()
	fill := func(s *record.Submission) {
		m := s.Message
		m.Subject, m.Text, m.HTML = "For Canary.Person@example.org", "Dear CANARY.PERSON@EXAMPLE.ORG", `<a href="https://x.example/?u=canary.person%40example.org">stop</a>`
		m.Tags, m.Metadata = []string{"to:canary.person@example.org"}, map[string]string{"who": canary, canary: "key"}
		m.Headers = []mail.Header{{Name: "X-For", Value: canary}}
		m.Attachments = []mail.Attachment{{Filename: "canary.person@example.org.txt", ContentType: "text/plain", Content: []byte("of canary.person@example.org")}}
		s.Key = "welcome/" + canary
	}
	alone = b.sent(t, with(func(s *record.Submission) {
		fill(s)
		s.Message.To = []mail.Address{{Email: canary, Name: "Canary Person"}}
	}))
	shared = b.sent(t, with(func(s *record.Submission) {
		fill(s)
		s.Key += "/2"
		s.Message.To, s.Message.Cc = []mail.Address{{Email: "bob@example.org", Name: "Bob"}}, []mail.Address{{Email: canary, Name: "Canary Person"}}
	}))
	for _, id := range []mail.ID{alone, shared} {
		b.exec(t, `UPDATE attempt SET error = 'refused <Canary.Person@example.org>', decision = '{"candidates": [{"reason": "refused <Canary.Person@example.org>"}]}' WHERE message_id = $1`, [16]byte(id))
		b.exec(t, `UPDATE recipient SET detail = '550 canary.person@example.org', bounce = '{"class": "hard", "text": "no CANARY.PERSON@example.org"}' WHERE message_id = $1`, [16]byte(id))
	}
	const raw = `{"rcpt": "Canary.Person@Example.ORG", "name": "Canary Person"}`
	event := func(message *[16]byte, n *int16, tenant int, recipient, raw string) {
		b.exec(t, `INSERT INTO event (id, origin, tenant_id, message_id, n, type, recipient, at, source, url, key, raw, bounce)
			SELECT i, i, $1, $2, $3, 'delivered', $4, now(), 'webhook', 'https://x.example/?u=canary.person@example.org', gen_random_uuid(), $5, '{"text": "canary.person@example.org"}' FROM new_event_id() i`,
			tenant, message, n, recipient, []byte(raw))
	}
	first, second := int16(0), int16(1)
	a, s := [16]byte(alone), [16]byte(shared)
	event(&a, &first, 1, "canary.person@example.org", raw)
	event(&s, &second, 1, "canary.person@example.org", raw)
	event(&s, &first, 1, "bob@example.org", raw)
	event(nil, nil, 0, "canary.person@example.org", raw)
	event(nil, nil, 0, "", raw)
	event(nil, nil, 1, "other@example.org", raw)
	// One payload reports of two messages, and the event of the other keeps it.
	b.exec(t, `WITH o AS (INSERT INTO event (id, origin, tenant_id, message_id, n, type, recipient, at, source, key, raw)
			SELECT i, i, 1, new_event_id(), 0, 'delivered', 'bob@example.org', now(), 'webhook', gen_random_uuid(), $2 FROM new_event_id() i RETURNING id)
		INSERT INTO event (id, origin, part, tenant_id, message_id, n, type, recipient, at, source, key)
		SELECT new_event_id(), id, 1, 1, $1, 0, 'delivered', 'canary.person@example.org', now(), 'webhook', gen_random_uuid() FROM o`, a, []byte(raw))
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: canary, Stream: "bulk", Reason: "complaint", Origin: "api", Detail: canary}))
	b.exec(t, `INSERT INTO soft_bounce (tenant_id, email, n) VALUES (1, 'canary.person@example.org', 2)`)
	return alone, shared
}

// After an erasure no table has the address in any letter case, or the name: not in bodies, payloads, links, keys or reasons either.
func TestAnErasureLeavesNoTrace(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	alone, shared := b.letters(t)
	before := b.traces(t)
	for _, table := range []string{"message", "body", "recipient", "attempt", "event", "suppression", "soft_bounce", "idempotency"} {
		if !slices.ContainsFunc(before, func(s string) bool { return strings.HasPrefix(s, table+".") }) {
			t.Errorf("no row of %s has the address: the test tests less than it says (%q)", table, before)
		}
	}
	q := record.SubjectQuery{Address: "canary.person@example.org"}
	c, err := b.db.CountSubject(t.Context(), q)
	must(t, err)
	if diff := cmp.Diff(record.SubjectCount{Messages: 2, Suppressions: 1, Events: 1, Accounts: []record.SubjectAccount{{Name: "relay", Kind: "smtp", Messages: 2}}}, c); diff != "" {
		t.Errorf("count (-want +got):\n%s", diff)
	}
	if n, err := b.db.BeginErasure(t.Context(), "key-1", q, false); n != 0 || err != nil {
		t.Fatalf("begin: %d, %v", n, err)
	}
	if diff := cmp.Diff(record.Erased{Messages: 2, Events: 3}, b.eraseAll(t, q)); diff != "" {
		t.Errorf("erased (-want +got):\n%s", diff)
	}
	if left := b.traces(t); len(left) > 0 {
		t.Errorf("traces are left: %q", left)
	}
	if n := get[int](t, b, `SELECT count(*) FROM body WHERE id = $1`, [16]byte(alone)); n != 0 {
		t.Error("the body of the mail to nobody else is left")
	}
	v := b.view(t, shared)
	if got := fmt.Sprint(v.Message.To, v.Message.Cc, v.Message.Text, string(v.Message.Attachments[0].Content)); !strings.Contains(got, "Bob") || !strings.Contains(got, "Dear "+erasedAddress) || !strings.Contains(got, "of "+erasedAddress) {
		t.Errorf("the mail to others is %s", got)
	}
	if got := list[string](t, b, `SELECT email || ' ' || status FROM recipient WHERE message_id = $1 ORDER BY n`, [16]byte(shared)); !slices.Equal(got, []string{"bob@example.org sent", erasedAddress + " sent"}) {
		t.Errorf("recipients = %q", got)
	}
	if n := get[int](t, b, `SELECT count(*) FROM event WHERE recipient = 'bob@example.org'`); n != 2 {
		t.Error("an event of another recipient is gone")
	}
	if diff := cmp.Diff(record.Erased{}, b.eraseAll(t, q)); diff != "" {
		t.Errorf("erased again (-want +got):\n%s", diff)
	}
	audit := list[string](t, b, `SELECT concat_ws(' ', actor, action, target) FROM audit WHERE action LIKE 'subject.%' ORDER BY id`)
	if diff := cmp.Diff([]string{"key-1 subject.erase c***@example.org", "key-1 subject.erased c***@example.org", "key-1 subject.erased c***@example.org"}, audit); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	if faults, _ := b.verify(t, ""); len(faults) > 0 {
		t.Errorf("faults of the audit = %q", faults)
	}
}

// Who was erased gets no mail, however the address is spelled and whichever replica takes the message, until it is allowed again.
func TestWhoWasErasedGetsNoMail(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	other := b.open(t, Options{AcceptWait: patient})
	must(t, b.db.Suppress(ctx, record.Suppression{Tenant: 1, Email: canary, Reason: "complaint", Origin: "webhook"}))
	must(t, second(b.db.BeginErasure(ctx, "key-1", record.SubjectQuery{Address: canary}, false)))
	b.eraseAll(t, record.SubjectQuery{Address: canary})
	must(t, second(other.Config(ctx)))
	for _, db := range []*DB{b.db, other} {
		a, err := db.Accept(ctx, submission("CANARY.person@example.org", "bob@example.org"))
		must(t, err)
		if a.Recipients[0].Status != mail.Suppressed || a.Recipients[1].Status != mail.Queued {
			t.Errorf("accepted as %+v", a.Recipients)
		}
	}
	find := func() (got []string) {
		found, err := other.FindSuppressions(ctx, record.Suppression{Tenant: 1, Email: canary}, record.Suppression{}, 10)
		must(t, err)
		for _, s := range found {
			got = append(got, s.Email+" "+s.Reason)
		}
		return got
	}
	if got := find(); !slices.Equal(got, []string{"canary.person@example.org erased"}) {
		t.Errorf("found by address: %q", got)
	}
	if err := other.Unsuppress(ctx, "key-1", 1, canary, false); !errors.Is(err, record.ErrForbidden) {
		t.Errorf("lifted without the right to lift complaints: %v", err)
	}
	must(t, other.Unsuppress(ctx, "key-1", 1, canary, true))
	if got := find(); len(got) > 0 {
		t.Errorf("found after it was lifted: %q", got)
	}
	a, err := b.db.Accept(ctx, submission(canary))
	must(t, err)
	if a.Recipients[0].Status != mail.Queued {
		t.Errorf("accepted as %+v after it was lifted", a.Recipients)
	}
}

// Nothing that waits is broken: it refuses the erasure, or is cancelled, or goes to its other recipients.
func TestMessagesThatWaitRefuseAnErasure(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	from := with(func(s *record.Submission) {
		s.Message.From, s.Message.SendAt = mail.Address{Email: canary}, time.Now().Add(time.Hour)
	})
	ids := b.accept(t, submission(canary), submission("bob@example.org", canary), from)
	q := record.SubjectQuery{Address: canary}
	if _, err := b.db.BeginErasure(ctx, "key-1", q, false); !errors.Is(err, record.ErrConflict) {
		t.Fatalf("begin: %v, want a conflict", err)
	}
	if n := get[int](t, b, `SELECT (SELECT count(*) FROM erased) + (SELECT count(*) FROM audit)`); n != 0 {
		t.Errorf("a refused erasure left %d rows", n)
	}
	if n, err := b.db.BeginErasure(ctx, "key-1", q, true); n != 2 || err != nil {
		t.Fatalf("begin: %d, %v; want both messages to the address", n, err)
	}
	if got := b.status(t, ids[0]) + ", " + b.status(t, ids[1]) + " " + b.place(t, ids[1]) + ", " + b.status(t, ids[2]); got != "cancelled: cancelled, queued: queued queued ready, queued: queued" {
		t.Errorf("messages are %s", got)
	}
	if diff := cmp.Diff(record.Erased{Messages: 1, Open: 2}, b.eraseAll(t, q)); diff != "" {
		t.Errorf("erased (-want +got):\n%s", diff)
	}
	owner, account := b.replica(t), b.relay(t)
	due := b.claim(t, owner, account, 5)
	loaded, err := b.db.Load(ctx, []mail.ID{due[0].ID})
	must(t, err)
	open := 0
	for _, r := range loaded[due[0].ID].Recipients {
		if r.Status == mail.Queued {
			open++
		}
	}
	if len(due) != 1 || open != 1 {
		t.Errorf("claimed %d messages, to %d recipients; want one to Bob", len(due), open)
	}
}

// A message that is open when its recipient is erased may be called again: its outcome is unknown, or its call is under way. The person
// stays suppressed until it is not open any more, and a complaint is not undone.
func TestAnOpenMessageDoesNotReachWhoIsErased(t *testing.T) {
	t.Parallel()
	q := record.SubjectQuery{Address: "ann@example.org"}
	for name, end := range map[string]queue.Result{
		"unknown":   {Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: mail.Resend}},
		"transient": {Class: "transient", Requeue: &queue.Requeue{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			s := submission("ann@example.org")
			s.Message.OnAmbiguous = mail.Resend
			f := b.fly(t, s)
			end.ID, end.N = f.id, 1
			must(t, second(b.db.BeginErasure(t.Context(), "key-1", q, true)))
			if e := b.eraseAll(t, q); e.Open != 1 {
				t.Errorf("erased %+v, want one message open", e)
			}
			b.record(t, f.owner, end)
			b.exec(t, `UPDATE unknown SET decide_at = now()`)
			_, _, err := b.db.DecideUnknown(t.Context(), true, 2)
			must(t, err)
			owner := b.replica(t)
			due := b.claim(t, owner, f.account, 1)
			if len(due) != 1 {
				t.Fatalf("the message is %s, want it ready", b.outcome(t, f.id))
			}
			a, err := b.db.Intend(t.Context(), owner, open(due[0], f.account, s))
			if a.OK || len(a.Suppressed) != 1 || err != nil {
				t.Errorf("a call may be made: %+v, %v", a, err)
			}
		})
	}
}

// Bodies and queue are looked at behind the lock, not by a statement that began before it was got.
func TestResendBehindAnErasureFindsNoBody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.accept(t, submission("ann@example.org"))[0]
	must(t, b.db.Cancel(t.Context(), mail.DefaultTenant, id))
	tx := b.begin(t)
	var e record.Erased
	must(t, eraseMessage(t.Context(), tx, [16]byte(id), "ann@example.org", &e))
	done := make(chan error, 1)
	go func() { done <- b.db.Resend(t.Context(), mail.DefaultTenant, id, false) }()
	until(t, "it waits", func() bool {
		return get[int](t, b, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) > 0
	})
	must(t, tx.Commit(t.Context()))
	if err := <-done; !errors.Is(err, record.ErrConflict) || b.place(t, id) != "settled" {
		t.Errorf("resend = %v, the message is %s; want a conflict", err, b.place(t, id))
	}
}

// A provider reports for days what became of a mail. Its payload does not bring the address back.
func TestLateEventsDoNotBringAnAddressBack(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	alone, _ := b.letters(t)
	q := record.SubjectQuery{Address: canary}
	must(t, second(b.db.BeginErasure(t.Context(), "key-1", q, false)))
	b.eraseAll(t, q)
	e := mail.Event{
		Type: mail.EventComplained, Recipient: canary, MessageID: alone, At: time.Now().UTC(), URL: "https://x.example/canary.person@example.org",
		Bounce: &mail.Bounce{Class: mail.Hard, Text: canary},
	}
	other := e
	other.Recipient, other.URL, other.Bounce = "bob@example.org", "", nil
	b.receive(t, record.Intake{Account: b.relay(t), Source: mail.FromWebhook, Payloads: []mail.Payload{{Raw: []byte(`{"to": "` + canary + `"}`), Events: []mail.Event{other, e}}}})
	if got := list[string](t, b, `SELECT recipient FROM event WHERE type = '' ORDER BY part`); !slices.Equal(got, []string{"bob@example.org", erasedAddress}) {
		t.Errorf("events are stored of %q", got)
	}
	if left := b.traces(t); len(left) > 0 {
		t.Errorf("traces are back: %q", left)
	}
}

// An export has all that is stored about a person, and nothing about the others.
func TestAnExportHasAllAboutOnePerson(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	alone, shared := b.letters(t)
	b.exec(t, `INSERT INTO delivery (id, endpoint_id, event_id, n, at, took_ms, outcome) SELECT new_event_id(), gen_random_uuid(), id, 1, now(), 5, 'delivered' FROM event WHERE message_id = $1`, [16]byte(alone))
	kinds := map[string]int{}
	var text strings.Builder
	for q := (record.SubjectQuery{Address: "CANARY.person@example.org"}); ; {
		rows, next, err := b.db.ExportSubject(t.Context(), "key-1", q)
		must(t, err)
		for _, r := range rows {
			kinds[r.Kind]++
			if !json.Valid(r.Row) {
				t.Errorf("not JSON: %s", r.Row)
			}
			text.Write(r.Row)
		}
		if q.Cursor = next; next == "" {
			break
		}
	}
	want := map[string]int{"message": 2, "body": 2, "recipient": 2, "attempt": 2, "event": 4, "webhook_delivery": 2, "suppression": 1, "soft_bounces": 1}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if strings.Contains(text.String(), "bob@") || !strings.Contains(text.String(), shared.String()) || !strings.Contains(text.String(), "Dear CANARY") {
		t.Errorf("the export is %s", text.String())
	}
	if got := b.lastAudit(t); got != `key-1 subject.export c***@example.org {"tenant": ""}` {
		t.Errorf("audit says %s", got)
	}
	if _, _, err := b.db.ExportSubject(t.Context(), "key-1", record.SubjectQuery{Address: canary, Tenant: "nobody"}); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("of an unknown tenant: %v", err)
	}
}

// A page of an export ends after a few large bodies, and no message is left out.
func TestAnExportIsPagedByBytes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for range 3 {
		b.accept(t, with(func(s *record.Submission) {
			s.Message.To, s.Message.Text = []mail.Address{{Email: canary}}, strings.Repeat("x", subjectBytes*2/3)
		}))
	}
	var bodies []int
	for q := (record.SubjectQuery{Address: canary}); ; {
		rows, next, err := b.db.ExportSubject(t.Context(), "key-1", q)
		must(t, err)
		n := 0
		for _, r := range rows {
			if r.Kind == "body" {
				n++
			}
		}
		bodies = append(bodies, n)
		if q.Cursor = next; next == "" {
			break
		}
	}
	if !slices.Equal(bodies, []int{1, 1, 1, 0}) {
		t.Errorf("bodies by page = %v, want one on each of three, and none on the last", bodies)
	}
}

// A message that failed can be sent again after an erasure, and does not go to who was erased.
func TestResendAfterAnErasureLeavesThePersonOut(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	f := b.fly(t, submission("bob@example.org", canary))
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "rejected", Recipients: changes("failed", "failed")})
	q := record.SubjectQuery{Address: canary}
	must(t, second(b.db.BeginErasure(ctx, "key-1", q, false)))
	b.eraseAll(t, q)
	must(t, b.db.Resend(ctx, mail.DefaultTenant, f.id, false))
	b.claim(t, f.owner, f.account, 1)
	loaded, err := b.db.Load(ctx, []mail.ID{f.id})
	must(t, err)
	var got []string
	for _, r := range loaded[f.id].Recipients {
		got = append(got, r.Address.Email+" "+string(r.Status))
	}
	if want := []string{"bob@example.org queued", erasedAddress + " suppressed"}; !slices.Equal(got, want) {
		t.Errorf("recipients = %q, want %q", got, want)
	}
}
