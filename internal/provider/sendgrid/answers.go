package sendgrid

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	sgmail "github.com/sendgrid/sendgrid-go/helpers/mail"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// blockPause is our pause after a temporary block by SendGrid, which does not say how long it lasts.
const blockPause = 15 * time.Minute

// code is one documented answer: a status, and words of the message if the status alone does not decide.
type code struct {
	status int
	field  string // of the first error, "" for any
	text   string // lower case, "" for any
	class  provider.Class
	scope  provider.Scope
	size   bool // a cap of SendGrid's: another provider may take the message
	pause  time.Duration
	source string
}

// codes is the table of SendGrid's answers; the first match wins. SendGrid has no machine-readable codes, so texts decide if one
// status has several meanings. An answer that is not listed is decided by esphttp.ByStatus.
func codes() []code {
	const (
		mailErrors = "Mail Send errors"
		apiErrors  = "SendGrid v3 API, Errors"
		support    = "support: 4XX API Errors and Troubleshooting Suggestions"
		rateLimits = "SendGrid v3 API, Rate Limits"
	)
	return []code{
		{status: 400, field: "ip_pool_name", class: provider.Misconfigured, source: mailErrors}, // a setting of the account
		{status: 400, class: provider.Rejected, source: mailErrors},                             // all validation errors; a recipient's is found before
		{status: 401, text: "maximum credits exceeded", class: provider.Misconfigured, source: support},
		{status: 401, text: "not authorized to send mail", class: provider.Misconfigured, source: support},
		{status: 401, text: "authorization grant is invalid", class: provider.Misconfigured, source: support},
		{status: 401, class: provider.Misconfigured, source: apiErrors},
		{status: 403, text: "verified sender identity", class: provider.Misconfigured, scope: provider.ScopeAddress, source: support},
		{status: 403, text: "send from that email address", class: provider.Misconfigured, scope: provider.ScopeAddress, source: "SMTP Errors and Troubleshooting"},
		{status: 403, text: "too many bad requests", class: provider.Throttled, pause: blockPause, source: apiErrors},
		{status: 403, text: "temporary block", class: provider.Throttled, pause: blockPause, source: apiErrors},
		{status: 403, text: "temporarily blocked", class: provider.Throttled, pause: blockPause, source: apiErrors},
		{status: 403, class: provider.Misconfigured, source: support},
		{status: 404, class: provider.Misconfigured, source: apiErrors},
		{status: 405, class: provider.Misconfigured, source: apiErrors},
		{status: 406, class: provider.Misconfigured, source: apiErrors},
		{status: 413, class: provider.Rejected, size: true, source: mailErrors},
		{status: 415, class: provider.Misconfigured, source: mailErrors},
		{status: 429, class: provider.Throttled, source: rateLimits},
		{status: 451, class: provider.Misconfigured, source: apiErrors}, // data residency: this region is not allowed to send it
		{status: 500, class: provider.Uncertain, source: mailErrors},
		{status: 502, class: provider.Uncertain, source: mailErrors},
		{status: 503, class: provider.Transient, source: mailErrors},
		{status: 504, class: provider.Uncertain, source: mailErrors},
	}
}

// answer is SendGrid's response to one call.
type answer esphttp.Answer

// verdict turns the answer into a receipt or an error, whose texts are not scrubbed yet. M is the request; the field of an error
// refers to it.
func (a answer) verdict(m *sgmail.SGMailV3, sandbox bool, now time.Time) (provider.Receipt, *provider.Error) {
	if a.Status >= 200 && a.Status < 300 {
		return a.acceptance(sandbox)
	}
	errs := a.errors()
	perr := &provider.Error{Class: esphttp.ByStatus(a.Status), Status: a.Status, Detail: words(errs), Err: a.Cut}
	if len(errs) > 0 {
		perr.Code = errs[0].Field
	}
	if a.Status == http.StatusBadRequest {
		if refused := recipients(errs, m); len(refused) > 0 {
			perr.Class, perr.Refused = provider.BadRecipient, refused
			return provider.Receipt{}, perr
		}
	}
	if c, ok := lookUp(a.Status, perr.Code, strings.ToLower(perr.Detail)); ok {
		perr.Class, perr.Scope, perr.Elsewhere, perr.RetryAfter = c.class, c.scope, c.size, c.pause
	}
	if after := a.retryAfter(now); after > 0 && (perr.Class == provider.Throttled || perr.Class == provider.Transient) {
		perr.RetryAfter = after
	}
	return provider.Receipt{}, perr
}

