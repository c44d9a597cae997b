package ses

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/eventjson"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// readers has a line for each type of record. A reader returns no event for a record that changes nothing.
var readers = map[string]func(*record) []mail.Event{
	"Send":              (*record).sent,
	"Delivery":          (*record).delivered,
	"Bounce":            (*record).bounced,
	"Complaint":         (*record).complained,
	"Reject":            (*record).rejected,
	"Rendering Failure": (*record).failed,
	"DeliveryDelay":     (*record).delayed,
	"Open":              (*record).opened,
	"Click":             (*record).clicked,
	"Subscription":      (*record).unsubscribed,
}

// Parse implements provider.EventParser: one event per recipient in the order of the record, or one unmapped event.
func (c *Client) Parse(raw []byte) []mail.Event { return parse(raw) }

func parse(raw []byte) []mail.Event {
	var r record
	err := json.Unmarshal(raw, &r) // a field of another type than documented leaves the others readable
	if mistyped := (*json.UnmarshalTypeError)(nil); err != nil && !errors.As(err, &mistyped) {
		return []mail.Event{{Detail: eventjson.Digest(raw)}}
	}
	kind := r.EventType
	if kind == "" {
		kind = r.NotificationType
	}
	if read := readers[kind]; read != nil && err == nil {
		if events := read(&r); len(events) > 0 && len(events) <= provider.MaxHookEvents {
			return events
		}
	}
	e := r.about(kind, r.Mail.Timestamp)
	e.Detail = eventjson.Digest(raw)
	return []mail.Event{e}
}

// about begins an event with what all events say about the message. It has no type yet.
func (r *record) about(name, at string) mail.Event {
	e := mail.Event{
		Name: provider.Cut(name), MessageID: r.messageID(), ProviderMessageID: provider.Cut(r.Mail.MessageID), At: instant(at),
	}
	if e.At.IsZero() {
		e.At = instant(r.Mail.Timestamp)
	}
	return e
}

// each makes one event per recipient. If nobody is named, it makes one event.
func (r *record) each(t mail.EventType, name, at string, recipients []string) []mail.Event {
	e := r.about(name, at)
	e.Type = t
	if len(recipients) == 0 {
		recipients = []string{""}
	}
	events, given := make([]mail.Event, len(recipients)), r.destinations()
	for i, raw := range recipients {
		events[i] = e
		events[i].Recipient = r.recipient(raw, given)
	}
	return events
}

func (r *record) sent() []mail.Event {
	return r.each(mail.EventAccepted, "Send", r.Mail.Timestamp, r.Mail.Destination)
}

func (r *record) delivered() []mail.Event {
	return r.each(mail.EventDelivered, "Delivery", r.Delivery.Timestamp, r.Delivery.Recipients)
}

func (r *record) bounced() []mail.Event {
	b := &r.Bounce
	v := bounceVerdict(b.BounceType, b.BounceSubType)
	events := r.each(v.event, joined("Bounce", b.BounceType, b.BounceSubType), b.Timestamp, emails(b.BouncedRecipients))
	for i := range events {
		events[i].UniqueID = b.FeedbackID
		events[i].Bounce = v.bounce(b.BounceType+"/"+b.BounceSubType, nth(b.BouncedRecipients, i))
	}
	return events
}

// complained takes every named recipient: a complaint that hides the address names all of our recipients at its domain.
func (r *record) complained() []mail.Event {
	c := &r.Complaint
	v := complaintVerdict(c.ComplaintSubType, c.ComplaintFeedbackType)
	name := joined("Complaint", c.ComplaintSubType, c.ComplaintFeedbackType)
	events := r.each(v.event, name, c.Timestamp, emails(c.ComplainedRecipients))
	for i := range events {
		events[i].UniqueID = c.FeedbackID
		if v.event == mail.EventRejected {
			events[i].Bounce = v.bounce("Complaint/"+c.ComplaintSubType, party{})
		}
	}
	return events
}

func (r *record) rejected() []mail.Event {
	return r.dropped(joined("Reject", r.Reject.Reason), "ses/Reject", mail.Content, r.Reject.Reason)
}

func (r *record) failed() []mail.Event {
	return r.dropped("Rendering Failure", "ses/Rendering Failure", mail.InvalidInput, r.Failure.ErrorMessage)
}

