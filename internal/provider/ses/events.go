package ses

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// readers has a line for each type of record. They return no event for what changes nothing.
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

// Parse implements provider.EventParser: one event per recipient in the order of the record, else one unmapped event.
func (c *Client) Parse(raw []byte) []mail.Event { return parse(raw) }

func parse(raw []byte) []mail.Event {
	var r record
	err := json.Unmarshal(raw, &r) // a field of another type than documented leaves the others readable
	if mistyped := (*json.UnmarshalTypeError)(nil); err != nil && !errors.As(err, &mistyped) {
		return []mail.Event{{}}
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
	return []mail.Event{r.about(kind, r.Mail.Timestamp)}
}

// about begins an event: what all of them say of the message. It has no type yet.
func (r *record) about(name, at string) mail.Event {
	e := mail.Event{
		Name: provider.Cut(name), MessageID: r.messageID(), ProviderMessageID: provider.Cut(r.Mail.MessageID), At: instant(at),
	}
	if e.At.IsZero() {
		e.At = instant(r.Mail.Timestamp)
	}
	return e
}

// each makes an event of one type per recipient, and one for none when nobody is named.
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

// complained takes every recipient that is named: a complaint that hides the address names all of ours at its domain.
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

// dropped is of the whole message. These records have no time of their own.
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

// visited is about one recipient only if the message had one: SES does not tell them apart.
func (r *record) visited(t mail.EventType, name string, v *visit) []mail.Event {
	events := r.each(t, name, v.Timestamp, nil)
	e := &events[0]
	e.Machine = v.IsBotEvent == "Likely" || v.IsBotEvent == true
	e.URL, e.Detail = link(v.Link), v.IPAddress+"\n"+v.UserAgent
	return events
}

// unsubscribed is of SES's own list management, which serves messages to one recipient only. Whoever came back to a
// list did nothing that concerns us.
func (r *record) unsubscribed() []mail.Event {
	s := &r.Subscription
	if !s.NewTopicPreferences.UnsubscribeAll && !leftTopic(s.OldTopicPreferences, s.NewTopicPreferences) {
		return nil
	}
	events := r.each(mail.EventUnsubscribed, "Subscription", s.Timestamp, nil)
	events[0].Detail = s.ContactList + "\n" + s.Source
	return events
}

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
