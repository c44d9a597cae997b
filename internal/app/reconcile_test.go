//go:build drill

package app

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/provider"
)

// finds reports which kinds can be asked about a message.
func finds(account string) bool { return specOf(account).Lookup.Works }

// asked are the accounts at which a lost answer is not asked for again by the same call: TestALostAnswerIsAskedForAgain...
// is about the others.
func asked() []string {
	return kindsWith(func(s provider.Spec) bool { return s.Repeat.Within == 0 })
}

// script is one script for all providers: faults of sends, which end before the second part of a test, and others.
func script(faults ...emulator.Fault) map[string][]emulator.Fault {
	return everyAccount(faults)
}

// policies are what a sender may wish for a message whose answer is lost.
func policies() []string { return []string{"never", "reconcile", "resend"} }

// mishap is one message whose answer was lost.
type mishap struct{ account, policy, way, outcome, id string }

func (m *mishap) String() string { return m.account + " " + m.policy + " " + m.way }

// mishaps has one for each account, policy and way to lose the answer: the provider drops it, or the process that waits for
// it is killed. Relay is the outcome at the relay.
func mishaps(relay string) []*mishap {
	var all []*mishap
	for _, account := range asked() {
		for _, policy := range policies() {
			for _, way := range []string{"dropped", "killed"} {
				m := &mishap{account: account, policy: policy, way: way, outcome: "ann"}
				if emulates(account).SMTP {
					m.outcome = relay
				}
				all = append(all, m)
			}
		}
	}
	return all
}

// lose sends all messages and loses their answers, and returns the replica that goes on. By then each provider has each
// message once. The given fault decides which events they send.
func (b *bench) lose(t *testing.T, all []*mishap, events emulator.Fault, settings ...string) *replica {
	t.Helper()
	const open = time.Minute // longer than the process lives
	each := len(policies())
	b.faults(t, script(
		emulator.Fault{Mode: "accept_then_drop", Match: "*+dropped*", Count: each},
		emulator.Fault{Mode: "accept_then_drop", Match: "*+killed*", Count: each, Latency: emulator.Duration(open)},
		events,
	))
	settings = append(settings, "SENDGATE_LEASE=2s")
	victim := b.serve(t, settings...)
	for _, m := range all {
		l := letterTo(m.account, fmt.Sprintf("%s+%s-%s-%s@example.org", m.outcome, m.way, m.policy, m.account))
		l.OnAmbiguous, l.Stream = m.policy, m.way+"-"+m.policy // so that none shares its call, and its fault, with another
		m.id = send(t, victim.api, l)
	}
	eventually(t, settleTime, "the providers have all messages", func() bool { return len(b.emu.Ledger()) == len(all) })
	eventually(t, settleTime, "half of the calls are open, half of the answers lost", func() bool {
		return b.count(t.Context(), `SELECT count(*) FROM inflight WHERE started_at IS NOT NULL`) == len(all)/2 &&
			b.count(t.Context(), `SELECT count(*) FROM unknown`) == len(all)/2
	})
	victim.kill()
	return b.start(t, settings...)
}

// checkVerdict checks, for a message whose first answer was lost, what evidence settled it and how many mails a provider got.
func (b *bench) checkVerdict(t *testing.T, name string, m *api.Message, status, verdict string, lines int) {
	t.Helper()
	if m.Status != status || m.Recipients[0].Status != status {
		t.Errorf("%s: status = %s, recipient %s; want %s", name, m.Status, m.Recipients[0].Status, status)
	}
	first := m.Attempts[0]
	want := map[string]string{"webhook": "accepted", "lookup": "accepted", "deadline": "uncertain"}[verdict]
	if first.VerdictSource != verdict || first.Class != want {
		t.Errorf("%s: the first attempt is %s by %s, want %s by %s", name, first.Class, first.VerdictSource, want, verdict)
	}
	if n := len(b.ledger()[m.ID]); n != lines || len(m.Attempts) != lines {
		t.Errorf("%s: ledger lines = %d, attempts %s; want %d", name, n, classes(m), lines)
	}
	if finds(first.Account) && first.ProviderMessageID == "" && want == "accepted" {
		t.Errorf("%s: proved without the provider's id", name)
	}
}

func TestLostAnswersAreSettledByWebhooks(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	all := mishaps("bounce") // a relay does not report success
	r := b.lose(t, all, emulator.Fault{Mode: "hook_hold"}, append(settings,
		"SENDGATE_UNKNOWN_WAIT=60s", "SENDGATE_RECONCILE_DEADLINE=60s", "SENDGATE_LOOKUP_SCHEDULE=60s")...)
	for _, m := range all {
		if got := becomes(t, r.api, m.id, settleTime, "unknown"); got.Attempts[0].Class != "uncertain" {
			t.Errorf("%s: while unknown the attempt is %s", m, classes(got))
		}
	}
	b.faults(t, nil) // which lets the events go
	for _, m := range all {
		status := "delivered"
		if m.outcome == "bounce" {
			status = "bounced"
		}
		b.checkVerdict(t, m.String(), becomes(t, r.api, m.id, settleTime, status), status, "webhook", 1)
	}
	b.settle(t, settleTime)
}

