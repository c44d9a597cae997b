package smtp

import (
	"errors"
	"fmt"
	"net/textproto"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// stage is the point of the dialogue at which a reply came: the same code has different meanings at different stages.
type stage uint

const (
	atConnect stage = 1 << iota // greeting, EHLO, STARTTLS
	atAuth
	atMail
	atRcpt
	atData
	atDot // after the final dot
)

func (s stage) String() string {
	return map[stage]string{
		atConnect: "connect", atAuth: "AUTH", atMail: "MAIL FROM", atRcpt: "RCPT TO", atData: "DATA", atDot: "end of data",
	}[s]
}

// rule maps replies to a class. A zero field matches everything; enhanced is a pattern of path.Match for the enhanced status
// code. words match if any one of them is in the lower-case text.
type rule struct {
	at       stage
	from, to int
	enhanced string
	words    []string

	class     provider.Class
	scope     provider.Scope
	elsewhere bool
}

// saysSize are words that decide about a size limit, because servers disagree about codes.
var saysSize = []string{"message size", "message too big", "message too large", "size limit", "too large"}

// rules decide by stage and code what byWords left open. They are tried in order; the first match decides. Sources: RFC 5321
// section 4.2, RFC 3463 section 3, RFC 7504, the IANA registry of enhanced status codes, and Postfix's smtpd(8), which reports
// its objections to the client and the sender at RCPT TO (smtpd_delay_reject). Two places are milder than the bare code suggests:
// a 500..504 to one recipient or to one body must not park an account for all others.
var rules = []rule{
	{from: 421, to: 421, enhanced: "4.7.*", class: provider.Throttled},
	{from: 421, to: 421, class: provider.Transient},
	{at: atAuth, from: 454, to: 454, class: provider.Transient}, // RFC 4954 section 6
	{at: atConnect | atAuth | atMail, from: 400, to: 499, enhanced: "4.7.*", class: provider.Throttled},
	{from: 400, to: 499, class: provider.Transient},

	{at: atConnect | atAuth, from: 500, to: 599, class: provider.Misconfigured},
	{from: 530, to: 530, class: provider.Misconfigured},
	{from: 534, to: 535, class: provider.Misconfigured},
	{from: 538, to: 538, class: provider.Misconfigured},
	{enhanced: "5.6.7", class: provider.Rejected, elsewhere: true}, // RFC 6531: the address needs SMTPUTF8

	{at: atMail, enhanced: "5.2.2", class: provider.Misconfigured, scope: provider.ScopeAddress}, // the sender's own mailbox
	{at: atMail, enhanced: "5.2.3", class: provider.Rejected, elsewhere: true},
	{at: atMail, enhanced: "5.3.4", class: provider.Rejected, elsewhere: true},
	{at: atMail, from: 552, to: 552, class: provider.Rejected, elsewhere: true}, // RFC 1870 section 6.1
	{at: atMail, enhanced: "5.1.*", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atMail, from: 500, to: 504, class: provider.Misconfigured},
	{at: atMail, from: 555, to: 555, class: provider.Misconfigured},
	{at: atMail, from: 500, to: 599, class: provider.Misconfigured, scope: provider.ScopeSender},

	{at: atRcpt, enhanced: "5.2.3", class: provider.BadRecipient},
	{at: atRcpt, enhanced: "5.3.4", class: provider.BadRecipient},
	{at: atRcpt, enhanced: "5.2.2", class: provider.Transient}, // full: temporary although 5xx
	{at: atRcpt, from: 552, to: 552, class: provider.Transient},
	{at: atRcpt, from: 500, to: 500, class: provider.Misconfigured},
	{at: atRcpt, from: 502, to: 503, class: provider.Misconfigured},
	{at: atRcpt, from: 555, to: 555, class: provider.Misconfigured},
	{at: atRcpt, from: 500, to: 599, class: provider.BadRecipient},

	{at: atData, from: 500, to: 504, class: provider.Misconfigured},
	{at: atData, from: 555, to: 555, class: provider.Misconfigured},

	{at: atDot, enhanced: "5.2.2", class: provider.Transient},
	{at: atDot, enhanced: "5.2.3", class: provider.Rejected, elsewhere: true},
	{at: atDot, enhanced: "5.3.4", class: provider.Rejected, elsewhere: true},
	{at: atDot, words: saysSize, class: provider.Rejected, elsewhere: true},
	{at: atDot, from: 552, to: 552, class: provider.Rejected, elsewhere: true},
	{at: atDot, enhanced: "5.1.*", class: provider.BadRecipient},

	{from: 500, to: 599, class: provider.Rejected},
}

// matches reports whether the rule applies to a reply at a stage.
func (r *rule) matches(at stage, p reply) bool {
	if r.at != 0 && r.at&at == 0 || r.from != 0 && (p.code < r.from || p.code > r.to) {
		return false
	}
	if r.enhanced != "" {
		if ok, err := path.Match(r.enhanced, p.enhanced); err != nil || !ok {
			return false
		}
	}
	return r.words == nil || containsAny(strings.ToLower(p.text), r.words)
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// reply is one answer of the server.
type reply struct {
	code     int
	enhanced string // "" when the server gave none
	text     string // without codes
}

// replyOf finds the server's reply in an error of go-smtp or net/textproto. It returns false for all other errors: lost
// connections, timeouts, lines that are not SMTP.
func replyOf(err error) (reply, bool) {
	if se, ok := errors.AsType[*gosmtp.SMTPError](err); ok {
		p := reply{code: se.Code, text: se.Message}
		if se.EnhancedCode != (gosmtp.EnhancedCode{}) {
			p.enhanced = fmt.Sprintf("%d.%d.%d", se.EnhancedCode[0], se.EnhancedCode[1], se.EnhancedCode[2])
		}
		return p, true
	}
	if te, ok := errors.AsType[*textproto.Error](err); ok {
		p := reply{code: te.Code, text: te.Msg}
		if first, rest, _ := strings.Cut(te.Msg, " "); enhancedForm.MatchString(first) {
			p.enhanced, p.text = first, rest
		}
		return p, true
	}
	return reply{}, false
}

var enhancedForm = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`) // RFC 3463 section 2

// judge classifies a reply and returns the rule that matched its words. A reply that is neither 4xx nor 5xx at this point breaks
// the protocol: before the final dot nothing was taken, and after it the outcome is unknown.
func judge(at stage, p reply) (e *provider.Error, rule string) {
	e = &provider.Error{Class: provider.Transient, Status: p.code, Code: p.enhanced, Detail: p.text}
	if e.Code == "" {
		e.Code = strconv.Itoa(p.code)
	}
	if p.code < 200 || p.code > 599 { // RFC 5321 section 4.2.1; whatever says so is no relay, and is not quoted
		e.Detail = "the answer is not an SMTP reply"
	}
	if p.code < 400 || p.code > 599 {
		if at == atDot {
			e.Class = provider.Uncertain
		}
		return e, ""
	}
	v := smtpcode.Classify(strconv.Itoa(p.code), p.enhanced, p.text)
	if byWords(e, v, at, p) {
		return e, v.Rule
	}
	for i := range rules {
		if r := &rules[i]; r.matches(at, p) {
			e.Class, e.Scope, e.Elsewhere = r.class, r.scope, r.elsewhere
			break
		}
	}
	return e, v.Rule
}

// byWords handles replies that say that the message is not at fault: they are about our limit, our credential, our sender, or the
// host that we send from. Such a reply must not count against a recipient, whatever the stage. byWords also handles unknown
// recipients, and leaves the rest to the rules.
func byWords(e *provider.Error, v smtpcode.Verdict, at stage, p reply) bool {
	atBody := at == atData || at == atDot
	switch {
	case v.Reason == mail.ThrottledThere && v.Class == mail.PolicyClass:
		e.Class, e.RetryAfter = provider.Throttled, pause(p)
	case v.Rule == smtpcode.SessionLimit, (at == atRcpt || at == atDot) && passes(v):
		e.Class = provider.Transient
	case p.code < 500 || at == atConnect || at == atAuth:
		return false
	case v.Party == smtpcode.Account, v.Party == smtpcode.Client && !atBody:
		e.Class = provider.Misconfigured
	case v.Rule == smtpcode.MailboxFull && at == atMail: // the sender's own mailbox
		e.Class, e.Scope = provider.Misconfigured, provider.ScopeAddress
	case v.Party == smtpcode.Sender && (!atBody || v.Reason == mail.AuthFailure):
		e.Class, e.Scope = provider.Misconfigured, senderScope(p)
	case v.Party == smtpcode.Sender, v.Party == smtpcode.Client: // after the body it may be about the message's content
		e.Class, e.Elsewhere = provider.Rejected, true
	case at == atRcpt && v.Class == mail.Hard:
		e.Class = provider.BadRecipient
	default:
		return false
	}
	return true
}

// saysAddress are words of a refusal that is about one sender address: the login may not send as it, or the provider verifies
// addresses one by one.
var saysAddress = []string{
	"send as", "sendas", "not owned by", "disallowed as", "must equal authorized user", "to send messages from",
	"address is not verified", "address not verified", "sender identity", "sender signature",
}

// senderScope reports whether a refusal of the sender is about one address only, so that others of its domain may still be taken.
func senderScope(p reply) provider.Scope {
	if p.enhanced == "5.7.60" || p.enhanced == "5.2.252" || containsAny(strings.ToLower(p.text), saysAddress) { // of Exchange
		return provider.ScopeAddress
	}
	return provider.ScopeSender
}

// passes reports conditions that may end later although they come with a 5xx: a full mailbox, a mailbox that gets too much at
// once, too many recipients for one transaction.
func passes(v smtpcode.Verdict) bool {
	return v.Reason == mail.ThrottledThere || v.Rule == smtpcode.MailboxFull
}

// The waits after a limit was hit. A reply may name a period, but nobody knows when that period began. So the account is tried
// again before its end.
const (
	dayPause   = time.Hour
	hourPause  = 10 * time.Minute
	finalPause = 5 * time.Minute // after a 5xx that names no period: the server does not expect us back soon
)

var (
	perSecond = regexp.MustCompile(`(?i)(per|a|each) second|sending rate`)
	perDay    = regexp.MustCompile(`(?i)\bdaily|\bdays?\b|24[- ]?h|month|week|credit|plan\b`)
	perHour   = regexp.MustCompile(`(?i)hour`)
	perMinute = regexp.MustCompile(`(?i)minute`)
	comeBack  = regexp.MustCompile(`(?i)\b(?:in|after|wait)(?: another)? (\d{1,5}) ?(s|sec|second|m|min|minute|h|hour)s?\b`)
)

// pause is how long to pause the account. 0 leaves it to the engine, which begins with a second.
func pause(p reply) time.Duration {
	if m := comeBack.FindStringSubmatch(p.text); m != nil {
		n, _ := strconv.Atoi(m[1]) // five digits at most
		unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour}[m[2][0]|0x20]
		return min(time.Duration(n)*unit, dayPause)
	}
	switch {
	case perSecond.MatchString(p.text):
		return 0
	case perDay.MatchString(p.text), p.enhanced == "5.4.5", p.enhanced == "5.1.90":
		return dayPause
	case perHour.MatchString(p.text):
		return hourPause
	case perMinute.MatchString(p.text):
		return time.Minute
	case p.code >= 500:
		return finalPause
	}
	return 0
}

// queueIDs are the ways in which servers name the message in their last reply: Postfix ("Ok: queued as 4XyZ", "Ok: 123 bytes
// queued as 4XyZ"), Exim ("OK id=1abc-0000Xy-2Z"), sendmail ("4XyZ Message accepted for delivery").
var queueIDs = []*regexp.Regexp{
	regexp.MustCompile(`(?i)queued as <?([0-9A-Za-z][0-9A-Za-z._-]{0,127})`),
	regexp.MustCompile(`(?i)\bid=([0-9A-Za-z][0-9A-Za-z._-]{0,127})`),
	regexp.MustCompile(`(?i)([0-9A-Za-z]{6,127}) message accepted`),
}

// queueID reads the server's own id of the message, or "".
func queueID(text string) string {
	for _, re := range queueIDs {
		if m := re.FindStringSubmatch(text); m != nil {
			return strings.TrimRight(m[1], "._-")
		}
	}
	return ""
}
