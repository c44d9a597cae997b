// Package smtpcode reads SMTP replies: the reply code, the enhanced status code and the words after them say why a recipient
// was not reached, and whose fault that is. Several providers pass such replies on in their events, and a relay answers with
// them.
//
// It decides on one Verdict, by a table (table.go). The caller decides what follows from it, and whether the reply was final:
// the same 4.2.2 comes with a message that is delayed and with one that was given up.
//
// The most likely mistake of a newcomer is to trust the codes: servers give 5.7.1 for an unknown user, 5.1.1 for spam and 550
// for everything. So the words are checked first, those about us before those about the mailbox. An address is judged bad for
// good only by words or an enhanced code about the mailbox or its domain. A reply that says nothing is Undetermined.
package smtpcode

import (
	"path"
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
)

// maxText caps how much of a reply's text is read, in bytes. Reports that passed several hops have been seen with 2 kB.
const maxText = 4096

// Party says who or what is at fault.
type Party string

// The parties. The zero value is Unknown.
const (
	Unknown Party = ""
	Mailbox Party = "mailbox" // the address, the mailbox or its domain
	Sender  Party = "sender"  // our address, its domain, or how it is authenticated
	Client  Party = "client"  // the IP address or the host that the mail comes from
	Account Party = "account" // our quota or our credential at a relay
	Message Party = "message" // its content or its structure
	Host    Party = "host"    // the receiving host, the network, the name servers
)

// Verdict is the meaning of a reply.
type Verdict struct {
	Reason mail.Reason
	Class  mail.BounceClass
	Party  Party
	Rule   string // the rule that decided: a short name that stays the same over versions
}

// Rules that callers check for.
const (
	SessionLimit = "reply/session_limit" // too many messages over one connection: another connection may carry more
	MailboxFull  = "reply/mailbox_full"  // by its words
)

// Bounce combines the verdict with the reply that it is about.
func (v Verdict) Bounce(code, enhanced, text string) *mail.Bounce {
	return &mail.Bounce{Class: v.Class, Reason: v.Reason, Rule: v.Rule, Code: code, Enhanced: enhanced, Text: text}
}

// NotHard keeps a verdict from marking the address as bad: the reply was not final.
func (v Verdict) NotHard() Verdict {
	if v.Class == mail.Hard {
		return Verdict{Reason: mail.Undetermined, Class: mail.Soft, Party: v.Party, Rule: v.Rule}
	}
	return v
}

// Weigh decides between a provider's own verdict and the reply that it passes on. If the provider's word is hard, the reply
// wins if it is temporary or is about something else: providers guess, and the receiving host knows.
func Weigh(own, said Verdict, temporary bool) Verdict {
	if own.Class != mail.Hard || said.Class == mail.Hard || said == nothing && !temporary {
		return own
	}
	return said
}

// Own is a provider's verdict that comes from its own word, not from a reply.
func Own(reason mail.Reason, rule string) Verdict {
	return Verdict{Reason: reason, Class: reason.Class(), Rule: rule}
}

// nothing is the verdict on a reply without information.
var nothing = Verdict{Reason: mail.Undetermined, Class: mail.Soft, Rule: "reply/none"}

// Classify returns the verdict on a reply: Undetermined if it says nothing. Any of the three may be "": missing codes are
// searched in the text, and a text without codes is judged by its words. A temporary code (4xx, or 4.x.x with any reply code)
// never leads to the class hard, nor do words that promise a change.
func Classify(code, enhanced, text string) Verdict {
	text = text[:min(len(text), maxText)]
	code, enhanced = strings.TrimSpace(code), strings.TrimSpace(enhanced)
	if inner, ok := quoted(text); ok {
		text, code, enhanced = inner, "", ""
	}
	foundCode, foundEnhanced := Find(text)
	if code == "" {
		code = foundCode
	}
	if enhanced == "" {
		enhanced = foundEnhanced
	}
	s := speechOf(text)
	mayBeHard := !Temporary(code, enhanced) && !passing.match(s.words)
	for i := range rules {
		if r := &rules[i]; (mayBeHard || r.reason.Class() != mail.Hard) && r.matches(code, enhanced, s) {
			return r.verdict()
		}
	}
	return nothing
}

// Temporary reports whether one of the codes is temporary. Then the reply is not final, whatever else it says.
func Temporary(code, enhanced string) bool {
	return strings.HasPrefix(code, "4") || strings.HasPrefix(enhanced, "4")
}

// wrapped are the forms in which a server passes on another server's reply inside general words of its own: IronPort ("5.1.0
// - Unknown address error 550-'5.7.1 ...'"), Exchange ("5.1.351 Remote server returned unknown recipient or mailbox
// unavailable -> 550 ...") and Gmail ("The response was: 550 ...").
var wrapped = []*regexp.Regexp{
	regexp.MustCompile(`(?s)^5\.\d\.\d - [A-Za-z ]+ ([45]\d\d)-'(.+)'`),
	regexp.MustCompile(`(?is)remote server returned [^>]*-> *([45]\d\d)\b(.*)`),
	regexp.MustCompile(`(?is)the (?:error|response)[^:]{0,60} was:\s*([45]\d\d)\b(.*)`),
}

