package postmark

import (
	"cmp"
	"encoding/json"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/eventjson"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// Parse implements provider.EventParser. Raw is one request of Postmark's, or one event from a look-up. It is always one event.
func (c *Client) Parse(raw []byte) []mail.Event { return []mail.Event{parse(raw)} }

func parse(raw []byte) mail.Event {
	var f fields
	if err := json.Unmarshal(raw, &f); err != nil || f.text("RecordType") == "" {
		return mail.Event{Name: eventjson.Unreadable, Detail: eventjson.Digest(raw)}
	}
	word := f.text("RecordType")
	e := mail.Event{Name: provider.Cut(word), MessageID: f.messageID(), ProviderMessageID: provider.Cut(f.text("MessageID"))}
	r, known := records()[word]
	if !known {
		e.Detail = eventjson.Digest(raw)
		return e
	}
	e.Type, e.At, e.Recipient, e.Detail = r.event, f.time(r.at), eventjson.Address(f.text(r.recipient)), f.join(r.tells)
	if id := f.text("ID"); r.numbered && id != "" && id != "0" {
		e.UniqueID = provider.Cut(word + "/" + id)
	}
	switch word {
	case "Bounce":
		f.bounce(&e)
	case "SubscriptionChange":
		f.subscription(&e)
	case "Click":
		e.URL = eventjson.Link(f.text("OriginalLink"))
	case messageEvent:
		f.messageEvent(&e)
	}
	return e
}

// bounce goes by Type. Details has the words of the receiving host; Description is Postmark's own text.
func (f fields) bounce(e *mail.Event) {
	kind := f.text("Type")
	e.Name = name("Bounce", kind)
	t := bounceTypes()[kind]
	e.Type = t.event
	if t.reason != "" {
		e.Bounce = t.bounce(kind, cmp.Or(f.text("Details"), f.text("Description")))
	}
}

func (t bounceType) bounce(kind, text string) *mail.Bounce {
	code, enhanced := smtpcode.Find(text)
	return t.why(kind, code, enhanced, text).Bounce(provider.Cut(code), provider.Cut(enhanced), provider.Cut(text))
}

// subscription reports recipients who unsubscribed or were removed. An entry that mirrors a bounce or a complaint has an event of
// its own and must not count twice. Mail that is allowed again is not an event of ours either.
func (f fields) subscription(e *mail.Event) {
	reason := f.text("SuppressionReason")
	e.Name = name("SubscriptionChange", reason)
	if reason == "ManualSuppression" && string(f["SuppressSending"]) == "true" {
		e.Type = mail.EventUnsubscribed
	}
}

// messageEvent reads an event from a look-up. A delivery gets the name of its webhook, so that the two are the same event.
func (f fields) messageEvent(e *mail.Event) {
	kind := f.text("Type")
	e.Name = name(messageEvent, kind)
	t := messageEvents()[kind]
	switch e.Type = t.event; e.Type {
	case mail.EventDelivered:
		e.Name, e.Detail = "Delivery", ""
	case mail.EventDeferred:
		var d fields
		_ = json.Unmarshal(f["Details"], &d) // without Details it is still an event
		e.Bounce = t.bounce(kind, d.text("DeliveryMessage"))
	case mail.EventUnmapped, mail.EventAccepted, mail.EventBounced, mail.EventRejected, mail.EventComplained,
		mail.EventUnsubscribed, mail.EventOpened, mail.EventClicked, mail.EventFailedUnknown, mail.EventEndpointDisabled:
	}
}

func name(record, kind string) string {
	if kind == "" {
		return record
	}
	return provider.Cut(record + "/" + kind)
}

// fields are the members of an object by their exact names.
type fields map[string]json.RawMessage

// text is a member that is a string or a number; otherwise "".
func (f fields) text(name string) string {
	var s string
	if json.Unmarshal(f[name], &s) == nil {
		return s
	}
	var n json.Number
	if json.Unmarshal(f[name], &n) == nil {
		return n.String()
	}
	return ""
}

// time reads RFC 3339, to the microsecond: Postmark gives seven digits, and Postgres keeps six. An implausible year is no
// time.
func (f fields) time(name string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, f.text(name))
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 2200 {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
}

// messageID is our own id, from the metadata.
func (f fields) messageID() mail.ID {
	var metadata fields
	if json.Unmarshal(f["Metadata"], &metadata) != nil {
		return mail.ID{}
	}
	id, err := mail.ParseID(metadata.text(provider.MessageKey))
	if err != nil {
		return mail.ID{}
	}
	return id
}

// join concatenates members. The result distinguishes two events; nobody reads it.
func (f fields) join(names []string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString(string(f[name]) + ";")
	}
	return provider.Cut(b.String())
}