// dropped is about the whole message. These records have no time of their own.
func (r *record) dropped(name, rule string, reason mail.Reason, text string) []mail.Event {
	events := r.each(mail.EventRejected, name, r.Mail.Timestamp, r.Mail.Destination)
	for i := range events {
		events[i].Bounce = &mail.Bounce{Reason: reason, Rule: rule, Text: provider.Cut(text)}
	}
	return events
}

func (r *record) delayed() []mail.Event {
	d := &r.DeliveryDelay
	v := delayVerdict(d.DelayType)
	events := r.each(mail.EventDeferred, joined("DeliveryDelay", d.DelayType), d.Timestamp, emails(d.DelayedRecipients))
	for i := range events {
		p := nth(d.DelayedRecipients, i)
		events[i].Bounce, events[i].Detail = v.bounce("DeliveryDelay/"+d.DelayType, p), p.Status+"\n"+p.DiagnosticCode
	}
	return events
}

func (r *record) opened() []mail.Event  { return r.visited(mail.EventOpened, "Open", &r.Open) }
func (r *record) clicked() []mail.Event { return r.visited(mail.EventClicked, "Click", &r.Click) }

// visited is about one recipient only if the message had just one: SES does not tell them apart.
func (r *record) visited(t mail.EventType, name string, v *visit) []mail.Event {
	events := r.each(t, name, v.Timestamp, nil)
	e := &events[0]
	e.Machine = v.IsBotEvent == "Likely" || v.IsBotEvent == true
	e.URL, e.Detail = link(v.Link), v.IPAddress+"\n"+v.UserAgent
	return events
}

// unsubscribed is about SES's own list management, which serves messages with one recipient only. A recipient who rejoins a list
// causes no event.
func (r *record) unsubscribed() []mail.Event {
	s := &r.Subscription
	if !s.NewTopicPreferences.UnsubscribeAll && !leftTopic(s.OldTopicPreferences, s.NewTopicPreferences) {
		return nil
	}
	events := r.each(mail.EventUnsubscribed, "Subscription", s.Timestamp, nil)
	events[0].Detail = s.ContactList + "\n" + s.Source
	return events
}

// leftTopic reports whether the recipient opted out of another topic between the two states.
func leftTopic(before, after preferences) bool {
	var out []string
	for _, t := range before.TopicSubscriptionStatus {
		if t.SubscriptionStatus == "OptOut" {
			out = append(out, t.TopicName)
		}
	}
	for _, t := range after.TopicSubscriptionStatus {
		if t.SubscriptionStatus == "OptOut" && !slices.Contains(out, t.TopicName) {
			return true
		}
	}
	return false
}

// verdict says what SES's own words mean. If they are general, the receiving host's reply decides, unless it says nothing.
type verdict struct {
	event  mail.EventType
	reason mail.Reason
	reply  bool // the reply has priority
	hard   bool // the reply may say that the address is bad for good
}

// bounces is the table "Bounce types" of the developer guide's "Contents of event data that Amazon SES publishes to
// Amazon SNS". A line with only a type is for undocumented subtypes. SES accepts suppressed addresses, never tries them and
// reports them as bounces; they are not bounces.
var bounces = map[string]verdict{
	"Undetermined/Undetermined": {mail.EventBounced, mail.Undetermined, true, false},

	"Permanent/General":                   {mail.EventBounced, mail.InvalidAddress, true, true},
	"Permanent/NoEmail":                   {mail.EventBounced, mail.InvalidAddress, false, true},
	"Permanent/Suppressed":                {mail.EventRejected, mail.SuppressedBounce, false, false},
	"Permanent/OnAccountSuppressionList":  {mail.EventRejected, mail.SuppressedBounce, false, false},
	"Permanent/OnTenantSuppressionList":   {mail.EventRejected, mail.SuppressedBounce, false, false},
	"Permanent/EmailValidationSuppressed": {mail.EventRejected, mail.InvalidAddress, false, false},
	"Permanent/UnsubscribedRecipient":     {mail.EventRejected, mail.SuppressedUnsubscribe, false, false},

	"Transient/General":               {mail.EventBounced, mail.Undetermined, true, false}, // out-of-office too
	"Transient/MailboxFull":           {mail.EventBounced, mail.MailboxFull, false, false},
	"Transient/MessageTooLarge":       {mail.EventBounced, mail.MessageTooLarge, false, false},
	"Transient/CustomTimeoutExceeded": {mail.EventBounced, mail.TimedOut, false, false},
	"Transient/ContentRejected":       {mail.EventBounced, mail.Content, false, false},
	"Transient/AttachmentRejected":    {mail.EventBounced, mail.Content, false, false},

	"Permanent": {mail.EventBounced, mail.Undetermined, true, true},
	"Transient": {mail.EventBounced, mail.Undetermined, true, false},
}

