package mailgun

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// throttlePause is our wait after a 429 without a readable time.
const throttlePause = time.Minute

// row maps answers to a class: those with the status, or any 4xx for 0, and with the lower-case text.
type row struct {
	status int
	text   string
	class  provider.Class

	elsewhere bool // a cap of Mailgun's; another provider may take the message
	address   bool // about recipients; the text may name them
	doubt     bool // perhaps only this message is wrong; the account is at fault if others get the same
}

// rows are tried in order; the first match decides. An answer without a match has its class by status. Mailgun has no error
// codes, only texts ("Error Codes", "Messages"). "Domain" in them is the account's sending domain.
var rows = []row{
	{text: "try again after", class: provider.Throttled}, // "Domain X is not allowed to send: request limit exceeded, try again after <date>"
	{status: 429, class: provider.Throttled},
	{status: 400, text: "from parameter", class: provider.Rejected},
	{status: 400, text: "from' parameter", class: provider.Rejected},
	{status: 400, text: "reply-to", class: provider.Rejected},
	{status: 400, text: "is not a valid address", class: provider.Rejected, address: true},
	// These follow "Domain X is not allowed to send: ": this domain mails to authorized recipients only.
	{text: "sandbox subdomain", class: provider.Rejected, elsewhere: true, doubt: true},
	{text: "authorized recipients", class: provider.Rejected, elsewhere: true, doubt: true},
	{text: "free accounts", class: provider.Rejected, elsewhere: true, doubt: true},
	{text: "large batches", class: provider.Misconfigured, doubt: true},       // fewer recipients may pass
	{status: 400, text: "not allowed to send", class: provider.Misconfigured}, // not verified, disabled, plan
	{status: 400, text: "needs activation", class: provider.Misconfigured},
	{status: 400, text: "too many recipients", class: provider.Rejected, elsewhere: true},
	{status: 400, text: "too large", class: provider.Rejected, elsewhere: true},
	{status: 400, text: "message size", class: provider.Rejected, elsewhere: true},
	{status: 400, class: provider.Rejected},
	{status: 401, class: provider.Misconfigured},
	{status: 402, class: provider.Misconfigured},
	{status: 403, class: provider.Misconfigured},
	{status: 404, class: provider.Misconfigured}, // no such domain, or in the other region
	{status: 413, class: provider.Rejected, elsewhere: true},
}

func (r row) matches(status int, text string) bool {
	if r.status == 0 && status/100 != 4 || r.status != 0 && r.status != status {
		return false
	}
	return strings.Contains(text, r.text)
}

// answer is Mailgun's response to one call. Cut is the error that ended the body early, if any.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    error
}

// said is the JSON of a response. A 401 is plain text.
type said struct {
	ID      string `json:"id"`
	Message string `json:"message"`
	Reason  string `json:"reason"` // instead of Message, in calls about webhooks
}

// verdict turns the answer into a receipt or an error, whose texts are not scrubbed yet.
func (a answer) verdict(s *provider.Send, now time.Time) (provider.Receipt, *provider.Error) {
	var got said
	if err := json.Unmarshal(a.body, &got); err != nil {
		got = said{Message: plain(a.body)}
	}
	if a.status/100 == 2 {
		return a.success(got)
	}
	perr := &provider.Error{Class: a.byStatus(), Status: a.status, Detail: cmp.Or(got.Message, esphttp.NotTheirs), Err: a.cut}
	text := strings.ToLower(got.Message)
	for _, r := range rows {
		if !r.matches(a.status, text) {
			continue
		}
		perr.Class, perr.Elsewhere, perr.Suspect = r.class, r.elsewhere, r.doubt
		if r.address {
			blame(perr, s)
		}
		break
	}
	if perr.Class == provider.Throttled {
		perr.RetryAfter = a.pause(text, now)
	}
	return provider.Receipt{}, perr
}

// plain reads an answer that is not JSON: Mailgun has two such texts, one for a wrong key and one for a wrong path.
func plain(body []byte) string {
	if text := strings.TrimSpace(string(body)); text == "Forbidden" || text == greeting {
		return text
	}
	return esphttp.NotTheirs
}

// greeting is Mailgun's answer, with status 200, to a path outside its API.
const greeting = "Mailgun Magnificent API"

