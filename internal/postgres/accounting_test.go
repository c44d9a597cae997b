package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

func (b *bed) books(t *testing.T) queue.Accounting {
	t.Helper()
	a, err := b.db.Accounting(t.Context())
	must(t, err)
	return a
}

// balanced checks that nothing contradicts itself, and what is open: "2 ready, 0 claimed, 1 in a call, 0 unknown".
func (b *bed) balanced(t *testing.T, after, want string) {
	t.Helper()
	a := b.books(t)
	sum := a.Total()
	got := fmt.Sprintf("%d ready, %d claimed, %d in a call, %d unknown", sum.Ready, sum.Unstarted, sum.Started, sum.Unknown)
	if len(a.Violations) > 0 || got != want {
		t.Errorf("after %s: %s, violations %+v; want %s and none", after, got, a.Violations, want)
	}
}

func (b *bed) lookedUp(t *testing.T, f flight, found bool) {
	t.Helper()
	_, err := b.db.Resolve(t.Context(), record.Verdict{ID: f.id, N: 1, Account: f.account, Found: found})
	must(t, err)
}

func (b *bed) decide(t *testing.T, resend bool) {
	t.Helper()
	b.exec(t, `UPDATE unknown SET decide_at = now() - interval '1 s'`)
	_, _, err := b.db.DecideUnknown(t.Context(), resend, 2)
	must(t, err)
}

func (b *bed) rescueAll(t *testing.T) {
	t.Helper()
	_, _, err := b.db.Rescue(t.Context(), waits)
	must(t, err)
}

func TestBooksBalanceWhateverBecomesOfAMessage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := newBed(t)
	b.balanced(t, "nothing", "0 ready, 0 claimed, 0 in a call, 0 unknown")
	must(t, b.db.Suppress(ctx, record.Suppression{Tenant: mail.DefaultTenant, Email: "gone@example.org", Reason: "manual", Origin: "api"}))
	b.accept(t, submission("gone@example.org"), submission("gone@example.org", "ann@example.org"),
		with(func(s *record.Submission) { s.Message.SendAt = time.Now().Add(time.Hour) }))
	b.balanced(t, "accepting", "2 ready, 0 claimed, 0 in a call, 0 unknown")
	b.exec(t, `DELETE FROM ready; UPDATE recipient SET status = 'cancelled'; UPDATE message SET status = 'cancelled'`)

	account := b.relay(t)
	owner := b.replica(t)
	ids := b.acceptN(t, 8)
	due := b.claim(t, owner, account, 6)
	b.balanced(t, "a claim", "2 ready, 6 claimed, 0 in a call, 0 unknown")
	for _, d := range due[:5] {
		b.intend(t, owner, intent(d, account))
	}
	b.balanced(t, "the intents", "2 ready, 1 claimed, 5 in a call, 0 unknown")
	b.record(t, owner, sent(due[0]))
	b.record(t, owner, queue.Result{ID: due[1].ID, N: 1, Class: "transient", Requeue: &queue.Requeue{In: time.Hour}})
	b.record(t, owner, queue.Result{ID: due[2].ID, N: 1, Class: "rejected", Recipients: changes("failed")})
	b.record(t, owner, queue.Result{ID: due[5].ID, N: 1, Requeue: &queue.Requeue{In: time.Hour}})
	b.balanced(t, "results and a release", "4 ready, 0 claimed, 2 in a call, 0 unknown")
	b.record(t, owner, queue.Result{ID: due[3].ID, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{Policy: mail.Resend, DecideIn: time.Hour}})
	b.balanced(t, "an answer that was lost", "4 ready, 0 claimed, 1 in a call, 1 unknown")
	must(t, b.db.Cancel(ctx, mail.DefaultTenant, ids[7]))
	must(t, b.db.Resend(ctx, mail.DefaultTenant, due[2].ID, false))
	b.exec(t, `UPDATE ready SET lane = $2 WHERE id = $1`, [16]byte(due[2].ID), lane+1)
	b.balanced(t, "an operator", "4 ready, 0 claimed, 1 in a call, 1 unknown")
	late := get[[16]byte](t, b, `SELECT id FROM ready WHERE lane = $1 ORDER BY due, id LIMIT 1`, lane)
	must(t, b.db.End(ctx, []queue.Ending{{ID: late, Status: mail.Expired, Detail: "late"}}))
	b.balanced(t, "expiry", "3 ready, 0 claimed, 1 in a call, 1 unknown")
	b.expire(t, owner)
	b.rescueAll(t)
	b.balanced(t, "the death of its replica", "3 ready, 0 claimed, 0 in a call, 2 unknown")
	b.record(t, owner, sent(due[4]))
	b.balanced(t, "a late answer", "3 ready, 0 claimed, 0 in a call, 1 unknown")
	b.decide(t, false)
	b.balanced(t, "the deadline", "4 ready, 0 claimed, 0 in a call, 0 unknown")
}

