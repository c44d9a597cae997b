//go:build drill

package app

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// benchWithRelay has a relay, by the name relay, and one healthy provider in the pool, in equal parts.
func benchWithRelay(t *testing.T) (*bench, *replica) {
	t.Helper()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	a, err := r.admin.Account(t.Context(), "smtp")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]any{}
	if err := json.Unmarshal(a.Settings, &settings); err != nil {
		t.Fatal(err)
	}
	delete(settings, "bounce_domain") // which one account has
	raw, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.CreateAccount(t.Context(), api.AccountRequest{
		Name: "relay", Kind: "smtp", Settings: raw, Secrets: map[string]string{"password": b.emu.Secret("smtp", "password")}, Limits: &[]api.Limit{},
	}); err != nil {
		t.Fatal(err)
	}
	only(t, r, "relay", "sendgrid")
	return b, r
}

// A relay whose quota ends, or that does not know our sender, refuses everything from then on. Other mail is not affected.
func TestARelayThatBeginsToRefuseCostsNobody(t *testing.T) {
	t.Parallel()
	const n = 10 // at a time
	for _, c := range []struct {
		name    string
		refusal emulator.Fault
	}{
		{"quota at MAIL", emulator.Fault{Stage: "mail", Status: 550, Body: "5.4.5 Daily user sending limit exceeded"}},
		{"quota at RCPT", emulator.Fault{Stage: "rcpt", Status: 550, Body: "5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"}},
		{"quota at dot", emulator.Fault{Stage: "data", Status: 554, Body: "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"}},
		{"identity at dot", emulator.Fault{Stage: "data", Status: 554, Body: "Message rejected: Email address is not verified. The following identities failed the check: shop@example.com"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, r := benchWithRelay(t)
			sent := 0
			byRelay := func(class string) int {
				return b.count(t.Context(), `SELECT count(*) FROM attempt t JOIN account a ON a.id = t.account_id WHERE a.name = 'relay' AND t.class = $1`, class)
			}
			wave := func() {
				submit(t, r.api, letters(n))
				b.settle(t, settleTime)
				sent += n
			}
			wave()
			taken := byRelay("accepted")
			c.refusal.Mode = "error"
			b.faults(t, map[string][]emulator.Fault{"smtp": {c.refusal}})
			refused := func() int { return byRelay("throttled") + byRelay("misconfigured") }
			for range 5 { // by chance it may get nothing of the first
				if wave(); refused() > 0 {
					break
				}
			}
			b.binds(t, r) // a park is part of the configuration
			asked := refused()
			if wave(); asked == 0 || refused() != asked {
				t.Errorf("refused calls = %d, and %d later: want some, and then the relay left alone", asked, refused()-asked)
			}
			if b.statuses(t)["sent"] != sent {
				t.Errorf("statuses = %v, want %d sent", b.statuses(t), sent)
			}
			if got := byRelay("accepted"); got != taken {
				t.Errorf("accepted by the relay = %d, want no more than the %d before it refused", got, taken)
			}
			if got := suppressions(t, r.api); len(got) != 0 {
				t.Errorf("suppressed %+v, want nobody", got)
			}
			if parked := byRelay("misconfigured"); (parked > 0) != (c.name == "identity at dot") {
				t.Errorf("%d calls parked the sender or the account", parked)
			}
		})
	}
}

// The quota ends in the middle of a message: the recipients that the relay took are sent, and the others go to another account.
func TestAQuotaThatEndsAmongTheRecipientsSplitsTheMessage(t *testing.T) {
	t.Parallel()
	b, r := benchWithRelay(t)
	b.faults(t, map[string][]emulator.Fault{"smtp": {{
		Mode: "error", Stage: "rcpt", Status: 550, Body: "5.4.5 Daily user sending limit exceeded", Match: "late*",
	}}})
	m := letter(0)
	m.To = []api.Address{{Email: "early@example.org"}, {Email: "late@example.org"}}
	var all []api.SendRequest
	for range 6 {
		all = append(all, m)
	}
	ids := submit(t, r.api, all)
	for _, id := range ids {
		becomes(t, r.api, id, 2*time.Minute, "sent")
	}
	to := map[string]int{}
	for _, id := range ids {
		for _, e := range b.ledger()[id] {
			for _, a := range e.To {
				to[a]++
			}
		}
	}
	if to["early@example.org"] != len(all) || to["late@example.org"] != len(all) {
		t.Errorf("copies = %v, want %d for each", to, len(all))
	}
	if got := suppressions(t, r.api); len(got) != 0 {
		t.Errorf("suppressed %+v, want nobody", got)
	}
}
