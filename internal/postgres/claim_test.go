package postgres

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// look claims nothing and tells what it was shown.
func look(t *testing.T, db *DB, quotas []queue.LaneQuota) []queue.Due {
	t.Helper()
	var shown []queue.Due
	must(t, db.Claim(t.Context(), mail.NewID(), quotas, func(_ time.Time, due []queue.Due, _ map[int32]*limit.Account) queue.Claim {
		shown = due
		return queue.Claim{}
	}))
	return shown
}

func TestOwnersClaimingAtOnceNeverGetTheSameMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	dbs := []*DB{b.db, b.open(t, Options{})}
	account := b.relay(t)
	const n = 500
	want := b.acceptN(t, n)
	var mu sync.Mutex
	got := map[mail.ID]mail.ID{} // by owner
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			owner := mail.NewID()
			for empty := 0; empty < 3; {
				var taken []queue.Due
				if err := dbs[i%2].Claim(t.Context(), owner, quota(37), takeAll(account, &taken)); err != nil {
					t.Errorf("claim: %v", err)
					return
				}
				if len(taken) > 37 {
					t.Errorf("claimed %d messages, asked for 37", len(taken))
				}
				if len(taken) == 0 {
					empty++
				}
				mu.Lock()
				for _, d := range taken {
					if other, twice := got[d.ID]; twice {
						t.Errorf("message %s was given to %s and to %s", d.ID, other, owner)
					}
					got[d.ID] = owner
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(got) != len(want) {
		t.Errorf("%d of %d messages were claimed", len(got), len(want))
	}
	for _, row := range list[string](t, b, `SELECT id || ' ' || owner FROM inflight WHERE n = 1 AND started_at IS NULL`) {
		id, err := mail.ParseID(row[:36])
		must(t, err)
		if got[id].String() != row[37:] {
			t.Errorf("message %s belongs to %s in the table and to %s in memory", id, row[37:], got[id])
		}
	}
	if left := get[int](t, b, `SELECT count(*) FROM ready`); left != 0 || get[int](t, b, `SELECT count(*) FROM inflight`) != n {
		t.Errorf("%d messages are ready after all were claimed", left)
	}
}

func TestClaimKeepsToQuotasAndOrder(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ids := b.acceptN(t, 12)
	at := func(i int, lane, tenant int32, due string) {
		b.exec(t, `UPDATE ready SET lane = $2, tenant_id = $3, due = now() + $4::interval WHERE id = $1`, [16]byte(ids[i]), lane, tenant, due)
	}
	for i, due := range []string{"-3 s", "-1 s", "-5 s", "-7 s"} { // lane 1, tenant 1: 3 2 0 1
		at(i, 1, 1, due)
	}
	b.exec(t, `UPDATE ready SET due = (SELECT min(due) FROM ready r WHERE r.lane = 1 AND due < now() - interval '6 s') WHERE id = $1`, [16]byte(ids[2])) // as old as 3: the id decides
	at(4, 1, 2, "-1 s")
	at(5, 1, 2, "-2 s")
	at(6, 2, 1, "-1 s")
	at(7, 2, 1, "1 h") // not due
	at(8, 3, 1, "-1 min")
	at(9, 3, 1, "-10 s")
	at(10, 9, 1, "-1 s") // a lane that nobody asks for
	at(11, 1, 1, "1 min")
	shown := look(t, b.db, []queue.LaneQuota{
		{Lane: queue.Lane{Number: 1, Tenant: 1}, Max: 3},
		{Lane: queue.Lane{Number: 1, Tenant: 2}, Max: 5},
		{Lane: queue.Lane{Number: 2, Tenant: 1}, Max: 5},
		{Lane: queue.Lane{Number: 3, Tenant: 1}, Max: 5, Low: time.Now().Add(-30 * time.Second)},
		{Lane: queue.Lane{Number: 7, Tenant: 1}, Max: 5},
	})
	got := map[queue.Lane][]int{}
	for _, d := range shown {
		got[d.Lane] = append(got[d.Lane], slices.Index(ids, d.ID))
	}
	want := map[queue.Lane][]int{
		{Number: 1, Tenant: 1}: {2, 3, 0}, {Number: 1, Tenant: 2}: {5, 4}, {Number: 2, Tenant: 1}: {6}, {Number: 3, Tenant: 1}: {9},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages shown by lane, in order (-want +got):\n%s", diff)
	}
}

func TestClaimShowsWhatRoutingNeeds(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := with(func(s *record.Submission) {
		s.Message.Tags, s.Message.OnAmbiguous, s.Message.Account = []string{"order"}, mail.Never, "relay"
		s.Message.Bcc = []mail.Address{{Email: "bob@example.net"}}
	})
	b.accept(t, s)
	until := time.Now().UTC().Truncate(time.Second).Add(time.Minute)
	avoid := map[string]queue.Avoid{"ses": {Until: until, Why: "503"}, "smtp": {Final: true, Why: "too large"}}
	b.exec(t, `UPDATE ready SET attempts = 4, tries = 3, avoid = $1`, toJSON(t, avoid))
	got := look(t, b.db, quota(1))
	facts := s.Message.Facts()
	facts.Content = s.Message.ContentHash()
	want := []queue.Due{{
		ID: s.Message.ID, Lane: queue.Lane{Number: lane, Tenant: 1}, Due: get[time.Time](t, b, `SELECT due FROM ready`),
		Attempts: 4, Tries: 3, Avoid: avoid, Facts: &facts, OnAmbiguous: mail.Never, ExpiresAt: s.Message.ExpiresAt,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("due (-want +got):\n%s", diff)
	}
}

func TestClaimGivesTheDatabasesTime(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.acceptN(t, 1)
	before := get[time.Time](t, b, `SELECT clock_timestamp()`)
	var now time.Time
	must(t, b.db.Claim(t.Context(), mail.NewID(), quota(1), func(at time.Time, _ []queue.Due, _ map[int32]*limit.Account) queue.Claim {
		now = at
		return queue.Claim{}
	}))
	if after := get[time.Time](t, b, `SELECT clock_timestamp()`); now.Before(before) || now.After(after.Add(time.Second)) {
		t.Errorf("decide was told %s, want between %s and %s", now, before, after)
	}
}

func TestClaimAppliesEachDecision(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ids := b.acceptN(t, 5)
	owner, account := b.replica(t), b.relay(t)
	untouched := b.rows(t, ids[3])
	hold := get[time.Time](t, b, `SELECT now() + interval '1 min'`)
	must(t, b.db.Claim(t.Context(), owner, quota(100), func(_ time.Time, due []queue.Due, _ map[int32]*limit.Account) queue.Claim {
		var c queue.Claim
		for _, d := range due {
			switch d.ID {
			case ids[0]:
				d.Avoid = map[string]queue.Avoid{"ses": {Final: true, Why: "no"}}
				c.Take = append(c.Take, queue.Assignment{Due: d, Account: account})
			case ids[1]:
				c.Hold = append(c.Hold, queue.Hold{ID: d.ID, Until: hold})
			case ids[2]:
				c.Relane = append(c.Relane, queue.Relane{ID: d.ID, Lane: 77})
			case ids[4]: // both: put off, and moved
				c.Hold = append(c.Hold, queue.Hold{ID: d.ID, Until: hold})
				c.Relane = append(c.Relane, queue.Relane{ID: d.ID, Lane: 77})
			}
		}
		return c
	}))
	for i, want := range []string{"inflight", "ready", "ready", "ready", "ready"} {
		if got := b.place(t, ids[i]); got != want {
			t.Errorf("message %d is %s, want %s", i, got, want)
		}
	}
	taken := get[string](t, b, `SELECT concat_ws(' ', lane, tenant_id, owner, account_id, n, tries, recipients, avoid) FROM inflight`)
	if want := fmt.Sprintf(`%d 1 %s %d 1 0 1 {"ses": {"why": "no", "final": true}}`, lane, owner, account); taken != want {
		t.Errorf("claim = %s, want %s", taken, want)
	}
	for i, want := range map[int]bool{1: true, 4: true, 2: false, 3: false} {
		if got := get[bool](t, b, `SELECT held AND due = $2 FROM ready WHERE id = $1`, [16]byte(ids[i]), hold); got != want {
			t.Errorf("message %d is held: %t, want %t", i, got, want)
		}
	}
	if got := get[int](t, b, `SELECT count(*) FROM ready WHERE lane = 77 AND id = ANY ($1)`, rawIDs([]mail.ID{ids[2], ids[4]})); got != 2 {
		t.Errorf("%d messages moved, want 2", got)
	}
	if diff := cmp.Diff(untouched, b.rows(t, ids[3])); diff != "" {
		t.Errorf("a message in no list changed:\n%s", diff)
	}
}

func TestClaimSkipsWhatOthersHold(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ids := b.acceptN(t, 2)
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `SELECT FROM ready WHERE id = $1 FOR UPDATE`, [16]byte(ids[0]))
	must(t, err)
	if got := look(t, b.db, quota(10)); len(got) != 1 || got[0].ID != ids[1] {
		t.Errorf("shown %v, want only %s", got, ids[1])
	}
}

func TestFailedClaimTakesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.acceptN(t, 1)[0]
	account := b.account(t, "slow", limit.Window{N: 5, Per: 10 * time.Second, Unit: limit.Requests})
	ready := b.rows(t, id)
	spend := func(due []queue.Due, limits map[int32]*limit.Account) queue.Claim {
		if !limits[account].Take(time.Now(), 1, time.Second).OK {
			t.Error("no slot")
		}
		return queue.Claim{Take: []queue.Assignment{{Due: due[0], Account: account}}}
	}
	for range 10 { // more often than there are connections
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic of decide was swallowed")
				}
			}()
			_ = b.db.Claim(t.Context(), mail.NewID(), quota(1), func(_ time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim {
				spend(due, limits)
				panic("bug")
			})
		}()
	}
	err := b.db.Claim(t.Context(), mail.NewID(), quota(1), func(_ time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim {
		c := spend(due, limits)
		c.Take = append(c.Take, c.Take[0]) // the database refuses a message that is claimed twice
		return c
	})
	if err == nil {
		t.Error("a claim of one message twice went through")
	}
	if diff := cmp.Diff(ready, b.rows(t, id)); diff != "" {
		t.Errorf("a failed claim changed the message:\n%s", diff)
	}
	if n := get[int](t, b, `SELECT count(*) FROM rate_window WHERE bins <> '{}' OR tat IS NOT NULL`); n != 0 {
		t.Errorf("failed claims wrote %d limit rows", n)
	}
	if got := b.claim(t, b.replica(t), account, 1); len(got) != 1 {
		t.Error("the message can't be claimed after failed claims")
	}
}

