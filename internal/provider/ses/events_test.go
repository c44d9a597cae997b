package ses

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/eventjson"
)

// mailObject is the part that every record has, for a message to Ann alone.
const mailObject = `"mail":{"timestamp":"2026-11-25T11:00:00.012Z","messageId":"0100-m","source":"shop@example.com",
	"sendingAccountId":"123456789012","destination":["ann@example.org"],"headersTruncated":false,
	"tags":{"ses:configuration-set":["tx"],"gw_msg":["0199c0de-0000-7000-8000-000000000001"]}}`

func ofMessage(e mail.Event) mail.Event {
	e.MessageID, _ = mail.ParseID("0199c0de-0000-7000-8000-000000000001")
	e.ProviderMessageID = "0100-m"
	if e.At.IsZero() {
		e.At = time.Date(2026, 11, 25, 11, 0, 5, 5e8, time.UTC)
	}
	return e
}

const when = `"timestamp":"2026-11-25T11:00:05.500Z"`

func TestEveryTypeOfRecord(t *testing.T) {
	t.Parallel()
	toAnn := func(e mail.Event) []mail.Event {
		e.Recipient = "ann@example.org"
		return []mail.Event{ofMessage(e)}
	}
	sentAt := time.Date(2026, 11, 25, 11, 0, 0, 12e6, time.UTC)
	for kind, c := range map[string]struct {
		part string // the object of the type
		want []mail.Event
	}{
		"Send":     {`"send":{}`, toAnn(mail.Event{Type: mail.EventAccepted, Name: "Send", At: sentAt})},
		"Delivery": {`"delivery":{` + when + `,"processingTimeMillis":5488,"recipients":["ann@example.org"],"smtpResponse":"250 ok","reportingMTA":"a1.amazonses.com"}`, toAnn(mail.Event{Type: mail.EventDelivered, Name: "Delivery"})},
		"Bounce": {
			`"bounce":{"bounceType":"Permanent","bounceSubType":"General","feedbackId":"0100-f",` + when + `,"reportingMTA":"dsn; a1.amazonses.com",
			"bouncedRecipients":[{"emailAddress":"ann@example.org","action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}]}`,
			toAnn(mail.Event{
				Type: mail.EventBounced, Name: "Bounce/Permanent/General", UniqueID: "0100-f",
				Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1", Text: "550 5.1.1 user unknown", Rule: "reply/mailbox_unknown"},
			}),
		},
		"Complaint": {
			`"complaint":{"complainedRecipients":[{"emailAddress":"ann@example.org"}],` + when + `,"feedbackId":"0100-c",
			"complaintSubType":null,"complaintFeedbackType":"abuse","userAgent":"FBL","arrivalDate":"2026-11-25T11:00:04.000Z"}`,
			toAnn(mail.Event{Type: mail.EventComplained, Name: "Complaint/abuse", UniqueID: "0100-c"}),
		},
		"Reject": {`"reject":{"reason":"Bad content"}`, toAnn(mail.Event{
			Type: mail.EventRejected, Name: "Reject/Bad content", At: sentAt, Bounce: &mail.Bounce{Reason: mail.Content, Rule: "ses/Reject", Text: "Bad content"},
		})},
		"Rendering Failure": {`"failure":{"templateName":"t","errorMessage":"Attribute 'x' is not present"}`, toAnn(mail.Event{
			Type: mail.EventRejected, Name: "Rendering Failure", At: sentAt,
			Bounce: &mail.Bounce{Reason: mail.InvalidInput, Rule: "ses/Rendering Failure", Text: "Attribute 'x' is not present"},
		})},
		"DeliveryDelay": {
			`"deliveryDelay":{` + when + `,"delayType":"MailboxFull","expirationTime":"2026-11-25T23:00:00.000Z","reportingMTA":"1.2.3.4",
			"delayedRecipients":[{"emailAddress":"ann@example.org","status":"4.2.2","diagnosticCode":"smtp; 452 4.2.2 over quota"}]}`,
			toAnn(mail.Event{
				Type: mail.EventDeferred, Name: "DeliveryDelay/MailboxFull", Detail: "4.2.2\nsmtp; 452 4.2.2 over quota",
				Bounce: &mail.Bounce{Class: mail.Soft, Reason: mail.MailboxFull, Code: "452", Enhanced: "4.2.2", Text: "452 4.2.2 over quota", Rule: "ses/DeliveryDelay/MailboxFull"},
			}),
		},
		"Open": {
			`"open":{` + when + `,"ipAddress":"192.0.2.1","userAgent":"Mozilla/5.0","isBotEvent":"Likely"}`,
			toAnn(mail.Event{Type: mail.EventOpened, Name: "Open", Machine: true, Detail: "192.0.2.1\nMozilla/5.0"}),
		},
		"Click": {
			`"click":{` + when + `,"ipAddress":"192.0.2.1","userAgent":"Mozilla/5.0","link":"https://example.com/?a=1&b=2","linkTags":{"x":["y"]},"isBotEvent":"Unlikely"}`,
			toAnn(mail.Event{Type: mail.EventClicked, Name: "Click", URL: "https://example.com/?a=1&b=2", Detail: "192.0.2.1\nMozilla/5.0"}),
		},
		"Subscription": {
			`"subscription":{"contactList":"news",` + when + `,"source":"UnsubscribeHeader",
			"newTopicPreferences":{"unsubscribeAll":true,"topicSubscriptionStatus":[{"topicName":"a","subscriptionStatus":"OptOut"}]},
			"oldTopicPreferences":{"unsubscribeAll":false,"topicSubscriptionStatus":[{"topicName":"a","subscriptionStatus":"OptOut"}]}}`,
			toAnn(mail.Event{Type: mail.EventUnsubscribed, Name: "Subscription", Detail: "news\nUnsubscribeHeader"}),
		},
	} {
		for _, key := range []string{"eventType", "notificationType"} {
			got := parse(fmt.Appendf(nil, `{%q:%q,%s,%s}`, key, kind, mailObject, c.part))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", key, kind, diff)
			}
		}
	}
	if len(readers) != 10 {
		t.Errorf("%d types are read, and 10 are tested", len(readers))
	}
}