// record says what one RecordType means, and where its members are ("Delivery webhook" and the other webhook pages).
type record struct {
	event     mail.EventType
	at        string   // member that holds the time
	recipient string   // member that holds the address
	numbered  bool     // "ID" is an id of the event
	tells     []string // members that distinguish two events of the same time
}

// messageEvent is our word for an entry of MessageEvents in "Messages API", outbound message details.
const messageEvent = "MessageEvent"

// records is the table of RecordTypes. The tables below say what a Bounce and a SubscriptionChange mean. A RecordType that is
// not listed is an unmapped event.
func records() map[string]record {
	return map[string]record{
		"Delivery":           {event: mail.EventDelivered, at: "DeliveredAt", recipient: "Recipient"},
		"Bounce":             {at: "BouncedAt", recipient: "Email", numbered: true, tells: []string{"Type"}},
		"SpamComplaint":      {event: mail.EventComplained, at: "BouncedAt", recipient: "Email", numbered: true},
		"Open":               {event: mail.EventOpened, at: "ReceivedAt", recipient: "Recipient"},
		"Click":              {event: mail.EventClicked, at: "ReceivedAt", recipient: "Recipient", tells: []string{"ClickLocation"}},
		"SubscriptionChange": {at: "ChangedAt", recipient: "Recipient", tells: []string{"MessageStream", "SuppressSending"}},
		messageEvent:         {at: "ReceivedAt", recipient: "Recipient", tells: []string{"Type"}},
	}
}

// bounceType says what one Type of a bounce means.
type bounceType struct {
	event   mail.EventType
	reason  mail.Reason // used if the receiving host's words say nothing, or are not read
	byReply bool        // the host's words decide
	soft    bool        // the verdict is never hard, whatever the words say
}

// bounceTypes is the table of bounce types ("Bounce API", bounce types). It goes by Type, never by TypeCode. Types without an
// event are not about delivery; a Type that is not listed is unmapped.
//
// SpamNotification is a host's verdict on the content. The recipient did not complain, and can still be mailed.
func bounceTypes() map[string]bounceType {
	return map[string]bounceType{
		"HardBounce":              {event: mail.EventBounced, reason: mail.InvalidAddress, byReply: true},
		"SoftBounce":              {event: mail.EventBounced, reason: mail.Undetermined, byReply: true, soft: true},
		"Unknown":                 {event: mail.EventBounced, reason: mail.Undetermined, byReply: true, soft: true},
		"VirusNotification":       {event: mail.EventBounced, reason: mail.Content},
		"SpamNotification":        {event: mail.EventBounced, reason: mail.BlockedPolicy},
		"Transient":               {event: mail.EventDeferred, reason: mail.Connection},
		"DnsError":                {event: mail.EventDeferred, reason: mail.Connection},
		"OpenRelayTest":           {event: mail.EventDeferred, reason: mail.Connection},
		"BadEmailAddress":         {event: mail.EventRejected, reason: mail.InvalidAddress},
		"ManuallyDeactivated":     {event: mail.EventRejected, reason: mail.SuppressedBounce},
		"Blocked":                 {event: mail.EventRejected, reason: mail.BlockedPolicy},
		"DMARCPolicy":             {event: mail.EventRejected, reason: mail.AuthFailure},
		"Unconfirmed":             {event: mail.EventRejected, reason: mail.OtherReason},
		"SMTPApiError":            {event: mail.EventRejected, reason: mail.OtherReason},
		"TemplateRenderingFailed": {event: mail.EventRejected, reason: mail.InvalidInput},
		"SpamComplaint":           {event: mail.EventComplained},
		"Unsubscribe":             {event: mail.EventUnsubscribed},
		"Subscribe":               {},
		"AutoResponder":           {},
		"AddressChange":           {},
		"ChallengeVerification":   {},
		"InboundError":            {},
	}
}

// messageEvents is the table of the useful Types of MessageEvents. Bounces come from "Bounce API".
func messageEvents() map[string]bounceType {
	return map[string]bounceType{
		"Delivered": {event: mail.EventDelivered},
		"Transient": {event: mail.EventDeferred, reason: mail.Connection},
	}
}

// why makes the verdict on a bounce from its type, named kind, and the reply. If the reply says nothing, the type decides, but a
// HardBounce is hard only if there is no reply at all.
func (t bounceType) why(kind, code, enhanced, text string) smtpcode.Verdict {
	own := smtpcode.Own(t.reason, "postmark/"+kind)
	said := smtpcode.Classify(code, enhanced, text)
	switch {
	case !t.byReply:
		return own
	case t.soft:
		said = said.NotHard()
	}
	if said.Reason == mail.Undetermined && (own.Class != mail.Hard || code == "" && enhanced == "") {
		return own
	}
	return said
}
