package sendgrid_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
	"github.com/sendgate/sendgate/internal/seal"
)

const testKey = "SG.test-key_0123456789.abcdefghijklmnopqrstuvwxyz"

var testSecret = seal.NewSecret(testKey)

func TestConformance(t *testing.T) {
	t.Parallel()
	// A 2xx without X-Message-Id is not SendGrid's acceptance.
	byStatus := map[int]provider.Class{451: provider.Misconfigured}
	for status := 200; status < 300; status++ {
		byStatus[status] = provider.Uncertain
	}
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T, baseURL string) provider.Provider {
			t.Helper()
			return newClient(t, baseURL)
		},
		Accept:       accept("14c5d75ce93.dfd.64b469"),
		WantByStatus: byStatus,
		Codes:        codeCases(),
		Secrets:      []string{testKey},
		Fault:        func(text string) string { return fault(text, "") },
		ExtractID: func(_ *http.Request, body []byte) string {
			var m struct {
				CustomArgs map[string]string `json:"custom_args"`
			}
			if err := json.Unmarshal(body, &m); err != nil {
				return err.Error()
			}
			return m.CustomArgs["gw_msg"]
		},
		AcceptBatch: accept("14c5d75ce93.dfd.64b469"),
		BatchIDs: func(_ *http.Request, body []byte) (ids []string) {
			for _, p := range personalizationsOf(body) {
				ids = append(ids, p.CustomArgs["gw_msg"])
			}
			return ids
		},
	})
}

// personalized is a personalization, as far as the tests look into it.
type personalized struct {
	To         []struct{ Email string }
	Headers    map[string]string
	CustomArgs map[string]string `json:"custom_args"`
}

func personalizationsOf(body []byte) []personalized {
	var m struct{ Personalizations []personalized }
	_ = json.Unmarshal(body, &m)
	return m.Personalizations
}

func newClient(t *testing.T, baseURL string, more ...func(*sendgrid.Config)) *sendgrid.Client {
	t.Helper()
	cfg := sendgrid.Config{APIKey: seal.NewSecret(testKey), BaseURL: baseURL}
	for _, m := range more {
		m(&cfg)
	}
	c, err := sendgrid.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return c
}

// accept checks what SendGrid checks of every call, then answers as it does.
func accept(id string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodPost || r.URL.Path != "/v3/mail/send":
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("Authorization") != "Bearer "+testKey:
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("Accept") != "application/json":
			w.WriteHeader(http.StatusNotAcceptable)
		case r.Header.Get("Content-Type") != "application/json":
			w.WriteHeader(http.StatusUnsupportedMediaType)
		default:
			w.Header().Set("X-Message-Id", id)
			w.WriteHeader(http.StatusAccepted)
		}
	})
}

// fault is an error body of SendGrid's. Field may be empty.
func fault(message, field string) string {
	return fmt.Sprintf(`{"errors":[{"message":%q,"field":%q,"help":null}]}`, message, field)
}

func many() *provider.Send {
	m := providertest.Plain()
	m.To = []mail.Address{{Email: "ann@example.org"}, {Email: "Bob@example.org"}}
	m.Cc = []mail.Address{{Email: "carol@example.org"}}
	return &provider.Send{Message: m, To: m.To, Cc: m.Cc, Attempt: 1}
}

func hiddenOnly() *provider.Send {
	m := providertest.Plain()
	m.Bcc = []mail.Address{{Email: "dave@example.org"}, {Email: "erin@example.org"}}
	return &provider.Send{Message: m, Bcc: m.Bcc, Attempt: 2}
}

