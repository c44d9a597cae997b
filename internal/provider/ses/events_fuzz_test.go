package ses

import (
	"reflect"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// Any record gives at least one event, and each event can be stored.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sendRecord))
	f.Add([]byte(`{"notificationType":"Bounce",` + mailObject + `,"bounce":{"bounceType":"Permanent","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"a@b.test","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 x"},{}]}}`))
	f.Add([]byte(`{"eventType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"a@b.test"}],"complaintSubType":"OnAccountSuppressionList"}}`))
	f.Add([]byte(`{"eventType":"DeliveryDelay","deliveryDelay":{"delayType":"General","delayedRecipients":[{"emailAddress":"a@b.test"}]}}`))
	f.Add([]byte(`{"eventType":"Click","click":{"link":"https://a.test/\u0000","isBotEvent":"Likely","timestamp":"2026-11-25T11:00:00.012Z"}}`))
	f.Add([]byte(`{"eventType":"Subscription","subscription":{"newTopicPreferences":{"topicSubscriptionStatus":[{"topicName":"a","subscriptionStatus":"OptOut"}]}}}`))
	f.Add([]byte(`{"mail":{"headers":[{"name":"Message-ID","value":"<0199c0de-0000-7000-8000-000000000001@b.test>"}],"commonHeaders":{}}}`))
	types := append(mail.EventTypes(), mail.EventUnmapped)
	f.Fuzz(func(t *testing.T, raw []byte) {
		events := parse(raw)
		if len(events) == 0 || len(events) > provider.MaxHookEvents {
			t.Fatalf("%d events", len(events))
		}
		if !reflect.DeepEqual(events, parse(raw)) {
			t.Error("the second reading differs")
		}
		for _, e := range events {
			checkEvent(t, &e, types)
		}
	})
}

func checkEvent(t *testing.T, e *mail.Event, types []mail.EventType) {
	t.Helper()
	known := false
	for _, want := range types {
		known = known || e.Type == want
	}
	if !known {
		t.Errorf("type = %q", e.Type)
	}
	if e.Recipient != "" {
		if a, err := mail.ParseAddress(e.Recipient); err != nil || a.Email != e.Recipient {
			t.Errorf("recipient = %q, which is not canonical", e.Recipient)
		}
	}
	text := e.Name + e.ProviderMessageID + e.URL
	if e.Bounce != nil {
		text += e.Bounce.Text + e.Bounce.Code + e.Bounce.Enhanced
		if e.Bounce.Reason == "" || e.Type == mail.EventRejected && e.Bounce.Class != "" {
			t.Errorf("bounce = %+v", e.Bounce)
		}
	}
	if e.Type == mail.EventBounced && (e.Bounce == nil || e.Bounce.Class == "") {
		t.Errorf("a bounce without its class: %+v", e)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || len(e.Name) > provider.MaxDetail || len(e.URL) > maxLink {
		t.Errorf("not fit to be stored: %q", text)
	}
}