func TestLanesListsWhatHoldsMessages(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if got, err := b.db.Lanes(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("Lanes of an empty queue = %v, %v", got, err)
	}
	ids := b.acceptN(t, 60)
	want := []queue.Lane{{Number: -3, Tenant: 1}, {Number: 0, Tenant: 2}, {Number: 1, Tenant: 1}, {Number: 1, Tenant: 4}, {Number: 9, Tenant: 1}}
	for i, id := range ids {
		l := want[i%len(want)]
		b.exec(t, `UPDATE ready SET lane = $2, tenant_id = $3 WHERE id = $1`, [16]byte(id), l.Number, int32(l.Tenant))
	}
	got, err := b.db.Lanes(t.Context())
	must(t, err)
	slices.Reverse(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lanes, the last first (-want +got):\n%s", diff)
	}
}

// A body without its recipients looks like a message whose recipients were all suppressed: the engine would close it.
func TestLoadThatFailsHalfwayGivesNothing(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ids := b.accept(t, submission("ann@example.org"))
	b.exec(t, `ALTER TABLE recipient RENAME TO elsewhere`)
	if loaded, err := b.db.Load(t.Context(), ids); err == nil || len(loaded) > 0 {
		t.Errorf("loaded %d messages, error %v", len(loaded), err)
	}
}

