package smtp

import (
	"cmp"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// feedbackTypes maps the type of a complaint (RFC 5965 section 7.3 and its registry; opt-out is of its drafts and still sent).
// The other types, such as not-spam, virus and auth-failure, say nothing about what the recipient wants.
var feedbackTypes = map[string]mail.EventType{
	"abuse":        mail.EventComplained,
	"fraud":        mail.EventComplained,
	"opt-out":      mail.EventUnsubscribed,
	"opt-out-list": mail.EventUnsubscribed,
}

// jmrpRecipient is the field that Microsoft's Junk Mail Reporting Program puts on top of the message that it returns, instead of
// a report of its own. Often it returns only the header. jmrpReport stands for the missing report.
const (
	jmrpRecipient = "X-Hmxmroriginalrecipient"
	jmrpReport    = "Feedback-Type: abuse\n"
)

var jmrpField = regexp.MustCompile(`(?im)^` + jmrpRecipient + `[ \t]*:`)

// complaints reads a complaint in the Abuse Reporting Format. It returns an event for each recipient that the complaint names.
// Operators may redact the recipient (RFC 6590) or leave it out; the To of the returned message does not say which of several
// complained. The event's time is that of the report: the dates inside are those of the delivery.
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

// complainers are the recipients in the report: from the field of the standard, from that of its drafts for an opt-out, or from
// Microsoft's field. One "" means that the report names nobody.
func (r *report) complainers(g textproto.MIMEHeader) []string {
	fields := slices.Concat(g["Original-Rcpt-To"], g["Removal-Recipient"], r.header.Values(jmrpRecipient))
	for _, original := range groups(r.original) {
		fields = append(fields, original[jmrpRecipient]...)
	}
	var found []string
	for _, s := range fields {
		if addr := typedAddress(s); addr != "" && len(found) < maxReported && !slices.Contains(found, addr) {
			found = append(found, addr)
		}
	}
	if len(found) == 0 {
		found = []string{""}
	}
	return found
}
