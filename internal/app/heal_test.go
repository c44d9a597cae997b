//go:build drill

package app

import (
	"net/http"
	"slices"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// unparked waits until the audit shows that a park of an account ended automatically.
func unparked(t *testing.T, r *replica, account string) {
	t.Helper()
	eventually(t, settleTime, account+" is unparked by itself", func() bool {
		page, err := r.admin.Audit(t.Context(), api.AuditFilter{Limit: 100})
		if err != nil {
			return false
		}
		return slices.ContainsFunc(page.Data, func(e api.AuditEntry) bool {
			return e.Action == "account.unpark" && e.Target == account && e.Actor == "system"
		})
	})
}

func TestAParkedAccountResumesByItselfAndLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	first, second := b.start(t, "SENDGATE_PARK_PROBE=1s"), b.start(t, "SENDGATE_PARK_PROBE=1s")
	only(t, first, "sendgrid")
	// The park itself, and two probes.
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "error", Status: 401, Body: `{"errors":[{"message":"Maximum credits exceeded"}]}`}}})
	ids := []string{send(t, first.api, letter(0))}
	for name, r := range map[string]*replica{"the one that was told": first, "the other": second} {
		eventually(t, settleTime, name+" says that it is degraded", func() bool {
			status, line := b.get(t, r.ops+"/readyz")
			return status == http.StatusOK && line == "degraded: no account can send in pool default\n"
		})
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM account_park WHERE sender_domain = ''`); n != 1 {
		t.Errorf("parks of the account = %d, want 1", n)
	}
	ids = append(ids, submit(t, second.api, letters(20))...)
	eventually(t, settleTime, "two probes were refused", func() bool {
		return b.count(t.Context(), `SELECT coalesce(max(probes), 0) FROM account_park`) >= 2
	})
	calls := b.emu.Stats()["sendgrid"].Requests
	if tries := b.count(t.Context(), `SELECT coalesce(max(tries), 0) FROM ready`); tries != 0 {
		t.Errorf("tries = %d, want none used up by probes", tries)
	}
	b.faults(t, nil)
	unparked(t, first, "sendgrid")
	for _, id := range ids {
		becomes(t, first.api, id, settleTime, "sent")
	}
	if got := b.shares(); got["sendgrid"] != len(ids) {
		t.Errorf("ledger = %v, want all %d by sendgrid, once", got, len(ids))
	}
	if calls > 5 {
		t.Errorf("%d calls while the account was parked, want a probe at a time", calls)
	}
	eventually(t, settleTime, "it is ready again", func() bool {
		_, line := b.get(t, first.ops+"/readyz")
		return line == "ready\n"
	})
	a, err := first.admin.Account(t.Context(), "sendgrid")
	if err != nil || a.State != "active" || len(a.Parked) != 0 {
		t.Errorf("account = %+v, %v; want it active", a, err)
	}
}

func TestARefusedSenderIsParkedAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t, "SENDGATE_PARK_PROBE=1s")
	only(t, r, "sendgrid")
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {{
		Mode: "error", Status: 403, Match: "ann0@*",
		Body: `{"errors":[{"message":"The from address does not match a verified Sender Identity.","field":"from"}]}`,
	}}})
	bad := letter(0)
	bad.From.Email = "Typo@example.com"
	waits := send(t, r.api, bad)
	eventually(t, settleTime, "the address is parked", func() bool {
		a, err := r.admin.Account(t.Context(), "sendgrid")
		return err == nil && a.State == "active" && len(a.Parked) == 1 && a.Parked[0].Sender == "typo@example.com" &&
			a.Parked[0].SenderDomain == "example.com" && !a.Parked[0].NextProbe.IsZero()
	})
	for _, id := range submit(t, r.api, letters(5)[1:]) { // its neighbours go on
		becomes(t, r.api, id, settleTime, "sent")
	}
	if got := message(t, r.api, waits).Status; got != "queued" {
		t.Errorf("the message of the parked address is %s, want it queued", got)
	}
	if _, err := r.admin.ResumeAccount(t.Context(), "sendgrid"); err != nil {
		t.Fatal(err)
	}
	eventually(t, settleTime, "the message that waited met it again", func() bool { return len(message(t, r.api, waits).Attempts) >= 2 })
	for _, id := range submit(t, r.api, letters(5)[1:]) {
		becomes(t, r.api, id, settleTime, "sent")
	}
	b.faults(t, nil)
	becomes(t, r.api, waits, settleTime, "sent")
	unparked(t, r, "sendgrid")
}

func TestOneMessageStopsNoSecondOne(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	answers := map[string]emulator.Fault{
		"postmark": {Status: 422, Body: `{"ErrorCode":412,"Message":"Your account is pending approval: recipients must share the sender's domain."}`},
		"mailgun":  {Status: 400, Body: `{"message":"Domain sandbox1.mailgun.org is not allowed to send: Sandbox subdomains are for test purposes only."}`},
		"ses": {
			Status: 400, Headers: map[string]string{"X-Amzn-ErrorType": "MessageRejected"},
			Body: `{"message":"Email address is not verified. The following identities failed the check in region EU-WEST-1: odd@example.org"}`,
		},
	}
	script := map[string][]emulator.Fault{}
	for kind, f := range answers {
		f.Mode, f.Match = "error", "odd@example.org"
		script[kind] = []emulator.Fault{f}
	}
	b.faults(t, script)
	odd := func(account string) api.SendRequest { return letterTo(account, "odd@example.org") }
	for account := range answers {
		for range 2 { // beside others, and two in a row
			becomes(t, r.api, send(t, r.api, odd(account)), settleTime, "failed")
		}
		becomes(t, r.api, send(t, r.api, pinned(account)), settleTime, "sent")
		for range 2 {
			becomes(t, r.api, send(t, r.api, odd(account)), settleTime, "failed")
		}
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM account_park`); n != 0 {
		t.Fatalf("%d parks after two refusals in a row, want none", n)
	}
	m := letter(0)
	m.To[0].Email = "odd@example.org"
	for range 10 { // not pinned: somebody takes it
		becomes(t, r.api, send(t, r.api, m), settleTime, "sent")
	}
	for account := range answers {
		for range 3 {
			becomes(t, r.api, send(t, r.api, odd(account)), settleTime, "failed", "queued")
		}
		eventually(t, settleTime, account+" is parked after three in a row", func() bool {
			a, err := r.admin.Account(t.Context(), account)
			return err == nil && a.State == "parked"
		})
	}
}
