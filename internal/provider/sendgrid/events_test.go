package sendgrid_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

type members = map[string]any

// one receives a single event.
func one(t *testing.T, m members) mail.Event {
	t.Helper()
	payloads := receive(t, "["+object(m)+"]\r\n")
	if len(payloads) != 1 || len(payloads[0].Events) != 1 {
		t.Fatalf("payloads = %+v, want one with one event", payloads)
	}
	return payloads[0].Events[0]
}

// Every row of "Event Webhook Reference", and words that are not in it.
func TestEveryEventHasItsType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   members
		kind mail.EventType
		name string
	}{
		{members{"event": "processed"}, mail.EventAccepted, "processed"},
		{members{"event": "deferred", "response": "400 try again later", "attempt": "5"}, mail.EventDeferred, "deferred"},
		{members{"event": "delivered", "response": "250 OK"}, mail.EventDelivered, "delivered"},
		{members{"event": "bounce", "type": "bounce"}, mail.EventBounced, "bounce"},
		{members{"event": "bounce"}, mail.EventBounced, "bounce"},
		{members{"event": "bounce", "type": "blocked"}, mail.EventBounced, "bounce/blocked"},
		{members{"event": "dropped", "reason": "Bounced Address"}, mail.EventRejected, "dropped"},
		{members{"event": "open"}, mail.EventOpened, "open"},
		{members{"event": "click", "url": "https://example.com/"}, mail.EventClicked, "click"},
		{members{"event": "spamreport"}, mail.EventComplained, "spamreport"},
		{members{"event": "unsubscribe"}, mail.EventUnsubscribed, "unsubscribe"},
		{members{"event": "group_unsubscribe", "asm_group_id": 10}, mail.EventUnsubscribed, "group_unsubscribe"},
		{members{"event": "group_resubscribe", "asm_group_id": 10}, mail.EventUnmapped, "group_resubscribe"},
		{members{"event": "cancel_drop"}, mail.EventUnmapped, "cancel_drop"},
		{members{"event": "account_status_change", "type": "compliance_suspend"}, mail.EventUnmapped, "account_status_change/compliance_suspend"},
		{members{"event": "received"}, mail.EventUnmapped, "received"},
		{members{"event": "teleported"}, mail.EventUnmapped, "teleported"},
		{members{"event": "Bounce"}, mail.EventUnmapped, "Bounce"},
		{members{"event": ""}, mail.EventUnmapped, "unreadable"},
		{members{"event": []string{"bounce"}}, mail.EventUnmapped, "unreadable"},
	} {
		e := one(t, c.in)
		if e.Type != c.kind || e.Name != c.name {
			t.Errorf("%v: %q %q, want %q %q", c.in, e.Type, e.Name, c.kind, c.name)
		}
		if (e.Bounce != nil) != (c.kind == mail.EventBounced || c.kind == mail.EventRejected || c.kind == mail.EventDeferred) {
			t.Errorf("%v: bounce = %+v", c.in, e.Bounce)
		}
	}
}

