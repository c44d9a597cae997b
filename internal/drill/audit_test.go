//go:build drill

package drill

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/emulator"
)

// healWithin is how long a drill waits until everything has ended after its fault: the time-out of the clients, a lease, the
// deadline of what is unknown, and a busy machine.
const healWithin = 2 * time.Minute

const openSQL = `SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM inflight) + (SELECT count(*) FROM unknown)`

// heal waits until the clients have their answers and every message has ended.
func (r *rig) heal(t *testing.T) {
	t.Helper()
	began := time.Now()
	r.clients.wg.Wait()
	if !eventually(t, healWithin, func() bool { return r.count(t.Context(), openSQL) == 0 }) {
		t.Errorf("after %s still open: %d ready, %d in flight, %d unknown", healWithin, r.count(t.Context(), `SELECT count(*) FROM ready`),
			r.count(t.Context(), `SELECT count(*) FROM inflight`), r.count(t.Context(), `SELECT count(*) FROM unknown`))
	}
	r.report.heal = time.Since(began)
}

// stored is what the tables say of one message.
type stored struct {
	ID, Tenant, Key, Status, Policy string
	Calls                           int // attempts that were announced
	Unanswered                      int // those whose answer was lost, or came when the next call was on its way
}

// The answer to a call may come late, after the decision to send again: the next call is claimed by then, and begins within a
// moment.

const storedSQL = `
SELECT m.id::text, t.name, coalesce(i.key, ''), m.status, m.on_ambiguous,
       (SELECT count(*) FROM attempt a WHERE a.message_id = m.id),
       (SELECT count(*) FROM attempt a WHERE a.message_id = m.id AND (a.verdict_source IS DISTINCT FROM 'response' OR
           a.finished_at > a.started_at + interval '3 s' AND a.finished_at > (
               SELECT min(b.started_at) - interval '2 s' FROM attempt b WHERE b.message_id = a.message_id AND b.n > a.n)))
FROM message m
JOIN tenant t ON t.id = m.tenant_id
LEFT JOIN idempotency i ON i.message_id = m.id`

// evidence is all that the auditor has.
type evidence struct {
	promises []promise
	byID     map[string]stored
	byKey    map[string]stored // tenant and key
	ledger   []emulator.Entry
	lines    map[string][]emulator.Entry // by message
}

func (r *rig) gather(t *testing.T) evidence {
	t.Helper()
	e := evidence{promises: r.promises(t), byID: map[string]stored{}, byKey: map[string]stored{}, lines: map[string][]emulator.Entry{}}
	rows, err := r.rows.Query(t.Context(), storedSQL)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		e.byID[s.ID], e.byKey[s.Tenant+" "+s.Key] = s, s
	}
	readLines(t, r.ledger, func(x emulator.Entry) {
		e.ledger = append(e.ledger, x)
		e.lines[x.MessageID] = append(e.lines[x.MessageID], x)
	})
	return e
}

// audit holds the promises against what became of them.
func (r *rig) audit(t *testing.T) {
	t.Helper()
	e := r.gather(t)
	for _, c := range append(r.judgePromises(e), r.judgeTwins(e)) {
		c.fail(t)
		r.history(t, e, c)
	}
	r.auditBare(t, e)
	r.auditCalls(t, e)
	r.auditWindows(t)
	r.auditQueue(t)
	r.auditBooks(t)
	r.auditLapse(t, e)
	if r.report.accepted == 0 {
		t.Error("nothing was accepted: the drill shows nothing")
	}
	for _, kind := range []string{"400", "401", "403", "404", "409", "422", "500", "wrong"} {
		if n := r.clients.answers(kind); n > 0 {
			t.Errorf("answers of %s = %d, want none", kind, n)
		}
	}
	for _, kind := range []string{"503", "504", "429", "none"} {
		if n := r.clients.answers(kind); n > 0 {
			r.report.tally("refused_"+kind, n)
		}
	}
}

// history logs everything about the first messages of a complaint.
func (r *rig) history(t *testing.T, e evidence, c complaints) {
	t.Helper()
	for _, said := range c.ids[:min(3, len(c.ids))] {
		id, _, _ := strings.Cut(strings.TrimSuffix(said, ","), ",")
		id, _, _ = strings.Cut(id, " ")
		r.show(t, `SELECT t.n, a.name, t.class, t.verdict_source, t.owner::text, t.started_at::text, t.finished_at::text, t.seen_by, t.error, t.provider_message_id
			FROM attempt t JOIN account a ON a.id = t.account_id WHERE t.message_id = $1::uuid ORDER BY t.n`, id)
		r.show(t, `SELECT type, source, at::text, account_id, provider_message_id FROM event WHERE message_id = $1::uuid ORDER BY id`, id)
		for _, line := range e.lines[id] {
			t.Logf("ledger: %+v", line)
		}
	}
}

// final are the statuses of messages that have ended.
func final() []string {
	return []string{"sent", "delivered", "deferred", "bounced", "complained", "suppressed", "failed", "failed_unknown", "expired"}
}

