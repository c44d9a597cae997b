package mailgun

import (
	"cmp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// cause maps failures: those with the code, Mailgun's reason and the lower-case text, each if given.
type cause struct {
	code, reason, text string

	is      mail.Reason
	byReply bool // the receiving host's reply decides; is holds when that says nothing, and if hard only when there is none
}

// causes are tried in order, the first match decides. Codes from 498 are Mailgun's own and none of SMTP ("Tracking
// Failures"); the reasons are those of mailgun-go's events.Failed. A row that condemns the address is passed over where
// the failure is temporary. Mailgun says "bounce" of every 5xx.
var causes = []cause{
	{code: "605", is: mail.SuppressedBounce},
	{code: "606", is: mail.SuppressedUnsubscribe},
	{code: "607", is: mail.SuppressedComplaint},
	{reason: "suppress-bounce", is: mail.SuppressedBounce},
	{reason: "suppress-unsubscribe", is: mail.SuppressedUnsubscribe},
	{reason: "suppress-complaint", is: mail.SuppressedComplaint},
	{code: "498", text: "no mx", is: mail.InvalidDomain},
	{code: "498", is: mail.Connection},
	{code: "499", is: mail.TimedOut},
	{reason: "old", is: mail.TimedOut}, // retried for 8 hours in vain
	{reason: "espblock", is: mail.BlockedPolicy},
	{reason: "blacklisted", is: mail.Reputation},
	{reason: "greylisted", is: mail.ThrottledThere},
	{reason: "bounce", is: mail.InvalidAddress, byReply: true},
	{reason: "hardfail", is: mail.InvalidAddress, byReply: true},
	{is: mail.Undetermined, byReply: true}, // generic, and what is new
}

// failure is what an event says of why.
type failure struct {
	code, enhanced, reason, text string
	temporary                    bool
}

// bounce says why, for the types that tell why. Its Class is "" when Mailgun did not try.
func (d *eventData) bounce(t mail.EventType) *mail.Bounce {
	if t == mail.EventRejected {
		text := cmp.Or(d.Reject.Description, d.Reject.Reason)
		return &mail.Bounce{Reason: mail.OtherReason, Rule: "mailgun/rejected", Text: provider.Cut(string(text))}
	}
	if t != mail.EventBounced && t != mail.EventDeferred {
		return nil
	}
	return failure{
		code: string(d.Status.Code), enhanced: string(d.Status.Enhanced), reason: string(d.Reason),
		text: string(cmp.Or(d.Status.Message, d.Status.Description)), temporary: t == mail.EventDeferred,
	}.bounce()
}

func (f failure) bounce() *mail.Bounce {
	if f.code == "0" {
		f.code = ""
	}
	if f.enhanced == "" {
		_, f.enhanced = smtpcode.Find(f.text)
	}
	return f.because().Bounce(provider.Cut(f.code), provider.Cut(f.enhanced), provider.Cut(f.text))
}

func (f failure) because() smtpcode.Verdict {
	for _, c := range causes {
		if !f.matches(c) {
			continue
		}
		own := smtpcode.Own(c.is, "mailgun/"+cmp.Or(c.code, c.reason, "generic"))
		if !c.byReply {
			return own
		}
		said := f.byReply()
		if said.Reason == mail.Undetermined && (own.Class != mail.Hard || f.code == "" && f.text == "") {
			return own
		}
		return said
	}
	return smtpcode.Own(mail.Undetermined, "mailgun/generic")
}

func (f failure) matches(c cause) bool {
	if c.is.Class() == mail.Hard && f.temporary {
		return false
	}
	return (c.code == "" || c.code == f.code) && (c.reason == "" || c.reason == f.reason) &&
		(c.text == "" || strings.Contains(strings.ToLower(f.text), c.text))
}

// byReply never condemns the address for a failure that Mailgun itself calls temporary.
func (f failure) byReply() smtpcode.Verdict {
	code := f.code
	if len(code) != 3 || code[0] != '4' && code[0] != '5' {
		code = "" // of Mailgun's own
	}
	said := smtpcode.Classify(code, f.enhanced, f.text)
	if f.temporary {
		said = said.NotHard()
	}
	return said
}
