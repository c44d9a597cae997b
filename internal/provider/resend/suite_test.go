package resend_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/resend"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	testKey = "re_123456789_abcdefghijklmnopqrstuv"
	okID    = "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	byStatus := map[int]provider.Class{} // no 2xx is an acceptance without an id
	for status := 200; status < 300; status++ {
		byStatus[status] = provider.Uncertain
	}
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T, baseURL string) provider.Provider {
			t.Helper()
			return newClient(t, baseURL)
		},
		Accept:       http.HandlerFunc(accept),
		WantByStatus: byStatus,
		Codes:        codeCases(),
		Secrets:      []string{testKey},
		Fault:        func(text string) string { return fault("validation_error", text) },
		KeyHeader:    "Idempotency-Key",
		ExtractID: func(_ *http.Request, body []byte) string {
			var m struct {
				Tags []struct{ Name, Value string }
			}
			if err := json.Unmarshal(body, &m); err != nil {
				return err.Error()
			}
			for _, tag := range m.Tags {
				if tag.Name == provider.MessageKey {
					return tag.Value
				}
			}
			return ""
		},
		AcceptBatch: http.HandlerFunc(acceptBatch),
		BatchIDs: func(_ *http.Request, body []byte) (ids []string) {
			for _, m := range emailsOf(body) {
				for _, tag := range m.Tags {
					if tag.Name == provider.MessageKey {
						ids = append(ids, tag.Value)
					}
				}
			}
			return ids
		},
	})
}

func newClient(t *testing.T, baseURL string, more ...func(*resend.Config)) *resend.Client {
	t.Helper()
	cfg := resend.Config{APIKey: seal.NewSecret(testKey), BaseURL: baseURL}
	for _, m := range more {
		m(&cfg)
	}
	c, err := resend.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return c
}

func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

// accept checks what Resend checks of every call, then answers as it does.
func accept(w http.ResponseWriter, r *http.Request) {
	var m struct {
		From, Subject string
		To            []string
	}
	err := json.NewDecoder(r.Body).Decode(&m)
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/emails":
		reply(w, http.StatusNotFound, fault("not_found", "The requested endpoint does not exist."))
	case r.Header.Get("Authorization") != "Bearer "+testKey:
		reply(w, http.StatusUnauthorized, fault("missing_api_key", "Missing API Key"))
	case r.Header.Get("User-Agent") == "":
		reply(w, http.StatusForbidden, "")
	case err != nil || m.From == "" || m.Subject == "" || len(m.To) == 0:
		reply(w, http.StatusUnprocessableEntity, fault("missing_required_field", "Missing a field."))
	default:
		reply(w, http.StatusOK, `{"id":"`+okID+`"}`)
	}
}

// batched is an email of a batch, as far as the tests look into it.
type batched struct {
	From, Subject string
	To            []string
	Tags          []struct{ Name, Value string }
}

func emailsOf(body []byte) []batched {
	var all []batched
	_ = json.Unmarshal(body, &all)
	return all
}

// acceptBatch checks what Resend checks of a batch, then answers as it does in the permissive mode.
func acceptBatch(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var ids []string
	for i := range emailsOf(body) {
		ids = append(ids, fmt.Sprintf(`{"id":"49a3999c-0ce1-4ea6-ab68-%012d"}`, i))
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/emails/batch" || r.Header.Get("X-Batch-Validation") != "permissive":
		reply(w, http.StatusNotFound, fault("not_found", "The requested endpoint does not exist."))
	case r.Header.Get("Authorization") != "Bearer "+testKey || r.Header.Get("User-Agent") == "" || len(ids) == 0:
		reply(w, http.StatusUnauthorized, fault("missing_api_key", "Missing API Key"))
	default:
		reply(w, http.StatusOK, `{"data":[`+strings.Join(ids, ",")+`],"errors":[]}`)
	}
}

func fault(name, message string) string {
	return fmt.Sprintf(`{"name":%q,"message":%q}`, name, message)
}