// What the providers tell comes at any time: a message may be settled by it while it waits to be sent again, or is in the
// call that sends it again.
func TestBooksBalanceWhenEvidenceOvertakes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const none = "0 ready, 0 claimed, 0 in a call, 0 unknown"
	delivered := func(f flight) record.Intake {
		return hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 1))
	}
	again := func() (flight, queue.Due, mail.ID) { // a message that is claimed again since nobody knew
		f := b.hang(t, mail.Resend, time.Minute)
		b.decide(t, true)
		owner := b.replica(t)
		return f, b.claim(t, owner, f.account, 1)[0], owner
	}

	f := b.hang(t, mail.Reconcile, time.Minute)
	b.receive(t, delivered(f))
	b.balanced(t, "an event of an unknown message", none)
	f = b.hang(t, mail.Reconcile, time.Minute)
	b.lookedUp(t, f, true)
	b.balanced(t, "a look-up that found it", none)
	f = b.hang(t, mail.Reconcile, time.Minute)
	b.lookedUp(t, f, false)
	b.balanced(t, "a look-up that proved it absent", "1 ready, 0 claimed, 0 in a call, 0 unknown")
	b.receive(t, delivered(f))
	b.balanced(t, "an event that proved the look-up wrong", none)
	f = b.hang(t, mail.Never, time.Minute)
	b.decide(t, false)
	b.receive(t, delivered(f))
	b.balanced(t, "an event of a message that was given up", none)

	f, d, owner := again()
	b.receive(t, delivered(f))
	b.balanced(t, "an event of a message that is claimed again", "0 ready, 1 claimed, 0 in a call, 0 unknown")
	b.intend(t, owner, intent(d, f.account))
	b.balanced(t, "its call, all the same", "0 ready, 0 claimed, 1 in a call, 0 unknown")
	b.record(t, owner, queue.Result{ID: f.id, N: 2, Class: "transient", Requeue: &queue.Requeue{In: time.Hour}})
	b.balanced(t, "its requeueing", "1 ready, 0 claimed, 0 in a call, 0 unknown")
	b.exec(t, `DELETE FROM ready`)

	f, _, _ = again()
	b.receive(t, delivered(f))
	raw, err := b.db.RawEvents(t.Context(), "relay", time.Time{}, mail.ID{}, 10)
	must(t, err)
	_, _, err = b.db.Reproject(t.Context(), []record.Reprojected{{Origin: raw[len(raw)-1].Origin, Events: []mail.Event{told(f.id, mail.EventUnmapped, "", 1)}}}, false)
	must(t, err)
	b.balanced(t, "evidence that is read otherwise now", "0 ready, 1 claimed, 0 in a call, 0 unknown")
	b.exec(t, `DELETE FROM inflight`)

	f = b.fly(t, submission("ann@example.org", "bob@example.org"))
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "accepted", Recipients: changes("sent"), Requeue: &queue.Requeue{}})
	b.claim(t, f.owner, f.account, 1)
	b.receive(t, hook(f.account, told(f.id, mail.EventBounced, "bob@example.org", 1, mail.MailboxFull)))
	b.balanced(t, "an event of a recipient that is claimed again", "0 ready, 1 claimed, 0 in a call, 0 unknown")
	b.exec(t, `DELETE FROM inflight`)

	f, d, owner = again()
	other := b.account(t, "other")
	b.exec(t, `UPDATE inflight SET account_id = $1`, other)
	b.intend(t, owner, intent(d, other))
	b.record(t, owner, queue.Result{ID: f.id, N: 2, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{Policy: mail.Reconcile, DecideIn: time.Hour}})
	b.receive(t, delivered(f))
	b.balanced(t, "an event of the call before the one that is unknown", "0 ready, 0 claimed, 0 in a call, 0 unknown")
}

