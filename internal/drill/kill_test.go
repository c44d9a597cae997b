//go:build drill

package drill

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/provider"
)

// slow makes some providers answer slowly, so that calls are open when their process fails.
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
		before := r.number(t, `SELECT count(*) FROM message`)
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

// The providers have the messages, but the processes that wait for the answers die. Events settle the messages.
func TestD03ReplicasAreKilledBetweenTheProvidersYesAndOurRecord(t *testing.T) {
	p := plan{load: load{plain: true}, settings: []string{
		"SENDGATE_UNKNOWN_WAIT=30s", "SENDGATE_RECONCILE_DEADLINE=40s", "SENDGATE_LOOKUP_SCHEDULE=35s",
	}}
	drillTest(t, "D03", p, func(t *testing.T, r *rig) {
		const each = 20
		for _, kind := range kindsWith(func(s provider.Spec) bool { return !s.Events.Delivered }) {
			r.weight(t, kind, 0) // no event settles its messages
		}
		// Such calls are open while the process lives, and their events come later.
		r.faults(t, everywhere(
			emulator.Fault{Mode: "accept_then_drop", Latency: emulator.Duration(time.Minute), Count: each}, emulator.Fault{Mode: "hook_hold"},
		))
		must(t, 20*time.Second, "the providers have messages whose calls are open", func() bool { return r.openAtProviders(t) >= 4*each })
		rows, err := r.rows.Query(t.Context(), `SELECT id::text FROM replica`)
		if err != nil {
			t.Fatal(err)
		}
		dead, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.replicas {
			x.kill()
		}
		began := time.Now()
		for _, x := range r.replicas {
			x.start(t)
		}
		must(t, 30*time.Second, "open calls are unknown", func() bool {
			return r.count(t.Context(), `SELECT count(*) FROM inflight WHERE owner::text = ANY ($1)`, dead) == 0
		})
		r.report.figure("rescued", time.Since(began), 20*time.Second)
		r.faults(t, nil) // which lets the events go
		began = time.Now()
		const settled = `SELECT count(*) FROM attempt WHERE verdict_source = 'webhook'`
		must(t, 40*time.Second, "events have settled them", func() bool { return r.count(t.Context(), settled) >= 4*each })
		r.report.figure("resolved", time.Since(began), 10*time.Second)
	})
}

// openAtProviders counts the messages that a provider has and whose calls are open.
func (r *rig) openAtProviders(t *testing.T) int {
	t.Helper()
	rows, err := r.rows.Query(t.Context(), `SELECT id::text FROM inflight WHERE started_at IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range r.emu.Ledger() {
		if slices.Contains(open, e.MessageID) {
			n++
		}
	}
	return n
}

// The intent of a call is committed but the call never reaches the provider: each policy does what it says.
func TestD04ReplicaIsKilledBetweenIntentAndCall(t *testing.T) {
	drillTest(t, "D04", plan{load: load{plain: true}, settings: []string{"SENDGATE_RECONCILE_FALLBACK=resend"}}, func(t *testing.T, r *rig) {
		r.faults(t, everywhere(emulator.Fault{Mode: "black_hole", Count: 15}))
		pause(t, *duration/2)
		open := r.number(t, `SELECT count(*) FROM inflight WHERE started_at IS NOT NULL`)
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
