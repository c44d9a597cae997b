package postmark

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// throttlePause is our wait after a 429: Postmark documents neither a rate nor a Retry-After header.
const throttlePause = time.Second

// firewallPause is our wait after the firewall in front of the API refused a call.
const firewallPause = time.Minute

// answer is Postmark's response to one call.
type answer esphttp.Answer

// each splits the answer to a batch of n messages into an answer for each. The results have no status of their own, so they get
// that of a single call. whole says that there is one answer for all: the batch was refused as a whole, or it is a 200 without a
// result for each message, which proves nothing about any.
func (a answer) each(n int) (answers []answer, whole bool) {
	var results []json.RawMessage
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &results) != nil || len(results) != n {
		if a.Status == http.StatusOK { // one result must not stand for all
			a.Body = nil
		}
		return slices.Repeat([]answer{a}, n), true
	}
	a.Header = a.Header.Clone()
	a.Header.Del("X-PM-ApiErrorCode") // it is of one element at most
	answers = make([]answer, n)
	for i, result := range results {
		answers[i] = a
		answers[i].Body = result
		if got := answers[i].parse(); got.ErrorCode != nil && *got.ErrorCode != 0 {
			answers[i].Status = http.StatusUnprocessableEntity
		}
	}
	return answers, false
}

// said is the JSON of a response. Some acceptances lack ErrorCode while Postmark has an incident.
type said struct {
	ErrorCode *int
	Message   string
	MessageID string
}

// parse reads the body. If the body has no ErrorCode, it takes the one in the header.
func (a answer) parse() said {
	var s said
	if err := json.Unmarshal(a.Body, &s); err != nil {
		s = said{}
	}
	if s.ErrorCode == nil { // an acceptance must be in the body, so a 0 in the header does not count
		if n, err := strconv.Atoi(strings.TrimSpace(a.Header.Get("X-PM-ApiErrorCode"))); err == nil && n != 0 {
			s.ErrorCode = &n
		}
	}
	return s
}

// verdict turns the answer into a receipt or an error, whose texts are not scrubbed yet.
func (a answer) verdict(s *provider.Send, now time.Time) (provider.Receipt, *provider.Error) {
	got := a.parse()
	if a.accepts(got) {
		return provider.Receipt{
			ProviderMessageID: provider.Cut(got.MessageID), Detail: got.Message,
			Refused: suppressed(got.Message, s),
		}, nil
	}
	perr := &provider.Error{
		Class: a.byStatus(got), Status: a.Status, Detail: got.Message, Err: a.Cut,
		Elsewhere: a.Status == http.StatusRequestEntityTooLarge,
	}
	if got.ErrorCode == nil { // without a code it may be other JSON, which may have a message too
		perr.Detail = esphttp.NotTheirs
	}
	if got.ErrorCode != nil && *got.ErrorCode != 0 {
		perr.Code = strconv.Itoa(*got.ErrorCode)
		if c, ok := lookUp(*got.ErrorCode, got.Message); ok {
			c.apply(perr, got, s)
		}
	}
	a.pause(perr, now)
	return provider.Receipt{}, perr
}

// accepts reports an acceptance: 200 with a MessageID and ErrorCode 0, or no ErrorCode while Postmark has an incident. A 200
// that is cut short, or is not Postmark's JSON, is not an acceptance.
func (a answer) accepts(got said) bool {
	return a.Status == http.StatusOK && got.MessageID != "" && (got.ErrorCode == nil || *got.ErrorCode == 0)
}

// byStatus is the class if no ErrorCode decides. A 403 without one comes from the firewall in front of the API (support: "403
// Forbidden"), which refuses single calls. A 403 with a code is about us.
func (a answer) byStatus(got said) provider.Class {
	class := esphttp.ByStatus(a.Status)
	switch {
	case class == provider.Accepted:
		return provider.Uncertain // a success, but not in Postmark's form
	case a.Status == http.StatusForbidden && got.ErrorCode == nil:
		return provider.Transient
	}
	return class
}

// pause sets how long to wait, by the answer's Retry-After or by our own default for the status.
func (a answer) pause(perr *provider.Error, now time.Time) {
	if perr.Class != provider.Throttled && perr.Class != provider.Transient {
		return
	}
	perr.RetryAfter = esphttp.RetryAfter(a.Header, now)
	if perr.RetryAfter > 0 {
		return
	}
	switch a.Status {
	case http.StatusTooManyRequests:
		perr.RetryAfter = throttlePause
	case http.StatusForbidden:
		perr.RetryAfter = firewallPause
	}
}

// apply copies the table's entry into the error, and names recipients.
func (c code) apply(perr *provider.Error, got said, s *provider.Send) {
	perr.Class, perr.Scope, perr.Elsewhere, perr.Suspect = c.class, c.scope, c.rule, c.doubt
	if perr.Detail == "" {
		perr.Detail = c.why
	}
	switch {
	case c.number == inactive:
		allInactive(perr, got, s)
	case c.names:
		if bad := named(got.Message, s); len(bad) > 0 {
			perr.Class, perr.Elsewhere = provider.BadRecipient, false
			perr.Refused = refusals(bad, c.number, got.Message)
		}
	}
}

