package sendgrid_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
)

// FuzzReceive holds that no signed body makes a panic or an error, and that what is kept reads as it was received and
// can be stored.
func FuzzReceive(f *testing.F) {
	f.Add(vectorBody)
	f.Add(`{"event":"bounce","type":"blocked","status":"550","timestamp":"1790000000","gw_msg":7}`)
	f.Add(`[{"event":"click","url":"https://x.test/\u0000\ud800","email":"a\u0000@b","timestamp":1e99,"sg_message_id":".recvd-"}]`)
	f.Add(`[[[[`)
	s := newSigner(f)
	c, err := sendgrid.New(sendgrid.Config{APIKey: testSecret, WebhookPublicKeys: []string{s.public}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		b, err := c.Receive(t.Context(), s.hook(t, body, now))
		if err != nil {
			if len(body) <= provider.MaxHook && strings.Count(body, ",") < provider.MaxHookEvents {
				t.Fatalf("Receive = %v", err)
			}
			return
		}
		for _, p := range b.Payloads {
			if !bytes.Contains([]byte(body), p.Raw) {
				t.Fatalf("payload %q is not of the body", p.Raw)
			}
			if diff := cmp.Diff(p.Events, c.Parse(p.Raw)); diff != "" || len(p.Events) != 1 {
				t.Fatalf("Parse reads otherwise:\n%s", diff)
			}
			checkStorable(t, &p.Events[0])
		}
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
	if y := e.At.Year(); !e.At.IsZero() && (y < 1970 || y > 2242) {
		t.Fatalf("at %s", e.At)
	}
}
