package smtp

import (
	"cmp"
	"net/textproto"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// feedbackTypes maps what a complaint is about (RFC 5965 section 7.3 and its registry; opt-out is of its drafts and still
// sent). The others, such as not-spam, virus and auth-failure, tell nothing of what the recipient wants.
var feedbackTypes = map[string]mail.EventType{
	"abuse":        mail.EventComplained,
	"fraud":        mail.EventComplained,
	"opt-out":      mail.EventUnsubscribed,
	"opt-out-list": mail.EventUnsubscribed,
}

// complaints reads a complaint in the Abuse Reporting Format: an event for each recipient. Operators who redact the
// recipient (RFC 6590) leave us To of the message that they return. It happened when the report was written: the dates in it
// are those of the delivery.
func (r *report) complaints(base mail.Event) []mail.Event {
	g := textproto.MIMEHeader{}
	if all := groups(r.feedback); len(all) > 0 {
		g = all[0]
	}
	base.Name = provider.Cut(cmp.Or(strings.ToLower(strings.TrimSpace(g.Get("Feedback-Type"))), nameNothing))
	base.Type = feedbackTypes[base.Name]
	var events []mail.Event
	for _, recipient := range r.complainers(g) {
		e := base
		e.Recipient = recipient
		events = append(events, e)
	}
	return events
}

func (r *report) complainers(g textproto.MIMEHeader) []string {
	var found []string
	for _, s := range g["Original-Rcpt-To"] {
		if addr := typedAddress(s); addr != "" && len(found) < maxReported {
			found = append(found, addr)
		}
	}
	if len(found) == 0 {
		found = originalTo(string(r.original))
	}
	if len(found) == 0 {
		found = []string{""}
	}
	return found
}
