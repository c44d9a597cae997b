//go:build drill

package drill

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// What the providers report finds nobody for a while, and then is lost for good: what they repeat is taken when the
// receivers are back, and of what never comes only calls of unknown outcome are looked up. The rest stays sent.
func TestD26EventsFindNobody(t *testing.T) {
	p := plan{load: load{share: 0.5, plain: true, policies: []string{"reconcile"}}, settings: []string{"SENDGATE_RECONCILE_DEADLINE=30s"}}
	drillTest(t, "D26", p, func(t *testing.T, r *rig) {
		cut := r.clock(t)
		r.web.cutOff()
		pause(t, min(*duration, 1500*time.Millisecond)) // Postmark's repetitions end after 4 s, as the emulator counts
		for _, kind := range webKinds() {
			n := r.emu.Stats()[kind].Hooks.Failed
			r.report.tally(kind+"_found_nobody", n)
			if n == 0 {
				t.Errorf("reports of %s that found nobody = 0: the fault was not on", kind)
			}
		}
		r.web.cut.Store(false)
		const late = toldSQL + ` AND EXISTS (SELECT FROM message m WHERE m.id = r.message_id AND m.created_at < $1)`
		lost := r.clock(t)
		began := time.Now()
		must(t, time.Minute, "what was reported meanwhile is told", func() bool { return r.count(t.Context(), late, lost) == 0 })
		r.report.figure("told_after", time.Since(began), 0)
		r.report.tally("told_late", r.count(t.Context(), `SELECT count(*) FROM message WHERE status = 'delivered' AND created_at BETWEEN $1 AND $2`, cut, lost))
		r.loseEvents(t)
	})
}

// loseEvents has events lost for a while, and some answers to calls with them.
func (r *rig) loseEvents(t *testing.T) {
	t.Helper()
	script := everywhere(emulator.Fault{Mode: "hook_drop"})
	for _, kind := range []string{"sendgrid", "mailgun", "postmark"} { // which can be asked
		script[kind] = append(script[kind], emulator.Fault{Mode: "accept_then_drop", Match: "*+*-*5@*"})
	}
	r.faults(t, script)
	lost := r.clock(t)
	pause(t, *duration)
	r.clients.stop()
	must(t, healWithin, "everything has ended", func() bool { r.clients.wg.Wait(); return r.count(t.Context(), openSQL) == 0 })
	const at = `SELECT count(DISTINCT m.id) FROM message m JOIN attempt t ON t.message_id = m.id JOIN account a ON a.id = t.account_id
		WHERE m.created_at > $1 AND a.kind IN ('sendgrid', 'mailgun', 'postmark')`
	found := r.count(t.Context(), at+` AND t.verdict_source = 'lookup' AND m.status <> 'failed_unknown'`, lost)
	given := r.count(t.Context(), at+` AND m.status = 'failed_unknown'`, lost)
	r.report.tally("looked_up", found)
	if found == 0 || given != 0 {
		t.Errorf("calls of unknown outcome at providers that can be asked: found %d, given up %d; want some and none", found, given)
	}
	stay := r.count(t.Context(), at+` AND t.verdict_source = 'response' AND m.status = 'sent'`, lost)
	r.report.tally("stay_sent", stay)
	if stay == 0 {
		t.Error("messages that stay sent as their events never came = 0: guarantees.md says that they do")
	}
	r.faults(t, nil)
}