// codeCases has a row for each error that "Errors" documents for /emails.
func codeCases() []providertest.CodeCase {
	const (
		mis, rej = provider.Misconfigured, provider.Rejected
		thr, unc = provider.Throttled, provider.Uncertain
	)
	sender, from := provider.ScopeSender, provider.ScopeAddress
	rows := []struct {
		status        int
		name, message string
		header        http.Header
		want          provider.Error
	}{
		{400, "invalid_idempotency_key", "", nil, provider.Error{Class: mis, Suspect: true}},
		{400, "validation_error", "a field", nil, provider.Error{Class: rej, Elsewhere: true}},
		{400, "validation_error", "API key is invalid", nil, provider.Error{Class: mis}},
		{401, "missing_api_key", "", nil, provider.Error{Class: mis}},
		{401, "restricted_api_key", "only send emails", nil, provider.Error{Class: mis}},
		{401, "validation_error", "no good", nil, provider.Error{Class: mis}},
		{403, "invalid_api_key", "", nil, provider.Error{Class: mis}},
		{403, "suspended_api_key", "", nil, provider.Error{Class: mis}},
		{403, "validation_error", "The example.com domain is not verified.", nil, provider.Error{Class: mis, Scope: sender}},
		{403, "validation_error", "You can only send testing emails to your own email address", nil, provider.Error{Class: rej, Elsewhere: true, Suspect: true}},
		{422, "validation_error", "The example.com domain is not verified.", nil, provider.Error{Class: mis, Scope: sender}},
		{403, "validation_error", "otherwise", nil, provider.Error{Class: mis, Scope: sender, Suspect: true}},
		{404, "not_found", "", nil, provider.Error{Class: mis}},
		{405, "method_not_allowed", "", nil, provider.Error{Class: mis}},
		{409, "invalid_idempotent_request", "", nil, provider.Error{Class: unc, Final: true}},
		{409, "concurrent_idempotent_requests", "", nil, provider.Error{Class: unc, RetryAfter: 5 * time.Second}},
		{422, "validation_error", "Invalid `from` field.", nil, provider.Error{Class: rej, Elsewhere: true, Suspect: true, Scope: from}},
		{422, "validation_error", "Invalid `to` field.", nil, provider.Error{Class: rej, Elsewhere: true}},
		{422, "invalid_from_address", "", nil, provider.Error{Class: rej, Elsewhere: true, Suspect: true, Scope: from}},
		{422, "missing_required_field", "", nil, provider.Error{Class: rej, Elsewhere: true}},
		{422, "invalid_attachment", "", nil, provider.Error{Class: rej, Elsewhere: true}},
		{422, "invalid_access", "", nil, provider.Error{Class: mis}},
		{422, "invalid_parameter", "", nil, provider.Error{Class: rej, Elsewhere: true}},
		{422, "invalid_region", "", nil, provider.Error{Class: mis}},
		{422, "of_tomorrow", "", nil, provider.Error{Class: rej}},
		{429, "rate_limit_exceeded", "", nil, provider.Error{Class: thr, RetryAfter: time.Second}},
		{429, "rate_limit_exceeded", "", http.Header{"Retry-After": {"7"}}, provider.Error{Class: thr, RetryAfter: 7 * time.Second}},
		{429, "rate_limit_exceeded", "", http.Header{"Ratelimit-Reset": {"3"}}, provider.Error{Class: thr, RetryAfter: 3 * time.Second}},
		{429, "daily_quota_exceeded", "", nil, provider.Error{Class: thr, RetryAfter: time.Hour}},
		{429, "monthly_quota_exceeded", "", nil, provider.Error{Class: thr, RetryAfter: 24 * time.Hour}},
		{451, "security_error", "", nil, provider.Error{Class: rej, Suspect: true}},
		{500, "application_error", "", nil, provider.Error{Class: unc}},
		{500, "internal_server_error", "", nil, provider.Error{Class: unc}},
	}
	cases := []providertest.CodeCase{
		{Name: "200", Status: 200, Body: `{"id":"` + okID + `"}`, Want: provider.Error{Class: provider.Accepted}, Receipt: provider.Receipt{ProviderMessageID: okID}},
		{Name: "200 of somebody else", Status: 200, Body: "<html>Welcome</html>", Want: provider.Error{Class: unc}},
		{Name: "200 without an id", Status: 200, Body: `{"object":"email"}`, Want: provider.Error{Class: unc}},
	}
	for _, r := range rows {
		want := r.want
		want.Code = r.name
		cases = append(cases, providertest.CodeCase{
			Name: fmt.Sprintf("%d %s %s %v", r.status, r.name, r.message, r.header), Status: r.status, Header: r.header,
			Body: fault(r.name, r.message), Want: want,
		})
	}
	return cases
}
