package sendgrid

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/eventjson"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// maxUnix is the latest time that an event may have, in the year 2242. A later time counts as none.
const maxUnix = 1 << 33

// Parse implements provider.EventParser. Raw is one element of the array that SendGrid sent, or one event of Email Logs. It is
// always one event.
func (c *Client) Parse(raw []byte) []mail.Event { return []mail.Event{parse(raw)} }

func parse(raw []byte) mail.Event {
	var f fields
	if err := json.Unmarshal(raw, &f); err != nil || f == nil {
		return mail.Event{Name: eventjson.Unreadable, Detail: eventjson.Digest(raw)}
	}
	word := f.text("event")
	e := mail.Event{
		Name:              provider.Cut(word),
		UniqueID:          provider.Cut(f.text("sg_event_id")),
		MessageID:         f.messageID(),
		ProviderMessageID: provider.Cut(acceptedID(f.text("sg_message_id"))),
		Recipient:         eventjson.Address(f.text("email")),
		At:                f.time("timestamp"),
	}
	k, known := kinds()[word]
	switch {
	case word == "":
		e.Name, e.Detail = eventjson.Unreadable, eventjson.Digest(raw)
		return e
	case !known:
		e.Detail = eventjson.Digest(raw)
		return e
	}
	e.Type, e.Detail = k.event, f.join(k.tells)
	if kind := f.text("type"); k.typed && kind != "" && kind != word {
		e.Name = provider.Cut(word + "/" + kind)
	}
	f.fill(&e)
	return e
}

// fill adds the fields that only some types of events have.
func (f fields) fill(e *mail.Event) {
	switch e.Type {
	case mail.EventDeferred:
		e.Bounce = f.deferral()
	case mail.EventBounced:
		e.Bounce = f.bounce()
	case mail.EventRejected:
		e.Bounce = f.drop()
	case mail.EventOpened:
		e.Machine = string(f["sg_machine_open"]) == "true"
	case mail.EventClicked:
		e.URL = eventjson.Link(f.text("url"))
	case mail.EventUnmapped, mail.EventAccepted, mail.EventDelivered, mail.EventComplained, mail.EventUnsubscribed, mail.EventFailedUnknown,
		mail.EventEndpointDisabled:
	}
}

// fields are the members of an event by their exact names. Custom arguments are among them.
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