// allInactive reads a 406. It is documented for messages whose recipients are all inactive. But a 406 that names only some has
// been reported, although the others were mailed (a suppressed Bcc). It decides nothing about the others, and another send could
// mail them twice. A 406 that names no known recipient is about all.
func allInactive(perr *provider.Error, got said, s *provider.Send) {
	found, all := named(got.Message, s), s.Envelope()
	if len(found) > 0 && len(found) < len(all) {
		perr.Class = provider.Uncertain
		return
	}
	emails := make([]string, 0, len(all))
	for _, a := range all {
		emails = append(emails, a.Email)
	}
	perr.Refused = refusals(emails, inactive, got.Message)
}

// suppressed are the recipients that an acceptance leaves out: "Message OK, but will not deliver to these inactive
// addresses: a@x.test, b@x.test. Inactive recipients are ones that ...". Only such a text names any.
func suppressed(message string, s *provider.Send) []provider.Refusal {
	if !strings.Contains(strings.ToLower(message), inactiveLabel) {
		return nil
	}
	return refusals(named(message, s), inactive, message)
}

func refusals(emails []string, number int, message string) []provider.Refusal {
	out := make([]provider.Refusal, 0, len(emails))
	for _, email := range emails {
		out = append(out, provider.Refusal{
			Email: email, Class: provider.BadRecipient, Code: strconv.Itoa(number), Detail: message,
			Suppressed: number == inactive,
		})
	}
	return out
}

// inactive is the ErrorCode of recipients on a suppression list.
const inactive = 406

// code is one documented answer: an ErrorCode, and words of its Message if the code alone does not decide.
type code struct {
	number int
	text   string // lower case, "" for any
	class  provider.Class
	scope  provider.Scope
	rule   bool // a cap or rule of Postmark's own: another provider may take the message
	names  bool // the Message names recipients, and they are at fault
	doubt  bool // perhaps only this message is wrong; scope is at fault if others get the same
	why    string
}

// codes is the table of Postmark's ErrorCodes ("API overview", API error codes); the first match wins. The numbers are not
// HTTP statuses, although some look like them. For a code that is not listed, the status decides. 400, 401, 405 and 409 are no
// longer documented but still occur.
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

// inactiveLabel stands before the list of suppressed addresses in Postmark's texts, in lower case.
const inactiveLabel = "inactive addresses:"

// named returns the recipients of the attempt that a text of Postmark's names, in the order of the envelope. Postmark prints
// them in lower case. If the text has a list of inactive addresses, only that list counts.
func named(text string, s *provider.Send) []string {
	text = inactiveList(strings.ToLower(text))
	all := s.Envelope()
	emails := make([]string, 0, len(all))
	for _, a := range all {
		emails = append(emails, a.Email)
	}
	// The longest first, and each one is removed: brien@x.test is a part of o'brien@x.test.
	byLength := slices.SortedFunc(slices.Values(emails), func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	found := map[string]bool{}
	for _, email := range byLength {
		text, found[email] = takeOut(text, strings.ToLower(email))
	}
	return slices.DeleteFunc(emails, func(email string) bool { return !found[email] })
}

func inactiveList(text string) string {
	_, list, ok := strings.Cut(text, inactiveLabel)
	if !ok {
		return text
	}
	list, _, _ = strings.Cut(list, "inactive recipients")
	return list
}

// takeOut replaces the address by a space wherever it stands as a whole word, and reports whether it found one.
func takeOut(text, email string) (string, bool) {
	var b strings.Builder
	found := false
	for from := 0; ; {
		i := strings.Index(text[from:], email)
		if i < 0 {
			b.WriteString(text[from:])
			return b.String(), found
		}
		start, end := from+i, from+i+len(email)
		if startsWord(text[:start]) && endsWord(text[end:]) {
			b.WriteString(text[from:start] + " ")
			found = true
		} else {
			b.WriteString(text[from:end])
		}
		from = end
	}
}

// startsWord reports whether an address may begin after before. A quote may stand there, although it could also be part of a
// local part.
func startsWord(before string) bool {
	if before == "" {
		return true
	}
	c := before[len(before)-1]
	return !alnum(c) && c < 0x80 && !strings.ContainsRune(".!#$%&*+-/=?^_`{|}~", rune(c))
}

// endsWord reports whether a domain may end at the start of after. A full stop may follow, but not another label.
func endsWord(after string) bool {
	if after == "" {
		return true
	}
	c := after[0]
	if c == '.' {
		return len(after) == 1 || !alnum(after[1])
	}
	return !alnum(c) && c != '-' && c < 0x80
}

func alnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
