package postmark

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// throttlePause is our wait after a 429: Postmark documents neither a rate nor a Retry-After.
const throttlePause = time.Second

// firewallPause is our wait after the firewall in front of the API turned us away.
const firewallPause = time.Minute

// answer is Postmark's response to one call. Cut is the error that ended the body early, if any.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    error
}

// said is the JSON of a response. ErrorCode is missing from some acceptances while Postmark has an incident.
type said struct {
	ErrorCode *int
	Message   string
	MessageID string
}

// parse reads the body, or returns what the header says when the body is not Postmark's.
func (a answer) parse() said {
	var s said
	if err := json.Unmarshal(a.body, &s); err != nil {
		s = said{}
	}
	if s.ErrorCode == nil { // an acceptance must stand in the body, so a 0 does not count
		if n, err := strconv.Atoi(strings.TrimSpace(a.header.Get("X-PM-ApiErrorCode"))); err == nil && n != 0 {
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
		Class: a.byStatus(got), Status: a.status, Detail: got.Message, Err: a.cut,
		Elsewhere: a.status == http.StatusRequestEntityTooLarge,
	}
	if got.ErrorCode == nil { // with none, others' JSON may have a message too
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

// accepts reports an acceptance: 200 with a MessageID and ErrorCode 0, which is missing while Postmark has an incident.
// A 200 that is cut short, or is no JSON of Postmark's, is none.
func (a answer) accepts(got said) bool {
	return a.status == http.StatusOK && got.MessageID != "" && (got.ErrorCode == nil || *got.ErrorCode == 0)
}

// byStatus is the class where no ErrorCode tells. A 403 without one comes from the firewall in front of the API
// (support: "403 Forbidden"), which turns away single calls; one with a code is about us.
func (a answer) byStatus(got said) provider.Class {
	class := esphttp.ByStatus(a.status)
	switch {
	case class == provider.Accepted:
		return provider.Uncertain // a success, but not in Postmark's words
	case a.status == http.StatusForbidden && got.ErrorCode == nil:
		return provider.Transient
	}
	return class
}

func (a answer) pause(perr *provider.Error, now time.Time) {
	if perr.Class != provider.Throttled && perr.Class != provider.Transient {
		return
	}
	perr.RetryAfter = esphttp.RetryAfter(a.header, now)
	if perr.RetryAfter > 0 {
		return
	}
	switch a.status {
	case http.StatusTooManyRequests:
		perr.RetryAfter = throttlePause
	case http.StatusForbidden:
		perr.RetryAfter = firewallPause
	}
}

// apply puts the table's word into the error, and names recipients.
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

// allInactive reads a 406. It is documented for messages whose recipients are all inactive. One that names only some
// has been reported although the others were mailed (a suppressed Bcc): that is no verdict on the others, and to send
// to them again might be once too often. One that names nobody we know is about all.
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
// addresses: a@x.test, b@x.test. Inactive recipients are ones that ...". Only such a text has any.
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
