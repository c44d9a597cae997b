package ses

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

const (
	// rateWait is how long to pause an account that exceeded its rate, which SES counts per second.
	rateWait = time.Second

	// quotaWait is how long to pause an account that used up its daily quota. The quota is a sliding 24 hours, so a little of it
	// comes back all the time, and SES does not say when. An hour wastes at most 4 % of a day's quota and costs 24 refused
	// calls a day.
	quotaWait = time.Hour

	// resourceWait is for a LimitExceededException that names neither rate nor quota.
	resourceWait = time.Minute
)

// rule says what an error code of SES means. The first rule decides whose code is the error's and whose text, if any, is in
// the error's message (in any case).
type rule struct {
	code      string
	text      string
	class     provider.Class
	scope     provider.Scope
	wait      time.Duration
	elsewhere bool
}

// rules is the table of codes: API reference, SendEmail and "Common Errors"; developer guide, "Errors related to the
// sending quotas" (where only the text separates rate from quota) and "Amazon SES email sending errors".
func rules() []rule {
	var table []rule
	for _, code := range throttleCodes() {
		table = append(table,
			rule{code: code, text: "daily", class: provider.Throttled, wait: quotaWait}, // "Daily message quota exceeded."
			rule{code: code, text: "sending rate", class: provider.Throttled, wait: rateWait},
		)
		if code == "LimitExceededException" {
			table = append(table, rule{code: code, class: provider.Throttled, wait: resourceWait})
			continue
		}
		table = append(table, rule{code: code, class: provider.Throttled, wait: rateWait})
	}
	for _, code := range signatureCodes() {
		// Our clock is off. The SDK has read their time from the answer and uses it to sign the next call.
		table = append(table,
			rule{code: code, text: "signature expired", class: provider.Transient},
			rule{code: code, text: "signature not yet current", class: provider.Transient},
			rule{code: code, class: provider.Misconfigured},
		)
	}
	return append(append(table, senderRules()...), otherRules()...)
}

func throttleCodes() []string {
	return []string{
		"TooManyRequestsException", "ThrottlingException", "Throttling", "ThrottledException", "RequestLimitExceeded",
		"LimitExceededException",
	}
}

func signatureCodes() []string {
	return []string{"SignatureDoesNotMatch", "InvalidSignatureException"}
}

func senderRules() []rule {
	const unverified = "not verified" // "Email address is not verified. The following identities failed the check …"
	return []rule{
		{code: "MessageRejected", text: unverified, class: provider.Misconfigured, scope: provider.ScopeAddress},
		{code: "MessageRejected", text: "sending paused", class: provider.Misconfigured},
		{code: "MessageRejected", class: provider.Rejected},
		{code: "MailFromDomainNotVerifiedException", class: provider.Misconfigured, scope: provider.ScopeSender},
		{code: "MailFromDomainNotVerified", class: provider.Misconfigured, scope: provider.ScopeSender},
		// "… is not authorized to perform `ses:SendEmail' on resource `arn:aws:ses:…:identity/example.com'": the IAM
		// policy may cover other senders.
		{code: "AccessDeniedException", text: ":identity/", class: provider.Misconfigured, scope: provider.ScopeSender},
		{code: "AccessDenied", text: ":identity/", class: provider.Misconfigured, scope: provider.ScopeSender},
		{code: "BadRequestException", text: unverified, class: provider.Misconfigured, scope: provider.ScopeAddress},
		{code: "BadRequestException", class: provider.Rejected},
	}
}

func otherRules() []rule {
	table := []rule{
		{code: "RequestEntityTooLarge", class: provider.Rejected, elsewhere: true},
		{code: "RequestEntityTooLargeException", class: provider.Rejected, elsewhere: true},
	}
	add := func(class provider.Class, codes ...string) {
		for _, code := range codes {
			table = append(table, rule{code: code, class: class})
		}
	}
	add(provider.Misconfigured,
		"AccountSuspendedException", "SendingPausedException", "AccountSendingPausedException",
		"ConfigurationSetSendingPausedException", "NotFoundException", "ConfigurationSetDoesNotExistException",
		"AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "InvalidClientTokenId",
		"IncompleteSignature", "IncompleteSignatureException", "MissingAuthenticationToken",
		"MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired", "SubscriptionRequiredException",
		"ExpiredToken", "ExpiredTokenException", "InvalidAction")
	add(provider.Rejected, "ValidationError", "ValidationException", "InvalidParameterValue", "InvalidParameterCombination",
		"MissingParameter")
	add(provider.Transient,
		"ConflictException", "ConcurrentModificationException", "ServiceUnavailable", "ServiceUnavailableException",
		"RequestTimeTooSkewed", "RequestExpired", "RequestTimeout", "RequestTimeoutException")
	add(provider.Uncertain, "InternalServiceErrorException", "InternalFailure", "InternalServerError", "InternalServerException")
	return table
}

