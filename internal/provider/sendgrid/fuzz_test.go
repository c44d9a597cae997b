package sendgrid_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
)

// FuzzReceive checks that no signed body makes a panic or an error, and that what is kept reads as it was received and can be
// stored.
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
			providertest.CheckStorable(t, &p.Events[0])
		}
	})
}
