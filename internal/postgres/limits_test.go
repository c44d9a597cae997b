package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// hourly is a window that no test outlives.
func hourly(n int, unit limit.Unit) limit.Window {
	return limit.Window{N: n, Per: time.Hour, Unit: unit}
}

// spend claims what the account has slots for, at most n messages.
func spend(ctx context.Context, db *DB, owner mail.ID, account int32, n int) ([]queue.Due, error) {
	var taken []queue.Due
	err := db.Claim(ctx, owner, quota(n), func(now time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim {
		var c queue.Claim
		taken = nil
		for _, d := range due {
			if limits[account].Take(now, d.Facts.Recipients, time.Second).OK {
				c.Take = append(c.Take, queue.Assignment{Due: d, Account: account})
				taken = append(taken, d)
			}
		}
		return c
	})
	return taken, err
}

// used shows the use of an account's windows as the API does.
func (b *bed) used(t *testing.T) string {
	t.Helper()
	states, err := b.db.LimitStates(t.Context())
	must(t, err)
	s := ""
	for _, st := range states {
		s += fmt.Sprintf("%s %s: %d; ", st.Account, st.Window, st.Used)
	}
	return s
}

// sent closes a claim with an accepted call that reached its provider just now.
func sent(d queue.Due) queue.Result {
	return queue.Result{
		ID: d.ID, N: d.Attempts + 1, Class: "accepted", Recipients: changes("sent"),
		Settle: &queue.Settle{At: time.Now(), Recipients: d.Facts.Recipients},
	}
}

func TestSlotsAreSharedByReplicasAndOutliveThem(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(3, limit.Requests), limit.Window{N: 8, Per: 2 * time.Hour, Unit: limit.Recipients})
	for range 3 {
		b.accept(t, submission("ann@example.org", "bob@example.org"))
	}
	b.acceptN(t, 5)
	owner := b.replica(t)
	taken, err := spend(t.Context(), b.db, owner, account, 2)
	must(t, err)
	want := "small 3 requests per 1h0m0s: 2; small 8 recipients per 2h0m0s: 4; "
	if got := b.used(t); got != want {
		t.Errorf("with two calls open: %s\nwant %s", got, want)
	}
	for _, d := range taken {
		b.intend(t, owner, intent(d, account))
		b.record(t, owner, sent(d))
	}
	if got := b.used(t); got != want {
		t.Errorf("with two calls made: %s\nwant %s", got, want)
	}
	other := b.open(t, Options{})
	taken, err = spend(t.Context(), other, mail.NewID(), account, 8)
	must(t, err)
	if len(taken) != 1 {
		t.Errorf("another replica took %d slots, want the 1 that is left", len(taken))
	}
}

func TestReplicasTogetherNeverExceedALimit(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const most = 60
	account := b.account(t, "small", hourly(most, limit.Requests))
	b.acceptN(t, 150)
	dbs := []*DB{b.db, b.open(t, Options{})}
	var mu sync.Mutex
	calls := 0
	var wg sync.WaitGroup
	for i := range 6 {
		owner := b.replica(t)
		wg.Go(func() {
			db := dbs[i%2]
			for range 25 {
				taken, err := spend(t.Context(), db, owner, account, 5)
				if err != nil {
					t.Errorf("claim: %v", err)
					continue
				}
				var inner sync.WaitGroup
				for _, d := range taken {
					inner.Go(func() {
						if a, err := db.Intend(t.Context(), owner, intent(d, account)); err != nil || !a.OK {
							t.Errorf("intend: %t, %v", a.OK, err)
						}
						mu.Lock()
						calls++
						mu.Unlock()
						if ok, err := db.Record(t.Context(), owner, sent(d)); err != nil || !ok {
							t.Errorf("record: %t, %v", ok, err)
						}
					})
				}
				inner.Wait()
			}
		})
	}
	wg.Wait()
	if calls != most {
		t.Errorf("%d calls were made, want exactly %d", calls, most)
	}
	if got, want := b.used(t), fmt.Sprintf("small %d requests per 1h0m0s: %d; ", most, most); got != want {
		t.Errorf("used: %s, want %s", got, want)
	}
}

