package app

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

// finds tells which kinds can be asked what became of a message.
func finds(account string) bool {
	s, ok := catalog.Spec(provider.Kind(account))
	return ok && s.Lookup.Works
}

// script is one script for all providers: faults of sends, which end before the second part of a test, and others.
func script(faults ...emulator.Fault) map[string][]emulator.Fault {
	all := map[string][]emulator.Fault{}
	for _, account := range accountNames() {
		all[account] = append(all[account], faults...)
	}
	return all
}

// accident loses the answers of calls that were accepted, and ends with a replica that must find out.
type accident struct {
	name string
	lose emulator.Fault // the ledger is written before it
	kill bool           // the answers never come, since the process that waits for them is killed
}

func accidents() []accident {
	const open = time.Minute // longer than the process lives
	return []accident{
		{name: "answer dropped", lose: emulator.Fault{Mode: "accept_then_drop"}},
		{name: "process killed", lose: emulator.Fault{Mode: "accept_then_drop", Latency: emulator.Duration(open)}, kill: true},
	}
}

// crash sends the messages with their answers lost, under the fate of events given, and returns the replica that goes on.
// Nothing is sent a second time before it returns, and all of it is in the ledger once.
func (a accident) crash(t *testing.T, b *bench, events emulator.Fault, settings []string, all map[string]api.SendRequest) (r *replica, ids map[string]string) {
	t.Helper()
	b.faults(t, script(a.lose, events))
	settings = append(settings, "SENDGATE_LEASE=2s")
	var victim *process
	if a.kill {
		victim = b.serve(t, settings...)
		r = victim.replica
	} else {
		r = b.start(t, settings...)
	}
	ids = map[string]string{}
	for name, m := range all {
		ids[name] = send(t, r.api, m)
	}
	eventually(t, settleTime, "the providers have all messages", func() bool { return len(b.emu.Ledger()) == len(all) })
	if !a.kill {
		eventually(t, settleTime, "all answers are lost", func() bool { return b.count(t.Context(), `SELECT count(*) FROM inflight`) == 0 })
		b.faults(t, script(events))
		return r, ids
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM inflight WHERE started_at IS NOT NULL`); n != len(all) {
		t.Errorf("calls open at the kill = %d, want %d", n, len(all))
	}
	victim.kill()
	b.faults(t, script(events))
	return b.start(t, settings...), ids
}

// checkVerdict holds a message whose first answer was lost to how it was found out, and what a provider got of it.
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
	for _, a := range accidents() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			b, settings := newCircle(t)
			settings = append(settings, "SENDGATE_UNKNOWN_WAIT=60s", "SENDGATE_RECONCILE_DEADLINE=60s", "SENDGATE_LOOKUP_SCHEDULE=60s")
			all, want := map[string]api.SendRequest{}, map[string]string{}
			for _, account := range accountNames() {
				for _, policy := range []string{"reconcile", "never", "resend"} {
					m := letterTo(account, fmt.Sprintf("ann+%s-%s@example.org", policy, account))
					name := account + " " + policy
					if want[name] = "delivered"; account == "smtp" { // which tells of nothing good
						m.To[0].Email, want[name] = "bounce+"+m.To[0].Email, "bounced"
					}
					m.OnAmbiguous = policy
					all[name] = m
				}
			}
			r, ids := a.crash(t, b, emulator.Fault{Mode: "hook_hold"}, settings, all)
			for name, id := range ids {
				m := becomes(t, r.api, id, settleTime, "unknown")
				if got := m.Attempts[0]; got.Class != "uncertain" {
					t.Errorf("%s: first attempt while unknown = %+v", name, got)
				}
			}
			b.faults(t, nil) // which lets the events go
			for name, id := range ids {
				b.checkVerdict(t, name, becomes(t, r.api, id, settleTime, want[name]), want[name], "webhook", 1)
			}
			b.settle(t, settleTime)
		})
	}
}

func TestLostAnswersAreSettledWithoutWebhooks(t *testing.T) {
	t.Parallel()
	for _, a := range accidents() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			b, settings := newCircle(t)
			settings = append(settings, "SENDGATE_UNKNOWN_WAIT=2s", "SENDGATE_RECONCILE_DEADLINE=15s", "SENDGATE_LOOKUP_SCHEDULE=1s,4s,7s,10s")
			all := map[string]api.SendRequest{}
			for _, account := range accountNames() {
				for _, policy := range []string{"reconcile", "never", "resend"} {
					m := letterTo(account, fmt.Sprintf("ann+%s-%s@example.org", policy, account))
					m.OnAmbiguous = policy
					all[account+" "+policy] = m
				}
			}
			r, ids := a.crash(t, b, emulator.Fault{Mode: "hook_drop"}, settings, all)
			for _, account := range accountNames() {
				never := becomes(t, r.api, ids[account+" never"], settleTime, "failed_unknown")
				b.checkVerdict(t, account+" never", never, "failed_unknown", "deadline", 1)
				again := becomes(t, r.api, ids[account+" resend"], settleTime, "sent")
				b.checkVerdict(t, account+" resend", again, "sent", "deadline", 2)
				name, id := account+" reconcile", ids[account+" reconcile"]
				if finds(account) {
					m := becomes(t, r.api, id, settleTime, "delivered")
					b.checkVerdict(t, name, m, "delivered", "lookup", 1)
					if slices.ContainsFunc(m.Events, func(e api.Event) bool { return e.Source != "lookup" }) {
						t.Errorf("%s: events = %+v, want those of the look-up", name, m.Events)
					}
				} else {
					b.checkVerdict(t, name, becomes(t, r.api, id, settleTime, "failed_unknown"), "failed_unknown", "deadline", 1)
				}
			}
			b.settle(t, settleTime)
			for kind, s := range b.emu.Stats() {
				if s.Hooks.Events != 0 {
					t.Errorf("%s told %d events: the test tests less than it says", kind, s.Hooks.Events)
				}
				if finds(kind) != (s.Lookups > 0) {
					t.Errorf("look-ups at %s = %d", kind, s.Lookups)
				}
			}
		})
	}
}

// A message that nobody accepted is sent again by what look-ups prove, and not a moment before they prove it.
func TestProvedAbsenceSendsOnce(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	settings = append(settings, "SENDGATE_LEASE=2s", "SENDGATE_RECONCILE_DEADLINE=24h", "SENDGATE_LOOKUP_SCHEDULE=1s,2h")
	b.faults(t, script(emulator.Fault{Mode: "black_hole"}))
	victim := b.serve(t, settings...)
	ids, settled := map[string]string{}, map[string]time.Duration{}
	for _, account := range accountNames() {
		if finds(account) {
			spec, _ := catalog.Spec(provider.Kind(account))
			settled[account] = spec.Lookup.Settled
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
	got := map[string]int{}
	for account, id := range ids {
		got[account] = len(b.ledger()[id])
	}
	if want := map[string]int{"mailgun": 1, "postmark": 1, "sendgrid": 1}; !maps.Equal(got, want) {
		t.Errorf("ledger lines = %v, want %v", got, want)
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
