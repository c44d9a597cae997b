package resend

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/eventjson"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// types is the table of the "Event Types" that are about a sent email. The others (email.scheduled, email.received, contact.* and
// domain.*) are unmapped.
func types() map[string]mail.EventType {
	return map[string]mail.EventType{
		"email.sent":             mail.EventAccepted,
		"email.delivered":        mail.EventDelivered,
		"email.delivery_delayed": mail.EventDeferred,
		"email.bounced":          mail.EventBounced,
		"email.complained":       mail.EventComplained,
		"email.failed":           mail.EventRejected,
		"email.suppressed":       mail.EventRejected,
		"email.opened":           mail.EventOpened,
		"email.clicked":          mail.EventClicked,
	}
}

// reasons is the table of the types and subtypes of email.bounced ("Email Bounces"). Only Permanent may be hard. The words of the
// receiving host have priority if they say something.
func reasons() map[string]mail.Reason {
	return map[string]mail.Reason{
		"Permanent/General":            mail.InvalidAddress,
		"Permanent/NoEmail":            mail.InvalidAddress,
		"Permanent":                    mail.Undetermined,
		"Transient/MailboxFull":        mail.MailboxFull,
		"Transient/MessageTooLarge":    mail.MessageTooLarge,
		"Transient/ContentRejected":    mail.Content,
		"Transient/AttachmentRejected": mail.Content,
	}
}

// webhook is the body of one request.
type webhook struct {
	Type      string    `json:"type"`
	CreatedAt string    `json:"created_at"`
	Data      eventData `json:"data"`
}

type eventData struct {
	EmailID    string          `json:"email_id"`
	To         []string        `json:"to"` // the recipients that the event is about
	Tags       json.RawMessage `json:"tags"`
	Bounce     *diagnosis      `json:"bounce"`
	Suppressed *diagnosis      `json:"suppressed"`
	Failed     struct {
		Reason string `json:"reason"`
	} `json:"failed"`
	Click struct {
		Link      string `json:"link"`
		Timestamp string `json:"timestamp"`
		UserAgent string `json:"userAgent"`
	} `json:"click"`
}

// diagnosis says why an email bounced or was suppressed.
type diagnosis struct {
	Type       string   `json:"type"`
	SubType    string   `json:"subType"`
	Reason     string   `json:"reason"`
	Message    string   `json:"message"`
	Diagnostic []string `json:"diagnosticCode"` // the receiving host's words, one for each recipient
}

// Parse implements provider.EventParser: one event for each recipient that the request names.
func (c *Client) Parse(raw []byte) []mail.Event { return parse(raw) }

func parse(raw []byte) []mail.Event {
	var w webhook
	if err := json.Unmarshal(raw, &w); err != nil || w.Type == "" {
		return []mail.Event{{Name: eventjson.Unreadable, Detail: eventjson.Digest(raw)}}
	}
	e := mail.Event{
		Type: types()[w.Type], Name: provider.Cut(w.Type), MessageID: messageID(w.Data.Tags),
		ProviderMessageID: provider.Cut(w.Data.EmailID), At: moment(w.CreatedAt),
	}
	switch e.Type {
	case mail.EventUnmapped:
		e.Detail = eventjson.Digest(raw)
		return []mail.Event{e}
	case mail.EventClicked:
		e.URL = eventjson.Link(w.Data.Click.Link)
		e.Detail = provider.Cut(w.Data.Click.Timestamp + ";" + w.Data.Click.UserAgent)
	case mail.EventAccepted, mail.EventDeferred, mail.EventDelivered, mail.EventBounced, mail.EventRejected, mail.EventComplained,
		mail.EventUnsubscribed, mail.EventOpened, mail.EventFailedUnknown, mail.EventEndpointDisabled:
	}
	engaged := e.Type == mail.EventOpened || e.Type == mail.EventClicked
	if len(w.Data.To) == 0 || engaged && len(w.Data.To) > 1 { // with several recipients, nobody knows which one opened it
		return []mail.Event{e}
	}
	events := make([]mail.Event, 0, len(w.Data.To))
	for i, to := range w.Data.To {
		one := e
		one.Recipient = address(to)
		one.Bounce = w.bounce(one.Type, i)
		events = append(events, one)
	}
	return events
}