func TestSlotOfACallThatWasNotMadeIsFreeAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(2, limit.Requests))
	b.acceptN(t, 3)
	owner := b.replica(t)
	taken, err := spend(t.Context(), b.db, owner, account, 3)
	must(t, err)
	b.record(t, owner, queue.Result{ID: taken[0].ID, N: 1, Requeue: &queue.Requeue{In: time.Hour}})
	b.intend(t, owner, intent(taken[1], account))
	b.record(t, owner, queue.Result{ID: taken[1].ID, N: 1, Class: queue.Aborted, Requeue: &queue.Requeue{In: time.Hour}})
	if got := b.used(t); got != "small 2 requests per 1h0m0s: 0; " {
		t.Errorf("used: %s, want none", got)
	}
}

func TestCallOfADeadReplicaStaysCharged(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(5, limit.Requests))
	b.acceptN(t, 2)
	owner := b.replica(t)
	taken, err := spend(t.Context(), b.db, owner, account, 2)
	must(t, err)
	b.intend(t, owner, intent(taken[0], account))
	b.expire(t, owner)
	_, _, err = b.db.Rescue(t.Context(), waits)
	must(t, err)
	const want = "small 5 requests per 1h0m0s: 1; " // the one that was started
	if got := b.used(t); got != want {
		t.Errorf("after the rescue: %s, want %s", got, want)
	}
	b.record(t, owner, sent(taken[0])) // its answer arrives after all
	if got := b.used(t); got != want {
		t.Errorf("after the late answer: %s, want %s", got, want)
	}
}

func TestBlockedAccountGivesNoSlot(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "small", hourly(5, limit.Requests))
	b.acceptN(t, 1)
	b.exec(t, `UPDATE rate_account SET blocked_until = now() + interval '1 min'`)
	taken, err := spend(t.Context(), b.db, b.replica(t), account, 1)
	must(t, err)
	if len(taken) != 0 {
		t.Error("a blocked account gave a slot")
	}
	states, err := b.db.LimitStates(t.Context())
	must(t, err)
	if len(states) != 1 || states[0].BlockedUntil.IsZero() {
		t.Errorf("LimitStates = %+v, want the block shown", states)
	}
}

func TestLimitSetLateCountsWhatWasSent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "late")
	owner := b.replica(t)
	for range 3 {
		b.accept(t, submission("ann@example.org", "bob@example.org"))
	}
	b.acceptN(t, 3)
	taken, err := spend(t.Context(), b.db, owner, account, 6)
	must(t, err)
	for i, d := range taken {
		if i == 4 { // two stay open
			break
		}
		b.intend(t, owner, intent(d, account))
		r := sent(d)
		if i == 3 { // nothing was sent
			r = queue.Result{ID: d.ID, N: 1, Class: queue.Aborted, Requeue: &queue.Requeue{In: time.Hour}}
		}
		b.record(t, owner, r)
	}
	windows := []limit.Window{hourly(5, limit.Requests), {N: 100, Per: 2 * time.Hour, Unit: limit.Recipients}}
	want := "late 5 requests per 1h0m0s: 5; late 100 recipients per 2h0m0s: 8; "
	must(t, b.db.SetLimits(t.Context(), "tester", "late", windows))
	if got := b.used(t); got != want {
		t.Errorf("used %s\nwant %s", got, want)
	}
	must(t, b.db.SetLimits(t.Context(), "tester", "late", windows))
	if got := b.used(t); got != want {
		t.Errorf("set again: used %s\nwant %s", got, want)
	}
	b.acceptN(t, 1)
	if more, err := spend(t.Context(), b.db, owner, account, 5); err != nil || len(more) != 0 {
		t.Errorf("%d more calls, %v; the limit was used up before it was set", len(more), err)
	}
	must(t, b.db.SetLimits(t.Context(), "tester", "late", nil)) // and none for a while, in which three more are sent
	b.acceptN(t, 2)
	taken2, err := spend(t.Context(), b.db, owner, account, 3)
	must(t, err)
	for _, d := range append(taken2, taken[4:]...) {
		b.intend(t, owner, intent(d, account))
		b.record(t, owner, sent(d))
	}
	windows[0].N = 9
	must(t, b.db.SetLimits(t.Context(), "tester", "late", windows))
	want = "late 9 requests per 1h0m0s: 8; late 100 recipients per 2h0m0s: 11; "
	if got := b.used(t); got != want {
		t.Errorf("set after a time without: used %s\nwant %s", got, want)
	}
}

