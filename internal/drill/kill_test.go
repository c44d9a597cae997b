//go:build drill

package drill

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// slow has some providers take their time, so that calls are open when something happens to those who wait for them.
func slow() map[string][]emulator.Fault {
	latency := func(ms int) []emulator.Fault {
		return []emulator.Fault{{Mode: "latency", Latency: emulator.Duration(time.Duration(ms) * time.Millisecond)}}
	}
	return map[string][]emulator.Fault{"mailgun": latency(100), "postmark": latency(300), "smtp": latency(200)}
}

// A replica is killed every one to three seconds, by turns, and started again.
func TestD01ReplicasAreKilledUnderLoad(t *testing.T) {
	drillTest(t, "D01", plan{replicas: 3}, func(t *testing.T, r *rig) {
		r.faults(t, slow())
		rng := random("D01 kills")
		kills := 0
		for end := time.Now().Add(*duration); time.Now().Before(end); kills++ {
			victim := r.replicas[kills%len(r.replicas)]
			victim.kill()
			pause(t, time.Duration(rng.IntN(500))*time.Millisecond)
			victim.start(t)
			pause(t, time.Duration(1000+rng.IntN(1000))*time.Millisecond)
		}
		r.report.tally("kills", kills)
		r.faults(t, nil)
	})
}

// The answers to accepted messages get lost with the process that took them: the same keys give the same ids elsewhere.
func TestD02ReplicaIsKilledBetweenCommitAndAnswer(t *testing.T) {
	drillTest(t, "D02", plan{load: load{clients: 4}}, func(t *testing.T, r *rig) {
		first := r.replicas[0]
		cut := cutAnswers(t, first.api)
		before := r.count(t.Context(), `SELECT count(*) FROM message`)
		keys := r.sendInto(t, cut.addr, 40)
		must(t, 10*time.Second, "the messages are committed", func() bool { return r.committed(t, keys) == len(keys) })
		if n := cut.answered.Load(); n != 0 {
			t.Fatalf("bytes of answers that came through = %d: nothing was cut", n)
		}
		first.kill()
		first.start(t)
		r.repeat(t, keys)
		r.report.tally("unanswered_commits", len(keys))
		if n := r.committed(t, keys); n != len(keys) || before < 0 {
			t.Errorf("messages of %d keys = %d, want one each", len(keys), n)
		}
	})
}

// The provider has the message and the process that waits for its answer dies: events of the provider settle it.
func TestD03ReplicaIsKilledBetweenTheProvidersYesAndOurRecord(t *testing.T) {
	drillTest(t, "D03", plan{load: load{plain: true}, settings: []string{
		"SENDGATE_UNKNOWN_WAIT=60s", "SENDGATE_RECONCILE_DEADLINE=90s", "SENDGATE_LOOKUP_SCHEDULE=80s",
	}}, func(t *testing.T, r *rig) {
		// Every call is open for as long as the process lives; the ledger has it at once, and its events come meanwhile
		// into the other replica. A relay tells of failures only, so it stays out.
		r.weight(t, "smtp", 0)
		r.faults(t, everywhere(emulator.Fault{Mode: "accept_then_drop", Latency: emulator.Duration(time.Minute), Count: 20}, emulator.Fault{Mode: "hook_hold"}))
		pause(t, *duration/2)
		victim := r.replicas[0]
		began := time.Now()
		open := r.count(t.Context(), `SELECT count(*) FROM inflight WHERE started_at IS NOT NULL`)
		if open < 20 {
			t.Fatalf("calls that are open = %d: the fault was not on", open)
		}
		for _, x := range r.replicas {
			x.kill()
		}
		victim.start(t)
		r.replicas[1].start(t)
		must(t, 30*time.Second, "open calls are unknown", func() bool { return r.count(t.Context(), `SELECT count(*) FROM unknown`) >= open/2 })
		r.report.figure("rescued", time.Since(began), 20*time.Second)
		r.faults(t, nil) // which lets the events go
		began = time.Now()
		must(t, 40*time.Second, "events have settled all", func() bool { return r.count(t.Context(), `SELECT count(*) FROM unknown`) == 0 })
		r.report.figure("resolved", time.Since(began), 10*time.Second)
		if n := r.count(t.Context(), `SELECT count(*) FROM attempt WHERE verdict_source = 'webhook'`); n < open {
			t.Errorf("calls settled by a webhook = %d, want at least %d", n, open)
		}
	})
}

// The call was announced and never reached the provider: each policy does what it says.
func TestD04ReplicaIsKilledBetweenIntentAndCall(t *testing.T) {
	drillTest(t, "D04", plan{load: load{plain: true}, settings: []string{"SENDGATE_RECONCILE_FALLBACK=resend"}}, func(t *testing.T, r *rig) {
		r.faults(t, everywhere(emulator.Fault{Mode: "black_hole", Count: 15}))
		pause(t, *duration/2)
		open := r.count(t.Context(), `SELECT count(*) FROM inflight WHERE started_at IS NOT NULL`)
		if open < 10 {
			t.Fatalf("calls that are open = %d: the fault was not on", open)
		}
		for _, x := range r.replicas {
			x.kill()
		}
		r.faults(t, nil)
		for _, x := range r.replicas {
			x.start(t)
		}
		r.report.tally("cut", open)
	})
}
