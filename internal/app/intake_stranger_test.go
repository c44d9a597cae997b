//go:build drill

package app

import (
	"net/http"
	"testing"

	"github.com/sendgate/sendgate/api"
)

// A valid signature does not make a stranger a recipient, and an event without our id is matched by the provider's id.
func TestSignedEventsActForTheirOwnRecipients(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	h := newHerald(t, b, r)
	const stranger, bob = "ceo@victim.example", "bob@example.org"
	post := func(kind string, e told) {
		t.Helper()
		if status := h.sign(t, kind, e).post(t, b, r); status != http.StatusOK {
			t.Errorf("%s: status %d", kind, status)
		}
	}
	ids := map[string]string{}
	for _, kind := range hookKinds() {
		m := letterTo(kind, "ann@example.org")
		m.To = append(m.To, api.Address{Email: bob})
		ids[kind] = send(t, r.api, m)
	}
	b.settle(t, settleTime)
	for kind, id := range ids {
		for what, verdict := range reporterOf(t, kind, stranger).verdicts {
			post(kind, told{id: id, to: stranger, alter: []fields{verdict}})
			if m := message(t, r.api, id); m.Status != "sent" {
				t.Errorf("%s, %s of a stranger: status %s", kind, what, m.Status)
			}
		}
	}
	if got := suppressions(t, r.api); len(got) > 0 {
		t.Fatalf("suppressed = %+v, want nobody", got)
	}
	for _, e := range allEvents(t, r.api) {
		if e.Recipient == stranger && e.Type != "" {
			t.Errorf("the event of a stranger is told as %s of %s", e.Type, e.Account)
		}
	}
	for kind, id := range ids {
		entries := b.ledger()[id]
		if len(entries) != 1 {
			t.Fatalf("%s: %d calls", kind, len(entries))
		}
		p := reporterOf(t, kind, bob)
		post(kind, told{id: id, to: bob, alter: []fields{p.verdicts["bounce"], p.strip(entries[0].ProviderMessageID)}})
		m := message(t, r.api, id)
		if m.Recipients[0].Status != "sent" || m.Recipients[1].Status != "bounced" {
			t.Errorf("%s, by its own id: recipients are %s and %s, want sent and bounced", kind, m.Recipients[0].Status, m.Recipients[1].Status)
		}
	}
}