func TestSetLimitsAndClaimsDoNotDeadlock(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	accounts := []int32{b.account(t, "one"), b.account(t, "two")}
	names := []string{"one", "two"}
	b.acceptN(t, 200)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for k := range 12 {
				if err := b.db.SetLimits(t.Context(), "tester", names[i], []limit.Window{hourly(1000+k, limit.Requests), {N: 1000, Per: time.Duration(2+k) * time.Hour, Unit: limit.Messages}}); err != nil {
					t.Errorf("set limits: %v", err)
				}
			}
		})
		wg.Go(func() {
			owner := b.replica(t)
			for range 12 {
				taken, err := spend(t.Context(), b.db, owner, accounts[i], 4)
				if err != nil {
					t.Errorf("claim: %v", err)
				}
				for _, d := range taken {
					r := sent(d)
					r.Park = &queue.Park{Account: accounts[1-i], SenderDomain: d.ID.String(), Reason: "x"}
					if _, err := b.db.Record(t.Context(), owner, r); err != nil {
						t.Errorf("record: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestLimitStatesAreSortedAndLeaveOutDeletedAccounts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.account(t, "zoe", hourly(1, limit.Recipients), hourly(2, limit.Messages), limit.Window{N: 3, Per: time.Second, Unit: limit.Requests})
	b.account(t, "gone", hourly(1, limit.Requests))
	b.account(t, "ann", hourly(4, limit.Requests))
	must(t, b.db.DeleteAccount(t.Context(), "tester", "gone"))
	const want = "ann 4 requests per 1h0m0s: 0; zoe 3 requests per 1s: 0; zoe 2 messages per 1h0m0s: 0; zoe 1 recipients per 1h0m0s: 0; "
	for range 5 {
		if got := b.used(t); got != want {
			t.Fatalf("LimitStates: %s\nwant %s", got, want)
		}
	}
}

func TestWindowsKeepTheirPacing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "paced", limit.Window{N: 10, Per: 10 * time.Second, Unit: limit.Requests})
	b.acceptN(t, 2)
	slots := make([]time.Time, 2)
	for i, db := range []*DB{b.db, b.open(t, Options{})} {
		must(t, db.Claim(t.Context(), mail.NewID(), quota(1), func(now time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim {
			slots[i] = limits[account].Take(now, 1, time.Minute).Slot
			return queue.Claim{Take: []queue.Assignment{{Due: due[0], Account: account}}}
		}))
	}
	if gap := slots[1].Sub(slots[0]); gap < 700*time.Millisecond { // a second apart, less what may be caught up
		t.Errorf("two replicas' slots are %s apart", gap)
	}
	c, err := b.db.Config(t.Context())
	must(t, err)
	if diff := cmp.Diff([]limit.Window{{N: 10, Per: 10 * time.Second, Unit: limit.Requests}}, c.Account("paced").Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}

// Somebody deletes what windows count, or an account's row: nothing is granted twice, and nothing without a lock.
func TestDeletedLimitStateIsCountedAgainFromTheAttempts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account, idle := b.account(t, "small", hourly(3, limit.Requests)), b.account(t, "idle", hourly(3, limit.Requests))
	b.acceptN(t, 6)
	owner := b.replica(t)
	taken, err := spend(t.Context(), b.db, owner, account, 3)
	must(t, err)
	for _, d := range taken {
		b.intend(t, owner, intent(d, account))
		b.record(t, owner, sent(d))
	}
	const want = "idle 3 requests per 1h0m0s: 0; small 3 requests per 1h0m0s: 3; "
	for _, q := range []string{`DELETE FROM rate_window`, `DELETE FROM rate_account`, `DELETE FROM rate_window; DELETE FROM rate_account`} {
		for _, statement := range strings.Split(q, "; ") {
			b.exec(t, statement)
		}
		if more, err := spend(t.Context(), b.db, owner, account, 3); err != nil || len(more) != 0 {
			t.Errorf("after %s: %d more calls, %v", q, len(more), err)
		}
		if got := b.used(t); got != want {
			t.Errorf("after %s: used %s\nwant %s", q, got, want)
		}
		if n := get[int](t, b, `SELECT count(*) FROM rate_account a JOIN rate_window USING (account_id)`); n != 2 {
			t.Errorf("after %s: %d windows have their rows, want 2", q, n)
		}
	}
	if more, err := spend(t.Context(), b.db, owner, idle, 3); err != nil || len(more) != 3 {
		t.Errorf("an account that sent nothing: %d calls, %v; want 3", len(more), err)
	}
}
