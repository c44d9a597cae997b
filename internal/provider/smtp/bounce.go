package smtp

import (
	"bytes"
	"cmp"
	netmail "net/mail"
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// Names of what has no structure of its own.
const (
	nameBounce  = "bounce"
	nameWarning = "warning"
	nameReply   = "auto-reply"
	nameReceipt = "disposition-notification"
	nameNothing = "unreadable"
)

// Signs in lower case. A subject that begins as a reply of an absent person's mailbox is one, whoever it says it is from.
var (
	replySubjects   = []string{"automatic reply", "auto:", "autoreply", "auto-reply", "auto reply", "out of office", "out of the office", "abwesenheit", "vacation"}
	bounceSubjects  = []string{"undeliver", "failure notice", "delivery failure", "delivery failed", "delivery status", "returned mail", "mail delivery", "returned to sender", "could not be delivered", "delivery notification"}
	warningSubjects = []string{"warning:", "delayed", "delivery delay"}
	bounceSenders   = []string{"mailer-daemon", "postmaster", "mail-daemon", "maildaemon"}
)

// The forms of bounces for people. qmail and sendmail give each recipient a line of its own in angle brackets and say
// below it what went wrong; Exim quotes its command.
var (
	recipientLine = regexp.MustCompile(`(?m)^[ \t]*<([^<>\s]{1,320})>:?[ \t]*\r?$`)
	rcptCommand   = regexp.MustCompile(`(?i)rcpt to:\s*<([^<>\s]{1,320})>`)
	returned      = regexp.MustCompile(`(?im)^-+ (?:below this line is a copy|this is a copy of|original message|returned message|unsent message|the body of the message)`)
	emptyLine     = regexp.MustCompile(`\r?\n[ \t]*\r?\n`)
)

// unstructured makes events of a report without a part for machines, or with one that names nobody: of a bounce one for
// each recipient, of anything else one unmapped event.
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

func (r *report) subject() string {
	s, err := r.header.Text("Subject")
	if err != nil {
		s = r.header.Get("Subject")
	}
	return strings.ToLower(s)
}

// isBounce tells bounces from replies of absent people's mailboxes; both come from the null address.
func (r *report) isBounce() bool {
	subject := r.subject()
	for _, s := range replySubjects {
		if strings.HasPrefix(subject, s) {
			return false
		}
	}
	if strings.EqualFold(r.header.Get("Precedence"), "auto_reply") {
		return false
	}
	if r.header.Has("X-Failed-Recipients") || containsAny(subject, bounceSubjects) || containsAny(subject, warningSubjects) {
		return true
	}
	return containsAny(strings.ToLower(r.header.Get("From")), bounceSenders) || bytes.Contains(r.text, []byte("qmail-send program"))
}

// bounces reads a bounce in free text: the recipients where known forms name them, and the first code that stands by them.
func (r *report) bounces(base mail.Event) []mail.Event {
	base.Type, base.Name = mail.EventBounced, nameBounce
	if containsAny(r.subject(), warningSubjects) {
		base.Type, base.Name = mail.EventDeferred, nameWarning
	}
	text, below := r.text, []byte(nil)
	if at := returned.FindIndex(text); at != nil {
		text, below = text[:at[0]], text[at[1]:]
	}
	var events []mail.Event
	for _, p := range paragraphs(string(text)) {
		e := base
		e.Recipient, e.Bounce = p.recipient, wordsOf(base.Type, p.text)
		events = append(events, e)
	}
	if len(events) > 0 {
		return events
	}
	for _, recipient := range r.named(string(text), below) {
		e := base
		e.Recipient, e.Bounce = recipient, wordsOf(base.Type, string(text))
		events = append(events, e)
	}
	return events
}

// paragraph is what a bounce says of one recipient.
type paragraph struct{ recipient, text string }

// paragraphs finds the recipients that have a line of their own.
func paragraphs(text string) []paragraph {
	var all []paragraph
	at := recipientLine.FindAllStringSubmatchIndex(text, maxReported)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		words := strings.TrimSpace(text[m[1]:end])
		if blank := emptyLine.FindStringIndex(words); blank != nil {
			words = words[:blank[0]]
		}
		if recipient := canonical(text[m[2]:m[3]]); recipient != "" {
			all = append(all, paragraph{recipient, words})
		}
	}
	return all
}

// named finds recipients elsewhere: in Exim's field, in the command that was refused, in To of the returned message if it
// had one recipient. One "" stands for not found.
func (r *report) named(text string, below []byte) []string {
	var found []string
	for addr := range strings.SplitSeq(r.header.Get("X-Failed-Recipients"), ",") {
		if a := canonical(strings.Trim(addr, " <>")); a != "" && len(found) < maxReported {
			found = append(found, a)
		}
	}
	if m := rcptCommand.FindStringSubmatch(text); len(found) == 0 && m != nil {
		found = []string{canonical(m[1])}
	}
	if len(found) > 0 {
		return found
	}
	if to := originalTo(cmp.Or(string(r.original), string(below))); len(to) == 1 {
		return to
	}
	return []string{""}
}

// originalTo lists the recipients in the header of a returned message.
func originalTo(original string) []string {
	var all []string
	for _, g := range groups([]byte(original)) {
		if g.Get("To") == "" {
			continue // words above the header
		}
		list, err := netmail.ParseAddressList(g.Get("To"))
		for _, a := range list {
			if addr := canonical(a.Address); addr != "" && err == nil && len(all) < maxReported {
				all = append(all, addr)
			}
		}
		return all
	}
	return all
}

// wordsOf classifies by the first line with a code, else by all words.
func wordsOf(t mail.EventType, text string) *mail.Bounce {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if code, enhanced := smtpcode.Find(line); code != "" || enhanced != "" {
			return bounceOf(t, code, enhanced, line)
		}
	}
	return bounceOf(t, "", "", provider.Cut(strings.Join(strings.Fields(text), " ")))
}
