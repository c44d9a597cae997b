package postmark_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

type members = map[string]any

const (
	ourText   = "0199c0de-0000-7000-8000-000000000001"
	theirText = "2706ee8a-737c-4285-b032-ccd317af53ed"
)

// one receives a webhook with the members that most of them have.
func one(t *testing.T, m members) mail.Event {
	t.Helper()
	all := members{
		"MessageID": theirText, "MessageStream": "outbound", "ServerID": 23, "Tag": "receipt", "Metadata": members{"gw_msg": ourText},
		"Recipient": "ann@example.org", "Email": "ann@example.org", "From": "shop@example.com",
		"BouncedAt": "2026-01-01T10:00:00.1234567Z", "DeliveredAt": "2026-01-01T10:00:00.1234567Z",
		"ReceivedAt": "2026-01-01T10:00:00.1234567Z", "ChangedAt": "2026-01-01T10:00:00.1234567Z",
	}
	maps.Copy(all, m)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return receive(t, string(text))
}

func bounced(kind, details string) members {
	return members{"RecordType": "Bounce", "ID": 901542550, "Type": kind, "TypeCode": 1, "Details": details, "Description": "in Postmark's words"}
}

// Every RecordType and every Type of a bounce, and words that are not documented.
func TestEveryEventHasItsType(t *testing.T) {
	t.Parallel()
	change := func(suppress, reason any) members {
		return members{"RecordType": "SubscriptionChange", "SuppressSending": suppress, "SuppressionReason": reason, "Origin": "Recipient"}
	}
	for _, c := range []struct {
		in   members
		kind mail.EventType
		name string
	}{
		{members{"RecordType": "Delivery", "Details": "250 OK"}, mail.EventDelivered, "Delivery"},
		{members{"RecordType": "SpamComplaint", "Type": "SpamComplaint", "ID": 1}, mail.EventComplained, "SpamComplaint"},
		{members{"RecordType": "Open", "FirstOpen": true}, mail.EventOpened, "Open"},
		{members{"RecordType": "Click", "OriginalLink": "https://example.com/"}, mail.EventClicked, "Click"},
		{change(true, "ManualSuppression"), mail.EventUnsubscribed, "SubscriptionChange/ManualSuppression"},
		{change(true, "HardBounce"), mail.EventUnmapped, "SubscriptionChange/HardBounce"},
		{change(true, "SpamComplaint"), mail.EventUnmapped, "SubscriptionChange/SpamComplaint"},
		{change(false, nil), mail.EventUnmapped, "SubscriptionChange"},
		{change(false, "ManualSuppression"), mail.EventUnmapped, "SubscriptionChange/ManualSuppression"},
		{change(true, nil), mail.EventUnmapped, "SubscriptionChange"},
		{change("true", "ManualSuppression"), mail.EventUnmapped, "SubscriptionChange/ManualSuppression"},
		{members{"RecordType": "Inbound"}, mail.EventUnmapped, "Inbound"},
		{members{"RecordType": "bounce"}, mail.EventUnmapped, "bounce"},

		{bounced("HardBounce", ""), mail.EventBounced, "Bounce/HardBounce"},
		{bounced("SoftBounce", ""), mail.EventBounced, "Bounce/SoftBounce"},
		{bounced("Unknown", ""), mail.EventBounced, "Bounce/Unknown"},
		{bounced("VirusNotification", ""), mail.EventBounced, "Bounce/VirusNotification"},
		{bounced("SpamNotification", ""), mail.EventBounced, "Bounce/SpamNotification"},
		{bounced("Transient", ""), mail.EventDeferred, "Bounce/Transient"},
		{bounced("DnsError", ""), mail.EventDeferred, "Bounce/DnsError"},
		{bounced("OpenRelayTest", ""), mail.EventDeferred, "Bounce/OpenRelayTest"},
		{bounced("BadEmailAddress", ""), mail.EventRejected, "Bounce/BadEmailAddress"},
		{bounced("ManuallyDeactivated", ""), mail.EventRejected, "Bounce/ManuallyDeactivated"},
		{bounced("Blocked", ""), mail.EventRejected, "Bounce/Blocked"},
		{bounced("DMARCPolicy", ""), mail.EventRejected, "Bounce/DMARCPolicy"},
		{bounced("Unconfirmed", ""), mail.EventRejected, "Bounce/Unconfirmed"},
		{bounced("SMTPApiError", ""), mail.EventRejected, "Bounce/SMTPApiError"},
		{bounced("TemplateRenderingFailed", ""), mail.EventRejected, "Bounce/TemplateRenderingFailed"},
		{bounced("SpamComplaint", ""), mail.EventComplained, "Bounce/SpamComplaint"},
		{bounced("Unsubscribe", ""), mail.EventUnsubscribed, "Bounce/Unsubscribe"},
		{bounced("Subscribe", ""), mail.EventUnmapped, "Bounce/Subscribe"},
		{bounced("AutoResponder", ""), mail.EventUnmapped, "Bounce/AutoResponder"},
		{bounced("AddressChange", ""), mail.EventUnmapped, "Bounce/AddressChange"},
		{bounced("ChallengeVerification", ""), mail.EventUnmapped, "Bounce/ChallengeVerification"},
		{bounced("InboundError", ""), mail.EventUnmapped, "Bounce/InboundError"},
		{bounced("TypeOfTomorrow", ""), mail.EventUnmapped, "Bounce/TypeOfTomorrow"},
		{bounced("", ""), mail.EventUnmapped, "Bounce"},
	} {
		e := one(t, c.in)
		if e.Type != c.kind || e.Name != c.name {
			t.Errorf("%v: %q %q, want %q %q", c.in, e.Type, e.Name, c.kind, c.name)
		}
		if (e.Bounce != nil) != (c.kind == mail.EventBounced || c.kind == mail.EventRejected || c.kind == mail.EventDeferred) {
			t.Errorf("%v: bounce = %+v", c.in, e.Bounce)
		}
		if e.Recipient != "ann@example.org" && e.Name != "Inbound" && e.Name != "bounce" {
			t.Errorf("%v: recipient = %q", c.in, e.Recipient)
		}
	}
}