func TestLoadGivesMessagesAndRecipientsAsTheyAreNow(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := submission("ann@example.org", "late@example.org", "done@example.org", "gone@example.org")
	s.Message.Text = string(make([]byte, 100<<10)) // beyond what stays in the row
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "gone@example.org", Reason: "manual", Origin: "api"}))
	ids := b.accept(t, s, submission(), submission())
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "late@example.org", Reason: "manual", Origin: "api"}))
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "done@example.org", Reason: "manual", Origin: "api"}))
	b.exec(t, `UPDATE recipient SET status = 'delivered' WHERE email = 'done@example.org'`)
	b.exec(t, `DELETE FROM body WHERE id = $1`, [16]byte(ids[1]))
	loaded, err := b.db.Load(t.Context(), append(ids[:2:2], mail.NewID()))
	must(t, err)
	if diff := cmp.Diff(s.Message, loaded[ids[0]].Message); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	var got []mail.Status
	for _, r := range loaded[ids[0]].Recipients {
		got = append(got, r.Status)
	}
	if want := []mail.Status{mail.Queued, mail.Suppressed, mail.Delivered, mail.Suppressed}; !slices.Equal(got, want) {
		t.Errorf("recipients are %v, want %v", got, want)
	}
	if r := loaded[ids[0]].Recipients[0]; r.N != 0 || r.Kind != mail.To || r.Address.Email != "ann@example.org" {
		t.Errorf("first recipient = %+v", r)
	}
	if loaded[ids[1]].Message != nil {
		t.Error("a message without a body was loaded")
	}
	if _, there := loaded[ids[2]]; there {
		t.Error("a message that was not asked for was loaded")
	}
}