// Every row of "Bounce types": without a reply, with a reply that says more, and with a reply that must not make it hard.
func TestEveryTypeOfBounce(t *testing.T) {
	t.Parallel()
	const unknownUser, spam = "smtp; 550 5.1.1 user unknown", "smtp; 554 5.7.1 message blocked by policy"
	soft, hard, policy, none := mail.Soft, mail.Hard, mail.PolicyClass, mail.BounceClass("")
	type result struct {
		Type   mail.EventType
		Class  mail.BounceClass
		Reason mail.Reason
	}
	bounced := func(c mail.BounceClass, r mail.Reason) result { return result{mail.EventBounced, c, r} }
	rejected := func(r mail.Reason) result { return result{mail.EventRejected, none, r} }
	tested := map[string]bool{}
	for _, c := range []struct {
		kind, sub, reply string
		want             result
	}{
		{"Undetermined", "Undetermined", "", bounced(soft, mail.Undetermined)},
		{"Undetermined", "Undetermined", unknownUser, bounced(soft, mail.Undetermined)},
		{"Undetermined", "Undetermined", spam, bounced(policy, mail.BlockedPolicy)},
		{"Permanent", "General", "", bounced(hard, mail.InvalidAddress)},
		{"Permanent", "General", unknownUser, bounced(hard, mail.InvalidAddress)},
		{"Permanent", "General", spam, bounced(policy, mail.BlockedPolicy)},
		{"Permanent", "General", "smtp; 552 5.2.2 mailbox full", bounced(soft, mail.MailboxFull)},
		{"Permanent", "NoEmail", "", bounced(hard, mail.InvalidAddress)},
		{"Permanent", "NoEmail", spam, bounced(mail.PolicyClass, mail.BlockedPolicy)},
		{"Permanent", "Suppressed", "", rejected(mail.SuppressedBounce)},
		{"Permanent", "OnAccountSuppressionList", unknownUser, rejected(mail.SuppressedBounce)},
		{"Permanent", "OnTenantSuppressionList", "", rejected(mail.SuppressedBounce)},
		{"Permanent", "EmailValidationSuppressed", "", rejected(mail.InvalidAddress)},
		{"Permanent", "UnsubscribedRecipient", "", rejected(mail.SuppressedUnsubscribe)},
		{"Transient", "General", "", bounced(soft, mail.Undetermined)},
		{"Transient", "General", unknownUser, bounced(soft, mail.Undetermined)},
		{"Transient", "General", spam, bounced(policy, mail.BlockedPolicy)},
		{"Transient", "MailboxFull", unknownUser, bounced(soft, mail.MailboxFull)},
		{"Transient", "MessageTooLarge", "", bounced(soft, mail.MessageTooLarge)},
		{"Transient", "CustomTimeoutExceeded", "", bounced(soft, mail.TimedOut)},
		{"Transient", "ContentRejected", "", bounced(soft, mail.Content)},
		{"Transient", "AttachmentRejected", "", bounced(soft, mail.Content)},
		{"Permanent", "BrandNew", "", bounced(soft, mail.Undetermined)},
		{"Permanent", "BrandNew", unknownUser, bounced(hard, mail.InvalidAddress)},
		{"Transient", "BrandNew", unknownUser, bounced(soft, mail.Undetermined)},
		{"BrandNew", "BrandNew", unknownUser, bounced(soft, mail.Undetermined)},
		{"", "", "", bounced(soft, mail.Undetermined)},
	} {
		tested[c.kind+"/"+c.sub] = true
		events := parse(fmt.Appendf(nil, `{"eventType":"Bounce",%s,"bounce":{"bounceType":%q,"bounceSubType":%q,%s,"bouncedRecipients":[{"emailAddress":"ann@example.org","diagnosticCode":%q}]}}`,
			mailObject, c.kind, c.sub, when, c.reply))
		if len(events) != 1 || events[0].Bounce == nil {
			t.Fatalf("%s/%s: events = %+v, want one with a bounce", c.kind, c.sub, events)
		}
		got := result{events[0].Type, events[0].Bounce.Class, events[0].Bounce.Reason}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s/%s %q (-want +got):\n%s", c.kind, c.sub, c.reply, diff)
		}
	}
	for key := range bounces {
		if strings.Contains(key, "/") && !tested[key] {
			t.Errorf("%s is not tested", key)
		}
	}
}