// quoted finds the reply inside such a form.
func quoted(text string) (string, bool) {
	for _, re := range wrapped {
		if m := re.FindStringSubmatch(text); m != nil {
			return m[1] + " " + m[2], true
		}
	}
	return "", false
}

// speech is a reply in lower case without its codes, on one line. An address becomes "@", and a host name that is not a part
// of a link becomes "~": the server did not choose these names, and they may contain words such as "spam" and "blocked" by
// chance.
type speech struct {
	words string // without links
	links string // the links, and list hosts that are named in place of a link
}

var (
	addressForm = regexp.MustCompile(`[^\s<>:;,"'()\[\]]+@[^\s<>:;,"'()\[\]]+`)
	linkForm    = regexp.MustCompile(`(?i)(?:https?:?)?//[^\s<>]+|\bwww\.[^\s<>]+`)
	hostForm    = regexp.MustCompile(`(?:[0-9A-Za-z_-]+\.)+[a-z]{2,24}\b`)
	codesForm   = regexp.MustCompile(`(?:^|[\s>:;('"])(?:[245]\d\d(?:[ -]+|$)#?(?:[245]\.\d{1,3}\.\d{1,3}\b[:-]?)?|#?[245]\.\d{1,3}\.\d{1,3}\b[:-]?)`)
	// said matches the words of a server that passes a reply on. The name of the answered command stays if it is about us,
	// such as MAIL FROM.
	said = regexp.MustCompile(`(?i)\b(?:(?:remote )?host|(?:remote )?server)(?: \S+)?(?: ?[\[(][0-9a-f.:]+[\])])? (?:said|responded|returned|replied|refused to talk to me)\b:?|to (?:the )?sender\b|\(in reply to (?:rcpt|data|end of)[^)]*\)`)
)

// speechOf takes addresses, links, host names and codes out of a reply.
func speechOf(text string) speech {
	text = said.ReplaceAllString(text, " ")
	text = addressForm.ReplaceAllString(text, " @ ")
	links := strings.Join(linkForm.FindAllString(text, -1), " ")
	text = linkForm.ReplaceAllString(text, " ")
	links += " " + strings.Join(hostForm.FindAllString(text, -1), " ")
	text = hostForm.ReplaceAllString(text, " ~ ")
	text = codesForm.ReplaceAllString(text, " ")
	text = strings.NewReplacer("_", " ", "’", "'", "`", "'", "<", "", ">", "", `"`, "").Replace(text)
	return speech{words: strings.ToLower(strings.Join(strings.Fields(text), " ")), links: strings.ToLower(links)}
}

func (r *rule) verdict() Verdict {
	v := Verdict{Reason: r.reason, Class: r.reason.Class(), Party: r.party, Rule: "reply/" + r.name}
	if v.Class == mail.Soft && (r.party == Sender || r.party == Client || r.party == Account) {
		v.Class = mail.PolicyClass // it is about us, so it must not count against the address
	}
	return v
}

func (r *rule) matches(code, enhanced string, s speech) bool {
	if r.codes != nil && !matchesAny(r.codes, code) || r.enhanced != nil && !matchesAny(r.enhanced, enhanced) {
		return false
	}
	if r.words == nil && r.links == nil {
		return true
	}
	return r.words.match(s.words) || r.links.match(s.links)
}

func matchesAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, s); err == nil && ok {
			return true
		}
	}
	return false
}

// The places where codes stand. A bare number counts as a reply code only where one is expected: replies also count messages,
// minutes and bytes. An enhanced code must not be a part of an IP address.
var (
	bothForm     = regexp.MustCompile(`(?:^|[^0-9A-Za-z.])([45][0-57][0-9])[ -]+[#(]?([45]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|\.[^0-9]|\.?$)`)
	codeForm     = regexp.MustCompile(`(?i)(?:^\s*|[:;>(#"'\n]\s*|\b(?:error|said|code|reply|replied|status|returned|with)[:=]?\s+)([45][0-57][0-9])(?:[^0-9A-Za-z.]|\.?$)`)
	enhancedForm = regexp.MustCompile(`(?:^|[^0-9A-Za-z.])([45]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|\.[^0-9]|\.?$)`)
)

// Find reads the reply code and the enhanced status code (RFC 3463) from the text of a reply; "" if there is none. It looks
// only for 4xx and 5xx. A pair that stands together is preferred to codes that stand apart.
func Find(text string) (code, enhanced string) {
	text = text[:min(len(text), maxText)]
	if m := bothForm.FindStringSubmatch(text); m != nil {
		return m[1], m[2]
	}
	if m := codeForm.FindStringSubmatch(text); m != nil {
		code = m[1]
	}
	if m := enhancedForm.FindStringSubmatch(text); m != nil {
		enhanced = m[1]
	}
	return code, enhanced
}
