//go:build drill

package drill

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
)

// hit fails the drill unless a provider's fault affected a call.
func (r *rig) hit(t *testing.T, kind string, least int64) {
	t.Helper()
	s := r.emu.Stats()[kind]
	if n := s.Throttled + s.Faulted + s.Rejected; n < least {
		t.Errorf("%s: calls that the fault met = %d, want at least %d", kind, n, least)
	}
}

// sentBy counts what a provider took since a time.
func (r *rig) sentBy(kind string, since time.Time) int {
	n := 0
	for _, e := range r.emu.Ledger() {
		if e.Provider == kind && e.At.After(since) {
			n++
		}
	}
	return n
}

// One provider takes seconds for each answer: the others' mail does not wait for it.
func TestD17ProviderIsSlow(t *testing.T) {
	drillTest(t, "D17", plan{}, func(t *testing.T, r *rig) {
		r.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "latency", Latency: emulator.Duration(4 * time.Second)}}})
		began := time.Now()
		pause(t, *duration)
		open := r.number(t, `SELECT count(*) FROM inflight f JOIN account a ON a.id = f.account_id WHERE a.name = 'sendgrid'`)
		r.report.tally("open_at_the_slow_one", open)
		if open == 0 || open > 2*64 {
			t.Errorf("calls open at the slow provider = %d, want some and at most what two replicas may", open)
		}
		for kind := range everywhere() {
			if kind != "sendgrid" && r.sentBy(kind, began.Add(time.Second)) == 0 {
				t.Errorf("%s got nothing beside the slow provider", kind)
			}
		}
		r.faults(t, nil)
	})
}

// A provider answers 429 to everything for a while: these calls do not count as tries, nothing is lost, and it gets mail
// again afterwards.
func TestD18ProviderThrottles(t *testing.T) {
	drillTest(t, "D18", plan{}, func(t *testing.T, r *rig) {
		seconds := int(duration.Seconds())
		r.faults(t, map[string][]emulator.Fault{
			"sendgrid": {{Mode: "throttle", Seconds: seconds}}, "ses": {{Mode: "throttle", Seconds: seconds}},
		})
		began := time.Now()
		pause(t, *duration)
		r.hit(t, "sendgrid", 1)
		r.hit(t, "ses", 1)
		r.faults(t, nil)
		over := time.Now()
		must(t, 30*time.Second, "the throttled providers get mail again", func() bool {
			return r.sentBy("sendgrid", over) > 0 && r.sentBy("ses", over) > 0
		})
		r.report.figure("back", time.Since(over), 10*time.Second)
		r.report.tally("throttled", r.emu.Stats()["sendgrid"].Throttled+r.emu.Stats()["ses"].Throttled)
		if n := r.sentBy("mailgun", began); n == 0 {
			t.Error("others got nothing meanwhile")
		}
	})
}

// Providers take every twentieth message or so and reset the connection instead of answering.
func TestD19AnswersAreLost(t *testing.T) {
	drillTest(t, "D19", plan{load: load{plain: true, policies: []string{"reconcile", "never"}}}, func(t *testing.T, r *rig) {
		r.faults(t, everywhere(emulator.Fault{Mode: "accept_then_drop", Match: "*+*-*5@*"}))
		pause(t, *duration)
		r.faults(t, nil)
		n := r.number(t, `SELECT count(*) FROM attempt WHERE verdict_source IS DISTINCT FROM 'response'`)
		r.report.tally("answers_lost", n)
		if n < 10 {
			t.Errorf("answers lost = %d: the fault was not on", n)
		}
	})
}

// A provider does not answer: its breaker opens, and mail goes to other accounts.
func TestD20ProviderIsABlackHole(t *testing.T) {
	drillTest(t, "D20", plan{load: load{policies: []string{"never", "reconcile"}}}, func(t *testing.T, r *rig) {
		r.faults(t, map[string][]emulator.Fault{"postmark": {{Mode: "black_hole"}}})
		began := time.Now()
		breaker := func() float64 { return metric(t, r.replicas[0], "sendgate_breaker_state") }
		must(t, 40*time.Second, "the breaker is open", func() bool { return breaker() >= 2 })
		r.report.figure("breaker", time.Since(began), 20*time.Second) // 15 s, and the 5 s between two readings of the metric
		before := r.emu.Stats()["postmark"].Requests
		pause(t, 5*time.Second)
		r.report.tally("probes", r.emu.Stats()["postmark"].Requests-before)
		r.faults(t, nil)
	})
}

// Half of the calls to two providers end in a 500, with or without acceptance: no other account gets the message while the
// outcome is unknown.
func TestD21ProvidersAnswer500(t *testing.T) {
	drillTest(t, "D21", plan{load: load{policies: []string{"never", "reconcile"}}}, func(t *testing.T, r *rig) {
		r.faults(t, map[string][]emulator.Fault{
			"sendgrid": {{Mode: "accept_then_500", Match: "*+*-*[13579]@*"}, {Mode: "accept_then_500", Match: "*+*-*1@*"}, {Mode: "accept_then_500", Match: "*+*-*3@*"}},
			"mailgun":  {{Mode: "accept_then_500", Match: "*+*-*5@*"}, {Mode: "error", Status: http.StatusInternalServerError, Match: "*+*-*7@*"}},
		})
		pause(t, *duration)
		r.faults(t, nil)
		if n := r.number(t, `SELECT count(*) FROM attempt WHERE verdict_source IS DISTINCT FROM 'response'`); n < 10 {
			t.Errorf("calls without an answer = %d: the fault was not on", n)
		}
	})
}