// bounce says why recipient i was not reached. It is nil if the event is about something else.
func (w *webhook) bounce(event mail.EventType, i int) *mail.Bounce {
	switch {
	case event == mail.EventDeferred:
		return smtpcode.Own(mail.Connection, "resend/delivery_delayed").Bounce("", "", "")
	case event == mail.EventBounced:
		d := w.Data.Bounce
		if d == nil {
			d = &diagnosis{}
		}
		return d.bounced(i)
	case w.Type == "email.suppressed":
		reason, text := mail.SuppressedBounce, ""
		if d := w.Data.Suppressed; d != nil {
			text = d.Message
			if d.Reason == "previous_complaint" {
				reason = mail.SuppressedComplaint
			}
		}
		return smtpcode.Own(reason, "resend/suppressed").Bounce("", "", provider.Cut(text))
	case event == mail.EventRejected:
		return smtpcode.Own(mail.OtherReason, "resend/failed").Bounce("", "", provider.Cut(w.Data.Failed.Reason))
	}
	return nil
}

// bounced weighs Resend's type against the receiving host's words.
func (d *diagnosis) bounced(i int) *mail.Bounce {
	kind := d.Type
	if d.SubType != "" {
		kind += "/" + d.SubType
	}
	reason, known := reasons()[kind]
	if !known {
		reason = mail.Undetermined
	}
	text := d.Message
	if i < len(d.Diagnostic) && d.Diagnostic[i] != "" {
		text = d.Diagnostic[i]
	}
	if prefix, words, ok := strings.Cut(text, ";"); ok && strings.EqualFold(strings.TrimSpace(prefix), "smtp") {
		text = strings.TrimSpace(words) // RFC 3464 section 2.3.6
	}
	code, enhanced := smtpcode.Find(text)
	own := smtpcode.Own(reason, provider.Cut("resend/"+kind))
	said := smtpcode.Classify(code, enhanced, text)
	if d.Type != "Permanent" {
		said = said.NotHard()
	}
	verdict := own
	switch {
	case reason == mail.Undetermined && said.Reason != mail.Undetermined:
		verdict = said
	case kind == "Permanent/General" && (code != "" || enhanced != ""): // a general word is not hard if there is a reply
		verdict = said
	case code != "" || enhanced != "":
		verdict = smtpcode.Weigh(own, said, smtpcode.Temporary(code, enhanced))
	}
	return verdict.Bounce(provider.Cut(code), provider.Cut(enhanced), provider.Cut(text))
}

// messageID is our own id in the tags of an event, which are an object, or in those of an email, which are a list.
func messageID(raw json.RawMessage) mail.ID {
	var text string
	var object map[string]string
	var list []tag
	if json.Unmarshal(raw, &object) == nil {
		text = object[provider.MessageKey]
	} else if json.Unmarshal(raw, &list) == nil {
		for _, t := range list {
			if t.Name == provider.MessageKey {
				text = t.Value
			}
		}
	}
	id, err := mail.ParseID(text)
	if err != nil {
		return mail.ID{}
	}
	return id
}

// moment reads a time in Resend's formats, to the microsecond. An implausible year counts as no time.
func moment(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07", "2006-01-02 15:04:05.999999999Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 2000 && t.Year() <= 2200 {
			return t.UTC().Truncate(time.Microsecond)
		}
	}
	return time.Time{}
}

// address is the canonical form if s is an address, alone or after a name. Otherwise it is s, shortened.
func address(s string) string {
	if open := strings.LastIndexByte(s, '<'); open >= 0 && strings.HasSuffix(s, ">") {
		s = s[open+1 : len(s)-1]
	}
	if a, err := mail.ParseAddress(s); err == nil {
		return a.Email
	}
	return provider.Cut(s)
}
