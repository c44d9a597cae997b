//go:build drill

package app

import (
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// A call whose answer was lost is made again at a provider that takes an idempotency key, and the message is sent once.
// The provider sends no webhooks, so only the repeat can settle the message.
func TestALostAnswerIsAskedForAgainWithTheSameKey(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t, "SENDGATE_REPEAT_SCHEDULE=1s,2s", "SENDGATE_UNKNOWN_WAIT=30m")
	b.faults(t, map[string][]emulator.Fault{"resend": {
		{Mode: "accept_then_drop", Match: "taken*", Count: 1},
		{Mode: "error", Status: 500, Match: "lost*", Count: 2},
	}})
	for who, attempts := range map[string]int{"taken": 2, "lost": 3} {
		l := letterTo("resend", who+"@example.org")
		l.OnAmbiguous = "never"
		m := becomes(t, r.api, send(t, r.api, l), 30*time.Second, "sent", "delivered")
		if len(m.Attempts) != attempts {
			t.Fatalf("%s: attempts = %+v, want %d", who, m.Attempts, attempts)
		}
		for i, a := range m.Attempts {
			class, source := "uncertain", "repeat"
			if i == attempts-1 {
				class, source = "accepted", "response"
			}
			if a.Account != "resend" || a.Class != class || a.VerdictSource != source {
				t.Errorf("%s: attempt %d = %s %s/%s, want resend %s/%s", who, i+1, a.Account, a.Class, a.VerdictSource, class, source)
			}
		}
		entries := 0
		for _, e := range b.emu.Ledger() {
			if strings.HasPrefix(e.To[0], who) {
				entries++
				if e.ProviderMessageID != m.Attempts[attempts-1].ProviderMessageID {
					t.Errorf("%s: the mail is %s, and the attempt names %s", who, e.ProviderMessageID, m.Attempts[attempts-1].ProviderMessageID)
				}
			}
		}
		if entries != 1 {
			t.Errorf("%s: %d mails were sent, want one", who, entries)
		}
	}
	if n := b.count(t.Context(), `SELECT coalesce(sum(resends), 0) FROM message`); n != 0 {
		t.Errorf("%d resends are counted, want none", n)
	}
}