// time reads Unix seconds. It is zero for a time that Postgres or we could not hold.
func (f fields) time(name string) time.Time {
	sec, err := strconv.ParseInt(f.text(name), 10, 64)
	if err != nil || sec <= 0 || sec > maxUnix {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

// messageID is our own id, which travels as a custom argument: next to the other members in the webhook, in an object of its own
// in Email Logs.
func (f fields) messageID() mail.ID {
	text := f.text(provider.MessageKey)
	if _, ok := f[provider.MessageKey]; !ok {
		var args fields
		if json.Unmarshal(f["custom_args"], &args) == nil {
			text = args.text(provider.MessageKey)
		}
	}
	id, err := mail.ParseID(text)
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

// deferral says why a message is delayed. That is never final for the address.
func (f fields) deferral() *mail.Bounce {
	b := f.reply(cmp.Or(f.text("response"), f.text("reason")))
	return finish(b, smtpcode.Classify(b.Code, b.Enhanced, b.Text).NotHard())
}

func (f fields) bounce() *mail.Bounce {
	b := f.reply(f.text("reason"))
	v := classify(f.text("bounce_classification"), b)
	if t := f.text("type"); t != "" && t != "bounce" { // "blocked" is temporary, whatever its code says
		v = v.NotHard()
	}
	return finish(b, v)
}

func (f fields) drop() *mail.Bounce {
	b := f.reply(f.text("reason"))
	word := strings.ToLower(strings.TrimSpace(f.text("reason")))
	reason, ok := dropReasons()[word]
	if !ok {
		reason, word = mail.OtherReason, "dropped"
	}
	return finish(b, smtpcode.Own(reason, "sendgrid/"+word))
}

// reply takes the codes from "status", which is an enhanced code or a reply code and may be missing, or else from the text.
func (f fields) reply(text string) *mail.Bounce {
	b := &mail.Bounce{Text: provider.Cut(text)}
	switch status := f.text("status"); {
	case strings.Count(status, ".") == 2:
		b.Enhanced = provider.Cut(status)
	case len(status) == 3:
		b.Code = provider.Cut(status)
	}
	code, enhanced := smtpcode.Find(b.Text)
	b.Code, b.Enhanced = cmp.Or(b.Code, code), cmp.Or(b.Enhanced, enhanced)
	return b
}

func finish(b *mail.Bounce, v smtpcode.Verdict) *mail.Bounce {
	return v.Bounce(b.Code, b.Enhanced, b.Text)
}

// acceptedID is the id in the answer to our call. In an event, the id is followed by the name of the server that the message
// passed. Ids of the older form have dots of their own.
func acceptedID(id string) string {
	for _, server := range []string{".recvd-", ".filter"} {
		if head, _, ok := strings.Cut(id, server); ok && head != "" {
			return head
		}
	}
	return id
}

// kind says what one value of SendGrid's "event" means.
type kind struct {
	event mail.EventType
	tells []string // members that distinguish two events of the same second
	typed bool     // "type" belongs to the name
}

// kinds is the table of SendGrid's events ("Event Webhook Reference", and "Email Logs" for received). An event that is not listed
// is unmapped.
func kinds() map[string]kind {
	return map[string]kind{
		"processed":             {event: mail.EventAccepted},
		"deferred":              {event: mail.EventDeferred, tells: []string{"attempt", "response"}},
		"delivered":             {event: mail.EventDelivered},
		"bounce":                {event: mail.EventBounced, tells: []string{"status"}, typed: true},
		"dropped":               {event: mail.EventRejected, tells: []string{"reason"}},
		"open":                  {event: mail.EventOpened, tells: []string{"useragent", "ip", "sg_content_type"}},
		"click":                 {event: mail.EventClicked, tells: []string{"url_offset", "useragent", "ip"}},
		"spamreport":            {event: mail.EventComplained},
		"unsubscribe":           {event: mail.EventUnsubscribed},
		"group_unsubscribe":     {event: mail.EventUnsubscribed, tells: []string{"asm_group_id"}},
		"group_resubscribe":     {tells: []string{"asm_group_id"}},
		"cancel_drop":           {},
		"account_status_change": {typed: true},
		"received":              {}, // the API took the request: this repeats the answer to our call
	}
}

// classifications is the table of "bounce_classification" ("Event Webhook Reference", bounce classifications). For Unclassified,
// an unknown word or none, the reply decides.
func classifications() map[string]mail.Reason {
	return map[string]mail.Reason{
		"invalid address":              mail.InvalidAddress,
		"mailbox unavailable":          mail.Inactive,
		"technical":                    mail.Technical,
		"technical failure":            mail.Technical,
		"content":                      mail.Content,
		"reputation":                   mail.Reputation,
		"frequency or volume too high": mail.ThrottledThere,
	}
}

// dropReasons is the table of "reason" of a dropped message ("Event Webhook Reference", dropped). A reason that is not listed is
// mail.OtherReason.
func dropReasons() map[string]mail.Reason {
	return map[string]mail.Reason{
		"bounced address":                               mail.SuppressedBounce,
		"unsubscribed address":                          mail.SuppressedUnsubscribe,
		"spam reporting address":                        mail.SuppressedComplaint,
		"invalid":                                       mail.InvalidAddress,
		"spam content":                                  mail.Content,
		"invalid smtpapi header":                        mail.OtherReason,
		"recipient list over package quota":             mail.OtherReason,
		"duplicate message":                             mail.OtherReason,
		"spam content (if spam checker app is enabled)": mail.Content, // as the documentation writes it
	}
}

// noDomain are SendGrid's words for a domain that takes no mail, in lower case.
func noDomain() []string {
	return []string{"no mx", "unable to get mx info", "unable to resolve mx", "no such host", "nxdomain"}
}

// classify is the verdict on a bounce: SendGrid's own classification. The reply refines it where it covers two things ("mailbox
// unavailable" is also used for full mailboxes), and overrules it where the reply is more certain.
func classify(classification string, b *mail.Bounce) smtpcode.Verdict {
	said := smtpcode.Classify(b.Code, b.Enhanced, b.Text)
	temporary := smtpcode.Temporary(b.Code, b.Enhanced)
	word := strings.ToLower(strings.TrimSpace(classification))
	reason, ok := classifications()[word]
	own := smtpcode.Own(reason, "sendgrid/"+word)
	switch {
	case !ok:
		return said
	case reason == mail.Inactive && (b.Text != "" || b.Code != "" || b.Enhanced != ""):
		return said
	case reason == mail.Technical && !temporary && (said.Reason == mail.InvalidDomain || says(b.Text, noDomain())):
		return smtpcode.Own(mail.InvalidDomain, own.Rule)
	}
	return smtpcode.Weigh(own, said, temporary)
}

func says(text string, words []string) bool {
	text = strings.ToLower(text)
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
