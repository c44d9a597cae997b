package postmark_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

// FuzzReceive checks that no body makes a panic or an error, and that what is kept reads as it was received and can be
// stored.
func FuzzReceive(f *testing.F) {
	f.Add(`{"RecordType":"Bounce","ID":901542550,"Type":"HardBounce","Email":"a@x.test","BouncedAt":"2026-01-01T10:00:00.1234567Z","Details":"smtp;550 5.1.1 no such user"}`)
	f.Add(`{"RecordType":"SubscriptionChange","MessageID":null,"SuppressSending":true,"SuppressionReason":"ManualSuppression","ChangedAt":"9999-01-01T00:00:00Z"}`)
	f.Add(`{"RecordType":"Click","OriginalLink":"https://x.test/\u0000\ud800","Recipient":"a\u0000@b","Metadata":{"gw_msg":7}}`)
	f.Add(`{"RecordType":"MessageEvent","Type":"Transient","Details":{"DeliveryMessage":"smtp;450"}}`)
	f.Add(`[[[[`)
	c, err := postmark.New(postmark.Config{ServerToken: seal.NewSecret(testToken), WebhookPassword: seal.NewSecret(testPassword)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		b, err := c.Receive(t.Context(), basic("sendgate", testPassword, body))
		if err != nil {
			if len(body) <= provider.MaxHook {
				t.Fatalf("Receive = %v", err)
			}
			return
		}
		if len(b.Payloads) != 1 || string(b.Payloads[0].Raw) != body || len(b.Payloads[0].Events) != 1 {
			t.Fatalf("batch = %+v", b)
		}
		if diff := cmp.Diff(b.Payloads[0].Events, c.Parse([]byte(body))); diff != "" {
			t.Fatalf("Parse reads otherwise:\n%s", diff)
		}
		e := &b.Payloads[0].Events[0]
		providertest.CheckStorable(t, e)
		if y := e.At.Year(); !e.At.IsZero() && (y < 2000 || y > 2200) {
			t.Fatalf("at %s", e.At)
		}
	})
}