// A provider's credential is revoked: the account is parked within a few calls, and mail goes to other accounts until it is replaced.
func TestD35CredentialIsRevoked(t *testing.T) {
	drillTest(t, "D35", plan{}, func(t *testing.T, r *rig) {
		r.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "error", Status: http.StatusUnauthorized}}})
		began := time.Now()
		must(t, 20*time.Second, "the account is parked", func() bool { return r.count(t.Context(), `SELECT count(*) FROM account_park`) == 1 })
		r.report.figure("parked", time.Since(began), 5*time.Second)
		pause(t, 3*time.Second) // every replica knows
		calls := r.emu.Stats()["sendgrid"].Rejected
		pause(t, *duration/2)
		if more := r.emu.Stats()["sendgrid"].Rejected - calls; more != 0 {
			t.Errorf("calls to a parked account = %d, want none", more)
		}
		r.report.tally("calls_refused", calls)
		r.faults(t, nil)
		if _, err := r.admin.ResumeAccount(t.Context(), "sendgrid"); err != nil {
			t.Fatal(err)
		}
		over := time.Now()
		must(t, 20*time.Second, "it gets mail again", func() bool { return r.sentBy("sendgrid", over) > 0 })
	})
}

// Events come twice, late, in the wrong order and with new ids: each message ends as if they had come once.
func TestD25EventsComeInAnyOrder(t *testing.T) {
	drillTest(t, "D25", plan{}, func(t *testing.T, r *rig) {
		r.faults(t, everywhere(
			emulator.Fault{Mode: "hook_shuffle"}, emulator.Fault{Mode: "hook_duplicate", Copies: 2}, emulator.Fault{Mode: "hook_new_id"},
			emulator.Fault{Mode: "hook_delay", Latency: emulator.Duration(2 * time.Second), Match: "*1@*"},
		))
		pause(t, *duration)
		r.clients.stop()
		if !eventually(t, time.Minute, func() bool { return r.count(t.Context(), toldSQL) == 0 }) {
			t.Errorf("recipients of whose end nothing was told = %d", r.number(t, toldSQL))
			r.show(t, `SELECT a.kind, r.status, r.email FROM recipient r JOIN attempt t ON t.message_id = r.message_id
				JOIN account a ON a.id = t.account_id WHERE r.status IN ('queued', 'sent') AND a.kind <> 'smtp' LIMIT 10`)
		}
		r.faults(t, nil)
		twice := r.number(t, `SELECT count(*) FROM (SELECT FROM event WHERE source = 'webhook' AND type = 'delivered'
			GROUP BY message_id, recipient HAVING count(*) > 1) x`)
		if twice != 0 {
			t.Errorf("deliveries that are stored twice = %d, want none", twice)
		}
		r.report.tally("events", r.number(t, `SELECT count(*) FROM event WHERE source = 'webhook'`))
	})
}

// toldSQL counts recipients whose end the provider must still report. A relay reports only failures, and Mailgun reports a
// delivery once, whatever the answer.
const toldSQL = `
SELECT count(*) FROM recipient r
WHERE r.status IN ('queued', 'sent') AND NOT EXISTS (
    SELECT 1 FROM attempt t JOIN account a ON a.id = t.account_id WHERE t.message_id = r.message_id AND a.kind IN ('smtp', 'mailgun'))`

// trickle are windows of every shape that the documented limits have, short enough for a drill: about 60 messages a second.
func trickle() map[string][]limit.Window {
	const s = time.Second
	return map[string][]limit.Window{
		"sendgrid": {{N: 20, Per: 2 * s, Unit: limit.Requests}}, "mailgun": {{N: 60, Per: 10 * s, Unit: limit.Messages}},
		"postmark": {{N: 10, Per: s, Unit: limit.Messages}}, "resend": {{N: 5, Per: s, Unit: limit.Requests}},
		"ses": {{N: 14, Per: s, Unit: limit.Requests}}, "smtp": {{N: 60, Per: 3 * s, Unit: limit.Messages}},
	}
}

// The name of a provider can't be resolved. The message was certainly not sent, so other accounts send it at once.
func TestD33ProviderHasNoAddress(t *testing.T) {
	drillTest(t, "D33", plan{}, func(t *testing.T, r *rig) {
		key := map[string]string{"api_key": r.emu.Secret("sendgrid", "api_key")} // settings that point to another place need it again
		r.patchSettings(t, "sendgrid", "base_url", "https://api.sendgrid.invalid", key)
		pause(t, *duration)
		n := r.number(t, `SELECT count(*) FROM attempt t JOIN account a ON a.id = t.account_id WHERE a.name = 'sendgrid' AND t.class = 'transient'`)
		r.report.tally("calls_without_an_address", n)
		if n == 0 {
			t.Error("no call met the name: the fault was not on")
		}
		if n := r.number(t, `SELECT count(*) FROM attempt WHERE class = 'uncertain'`); n != 0 {
			t.Errorf("calls of unknown outcome = %d, want none: nothing was sent", n)
		}
		r.patchSettings(t, "sendgrid", "base_url", r.emu.URL()+"/sendgrid", key)
	})
}

// patchSettings changes one setting of an account.
func (r *rig) patchSettings(t *testing.T, account, field string, value any, secrets map[string]string) {
	t.Helper()
	a, err := r.admin.Account(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]any{}
	if err := json.Unmarshal(a.Settings, &settings); err != nil {
		t.Fatal(err)
	}
	settings[field] = value
	raw, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.PatchAccount(t.Context(), account, api.AccountRequest{Settings: raw, Secrets: secrets}); err != nil {
		t.Fatal(err)
	}
	pause(t, 2*time.Second) // which is when a change binds everywhere
}
