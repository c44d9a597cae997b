package app

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// besideRelay is a bench whose pool has the relay and one healthy provider, in equal parts.
func besideRelay(t *testing.T) (*bench, *replica) {
	t.Helper()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	only(t, r, "smtp", "sendgrid")
	return b, r
}

// A relay whose quota ends, or that does not know our sender, refuses everything from then on. Nobody else pays for it.
func TestARelayThatBeginsToRefuseCostsNobody(t *testing.T) {
	t.Parallel()
	const n, before = 40, 10
	for name, refusal := range map[string]emulator.Fault{
		"quota at MAIL":   {Mode: "error", Stage: "mail", Status: 550, Body: "5.4.5 Daily user sending limit exceeded"},
		"quota at RCPT":   {Mode: "error", Stage: "rcpt", Status: 550, Body: "5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"},
		"quota at dot":    {Mode: "error", Stage: "data", Status: 554, Body: "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"},
		"identity at dot": {Mode: "error", Stage: "data", Status: 554, Body: "Message rejected: Email address is not verified. The following identities failed the check: shop@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, r := besideRelay(t)
			submit(t, r.api, letters(n)[:before])
			b.settle(t, settleTime)
			taken := b.shares()["smtp"]
			b.faults(t, map[string][]emulator.Fault{"smtp": {refusal}})
			submit(t, r.api, letters(n)[before:])
			b.settle(t, settleTime)
			if got := b.statuses(t); got["sent"] != n {
				t.Errorf("statuses = %v, want %d sent", got, n)
			}
			if got := b.shares(); got["smtp"] != taken || got["sendgrid"] != n-taken {
				t.Errorf("accepted by = %v, want %d by the relay and the rest by the other", got, taken)
			}
			if got := suppressions(t, r.api); len(got) != 0 {
				t.Errorf("suppressed %+v, want nobody", got)
			}
			refused := b.count(t.Context(), `SELECT count(*) FROM attempt WHERE class IN ('throttled', 'misconfigured')`)
			if refused < 1 || refused > n/2 {
				t.Errorf("refused calls = %d, want a few: the relay was asked, and then left alone", refused)
			}
			if parked := b.count(t.Context(), `SELECT count(*) FROM attempt WHERE class = 'misconfigured'`); name != "identity at dot" && parked != 0 {
				t.Errorf("%d calls parked the sender or the account for a quota", parked)
			}
		})
	}
}

// The quota may end in the middle of a message: whom the relay took is sent to, and the others go elsewhere.
func TestAQuotaThatEndsAmongTheRecipientsSplitsTheMessage(t *testing.T) {
	t.Parallel()
	b, r := besideRelay(t)
	b.faults(t, map[string][]emulator.Fault{"smtp": {{
		Mode: "error", Stage: "rcpt", Status: 550, Body: "5.4.5 Daily user sending limit exceeded", Match: "late*",
	}}})
	m := letter(0)
	m.To = []api.Address{{Email: "early@example.org"}, {Email: "late@example.org"}}
	var all []api.SendRequest
	for range 6 {
		all = append(all, m)
	}
	submit(t, r.api, all)
	b.settle(t, 2*time.Minute)
	to := map[string]int{}
	for _, e := range b.emu.Ledger() {
		for _, a := range e.To {
			to[a]++
		}
	}
	if to["early@example.org"] != len(all) || to["late@example.org"] != len(all) {
		t.Errorf("copies = %v, want %d for each", to, len(all))
	}
	if got := b.statuses(t); got["sent"] != len(all) {
		t.Errorf("statuses = %v, want %d sent", got, len(all))
	}
	if got := suppressions(t, r.api); len(got) != 0 {
		t.Errorf("suppressed %+v, want nobody", got)
	}
}