// codeCases has a row for each answer that "Mail Send errors" and its neighbours document.
func codeCases() []providertest.CodeCase {
	const sender = "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved."
	badTo := func(emails ...string) provider.Error {
		e := provider.Error{Class: provider.BadRecipient, Code: "personalizations.0.to.1.email"}
		for _, email := range emails {
			e.Refused = append(e.Refused, provider.Refusal{Email: email, Class: provider.BadRecipient, Code: "personalizations.0.to.1.email"})
		}
		return e
	}
	return []providertest.CodeCase{
		{
			Name: "202", Status: 202, Header: http.Header{"X-Message-Id": {"LRzX_m_A"}},
			Want: provider.Error{Class: provider.Accepted}, Receipt: provider.Receipt{ProviderMessageID: "LRzX_m_A"},
		},
		{
			Name: "202 without an id", Status: 202,
			Want: provider.Error{Class: provider.Uncertain},
		},
		{
			Name: "202 of a login page", Status: 202, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>Sign in</html>",
			Want: provider.Error{Class: provider.Uncertain},
		},
		{
			Name: "200 of somebody else", Status: 200, Body: "<html>Welcome</html>",
			Want: provider.Error{Class: provider.Uncertain},
		},
		{
			Name: "400 recipient", Status: 400, Send: many(),
			Body: fault("Does not contain a valid address.", "personalizations.0.to.1.email"),
			Want: badTo("Bob@example.org"),
		},
		{
			Name: "400 the same recipient twice", Status: 400, Send: many(),
			Body: `{"errors":[{"message":"a","field":"personalizations.0.to.1.email"},{"message":"b","field":"personalizations.0.to.1.email"}]}`,
			Want: badTo("Bob@example.org"),
		},
		{
			Name: "400 cc", Status: 400, Send: many(), Body: fault("Does not contain a valid address.", "personalizations.0.cc.0.email"),
			Want: provider.Error{
				Class: provider.BadRecipient, Code: "personalizations.0.cc.0.email",
				Refused: []provider.Refusal{{Email: "carol@example.org", Class: provider.BadRecipient, Code: "personalizations.0.cc.0.email"}},
			},
		},
		{
			Name: "400 second personalization", Status: 400, Send: hiddenOnly(),
			Body: fault("Does not contain a valid address.", "personalizations.1.to.0.email"),
			Want: provider.Error{
				Class: provider.BadRecipient, Code: "personalizations.1.to.0.email",
				Refused: []provider.Refusal{{Email: "erin@example.org", Class: provider.BadRecipient, Code: "personalizations.1.to.0.email"}},
			},
		},
		{
			Name: "400 recipient and something else", Status: 400, Send: many(),
			Body: `{"errors":[{"message":"a","field":"personalizations.0.to.1.email"},{"message":"b","field":"subject"}]}`,
			Want: provider.Error{Class: provider.Rejected, Code: "personalizations.0.to.1.email"},
		},
		{
			Name: "400 recipient that we did not send", Status: 400, Send: many(),
			Body: fault("Does not contain a valid address.", "personalizations.0.to.7.email"),
			Want: provider.Error{Class: provider.Rejected, Code: "personalizations.0.to.7.email"},
		},
		{
			Name: "400 name of a recipient", Status: 400, Body: fault("too long", "personalizations.0.to.0.name"),
			Want: provider.Error{Class: provider.Rejected, Code: "personalizations.0.to.0.name"},
		},
		{
			Name: "400 content", Status: 400, Body: fault("The content value must be a string at least one character in length.", "content.0.value"),
			Want: provider.Error{Class: provider.Rejected, Code: "content.0.value"},
		},
		{
			Name: "400 opaque", Status: 400, Body: `{"errors":[{"message":"Bad Request","field":null,"help":null}]}`,
			Want: provider.Error{Class: provider.Rejected, Detail: "Bad Request"},
		},
		{
			Name: "401 key", Status: 401, Body: fault("The provided authorization grant is invalid, expired, or revoked", ""),
			Want: provider.Error{Class: provider.Misconfigured},
		},
		{
			Name: "202 of a sign-in page", Status: 202, Body: "<html>sign in</html>",
			Want: provider.Error{Class: provider.Uncertain},
		},
		{
			Name: "400 about a setting of the account", Status: 400, Body: fault("The IP pool does not exist.", "ip_pool_name"),
			Want: provider.Error{Class: provider.Misconfigured, Code: "ip_pool_name"},
		},
		{
			Name: "401 scope", Status: 401, Body: fault("Authenticated user is not authorized to send mail", ""),
			Want: provider.Error{Class: provider.Misconfigured},
		},
		{
			Name: "401 credits", Status: 401, Body: fault("Maximum credits exceeded", ""),
			Want: provider.Error{Class: provider.Misconfigured, Detail: "Maximum credits exceeded"},
		},
		{
			Name: "403 sender", Status: 403, Body: fault(sender, "from"),
			Want: provider.Error{Class: provider.Misconfigured, Scope: provider.ScopeAddress, Code: "from"},
		},
		{
			Name: "403 sender by SMTP's words", Status: 403, Body: fault("You are not authorized to send from that email address", ""),
			Want: provider.Error{Class: provider.Misconfigured, Scope: provider.ScopeAddress},
		},
		{
			Name: "403 access", Status: 403, Body: fault("access forbidden", ""),
			Want: provider.Error{Class: provider.Misconfigured},
		},
		{
			Name: "403 temporary block", Status: 403, Body: fault("Too many bad requests. Temporary block", ""),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: 15 * time.Minute},
		},
		{Name: "404", Status: 404, Body: fault("not found", ""), Want: provider.Error{Class: provider.Misconfigured}},
		{Name: "405", Status: 405, Body: fault("method not allowed", ""), Want: provider.Error{Class: provider.Misconfigured}},
		{Name: "406", Status: 406, Body: fault("missing Accept header", ""), Want: provider.Error{Class: provider.Misconfigured}},
		{
			Name: "413 plain text", Status: 413, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<h1>413 Request Entity Too Large</h1>",
			Want: provider.Error{Class: provider.Rejected, Elsewhere: true},
		},
		{Name: "415", Status: 415, Body: fault("unsupported media type", ""), Want: provider.Error{Class: provider.Misconfigured}},
		{
			Name: "429 far reset", Status: 429, Body: fault("too many requests", ""),
			Header: http.Header{"X-Ratelimit-Limit": {"600"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"99999999999"}},
			Want:   provider.Error{Class: provider.Throttled, RetryAfter: esphttp.MaxRetryAfter},
		},
		{
			Name: "429 reset has passed", Status: 429, Header: http.Header{"X-Ratelimit-Reset": {"1"}}, Body: fault("too many requests", ""),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Second},
		},
		{
			Name: "429 Retry-After", Status: 429, Header: http.Header{"Retry-After": {"17"}}, Body: fault("too many requests", ""),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: 17 * time.Second},
		},
		{
			Name: "429 without a word", Status: 429, Body: "", Want: provider.Error{Class: provider.Throttled},
			Check: func(t *testing.T, _ provider.Receipt, err *provider.Error) {
				t.Helper()
				if err.RetryAfter != 0 {
					t.Errorf("RetryAfter = %s, want unknown", err.RetryAfter)
				}
			},
		},
		{Name: "451", Status: 451, Body: fault("unavailable due to data residency restrictions", ""), Want: provider.Error{Class: provider.Misconfigured}},
		{Name: "500", Status: 500, Body: fault("internal server error", ""), Want: provider.Error{Class: provider.Uncertain}},
		{Name: "502 html", Status: 502, Body: "<html>bad gateway</html>", Want: provider.Error{Class: provider.Uncertain}},
		{
			Name: "503", Status: 503, Header: http.Header{"Retry-After": {"5"}}, Body: fault("service unavailable", ""),
			Want: provider.Error{Class: provider.Transient, RetryAfter: 5 * time.Second},
		},
		{Name: "504", Status: 504, Body: "", Want: provider.Error{Class: provider.Uncertain}},
	}
}
