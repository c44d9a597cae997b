package postmark

import (
	"strings"

	"github.com/sendgate/sendgate/internal/provider"
)

// inactive is the ErrorCode of recipients on a suppression list.
const inactive = 406

// code is one documented answer: an ErrorCode, and words of its Message where the code alone does not tell.
type code struct {
	number int
	text   string // lower case, "" for any
	class  provider.Class
	scope  provider.Scope
	rule   bool // a cap or rule of Postmark's own: another provider may take the message
	names  bool // the Message names recipients, and they are what is wrong
	doubt  bool // a single message may be all that is wrong: scope is to blame when others meet the same
	why    string
}

// codes is the table of Postmark's ErrorCodes ("API overview", API error codes), first match wins. The numbers are not
// HTTP statuses, though some look like it. What is not listed is decided by the status. 400, 401, 405 and 409 are no
// longer documented and still met.
func codes() []code {
	const (
		transient, uncertain, rejected = provider.Transient, provider.Uncertain, provider.Rejected
		misconfigured                  = provider.Misconfigured
	)
	return []code{
		{number: 10, class: misconfigured, why: "bad or missing token, or one of another type"},
		{number: 11, class: rejected, rule: true, why: "multiple errors"},
		{number: 13, class: rejected, rule: true, why: "paging out of range"},
		{number: 14, class: misconfigured, why: "not approved for bulk"},
		{number: 100, class: transient, why: "maintenance"},
		{number: 101, class: uncertain, why: "unexpected error"},
		{number: 300, text: "'from'", class: rejected, rule: true, doubt: true, scope: provider.ScopeAddress, why: "From: its display name, or its address"},
		{number: 300, text: "'to'", class: rejected, rule: true, names: true, why: "To"},
		{number: 300, text: "'cc'", class: rejected, rule: true, names: true, why: "Cc"},
		{number: 300, text: "'bcc'", class: rejected, rule: true, names: true, why: "Bcc"},
		{number: 300, text: "recipients", class: rejected, rule: true, why: "none, or over 50"},
		{number: 300, text: "metadata", class: rejected, rule: true, why: "over a metadata limit"},
		{number: 300, text: "header", class: rejected, rule: true, why: "over a header limit"},
		{number: 300, text: "attachment", class: rejected, rule: true, why: "type or id of an attachment"},
		{number: 300, text: "exceed", class: rejected, rule: true, why: "over a size limit"},
		{number: 300, text: "too large", class: rejected, rule: true, why: "over a size limit"},
		{number: 300, text: "too long", class: rejected, rule: true, why: "over a size limit"},
		{number: 300, text: "maximum", class: rejected, rule: true, why: "over a size limit"},
		{number: 300, class: rejected, why: "invalid email request"},
		{number: 400, class: misconfigured, scope: provider.ScopeAddress, why: "sender signature not found"},
		{number: 401, class: misconfigured, scope: provider.ScopeAddress, why: "sender signature not confirmed"},
		{number: 402, class: rejected, rule: true, why: "invalid JSON"},
		{number: 403, class: misconfigured, doubt: true, why: "unknown field, or a value of the wrong type"},
		{number: 405, class: misconfigured, why: "out of credits"},
		{number: inactive, class: provider.BadRecipient, names: true, why: "inactive recipients"},
		{number: 409, class: misconfigured, why: "JSON required"},
		{number: 410, class: rejected, rule: true, why: "too many in a batch"},
		{number: 411, class: rejected, rule: true, why: "forbidden attachment type"},
		{number: 412, class: rejected, rule: true, doubt: true, why: "account pending: it may mail to the sender's domain only"},
		{number: 413, class: misconfigured, why: "account may not send"},
		{number: 422, class: misconfigured, why: "invalid server or account"},
		{number: 1101, class: misconfigured, why: "template not found"},
		{number: 1109, class: misconfigured, why: "template values missing"},
		{number: 1120, class: misconfigured, why: "template"},
		{number: 1121, class: misconfigured, why: "template"},
		{number: 1122, class: misconfigured, why: "template"},
		{number: 1123, class: misconfigured, why: "template"},
		{number: 1235, class: misconfigured, doubt: true, why: "no such message stream: the message's stream may be mapped to a wrong one"},
		{number: 1236, class: misconfigured, doubt: true, why: "message stream of the wrong type"},
		{number: 1364, class: misconfigured, why: "the webhook's URL did not answer 200"},
		{number: 1480, class: misconfigured, why: "our address is not in the IP allowlist"},
	}
}

func lookUp(number int, message string) (code, bool) {
	message = strings.ToLower(message)
	for _, c := range codes() {
		if c.number == number && strings.Contains(message, c.text) {
			return c, true
		}
	}
	return code{}, false
}