func TestEveryTypeOfDelay(t *testing.T) {
	t.Parallel()
	tested := map[string]bool{}
	for _, c := range []struct {
		kind, reply string
		want        mail.Reason
	}{
		{"InternalFailure", "", mail.Undetermined},
		{"General", "", mail.Undetermined},
		{"General", "smtp; 452 4.2.2 mailbox full", mail.MailboxFull},
		{"General", "smtp; 550 5.1.1 user unknown", mail.Undetermined}, // put off is not given up
		{"MailboxFull", "", mail.MailboxFull},
		{"SpamDetected", "", mail.Reputation},
		{"RecipientServerError", "", mail.Connection},
		{"IPFailure", "", mail.ThrottledThere},
		{"TransientCommunicationFailure", "", mail.Connection},
		{"BYOIPHostNameLookupUnavailable", "", mail.Technical},
		{"Undetermined", "", mail.Undetermined},
		{"SendingDeferral", "", mail.ThrottledThere},
		{"BrandNew", "", mail.Undetermined},
		{"", "", mail.Undetermined},
	} {
		tested[c.kind] = true
		events := parse(fmt.Appendf(nil, `{"eventType":"DeliveryDelay",%s,"deliveryDelay":{"delayType":%q,%s,"delayedRecipients":[{"emailAddress":"ann@example.org","diagnosticCode":%q}]}}`,
			mailObject, c.kind, when, c.reply))
		if len(events) != 1 || events[0].Type != mail.EventDeferred || events[0].Bounce == nil ||
			events[0].Bounce.Reason != c.want || events[0].Bounce.Class != c.want.Class() {
			t.Errorf("%s %q: events = %+v, want deferred for %s", c.kind, c.reply, events, c.want)
		}
	}
	for key := range delays {
		if !tested[key] {
			t.Errorf("%s is not tested", key)
		}
	}
}

