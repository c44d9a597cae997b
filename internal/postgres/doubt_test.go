package postgres

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// doubted is a message to ann and bob of which a first call, by the relay, has no known outcome. It waits to be sent again.
func (b *bed) doubted(t *testing.T) flight {
	t.Helper()
	b.exec(t, `DELETE FROM suppression`)
	s := submission("ann@example.org", "bob@example.org")
	s.Message.OnAmbiguous = mail.Resend
	f := b.fly(t, s)
	b.record(t, f.owner, queue.Result{
		ID: f.id, N: 1, Class: "uncertain", Recipients: changes("unknown", "unknown"), Unknown: &queue.Hanging{Policy: mail.Resend},
	})
	resent, _, err := b.db.DecideUnknown(t.Context(), false, 2)
	must(t, err)
	if resent != 1 {
		t.Fatalf("%d messages are sent again, want 1", resent)
	}
	return f
}

// second claims a message for the other account, as the next call after the doubted one, and announces it.
func (b *bed) second(t *testing.T, f flight, other int32) flight {
	t.Helper()
	b.exec(t, `UPDATE ready SET lane = $1`, lane) // a message that is resent by hand is in none until an engine sees it
	f.owner, f.account = b.replica(t), other
	f.due = b.claim(t, f.owner, other, 1)[0]
	if !b.intend(t, f.owner, intent(f.due, other)) {
		t.Fatal("intent refused")
	}
	return f
}

// ends are the ways in which a message ends without having been taken, given a next account. The first call is over.
func (b *bed) ends(other int32) map[string]func(*testing.T, flight) {
	return map[string]func(*testing.T, flight){
		"refused": func(t *testing.T, f flight) {
			f = b.second(t, f, other)
			b.record(t, f.owner, queue.Result{ID: f.id, N: f.due.Attempts + 1, Class: "rejected", Recipients: changes("failed", "failed")})
		},
		"refused one by one": func(t *testing.T, f flight) {
			f = b.second(t, f, other)
			r := queue.Result{ID: f.id, N: f.due.Attempts + 1, Class: "bad_recipient", Recipients: changes("suppressed", "failed")}
			r.Recipients[1].Bounce = &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Text: "no such user"}
			b.record(t, f.owner, r)
		},
		"refused while bob is put off, then expired": func(t *testing.T, f flight) {
			f = b.second(t, f, other)
			b.record(t, f.owner, queue.Result{ID: f.id, N: f.due.Attempts + 1, Class: "accepted", Recipients: changes("failed"), Requeue: &queue.Requeue{}})
			must(t, b.db.End(t.Context(), []queue.Ending{{ID: f.id, Status: mail.Expired, Detail: "not sent before expires_at"}}))
		},
		"expired": func(t *testing.T, f flight) {
			must(t, b.db.End(t.Context(), []queue.Ending{{ID: f.id, Status: mail.Expired, Detail: "not sent before expires_at"}}))
		},
		"without an account": func(t *testing.T, f flight) {
			must(t, b.db.End(t.Context(), []queue.Ending{{ID: f.id, Status: mail.Failed, Detail: "no account can carry this message"}}))
		},
		"cancelled": func(t *testing.T, f flight) { must(t, b.db.Cancel(t.Context(), mail.DefaultTenant, f.id)) },
		"suppressed": func(t *testing.T, f flight) {
			owner := b.replica(t)
			d := b.claim(t, owner, other, 1)[0]
			b.record(t, owner, queue.Result{ID: f.id, N: d.Attempts + 1, Recipients: changes("suppressed", "suppressed")})
		},
		"dropped by the next provider": func(t *testing.T, f flight) {
			f = b.second(t, f, other)
			b.record(t, f.owner, queue.Result{ID: f.id, N: f.due.Attempts + 1, Class: "accepted", ProviderMessageID: "pm-2", Recipients: changes("sent", "sent")})
			for _, who := range []string{"ann@example.org", "bob@example.org"} {
				e := told(f.id, mail.EventRejected, who, 3, mail.SuppressedBounce)
				e.ProviderMessageID = "pm-2"
				b.receive(t, hook(other, e))
			}
		},
	}
}

