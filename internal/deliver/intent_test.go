package deliver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

// loadedFor is what Load gives of a message to one recipient.
func loadedFor(id mail.ID) queue.Loaded {
	ann := mail.Address{Email: "ann@example.org"}
	return queue.Loaded{
		Message:    &mail.Message{ID: id, From: mail.Address{Email: "shop@example.com"}, To: []mail.Address{ann}},
		Recipients: []mail.Recipient{{Kind: mail.To, Address: ann, Status: mail.Queued}},
	}
}

// However a message is sent, the row that tells a rescuer of the call is there first: else the rescuer would take the
// message for one that was never sent.
func TestNoCallIsMadeUnlessItsIntentIsCommitted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		takes  time.Duration
		ok     bool
		err    error
		calls  int
		record string // class; "" when nothing may be recorded
	}{
		{name: "committed", ok: true, calls: 1, record: string(provider.Accepted)},
		{name: "committed within its age", takes: intentAge - time.Millisecond, ok: true, calls: 1, record: string(provider.Accepted)},
		{name: "committed too late", takes: intentAge, ok: true, record: queue.Aborted},
		{name: "refused, for the claim is lost"},
		{name: "nobody knows", err: errors.New("connection reset"), record: queue.Aborted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var announced []queue.Intent
				store := &fakeStore{intend: func(_ context.Context, in queue.Intent) (bool, error) {
					time.Sleep(tc.takes)
					announced = append(announced, in)
					return tc.ok, tc.err
				}}
				calls := 0
				e := testEngine(t, store, func(context.Context) (provider.Receipt, error) {
					if calls++; len(announced) != calls {
						t.Errorf("call %d is made after %d intents", calls, len(announced))
					}
					return provider.Receipt{ProviderMessageID: "pm-1"}, nil
				})
				loadConfig(t, e)
				it := testItem(e)
				it.due.Attempts = 2
				it.acc.start()
				e.carry(it, loaded(it, loadedFor(it.due.ID)))
				if calls != tc.calls {
					t.Errorf("calls = %d, want %d", calls, tc.calls)
				}
				if len(announced) != 1 || announced[0].ID != it.due.ID || announced[0].N != 3 || announced[0].Account != 7 {
					t.Errorf("intents = %+v, want one for the third call of %s to account 7", announced, it.due.ID)
				}
				if got := recordedClass(store); got != tc.record {
					t.Errorf("recorded %q, want %q", got, tc.record)
				}
			})
		})
	}
}

// recordedClass is the class of the only result that was recorded, if any.
func recordedClass(s *fakeStore) string {
	select {
	case r := <-s.recorded:
		return r.Class
	default:
		return ""
	}
}