func TestBounceIsReadWhole(t *testing.T) {
	t.Parallel()
	id, err := mail.ParseID(ourText)
	if err != nil {
		t.Fatal(err)
	}
	m := bounced("HardBounce", "smtp;550 5.1.1 no such user")
	m["Email"] = "Ann@EXAMPLE.org"
	want := mail.Event{
		Type: mail.EventBounced, Name: "Bounce/HardBounce", UniqueID: "Bounce/901542550", MessageID: id, ProviderMessageID: theirText,
		Recipient: "Ann@example.org", At: time.Date(2026, 1, 1, 10, 0, 0, 123456000, time.UTC), Detail: `"HardBounce";`,
		Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1", Text: "smtp;550 5.1.1 no such user", Rule: "reply/mailbox_unknown"},
	}
	if diff := cmp.Diff(want, one(t, m)); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestBouncesAreClassified(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, details string
		want          mail.Reason
	}{
		{"HardBounce", "smtp;550 5.1.1 no such user", mail.InvalidAddress},
		{"HardBounce", "smtp;550 5.1.2 bad domain", mail.InvalidDomain},
		{"HardBounce", "smtp;552 5.2.2 mailbox full", mail.MailboxFull},
		{"HardBounce", "", mail.InvalidAddress},
		{"HardBounce", "action: failed\r\n", mail.InvalidAddress},
		{"SoftBounce", "smtp;452 4.2.2 over quota", mail.MailboxFull},
		{"SoftBounce", "smtp;550 5.1.1 no such user", mail.Undetermined},
		{"SoftBounce", "", mail.Undetermined},
		{"Unknown", "smtp;550 5.1.1 no such user", mail.Undetermined},
		{"Unknown", "", mail.Undetermined},
		{"VirusNotification", "smtp;550 5.1.1 no such user", mail.Content},
		{"SpamNotification", "smtp;550 5.1.1 no such user", mail.BlockedPolicy},
		{"Transient", "smtp;450 4.2.2 full", mail.Connection},
		{"DnsError", "", mail.Connection},
		{"OpenRelayTest", "", mail.Connection},
		{"BadEmailAddress", "", mail.InvalidAddress},
		{"ManuallyDeactivated", "", mail.SuppressedBounce},
		{"Blocked", "", mail.BlockedPolicy},
		{"DMARCPolicy", "", mail.AuthFailure},
		{"Unconfirmed", "", mail.OtherReason},
		{"SMTPApiError", "", mail.OtherReason},
		{"TemplateRenderingFailed", "", mail.InvalidInput},
	} {
		b := one(t, bounced(c.kind, c.details)).Bounce
		if b == nil || b.Reason != c.want || b.Class != c.want.Class() {
			t.Errorf("%s %q: %+v, want %s", c.kind, c.details, b, c.want)
		}
	}
	if b := one(t, bounced("SoftBounce", "")).Bounce; b.Text != "in Postmark's words" {
		t.Errorf("text = %q, want the description where there are no details", b.Text)
	}
}

// TypeCode is printed wrongly in places, and is not looked at.
func TestTypeDecidesAndNotTypeCode(t *testing.T) {
	t.Parallel()
	m := bounced("SoftBounce", "")
	m["TypeCode"] = 1
	if e := one(t, m); e.Name != "Bounce/SoftBounce" || e.Bounce.Class != mail.Soft {
		t.Errorf("event = %+v", e)
	}
}