func TestLostAnswersAreSettledWithoutWebhooks(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	all := mishaps("ann")
	r := b.lose(t, all, emulator.Fault{Mode: "hook_drop"}, append(settings,
		"SENDGATE_UNKNOWN_WAIT=8s", "SENDGATE_RECONCILE_DEADLINE=14s", "SENDGATE_LOOKUP_SCHEDULE=1s,4s,7s,10s")...)
	for _, m := range all {
		status, verdict, lines := "failed_unknown", "deadline", 1
		switch {
		case m.policy == "resend":
			status, lines = "sent", 2
		case m.policy == "reconcile" && finds(m.account):
			status, verdict = "delivered", "lookup"
		}
		got := becomes(t, r.api, m.id, settleTime, status)
		b.checkVerdict(t, m.String(), got, status, verdict, lines)
		if verdict == "lookup" && slices.ContainsFunc(got.Events, func(e api.Event) bool { return e.Source != "lookup" }) {
			t.Errorf("%s: events = %+v, want those of the look-up", m, got.Events)
		}
	}
	b.settle(t, settleTime)
	for kind, s := range b.emu.Stats() {
		if s.Hooks.Events != 0 {
			t.Errorf("%s told %d events: the test tests less than it says", kind, s.Hooks.Events)
		}
		if slices.Contains(asked(), kind) && finds(kind) != (s.Lookups > 0) {
			t.Errorf("look-ups at %s = %d", kind, s.Lookups)
		}
	}
}

// A message that nobody accepted is sent again when look-ups prove that, and not earlier.
func TestProvedAbsenceSendsOnce(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	settings = append(settings, "SENDGATE_LEASE=2s", "SENDGATE_RECONCILE_DEADLINE=24h", "SENDGATE_LOOKUP_SCHEDULE=1s,2h")
	b.faults(t, script(emulator.Fault{Mode: "black_hole"}))
	victim := b.serve(t, settings...)
	ids, settled := map[string]string{}, map[string]time.Duration{}
	for _, account := range asked() {
		if finds(account) {
			settled[account] = specOf(account).Lookup.Settled
			ids[account] = send(t, victim.api, letterTo(account, "ann+"+account+"@example.org"))
		}
	}
	eventually(t, settleTime, "the calls are open", func() bool {
		stats := b.emu.Stats()
		for account := range ids {
			if stats[account].Requests == 0 {
				return false
			}
		}
		return true
	})
	victim.kill()
	b.faults(t, nil)
	r := b.start(t, settings...)
	for _, id := range ids {
		becomes(t, r.api, id, settleTime, "unknown")
	}
	const looked = `SELECT count(*) FROM unknown WHERE checks = 1 AND busy_until <= now()`
	eventually(t, settleTime, "each was looked up", func() bool { return b.count(t.Context(), looked) == len(ids) })
	for account, id := range ids { // and once more, a moment before it would be proof
		b.timePasses(t, id, settled[account]-time.Minute)
	}
	eventually(t, settleTime, "each was looked up again", func() bool { return b.count(t.Context(), looked) == len(ids) })
	if n := len(b.emu.Ledger()); n != 0 {
		t.Fatalf("sent again before it was proved that it must be: %d", n)
	}
	for _, id := range ids {
		b.timePasses(t, id, 2*time.Minute)
	}
	for account, id := range ids {
		m := becomes(t, r.api, id, settleTime, "delivered")
		if first := m.Attempts[0]; len(m.Attempts) != 2 || first.Class != "transient" || first.VerdictSource != "lookup" {
			t.Errorf("%s: attempts = %s, the first by %q; want it transient by lookup", account, classes(m), m.Attempts[0].VerdictSource)
		}
	}
	b.settle(t, settleTime)
	for account, id := range ids {
		if n := len(b.ledger()[id]); n != 1 {
			t.Errorf("%s: ledger lines = %d, want 1", account, n)
		}
	}
}

// timePasses moves the end of an unknown call into the past, as far as look-ups are concerned, and takes back the count
// of those that were made.
func (b *bench) timePasses(t *testing.T, id string, d time.Duration) {
	t.Helper()
	if _, err := b.rows.Exec(t.Context(), `UPDATE unknown SET since = since - $2::interval, checks = 0 WHERE id = $1`, id, d); err != nil {
		t.Fatal(err)
	}
}