// success separates an acceptance, JSON with an id, from Mailgun's greeting, which proves that nothing was sent. Any other 2xx is
// Uncertain: a proxy may have answered before the call or in place of Mailgun.
func (a answer) success(got said) (provider.Receipt, *provider.Error) {
	if id := strings.Trim(strings.TrimSpace(got.ID), "<>"); id != "" && a.cut == nil {
		// Events name the id without angle brackets.
		return provider.Receipt{ProviderMessageID: provider.Cut(id), Detail: got.Message}, nil
	}
	perr := &provider.Error{Class: provider.Uncertain, Status: a.status, Detail: got.Message, Err: a.cut}
	if strings.TrimSpace(string(a.body)) == greeting {
		perr.Class = provider.Misconfigured
		perr.Detail = "not an answer of the messages API; check base_url and domain: " + got.Message
	}
	return provider.Receipt{}, perr
}

// byStatus is the class if no row matches. A 5xx, including 503, has been seen for a message that was delivered.
func (a answer) byStatus() provider.Class {
	if a.status >= 500 {
		return provider.Uncertain
	}
	return esphttp.ByStatus(a.status)
}

// blame finds the recipients that "is not a valid address" is about. Mailgun refuses the whole call for one bad address and often
// does not say which. A sole recipient must be the bad one. With several, another provider may say which.
func blame(perr *provider.Error, s *provider.Send) {
	all := s.Envelope()
	var bad []string
	for _, a := range all {
		if mentions(perr.Detail, a.Email) {
			bad = append(bad, a.Email)
		}
	}
	if len(bad) == 0 && len(all) == 1 {
		bad = []string{all[0].Email}
	}
	if len(bad) == 0 {
		perr.Elsewhere = true
		return
	}
	perr.Class = provider.BadRecipient
	for _, email := range bad {
		perr.Refused = append(perr.Refused, provider.Refusal{Email: email, Class: provider.BadRecipient, Detail: perr.Detail})
	}
}

// mentions reports whether the text holds the address as a whole, not as the end or the beginning of a longer one.
func mentions(text, email string) bool {
	text, email = strings.ToLower(text), strings.ToLower(email)
	for from := 0; ; {
		i := strings.Index(text[from:], email)
		if i < 0 {
			return false
		}
		i += from
		before, after := text[:i], text[i+len(email):]
		if !endsInLocal(before) && !continuesDomain(after) {
			return true
		}
		from = i + 1
	}
}

// endsInLocal tells "xann@" from "'ann@": an apostrophe may be part of a local part, but here it is a quote.
func endsInLocal(before string) bool {
	return before != "" && isAlnum(before[len(before)-1]) || strings.HasSuffix(before, ".") || strings.HasSuffix(before, "+") ||
		strings.HasSuffix(before, "-") || strings.HasSuffix(before, "_")
}

// continuesDomain tells "example.org.uk" from "example.org." at the end of a sentence.
func continuesDomain(after string) bool {
	if after == "" {
		return false
	}
	if after[0] == '.' || after[0] == '-' {
		return len(after) > 1 && isAlnum(after[1])
	}
	return isAlnum(after[0])
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// retryDate finds the date in "try again after Mon, 23 Nov 2026 10:00:00 UTC", in lower case, like the texts in rows.
var retryDate = regexp.MustCompile(`try again after ([a-z]{3}, \d{1,2} [a-z]{3} \d{4} \d\d:\d\d:\d\d (?:gmt|utc|[+-]\d{4}))`)

// pause is how long to wait: until the date in the text, else as Retry-After says, else throttlePause. The date is by Mailgun's
// clock, so it is compared with the Date of the answer if there is one. The wait is at least a second and at most a day.
func (a answer) pause(text string, now time.Time) time.Duration {
	if date, err := http.ParseTime(a.header.Get("Date")); err == nil {
		now = date
	}
	if m := retryDate.FindStringSubmatch(text); m != nil {
		for _, layout := range []string{"Mon, 2 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04:05 MST"} {
			if at, err := time.Parse(layout, strings.ToUpper(m[1])); err == nil {
				return min(max(at.Sub(now), time.Second), esphttp.MaxRetryAfter)
			}
		}
	}
	if d := esphttp.RetryAfter(a.header, now); d > 0 {
		return d
	}
	return throttlePause
}
