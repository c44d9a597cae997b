package smtp

import (
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// Names of events that have no structure of their own.
const (
	nameBounce  = "bounce"
	nameWarning = "warning"
	nameReply   = "auto-reply"
	nameReceipt = "disposition-notification"
	nameNothing = "unreadable"
)

// unstructured makes events from a report without a machine-readable part, or with one that names nobody. A bounce gives one
// event for each recipient; anything else gives one unmapped event.
func (r *report) unstructured(base mail.Event) []mail.Event {
	switch {
	case r.receipt:
		base.Name = nameReceipt
	case r.status == nil && !r.isBounce() && !r.header.Has("From") && !r.header.Has("Date"): // RFC 5322 section 3.6 wants both
		base.Name = nameNothing
	case r.status == nil && !r.isBounce():
		base.Name = nameReply
	default:
		return r.bounces(base)
	}
	return []mail.Event{base}
}

// bounces reads a bounce in free text: the recipients that known forms name, each with its reply.
func (r *report) bounces(base mail.Event) []mail.Event {
	base.Type, base.Name = mail.EventBounced, nameBounce
	if r.isWarning() {
		base.Type, base.Name = mail.EventDeferred, nameWarning
	}
	recipients := r.failed()
	judged := map[string]*mail.Bounce{} // many may share one reply
	var events []mail.Event
	for _, recipient := range recipients {
		reply := r.prose().reply(recipient, len(recipients) > 1)
		if judged[reply] == nil {
			judged[reply] = wordsOf(base.Type, reply)
		}
		e := base
		e.Recipient, e.Bounce = recipient, judged[reply]
		events = append(events, e)
	}
	return events
}

// failed lists the recipients that a bounce names: in Exim's field, on lines of their own, or one in its sentences. One ""
// means that the bounce names nobody.
func (r *report) failed() []string {
	var found []string
	for addr := range strings.SplitSeq(r.header.Get("X-Failed-Recipients"), ",") {
		if a := canonical(strings.Trim(addr, " <>")); a != "" && len(found) < maxReported {
			found = append(found, r.prose().of(a).recipient)
		}
	}
	if len(found) > 0 {
		return found
	}
	for _, b := range r.prose().blocks {
		found = append(found, b.recipient)
	}
	if len(found) > 0 {
		return found
	}
	h := &r.header
	return []string{r.prose().only(h.Get("From"), h.Get("To"), h.Get("Reply-To"), h.Get(keptRecipient))}
}

// wordsOf classifies a reply.
func wordsOf(t mail.EventType, reply string) *mail.Bounce {
	code, enhanced := smtpcode.Find(reply)
	if code == "" && enhanced == "" {
		reply = provider.Cut(reply) // later text is about other things
	}
	return bounceOf(t, code, enhanced, reply)
}
