package postgres

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// A call of several messages is lost with its replica, at an account that takes repeats. The provider knows none of the messages by
// its key, so none is repeated: also not the first, which looks like a message that went alone.
func TestALostCallOfSeveralMessagesIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account, owner := b.relay(t), b.replica(t)
	never := func() *record.Submission {
		return with(func(s *record.Submission) { s.Message.OnAmbiguous = mail.Never })
	}
	ids := b.accept(t, never(), never(), never(), never())
	alone, waits := ids[2], ids[3] // and one whose call was not announced
	var taken []queue.Due
	must(t, b.db.Claim(t.Context(), owner, quota(4), func(_ time.Time, due []queue.Due, _ map[int32]*limit.Account) (c queue.Claim) {
		taken = due
		for _, d := range due {
			if d.ID != alone {
				d.Avoid = map[string]queue.Avoid{"relay": {Repeat: &queue.Repeat{Over: true}}}
			}
			c.Take = append(c.Take, queue.Assignment{Due: d, Account: account, Joined: d.ID == ids[1]})
		}
		return c
	}))
	for _, d := range taken {
		if d.ID != waits && !b.intend(t, owner, intent(d, account)) {
			t.Fatal("intent refused")
		}
	}
	b.expire(t, owner)
	b.rescueAll(t)
	b.repeat(t, account, 0)
	policy := func(id mail.ID) string {
		return get[string](t, b, `SELECT coalesce((SELECT policy FROM unknown WHERE id = $1), 'none')`, [16]byte(id))
	}
	for i, want := range []string{"never", "never", "repeat", "none"} {
		if got := policy(ids[i]); got != want {
			t.Errorf("message %d is decided by %s, want %s", i, got, want)
		}
	}
	if place := b.place(t, waits); place != "ready" {
		t.Errorf("the message whose call was not announced is %s, want ready", place)
	}
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	b.repeat(t, account, 1)
	b.repeat(t, account, 0)
	if place := b.place(t, alone); place != "ready" {
		t.Errorf("the message that went alone is %s, want ready", place)
	}
	b.decide(t, true)
	for _, id := range ids[:2] {
		if got, want := b.outcome(t, id), (outcome{"settled", "failed_unknown: failed_unknown", "uncertain/deadline"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	b.balanced(t, "the lost call", "2 ready, 0 claimed, 0 in a call, 0 unknown")
}
