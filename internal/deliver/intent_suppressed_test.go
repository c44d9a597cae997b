package deliver

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// Whoever was suppressed between the claim and the intent is not in the call, and the record says so. With nobody left, there is
// no call.
func TestRecipientsSuppressedBeforeTheIntentAreNotMailed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		gone     []int
		mailed   []string
		recorded []queue.RecipientChange // without details
	}{
		{"nobody", nil, []string{"0@example.org", "2@example.org", "1@example.org"}, []queue.RecipientChange{
			{N: 0, Status: mail.Sent}, {N: 1, Status: mail.Sent}, {N: 2, Status: mail.Sent},
		}},
		{"one", []int{0}, []string{"2@example.org", "1@example.org"}, []queue.RecipientChange{
			{N: 1, Status: mail.Sent}, {N: 2, Status: mail.Sent}, {N: 0, Status: mail.Suppressed},
		}},
		{"all", []int{0, 1, 2}, nil, []queue.RecipientChange{
			{N: 0, Status: mail.Suppressed}, {N: 1, Status: mail.Suppressed}, {N: 2, Status: mail.Suppressed},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store := &fakeStore{gone: tc.gone, intend: func(_ context.Context, in queue.Intent) (bool, error) {
				if len(in.Open) != 3 || in.Stream != "bulk" || in.Tenant != 5 {
					t.Errorf("intent = %+v, want the recipients, the stream and the tenant", in)
				}
				return len(tc.gone) < 3, nil
			}}
			e := testEngine(t, store, nil)
			loadConfig(t, e)
			it, p := testItem(e), &mailedTo{}
			it.due.Facts.Stream, it.due.Lane.Tenant = "bulk", 5
			it.acc.client = p
			it.acc.start()
			l := queue.Loaded{Message: &mail.Message{ID: it.due.ID, From: mail.Address{Email: "shop@example.com"}}}
			for n, kind := range []mail.RecipientKind{mail.To, mail.Bcc, mail.Cc} {
				to := mail.Address{Email: string(rune('0'+n)) + "@example.org"}
				l.Recipients = append(l.Recipients, mail.Recipient{N: n, Kind: kind, Address: to, Status: mail.Queued})
			}
			e.carry(it, loaded(it, l))
			var r queue.Result
			select {
			case r = <-store.recorded:
			case <-time.After(10 * time.Second):
				t.Fatalf("nothing is recorded; mailed %q", p.emails)
			}
			for i := range r.Recipients {
				r.Recipients[i].Detail = ""
			}
			if diff := cmp.Diff(tc.mailed, p.emails); diff != "" {
				t.Errorf("mailed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.recorded, r.Recipients); diff != "" || r.Requeue != nil {
				t.Errorf("requeued %v, recorded (-want +got):\n%s", r.Requeue, diff)
			}
		})
	}
}
