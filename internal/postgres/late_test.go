package postgres

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// rescued is a started call whose replica was taken for dead.
func (b *bed) rescued(t *testing.T) flight {
	t.Helper()
	f := b.flying(t)
	b.expire(t, f.owner)
	_, _, err := b.db.Rescue(t.Context(), waits)
	must(t, err)
	return f
}

func TestLateResultSettlesAnUnknownMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, tc := range []struct {
		name string
		r    queue.Result
		ours bool
		want outcome
	}{
		{
			"accepted",
			queue.Result{Class: "accepted", Recipients: changes("sent", "sent", "sent")},
			true,
			outcome{"settled", "sent: sent sent sent", "accepted/response"},
		},
		{
			"accepted for some",
			queue.Result{Class: "accepted", Recipients: changes("sent", "failed"), Requeue: &queue.Requeue{Tries: 1}},
			true,
			outcome{"ready", "queued: sent failed queued", "accepted/response"},
		},
		{
			"transient",
			queue.Result{Class: "transient", Requeue: &queue.Requeue{Tries: 1}},
			true,
			outcome{"ready", "queued: queued queued queued", "transient/response"},
		},
		{
			"rejected",
			queue.Result{Class: "rejected", Recipients: changes("failed", "failed", "failed")},
			true,
			outcome{"settled", "failed: failed failed failed", "rejected/response"},
		},
		{
			"aborted",
			queue.Result{Class: queue.Aborted, Requeue: &queue.Requeue{}},
			true,
			outcome{"ready", "queued: queued queued queued", "aborted/response"},
		},
		{
			"uncertain",
			queue.Result{Class: "uncertain", Recipients: changes("unknown", "unknown", "unknown"), Unknown: &queue.Hanging{DecideIn: time.Second, Policy: mail.Reconcile}},
			false,
			outcome{"unknown", "unknown: unknown unknown unknown", "uncertain/rescue"},
		},
	} {
		f := b.rescued(t)
		tc.r.ID, tc.r.N = f.id, 1
		if got := b.record(t, f.owner, tc.r); got != tc.ours {
			t.Errorf("%s: settled it: %t, want %t", tc.name, got, tc.ours)
		}
		if got := b.outcome(t, f.id); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
		b.exec(t, `DELETE FROM ready`)
		b.exec(t, `DELETE FROM unknown`)
	}
}

// late is an answer that says everything a result can say.
func late(f flight) queue.Result {
	return queue.Result{
		ID: f.id, N: 1, Class: "accepted", ProviderMessageID: "pm-late", Recipients: changes("sent", "sent", "sent"),
		Requeue: &queue.Requeue{In: time.Hour, Tries: 9}, Park: &queue.Park{Account: f.account, Reason: "late"},
		Block: &queue.Block{Account: f.account, For: time.Hour, Reason: "late"}, Settle: &queue.Settle{At: time.Now(), Recipients: 3},
	}
}

func TestResultOfALostClaimOnlyTellsWhatBecameOfItsAttempt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	decided := func(again bool) {
		b.exec(t, `UPDATE unknown SET decide_at = now() - interval '1 s'`)
		_, _, err := b.db.DecideUnknown(t.Context(), again, 2)
		must(t, err)
	}
	next := func(f flight) (mail.ID, queue.Due) {
		owner := b.replica(t)
		return owner, b.claim(t, owner, f.account, 1)[0]
	}
	for _, tc := range []struct {
		name     string
		then     func(flight) // what happened since the rescue
		attempts string
		verdict  bool // the attempt was uncertain, and now it is known
	}{
		{"given up", func(f flight) { decided(false) }, "accepted/response", true},
		{"due again", func(f flight) { decided(true) }, "accepted/response", true},
		{"in the next call", func(f flight) {
			decided(true)
			owner, d := next(f)
			b.intend(t, owner, intent(d, f.account))
		}, "accepted/response open/", true},
		{"unknown from the next call", func(f flight) {
			decided(true)
			owner, d := next(f)
			b.intend(t, owner, intent(d, f.account))
			b.expire(t, owner)
			_, _, err := b.db.Rescue(t.Context(), waits)
			must(t, err)
		}, "accepted/response uncertain/rescue", true},
		{"settled by another answer", func(f flight) {
			b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "rejected", Recipients: changes("failed", "failed", "failed")})
		}, "rejected/response", false},
	} {
		f := b.rescued(t)
		tc.then(f)
		before, version := b.rows(t, f.id), b.version(t)
		if b.record(t, f.owner, late(f)) {
			t.Errorf("%s: the claim counted as ours", tc.name)
		}
		after := b.rows(t, f.id)
		if got := b.attempts(t, f.id); got != tc.attempts {
			t.Errorf("%s: attempts are %s, want %s", tc.name, got, tc.attempts)
		}
		if tc.verdict {
			delete(before, "attempt")
			delete(after, "attempt")
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s: a late result changed the message:\n%s", tc.name, diff)
		}
		if got := get[int](t, b, `SELECT count(*) FROM account_park`); got != 0 || b.version(t) != version {
			t.Errorf("%s: a late result parked the account", tc.name)
		}
		blocks, err := b.db.Blocks(t.Context())
		if must(t, err); len(blocks) != 0 {
			t.Errorf("%s: a late result blocked the account", tc.name)
		}
		b.exec(t, `DELETE FROM ready`)
		b.exec(t, `DELETE FROM unknown`)
		b.exec(t, `DELETE FROM inflight`)
	}
}

