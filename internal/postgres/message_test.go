package postgres

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// view reads one message as the API does.
func (b *bed) view(t *testing.T, id mail.ID) *record.View {
	t.Helper()
	v, err := b.db.Message(t.Context(), mail.DefaultTenant, id)
	must(t, err)
	return v
}

func TestMessageShowsWhatItIsDoing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	queued := b.acceptN(t, 1)[0]
	scheduled := b.accept(t, with(func(s *record.Submission) {
		s.Message.SendAt = time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	}))[0]
	b.exec(t, `UPDATE ready SET lane = 5 WHERE id = $1`, [16]byte(queued))
	f := b.fly(t, submission())
	list, err := b.db.Messages(t.Context(), record.Filter{Tenant: 1, Limit: 10})
	must(t, err)
	listed := map[mail.ID]mail.Status{}
	for _, v := range list {
		listed[v.Message.ID] = v.Status
	}
	for id, want := range map[mail.ID]mail.Status{queued: mail.Queued, scheduled: mail.Scheduled, f.id: mail.Sending} {
		if got := b.view(t, id).Status; got != want {
			t.Errorf("message is %s, want %s", got, want)
		}
		if listed[id] != want {
			t.Errorf("listed message is %s, want %s", listed[id], want)
		}
		found, err := b.db.Messages(t.Context(), record.Filter{Tenant: 1, Status: want, Limit: 10})
		if must(t, err); len(found) != 1 || found[0].Message.ID != id {
			t.Errorf("filter %s finds %d messages", want, len(found))
		}
	}
	b.exec(t, `UPDATE message SET send_at = now() - interval '1 s' WHERE id = $1`, [16]byte(scheduled))
	if got := b.view(t, scheduled).Status; got != mail.Queued {
		t.Errorf("a message whose time has come is %s, want queued", got)
	}
}