// The keys follow Postmark's documentation: two recipients of one message never give one event.
func TestEventsAreToldApart(t *testing.T) {
	t.Parallel()
	key := func(m members) mail.ID {
		e := one(t, m)
		byID, _ := e.Keys(1)
		return byID
	}
	delivery := members{"RecordType": "Delivery"}
	click := members{"RecordType": "Click", "OriginalLink": "https://a.test/", "ClickLocation": "HTML"}
	change := members{"RecordType": "SubscriptionChange", "SuppressSending": true, "SuppressionReason": "ManualSuppression", "MessageID": nil, "Metadata": nil}
	with := func(m members, k string, v any) members {
		m = maps.Clone(m)
		m[k] = v
		return m
	}
	for name, pair := range map[string][2]members{
		"recipient":      {delivery, with(delivery, "Recipient", "bob@example.org")},
		"time":           {delivery, with(delivery, "DeliveredAt", "2026-01-01T10:00:00.2234567Z")},
		"record":         {delivery, members{"RecordType": "Open"}},
		"message":        {delivery, with(delivery, "Metadata", nil)},
		"link":           {click, with(click, "OriginalLink", "https://b.test/")},
		"location":       {click, with(click, "ClickLocation", "Text")},
		"stream":         {change, with(change, "MessageStream", "bulk")},
		"suppression":    {change, with(change, "SuppressSending", false)},
		"bounce":         {bounced("HardBounce", ""), with(bounced("HardBounce", ""), "ID", 2)},
		"bounce of them": {bounced("HardBounce", ""), with(bounced("HardBounce", ""), "Email", "bob@example.org")},
	} {
		if key(pair[0]) == key(pair[1]) {
			t.Errorf("another %s makes no other event", name)
		}
		if key(pair[0]) != key(with(pair[0], "Tag", "x")) {
			t.Errorf("%s: the same event twice is two", name)
		}
	}
	for _, id := range []any{nil, 0, "", "0"} {
		if e := one(t, with(bounced("HardBounce", ""), "ID", id)); e.UniqueID != "" {
			t.Errorf("ID %v gives %q", id, e.UniqueID)
		}
	}
	if e := one(t, members{"RecordType": "SpamComplaint", "ID": 7}); e.UniqueID != "SpamComplaint/7" {
		t.Errorf("UniqueID = %q", e.UniqueID)
	}
}

func TestManualSuppressionIsOfNoMessage(t *testing.T) {
	t.Parallel()
	e := one(t, members{"RecordType": "SubscriptionChange", "SuppressSending": true, "SuppressionReason": "ManualSuppression", "MessageID": nil, "Metadata": members{}})
	if e.Type != mail.EventUnsubscribed || e.ProviderMessageID != "" || !e.MessageID.IsZero() || e.Recipient != "ann@example.org" {
		t.Errorf("event = %+v", e)
	}
}

func TestOddMembersAreLeftOut(t *testing.T) {
	t.Parallel()
	for _, id := range []any{nil, 7, "", "42", "0199c0de00007000800000000000000001", strings.Repeat("x", 36), []string{"a"}} {
		if e := one(t, members{"RecordType": "Delivery", "Metadata": members{"gw_msg": id}}); !e.MessageID.IsZero() {
			t.Errorf("gw_msg %v gives %s", id, e.MessageID)
		}
	}
	for _, metadata := range []any{nil, 7, "x", members{"GW_MSG": ourText}, members{}} {
		if e := one(t, members{"RecordType": "Delivery", "Metadata": metadata, "gw_msg": ourText}); !e.MessageID.IsZero() {
			t.Errorf("metadata %v gives %s", metadata, e.MessageID)
		}
	}
	for at, want := range map[any]string{
		nil: "", 7: "", "": "", "soon": "", "9999-01-01T00:00:00Z": "", "0001-01-01T00:00:00Z": "",
		"2026-01-01T05:00:00.9999999-05:00": "2026-01-01T10:00:00.999999Z", "2026-01-01T10:00:00Z": "2026-01-01T10:00:00Z",
	} {
		e := one(t, members{"RecordType": "Delivery", "DeliveredAt": at})
		if got := e.At.Format(time.RFC3339Nano); got != want && (want != "" || !e.At.IsZero()) {
			t.Errorf("DeliveredAt %v gives %s, want %q", at, got, want)
		}
	}
	if e := one(t, members{"RecordType": "Delivery", "Event": "bounce", "recordtype": "Bounce", "type": "HardBounce"}); e.Type != mail.EventDelivered {
		t.Errorf("event = %+v", e)
	}
}

func TestClickTellsItsURL(t *testing.T) {
	t.Parallel()
	e := one(t, members{"RecordType": "Click", "OriginalLink": "https://a.test/\x00\n é" + strings.Repeat("é", 2000)})
	if len(e.URL) > 2000 || !strings.HasPrefix(e.URL, "https://a.test/éé") {
		t.Errorf("URL = %.40q, %d bytes", e.URL, len(e.URL))
	}
}
