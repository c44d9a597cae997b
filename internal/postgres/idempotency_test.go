package postgres

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

func keyed(key string) *record.Submission {
	return with(func(s *record.Submission) { s.Key = key })
}

func TestOneKeyFromTwoReplicasAtOnceMakesOneMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	dbs := []*DB{b.db, b.open(t, Options{})}
	const callers, rounds = 64, 3
	for round := range rounds {
		key := fmt.Sprintf("key-%d", round)
		answers := make([]record.Accepted, callers)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range callers {
			wg.Go(func() {
				<-start
				var err error
				if answers[i], err = dbs[i%2].Accept(t.Context(), keyed(key)); err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
			})
		}
		close(start)
		wg.Wait()
		first := 0
		for i := range answers {
			if !answers[i].Replayed {
				first++
			}
			answers[i].Replayed = false
			if diff := cmp.Diff(answers[0], answers[i]); diff != "" {
				t.Fatalf("answers differ:\n%s", diff)
			}
		}
		if first != 1 {
			t.Errorf("%d of %d answers were first ones, want 1", first, callers)
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM message`); n != rounds {
		t.Errorf("%d messages for %d keys", n, rounds)
	}
	if n := get[int](t, b, `SELECT count(*) FROM ready`) + get[int](t, b, `SELECT count(*) FROM body`) + get[int](t, b, `SELECT count(*) FROM recipient`); n != 3*rounds {
		t.Errorf("losers left rows: %d in all, want %d", n, 3*rounds)
	}
}

// The second statement begins before the first commits: what it can see of the key when it begins says nothing.
func TestKeyThatIsTakenMeanwhileIsReplayed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	first := keyed("k")
	batch, err := b.db.acceptRows([]*record.Submission{first})
	must(t, err)
	tx := b.begin(t)
	rows, err := tx.Query(t.Context(), acceptSQL, batch)
	must(t, err)
	won, err := collectAccepted(rows)
	if must(t, err); len(won) != 1 {
		t.Fatalf("the first one won %d keys", len(won))
	}
	var got record.Accepted
	second := make(chan error, 1)
	go func() {
		var err error
		got, err = b.db.Accept(t.Context(), keyed("k"))
		second <- err
	}()
	until(t, "the second to wait for the first", func() bool {
		return get[bool](t, b, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`)
	})
	must(t, tx.Commit(t.Context()))
	must(t, <-second)
	if got.ID != first.Message.ID || !got.Replayed {
		t.Errorf("the second got %+v, want message %s again", got, first.Message.ID)
	}
	if n := get[int](t, b, `SELECT count(*) FROM message`); n != 1 {
		t.Errorf("%d messages for one key", n)
	}
}

func TestManyKeysInOppositeOrderDoNotDeadlock(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	dbs := []*DB{b.db, b.open(t, Options{})}
	other, err := b.db.CreateTenant(t.Context(), "tester", record.Tenant{Name: "other", Weight: 100})
	must(t, err)
	const deadlocks = `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`
	before := get[int64](t, b, deadlocks)
	var wg sync.WaitGroup
	for i := range 8 {
		var subs []*record.Submission
		for k := range 40 {
			for tenant := range 2 {
				s := keyed(fmt.Sprintf("key-%d", k))
				if tenant == 1 {
					s.Message.Tenant = other.ID
				}
				subs = append(subs, s)
			}
		}
		if i%4 >= 2 {
			slices.Reverse(subs)
		}
		wg.Go(func() {
			_, errs := dbs[i%2].AcceptAll(t.Context(), subs)
			for k, err := range errs {
				if err != nil {
					t.Errorf("caller %d, key %d: %v", i, k, err)
				}
			}
		})
	}
	wg.Wait()
	if n := get[int](t, b, `SELECT count(*) FROM message`); n != 80 {
		t.Errorf("%d messages for 80 keys", n)
	}
	if n := get[int64](t, b, deadlocks) - before; n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

func TestKeyWithAnotherBodyIsRefused(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.accept(t, keyed("k"))[0]
	before := b.rows(t, id)
	other := keyed("k")
	other.Fingerprint = sha256.Sum256([]byte("another body"))
	good := keyed("fresh")
	_, errs := b.db.AcceptAll(t.Context(), []*record.Submission{other, good})
	if !errors.Is(errs[0], record.ErrMismatch) {
		t.Errorf("another body under the key: %v, want ErrMismatch", errs[0])
	}
	must(t, errs[1])
	if n := get[int](t, b, `SELECT count(*) FROM message`); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	if diff := cmp.Diff(before, b.rows(t, id)); diff != "" {
		t.Errorf("the first message changed:\n%s", diff)
	}
}

func TestKeyBelongsToItsTenant(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other, err := b.db.CreateTenant(t.Context(), "tester", record.Tenant{Name: "other", Weight: 100})
	must(t, err)
	theirs := keyed("k")
	theirs.Message.Tenant = other.ID
	theirs.Fingerprint = sha256.Sum256([]byte("another body"))
	ids := b.accept(t, keyed("k"), theirs)
	if ids[0] == ids[1] {
		t.Error("two tenants share a key")
	}
	for i, first := range []*record.Submission{keyed("k"), theirs} { // and neither hears of the other when it asks again
		again := keyed("k")
		again.Message.Tenant, again.Fingerprint = first.Message.Tenant, first.Fingerprint
		got, err := b.db.Accept(t.Context(), again)
		must(t, err)
		if got.ID != ids[i] || !got.Replayed || len(got.Recipients) != 1 {
			t.Errorf("tenant %d: replay = %+v, want message %s and its one recipient", again.Message.Tenant, got, ids[i])
		}
	}
}

func TestReplayGivesTheFirstAnswerWhateverHappenedSince(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "gone@example.org", Reason: "manual", Origin: "api"}))
	s := submission("ann@example.org", "gone@example.org", "late@example.org")
	s.Key = "k"
	first, err := b.db.Accept(t.Context(), s)
	must(t, err)
	f := flight{id: first.ID, owner: b.replica(t), account: b.relay(t)}
	f.due = b.claim(t, f.owner, f.account, 1)[0]
	b.intend(t, f.owner, intent(f.due, f.account))
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", Recipients: []queue.RecipientChange{
		{N: 0, Status: mail.Sent}, {N: 2, Status: mail.Suppressed, Detail: "since then"},
	}})
	again := submission("ann@example.org", "gone@example.org", "late@example.org")
	again.Key = "k"
	got, err := b.db.Accept(t.Context(), again)
	must(t, err)
	if !got.Replayed {
		t.Error("not marked as replayed")
	}
	got.Replayed = false
	if diff := cmp.Diff(first, got); diff != "" {
		t.Errorf("replay (-first +now):\n%s", diff)
	}
}

func TestReplayOutlivesTheBody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := keyed("k")
	first, err := b.db.Accept(t.Context(), s)
	must(t, err)
	b.exec(t, `DELETE FROM body`) // its retention is over
	again, fresh := keyed("k"), keyed("fresh")
	accepted, errs := b.db.AcceptAll(t.Context(), []*record.Submission{again, fresh})
	if errs[1] != nil || accepted[1].ID != fresh.Message.ID {
		t.Errorf("beside a replay without a body: %+v, %v", accepted[1], errs[1])
	}
	must(t, errs[0])
	first.Replayed = true
	if diff := cmp.Diff(first, accepted[0]); diff != "" {
		t.Errorf("replay (-want +got):\n%s", diff)
	}
}