// bounceVerdict reads a type and a subtype. Only final bounces are published, so an unknown type is final too.
func bounceVerdict(kind, sub string) verdict {
	if v, ok := bounces[kind+"/"+sub]; ok {
		return v
	}
	if v, ok := bounces[kind]; ok {
		return v
	}
	return verdict{mail.EventBounced, mail.Undetermined, true, false}
}

// delays is the table of delayType in the same page's "DeliveryDelay object". IPFailure is a provider that "blocks or throttles"
// the sending address, which is temporary.
var delays = map[string]verdict{
	"InternalFailure":                {reason: mail.Undetermined, reply: true},
	"General":                        {reason: mail.Undetermined, reply: true},
	"Undetermined":                   {reason: mail.Undetermined, reply: true},
	"SendingDeferral":                {reason: mail.ThrottledThere, reply: true}, // SES delays it
	"MailboxFull":                    {reason: mail.MailboxFull},
	"SpamDetected":                   {reason: mail.Reputation},
	"RecipientServerError":           {reason: mail.Connection},
	"TransientCommunicationFailure":  {reason: mail.Connection},
	"IPFailure":                      {reason: mail.ThrottledThere},
	"BYOIPHostNameLookupUnavailable": {reason: mail.Technical}, // about our own addresses
}

func delayVerdict(kind string) verdict {
	v, ok := delays[kind]
	if !ok {
		v = verdict{reason: mail.Undetermined, reply: true}
	}
	v.event = mail.EventDeferred
	return v
}

// complaintVerdict separates complaints from two records that only have their form. One is an address that is on the account's
// suppression list because of an earlier complaint. The other is a recipient who says that a mail is not spam (RFC 6430).
func complaintVerdict(sub, feedback string) verdict {
	switch {
	case sub == "OnAccountSuppressionList", sub == "OnTenantSuppressionList":
		return verdict{event: mail.EventRejected, reason: mail.SuppressedComplaint}
	case strings.EqualFold(feedback, "not-spam"):
		return verdict{event: mail.EventUnmapped}
	default:
		return verdict{event: mail.EventComplained}
	}
}

// generic is an enhanced status code that gives only a class (RFC 3463).
var generic = regexp.MustCompile(`^[245]\.0\.0$`)

// bounce makes a verdict for one recipient; word is SES's word for it. If SES never tried, there is no class. A general word is
// not hard if there is a reply that is not.
func (v verdict) bounce(word string, p party) *mail.Bounce {
	text := strings.TrimSpace(p.DiagnosticCode)
	if kind, words, ok := strings.Cut(text, ";"); ok && strings.EqualFold(strings.TrimSpace(kind), "smtp") {
		text = strings.TrimSpace(words) // RFC 3464 section 2.3.6
	}
	code, enhanced := smtpcode.Find(text)
	if _, status := smtpcode.Find(p.Status); status != "" && (enhanced == "" || !generic.MatchString(status)) {
		enhanced = status
	}
	own := smtpcode.Own(v.reason, provider.Cut("ses/"+word))
	said := smtpcode.Classify(code, enhanced, text)
	if !v.hard {
		said = said.NotHard()
	}
	switch {
	case v.event == mail.EventRejected: // never tried
		own.Class = ""
	case !v.reply:
		own = smtpcode.Weigh(own, said, smtpcode.Temporary(code, enhanced))
	case said.Reason != mail.Undetermined, own.Class == mail.Hard && (text != "" || enhanced != "" && !generic.MatchString(enhanced)):
		own = said
	}
	return own.Bounce(code, enhanced, provider.Cut(text))
}
