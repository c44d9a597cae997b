package app

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

func at(d time.Duration) *time.Time {
	when := time.Now().Add(d)
	return &when
}

func wantProblem(t *testing.T, what string, err error, status int) {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != status {
		t.Errorf("%s: error = %v, want status %d", what, err, status)
	}
}

func TestScheduledMailIsSentWhenItsTimeComes(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	m := letter(1)
	m.SendAt = at(3 * time.Second)
	id := send(t, r.api, m)
	if got := message(t, r.api, id).Status; got != "scheduled" {
		t.Errorf("status before send_at = %s, want scheduled", got)
	}
	becomes(t, r.api, id, settleTime, "sent")
	if got := b.ledger()[id]; len(got) != 1 || got[0].At.Before(m.SendAt.Truncate(time.Millisecond)) {
		t.Errorf("ledger = %+v, want one entry not before %s", got, m.SendAt)
	}
}

func TestWaitingMailSaysWhy(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	m := letter(1)
	m.SendAt = at(time.Hour)
	id := send(t, r.api, m)
	if got := message(t, r.api, id).Waiting; got == nil || got.Code != "scheduled" || got.Until == nil || !got.Until.Equal(m.SendAt.Truncate(time.Millisecond)) {
		t.Errorf("scheduled: waiting = %+v, want until %s", got, m.SendAt)
	}
	x, err := r.admin.ExplainMessage(t.Context(), id)
	if err != nil || x.Decision.Chosen == "" || x.Facts.SenderDomain != "example.com" {
		t.Errorf("explained by its id: %+v, %v", x, err)
	}
	_, err = r.admin.ExplainMessage(t.Context(), "01900000-0000-7000-8000-000000000000")
	wantProblem(t, "explain what is not there", err, http.StatusNotFound)
	_, err = r.api.Cancel(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := message(t, r.api, id).Waiting; got != nil {
		t.Errorf("cancelled: waiting = %+v, want none", got)
	}
}

func TestCancelledMailIsNeverSent(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	m := letter(1)
	m.SendAt = at(2 * time.Second)
	id := send(t, r.api, m)
	got, err := r.api.Cancel(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != "cancelled" || got.Recipients[0].Status != "cancelled" {
		t.Errorf("status = %s, recipient %s; want cancelled", got.Status, got.Recipients[0].Status)
	}
	_, err = r.api.Cancel(t.Context(), id)
	wantProblem(t, "a second cancel", err, http.StatusConflict)
	sent := send(t, r.api, letter(2))
	becomes(t, r.api, sent, settleTime, "sent")
	_, err = r.api.Cancel(t.Context(), sent)
	wantProblem(t, "cancel of a sent message", err, http.StatusConflict)
	pause(t, time.Until(m.SendAt.Add(time.Second)))
	if n := len(b.ledger()[id]); n != 0 {
		t.Errorf("ledger entries of a cancelled message = %d, want 0", n)
	}
}

func TestMailThatCannotGoInTimeExpires(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	if _, err := r.admin.PauseAccount(t.Context(), "ses"); err != nil {
		t.Fatal(err)
	}
	eventually(t, settleTime, "the pause binds", func() bool { return code(t, r, "ses") == "paused" })
	m := pinned("ses")
	m.ExpiresAt = at(2 * time.Second)
	id := send(t, r.api, m)
	got := becomes(t, r.api, id, settleTime, "expired")
	if len(got.Attempts) != 0 || got.Recipients[0].Status != "expired" || got.Recipients[0].Detail == "" {
		t.Errorf("attempts %q, recipient %+v; want none, and expired with its reason", classes(got), got.Recipients[0])
	}
	if n := len(b.ledger()[id]); n != 0 {
		t.Errorf("ledger entries = %d, want 0", n)
	}
}

func TestFailedMailCanBeResent(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	b.faults(t, map[string][]emulator.Fault{"postmark": {{
		Mode: "error", Status: 422, Match: "failed@*", Body: `{"ErrorCode":300,"Message":"Zero recipients specified"}`,
	}}})
	id := send(t, r.api, letterTo("postmark", "failed@example.org"))
	failed := becomes(t, r.api, id, settleTime, "failed")
	if got := classes(failed); got != "postmark rejected" && got != "postmark bad_recipient" {
		t.Errorf("attempts = %s, want one refusal", got)
	}
	b.faults(t, nil)
	if _, err := r.api.Resend(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	m := becomes(t, r.api, id, settleTime, "sent")
	if len(m.Attempts) != 2 || m.Attempts[1].Class != "accepted" {
		t.Errorf("attempts = %s, want the second accepted", classes(m))
	}
	_, err := r.api.Resend(t.Context(), id)
	wantProblem(t, "resend of a sent message", err, http.StatusConflict)
	if n := len(b.ledger()[id]); n != 1 {
		t.Errorf("ledger entries = %d, want 1", n)
	}
}

func TestSuppressedRecipientsAreNotMailed(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	suppress := func(email string) {
		t.Helper()
		if _, err := r.api.Suppress(t.Context(), api.SuppressionRequest{Email: email}); err != nil {
			t.Fatal(err)
		}
	}
	suppress("gone@example.org")

	alone := letter(1)
	alone.To[0].Email = "Gone@Example.org"
	got, err := r.api.Send(t.Context(), alone, "")
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != "suppressed" {
		t.Errorf("a suppressed address in other case was accepted as %s, want suppressed", got.Status)
	}

	both := letter(2)
	both.To = append(both.To, api.Address{Email: "gone@example.org"})
	id := send(t, r.api, both)
	m := becomes(t, r.api, id, settleTime, "sent", "suppressed")
	if m.Recipients[0].Status != "sent" || m.Recipients[1].Status != "suppressed" {
		t.Errorf("recipients = %s, %s; want sent, suppressed", m.Recipients[0].Status, m.Recipients[1].Status)
	}
	if e := b.ledger()[id]; len(e) != 1 || len(e[0].To) != 1 || e[0].To[0] != "ann2@example.org" {
		t.Errorf("ledger = %+v, want one entry for ann2 only", e)
	}

	later := letter(3)
	later.To[0].Email = "late@example.org"
	later.SendAt = at(3 * time.Second)
	id = send(t, r.api, later)
	suppress("late@example.org")
	m = becomes(t, r.api, id, settleTime, "suppressed")
	if m.Recipients[0].Status != "suppressed" || len(b.ledger()[id]) != 0 {
		t.Errorf("suppressed after acceptance: recipient %s, ledger entries %d; want suppressed, 0",
			m.Recipients[0].Status, len(b.ledger()[id]))
	}
}

// The order of members in the JSON does not make another request.
func TestAKeyMatchesTheSameRequestInOtherWords(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	var results []*api.SendResult
	for _, body := range []string{
		`{"from":"shop@example.com","to":["ann@example.org"],"subject":"hi","text":"hello"}`,
		`{ "text":"hello", "subject":"h\u0069", "to":[{"email":"ann@example.org"}], "from":{"email":"shop@example.com"} }`,
	} {
		got, err := r.api.SendRaw(t.Context(), []byte(body), "k")
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, got)
	}
	if results[0].ID != results[1].ID {
		t.Errorf("ids = %s and %s, want one", results[0].ID, results[1].ID)
	}
}