func TestMessageShowsItsAttempts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	got := b.view(t, f.id).Attempts
	if len(got) != 1 || got[0].Class != "" || !got[0].FinishedAt.IsZero() || got[0].StartedAt.IsZero() {
		t.Errorf("attempt of an open call = %+v", got)
	}
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "transient", Status: 503, Code: "busy", Error: "later", ProviderMessageID: "pm", Requeue: &queue.Requeue{}})
	got = b.view(t, f.id).Attempts
	want := []record.Attempt{{
		N: 1, Account: "relay", Provider: "smtp", Decision: []byte(`{"chosen": "relay", "candidates": []}`), Class: "transient",
		Status: 503, Code: "busy", Error: "later", ProviderMessageID: "pm", VerdictSource: "response",
		StartedAt: got[0].StartedAt, FinishedAt: got[0].FinishedAt,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	if got[0].FinishedAt.Before(got[0].StartedAt) {
		t.Errorf("the call ended at %s, before its start at %s", got[0].FinishedAt, got[0].StartedAt)
	}
}

func TestMessageBelongsToItsTenant(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.acceptN(t, 1)[0]
	other, err := b.db.CreateTenant(t.Context(), "tester", record.Tenant{Name: "other", Weight: 100})
	must(t, err)
	before := b.rows(t, id)
	_, err = b.db.Message(t.Context(), other.ID, id)
	for what, err := range map[string]error{
		"Message": err, "Cancel": b.db.Cancel(t.Context(), other.ID, id), "Resend": b.db.Resend(t.Context(), other.ID, id, false),
		"Message of no one": func() error { _, err := b.db.Message(t.Context(), 1, mail.NewID()); return err }(),
		"Cancel of no one":  b.db.Cancel(t.Context(), 1, mail.NewID()),
		"Resend of no one":  b.db.Resend(t.Context(), 1, mail.NewID(), false),
	} {
		if !errors.Is(err, record.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
	if list, err := b.db.Messages(t.Context(), record.Filter{Tenant: other.ID, To: "ann@example.org", Limit: 10}); len(list) != 0 || err != nil {
		t.Errorf("another tenant lists %d messages, %v", len(list), err)
	}
	if diff := cmp.Diff(before, b.rows(t, id)); diff != "" {
		t.Errorf("another tenant changed the message:\n%s", diff)
	}
}

func TestMessageOutlivesItsBody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := with(func(s *record.Submission) { s.Message.Tags, s.Message.Account = []string{"order"}, "relay" })
	id := b.accept(t, s)[0]
	b.exec(t, `DELETE FROM body`)
	m := b.view(t, id).Message
	want := &mail.Message{
		ID: id, Tenant: 1, CreatedAt: s.Message.CreatedAt, From: mail.Address{Email: "shop@example.com"}, Subject: "Your order",
		Tags: []string{"order"}, Stream: "transactional", ExpiresAt: s.Message.ExpiresAt, OnAmbiguous: mail.Reconcile, Account: "relay",
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("message without its body (-want +got):\n%s", diff)
	}
}

func TestMessagesAreFiltered(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission("first@example.org"))
	result := sent(f.due)
	result.ProviderMessageID = "theirs"
	b.record(t, f.owner, result)
	ids := []mail.ID{f.id}
	for _, change := range []func(*record.Submission){
		func(s *record.Submission) { s.Message.From.Email = "news@example.com" },
		func(s *record.Submission) { s.Message.Tags = []string{"a", "b"} },
		func(s *record.Submission) { s.Message.Stream = "bulk" },
		func(s *record.Submission) { s.Message.Bcc = []mail.Address{{Email: "bob@example.net"}} },
	} {
		ids = append(ids, b.accept(t, with(change))...)
	}
	at := func(i int) time.Time { return ids[i].Time() }
	b.exec(t, `UPDATE recipient SET status = 'bounced', detail = 'no such user' WHERE message_id = $1`, [16]byte(ids[4]))
	for _, tc := range []struct {
		name string
		f    record.Filter
		want []int
	}{
		{"none", record.Filter{}, []int{4, 3, 2, 1, 0}},
		{"status", record.Filter{Status: mail.Sent}, []int{0}},
		{"status of none", record.Filter{Status: mail.Complained}, nil},
		{"from", record.Filter{From: "news@example.com"}, []int{1}},
		{"tag", record.Filter{Tag: "b"}, []int{2}},
		{"stream", record.Filter{Stream: "bulk"}, []int{3}},
		{"to", record.Filter{To: "ann@example.org"}, []int{4, 3, 2, 1}},
		{"to a blind copy", record.Filter{To: "bob@example.net"}, []int{4}},
		{"account", record.Filter{Account: "relay"}, []int{0}},
		{"account of none", record.Filter{Account: "ses"}, nil},
		{"id of the provider", record.Filter{ProviderMessageID: "theirs"}, []int{0}},
		{"id of no call", record.Filter{ProviderMessageID: "pm-none"}, nil},
		{"two at once", record.Filter{To: "ann@example.org", Stream: "bulk"}, []int{3}},
		{"limit", record.Filter{Limit: 2}, []int{4, 3}},
		{"cursor", record.Filter{Before: ids[3], Limit: 2}, []int{2, 1}},
		{"quoting", record.Filter{From: "' OR true --"}, nil},
	} {
		tc.f.Tenant = 1
		if tc.f.Limit == 0 {
			tc.f.Limit = 100
		}
		if got := listed(t, b, tc.f, ids); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
	since := listed(t, b, record.Filter{Tenant: 1, Limit: 100, Since: at(2)}, ids)
	before := listed(t, b, record.Filter{Tenant: 1, Limit: 100, Until: at(2)}, ids)
	if len(since)+len(before) != 5 || !slices.Contains(since, 2) || slices.Contains(before, 2) {
		t.Errorf("since %v and until %v do not part the list", since, before)
	}
}

func listed(t *testing.T, b *bed, f record.Filter, ids []mail.ID) []int {
	t.Helper()
	views, err := b.db.Messages(t.Context(), f)
	must(t, err)
	var got []int
	for _, v := range views {
		got = append(got, slices.Index(ids, v.Message.ID))
	}
	return got
}

func TestListedMessageHasItsRecipientsAndNoBody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := submission("ann@example.org", "bob@example.org")
	s.Message.SendAt = s.Message.CreatedAt.Add(time.Hour)
	s.Message.Tags = []string{"x"}
	b.accept(t, s)
	views, err := b.db.Messages(t.Context(), record.Filter{Tenant: 1, Limit: 1})
	must(t, err)
	v := views[0]
	want := &mail.Message{
		ID: s.Message.ID, Tenant: 1, CreatedAt: s.Message.CreatedAt, From: mail.Address{Email: "shop@example.com"}, Subject: "Your order",
		Tags: []string{"x"}, Stream: "transactional", SendAt: s.Message.SendAt, ExpiresAt: s.Message.ExpiresAt, OnAmbiguous: mail.Reconcile,
	}
	if diff := cmp.Diff(want, v.Message); diff != "" {
		t.Errorf("listed message (-want +got):\n%s", diff)
	}
	if len(v.Recipients) != 2 || v.Recipients[0].Address.Email != "ann@example.org" || v.Recipients[1].N != 1 || len(v.Attempts) != 0 {
		t.Errorf("listed with recipients %+v and %d attempts", v.Recipients, len(v.Attempts))
	}
}

func TestCursorWalksAllMessagesOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	want := b.acceptN(t, 23)
	slices.Reverse(want)
	var got []mail.ID
	f := record.Filter{Tenant: 1, Limit: 5}
	for {
		page, err := b.db.Messages(t.Context(), f)
		must(t, err)
		for _, v := range page {
			got = append(got, v.Message.ID)
		}
		if len(page) < f.Limit {
			break
		}
		f.Before = page[len(page)-1].Message.ID
	}
	if !slices.Equal(got, want) {
		t.Errorf("walked %d messages, want %d, newest first", len(got), len(want))
	}
}