// classify turns the SDK's error into ours: by code, then by status, or by what was written if no answer came.
func (c *Client) classify(s *provider.Send, tr *esphttp.Trace, err error) *provider.Error {
	var params smithy.InvalidParamsError
	if errors.As(err, &params) {
		return refuse("InvalidParams", c.http.Scrub(params.Error()))
	}
	status := tr.Status()
	if status == 0 || status >= 200 && status < 300 {
		e := c.http.Fail(tr, err) // no answer, or half of an acceptance
		e.Status = status
		return e
	}
	code, message := words(err)
	e := c.verdict(s, status, code, message)
	if after := esphttp.RetryAfter(tr.Header(), time.Now()); after > 0 {
		e.RetryAfter = after
	}
	return e
}

// verdict reads an error answer.
func (c *Client) verdict(s *provider.Send, status int, code, message string) *provider.Error {
	e := &provider.Error{
		Class: esphttp.ByStatus(status), Status: status, Code: c.http.Scrub(code), Detail: c.http.Scrub(message),
		Elsewhere: status == http.StatusRequestEntityTooLarge,
	}
	if r, ok := c.rule(code, message); ok {
		e.Class, e.Scope, e.RetryAfter, e.Elsewhere = r.class, r.scope, r.wait, r.elsewhere
	}
	c.amend(e, s, message)
	return e
}

func (c *Client) rule(code, message string) (rule, bool) {
	message = strings.ToLower(message)
	i := slices.IndexFunc(c.rules, func(r rule) bool { return r.code == code && strings.Contains(message, r.text) })
	if i < 0 {
		return rule{}, false
	}
	return c.rules[i], true
}

// amend handles cases that code and text alone do not decide.
func (c *Client) amend(e *provider.Error, s *provider.Send, message string) {
	switch {
	case strings.HasPrefix(e.Code, "ExpiredToken") && c.chain != nil:
		c.chain.Invalidate() // the chain can get fresh ones; static keys can't change
		e.Class = provider.Transient
	case e.Class == provider.Misconfigured && e.Scope == provider.ScopeAddress && blamesRecipient(s, message):
		e.Class, e.Scope, e.Elsewhere, e.Suspect = provider.Rejected, provider.ScopeAccount, true, true
	case strings.HasPrefix(e.Code, "AccessDenied") && namesAddress.MatchString(message):
		e.Scope = provider.ScopeAddress
	case e.Class == provider.Throttled && e.RetryAfter == 0:
		e.RetryAfter = rateWait
	}
}

// namesAddress finds the ARN of an identity that is an address and not a domain.
var namesAddress = regexp.MustCompile(`:identity/[^'` + "`" + `\s]+@`)

// words returns the code and the message of an error answer. A code may come as "namespace#Code:url". An answer without a code is
// not from SES, and its text is not shown.
func words(err error) (code, message string) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code, message = api.ErrorCode(), api.ErrorMessage()
	}
	if code == "UnknownError" {
		code = "" // the SDK's word for an answer without a code
	}
	if code == "" {
		message = esphttp.NotTheirs
	}
	return code, message
}

// blamesRecipient reports whether the identities that "failed the check in region …: a@x.test, x.test" are recipients
// and not the sender. An account in the SES sandbox can mail only to verified addresses (developer guide, "Request
// production access"). That says nothing about the sender or the recipient. If all mail gets this answer, the account is at
// fault.
func blamesRecipient(s *provider.Send, message string) bool {
	found := regexp.MustCompile(`(?i)failed the check in region [a-z0-9-]+: *(.+)`).FindStringSubmatch(message)
	if found == nil {
		return false
	}
	for name := range strings.SplitSeq(found[1], ",") {
		name = strings.ToLower(strings.Trim(name, " ."))
		name = name[strings.LastIndexByte(name, '/')+1:] // the ARN of an identity
		if i := strings.LastIndexByte(name, '<'); i >= 0 {
			name = strings.TrimSuffix(name[i+1:], ">")
		}
		if name == strings.ToLower(s.Message.From.Email) || name == s.Message.From.Domain() {
			return false
		}
	}
	return true
}