func TestWhatMayHaveBeenSentDoesNotEndAsIfItHadNot(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	relay, other := b.relay(t), b.account(t, "other")
	for name, end := range b.ends(other) {
		t.Run(name, func(t *testing.T) {
			f := b.doubted(t)
			end(t, f)
			if got, want := b.status(t, f.id), "failed_unknown: failed_unknown failed_unknown"; got != want || b.place(t, f.id) != "settled" {
				t.Errorf("%s, %s; want settled, %s", b.place(t, f.id), got, want)
			}
			if name != "dropped by the next provider" { // of which the provider has told
				if n := get[int](t, b, `SELECT count(DISTINCT n) FROM event WHERE message_id = $1 AND type = 'failed_unknown' AND name = 'failed_unknown'`, [16]byte(f.id)); n != 2 {
					t.Errorf("events tell of the doubt about %d recipients, want 2", n)
				}
				if n := get[int](t, b, `SELECT count(*) FROM event WHERE message_id = $1 AND type = 'rejected'`, [16]byte(f.id)); n != 0 {
					t.Errorf("%d events say that nothing was sent", n)
				}
			}
			b.receive(t, hook(relay, told(f.id, mail.EventDelivered, "ann@example.org", 1)))
			if got, want := b.status(t, f.id), "sent: delivered sent"; got != want {
				t.Errorf("after the first call is proved: %s, want %s", got, want)
			}
		})
		t.Run(name+", proved before", func(t *testing.T) {
			if name == "dropped by the next provider" || name == "expired" || name == "suppressed" {
				return // the same statement as another
			}
			f := b.doubted(t)
			b.receive(t, hook(relay, told(f.id, mail.EventAccepted, "ann@example.org", 1)))
			end(t, f)
			if got, want := b.status(t, f.id), "sent: sent sent"; got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
		t.Run(name+", without doubt", func(t *testing.T) {
			if name == "dropped by the next provider" {
				return // the first call is known
			}
			b.exec(t, `DELETE FROM suppression`)
			f := b.fly(t, submission("ann@example.org", "bob@example.org"))
			b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "transient", Requeue: &queue.Requeue{}})
			end(t, f)
			if n := get[int](t, b, `SELECT count(*) FROM recipient WHERE message_id = $1 AND status IN ('failed_unknown', 'sent', 'queued')`, [16]byte(f.id)); n != 0 {
				t.Errorf("%s: nobody can have been mailed", b.status(t, f.id))
			}
			if name == "cancelled" {
				return
			}
			if n := get[int](t, b, `SELECT count(DISTINCT n) FROM event WHERE message_id = $1 AND type = 'rejected'`, [16]byte(f.id)); n != 2 {
				t.Errorf("events tell of %d rejected recipients, want 2", n)
			}
		})
	}
	b.balanced(t, "all of these ends", "0 ready, 0 claimed, 0 in a call, 0 unknown")
}

func TestGivingUpIsToldAndKeepsTheBounceOfTheSecondCall(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.doubted(t)
	b.ends(b.account(t, "other"))["refused one by one"](t, f)
	if got := b.suppressed(t, record.Suppression{}); len(got) != 1 || got[0] != `bob@example.org "" hard_bounce` {
		t.Errorf("suppressed: %q, want the address that does not exist", got)
	}
	if got := get[string](t, b, `SELECT detail FROM recipient WHERE message_id = $1 AND n = 1`, [16]byte(f.id)); got != "failed, but an earlier call may have sent it: because failed" {
		t.Errorf("detail %q", got)
	}
	never := b.hang(t, mail.Never, time.Hour)
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	_, _, err := b.db.DecideUnknown(t.Context(), false, 2)
	must(t, err)
	if got := get[string](t, b, `SELECT string_agg(type || ' ' || (bounce->>'text'), ',') FROM event WHERE message_id = $1`, [16]byte(never.id)); got != "failed_unknown no evidence of the outcome came in time" {
		t.Errorf("events of a message that was given up: %q", got)
	}
}

func TestAnAnswerThatCameLateEndsTheDoubt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other := b.account(t, "other")
	b.relay(t)
	for _, late := range []struct {
		r    queue.Result
		want string // after a second call that is refused
	}{
		{queue.Result{Class: "rejected", Recipients: changes("failed", "failed", "failed")}, "failed: failed failed failed"},
		{queue.Result{Class: "transient", Requeue: &queue.Requeue{}}, "failed: failed failed failed"},
		{queue.Result{Class: "accepted", Recipients: changes("sent", "sent", "sent")}, "sent: sent sent sent"},
	} {
		f := b.rescued(t)
		b.exec(t, `UPDATE unknown SET decide_at = now()`)
		_, _, err := b.db.DecideUnknown(t.Context(), true, 2)
		must(t, err)
		g := b.second(t, f, other)
		late.r.ID, late.r.N = f.id, 1
		b.record(t, f.owner, late.r)
		b.record(t, g.owner, queue.Result{ID: f.id, N: 2, Class: "rejected", Recipients: changes("failed", "failed", "failed")})
		if got := b.status(t, f.id); got != late.want {
			t.Errorf("late answer %s: %s, want %s", late.r.Class, got, late.want)
		}
	}
}

