package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// lost is a database that was restored: three accounts in the default pool, one elsewhere, and no replica that lives.
func lost(t *testing.T) (b *bed, since time.Time) {
	t.Helper()
	b = newBed(t)
	for _, name := range []string{"mailgun", "postmark", "relay", "elsewhere"} {
		b.account(t, name)
	}
	_, err := b.db.UpdatePool(t.Context(), "tester", route.Pool{
		Name: route.DefaultPool, Overflow: route.Spill,
		Members: []route.Member{{Account: "mailgun", Weight: 1}, {Account: "postmark"}, {Account: "relay", Weight: 1}},
	}, 1)
	must(t, err)
	return b, time.Now().Add(time.Minute).Truncate(time.Second)
}

// restore runs Restore as if the data reached to since, which is in the future: so everything was accepted before it.
func (b *bed) restore(t *testing.T, since time.Time) RestoreCounts {
	t.Helper()
	b.exec(t, `UPDATE replica SET lease_until = now() - interval '1 s'`)
	c, err := b.db.Restore(t.Context(), Restoration{Since: since, Actor: "tester", Wait: waits}, func(int) {})
	must(t, err)
	books, err := b.db.Accounting(t.Context())
	must(t, err)
	if len(books.Violations) > 0 {
		t.Errorf("the books after the restore: %+v", books.Violations)
	}
	return c
}

// past moves all that is stored an hour back, for a run whose Since is half an hour ago.
func (b *bed) past(t *testing.T) time.Time {
	t.Helper()
	b.exec(t, `UPDATE message SET created_at = created_at - interval '1 hour'; UPDATE ready SET due = due - interval '1 hour';
		UPDATE attempt SET started_at = started_at - interval '1 hour'; UPDATE inflight SET started_at = started_at - interval '1 hour'`)
	return get[time.Time](t, b, `SELECT now() - interval '30 min'`)
}

// calls lists the calls that may have been made of a message: "1 mailgun uncertain/restore, ...".
func (b *bed) calls(t *testing.T, id mail.ID) string {
	t.Helper()
	return get[string](t, b, `SELECT coalesce(string_agg(concat_ws(' ', c.n, a.name, t.class || '/' || t.verdict_source), ', ' ORDER BY a.name), '')
		FROM unknown_call c JOIN account a ON a.id = c.account_id JOIN attempt t ON t.message_id = c.id AND t.n = c.n AND t.account_id = c.account_id
		WHERE c.id = $1`, [16]byte(id))
}

