package emulator_test

import (
	"net/http"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

func postmarkEvents(t *testing.T, calls []hookCall) []object {
	t.Helper()
	all := make([]object, len(calls))
	for i, c := range calls {
		fromJSON(t, c.body, &all[i])
	}
	at := func(m object) string {
		for _, name := range []string{"DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt"} {
			if s, ok := m[name].(string); ok {
				return s
			}
		}
		return ""
	}
	slices.SortStableFunc(all, func(x, y object) int {
		if at(x) < at(y) {
			return -1
		}
		return 1
	})
	return all
}

func TestPostmarkTellsEachOutcome(t *testing.T) {
	t.Parallel()
	delivery := object{"RecordType": "Delivery", "Recipient": "", "Details": ""}
	tests := []struct {
		to   string
		want []object
	}{
		{"ann@example.org", []object{delivery}},
		{"bounce@example.org", []object{
			{"RecordType": "Bounce", "Type": "HardBounce", "TypeCode": 1.0, "Inactive": true, "Email": ""},
			{"RecordType": "SubscriptionChange", "Recipient": "", "SuppressSending": true, "SuppressionReason": "HardBounce"},
		}},
		{"softbounce@example.org", []object{{"RecordType": "Bounce", "Type": "SoftBounce", "TypeCode": 4096.0, "Inactive": false, "Email": ""}}},
		{"complaint@example.org", []object{
			delivery,
			{"RecordType": "SpamComplaint", "Type": "SpamComplaint", "TypeCode": 100001.0, "Inactive": true, "Email": ""},
			{"RecordType": "SubscriptionChange", "Recipient": "", "SuppressSending": true, "SuppressionReason": "SpamComplaint"},
		}},
		{"defer@example.org", []object{{"RecordType": "Bounce", "Type": "Transient", "TypeCode": 2.0, "Inactive": false, "Email": ""}, delivery}},
		{"open@example.org", []object{delivery, {"RecordType": "Open", "Recipient": "", "FirstOpen": true}}},
		{"click@example.org", []object{delivery, {"RecordType": "Click", "Recipient": "", "OriginalLink": "https://example.com/order", "ClickLocation": "HTML"}}},
	}
	stamp := regexp.MustCompile(`"(Delivered|Bounced|Received|Changed)At":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z"`)
	for _, tc := range tests {
		t.Run(tc.to, func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "postmark", nil)
			var res postmarkResult
			fromJSON(t, b.postmark(t, "/email", postmarkBody("To", tc.to, "Tag", "order")).body, &res)
			b.settled(t, "postmark", func(s emulator.HookStats) bool { return s.Events == int64(len(tc.want)) })
			events := postmarkEvents(t, in.got())
			for i, want := range tc.want {
				var names []string
				want = only(want, "RecordType", "Type", "TypeCode", "Inactive", "Email", "Recipient", "SuppressSending", "SuppressionReason",
					"FirstOpen", "OriginalLink", "ClickLocation")
				for name, v := range want {
					names = append(names, name)
					if v == "" {
						want[name] = tc.to
					}
				}
				if diff := cmp.Diff(want, only(events[i], names...)); diff != "" {
					t.Errorf("event %d (-want +got):\n%s", i, diff)
				}
				common := object{"MessageID": res.MessageID, "MessageStream": "outbound", "Tag": "order", "Metadata": object{"gw_msg": "m1"}}
				if diff := cmp.Diff(common, only(events[i], "MessageID", "MessageStream", "Tag", "Metadata")); diff != "" {
					t.Errorf("event %d (-want +got):\n%s", i, diff)
				}
			}
			for _, c := range in.got() {
				user, password, ok := (&http.Request{Header: c.header}).BasicAuth()
				keys := b.HookKeys()
				if !ok || user != keys["postmark_username"] || password != keys["postmark_password"] {
					t.Errorf("authorization = %q", c.header.Get("Authorization"))
				}
				if !stamp.MatchString(c.body) {
					t.Errorf("no time in %s", c.body)
				}
			}
		})
	}
}

func TestPostmarkShowsAHeaderInstead(t *testing.T) {
	t.Parallel()
	in := newInbox(t, nil)
	b := start(t, fast("postmark", emulator.Hook{"url": in.URL, "header": "X-Hook-Token", "token": "secret"}))
	b.postmark(t, "/email", postmarkBody())
	c := in.wait(t, 1)[0]
	if c.header.Get("X-Hook-Token") != "secret" || c.header.Get("Authorization") != "" {
		t.Errorf("header = %v", c.header)
	}
}

func TestPostmarkTellsNothingOfInactiveRecipients(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "postmark", nil)
	b.postmark(t, "/email", postmarkBody("To", "ann@example.org, suppressed@example.org"))
	b.settled(t, "postmark", func(s emulator.HookStats) bool { return s.Events == 1 })
	if e := postmarkEvents(t, in.got())[0]; e["Recipient"] != "ann@example.org" {
		t.Errorf("event = %v", e)
	}
}
