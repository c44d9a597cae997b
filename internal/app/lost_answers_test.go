//go:build drill

package app

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

func TestAMessageWhoseAnswerIsLostIsUnknownAndGoesNowhereElse(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t, "SENDGATE_UNKNOWN_WAIT=2s", "SENDGATE_RECONCILE_DEADLINE=2s")
	only(t, r, "mailgun", "sendgrid", "ses")
	modes := []string{"accept_then_drop", "accept_then_500"}
	var lost []emulator.Fault
	for _, mode := range modes {
		lost = append(lost, emulator.Fault{Mode: mode, Match: mode + "-*"})
	}
	b.faults(t, map[string][]emulator.Fault{"mailgun": lost, "sendgrid": lost, "ses": lost})
	ids := map[string]string{}
	for _, mode := range modes {
		for _, policy := range []string{"never", "reconcile", "resend"} {
			m := letter(0)
			m.To[0].Email, m.OnAmbiguous = mode+"-"+policy+"@example.org", policy
			ids[mode+" "+policy] = send(t, r.api, m)
		}
	}
	for name, id := range ids {
		m := becomes(t, r.api, id, settleTime, "unknown")
		if len(m.Attempts) != 1 || m.Attempts[0].Class != "uncertain" || m.Recipients[0].Status != "unknown" {
			t.Errorf("%s: attempts %s, recipient %s; want one uncertain attempt and an unknown recipient",
				name, classes(m), m.Recipients[0].Status)
		}
	}
	b.faults(t, nil)
	b.settle(t, 30*time.Second)
	for _, mode := range modes {
		for policy, want := range map[string]string{"never": "failed_unknown", "reconcile": "failed_unknown", "resend": "sent"} {
			m, entries := message(t, r.api, ids[mode+" "+policy]), 1
			if policy == "resend" {
				entries = 2
			}
			if m.Status != want {
				t.Errorf("%s: status = %s, want %s", policy, m.Status, want)
			}
			if got := len(b.ledger()[m.ID]); got != entries {
				t.Errorf("%s: ledger entries = %d, want %d (%s)", policy, got, entries, classes(m))
			}
			if m.Attempts[0].VerdictSource != "deadline" {
				t.Errorf("%s: verdict source = %q, want deadline", policy, m.Attempts[0].VerdictSource)
			}
		}
	}
}