func TestRestoreHoldsEveryMessageThatMayHaveBeenSent(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	relay := b.relay(t)
	ids := map[string]mail.ID{}
	started := b.fly(t, submission())
	ids["started"] = started.id
	hung := b.fly(t, submission())
	b.record(t, hung.owner, queue.Result{ID: hung.id, N: 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{DecideIn: time.Minute, Policy: mail.Reconcile}})
	ids["unknown"] = hung.id
	done := b.fly(t, submission())
	b.record(t, done.owner, sent(done.due))
	ids["claimed"] = b.accept(t, submission())[0]
	b.claim(t, started.owner, relay, 1)
	retried := b.fly(t, submission())
	b.record(t, retried.owner, queue.Result{ID: retried.id, N: 1, Class: "transient", Requeue: &queue.Requeue{Tries: 1}})
	ids["retried"] = retried.id
	ids["ready"] = b.accept(t, submission())[0]
	ids["pinned"] = b.accept(t, with(func(s *record.Submission) { s.Message.Account = "elsewhere" }))[0]
	ids["scheduled"] = b.accept(t, with(func(s *record.Submission) { s.Message.SendAt = time.Now().Add(5 * time.Hour) }))[0]
	ids["held"] = b.accept(t, submission())[0]
	since := b.past(t)
	b.exec(t, `UPDATE ready SET due = now() + interval '1 hour', held = true WHERE id = $1`, [16]byte(ids["held"]))
	ids["younger"] = b.accept(t, submission())[0]
	before := b.rows(t, done.id)

	want := RestoreCounts{Ready: 4, Inflight: 2, Unknown: 1, Later: 1, Younger: 1}
	count, err := b.db.CountRestore(t.Context(), Restoration{Since: since})
	must(t, err)
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, b.restore(t, since)); diff != "" {
		t.Errorf("moved (-want +got):\n%s", diff)
	}
	fresh := "1 mailgun uncertain/restore, 2 postmark uncertain/restore, 3 relay uncertain/restore"
	later := "2 mailgun uncertain/restore, 3 postmark uncertain/restore, 1 relay uncertain/restore"
	for name, calls := range map[string]string{
		"ready": fresh, "claimed": fresh, "held": fresh, "started": later, "unknown": later,
		"retried": "2 mailgun uncertain/restore, 3 postmark uncertain/restore, 4 relay uncertain/restore",
		"pinned":  "1 elsewhere uncertain/restore",
	} {
		if got := b.place(t, ids[name]) + ", " + b.status(t, ids[name]); got != "unknown, unknown: unknown" {
			t.Errorf("%s: %s, want it unknown", name, got)
		}
		if got := b.calls(t, ids[name]); got != calls {
			t.Errorf("%s: may have been sent by\n%s, want\n%s", name, got, calls)
		}
	}
	for _, name := range []string{"scheduled", "younger"} {
		if got := b.place(t, ids[name]); got != "ready" {
			t.Errorf("%s: %s, want it left", name, got)
		}
	}
	if diff := cmp.Diff(before, b.rows(t, done.id)); diff != "" {
		t.Errorf("a message that was sent is changed:\n%s", diff)
	}
	if n := get[int](t, b, `SELECT count(*) FROM unknown u JOIN unknown_call c USING (id) JOIN attempt t ON t.message_id = u.id AND t.n = c.n
		WHERE u.account_id = 0 AND u.decide_at > now() + $1::interval AND c.until > now() - interval '1 min'
		  AND (t.started_at = $2 OR c.account_id = $3)`, waits[mail.Reconcile]-time.Minute, since, relay); n != 19 {
		t.Errorf("calls that can be looked up from %s on: %d, want 19", since, n)
	}
	if got := list[string](t, b, `SELECT concat_ws(' ', actor, action, detail->'moved') FROM audit WHERE action LIKE 'restore.%' ORDER BY id`); len(got) != 2 ||
		got[0] != "tester restore.begin" || got[1] != `tester restore.end {"ready": 4, "unknown": 1, "inflight": 2}` {
		t.Errorf("audit: %q", got)
	}
}