// judgePromises: every 202 has its message, and the message ended as it should.
func (r *rig) judgePromises(e evidence) []complaints {
	lost, odd := complaints{what: "messages lost"}, complaints{what: "messages with a wrong end"}
	var took []time.Duration
	for _, p := range e.promises {
		if p.ID == "" {
			continue
		}
		r.report.accepted++
		took = append(took, p.Took)
		s, ok := e.byKey[p.Tenant+" "+p.Key]
		if p.Bare {
			s, ok = e.byID[p.ID]
		}
		switch lines := len(e.lines[p.ID]); {
		case !ok && r.lapse.has(p.At):
			r.lapse.lost = append(r.lapse.lost, p)
		case !ok || s.ID != p.ID:
			lost.add("%s was promised under key %s, which has %q", p.ID, p.Key, s.ID)
		case !slices.Contains(final(), s.Status):
			lost.add("%s is %s", p.ID, s.Status)
		case lines == 0 && slices.Contains([]string{"sent", "delivered", "deferred", "bounced", "complained"}, s.Status):
			lost.add("%s is %s and no provider has it", p.ID, s.Status)
		case lines > 0 && slices.Contains([]string{"failed", "expired", "cancelled"}, s.Status) || s.Status == "failed" != p.Poison && s.Status != "failed_unknown" && s.Status != "suppressed":
			odd.add("%s is %s, %d at providers, poison %t", p.ID, s.Status, lines, p.Poison)
		}
	}
	slices.Sort(took)
	if len(took) > 0 {
		r.report.p99 = took[len(took)*99/100]
	}
	r.report.lost = len(lost.ids) + len(r.lapse.lost)
	return []complaints{lost, odd}
}

// judgeTwins: nobody got a message twice, except where on_ambiguous allows it: one more for each call without an answer.
func (r *rig) judgeTwins(e evidence) complaints {
	bad := complaints{what: "recipients mailed twice without leave"}
	for id, lines := range e.lines {
		times := map[string]int{}
		for _, line := range lines {
			for _, to := range line.To {
				times[strings.ToLower(to)]++
			}
		}
		twins, s := 0, e.byID[id]
		for _, n := range times {
			twins = max(twins, n-1)
		}
		r.report.twins += twins
		if allowed := s.Policy == "resend" || slices.Contains(r.plan.settings, "SENDGATE_RECONCILE_FALLBACK=resend"); twins > 0 && (!allowed || twins > s.Unanswered || twins > mostCopies) {
			bad.add("%s, on_ambiguous %s, %d calls without an answer, %d times too often", id, s.Policy, s.Unanswered, twins)
		}
	}
	for _, s := range e.byID {
		r.report.unknown += s.Unanswered
	}
	return bad
}

// auditBare: a message without a key is stored once for each 202, and otherwise only if its client got no answer.
func (r *rig) auditBare(t *testing.T, e evidence) {
	t.Helper()
	accepted, open := 0, 0
	for _, p := range e.promises {
		switch {
		case p.Bare && p.ID != "":
			accepted++
		case p.Bare && p.Open:
			open++
		}
	}
	stored := r.number(t, `SELECT count(*) FROM message WHERE $1 = ANY (tags)`, bareTag)
	if stored > accepted+open {
		t.Errorf("messages without a key stored %d, accepted %d and open %d: what was refused is stored", stored, accepted, open)
	}
}

// announced is how much later than the arrival of its call an attempt may be dated. All processes share one clock, but the
// provider reads it after the first bytes came.
const announced = `50 ms`

// auditCalls: each call that a provider took was written down before it was made.
func (r *rig) auditCalls(t *testing.T, e evidence) {
	t.Helper()
	var ids, accounts []string
	var at []time.Time
	for _, x := range e.ledger {
		if _, ok := e.byID[x.MessageID]; !ok && r.lapse.has(x.At) { // what announced it is lost with the message
			continue
		}
		ids, accounts, at = append(ids, x.MessageID), append(accounts, x.Provider), append(at, x.At)
	}
	rows, err := r.rows.Query(t.Context(), `
SELECT l.id || ' at ' || l.account
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS l(id, account, at)
WHERE NOT EXISTS (
    SELECT 1 FROM attempt t JOIN account a ON a.id = t.account_id
    WHERE t.message_id = l.id::uuid AND a.name = l.account AND t.started_at <= l.at + interval '`+announced+`')`, ids, accounts, at)
	if err != nil {
		t.Fatal(err)
	}
	c := complaints{what: "calls that no attempt announced"}
	if c.ids, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	c.fail(t)
}

// auditWindows: no provider saw more in any sliding window than its limit.
func (r *rig) auditWindows(t *testing.T) {
	t.Helper()
	for kind, s := range r.emu.Stats() {
		for _, w := range s.Windows {
			if w.Peak > w.N {
				t.Errorf("%s saw %d in one window of %s", kind, w.Peak, w.Window)
			}
		}
	}
}

// auditBooks: the service's own check of its books finds the same as the auditor.
func (r *rig) auditBooks(t *testing.T) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "doctor") //nolint:gosec // our own program
	cmd.Env = r.replicas[0].env
	out, _ := cmd.CombinedOutput() // other checks may have warned of what the drill did
	asked := 0
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "accounting") {
			asked++
			if !strings.HasPrefix(line, "ok") {
				t.Errorf("doctor says: %s", strings.TrimSpace(line))
			}
		}
	}
	if asked == 0 {
		t.Errorf("doctor says nothing of its books:\n%s", out)
	}
}

// auditQueue: messages that have ended are in no queue, and all others are in one. After the heal no queue has messages.
func (r *rig) auditQueue(t *testing.T) {
	t.Helper()
	open := r.number(t, `SELECT count(*) FROM message WHERE NOT status = ANY ($1)`, append(final(), "cancelled"))
	started := r.number(t, `SELECT count(*) FROM attempt WHERE finished_at IS NULL`)
	if open != 0 || started != 0 {
		t.Errorf("messages that have not ended and are nowhere = %d, calls without an end = %d; want none", open, started)
	}
}