func TestEventIsReadWhole(t *testing.T) {
	t.Parallel()
	id, err := mail.ParseID("0199c0de-0000-7000-8000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	got := one(t, members{
		"event": "bounce", "type": "bounce", "bounce_classification": "Invalid Address", "status": "5.1.1",
		"reason": "550 5.1.1 no such user", "tls": 1, "ip": "192.0.2.1", "email": "Ann@EXAMPLE.org",
	})
	want := mail.Event{
		Type: mail.EventBounced, Name: "bounce", UniqueID: "Ym91bmNl", MessageID: id, ProviderMessageID: "LRzX_m_A",
		Recipient: "Ann@example.org", At: time.Unix(1_790_000_010, 0).UTC(), Detail: `"5.1.1";`,
		Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1", Text: "550 5.1.1 no such user", Rule: "sendgrid/invalid address"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// Rows of the bounce classifications, with what the reply adds to them.
func TestBouncesAreClassified(t *testing.T) {
	t.Parallel()
	bounce := func(classification, status, reason string) members {
		return members{"event": "bounce", "type": "bounce", "bounce_classification": classification, "status": status, "reason": reason}
	}
	blocked := func(m members) members {
		m["type"] = "blocked"
		return m
	}
	for _, c := range []struct {
		in   members
		want mail.Reason
	}{
		{bounce("Invalid Address", "5.1.1", "550 5.1.1 no such user"), mail.InvalidAddress},
		{bounce("Invalid Address", "", ""), mail.InvalidAddress},
		{bounce("Mailbox Unavailable", "5.2.2", "552 5.2.2 over quota"), mail.MailboxFull},
		{bounce("Mailbox Unavailable", "550", "550 mailbox full"), mail.MailboxFull},
		{bounce("Mailbox Unavailable", "5.2.1", "550 5.2.1 disabled"), mail.Inactive},
		{bounce("Mailbox Unavailable", "", ""), mail.Inactive},
		{bounce("Technical", "5.4.4", "unroutable"), mail.InvalidDomain},
		{bounce("Technical", "", "unable to get mx info: failed to get IPs from PTR record"), mail.InvalidDomain},
		{bounce("Technical", "5.3.0", "554 5.3.0 broken"), mail.Technical},
		{bounce("Technical Failure", "", "timeout"), mail.Technical},
		{bounce("Content", "550", "550 5.7.1 rejected"), mail.Content},
		{bounce("Reputation", "550", "550 5.7.1 rejected"), mail.Reputation},
		{bounce("Frequency or Volume Too High", "", ""), mail.ThrottledThere},
		{bounce("Unclassified", "5.1.1", "550 5.1.1 no such user"), mail.InvalidAddress},
		{bounce("Unclassified", "5.2.2", "mailbox full"), mail.MailboxFull},
		{bounce("", "", "550 5.1.1 no such user"), mail.InvalidAddress},
		{bounce("", "5.1.1", ""), mail.InvalidAddress},
		{bounce("", "", ""), mail.Undetermined},
		{bounce("Word Of Tomorrow", "", "odd"), mail.Undetermined},
		{blocked(bounce("Invalid Address", "5.1.1", "550 5.1.1 no such user")), mail.Undetermined},
		{blocked(bounce("", "550", "550 5.1.1 no such user")), mail.Undetermined},
		{blocked(bounce("Reputation", "550", "550 blocked")), mail.Reputation},
		{blocked(bounce("Mailbox Unavailable", "5.2.2", "mailbox full")), mail.MailboxFull},
		{members{"event": "bounce", "type": "sideways", "bounce_classification": "Invalid Address"}, mail.Undetermined},
	} {
		b := one(t, c.in).Bounce
		if b == nil || b.Reason != c.want || b.Class != c.want.Class() {
			t.Errorf("%v: %+v, want %s", c.in, b, c.want)
		}
	}
}

func TestDropsTellTheirReason(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]mail.Reason{
		"Bounced Address":                   mail.SuppressedBounce,
		"Unsubscribed Address":              mail.SuppressedUnsubscribe,
		"Spam Reporting Address":            mail.SuppressedComplaint,
		"Invalid":                           mail.InvalidAddress,
		"Spam Content":                      mail.Content,
		"Invalid SMTPAPI header":            mail.OtherReason,
		"Recipient List over Package Quota": mail.OtherReason,
		"Duplicate message":                 mail.OtherReason,
		" bounced ADDRESS ":                 mail.SuppressedBounce,
		"Phase of the Moon":                 mail.OtherReason,
		"":                                  mail.OtherReason,

		"Spam Content (if Spam Checker app is enabled)": mail.Content,
	} {
		b := one(t, members{"event": "dropped", "reason": reason, "email": ""}).Bounce
		if b == nil || b.Reason != want || b.Class != want.Class() {
			t.Errorf("dropped for %q: %+v, want %s", reason, b, want)
		}
	}
}

func TestDeferralsCondemnNobody(t *testing.T) {
	t.Parallel()
	for response, want := range map[string]mail.Bounce{
		"450 4.2.2 mailbox full":  {Class: mail.Soft, Reason: mail.MailboxFull, Code: "450", Enhanced: "4.2.2", Text: "450 4.2.2 mailbox full", Rule: "reply/mailbox_full"},
		"550 5.1.1 no such user":  {Class: mail.Soft, Reason: mail.Undetermined, Code: "550", Enhanced: "5.1.1", Text: "550 5.1.1 no such user", Rule: "reply/mailbox_unknown"},
		"":                        {Class: mail.Soft, Reason: mail.Undetermined, Text: "", Rule: "reply/none"},
		"words without a meaning": {Class: mail.Soft, Reason: mail.Undetermined, Text: "words without a meaning", Rule: "reply/none"},
	} {
		if diff := cmp.Diff(&want, one(t, members{"event": "deferred", "response": response}).Bounce); diff != "" {
			t.Errorf("%q (-want +got):\n%s", response, diff)
		}
	}
	if b := one(t, members{"event": "deferred", "reason": "452 4.2.2 over quota"}).Bounce; b.Text != "452 4.2.2 over quota" {
		t.Errorf("bounce = %+v, want the words of reason", b)
	}
}

func TestMachineOpensAreMarked(t *testing.T) {
	t.Parallel()
	for value, want := range map[any]bool{true: true, false: false, nil: false, "true": false} {
		if got := one(t, members{"event": "open", "sg_machine_open": value}).Machine; got != want {
			t.Errorf("sg_machine_open %v: machine = %t", value, got)
		}
	}
}

