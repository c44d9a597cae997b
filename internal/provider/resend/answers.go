package resend

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// Our waits if a 429 gives none, and while a first call with the same key is in progress.
const (
	ratePause       = time.Second
	concurrentPause = 5 * time.Second
	dailyPause      = time.Hour      // a daily quota counts the last 24 hours
	monthlyPause    = 24 * time.Hour // nothing shorter restores it
)

// problem is one documented error: its name, and words of its message if the name alone does not decide.
type problem struct {
	name   string
	status int    // 0 for any
	text   string // lower case, "" for any
	class  provider.Class
	scope  provider.Scope
	rule   bool // a cap or rule of Resend's own: another provider may take the message
	doubt  bool // perhaps only this message is wrong; scope is at fault if others get the same
	final  bool // of uncertain: the same call brings the same answer
	pause  time.Duration
	why    string
}

// problems is the table of "Errors"; the first match wins. For an error that is not listed, the status decides. One name can mean
// several things: validation_error is about a field, a key, or a sender, depending on its status and its words.
func problems() []problem {
	const (
		misconfigured, rejected = provider.Misconfigured, provider.Rejected
		throttled, uncertain    = provider.Throttled, provider.Uncertain
	)
	return []problem{
		{name: "missing_api_key", class: misconfigured, why: "the request has no API key"},
		{name: "restricted_api_key", class: misconfigured, why: "the API key may only send, or only from one domain"},
		{name: "invalid_api_key", class: misconfigured, why: "the API key is not valid"},
		{name: "suspended_api_key", class: misconfigured, why: "the API key is suspended"},
		{name: "invalid_access", class: misconfigured, why: "the API key may not do this"},
		{name: "validation_error", text: "api key", class: misconfigured, why: "the API key is not valid"},
		{name: "validation_error", status: http.StatusUnauthorized, class: misconfigured, why: "the API key is not valid"},
		{name: "validation_error", text: "testing emails", class: rejected, rule: true, doubt: true, why: "without a verified domain only the owner may be mailed"},
		{name: "validation_error", text: "domain is not verified", class: misconfigured, scope: provider.ScopeSender, why: "the domain of From is not verified"},
		{name: "validation_error", text: "domain", status: http.StatusForbidden, class: misconfigured, scope: provider.ScopeSender, why: "the domain of From is not verified"},
		{name: "validation_error", status: http.StatusForbidden, class: misconfigured, scope: provider.ScopeSender, doubt: true, why: "the sender may not send"},
		{name: "validation_error", text: "`from`", class: rejected, rule: true, doubt: true, scope: provider.ScopeAddress, why: "From"},
		{name: "validation_error", class: rejected, rule: true, why: "a field is not valid"},
		{name: "invalid_from_address", class: rejected, rule: true, doubt: true, scope: provider.ScopeAddress, why: "From"},
		{name: "missing_required_field", class: rejected, rule: true, why: "a required field is missing"},
		{name: "invalid_attachment", class: rejected, rule: true, why: "an attachment is not valid"},
		{name: "invalid_parameter", class: rejected, rule: true, why: "a parameter is not valid"},
		{name: "invalid_region", class: misconfigured, why: "the region is not valid"},
		{name: "not_found", class: misconfigured, why: "no such endpoint: check base_url"},
		{name: "method_not_allowed", class: misconfigured, why: "the endpoint takes no POST: check base_url"},
		{name: "invalid_idempotency_key", class: misconfigured, doubt: true, why: "the idempotency key is not valid"},
		{name: "invalid_idempotent_request", class: uncertain, final: true, why: "an earlier call with this key had another body, and was taken"},
		{name: "concurrent_idempotent_requests", class: uncertain, pause: concurrentPause, why: "an earlier call with this key is under way"},
		{name: "rate_limit_exceeded", class: throttled, pause: ratePause, why: "too many requests a second"},
		{name: "daily_quota_exceeded", class: throttled, pause: dailyPause, why: "the daily quota is used up"},
		{name: "monthly_quota_exceeded", class: throttled, pause: monthlyPause, why: "the monthly quota is used up"},
		{name: "security_error", class: rejected, doubt: true, why: "Resend found a security issue in the request"},
		{name: "application_error", class: uncertain, why: "unexpected error"},
		{name: "internal_server_error", class: uncertain, why: "unexpected error"},
	}
}

// answer is Resend's response to one call.
type answer esphttp.Answer

// acceptance is the id in an acceptance, or "" if the answer is not one.
func (a answer) acceptance() string {
	var got struct {
		ID string `json:"id"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &got) != nil {
		return ""
	}
	return got.ID
}

// said is the JSON of an error.
type said struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// failure turns an answer that is not an acceptance into an error, whose text is not scrubbed yet.
func (a answer) failure(now time.Time) *provider.Error {
	var got said
	if json.Unmarshal(a.Body, &got) != nil {
		got = said{}
	}
	perr := &provider.Error{
		Class: esphttp.ByStatus(a.Status), Status: a.Status, Code: provider.Cut(got.Name), Detail: got.Message, Err: a.Cut,
		Elsewhere: a.Status == http.StatusRequestEntityTooLarge,
	}
	if perr.Class == provider.Accepted {
		perr.Class = provider.Uncertain // a success, but not in Resend's form
	}
	if got.Name == "" { // without a name it may be other JSON, which may have a message too
		perr.Detail = esphttp.NotTheirs
	}
	pause := time.Duration(0)
	if a.Status == http.StatusTooManyRequests {
		pause = ratePause
	}
	if p, ok := lookUp(a.Status, got); ok {
		perr.Class, perr.Scope, perr.Elsewhere, perr.Suspect, perr.Final = p.class, p.scope, p.rule, p.doubt, p.final
		perr.Detail = cmp.Or(perr.Detail, p.why)
		pause = p.pause
	}
	switch perr.Class {
	case provider.Throttled, provider.Transient, provider.Uncertain:
		perr.RetryAfter = cmp.Or(a.wait(now), pause)
	case provider.Accepted, provider.Rejected, provider.BadRecipient, provider.Misconfigured:
	}
	return perr
}

func lookUp(status int, got said) (problem, bool) {
	message := strings.ToLower(got.Message)
	for _, p := range problems() {
		if p.name == got.Name && (p.status == 0 || p.status == status) && strings.Contains(message, p.text) {
			return p, true
		}
	}
	return problem{}, false
}

// wait is how long the response asks us to wait: by Retry-After, or until the rate limit resets.
func (a answer) wait(now time.Time) time.Duration {
	if wait := esphttp.RetryAfter(a.Header, now); wait > 0 {
		return wait
	}
	if s, err := strconv.Atoi(strings.TrimSpace(a.Header.Get("ratelimit-reset"))); err == nil && s > 0 && a.Status == http.StatusTooManyRequests {
		return min(time.Duration(s)*time.Second, esphttp.MaxRetryAfter)
	}
	return 0
}