func TestBooksOfEachTenant(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other, err := b.db.CreateTenant(t.Context(), "ops", record.Tenant{Name: "other", Weight: 1})
	must(t, err)
	b.hang(t, mail.Never, 90*time.Second)
	b.flying(t)
	b.claim(t, b.replica(t), b.relay(t), len(b.acceptN(t, 1)))
	for range 3 {
		b.accept(t, with(func(s *record.Submission) { s.Message.Tenant = other.ID }))
	}
	a := b.books(t)
	if diff := cmp.Diff([]queue.Book{{Tenant: "default", Unstarted: 1, Started: 1, Unknown: 1}, {Tenant: "other", Ready: 3}}, a.Books); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
	if a.UnknownAge < 90*time.Second || a.UnknownAge > time.Hour {
		t.Errorf("the oldest is unknown for %s, want 90 s and a little", a.UnknownAge)
	}
}

// Each rule is broken by hand; it has to be found, with tenant and message, and no other.
func TestEachContradictionIsFound(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other, err := b.db.CreateTenant(t.Context(), "ops", record.Tenant{Name: "other", Weight: 1})
	must(t, err)
	ready := func() mail.ID {
		return b.accept(t, with(func(s *record.Submission) { s.Message.Tenant = other.ID }))[0]
	}
	claimed := func() mail.ID {
		id := b.acceptN(t, 1)[0]
		b.claim(t, b.replica(t), b.relay(t), 1)
		return id
	}
	started := func() mail.ID { return b.fly(t, submission()).id }
	unknown := func() mail.ID { return b.hang(t, mail.Never, 0).id }
	settled := func() mail.ID {
		f := b.fly(t, submission())
		b.record(t, f.owner, sent(f.due))
		return f.id
	}
	const toReady = `INSERT INTO ready (id, lane, tenant_id, due) VALUES ($1, 1, 1, now())`
	for _, tc := range []struct {
		name   string
		of     func() mail.ID
		tamper string
		kind   queue.ViolationKind
	}{
		{"ready row gone", ready, `DELETE FROM ready WHERE id = $1`, queue.Lost},
		{"claim gone", claimed, `DELETE FROM inflight WHERE id = $1`, queue.Lost},
		{"unknown row gone", unknown, `DELETE FROM unknown WHERE id = $1`, queue.Lost},
		{"settled message opened", settled, `UPDATE message SET status = 'queued' WHERE id = $1`, queue.Lost},
		{"claimed and ready", claimed, toReady, queue.Twice},
		{"in a call and ready", started, toReady, queue.Twice},
		{"ready without message", ready, `DELETE FROM message WHERE id = $1`, queue.NoMessage},
		{"claimed without message", claimed, `DELETE FROM message WHERE id = $1`, queue.NoMessage},
		{"unknown without message", unknown, `DELETE FROM message WHERE id = $1`, queue.NoMessage},
		{"ready and settled", ready, `UPDATE message SET status = 'sent' WHERE id = $1`, queue.Ended},
		{"in a call and settled", started, `UPDATE message SET status = 'failed' WHERE id = $1`, queue.Ended},
		{"settled and ready", settled, toReady, queue.Ended},
		{"unknown by status only", ready, `UPDATE message SET status = 'unknown' WHERE id = $1`, queue.Misplaced},
		{"unknown by place only", unknown, `UPDATE message SET status = 'queued' WHERE id = $1`, queue.Misplaced},
		{"another tenant's lane", ready, `UPDATE ready SET tenant_id = 1 WHERE id = $1`, queue.WrongTenant},
		{"another tenant's, and settled", ready, `WITH m AS (UPDATE message SET status = 'sent' WHERE id = $1) UPDATE ready SET tenant_id = 1 WHERE id = $1`, queue.WrongTenant},
		{"result gone", settled, `UPDATE attempt SET class = NULL, finished_at = NULL WHERE message_id = $1`, queue.OpenAttempt},
		{"attempt of a message that is gone", settled, `WITH m AS (DELETE FROM message WHERE id = $1) UPDATE attempt SET class = NULL, finished_at = NULL WHERE message_id = $1`, queue.OpenAttempt},
		{"attempt without a call", claimed, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at) VALUES ($1, 7, $1, 1, '{}', now())`, queue.OpenAttempt},
		{"another call beside the one", started, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at) VALUES ($1, 7, $1, 1, '{}', now())`, queue.OpenAttempt},
		{"claim under a number that was used", claimed, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, class, finished_at) VALUES ($1, 1, $1, 1, '{}', now(), 'transient', now())`, queue.AttemptState},
		{"call without an attempt", started, `DELETE FROM attempt WHERE message_id = $1`, queue.AttemptState},
		{"call with a result", started, `UPDATE attempt SET class = 'transient', finished_at = now() WHERE message_id = $1`, queue.AttemptState},
		{"unknown with a result", unknown, `UPDATE attempt SET class = 'accepted' WHERE message_id = $1`, queue.AttemptState},
		{"unknown and proved", unknown, `UPDATE attempt SET seen_at = now(), seen_by = 'webhook' WHERE message_id = $1`, queue.AttemptState},
		{"unknown without an attempt", unknown, `DELETE FROM attempt WHERE message_id = $1`, queue.AttemptState},
	} {
		id := tc.of()
		b.acceptN(t, 2) // these are in order
		b.exec(t, tc.tamper, [16]byte(id))
		want := []queue.Violation{{Kind: tc.kind, Tenant: get[string](t, b, `SELECT coalesce((SELECT t.name FROM message m JOIN tenant t ON t.id = m.tenant_id WHERE m.id = $1),
			(SELECT t.name FROM tenant t JOIN (SELECT tenant_id FROM ready WHERE id = $1 UNION ALL SELECT tenant_id FROM inflight WHERE id = $1 UNION ALL SELECT tenant_id FROM unknown WHERE id = $1) q ON q.tenant_id = t.id), '#0')`, [16]byte(id)), Count: 1, IDs: []mail.ID{id}}}
		if diff := cmp.Diff(want, b.books(t).Violations); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		b.clear(t)
	}
}

func TestContradictionsAreCountedAndSomeNamed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	twice := b.hang(t, mail.Never, 0).id
	ids := b.acceptN(t, 5)
	b.exec(t, `DELETE FROM ready`)
	b.exec(t, `INSERT INTO ready (id, lane, tenant_id, due) VALUES ($1, 1, 1, now())`, [16]byte(twice))
	b.exec(t, `INSERT INTO inflight (id, lane, tenant_id, owner, account_id, n, tries, recipients) VALUES ($1, 1, 1, $1, 1, 2, 0, 1)`, [16]byte(twice))
	slices.SortFunc(ids, func(a, c mail.ID) int { return strings.Compare(a.String(), c.String()) })
	a := b.books(t)
	want := []queue.Violation{
		{Kind: queue.Lost, Tenant: "default", Count: 5, IDs: ids[:3]},
		{Kind: queue.Twice, Tenant: "default", Count: 1, IDs: []mail.ID{twice}},
		{Kind: queue.Misplaced, Tenant: "default", Count: 2, IDs: []mail.ID{twice, twice}},
	}
	if diff := cmp.Diff(want, a.Violations); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
	if a.Count(queue.Lost) != 5 || a.Count(queue.NoMessage) != 0 {
		t.Errorf("counts: %d lost, %d without message; want 5 and 0", a.Count(queue.Lost), a.Count(queue.NoMessage))
	}
}

func TestWhatIsInAnyTwoPlacesIsFound(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for name, tamper := range map[string]string{
		"ready and claimed":   `INSERT INTO ready (id, lane, tenant_id, due) VALUES ($1, 1, 1, now()); DELETE FROM unknown`,
		"ready and unknown":   `INSERT INTO ready (id, lane, tenant_id, due) VALUES ($1, 1, 1, now()); DELETE FROM inflight`,
		"claimed and unknown": ``,
	} {
		id := b.hang(t, mail.Never, 0).id
		b.exec(t, `INSERT INTO inflight (id, lane, tenant_id, owner, account_id, n, tries, recipients) VALUES ($1, 1, 1, $1, 1, 2, 0, 1)`, [16]byte(id))
		for _, sql := range strings.Split(tamper, "; ") {
			if strings.Contains(sql, "$1") {
				b.exec(t, sql, [16]byte(id))
			} else {
				b.exec(t, sql)
			}
		}
		if a := b.books(t); a.Count(queue.Twice) != 1 {
			t.Errorf("%s: %+v, want it found", name, a.Violations)
		}
		b.clear(t)
	}
}

func (b *bed) clear(t *testing.T) {
	t.Helper()
	b.exec(t, `DELETE FROM ready; DELETE FROM inflight; DELETE FROM unknown; DELETE FROM message; DELETE FROM recipient; DELETE FROM attempt`)
}

// bustle moves messages on all of their ways at once until done is closed.
func (b *bed) bustle(t *testing.T, account int32, done <-chan struct{}) {
	t.Helper()
	owner := b.replica(t)
	for round := 0; ; round++ {
		select {
		case <-done:
			return
		default:
		}
		b.acceptN(t, 8)
		for i, d := range b.claim(t, owner, account, 6) {
			if i == 5 || !b.intend(t, owner, intent(d, account)) {
				continue // left to the rescuer
			}
			r := sent(d)
			switch (round + i) % 4 {
			case 0:
				r = queue.Result{ID: d.ID, N: d.Attempts + 1, Class: "transient", Requeue: &queue.Requeue{}}
			case 1:
				r = queue.Result{ID: d.ID, N: d.Attempts + 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{Policy: mail.Resend}}
			}
			b.record(t, owner, r)
			b.receive(t, hook(account, told(d.ID, mail.EventDelivered, "ann@example.org", i)))
		}
		b.expire(t, owner)
		_, _, err := b.db.Rescue(t.Context(), waits)
		_, _, later := b.db.DecideUnknown(t.Context(), true, 2)
		for _, err := range []error{err, later} { // one that lost a lock is repeated by the next round
			if _, busy := errors.AsType[*record.Unavailable](err); !busy {
				must(t, err)
			}
		}
		owner = b.replica(t)
	}
}

func TestBooksBalanceWhileMailMoves(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	done := make(chan struct{})
	var movers sync.WaitGroup
	for range 3 {
		movers.Go(func() { b.bustle(t, account, done) })
	}
	var seen [4]int
	for n := 0; n < 20 || n < 200 && slices.Contains(seen[:], 0); n++ {
		a := b.books(t)
		if len(a.Violations) > 0 {
			t.Errorf("while mail moves: %+v", a.Violations)
			break
		}
		for i, n := range []int{a.Total().Ready, a.Total().Unstarted, a.Total().Started, a.Total().Unknown} {
			seen[i] += n
		}
	}
	close(done)
	movers.Wait()
	if slices.Contains(seen[:], 0) {
		t.Errorf("messages seen ready, claimed, in a call, unknown: %v; want some of each", seen)
	}
}

func TestOneReplicaAtATimeChecksTheBooks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1)`, accountingLock)
	must(t, err)
	b.acceptN(t, 1)
	if a, mine, err := b.db.AccountingAlone(t.Context()); mine || len(a.Books) > 0 || err != nil {
		t.Errorf("beside another replica: %+v, %t, %v; want it to leave", a, mine, err)
	}
	if a := b.books(t); len(a.Books) != 1 {
		t.Errorf("an operator who asks is told %+v, want the books", a)
	}
	must(t, tx.Rollback(t.Context()))
	if a, mine, err := b.db.AccountingAlone(t.Context()); !mine || len(a.Books) != 1 || err != nil {
		t.Errorf("alone: %+v, %t, %v; want the books", a, mine, err)
	}
}

// A process that waits for its machine between two statements keeps its check: it locks no row that a claim waits for.
func TestTheCheckOfTheBooksMayPause(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	must(t, b.db.inCheck(t.Context(), func(tx pgx.Tx) error {
		var idle string
		if err := tx.QueryRow(t.Context(), `SELECT current_setting('idle_in_transaction_session_timeout')`).Scan(&idle); err != nil {
			return err
		}
		if idle != accountingTimeout {
			t.Errorf("the session ends after a pause of %s, want %s", idle, accountingTimeout)
		}
		return nil
	}))
}

// keptIndex is a scan of an index of what is kept: the day, and which.
var keptIndex = regexp.MustCompile(`Scan (?:using|on) (?:message|attempt|recipient)_(\d{8})_(\w+)`)
