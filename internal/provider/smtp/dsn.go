package smtp

import (
	"cmp"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// maxReported caps the recipients of one report: no transaction has more.
const maxReported = maxRecipients

// actions maps the word for what happened (RFC 3464 section 2.3.3). A relayed message went on to a host that does not
// report, an expanded one to the members of a list: both have reached the recipient's own side.
var actions = map[string]mail.EventType{
	"failed":    mail.EventBounced,
	"delayed":   mail.EventDeferred,
	"delivered": mail.EventDelivered,
	"relayed":   mail.EventDelivered,
	"expanded":  mail.EventDelivered,
}

// enhancedCode is the code in a Status field, around which some servers put comments.
var enhancedCode = regexp.MustCompile(`\b[245]\.[0-9]{1,3}\.[0-9]{1,3}\b`)

// deliveries reads a delivery status notification: an event for each recipient that it names. Gateways may name one in a
// form that is no address; then it is the only recipient of the returned message, or nobody.
func (r *report) deliveries(base mail.Event) []mail.Event {
	var events []mail.Event
	to := originalTo(string(r.original))
	for _, g := range groups(r.status) {
		recipient := reported(g)
		if recipient == "" && action(g) == "" || len(events) == maxReported {
			continue // the fields about the whole message
		}
		if recipient == "" && len(to) == 1 {
			recipient = to[0]
		}
		events = append(events, r.delivery(base, recipient, g))
	}
	return events
}

func (r *report) delivery(base mail.Event, recipient string, g textproto.MIMEHeader) mail.Event {
	e := base
	e.Recipient, e.Name = recipient, action(g)
	e.Type = actions[e.Name]
	e.At = r.plausible(g.Get("Last-Attempt-Date"), base.At)
	if e.Type == mail.EventBounced || e.Type == mail.EventDeferred {
		e.Bounce = diagnosis(e.Type, enhancedCode.FindString(g.Get("Status")), g.Get("Diagnostic-Code"))
	}
	if until := g.Get("Will-Retry-Until"); until != "" {
		e.Detail = provider.Cut("will retry until " + until)
	}
	return e
}

// action is the word for what happened, by the status where it is missing.
func action(g textproto.MIMEHeader) string {
	word := strings.ToLower(strings.TrimSpace(g.Get("Action")))
	if i := strings.IndexFunc(word, func(r rune) bool { return r < 'a' || r > 'z' }); i >= 0 {
		word = word[:i]
	}
	status := enhancedCode.FindString(g.Get("Status"))
	if word == "" && status != "" {
		word = map[byte]string{'2': "delivered", '4': "delayed", '5': "failed"}[status[0]]
	}
	return provider.Cut(word)
}

// diagnosis says why. The words are those of the server that refused, behind the kind of server ("smtp;", "x-postfix;").
// Its own code is more exact than a status that ends in .0.0, which reporters give where they know none.
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

// bounceOf classifies. A message that only waits says nothing final of its address.
func bounceOf(t mail.EventType, code, enhanced, text string) *mail.Bounce {
	v := smtpcode.Classify(code, enhanced, text)
	if t == mail.EventDeferred {
		v = v.NotHard()
	}
	return v.Bounce(code, enhanced, provider.Cut(text))
}

// reported is the recipient of a group, as we gave it (ORCPT) if the reporter knows that, else as it was in the end, which
// after a forwarding is another; "" for none.
func reported(g textproto.MIMEHeader) string {
	return cmp.Or(typedAddress(g.Get("Original-Recipient")), typedAddress(g.Get("Final-Recipient")))
}

var unicodePoint = regexp.MustCompile(`\\x\{([0-9A-Fa-f]{2,6})\}`)

// typedAddress reads "rfc822; ann@example.org", the space being optional. Of the xtext encoding of RFC 3461 section 4, which
// only some reporters undo, the two characters of addresses that need it are decoded; \x{..} is RFC 6533 section 3.
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

// canonical is the address in the form of our recipients, "" for what is none.
func canonical(s string) string {
	a, err := mail.ParseAddress(s)
	if err != nil {
		return ""
	}
	return a.Email
}
