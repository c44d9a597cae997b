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

// maxUnix is the latest time that an event may name, in the year 2242. What is beyond is no time.
const maxUnix = 1 << 33

// Parse implements provider.EventParser. Raw is one element of the array that SendGrid sent, or one event of Email
// Logs: one event, always.
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

// fill adds what only events of some types have.
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

// fields are the members of an event by their exact names. Custom arguments stand among them.
type fields map[string]json.RawMessage

// text is a member that is a string or a number, else "".
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

// time reads Unix seconds, or nothing that Postgres or we could not hold.
func (f fields) time(name string) time.Time {
	sec, err := strconv.ParseInt(f.text(name), 10, 64)
	if err != nil || sec <= 0 || sec > maxUnix {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

// messageID is our own id, which travels as a custom argument: beside the other members in the webhook, in an object of
// its own in Email Logs.
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

// join puts members together, to tell two events apart and not to be read.
func (f fields) join(names []string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString(string(f[name]) + ";")
	}
	return provider.Cut(b.String())
}

// deferral says why a message waits. That is never the address's last word.
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

// reply takes the codes from "status", which is an enhanced code or a reply code and may be missing, else from the words.
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

// acceptedID is the id that the answer to our call had: an event's id goes on with the name of the server that the
// message passed. Ids of the older form have dots of their own.
func acceptedID(id string) string {
	for _, server := range []string{".recvd-", ".filter"} {
		if head, _, ok := strings.Cut(id, server); ok && head != "" {
			return head
		}
	}
	return id
}

// kind is what one word of SendGrid's "event" means.
type kind struct {
	event mail.EventType
	tells []string // members that tell apart two events of one second
	typed bool     // "type" belongs to the name
}

// kinds is the table of SendGrid's events ("Event Webhook Reference", and "Email Logs" for received). What is not
// listed has no word of ours.
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
		"received":              {}, // the API took the request: our call's answer, once more
	}
}

// classifications is the table of "bounce_classification" ("Event Webhook Reference", bounce classifications).
// Unclassified, an unknown word and none leave it to the reply.
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

// dropReasons is the table of "reason" of a dropped message ("Event Webhook Reference", dropped). What is not listed is
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
		"spam content (if spam checker app is enabled)": mail.Content, // as the page spells it
	}
}

// noDomain are words of SendGrid's for a domain that takes no mail, in lower case.
func noDomain() []string {
	return []string{"no mx", "unable to get mx info", "unable to resolve mx", "no such host", "nxdomain"}
}

// classify is the verdict on a bounce: SendGrid's own classification, made finer by the reply where it covers two things
// ("mailbox unavailable" is said of full ones too), and overruled by a reply that knows better.
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
