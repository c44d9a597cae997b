//go:build drill

package app

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// verdicts are what the providers whose events come over HTTP say of an address, as changes of an event that says something
// else: by kind, then by what it means.
func verdicts(to string) map[string]map[string]func(map[string]any) {
	set := func(v map[string]any) func(map[string]any) { return func(e map[string]any) { maps.Copy(e, v) } }
	now := time.Now().UTC().Format(time.RFC3339)
	return map[string]map[string]func(map[string]any){
		"sendgrid": {
			"bounce":      set(map[string]any{"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 user unknown"}),
			"complaint":   set(map[string]any{"event": "spamreport"}),
			"unsubscribe": set(map[string]any{"event": "unsubscribe"}),
			"delivery":    set(map[string]any{"event": "delivered"}),
		},
		"mailgun": {
			"bounce": set(map[string]any{
				"event": "failed", "severity": "permanent", "reason": "bounce",
				"delivery-status": map[string]any{"code": 550, "message": "550 5.1.1 user unknown"},
			}),
			"complaint":   set(map[string]any{"event": "complained"}),
			"unsubscribe": set(map[string]any{"event": "unsubscribed"}),
			"delivery":    set(map[string]any{"event": "delivered"}),
		},
		"postmark": {
			"bounce":      set(map[string]any{"RecordType": "Bounce", "Type": "HardBounce", "Email": to, "BouncedAt": now, "Details": "550 5.1.1 user unknown"}),
			"complaint":   set(map[string]any{"RecordType": "SpamComplaint", "Type": "SpamComplaint", "Email": to, "BouncedAt": now}),
			"unsubscribe": set(map[string]any{"RecordType": "SubscriptionChange", "SuppressionReason": "ManualSuppression", "SuppressSending": true, "ChangedAt": now}),
			"delivery":    set(map[string]any{}),
		},
		"resend": {
			"bounce": func(e map[string]any) {
				e["type"] = "email.bounced"
				data, _ := e["data"].(map[string]any)
				data["bounce"] = map[string]any{
					"type": "Permanent", "subType": "NoEmail", "message": "no such mailbox", "diagnosticCode": []string{"smtp; 550 5.1.1 user unknown"},
				}
			},
			"complaint":  set(map[string]any{"type": "email.complained"}),
			"suppressed": set(map[string]any{"type": "email.suppressed"}),
			"delivery":   set(map[string]any{"type": "email.delivered"}),
		},
		"ses": {
			"bounce": set(map[string]any{"eventType": "Bounce", "bounce": map[string]any{
				"bounceType": "Permanent", "bounceSubType": "NoEmail", "timestamp": now, "feedbackId": "f-" + to,
				"bouncedRecipients": []map[string]string{{"emailAddress": to, "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 user unknown"}},
			}}),
			"complaint": set(map[string]any{"eventType": "Complaint", "complaint": map[string]any{
				"timestamp": now, "feedbackId": "c-" + to, "complainedRecipients": []map[string]string{{"emailAddress": to}},
			}}),
			"delivery": set(map[string]any{"eventType": "Delivery", "delivery": map[string]any{"timestamp": now, "recipients": []string{to}}}),
		},
	}
}

// withoutOurID takes out of an event what tells our message, and leaves what tells the provider's.
func withoutOurID(kind, theirs string) func(map[string]any) {
	return func(e map[string]any) {
		switch kind {
		case "sendgrid":
			delete(e, "gw_msg")
			e["sg_message_id"] = theirs + ".recvd-canary-5d8c-1-6A00-12.0"
		case "mailgun":
			e["user-variables"] = map[string]string{}
			e["message"] = map[string]any{"headers": map[string]string{"message-id": strings.Trim(theirs, "<>")}}
		case "postmark":
			delete(e, "Metadata")
			e["MessageID"] = theirs
		case "resend":
			data, _ := e["data"].(map[string]any)
			delete(data, "tags")
			data["email_id"] = theirs
		case "ses":
			m, _ := e["mail"].(map[string]any)
			delete(m, "tags")
			m["messageId"] = theirs
		}
	}
}

// believesSignedEvents holds for each provider that a right signature does not make a stranger a
// recipient, and that an event without our id is matched by the provider's.
func believesSignedEvents(t *testing.T, b *bench, r *replica) {
	t.Helper()
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
		for what, alter := range verdicts(stranger)[kind] {
			post(kind, told{id: id, to: stranger, alter: alter})
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
		bounce, strip := verdicts(bob)[kind]["bounce"], withoutOurID(kind, entries[0].ProviderMessageID)
		post(kind, told{id: id, to: bob, alter: func(e map[string]any) { bounce(e); strip(e) }})
		m := message(t, r.api, id)
		if m.Recipients[0].Status != "sent" || m.Recipients[1].Status != "bounced" {
			t.Errorf("%s, by its own id: recipients are %s and %s, want sent and bounced", kind, m.Recipients[0].Status, m.Recipients[1].Status)
		}
	}
}
