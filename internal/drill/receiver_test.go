//go:build drill

package drill

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/provider"
)

// The receivers are down for a while, so events of the providers do not arrive, and some are lost for good. Repeated events
// are taken when the receivers are back. If events never come, only calls of unknown outcome are looked up; other messages
// stay sent.
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
		r.report.tally("told_late", r.number(t, `SELECT count(*) FROM message WHERE status = 'delivered' AND created_at BETWEEN $1 AND $2`, cut, lost))
		r.loseEvents(t)
	})
}

// loseEvents loses all events for a while, and some answers to calls too.
func (r *rig) loseEvents(t *testing.T) {
	t.Helper()
	script := everywhere(emulator.Fault{Mode: "hook_drop"})
	asked := kindsWith(func(s provider.Spec) bool { return s.Lookup.Works })
	for _, kind := range asked {
		script[kind] = append(script[kind], emulator.Fault{Mode: "accept_then_drop", Match: "*+*-*5@*"})
	}
	r.faults(t, script)
	lost := r.clock(t)
	pause(t, *duration)
	r.clients.stop()
	must(t, healWithin, "everything has ended", func() bool { r.clients.wg.Wait(); return r.count(t.Context(), openSQL) == 0 })
	const at = `SELECT count(DISTINCT m.id) FROM message m JOIN attempt t ON t.message_id = m.id JOIN account a ON a.id = t.account_id
		WHERE m.created_at > $1 AND a.kind = ANY ($2)`
	found := r.number(t, at+` AND t.verdict_source = 'lookup' AND m.status <> 'failed_unknown'`, lost, asked)
	given := r.number(t, at+` AND m.status = 'failed_unknown'`, lost, asked)
	r.report.tally("looked_up", found)
	if found == 0 || given != 0 {
		t.Errorf("calls of unknown outcome at providers that can be asked: found %d, given up %d; want some and none", found, given)
	}
	stay := r.number(t, at+` AND t.verdict_source = 'response' AND m.status = 'sent'`, lost, asked)
	r.report.tally("stay_sent", stay)
	if stay == 0 {
		t.Error("messages that stay sent as their events never came = 0: guarantees.md says that they do")
	}
	r.faults(t, nil)
}