func TestComplaints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sub, feedback string
		want          mail.EventType
		bounce        *mail.Bounce
	}{
		{"null", `"abuse"`, mail.EventComplained, nil},
		{"null", "null", mail.EventComplained, nil},
		{`""`, `"fraud"`, mail.EventComplained, nil},
		{"null", `"auth-failure"`, mail.EventComplained, nil},
		{"null", `"virus"`, mail.EventComplained, nil},
		{"null", `"other"`, mail.EventComplained, nil},
		{"null", `"brand-new"`, mail.EventComplained, nil},
		{"null", `"not-spam"`, mail.EventUnmapped, nil},
		{`"OnAccountSuppressionList"`, "null", mail.EventRejected, &mail.Bounce{Reason: mail.SuppressedComplaint, Rule: "ses/Complaint/OnAccountSuppressionList"}},
		{`"OnTenantSuppressionList"`, "null", mail.EventRejected, &mail.Bounce{Reason: mail.SuppressedComplaint, Rule: "ses/Complaint/OnTenantSuppressionList"}},
	} {
		events := parse(fmt.Appendf(nil, `{"eventType":"Complaint",%s,"complaint":{"complaintSubType":%s,"complaintFeedbackType":%s,"feedbackId":"f",%s,"complainedRecipients":[{"emailAddress":"ann@example.org"}]}}`,
			mailObject, c.sub, c.feedback, when))
		if len(events) != 1 || events[0].Type != c.want || events[0].UniqueID != "f" || events[0].Recipient != "ann@example.org" {
			t.Fatalf("%s %s: events = %+v, want one %s", c.sub, c.feedback, events, c.want)
		}
		if diff := cmp.Diff(c.bounce, events[0].Bounce); diff != "" {
			t.Errorf("%s %s: bounce (-want +got):\n%s", c.sub, c.feedback, diff)
		}
	}
}

