//go:build drill

package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/emulator"
)

// outcomes are the local parts by which the emulators decide the outcome of a message.
func outcomes() []string {
	return []string{"ann", "bounce", "softbounce", "complaint", "defer", "suppressed", "open", "click"}
}

// end is the status and the events that a message must have after all its events came. Events are in the order in which they
// happen.
type end struct {
	Status, Class, Reason string
	Events                []string // type and source
}

// endOf is the end of a message by one account, from the providers' documentation of their events.
func endOf(t *testing.T, account, outcome string) end {
	t.Helper()
	e, ok := map[string]end{
		"ann":        {Status: "delivered", Events: []string{"delivered webhook"}},
		"bounce":     {"bounced", "hard", "invalid_address", []string{"bounced webhook"}},
		"softbounce": {"bounced", "soft", "mailbox_full", []string{"bounced webhook"}},
		"complaint":  {Status: "complained", Events: []string{"delivered webhook", "complained webhook"}},
		"defer":      {Status: "delivered", Events: []string{"deferred webhook", "delivered webhook"}},
		"suppressed": {Status: "suppressed", Reason: "suppressed_bounce"},
		"open":       {Status: "delivered", Events: []string{"delivered webhook", "opened webhook"}},
		"click":      {Status: "delivered", Events: []string{"delivered webhook", "clicked webhook"}},
	}[outcome]
	if !ok {
		t.Fatalf("no such outcome: %s", outcome)
	}
	switch {
	case emulates(account).SMTP:
		e = relayEnd(e, outcome)
	case outcome == "suppressed": // it says so by an event or refuses in the call
		e.Events = entry(t, "suppressed of endOf (circle_ends_test.go)", map[string][]string{
			"sendgrid": {"rejected webhook"}, "mailgun": {"accepted webhook", "rejected webhook"}, "postmark": {"rejected response"},
			"resend": {"rejected webhook"}, "ses": {"accepted webhook", "rejected webhook"},
		}, account)
	}
	if outcome != "suppressed" {
		first := "accepted response"
		if specOf(account).Events.Accepted {
			first = "accepted webhook"
		}
		e.Events = append([]string{first}, e.Events...)
	}
	return e
}

// relayEnd is the end of a message through a relay, which reports failures, delays and complaints.
func relayEnd(e end, outcome string) end {
	switch outcome {
	case "complaint":
		e.Events = []string{"complained webhook"}
	case "defer":
		return end{"deferred", "soft", "technical", []string{"deferred webhook"}}
	case "suppressed": // it has no list, and refuses the address
		return end{"failed", "hard", "invalid_address", []string{"rejected response"}}
	case "ann", "open", "click":
		return end{Status: "sent"}
	}
	return e
}

// tellings is the number of events that the provider reports for such a message.
func tellings(t *testing.T, account, outcome string) int {
	t.Helper()
	n := 0
	for _, e := range endOf(t, account, outcome).Events {
		if strings.HasSuffix(e, " webhook") {
			n++
		}
	}
	if course := emulates(account).Course; course != nil && slices.Contains(course(outcome), emulator.Deactivated) {
		n++ // it mirrors the other
	}
	return n
}

// told counts the events of each provider that were answered, and so are stored.
func (b *bench) told() map[string]int64 {
	n := map[string]int64{}
	for kind, s := range b.emu.Stats() {
		n[kind] = s.Hooks.Events
	}
	return n
}

// awaitTold waits until each provider has reported the wanted number of events since its start.
func (b *bench) awaitTold(t *testing.T, want map[string]int64) {
	t.Helper()
	deadline := time.Now().Add(settleTime)
	for {
		got := b.told()
		if maps.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("events told = %v, want %v\nevents stored of one message: %s\n%+v", got, want, strings.Join(b.oddlyTold(t), "; "), b.emu.Stats())
		}
		pause(t, 20*time.Millisecond)
	}
}

// oddlyTold names the accounts and outcomes of which other events are stored than endOf says.
func (b *bench) oddlyTold(t *testing.T) []string {
	t.Helper()
	rows, err := b.rows.Query(t.Context(), `SELECT DISTINCT a.name, split_part(replace(lower(r.email), '+', '@'), '@', 1),
		(SELECT count(*) FROM event e WHERE e.message_id = r.message_id AND e.source = 'webhook')
		FROM recipient r JOIN attempt t USING (message_id) JOIN account a ON a.id = t.account_id`)
	if err != nil {
		t.Fatal(err)
	}
	odd, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var account, outcome string
		var n int
		err := row.Scan(&account, &outcome, &n)
		if err != nil || !slices.Contains(outcomes(), outcome) || n == tellings(t, account, outcome) {
			return "", err
		}
		return fmt.Sprintf("%s of %s %d, want %d", outcome, account, n, tellings(t, account, outcome)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(odd, func(s string) bool { return s == "" })
}