func TestRestoreAgainChangesNothing(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	b.exec(t, `INSERT INTO account_limit (account_id, unit, per_ms, n) SELECT id, 'requests', 3600000, 10 FROM account`)
	moved := b.accept(t, submission())[0]
	scheduled := b.accept(t, with(func(s *record.Submission) { s.Message.SendAt = time.Now().Add(2 * time.Hour) }))[0]
	since := b.past(t)
	b.restore(t, since)
	b.exec(t, `UPDATE ready SET due = now() + interval '1 min'`) // two hours have nearly passed since
	b.exec(t, `UPDATE rate_window SET bins = '{}', used = '{}'`)
	was := []map[string]string{b.rows(t, moved), b.rows(t, scheduled)}
	for _, s := range []time.Time{since, since.Add(-time.Minute), since.Add(time.Minute)} {
		want := RestoreCounts{Later: 1, Done: 1}
		if diff := cmp.Diff(want, b.restore(t, s)); diff != "" {
			t.Errorf("the second run moved (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(was, []map[string]string{b.rows(t, moved), b.rows(t, scheduled)}); diff != "" {
			t.Errorf("the second run changed:\n%s", diff)
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM rate_window WHERE used <> '{}'`); n != 0 {
		t.Errorf("%d windows were booked as spent twice", n)
	}

	// What a look-up gave back since is not taken again; what a second loss may have hidden is.
	b.exec(t, `UPDATE unknown SET since = now() - interval '1 hour'`)
	for _, l := range b.lookups(t, "mailgun", "postmark", "relay") {
		_, err := b.db.Resolve(t.Context(), record.Verdict{ID: l.ID, N: l.N, Account: l.Account})
		must(t, err)
	}
	if got := b.place(t, moved); got != "ready" {
		t.Fatalf("the message is %s, want it ready again", got)
	}
	if c := b.restore(t, since); c.Open() != 0 || c.Done != 1 {
		t.Errorf("a run after the message was settled: %+v, want it left alone", c)
	}
	b.tamper(t, `UPDATE message SET restored_at = restored_at - interval '1 hour'; UPDATE audit SET at = at - interval '1 hour'`)
	if c := b.restore(t, since); c.Ready != 1 {
		t.Errorf("a run for another loss: %+v, want the message moved", c)
	}
	if got, want := b.calls(t, moved), "4 mailgun uncertain/restore, 5 postmark uncertain/restore, 6 relay uncertain/restore"; got != want {
		t.Errorf("after the second loss: %s, want %s", got, want)
	}
}

// lookups takes all look-ups that are due at the accounts named.
func (b *bed) lookups(t *testing.T, accounts ...string) []record.Lookup {
	t.Helper()
	ids := list[int32](t, b, `SELECT id FROM account WHERE name = ANY ($1)`, accounts)
	due, err := b.db.DueLookups(t.Context(), []time.Duration{time.Minute, 30 * time.Minute}, ids, 100)
	must(t, err)
	return due
}

func TestARestoredMessageIsSentAgainOnlyWhenNoAccountHasIt(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	id := b.accept(t, submission("ann@example.org", "bob@example.org"))[0]
	since := b.past(t)
	b.restore(t, since)
	first := b.lookups(t, "mailgun", "postmark")
	if len(first) != 2 {
		t.Fatalf("look-ups at once: %d, want one at each account that can be asked", len(first))
	}
	for _, l := range first {
		if l.ID != id || !l.StartedAt.Equal(since) || time.Since(l.Until) > time.Minute || l.Age < 29*time.Minute || l.Waited > time.Minute || len(l.Recipients) != 2 {
			t.Errorf("look-up = %+v, want one of a call between %s and now", l, since)
		}
		must(t, b.db.ReturnLookup(t.Context(), l.ID, l.N, false, 0))
	}
	if got := b.lookups(t, "mailgun", "postmark"); len(got) != 0 {
		t.Errorf("before the end of the schedule: %d more look-ups", len(got))
	}
	b.exec(t, `UPDATE unknown_call SET due = due - interval '31 min' WHERE checks = 1; UPDATE unknown SET since = since - interval '31 min'`)
	second := b.lookups(t, "mailgun", "postmark")
	if len(second) != 2 || second[0].Waited < 30*time.Minute {
		t.Fatalf("at the end of the schedule: %+v", second)
	}
	must(t, b.db.ReturnLookup(t.Context(), second[0].ID, second[0].N, true, 0)) // could not be made
	if again := b.lookups(t, "mailgun", "postmark"); len(again) != 1 || again[0].N != second[0].N {
		t.Errorf("a look-up that failed: %+v, want it again", again)
	}
	for _, l := range second {
		settled, err := b.db.Resolve(t.Context(), record.Verdict{ID: l.ID, N: l.N, Account: l.Account})
		if settled || err != nil || b.place(t, id) != "unknown" {
			t.Errorf("with one account left: settled %t, %v, %s; want it unknown", settled, err, b.place(t, id))
		}
	}
	// The relay can't be asked: only the deadline decides.
	if got := b.attempts(t, id); got != "transient/lookup transient/lookup uncertain/restore" {
		t.Errorf("attempts = %s", got)
	}
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	_, failed, err := b.db.DecideUnknown(t.Context(), false, 2)
	if failed != 1 || err != nil || b.status(t, id) != "failed_unknown: failed_unknown failed_unknown" {
		t.Errorf("at the deadline: %d failed, %v, %s", failed, err, b.status(t, id))
	}
	if got := b.attempts(t, id); got != "transient/lookup transient/lookup uncertain/deadline" {
		t.Errorf("attempts after the deadline = %s", got)
	}
}

func TestARestoredMessageIsSettledByProofOfAnyAccount(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	ways, accounts := []string{"lookup", "webhook", "webhook after a look-up found nothing", "webhook after the deadline"}, []string{"mailgun", "postmark", "relay"}
	ids := b.acceptN(t, len(ways)*len(accounts))
	b.restore(t, b.past(t))
	for i, way := range ways {
		for at, account := range accounts {
			t.Run(way+" of "+account, func(t *testing.T) {
				id := ids[i*len(accounts)+at]
				owner := get[int32](t, b, `SELECT id FROM account WHERE name = $1`, account)
				want := fmt.Sprintf("%d accepted/webhook", at+1)
				switch way {
				case "lookup":
					settled, err := b.db.Resolve(t.Context(), record.Verdict{ID: id, N: at + 1, Account: owner, Found: true, ProviderMessageID: "p"})
					if !settled || err != nil {
						t.Errorf("settled %t, %v", settled, err)
					}
					want = fmt.Sprintf("%d accepted/lookup", at+1)
				case "webhook after a look-up found nothing":
					_, err := b.db.Resolve(t.Context(), record.Verdict{ID: id, N: at + 1, Account: owner})
					must(t, err)
				case "webhook after the deadline":
					b.exec(t, `UPDATE unknown SET decide_at = now() WHERE id = $1`, [16]byte(id))
					_, _, err := b.db.DecideUnknown(t.Context(), false, 2)
					must(t, err)
				}
				if way != "lookup" {
					b.receive(t, hook(owner, told(id, mail.EventAccepted, "ann@example.org", 1)))
				}
				if got := b.place(t, id) + " " + b.status(t, id); got != "settled sent: sent" {
					t.Errorf("the message is %s, want it sent", got)
				}
				if got := list[string](t, b, `SELECT concat_ws(' ', n, class || '/' || verdict_source) FROM attempt WHERE message_id = $1 AND class = 'accepted'`, [16]byte(id)); strings.Join(got, ", ") != want {
					t.Errorf("accepted: %q, want %q", got, want)
				}
				if n := get[int](t, b, `SELECT count(*) FROM unknown_call WHERE id = $1`, [16]byte(id)); n != 0 {
					t.Errorf("%d calls are left", n)
				}
			})
		}
	}
}

func TestRestoreKeepsTheMessagesOwnPolicy(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	for _, p := range []mail.Policy{mail.Resend, mail.Never, mail.Reconcile} {
		b.accept(t, with(func(s *record.Submission) { s.Message.OnAmbiguous = p }))
	}
	b.restore(t, b.past(t))
	got := list[string](t, b, `SELECT u.policy || ' ' || extract(epoch FROM date_trunc('minute', u.decide_at - now() + interval '30 s'))/60 || ' ' || count(c) FILTER (WHERE c.due < 'infinity')
		FROM unknown u JOIN unknown_call c USING (id) GROUP BY u.id, u.policy, u.decide_at ORDER BY 1`)
	for i, p := range []mail.Policy{mail.Never, mail.Reconcile, mail.Resend} {
		asks := 0
		if p == mail.Reconcile {
			asks = 3
		}
		if want := fmt.Sprintf("%s %.0f", p, waits[p].Minutes()); i >= len(got) || !strings.HasPrefix(got[i], want) || !strings.HasSuffix(got[i], fmt.Sprint(" ", asks)) {
			t.Errorf("got %q, want %s with %d look-ups", got, want, asks)
		}
	}
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	resent, failed, err := b.db.DecideUnknown(t.Context(), false, 2)
	if resent != 1 || failed != 2 || err != nil {
		t.Errorf("sent again %d, failed %d, %v; want 1 and 2", resent, failed, err)
	}
	if n := get[int](t, b, `SELECT count(*) FROM attempt WHERE class = 'uncertain' AND verdict_source = 'deadline'`); n != 9 {
		t.Errorf("%d attempts say that the deadline decided, want all 9", n)
	}
	due := b.claim(t, b.replica(t), b.relay(t), 1)
	if len(due) != 1 || due[0].Attempts != 3 {
		t.Errorf("claimed %+v, want the message that is sent again, as attempt 4", due)
	}
}

func TestRestoreRefusesWhileReplicasLive(t *testing.T) {
	t.Parallel()
	b, since := lost(t)
	id := b.accept(t, submission())[0]
	must(t, b.db.Register(t.Context(), mail.NewID(), "gate-7", time.Hour))
	_, err := b.db.Restore(t.Context(), Restoration{Since: since, Actor: "tester", Wait: waits}, func(int) {})
	if !errors.Is(err, ErrReplicas) || !strings.Contains(err.Error(), "gate-7") {
		t.Errorf("error = %v, want ErrReplicas that names gate-7", err)
	}
	if n := get[int](t, b, `SELECT count(*) FROM audit WHERE action LIKE 'restore%'`); n != 0 || b.place(t, id) != "ready" {
		t.Error("something was changed")
	}
}

func TestNobodyRegistersWhileRestoreRuns(t *testing.T) {
	t.Parallel()
	b, since := lost(t)
	b.acceptN(t, 3)
	tried := 0
	_, err := b.db.Restore(t.Context(), Restoration{Since: since, Actor: "tester", Wait: waits}, func(int) {
		tried++
		if err := b.db.Register(t.Context(), mail.NewID(), "early", time.Hour); err == nil {
			t.Error("a replica registered before everything was moved")
		}
	})
	must(t, err)
	if tried == 0 {
		t.Error("no progress was told")
	}
	must(t, b.db.Register(t.Context(), mail.NewID(), "after", time.Hour))
}

func TestRestoreMovesManyInBatches(t *testing.T) {
	t.Parallel()
	b, since := lost(t)
	b.fill(t, 1003)
	b.exec(t, `UPDATE ready SET attempts = 1`)
	var told []int
	c, err := b.db.Restore(t.Context(), Restoration{Since: since, Actor: "tester", Wait: waits}, func(n int) { told = append(told, n) })
	must(t, err)
	if c.Ready != 1003 || fmt.Sprint(told) != "[0 0 500 1000 1003]" {
		t.Errorf("moved %+v, told %v", c, told)
	}
	if n := get[int](t, b, `SELECT count(*) FROM unknown_call`); n != 3*1003 || get[int](t, b, `SELECT count(*) FROM ready`) != 0 {
		t.Errorf("%d calls, want three of each", n)
	}
}

func TestRestoreBooksLimitsAsSpent(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	w := limit.Window{N: 10, Per: time.Hour, Unit: limit.Requests}
	account := b.account(t, "limited", w)
	since := b.past(t)
	b.restore(t, since)
	tx := b.begin(t)
	limits, _, err := b.db.lockLimits(t.Context(), tx, []int32{account})
	must(t, err)
	now := time.Now()
	if g := limits[account].Take(now, 1, time.Minute); g.OK || g.Retry.Before(now.Add(59*time.Minute)) {
		t.Errorf("right after: %+v, want no slot for an hour", g)
	}
	if g := limits[account].Take(now.Add(62*time.Minute), 1, time.Minute); !g.OK {
		t.Errorf("an hour later: %+v, want a slot", g)
	}
}

func TestRestoreTakesTheTimeOfTheLossForWhatItIs(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	b.exec(t, `INSERT INTO account_limit (account_id, unit, per_ms, n) SELECT id, 'requests', 600000, 10 FROM account`)
	due := b.accept(t, submission(), submission())
	since := b.past(t)
	lostAt := since.Add(10 * time.Minute)
	b.exec(t, `UPDATE ready SET due = $2 WHERE id = $1`, [16]byte(due[1]), lostAt.Add(time.Second))
	c, err := b.db.Restore(t.Context(), Restoration{Since: since, LostAt: lostAt, Actor: "tester", Wait: waits}, func(int) {})
	must(t, err)
	if c.Ready != 1 || c.Later != 1 || b.place(t, due[1]) != "ready" {
		t.Errorf("moved %+v, want what was due after the loss left", c)
	}
	if n := get[int](t, b, `SELECT count(*) FROM unknown_call WHERE until <> $1`, lostAt); n != 0 {
		t.Errorf("%d calls may have been made after the loss", n)
	}
	tx := b.begin(t)
	limits, _, err := b.db.lockLimits(t.Context(), tx, nil)
	must(t, err)
	for id, acc := range limits { // twenty minutes ago, in windows of ten
		if g := acc.Take(time.Now(), 1, time.Second); !g.OK {
			t.Errorf("account %d: %+v, want a slot", id, g)
		}
	}
}

// A session or link that had ended when the backup was older must not live again.
func TestRestoreEndsSessionsAndLinks(t *testing.T) {
	t.Parallel()
	b, _ := lost(t)
	b.person(t, "ann")
	must(t, b.db.CreateLink(t.Context(), "ops", "ann", hashOf("again"), false))
	b.restore(t, b.past(t))
	if got := get[string](t, b, `SELECT (SELECT count(*) FROM person_session) || ' ' || (SELECT count(*) FROM person_link) || ' ' || (SELECT count(*) FROM person)`); got != "0 0 1" {
		t.Errorf("sessions, links, people = %s, want 0 0 1", got)
	}
}
