//go:build drill

package drill

import (
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/provider"
)

// mostCopies is how often a message may be mailed again by default.
const mostCopies = 2

// Providers take every tenth message but hang or hang up and send no event for it, and one of the processes dies meanwhile.
// Under resend each such message is given to other accounts, up to the limit. Then its status does not say that it was not
// sent.
func TestD48NoProviderAnswersForAMessage(t *testing.T) {
	settings := []string{"SENDGATE_UNKNOWN_WAIT=1s"}
	drillTest(t, "D48", plan{settings: settings, load: load{share: 0.5, plain: true, policies: []string{"resend"}}}, func(t *testing.T, r *rig) {
		r.patchSettings(t, "resend", "batch_size", 1, nil) // the faults are for single messages, and a shared call is not repeated
		r.faults(t, everywhere(
			emulator.Fault{Mode: "hook_drop"},
			emulator.Fault{Mode: "accept_then_drop", Match: "*+*-*15@*", Latency: emulator.Duration(2 * time.Second)},
			emulator.Fault{Mode: "accept_then_drop", Match: "*+*-*5@*"},
		))
		pause(t, *duration/2)
		r.replicas[1].kill()
		pause(t, time.Second)
		r.replicas[1].start(t)
		pause(t, *duration/2)
		r.clients.stop()
		r.clients.wg.Wait()
		must(t, healWithin, "every message has ended, though no provider answers for some", func() bool { return r.count(t.Context(), openSQL) == 0 })
		r.faults(t, nil)
		full, elsewhere := 0, 0
		repeats := kindsWith(func(s provider.Spec) bool { return s.Repeat.Within > 0 }) // they answer a repeated call with the same key
		e := r.gather(t)
		for id, lines := range e.lines {
			if len(lines) == 1+mostCopies {
				full++
				kinds := map[string]bool{}
				for _, line := range lines {
					kinds[line.Provider] = true
				}
				if len(kinds) == len(lines) {
					elsewhere++
				}
				want := "failed_unknown"
				if slices.ContainsFunc(repeats, func(kind string) bool { return kinds[kind] }) {
					want = "sent"
				}
				if s := e.byID[id].Status; s != want {
					t.Errorf("%s was mailed %d times without an answer and is %s, want %s", id, len(lines), s, want)
				}
			}
		}
		r.report.tally("given_up", full)
		r.report.tally("elsewhere", elsewhere)
		if full < 3 || elsewhere < full*8/10 {
			t.Errorf("%d messages were mailed as often as allowed, %d of them by other accounts each time; want some, and most", full, elsewhere)
		}
	})
}
