//go:build drill

package postgres

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// The rescuer of a replica whose lease runs out, and that replica's own intent, meet on one message.
func TestIntentAndRescueNeverBothWin(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	other := b.open(t, Options{})
	const workers = 8
	var mu sync.Mutex
	outcomes := map[string]int{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range max(5, times(1)) {
				s := with(func(s *record.Submission) { s.Lane = int32(100 + w) })
				if _, err := b.db.Accept(t.Context(), s); err != nil {
					t.Errorf("accept: %v", err)
					return
				}
				got := raceRescue(t, b, other, s, account)
				mu.Lock()
				outcomes[got]++
				mu.Unlock()
				b.exec(t, `DELETE FROM ready WHERE id = $1`, [16]byte(s.Message.ID))
			}
		})
	}
	wg.Wait()
	for got, n := range outcomes {
		if got != "announced: unknown uncertain/rescue unknown: unknown" && got != "refused: ready  queued: queued" {
			t.Errorf("%d messages ended %q", n, got)
		}
	}
	t.Log(outcomes)
}

// raceRescue claims a message under a lease that is about to end, and returns what became of it.
func raceRescue(t *testing.T, b *bed, other *DB, s *record.Submission, account int32) string {
	owner := mail.NewID()
	if err := b.db.Register(t.Context(), owner, "test", time.Hour); err != nil {
		t.Errorf("register: %v", err)
	}
	var taken []queue.Due
	quotas := []queue.LaneQuota{{Lane: queue.Lane{Number: s.Lane, Tenant: 1}, Max: 1}}
	if err := b.db.Claim(t.Context(), owner, quotas, takeAll(account, &taken)); err != nil || len(taken) != 1 {
		t.Errorf("claim: %v, %v", taken, err)
		return "not claimed"
	}
	b.exec(t, `UPDATE replica SET lease_until = clock_timestamp() + $2::interval WHERE id = $1`, [16]byte(owner),
		time.Duration(rand.IntN(4000))*time.Microsecond)
	announced := make(chan string, 1)
	go func() {
		word := "refused"
		if a, err := b.db.Intend(t.Context(), owner, intent(taken[0], account)); err != nil {
			t.Errorf("intend: %v", err)
		} else if a.OK {
			word = "announced"
		}
		announced <- word
	}()
	until(t, "the rescue", func() bool {
		if _, _, err := other.Rescue(t.Context(), waits); err != nil {
			t.Errorf("rescue: %v", err)
		}
		p := b.place(t, s.Message.ID)
		return p != "inflight" && p != "started"
	})
	word := <-announced
	id := s.Message.ID
	return word + ": " + b.place(t, id) + " " + b.attempts(t, id) + " " + b.status(t, id)
}