// A claim that was not started when its replica lost the lease is made again under the same number by another replica.
// What the first one records of that number is about no call at all.
func TestResultOfAnotherOwnersCallIsIgnored(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	for _, stage := range []string{"started", "unknown"} {
		id := b.acceptN(t, 1)[0]
		first := b.replica(t)
		b.claim(t, first, account, 1)
		b.expire(t, first)
		_, _, err := b.db.Rescue(t.Context(), waits)
		must(t, err)
		second := b.replica(t)
		d := b.claim(t, second, account, 1)[0]
		if d.Attempts != 0 || !b.intend(t, second, intent(d, account)) {
			t.Fatal("the second owner can't start")
		}
		if stage == "unknown" {
			b.expire(t, second)
			_, _, err := b.db.Rescue(t.Context(), waits)
			must(t, err)
		}
		before := b.rows(t, id)
		r := queue.Result{ID: id, N: 1, Class: queue.Aborted, Error: "nothing was sent", Requeue: &queue.Requeue{}}
		if b.record(t, first, r) {
			t.Errorf("%s: the first owner closed the second one's claim", stage)
		}
		if diff := cmp.Diff(before, b.rows(t, id)); diff != "" {
			t.Errorf("%s: the first owner's result changed the second one's call:\n%s", stage, diff)
		}
		b.exec(t, `DELETE FROM unknown`)
	}
}

func TestOneBatchMayHoldTwoResultsOfOneMessage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.rescued(t)
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	_, _, err := b.db.DecideUnknown(t.Context(), true, 2)
	must(t, err)
	owner := b.replica(t)
	d := b.claim(t, owner, f.account, 1)[0]
	if !b.intend(t, owner, intent(d, f.account)) {
		t.Fatal("intent refused")
	}
	old := late(f)
	fresh := queue.Result{ID: f.id, N: 2, Class: "transient", Requeue: &queue.Requeue{Tries: 3}}
	ours, errs := b.db.recordBatch(t.Context(), []ownedResult{{old, f.owner}, {fresh, owner}})
	must(t, errs[0])
	must(t, errs[1])
	if ours[0] || !ours[1] {
		t.Errorf("ours = %v, want only the second", ours)
	}
	want := outcome{"ready", "queued: queued queued queued", "accepted/response transient/response"}
	if got := b.outcome(t, f.id); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := get[string](t, b, `SELECT concat_ws(' ', attempts, tries) FROM ready`); got != "2 3" {
		t.Errorf("next place: %s, want that of the second result", got)
	}
}

// The answer to a release may be lost, and the release repeated when the message has long been claimed again by the same
// replica, under the same number: no call had used it.
func TestARepeatedReleaseLeavesTheNextCallAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	owner, account := b.replica(t), b.relay(t)
	id := b.accept(t, submission())[0]
	release := queue.Result{ID: id, N: 1, Requeue: &queue.Requeue{}}
	b.claim(t, owner, account, 1)
	if !b.record(t, owner, release) || b.place(t, id) != "ready" {
		t.Fatalf("released message is %s, want ready", b.place(t, id))
	}
	again := b.claim(t, owner, account, 1)[0]
	if !b.intend(t, owner, intent(again, account)) {
		t.Fatal("intent refused")
	}
	if b.record(t, owner, release) || b.place(t, id) != "started" {
		t.Errorf("repeated release made a message whose call is under way %s: it would be sent twice", b.place(t, id))
	}
	b.expire(t, owner)
	_, _, err := b.db.Rescue(t.Context(), waits)
	must(t, err)
	if b.record(t, owner, release) || b.place(t, id) != "unknown" {
		t.Errorf("repeated release made an unknown message %s", b.place(t, id))
	}
}

// As above, with a result of a call: its record was committed, the answer to that lost, and the same replica has the
// message again, in its next call or unknown from that.
func TestARepeatedResultLeavesTheNextCallAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	first := queue.Result{ID: f.id, N: 1, Class: "transient", Requeue: &queue.Requeue{Tries: 1}}
	if !b.record(t, f.owner, first) || b.place(t, f.id) != "ready" {
		t.Fatalf("message of a transient failure is %s, want ready", b.place(t, f.id))
	}
	d := b.claim(t, f.owner, f.account, 1)[0]
	if !b.intend(t, f.owner, intent(d, f.account)) {
		t.Fatal("intent refused")
	}
	for _, stage := range []string{"started", "unknown"} {
		before := b.rows(t, f.id)
		if b.record(t, f.owner, first) || b.place(t, f.id) != stage {
			t.Errorf("%s: the repeated result of the first call closed the second, which is %s now: it would be made twice", stage, b.place(t, f.id))
		}
		if diff := cmp.Diff(before, b.rows(t, f.id)); diff != "" {
			t.Errorf("%s: the repeated result changed the message:\n%s", stage, diff)
		}
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 2, Class: "uncertain", Recipients: changes("unknown"),
			Unknown: &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile},
		})
	}
}

func TestResultThatWaitedForTheRescuerIsNotLost(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	b.expire(t, f.owner)
	tx := b.begin(t)
	if _, started, err := b.db.takeBack(t.Context(), tx, `f.owner = $4`, waits, [16]byte(f.owner)); err != nil || started != 1 {
		t.Fatalf("took back %d, %v; want 1", started, err)
	}
	ours := make(chan bool)
	go func() {
		ok, err := b.db.Record(t.Context(), f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", Recipients: changes("sent")})
		ours <- ok && err == nil
	}()
	const waiting = `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`
	for deadline := time.Now().Add(10 * time.Second); get[int](t, b, waiting) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the result does not wait for the rescuer")
		}
	}
	must(t, tx.Commit(t.Context()))
	if !<-ours || b.place(t, f.id) != "settled" || b.status(t, f.id) != "sent: sent" || b.attempts(t, f.id) != "accepted/response" {
		t.Errorf("message is %s, %s, attempts %s: want it sent and settled", b.place(t, f.id), b.status(t, f.id), b.attempts(t, f.id))
	}
}