// acceptance reads a 2xx. SendGrid accepts with 202, an empty body and X-Message-Id. In sandbox mode, which sends nothing, it
// answers an empty 200. Any other 2xx may come from a proxy or a login page, before the call or in place of SendGrid's answer: it
// proves nothing.
func (a answer) acceptance(sandbox bool) (provider.Receipt, *provider.Error) {
	id := a.Header.Get("X-Message-Id")
	switch {
	case id != "", sandbox && a.Status == http.StatusOK && a.Cut == nil && len(a.Body) == 0:
		return provider.Receipt{ProviderMessageID: provider.Cut(id), Detail: strconv.Itoa(a.Status)}, nil
	}
	return provider.Receipt{}, &provider.Error{
		Class: provider.Uncertain, Status: a.Status, Detail: "a success without X-Message-Id", Err: a.Cut,
	}
}

// fieldError is one entry of {"errors":[...]}.
type fieldError struct {
	Message string `json:"message"`
	Field   string `json:"field"`
}

// errors reads the entries. It returns none if the body is not SendGrid's (a gateway's HTML, a cut text).
func (a answer) errors() []fieldError {
	var body struct {
		Errors []fieldError `json:"errors"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		return nil
	}
	return body.Errors
}

// words joins the messages of the errors.
func words(errs []fieldError) string {
	var said []string
	for _, e := range errs {
		if e.Message != "" {
			said = append(said, e.Message)
		}
	}
	if len(said) == 0 {
		return esphttp.NotTheirs
	}
	return strings.Join(said, "; ")
}

// recipients names the addresses that the errors are about. It returns none if one of the errors is about anything else. SendGrid
// refers to an address as personalizations.N.to.M.email.
func recipients(errs []fieldError, m *sgmail.SGMailV3) []provider.Refusal {
	var refused []provider.Refusal
	seen := map[string]bool{}
	for _, e := range errs {
		address := recipientAt(m, e.Field)
		if address == "" {
			return nil
		}
		if !seen[address] {
			seen[address] = true
			refused = append(refused, provider.Refusal{
				Email: address, Class: provider.BadRecipient, Code: e.Field, Detail: e.Message,
			})
		}
	}
	return refused
}

// recipientAt returns the address that a field refers to, or "" if it refers to none.
func recipientAt(m *sgmail.SGMailV3, field string) string {
	parts := strings.Split(field, ".")
	if len(parts) != 5 || parts[0] != "personalizations" || parts[4] != "email" {
		return ""
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || n < 0 || n >= len(m.Personalizations) {
		return ""
	}
	p := m.Personalizations[n]
	list := map[string][]*sgmail.Email{"to": p.To, "cc": p.CC, "bcc": p.BCC}[parts[2]]
	i, err := strconv.Atoi(parts[3])
	if err != nil || i < 0 || i >= len(list) {
		return ""
	}
	return list[i].Address
}

func lookUp(status int, field, text string) (code, bool) {
	for _, c := range codes() {
		if c.status == status && (c.field == "" || c.field == field) && strings.Contains(text, c.text) {
			return c, true
		}
	}
	return code{}, false
}

// retryAfter reads X-RateLimit-Reset, which is in Unix seconds ("Rate Limits"), or else Retry-After. A reset in the past means
// now; the result is then one second, because 0 would mean unknown.
func (a answer) retryAfter(now time.Time) time.Duration {
	reset, err := strconv.ParseInt(strings.TrimSpace(a.Header.Get("X-Ratelimit-Reset")), 10, 64)
	if a.Status != http.StatusTooManyRequests || err != nil || reset <= 0 {
		return esphttp.RetryAfter(a.Header, now)
	}
	if reset-now.Unix() > int64(esphttp.MaxRetryAfter/time.Second) {
		return esphttp.MaxRetryAfter
	}
	return max(time.Unix(reset, 0).Sub(now), time.Second)
}