func TestALateAcceptanceSettlesWhatWasGivenUpOrIsDueAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.relay(t)
	accepted := func(f flight) {
		b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", Recipients: changes("sent", "sent", "sent"), Settle: &queue.Settle{At: time.Now(), Recipients: 3}})
	}
	for _, again := range []bool{false, true} {
		f := b.rescued(t)
		b.exec(t, `UPDATE unknown SET decide_at = now()`)
		_, _, err := b.db.DecideUnknown(t.Context(), again, 2)
		must(t, err)
		accepted(f)
		want := outcome{"settled", "sent: sent sent sent", "accepted/response"}
		if got := b.outcome(t, f.id); got != want {
			t.Errorf("sent again %t: %+v, want %+v", again, got, want)
		}
	}
	f := b.rescued(t) // and what is unknown from the next call
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	_, _, err := b.db.DecideUnknown(t.Context(), true, 2)
	must(t, err)
	g := b.second(t, f, f.account)
	b.record(t, g.owner, queue.Result{ID: f.id, N: 2, Class: "uncertain", Recipients: changes("unknown", "unknown", "unknown"), Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile}})
	accepted(f)
	if got, want := b.outcome(t, f.id), (outcome{"settled", "sent: sent sent sent", "accepted/response uncertain/response"}); got != want {
		t.Errorf("unknown from the next call: %+v, want %+v", got, want)
	}
	b.balanced(t, "late acceptances", "0 ready, 0 claimed, 0 in a call, 0 unknown")
}

func TestResendOfWhatMayHaveBeenSentWantsForce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other := b.account(t, "other")
	f := b.doubted(t)
	b.ends(other)["refused"](t, f)
	if err := b.db.Resend(t.Context(), mail.DefaultTenant, f.id, false); !errors.Is(err, record.ErrMaybeSent) {
		t.Fatalf("Resend = %v, want ErrMaybeSent", err)
	}
	if got := b.place(t, f.id); got != "settled" {
		t.Errorf("the refusal left it %s", got)
	}
	must(t, b.db.Resend(t.Context(), mail.DefaultTenant, f.id, true))
	b.ends(other)["refused"](t, f) // nobody knows of the first call still
	if got, want := b.status(t, f.id), "failed_unknown: failed_unknown failed_unknown"; got != want {
		t.Errorf("after a forced call that was refused: %s, want %s", got, want)
	}
}

// Bob was refused before the call whose outcome is unknown, so no doubt is about him.
func TestDoubtIsAboutThoseWhomTheCallWasFor(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other := b.account(t, "other")
	for _, proved := range []bool{false, true} {
		f := b.fly(t, submission("ann@example.org", "bob@example.org"))
		b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "bad_recipient", Recipients: changes("", "failed"), Requeue: &queue.Requeue{}})
		g := b.second(t, f, f.account)
		b.record(t, g.owner, queue.Result{ID: f.id, N: 2, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{Policy: mail.Resend}})
		_, _, err := b.db.DecideUnknown(t.Context(), true, 2)
		must(t, err)
		if proved {
			b.receive(t, hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 1)))
		} else {
			g = b.second(t, f, other)
			b.record(t, g.owner, queue.Result{ID: f.id, N: 3, Class: "accepted", Recipients: changes("sent")})
		}
		must(t, b.db.Resend(t.Context(), mail.DefaultTenant, f.id, false))
		g = b.second(t, f, other)
		b.record(t, g.owner, queue.Result{ID: f.id, N: g.due.Attempts + 1, Class: "rejected", Recipients: changes("", "failed")})
		if got, want := b.status(t, f.id), fmt.Sprintf("failed: %s failed", map[bool]string{true: "delivered", false: "sent"}[proved]); got != want {
			t.Errorf("proved %t: %s, want %s", proved, got, want)
		}
	}
}