func TestCancelEndsWhatNobodyHolds(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.accept(t, submission("ann@example.org", "bob@example.org"))[0]
	b.exec(t, `UPDATE recipient SET status = 'sent' WHERE n = 1`)
	must(t, b.db.Cancel(t.Context(), 1, id))
	if got, want := b.outcome(t, id), (outcome{"settled", "cancelled: cancelled sent", ""}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	inflight := b.fly(t, submission())
	unknown := b.rescued(t)
	settled := b.fly(t, submission())
	b.record(t, settled.owner, sent(settled.due))
	for what, id := range map[string]mail.ID{"cancelled": id, "in flight": inflight.id, "unknown": unknown.id, "sent": settled.id} {
		before := b.rows(t, id)
		if err := b.db.Cancel(t.Context(), 1, id); !errors.Is(err, record.ErrConflict) {
			t.Errorf("cancel of a message that is %s: %v, want ErrConflict", what, err)
		}
		if diff := cmp.Diff(before, b.rows(t, id)); diff != "" {
			t.Errorf("a refused cancel changed a message that is %s:\n%s", what, diff)
		}
	}
}

func TestCancelAndClaimNeverBothWin(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ids := b.acceptN(t, 100)
	account, owner := b.relay(t), b.replica(t)
	cancelled := make(chan int)
	go func() {
		n := 0
		for _, id := range ids {
			err := b.db.Cancel(t.Context(), 1, id)
			if err == nil {
				n++
			} else if !errors.Is(err, record.ErrConflict) {
				t.Errorf("cancel: %v", err)
			}
		}
		cancelled <- n
	}()
	taken := 0
	for n := -1; n < 0; {
		taken += len(b.claim(t, owner, account, 3))
		select {
		case n = <-cancelled:
			taken += len(b.claim(t, owner, account, 100))
			if taken+n != len(ids) {
				t.Errorf("%d claimed and %d cancelled of %d", taken, n, len(ids))
			}
		default:
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM inflight JOIN message USING (id) WHERE status = 'cancelled'`); n != 0 {
		t.Errorf("%d cancelled messages are in flight", n)
	}
}

func TestResendTakesWhatFailed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.flying(t)
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "rejected", Recipients: changes("sent", "failed", "suppressed")})
	b.exec(t, `UPDATE message SET expires_at = now() - interval '1 h'`)
	must(t, b.db.Resend(t.Context(), 1, f.id, false))
	if got, want := b.outcome(t, f.id), (outcome{"ready", "queued: sent queued suppressed", "rejected/response"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := get[string](t, b, `SELECT concat_ws(' ', attempts, r.due <= now(), m.expires_at > now() + interval '23 h') FROM ready r JOIN message m USING (id)`); got != "1 t t" {
		t.Errorf("ready again as %s, want 1 t t", got)
	}
	if err := b.db.Resend(t.Context(), 1, f.id, false); !errors.Is(err, record.ErrConflict) {
		t.Errorf("resend of what waits: %v, want ErrConflict", err)
	}
	b.exec(t, `UPDATE ready SET lane = $1`, lane)
	owner := b.replica(t)
	d := b.claim(t, owner, f.account, 1)[0]
	if !b.intend(t, owner, intent(d, f.account)) {
		t.Error("the message can't be sent again")
	}
	b.record(t, owner, queue.Result{ID: f.id, N: 2, Class: "accepted", Recipients: changes("", "sent")})
	inflight, unknown := b.flying(t), b.rescued(t)
	for what, id := range map[string]mail.ID{
		"sent": f.id, "in flight": inflight.id, "unknown": unknown.id, "queued": b.acceptN(t, 1)[0],
	} {
		before := b.rows(t, id)
		if err := b.db.Resend(t.Context(), 1, id, false); !errors.Is(err, record.ErrConflict) {
			t.Errorf("resend of a message that is %s: %v, want ErrConflict", what, err)
		}
		if diff := cmp.Diff(before, b.rows(t, id)); diff != "" {
			t.Errorf("a refused resend changed a message that is %s:\n%s", what, diff)
		}
	}
}

func TestResendOfOneMessageAtOnceWorksOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.acceptN(t, 1)[0]
	must(t, b.db.Cancel(t.Context(), 1, id))
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { errs <- b.db.Resend(t.Context(), 1, id, false) }()
	}
	won := 0
	for range cap(errs) {
		switch err := <-errs; {
		case err == nil:
			won++
		case !errors.Is(err, record.ErrConflict):
			t.Errorf("resend: %v", err)
		}
	}
	if won != 1 || b.place(t, id) != "ready" {
		t.Errorf("%d resends won, message is %s", won, b.place(t, id))
	}
}

func TestResendNeedsABody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.acceptN(t, 1)[0]
	must(t, b.db.Cancel(t.Context(), 1, id))
	b.exec(t, `DELETE FROM body`)
	if err := b.db.Resend(t.Context(), 1, id, false); !errors.Is(err, record.ErrConflict) {
		t.Errorf("resend without a body: %v, want ErrConflict", err)
	}
	if got := fmt.Sprint(b.outcome(t, id)); got != "{settled cancelled: cancelled }" {
		t.Errorf("message is %s", got)
	}
}
