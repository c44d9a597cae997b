package ses

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// maxLink caps the address of a clicked link, in bytes: a length that browsers and servers support.
const maxLink = 2048

// record holds the fields that we read of what SES publishes (developer guide, "Contents of event data that Amazon SES publishes
// to Amazon SNS"). An identity's feedback notifications have the same form, with NotificationType and without tags.
type record struct {
	EventType, NotificationType string
	Mail                        struct {
		Timestamp     string
		MessageID     string `json:"messageId"`
		Destination   []string
		Headers       json.RawMessage
		CommonHeaders json.RawMessage
		Tags          map[string][]string
	}
	Delivery struct {
		Timestamp  string
		Recipients []string
	}
	Bounce struct {
		BounceType, BounceSubType string
		BouncedRecipients         []party
		Timestamp                 string
		FeedbackID                string `json:"feedbackId"`
	}
	Complaint struct {
		ComplainedRecipients  []party
		ComplaintSubType      string
		ComplaintFeedbackType string
		Timestamp             string
		FeedbackID            string `json:"feedbackId"`
	}
	Reject struct{ Reason string }
	Open   visit
	Click  visit
	// Failure is about a template. We do not use templates, but an operator's own test may.
	Failure       struct{ TemplateName, ErrorMessage string }
	DeliveryDelay struct {
		Timestamp, DelayType string
		DelayedRecipients    []party
	}
	Subscription struct {
		ContactList, Timestamp, Source string
		NewTopicPreferences            preferences
		OldTopicPreferences            preferences
	}
}

// party is a recipient with a result, and the fields of a DSN if there was one.
type party struct{ EmailAddress, Status, DiagnosticCode string }

type visit struct {
	Timestamp, IPAddress, UserAgent, Link string
	IsBotEvent                            any // "Likely" or "Unlikely", since August 2026
}

type preferences struct {
	UnsubscribeAll          bool
	TopicSubscriptionStatus []struct{ TopicName, SubscriptionStatus string }
}

// messageID finds our id: in the tag that we send, or else in the Message-ID of the message as we gave it to SES. That is ours
// if the message went as Content.Raw.
func (r *record) messageID() mail.ID {
	for _, value := range r.Mail.Tags[provider.MessageKey] {
		if id, err := mail.ParseID(value); err == nil {
			return id
		}
	}
	for _, value := range r.internetIDs() {
		local, _, _ := strings.Cut(strings.Trim(value, " <>"), "@")
		if id, err := mail.ParseID(local); err == nil {
			return id
		}
	}
	return mail.ID{}
}

// internetIDs reads headers. They are there only if someone asked for them, and may differ from the documented form.
func (r *record) internetIDs() []string {
	var ids []string
	var headers []struct{ Name, Value string }
	if json.Unmarshal(r.Mail.Headers, &headers) == nil {
		for _, h := range headers {
			if strings.EqualFold(h.Name, "Message-ID") {
				ids = append(ids, h.Value)
			}
		}
	}
	var common struct {
		MessageID string `json:"messageId"`
	}
	if json.Unmarshal(r.Mail.CommonHeaders, &common) == nil {
		ids = append(ids, common.MessageID)
	}
	return ids
}

// destinations are the recipients of the message in canonical form, keyed by their folded address.
func (r *record) destinations() map[string]string {
	all := make(map[string]string, len(r.Mail.Destination))
	for _, d := range r.Mail.Destination {
		email := canonical(d)
		if key := mail.FoldAddress(email); email != "" && all[key] == "" {
			all[key] = email
		}
	}
	return all
}

// recipient returns the canonical form of an address as the message had it: a bounce quotes the receiving host, which may have
// changed the case. A text that is not an address, such as a hidden one, can only be the one recipient of the message.
func (r *record) recipient(raw string, given map[string]string) string {
	email := canonical(raw)
	if email == "" && len(r.Mail.Destination) == 1 {
		return canonical(r.Mail.Destination[0])
	}
	return cmp.Or(given[mail.FoldAddress(email)], email)
}

func canonical(raw string) string {
	a, err := mail.ParseMailbox(strings.TrimSpace(raw))
	if err != nil {
		return ""
	}
	return a.Email
}

// link drops a clicked address that is not fit to be stored.
func link(s string) string {
	if len(s) > maxLink || strings.ContainsFunc(s, unicode.IsControl) {
		return ""
	}
	return s
}

// instant reads a time of SES. It is zero if it can't be read.
func instant(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func emails(list []party) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.EmailAddress)
	}
	return out
}

// nth returns the recipient of an event. It is empty if no recipient was named.
func nth(list []party, i int) party {
	if i < len(list) {
		return list[i]
	}
	return party{}
}

// joined makes the name of an event from SES's own words, and skips empty ones.
func joined(words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), "/")
}