func TestRecipients(t *testing.T) {
	t.Parallel()
	one, two := `"destination":["Ann.Lee@example.org"]`, `"destination":["ann@example.org","Bob <bob@example.org>"]`
	for name, c := range map[string]struct {
		destination, record string
		want                []string
	}{
		"send to two":       {two, `"eventType":"Send"`, []string{"ann@example.org", "bob@example.org"}},
		"reject of two":     {two, `"eventType":"Reject","reject":{}`, []string{"ann@example.org", "bob@example.org"}},
		"open of two":       {two, `"eventType":"Open","open":{}`, []string{""}},
		"click of one":      {one, `"eventType":"Click","click":{}`, []string{"Ann.Lee@example.org"}},
		"two delivered":     {two, `"eventType":"Delivery","delivery":{"recipients":["bob@example.org","ann@example.org"]}`, []string{"bob@example.org", "ann@example.org"}},
		"delivered to none": {two, `"eventType":"Delivery","delivery":{"recipients":[]}`, []string{""}},
		"nobody, of one":    {one, `"eventType":"Delivery","delivery":{}`, []string{"Ann.Lee@example.org"}},
		"two bounced":       {two, `"eventType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"ann@example.org"},{"emailAddress":"bob@example.org"}]}`, []string{"ann@example.org", "bob@example.org"}},
		"two complained":    {two, `"eventType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"ann@example.org"},{"emailAddress":"bob@example.org"}]}`, []string{"ann@example.org", "bob@example.org"}},
		"two delayed":       {two, `"eventType":"DeliveryDelay","deliveryDelay":{"delayedRecipients":[{"emailAddress":"ann@example.org"},{"emailAddress":"bob@example.org"}]}`, []string{"ann@example.org", "bob@example.org"}},
		"other case":        {one, `"eventType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"ann.lee@EXAMPLE.org"}]}`, []string{"Ann.Lee@example.org"}},
		"with a name":       {two, `"eventType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"Ann <ANN@example.org>"}]}`, []string{"ann@example.org"}},
		"forwarded":         {one, `"eventType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"lee@elsewhere.example"}]}`, []string{"lee@elsewhere.example"}},
		"hidden, of one":    {one, `"eventType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"[redacted]"}]}`, []string{"Ann.Lee@example.org"}},
		"hidden, of two":    {two, `"eventType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"[redacted]"}]}`, []string{""}},
		"no destination":    {`"destination":[]`, `"eventType":"Send"`, []string{""}},
	} {
		var got []string
		for _, e := range parse([]byte(`{` + c.record + `,"mail":{"messageId":"m",` + c.destination + `}}`)) {
			got = append(got, e.Recipient)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSubscriptionIsAnUnsubscriptionOnlyWhenSomeoneLeft(t *testing.T) {
	t.Parallel()
	status := func(all bool, topics ...string) string {
		var list []string
		for _, topic := range topics {
			name, value, _ := strings.Cut(topic, "=")
			list = append(list, fmt.Sprintf(`{"topicName":%q,"subscriptionStatus":%q}`, name, value))
		}
		return fmt.Sprintf(`{"unsubscribeAll":%v,"topicSubscriptionStatus":[%s]}`, all, strings.Join(list, ","))
	}
	for name, c := range map[string]struct {
		before, after string
		want          mail.EventType
	}{
		"left everything":   {status(false, "a=OptIn"), status(true, "a=OptOut"), mail.EventUnsubscribed},
		"left again":        {status(true), status(true), mail.EventUnsubscribed},
		"left one":          {status(false, "a=OptIn", "b=OptOut"), status(false, "a=OptOut", "b=OptOut"), mail.EventUnsubscribed},
		"left, not told of": {"null", status(false, "a=OptOut"), mail.EventUnsubscribed},
		"came back":         {status(true, "a=OptOut"), status(false, "a=OptOut"), mail.EventUnmapped},
		"joined one":        {status(false, "a=OptOut", "b=OptOut"), status(false, "a=OptIn", "b=OptOut"), mail.EventUnmapped},
		"nothing said":      {"null", "null", mail.EventUnmapped},
	} {
		events := parse(fmt.Appendf(nil, `{"eventType":"Subscription",%s,"subscription":{%s,"oldTopicPreferences":%s,"newTopicPreferences":%s}}`, mailObject, when, c.before, c.after))
		if len(events) != 1 || events[0].Type != c.want || events[0].Name != "Subscription" {
			t.Errorf("%s: events = %+v, want one %q", name, events, c.want)
		}
	}
}

func TestMessageIDIsFound(t *testing.T) {
	t.Parallel()
	const id = "0199c0de-0000-7000-8000-000000000001"
	for name, c := range map[string]struct{ mail, want string }{
		"tag":             {`"tags":{"gw_msg":["` + id + `"]}`, id},
		"second value":    {`"tags":{"gw_msg":["x","` + id + `"]}`, id},
		"header":          {`"headers":[{"name":"From","value":"x"},{"name":"message-id","value":"<` + id + `@example.com>"}]`, id},
		"common header":   {`"commonHeaders":{"messageId":"<` + id + `@example.com>","to":["x"]}`, id},
		"tag goes first":  {`"tags":{"gw_msg":["` + id + `"]},"headers":[{"name":"Message-ID","value":"<0199c0de-0000-7000-8000-000000000002@example.com>"}]`, id},
		"of SES":          {`"commonHeaders":{"messageId":"<0100-m@email.amazonses.com>"}`, ""},
		"other shape":     {`"commonHeaders":[{"name":"x"}],"headers":{"Message-ID":"x"}`, ""},
		"upper case":      {`"tags":{"gw_msg":["{` + id + `}"]}`, ""},
		"another's tag":   {`"tags":{"msg":["` + id + `"]}`, ""},
		"nothing":         {`"tags":{}`, ""},
		"nothing but nil": {`"tags":null,"headers":null,"commonHeaders":null`, ""},
	} {
		e := parse([]byte(`{"eventType":"Send","mail":{"messageId":"0100-m","timestamp":"2026-11-25T11:00:00.012Z",` + c.mail + `}}`))[0]
		if got := e.MessageID.String(); e.MessageID.IsZero() != (c.want == "") || c.want != "" && got != c.want {
			t.Errorf("%s: message id = %s, want %s", name, got, c.want)
		}
		if e.ProviderMessageID != "0100-m" {
			t.Errorf("%s: event = %+v, want what finds the message without our id", name, e)
		}
	}
}

func TestMachinesAreKnown(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{`"Likely"`: true, `"Unlikely"`: false, "true": true, "false": false, "null": false, "{}": false, "7": false} {
		if e := parse([]byte(`{"eventType":"Open","open":{"isBotEvent":` + value + `}}`))[0]; e.Machine != want || e.Type != mail.EventOpened {
			t.Errorf("isBotEvent %s: %s by a machine %v, want opened %v", value, e.Type, e.Machine, want)
		}
	}
}

// The readable fields of a record that can't be read are kept with it.
func TestUnreadableRecords(t *testing.T) {
	t.Parallel()
	known := ofMessage(mail.Event{At: time.Date(2026, 11, 25, 11, 0, 0, 12e6, time.UTC)})
	named := func(name string) mail.Event { e := known; e.Name = name; return e }
	for record, want := range map[string]mail.Event{
		``:                       {},
		`{`:                      {},
		`[{"eventType":"Send"}]`: {},
		`{"eventType":"Send"} x`: {},
		`{}`:                     {},
		`{` + mailObject + `}`:   known,
		`{"eventType":"New",` + mailObject + `,"new":{}}`:                               named("New"),
		`{"eventType":"send",` + mailObject + `}`:                                       named("send"),
		`{"eventType":"Bounce",` + mailObject + `,"bounce":"yes"}`:                      named("Bounce"),
		`{"eventType":"Bounce",` + mailObject + `,"bounce":[]}`:                         named("Bounce"),
		`{"eventType":"Delivery",` + mailObject + `,"delivery":{"recipients":{"a":1}}}`: named("Delivery"),
		`{"eventType":"a\u0000b\nc",` + mailObject + `}`:                                named("a b c"),
	} {
		want.Detail = eventjson.Digest([]byte(record)) // so that it differs from others
		if diff := cmp.Diff([]mail.Event{want}, parse([]byte(record))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", record, diff)
		}
	}
	many := `{"eventType":"Delivery",` + mailObject + `,"delivery":{"recipients":["a@b.test"` + strings.Repeat(`,"a@b.test"`, provider.MaxHookEvents) + `]}}`
	if got := parse([]byte(many)); len(got) != 1 || got[0].Type != mail.EventUnmapped {
		t.Errorf("a record of %d recipients gave %d events, want one unmapped", provider.MaxHookEvents+1, len(got))
	}
}

func TestWordsOfOthersAreCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é\t", 2000)
	e := parse(fmt.Appendf(nil, `{"eventType":"Bounce","bounce":{"bounceType":"Transient","bounceSubType":%q,"bouncedRecipients":[{"emailAddress":"a@b.test","diagnosticCode":%q}]},"mail":{"messageId":%q}}`, long, long, long))[0]
	for field, s := range map[string]string{"name": e.Name, "text": e.Bounce.Text, "provider's id": e.ProviderMessageID} {
		if len(s) > provider.MaxDetail || s == "" || strings.Contains(s, "\t") {
			t.Errorf("%s has %d bytes, or a control character", field, len(s))
		}
	}
	for address, want := range map[string]string{
		"https://example.com/?a=%C3%A9":                            "https://example.com/?a=%C3%A9",
		"https://example.com/" + strings.Repeat("x", maxLink-20):   "https://example.com/" + strings.Repeat("x", maxLink-20),
		"https://example.com/" + strings.Repeat("x", maxLink-20+1): "",
		`https://example.com/\u0000`:                               "",
		`https://example.com/\n`:                                   "",
	} {
		e := parse([]byte(`{"eventType":"Click","click":{"link":"` + address + `"}}`))[0]
		if e.URL != want || e.Type != mail.EventClicked {
			t.Errorf("%s with a URL of %d bytes = %.40q, want %.40q", e.Type, len(address), e.URL, want)
		}
	}
}

func TestCodesOfABounce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ status, diagnostic, code, enhanced, text string }{
		"both":                {"5.1.1", "smtp; 550 5.1.1 user unknown", "550", "5.1.1", "550 5.1.1 user unknown"},
		"status only":         {"5.1.1", "", "", "5.1.1", ""},
		"diagnostic only":     {"", "smtp; 550 5.2.1 disabled", "550", "5.2.1", "550 5.2.1 disabled"},
		"status is generic":   {"5.0.0", "smtp; 550 5.7.1 no", "550", "5.7.1", "550 5.7.1 no"},
		"generic is all":      {"5.0.0", "smtp; no", "", "5.0.0", "no"},
		"status with words":   {"4.4.7 (expired)", "", "", "4.4.7", ""},
		"status is no status": {"failed", "x-unix; exit 67", "", "", "x-unix; exit 67"},
		"case and space":      {"", "  SMTP ;550 5.1.1 x", "550", "5.1.1", "550 5.1.1 x"},
	} {
		b := verdict{mail.EventBounced, mail.MailboxFull, false, false}.bounce("Transient/MailboxFull", party{Status: c.status, DiagnosticCode: c.diagnostic})
		want := &mail.Bounce{Class: mail.Soft, Reason: mail.MailboxFull, Code: c.code, Enhanced: c.enhanced, Text: c.text, Rule: "ses/Transient/MailboxFull"}
		if diff := cmp.Diff(want, b); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
