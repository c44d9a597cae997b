package postmark

import (
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// record is what one RecordType means, and where its members are ("Delivery webhook" and its neighbours).
type record struct {
	event     mail.EventType
	at        string   // member that holds the time
	recipient string   // member that holds the address
	numbered  bool     // "ID" is an id of the event
	tells     []string // members that tell apart two events of one time
}

// messageEvent is our word for an entry of MessageEvents in "Messages API", outbound message details.
const messageEvent = "MessageEvent"

// records is the table of RecordTypes. What a Bounce and a SubscriptionChange mean stands in the tables below. What is
// not listed has no word of ours.
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

// bounceType is what one Type of a bounce means.
type bounceType struct {
	event   mail.EventType
	reason  mail.Reason // when the words of the receiving host tell nothing, or are not asked
	byReply bool        // the words decide
	soft    bool        // whatever they say, the address is not condemned
}

// bounceTypes is the table of bounce types ("Bounce API", bounce types). It goes by Type, never by TypeCode. Those
// without an event are about something else than delivery; what is not listed has no word of ours.
//
// SpamNotification is a host's verdict on the content. The recipient complained of nothing and stays mailable.
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

// messageEvents is the table of the Types of MessageEvents that tell something. A bounce is told by "Bounce API".
func messageEvents() map[string]bounceType {
	return map[string]bounceType{
		"Delivered": {event: mail.EventDelivered},
		"Transient": {event: mail.EventDeferred, reason: mail.Connection},
	}
}

// why makes the verdict on a bounce out of its type, named kind, and the reply. A reply that says nothing leaves it to the
// type, but a HardBounce condemns the address only where there is no reply at all.
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