// Custom arguments are next to SendGrid's own members. A member that only looks like our id is not used.
func TestCustomArgumentsPoseAsNothing(t *testing.T) {
	t.Parallel()
	e := one(t, members{
		"event": "delivered", "Event": "bounce", "Email": "x@example.org", "SG_EVENT_ID": "1", "GW_MSG": "forged",
		"custom_args": "forged", "category": "receipt",
	})
	if e.Type != mail.EventDelivered || e.Recipient != "ann@example.org" || e.UniqueID != "Ym91bmNl" || e.MessageID.IsZero() {
		t.Errorf("event = %+v", e)
	}
}

func TestOddMembersAreLeftOut(t *testing.T) {
	t.Parallel()
	for _, id := range []any{nil, 7, "", "42", "0199c0de00007000800000000000000001", strings.Repeat("x", 36), []string{"a"}} {
		if e := one(t, members{"event": "delivered", "gw_msg": id}); !e.MessageID.IsZero() {
			t.Errorf("gw_msg %v gives %s", id, e.MessageID)
		}
	}
	for _, at := range []any{nil, -1, 0, "soon", 1e300, int64(1) << 40, "99999999999999999999"} {
		if e := one(t, members{"event": "delivered", "timestamp": at}); !e.At.IsZero() {
			t.Errorf("timestamp %v gives %s", at, e.At)
		}
	}
	if e := one(t, members{"event": "delivered", "timestamp": "1790000010"}); e.At.Unix() != 1_790_000_010 {
		t.Errorf("timestamp in quotes gives %s", e.At)
	}
	if e := one(t, members{"event": "delivered", "sg_event_id": nil}); e.UniqueID != "" {
		t.Errorf("UniqueID = %q, want none", e.UniqueID)
	}
	if e := one(t, members{"event": "dropped", "email": "not an address"}); e.Recipient != "not an address" {
		t.Errorf("recipient = %q", e.Recipient)
	}
}

func TestMessageIDIsThatOfTheAcceptance(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"LRzX_m_A.recvd-85ab-7-7890E356-43C.1":                                       "LRzX_m_A",
		"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0": "LRzXl_NHStOGhQ4kofSm_A",
		"14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0":                        "14c5d75ce93.dfd.64b469",
		"142d9f3f351.7618.254f56.filter-147.22649.52A663508.0":                       "142d9f3f351.7618.254f56",
		"LRzX_m_A": "LRzX_m_A", "a.b.c": "a.b.c", ".recvd-1": ".recvd-1", "": "",
	} {
		if got := one(t, members{"event": "delivered", "sg_message_id": in}).ProviderMessageID; got != want {
			t.Errorf("sg_message_id %q gives %q, want %q", in, got, want)
		}
	}
}

// Without sg_event_id only the content may distinguish two events.
func TestContentTellsEventsApart(t *testing.T) {
	t.Parallel()
	key := func(m members) mail.ID {
		m["sg_event_id"] = nil
		e := one(t, m)
		_, byContent := e.Keys(1)
		return byContent
	}
	base := members{"event": "click", "url": "https://a.test/", "ip": "192.0.2.1", "useragent": "A", "url_offset": members{"index": 0, "type": "html"}}
	with := func(k string, v any) members {
		m := members{}
		for name, value := range base {
			m[name] = value
		}
		m[k] = v
		return m
	}
	if key(base) != key(with("smtp-id", "another")) {
		t.Error("the same click has another key")
	}
	others := members{
		"url": "https://b.test/", "useragent": "B", "ip": "192.0.2.2", "url_offset": members{"index": 1, "type": "html"},
		"timestamp": 1, "email": "b@example.org",
	}
	for k, v := range others {
		if key(base) == key(with(k, v)) {
			t.Errorf("a click with another %s has the same key", k)
		}
	}
	deferred := func(attempt string) members {
		return members{"event": "deferred", "attempt": attempt, "response": "450 later"}
	}
	if key(deferred("1")) == key(deferred("2")) {
		t.Error("two deferrals have the same key")
	}
}

func TestURLIsCapped(t *testing.T) {
	t.Parallel()
	if got := one(t, members{"event": "click", "url": "https://a.test/\x00\n é" + strings.Repeat("é", 2000)}).URL; len(got) > 2000 || !strings.HasPrefix(got, "https://a.test/éé") {
		t.Errorf("URL = %.40q, %d bytes", got, len(got))
	}
	if got := one(t, members{"event": "open", "url": "https://a.test/"}).URL; got != "" {
		t.Errorf("an open has the URL %q", got)
	}
}
