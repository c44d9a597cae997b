package sendgrid

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
)

// A reply that SendGrid passes on is read like any other reply, and overrules SendGrid's own classification.
func TestRepliesOverruleTheClassification(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../smtpcode/testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if !strings.HasPrefix(f[0], "sendgrid") {
			continue
		}
		tried++
		event := map[string]any{"event": "bounce", "type": "bounce", "email": "ann@example.org", "timestamp": 1790000010, "reason": f[1]}
		if f[0] == "sendgrid classification invalid" {
			event["bounce_classification"] = "Invalid Address"
		}
		raw, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		got := parse(raw).Bounce
		if got == nil || string(got.Class) != f[2] || !slices.Contains(strings.Split(f[4], "|"), string(got.Reason)) || got.Rule == "" {
			t.Errorf("%s: %s = %+v, want %s %s and a rule", f[0], f[1], got, f[2], f[4])
		}
	}
	if tried < 5 {
		t.Errorf("%d replies, want the rows of SendGrid", tried)
	}
}

func TestClassificationHoldsWithoutAReply(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]mail.Reason{"Invalid Address": mail.InvalidAddress, "Mailbox Unavailable": mail.Inactive} {
		got := parse([]byte(`{"event":"bounce","type":"bounce","email":"ann@example.org","timestamp":1790000010,"bounce_classification":"` + word + `"}`)).Bounce
		if got == nil || got.Reason != want {
			t.Errorf("%s without a reply = %+v, want %s", word, got, want)
		}
	}
	got := parse([]byte(`{"event":"bounce","type":"bounce","email":"ann@example.org","timestamp":1790000010,"bounce_classification":"Mailbox Unavailable","reason":"550 Rejected"}`)).Bounce
	if got == nil || got.Class != mail.Soft {
		t.Errorf("Mailbox Unavailable with a reply that says nothing = %+v, want soft", got)
	}
}
