package ses

import (
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// verdict says what SES's own words mean. Where they are general, the receiving host's reply decides if it says anything.
type verdict struct {
	event  mail.EventType
	reason mail.Reason
	reply  bool // the reply goes first
	hard   bool // the reply may say that the address is bad for good
}

// bounces is the table "Bounce types" of the developer guide's "Contents of event data that Amazon SES publishes to
// Amazon SNS". A line with a type alone is for subtypes that are not documented. Suppressed addresses are accepted by
// SES, never tried and reported as bounces; they are not.
var bounces = map[string]verdict{
	"Undetermined/Undetermined": {mail.EventBounced, mail.Undetermined, true, false},

	"Permanent/General":                   {mail.EventBounced, mail.InvalidAddress, true, true},
	"Permanent/NoEmail":                   {mail.EventBounced, mail.InvalidAddress, false, true},
	"Permanent/Suppressed":                {mail.EventRejected, mail.SuppressedBounce, false, false},
	"Permanent/OnAccountSuppressionList":  {mail.EventRejected, mail.SuppressedBounce, false, false},
	"Permanent/OnTenantSuppressionList":   {mail.EventRejected, mail.SuppressedBounce, false, false},
	"Permanent/EmailValidationSuppressed": {mail.EventRejected, mail.InvalidAddress, false, false},
	"Permanent/UnsubscribedRecipient":     {mail.EventRejected, mail.SuppressedUnsubscribe, false, false},

	"Transient/General":               {mail.EventBounced, mail.Undetermined, true, false}, // out-of-office too
	"Transient/MailboxFull":           {mail.EventBounced, mail.MailboxFull, false, false},
	"Transient/MessageTooLarge":       {mail.EventBounced, mail.MessageTooLarge, false, false},
	"Transient/CustomTimeoutExceeded": {mail.EventBounced, mail.TimedOut, false, false},
	"Transient/ContentRejected":       {mail.EventBounced, mail.Content, false, false},
	"Transient/AttachmentRejected":    {mail.EventBounced, mail.Content, false, false},

	"Permanent": {mail.EventBounced, mail.Undetermined, true, true},
	"Transient": {mail.EventBounced, mail.Undetermined, true, false},
}

// bounceVerdict reads a type and a subtype. Only final bounces are published, so an unknown type is one, too.
func bounceVerdict(kind, sub string) verdict {
	if v, ok := bounces[kind+"/"+sub]; ok {
		return v
	}
	if v, ok := bounces[kind]; ok {
		return v
	}
	return verdict{mail.EventBounced, mail.Undetermined, true, false}
}

// delays is the table of delayType in the same page's "DeliveryDelay object". IPFailure is a provider that "blocks or
// throttles" the sending address, which it does for a while.
var delays = map[string]verdict{
	"InternalFailure":                {reason: mail.Undetermined, reply: true},
	"General":                        {reason: mail.Undetermined, reply: true},
	"Undetermined":                   {reason: mail.Undetermined, reply: true},
	"SendingDeferral":                {reason: mail.ThrottledThere, reply: true}, // SES holds it back
	"MailboxFull":                    {reason: mail.MailboxFull},
	"SpamDetected":                   {reason: mail.Reputation},
	"RecipientServerError":           {reason: mail.Connection},
	"TransientCommunicationFailure":  {reason: mail.Connection},
	"IPFailure":                      {reason: mail.ThrottledThere},
	"BYOIPHostNameLookupUnavailable": {reason: mail.Technical}, // of our own addresses
}

func delayVerdict(kind string) verdict {
	v, ok := delays[kind]
	if !ok {
		v = verdict{reason: mail.Undetermined, reply: true}
	}
	v.event = mail.EventDeferred
	return v
}

// complaintVerdict tells a complaint from what only comes in its form: an address that the account's suppression list
// has from an earlier one, and a recipient who found our mail among the spam and says that it is none (RFC 6430).
func complaintVerdict(sub, feedback string) verdict {
	switch {
	case sub == "OnAccountSuppressionList", sub == "OnTenantSuppressionList":
		return verdict{event: mail.EventRejected, reason: mail.SuppressedComplaint}
	case strings.EqualFold(feedback, "not-spam"):
		return verdict{event: mail.EventUnmapped}
	default:
		return verdict{event: mail.EventComplained}
	}
}

// generic is an enhanced status code that names no more than a class (RFC 3463).
var generic = regexp.MustCompile(`^[245]\.0\.0$`)

// bounce words a verdict for one recipient, by SES's word for it. What was never tried has no class. A general word does
// not condemn the address where there is a reply that does not.
func (v verdict) bounce(word string, p party) *mail.Bounce {
	text := strings.TrimSpace(p.DiagnosticCode)
	if kind, words, ok := strings.Cut(text, ";"); ok && strings.EqualFold(strings.TrimSpace(kind), "smtp") {
		text = strings.TrimSpace(words) // RFC 3464 section 2.3.6
	}
	code, enhanced := smtpcode.Find(text)
	if _, status := smtpcode.Find(p.Status); status != "" && (enhanced == "" || !generic.MatchString(status)) {
		enhanced = status
	}
	own := smtpcode.Own(v.reason, provider.Cut("ses/"+word))
	said := smtpcode.Classify(code, enhanced, text)
	if !v.hard {
		said = said.NotHard()
	}
	switch {
	case v.event == mail.EventRejected: // never tried
		own.Class = ""
	case !v.reply:
		own = smtpcode.Weigh(own, said, smtpcode.Temporary(code, enhanced))
	case said.Reason != mail.Undetermined, own.Class == mail.Hard && (text != "" || enhanced != "" && !generic.MatchString(enhanced)):
		own = said
	}
	return own.Bounce(code, enhanced, provider.Cut(text))
}
