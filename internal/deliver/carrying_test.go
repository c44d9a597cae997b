package deliver

import (
	"context"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// The server lost the claim of a message in a crash, and shows it as due; this replica still carries it.
func TestMessageThatIsCarriedIsNotClaimedAgain(t *testing.T) {
	t.Parallel()
	carried, other := mail.NewID(), mail.NewID()
	var taken []mail.ID
	store := &fakeStore{load: func(context.Context, []mail.ID) (map[mail.ID]queue.Loaded, error) { return nil, nil }}
	store.claim = func(_ context.Context, decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
		var due []queue.Due
		for _, id := range []mail.ID{carried, other} {
			due = append(due, queue.Due{
				ID: id, Lane: queue.Lane{Number: 1, Tenant: 1}, Due: time.Now().Add(-time.Hour), ExpiresAt: time.Now().Add(time.Hour),
				Facts: &mail.Facts{Recipients: 1, SenderDomain: "example.com"},
			})
		}
		for _, a := range decide(time.Now(), due, map[int32]*limit.Account{7: {}}).Take {
			taken = append(taken, a.Due.ID)
		}
		return nil
	}
	e := testEngine(t, store, nil)
	loadConfig(t, e)
	owner := mail.NewID()
	e.owner.Store(&owner)
	e.carrying.add(carried)
	e.lanes.note(queue.Lane{Number: 1, Tenant: 1})
	e.claimOnce(t.Context())
	e.carried.Wait()
	if len(taken) != 1 || taken[0] != other {
		t.Errorf("claimed = %v, want only %s, which is not carried", taken, other)
	}
}

// What the end of a lost claim takes away must not be the one that goes on: it would look like a claim that nobody carries.
func TestMessageIsCarriedUntilTheLastOfItsClaimsEnds(t *testing.T) {
	t.Parallel()
	c := carrying{ids: map[mail.ID]int{}}
	id := mail.NewID()
	c.add(id)
	c.add(id)
	c.remove(id)
	if got := c.list(); len(got) != 1 || got[0] != id {
		t.Errorf("carried after one of two claims ended = %v, want the message", got)
	}
	c.remove(id)
	if n := c.count(); n != 0 {
		t.Errorf("carried after both ended = %d, want none", n)
	}
}
