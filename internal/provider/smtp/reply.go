package smtp

import (
	"errors"
	"fmt"
	"net/textproto"
	"path"
	"regexp"
	"strconv"
	"strings"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/provider"
)

// stage is where in the dialogue a reply came: the same code means another thing at another stage.
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

// rule maps replies to a class. A zero field matches everything; enhanced is a pattern of path.Match over the enhanced
// status code; words match anywhere in the lower-case text, any one of them.
type rule struct {
	at       stage
	from, to int
	enhanced string
	words    []string

	class     provider.Class
	scope     provider.Scope
	elsewhere bool
}

// Words that decide where servers disagree about codes.
var (
	saysUnknown = []string{"user unknown", "no such user", "does not exist", "unknown recipient", "unknown user", "unknown in"}
	saysFull    = []string{"mailbox full", "mailbox is full", "over quota", "quota exceeded", "exceeded storage"}
	saysSize    = []string{"message size", "message too big", "message too large", "size limit", "too large"}
	saysRelay   = []string{"relay access denied", "relaying denied", "unable to relay", "not permitted to relay", "relay not permitted"}
	saysClient  = []string{"client host", "helo command rejected", "client was not authenticated", "blocked using"}
	saysSender  = []string{"sender address rejected", "sender verify failed", "sender rejected"}
	saysTooMuch = []string{"too much mail", "too many recipients from", "too many new recipients"} // Postfix, smtpd_client_*_rate_limit
)

// rules are tried in order, the first match decides. Sources: RFC 5321 section 4.2, RFC 3463 section 3, RFC 7504, the
// IANA registry of enhanced status codes, and Postfix's smtpd(8), which reports what it holds against the client and the
// sender at RCPT TO (smtpd_delay_reject). Two places are milder than the bare code asks for: a 500..504 to one recipient
// or to one body must not park an account for all others.
var rules = []rule{
	{from: 421, to: 421, enhanced: "4.7.*", class: provider.Throttled},
	{from: 421, to: 421, class: provider.Transient},
	{at: atAuth, from: 454, to: 454, class: provider.Transient}, // RFC 4954 section 6
	{at: atConnect | atAuth | atMail, from: 400, to: 499, enhanced: "4.7.*", class: provider.Throttled},
	{at: atRcpt, from: 400, to: 499, words: saysTooMuch, class: provider.Throttled},
	{from: 400, to: 499, class: provider.Transient},

	{at: atConnect | atAuth, from: 500, to: 599, class: provider.Misconfigured},
	{from: 530, to: 530, class: provider.Misconfigured},
	{from: 534, to: 535, class: provider.Misconfigured},
	{from: 538, to: 538, class: provider.Misconfigured},
	{enhanced: "5.6.7", class: provider.Rejected, elsewhere: true}, // RFC 6531: not without SMTPUTF8

	{at: atMail | atRcpt, words: saysClient, class: provider.Misconfigured},
	{at: atMail, enhanced: "5.2.3", class: provider.Rejected, elsewhere: true},
	{at: atMail, enhanced: "5.3.4", class: provider.Rejected, elsewhere: true},
	{at: atMail, from: 552, to: 552, class: provider.Rejected, elsewhere: true}, // RFC 1870 section 6.1
	{at: atMail, enhanced: "5.1.*", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atMail, from: 500, to: 504, class: provider.Misconfigured},
	{at: atMail, from: 555, to: 555, class: provider.Misconfigured},
	{at: atMail, from: 500, to: 599, class: provider.Misconfigured, scope: provider.ScopeSender},

	{at: atRcpt, words: saysUnknown, class: provider.BadRecipient},
	{at: atRcpt, words: saysRelay, class: provider.Misconfigured},
	{at: atRcpt, words: saysSender, class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atRcpt, enhanced: "5.7.2?", class: provider.Misconfigured, scope: provider.ScopeSender}, // SPF, DKIM, DMARC
	{at: atRcpt, enhanced: "5.7.509", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atRcpt, enhanced: "5.7.515", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atRcpt, enhanced: "5.2.3", class: provider.BadRecipient},
	{at: atRcpt, enhanced: "5.3.4", class: provider.BadRecipient},
	{at: atRcpt, enhanced: "5.2.2", class: provider.Transient}, // full: soft though 5xx
	{at: atRcpt, words: saysFull, class: provider.Transient},
	{at: atRcpt, from: 552, to: 552, class: provider.Transient},
	{at: atRcpt, from: 500, to: 500, class: provider.Misconfigured},
	{at: atRcpt, from: 502, to: 503, class: provider.Misconfigured},
	{at: atRcpt, from: 555, to: 555, class: provider.Misconfigured},
	{at: atRcpt, from: 500, to: 599, class: provider.BadRecipient},

	{at: atData, from: 500, to: 504, class: provider.Misconfigured},
	{at: atData, from: 555, to: 555, class: provider.Misconfigured},

	{at: atDot, enhanced: "5.2.2", class: provider.Transient},
	{at: atDot, words: saysFull, class: provider.Transient},
	{at: atDot, enhanced: "5.2.3", class: provider.Rejected, elsewhere: true},
	{at: atDot, enhanced: "5.3.4", class: provider.Rejected, elsewhere: true},
	{at: atDot, words: saysSize, class: provider.Rejected, elsewhere: true},
	{at: atDot, from: 552, to: 552, class: provider.Rejected, elsewhere: true},
	{at: atDot, enhanced: "5.7.2?", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atDot, enhanced: "5.7.509", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atDot, enhanced: "5.7.515", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atDot, enhanced: "5.1.[78]", class: provider.Misconfigured, scope: provider.ScopeSender},
	{at: atDot, enhanced: "5.1.*", class: provider.BadRecipient},

	{from: 500, to: 599, class: provider.Rejected},
}

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

// replyOf finds the server's reply in an error of go-smtp or net/textproto. It reports false for everything else: lost
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

// judge classifies a reply. A reply that is neither 4xx nor 5xx where one was due breaks the protocol: nothing was
// taken before the final dot, and nothing is known after it.
func judge(at stage, p reply) *provider.Error {
	e := &provider.Error{Class: provider.Transient, Status: p.code, Code: p.enhanced, Detail: p.text}
	if e.Code == "" {
		e.Code = strconv.Itoa(p.code)
	}
	if p.code < 400 {
		if at == atDot {
			e.Class = provider.Uncertain
		}
		return e
	}
	for i := range rules {
		if r := &rules[i]; r.matches(at, p) {
			e.Class, e.Scope, e.Elsewhere = r.class, r.scope, r.elsewhere
			break
		}
	}
	return e
}

// queueIDs are the ways servers name the message in their last reply: Postfix ("Ok: queued as 4XyZ", "Ok: 123 bytes
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
