package emulator_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

type mailgunPayload struct {
	Signature struct{ Timestamp, Token, Signature string }
	Event     object `json:"event-data"`
}

// verifies checks the triple as the page "Securing Webhooks" of the Mailgun documentation says.
func (p *mailgunPayload) verifies(key string) bool {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(p.Signature.Timestamp + p.Signature.Token))
	return hex.EncodeToString(mac.Sum(nil)) == p.Signature.Signature
}

func mailgunPayloads(t *testing.T, calls []hookCall) []mailgunPayload {
	t.Helper()
	all := make([]mailgunPayload, len(calls))
	for i, c := range calls {
		fromJSON(t, c.body, &all[i])
	}
	slices.SortStableFunc(all, func(x, y mailgunPayload) int {
		return int(1e6 * (x.Event["timestamp"].(float64) - y.Event["timestamp"].(float64)))
	})
	return all
}

func (b *server) mailgunTo(t *testing.T, to string, pairs ...string) string {
	t.Helper()
	form := mailgunForm(append([]string{"to", to, "v:gw_msg", "m1", "o:tag", "order"}, pairs...)...)
	a := b.mailgun(t, "/mailgun/v3/mg.example.com/messages", form, key("mailgun", "api_key"))
	var res struct{ ID string }
	fromJSON(t, a.body, &res)
	return strings.Trim(res.ID, "<>")
}

func TestMailgunTellsEachOutcome(t *testing.T) {
	t.Parallel()
	tests := []struct {
		to   string
		want []string // event, severity, reason, code, enhanced code
	}{
		{"ann@example.org", []string{"accepted    ", "delivered   250 "}},
		{"bounce@example.org", []string{"accepted    ", "failed permanent bounce 550 5.1.1"}},
		{"softbounce@example.org", []string{"accepted    ", "failed permanent generic 552 5.2.2"}},
		{"complaint@example.org", []string{"accepted    ", "delivered   250 ", "complained    "}},
		{"defer@example.org", []string{"accepted    ", "failed temporary generic 451 4.3.0", "delivered   250 "}},
		{"suppressed@example.org", []string{"accepted    ", "failed permanent suppress-bounce 605 "}},
		{"open@example.org", []string{"accepted    ", "delivered   250 ", "opened    "}},
		{"click@example.org", []string{"accepted    ", "delivered   250 ", "clicked    "}},
	}
	text := func(v any) string {
		switch v := v.(type) {
		case string:
			return v
		case float64:
			return strconv.Itoa(int(v))
		}
		return ""
	}
	for _, tc := range tests {
		t.Run(tc.to, func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "mailgun", nil)
			id := b.mailgunTo(t, tc.to)
			b.settled(t, "mailgun", func(s emulator.HookStats) bool { return s.Events == int64(len(tc.want)) })
			var got []string
			for _, p := range mailgunPayloads(t, in.got()) {
				e := p.Event
				status, _ := e["delivery-status"].(object)
				got = append(got, strings.Join([]string{
					text(e["event"]), text(e["severity"]), text(e["reason"]), text(status["code"]), text(status["enhanced-code"]),
				}, " "))
				if !p.verifies(b.HookKeys()["mailgun_signing_key"]) || len(p.Signature.Token) != 50 {
					t.Errorf("signature = %+v", p.Signature)
				}
				headers := e["message"].(object)["headers"].(object)
				vars := e["user-variables"].(object)
				tags := e["tags"].([]any)
				if e["recipient"] != tc.to || headers["message-id"] != id || vars["gw_msg"] != "m1" || len(tags) != 1 || tags[0] != "order" {
					t.Errorf("event = %v", e)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMailgunFillsVariablesOfEachRecipient(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "mailgun", nil)
	b.mailgunTo(t, "ann@example.org,bob@example.org", "v:gw_rcpt", "%recipient.rid%",
		"recipient-variables", `{"ann@example.org":{"rid":"7"},"bob@example.org":{"rid":"8"}}`)
	got := map[string]any{}
	for _, p := range mailgunPayloads(t, in.wait(t, 4)) {
		got[p.Event["recipient"].(string)] = p.Event["user-variables"].(object)["gw_rcpt"]
	}
	if diff := cmp.Diff(map[string]any{"ann@example.org": "7", "bob@example.org": "8"}, got); diff != "" {
		t.Errorf("gw_rcpt (-want +got):\n%s", diff)
	}
}

func TestMailgunSignsWithTheKeyOfTheHook(t *testing.T) {
	t.Parallel()
	in := newInbox(t, nil)
	b := start(t, fast("mailgun", emulator.Hook{"url": in.URL, "signing_key": "key-of-the-hook"}))
	b.mailgunTo(t, "ann@example.org")
	p := mailgunPayloads(t, in.wait(t, 1))[0]
	stamp, err := strconv.ParseInt(p.Signature.Timestamp, 10, 64)
	if err != nil || time.Since(time.Unix(stamp, 0)).Abs() > time.Minute || !p.verifies("key-of-the-hook") {
		t.Errorf("signature = %+v", p.Signature)
	}
}
