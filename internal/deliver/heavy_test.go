package deliver

import (
	"context"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// claimSizes has a replica that carries so many bytes of large messages claim from messages of the given sizes, and returns
// the sizes that it took.
func claimSizes(t *testing.T, carried int64, sizes ...int64) []int64 {
	t.Helper()
	var taken []int64
	store := &fakeStore{load: func(context.Context, []mail.ID) (map[mail.ID]queue.Loaded, error) { return nil, nil }}
	store.claim = func(_ context.Context, decide func(time.Time, []queue.Due, map[int32]*limit.Account) queue.Claim) error {
		var due []queue.Due
		for _, n := range sizes {
			due = append(due, queue.Due{
				ID: mail.NewID(), Lane: queue.Lane{Number: 1, Tenant: 1}, Due: time.Now().Add(-time.Hour), ExpiresAt: time.Now().Add(time.Hour),
				Facts: &mail.Facts{Recipients: 1, SenderDomain: "example.com", Bytes: n},
			})
		}
		for _, a := range decide(time.Now(), due, map[int32]*limit.Account{7: {}}).Take {
			taken = append(taken, a.Due.Facts.Bytes)
		}
		return nil
	}
	e := testEngine(t, store, nil)
	loadConfig(t, e)
	owner := mail.NewID()
	e.owner.Store(&owner)
	e.heavy.Store(carried)
	e.lanes.note(queue.Lane{Number: 1, Tenant: 1})
	e.claimOnce(t.Context())
	e.carried.Wait()
	if left := e.heavy.Load(); left != carried {
		t.Errorf("bytes counted after all was carried = %d, want %d", left, carried)
	}
	return taken
}

func TestLargeMessagesAreBoundedByTheirBytes(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for name, c := range map[string]struct {
		carried int64
		sizes   []int64
		want    int
	}{
		"as many as fit":                 {0, []int64{25 * mb, 25 * mb, 25 * mb, 25 * mb}, 2},
		"one that is larger than all":    {0, []int64{100 * mb, 25 * mb}, 1},
		"none beside what is carried":    {60 * mb, []int64{25 * mb, 25 * mb}, 0},
		"ordinary ones don't wait":       {60 * mb, []int64{25 * mb, 5000, 25 * mb, 6000}, 2},
		"ordinary ones count nothing":    {0, []int64{200 << 10, 200 << 10, 60 * mb}, 3},
		"a smaller one that fits passes": {50 * mb, []int64{25 * mb, 10 * mb}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := claimSizes(t, c.carried, c.sizes...); len(got) != c.want {
				t.Errorf("taken = %v, want %d of %v", got, c.want, c.sizes)
			}
		})
	}
}
