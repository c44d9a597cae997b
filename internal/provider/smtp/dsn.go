package smtp

import (
	"mime"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"

	"github.com/emersion/go-message/charset"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// maxReported caps the recipients that are read in one report: no transaction has more. Fewer of them count; see maxSettled.
const maxReported = maxRecipients

// actions maps the word for what happened (RFC 3464 section 2.3.3), and other words that reporters use instead. A relayed message
// went on to a host that does not report; an expanded one went on to the members of a list. Both have reached the recipient's own
// side. "deliverable" is not a delivery: nothing was sent.
var actions = map[string]mail.EventType{
	"failed":        mail.EventBounced,
	"failure":       mail.EventBounced,
	"fail":          mail.EventBounced,
	"error":         mail.EventBounced,
	"expired":       mail.EventBounced,
	"bounced":       mail.EventBounced,
	"rejected":      mail.EventBounced,
	"undeliverable": mail.EventBounced,
	"undelivered":   mail.EventBounced,
	"delayed":       mail.EventDeferred,
	"deferred":      mail.EventDeferred,
	"delivered":     mail.EventDelivered,
	"relayed":       mail.EventDelivered,
	"expanded":      mail.EventDelivered,
}

// enhancedCode is the code in a Status field, around which some servers put comments.
var enhancedCode = regexp.MustCompile(`\b[245]\.[0-9]{1,3}\.[0-9]{1,3}\b`)

// deliveries reads a delivery status notification. It returns an event for each recipient that the notification names. Gateways
// may name a recipient in a form that is not an address.
func (r *report) deliveries(base mail.Event) []mail.Event {
	var events []mail.Event
	all := groups(r.status)
	for i, g := range all {
		recipients := reported(g)
		switch {
		case len(recipients) == 0 && i > 0 && waits(all[i-1]):
			recipients = reported(all[i-1]) // a stray empty line split the group
		case waits(g) && i+1 < len(all) && len(reported(all[i+1])) == 0 && action(all[i+1]) != "":
			continue
		case action(g) == "" && strings.Join(recipients, "") == "":
			continue // the fields about the whole message
		case len(recipients) == 0:
			recipients = []string{""}
		}
		for _, recipient := range recipients {
			if len(events) < maxReported {
				events = append(events, r.delivery(base, recipient, g))
			}
		}
	}
	r.complete(events)
	return events
}

// waits reports whether a group names recipients without saying what happened.
func waits(g textproto.MIMEHeader) bool { return action(g) == "" && len(reported(g)) > 0 }

// delivery makes the event of one recipient from its group of fields.
func (r *report) delivery(base mail.Event, recipient string, g textproto.MIMEHeader) mail.Event {
	e := base
	e.Recipient, e.Name = recipient, action(g)
	e.Type = actions[e.Name]
	e.At = r.plausible(g.Get("Last-Attempt-Date"), base.At)
	if e.Type == mail.EventBounced || e.Type == mail.EventDeferred {
		e.Bounce = diagnosis(e.Type, enhancedCode.FindString(g.Get("Status")), decoded(g.Get("Diagnostic-Code")))
	}
	if e.Name == "expired" {
		e.Bounce.Reason, e.Bounce.Class = mail.TimedOut, mail.Soft
	}
	if until := g.Get("Will-Retry-Until"); until != "" {
		e.Detail = provider.Cut("will retry until " + until)
	}
	return e
}

// complete takes the reason from the human-readable text if the machine-readable part has none: some reporters give 5.0.0 there,
// and quote the server in the text.
func (r *report) complete(events []mail.Event) {
	for i := range events {
		b := events[i].Bounce
		if b == nil || b.Reason != mail.Undetermined || b.Code != "" || b.Enhanced != "" && !strings.HasSuffix(b.Enhanced, ".0.0") {
			continue
		}
		words := wordsOf(events[i].Type, r.prose().reply(events[i].Recipient, len(events) > 1))
		if words.Reason != mail.Undetermined && (words.Code != "" || words.Enhanced != "") {
			events[i].Bounce = words
		}
	}
}

// decoded undoes the encoding of words (RFC 2047). Fields of reports should not have it, but some do.
func decoded(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	d := mime.WordDecoder{CharsetReader: charset.Reader}
	if text, err := d.DecodeHeader(s); err == nil {
		return text
	}
	return s
}

// action is the word for what happened. If it is missing, the status or the server's reply decides.
func action(g textproto.MIMEHeader) string {
	word := strings.ToLower(strings.TrimSpace(g.Get("Action")))
	if i := strings.IndexFunc(word, func(r rune) bool { return r < 'a' || r > 'z' }); i >= 0 {
		word = word[:i]
	}
	status := enhancedCode.FindString(g.Get("Status"))
	if word == "" && status == "" {
		status, _ = smtpcode.Find(decoded(g.Get("Diagnostic-Code")))
	}
	if word == "" && status != "" {
		word = map[byte]string{'2': "delivered", '4': "delayed", '5': "failed"}[status[0]]
	}
	return provider.Cut(word)
}

// diagnosis says why. Its text is that of the server that refused, after the kind of server ("smtp;", "x-postfix;"). The server's
// own code is more exact than a status that ends in .0.0, which reporters give when they know no code.
func diagnosis(t mail.EventType, status, diagnostic string) *mail.Bounce {
	text := diagnostic
	if kind, words, ok := strings.Cut(diagnostic, ";"); ok && !strings.ContainsAny(strings.TrimSpace(kind), " \t") {
		text = strings.TrimSpace(words)
	}
	code, enhanced := smtpcode.Find(text)
	if status != "" && (enhanced == "" || !strings.HasSuffix(status, ".0.0")) {
		enhanced = status
	}
	return bounceOf(t, code, enhanced, text)
}

// bounceOf classifies a reply. A message that is only delayed says nothing final about its address.
func bounceOf(t mail.EventType, code, enhanced, text string) *mail.Bounce {
	v := smtpcode.Classify(code, enhanced, text)
	if t == mail.EventDeferred {
		v = v.NotHard()
	}
	return v.Bounce(code, enhanced, provider.Cut(text))
}

// reported lists the recipients of a group; only broken reports have more than one. The address is as we gave it (ORCPT) if the
// reporter knows that. Otherwise it is the final address, which differs after forwarding. "" stands for a value that is not an
// address.
func reported(g textproto.MIMEHeader) []string {
	original, final := g["Original-Recipient"], g["Final-Recipient"]
	all := make([]string, max(len(original), len(final)))
	for i := range all {
		if len(original) == len(all) {
			all[i] = typedAddress(original[i])
		}
		if all[i] == "" && i < len(final) {
			all[i] = typedAddress(final[i])
		}
	}
	return all
}

var unicodePoint = regexp.MustCompile(`\\x\{([0-9A-Fa-f]{2,6})\}`)

// typedAddress reads "rfc822; ann@example.org"; the space is optional. RFC 3461 section 4 encodes addresses as xtext, and only
// some reporters decode it. So the two characters of addresses that need xtext are decoded here. \x{..} is RFC 6533 section 3.
func typedAddress(s string) string {
	_, addr, ok := strings.Cut(s, ";")
	if !ok {
		addr = s
	}
	addr, _, _ = strings.Cut(strings.TrimSpace(addr), " ") // a comment may follow
	addr = strings.Trim(addr, "<>")
	addr = strings.NewReplacer("+2B", "+", "+3D", "=").Replace(addr)
	addr = unicodePoint.ReplaceAllStringFunc(addr, func(point string) string {
		n, err := strconv.ParseUint(point[3:len(point)-1], 16, 32)
		if err != nil {
			return point
		}
		return string(rune(n)) //nolint:gosec // at most six hex digits
	})
	return canonical(addr)
}

// canonical returns the address in the form of our recipients, or "" if it is not an address.
func canonical(s string) string {
	a, err := mail.ParseAddress(s)
	if err != nil {
		return ""
	}
	return a.Email
}
