package postmark_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/seal"
)

// FuzzReceive holds that no body makes a panic or an error, and that what is kept reads as it was received and can be
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
		checkStorable(t, &b.Payloads[0].Events[0])
	})
}

// checkStorable looks for what Postgres does not take, and for what no cap holds.
func checkStorable(t *testing.T, e *mail.Event) {
	t.Helper()
	texts := []string{e.Name, e.UniqueID, e.ProviderMessageID, e.Recipient, e.Detail}
	if e.Bounce != nil {
		texts = append(texts, e.Bounce.Text, e.Bounce.Code, e.Bounce.Enhanced)
		if e.Bounce.Class != e.Bounce.Reason.Class() || e.Bounce.Reason == "" {
			t.Fatalf("bounce = %+v", e.Bounce)
		}
	}
	for _, s := range append(texts, e.URL) {
		if strings.ContainsRune(s, 0) || strings.ToValidUTF8(s, "") != s || len(s) > 2000 {
			t.Fatalf("text %q can't be stored", s)
		}
	}
	for _, s := range texts {
		if len(s) > provider.MaxDetail {
			t.Fatalf("text of %d bytes", len(s))
		}
	}
	if y := e.At.Year(); !e.At.IsZero() && (y < 2000 || y > 2200) {
		t.Fatalf("at %s", e.At)
	}
}
