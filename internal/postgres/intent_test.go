package postgres

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

func TestIntendAnnouncesOneCallOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.acceptN(t, 1)[0]
	owner, account := b.replica(t), b.relay(t)
	d := b.claim(t, owner, account, 1)[0]
	in := intent(d, account)
	if !b.intend(t, owner, in) {
		t.Fatal("the owner's intent was refused")
	}
	if got := b.place(t, id); got != "started" {
		t.Errorf("message is %s, want started", got)
	}
	row := get[string](t, b, `SELECT concat_ws(' ', a.n, a.account_id, a.decision, a.class, a.finished_at, a.started_at = f.started_at)
		FROM attempt a JOIN inflight f ON f.id = a.message_id WHERE a.message_id = $1`, [16]byte(id))
	if want := fmt.Sprintf(`1 %d {"chosen": "relay", "candidates": []} t`, account); row != want {
		t.Errorf("attempt = %s, want %s", row, want)
	}
	before := b.rows(t, id)
	if b.intend(t, owner, in) {
		t.Error("the same call was announced twice")
	}
	if diff := cmp.Diff(before, b.rows(t, id)); diff != "" {
		t.Errorf("the second intent changed something:\n%s", diff)
	}
}

// A claim need not reach the disk. After a crash of the server that lost one, its replica may claim the message anew, and
// then carries it twice under one number; both may announce it at the same moment.
func TestIntentsOfALostClaimAndItsRepetitionAnnounceOneCall(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.acceptN(t, 2)
	owner, account := b.replica(t), b.relay(t)
	due := b.claim(t, owner, account, 2)
	one := ownedIntent{intent(due[0], account), owner}
	other := ownedIntent{intent(due[1], account), owner}
	elsewhere := one // the lost claim may have been for another account
	elsewhere.Account = account + 1
	got, err := b.db.intentOnce(t.Context(), []ownedIntent{elsewhere, one, other, one, one})
	must(t, err)
	if diff := cmp.Diff([]queue.Announced{{}, {OK: true}, {OK: true}, {}, {}}, got); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
}

func TestIntendRefusesWhoDoesNotHoldTheClaim(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	for _, tc := range []struct {
		name  string
		spoil func(owner *mail.ID, in *queue.Intent)
	}{
		{"another owner", func(owner *mail.ID, _ *queue.Intent) { *owner = b.replica(t) }},
		{"another attempt", func(_ *mail.ID, in *queue.Intent) { in.N = 2 }},
		{"another account", func(_ *mail.ID, in *queue.Intent) { in.Account++ }},
		{"another message", func(_ *mail.ID, in *queue.Intent) { in.ID = mail.NewID() }},
		{"lease run out", func(owner *mail.ID, _ *queue.Intent) { b.expire(t, *owner) }},
		{"unregistered", func(owner *mail.ID, _ *queue.Intent) { must(t, b.db.Unregister(t.Context(), *owner)) }},
		{"rescued", func(owner *mail.ID, _ *queue.Intent) {
			b.expire(t, *owner)
			_, _, err := b.db.Rescue(t.Context(), waits)
			must(t, err)
		}},
		{"rescued and claimed by another", func(owner *mail.ID, _ *queue.Intent) {
			b.expire(t, *owner)
			_, _, err := b.db.Rescue(t.Context(), waits)
			must(t, err)
			b.claim(t, b.replica(t), account, 10)
		}},
	} {
		id := b.acceptN(t, 1)[0]
		owner := b.replica(t)
		in := intent(b.claim(t, owner, account, 1)[0], account)
		tc.spoil(&owner, &in)
		before := b.rows(t, id)
		if b.intend(t, owner, in) {
			t.Errorf("%s: intent granted", tc.name)
		}
		if diff := cmp.Diff(before, b.rows(t, id)); diff != "" {
			t.Errorf("%s: a refused intent changed something:\n%s", tc.name, diff)
		}
		b.exec(t, `DELETE FROM ready`)
	}
}

func TestIntentsShareTransactionsAndAreAnsweredOneByOne(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	owner, account := b.replica(t), b.relay(t)
	b.acceptN(t, 200)
	due := b.claim(t, owner, account, 200)
	var mu sync.Mutex
	commits := 0
	db := b.open(t, Options{Observe: func(batch string, _ int, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if batch == "intent" {
			commits++
		}
	}})
	var wg sync.WaitGroup
	for i, d := range due {
		wg.Go(func() {
			in := intent(d, account)
			switch i % 10 {
			case 3:
				in.N = 5
			case 7:
				in.Decision = []byte(`{"poisoned":"\u0000"}`)
			}
			a, err := db.Intend(t.Context(), owner, in)
			if want := i%10 != 3 && i%10 != 7; a.OK != want || (err != nil) != (i%10 == 7) {
				t.Errorf("intent %d: %t, %v; want %t", i, a.OK, err, want)
			}
		})
	}
	wg.Wait()
	if n := get[int](t, b, `SELECT count(*) FROM attempt JOIN inflight ON id = message_id AND attempt.started_at = inflight.started_at`); n != 160 {
		t.Errorf("%d calls are announced, want 160", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if commits == 0 || commits > 100 {
		t.Errorf("200 intents took %d transactions, want at most 100", commits)
	}
}
