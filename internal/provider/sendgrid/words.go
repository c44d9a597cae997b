package sendgrid

import (
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// kind is what one word of SendGrid's "event" means.
type kind struct {
	event mail.EventType
	tells []string // members that tell apart two events of one second
	typed bool     // "type" belongs to the name
}

// kinds is the table of SendGrid's events ("Event Webhook Reference", and "Email Logs" for received). What is not
// listed has no word of ours.
func kinds() map[string]kind {
	return map[string]kind{
		"processed":             {event: mail.EventAccepted},
		"deferred":              {event: mail.EventDeferred, tells: []string{"attempt", "response"}},
		"delivered":             {event: mail.EventDelivered},
		"bounce":                {event: mail.EventBounced, tells: []string{"status"}, typed: true},
		"dropped":               {event: mail.EventRejected, tells: []string{"reason"}},
		"open":                  {event: mail.EventOpened, tells: []string{"useragent", "ip", "sg_content_type"}},
		"click":                 {event: mail.EventClicked, tells: []string{"url_offset", "useragent", "ip"}},
		"spamreport":            {event: mail.EventComplained},
		"unsubscribe":           {event: mail.EventUnsubscribed},
		"group_unsubscribe":     {event: mail.EventUnsubscribed, tells: []string{"asm_group_id"}},
		"group_resubscribe":     {tells: []string{"asm_group_id"}},
		"cancel_drop":           {},
		"account_status_change": {typed: true},
		"received":              {}, // the API took the request: our call's answer, once more
	}
}

// classifications is the table of "bounce_classification" ("Event Webhook Reference", bounce classifications).
// Unclassified, an unknown word and none leave it to the reply.
func classifications() map[string]mail.Reason {
	return map[string]mail.Reason{
		"invalid address":              mail.InvalidAddress,
		"mailbox unavailable":          mail.Inactive,
		"technical":                    mail.Technical,
		"technical failure":            mail.Technical,
		"content":                      mail.Content,
		"reputation":                   mail.Reputation,
		"frequency or volume too high": mail.ThrottledThere,
	}
}

// dropReasons is the table of "reason" of a dropped message ("Event Webhook Reference", dropped). What is not listed is
// mail.OtherReason.
func dropReasons() map[string]mail.Reason {
	return map[string]mail.Reason{
		"bounced address":                               mail.SuppressedBounce,
		"unsubscribed address":                          mail.SuppressedUnsubscribe,
		"spam reporting address":                        mail.SuppressedComplaint,
		"invalid":                                       mail.InvalidAddress,
		"spam content":                                  mail.Content,
		"invalid smtpapi header":                        mail.OtherReason,
		"recipient list over package quota":             mail.OtherReason,
		"duplicate message":                             mail.OtherReason,
		"spam content (if spam checker app is enabled)": mail.Content, // as the page spells it
	}
}

// noDomain are words of SendGrid's for a domain that takes no mail, in lower case.
func noDomain() []string {
	return []string{"no mx", "unable to get mx info", "unable to resolve mx", "no such host", "nxdomain"}
}

// classify is the verdict on a bounce: SendGrid's own classification, made finer by the reply where it covers two things
// ("mailbox unavailable" is said of full ones too), and overruled by a reply that knows better.
func classify(classification string, b *mail.Bounce) smtpcode.Verdict {
	said := smtpcode.Classify(b.Code, b.Enhanced, b.Text)
	temporary := smtpcode.Temporary(b.Code, b.Enhanced)
	word := strings.ToLower(strings.TrimSpace(classification))
	reason, ok := classifications()[word]
	own := smtpcode.Own(reason, "sendgrid/"+word)
	switch {
	case !ok:
		return said
	case reason == mail.Inactive && (b.Text != "" || b.Code != "" || b.Enhanced != ""):
		return said
	case reason == mail.Technical && !temporary && (said.Reason == mail.InvalidDomain || says(b.Text, noDomain())):
		return smtpcode.Own(mail.InvalidDomain, own.Rule)
	}
	return smtpcode.Weigh(own, said, temporary)
}

func says(text string, words []string) bool {
	text = strings.ToLower(text)
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
