package postmark_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

const testToken = "11112222-3333-4444-5555-666677778888"

func TestConformance(t *testing.T) {
	t.Parallel()
	// Without an ErrorCode no 2xx is an acceptance, and a 403 is the firewall's.
	byStatus := map[int]provider.Class{http.StatusForbidden: provider.Transient}
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
		Secrets:      []string{testToken},
		Fault:        func(text string) string { return fault(10, text) },
		ExtractID: func(_ *http.Request, body []byte) string {
			var m struct{ Metadata map[string]string }
			if err := json.Unmarshal(body, &m); err != nil {
				return err.Error()
			}
			return m.Metadata["gw_msg"]
		},
		AcceptBatch: http.HandlerFunc(acceptBatch),
		BatchIDs: func(_ *http.Request, body []byte) (ids []string) {
			for _, m := range emailsOf(body) {
				ids = append(ids, m.Metadata["gw_msg"])
			}
			return ids
		},
	})
}

func newClient(t *testing.T, baseURL string, more ...func(*postmark.Config)) *postmark.Client {
	t.Helper()
	cfg := postmark.Config{ServerToken: seal.NewSecret(testToken), BaseURL: baseURL}
	for _, m := range more {
		m(&cfg)
	}
	c, err := postmark.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return c
}

const okBody = `{"To":"ann@example.org","SubmittedAt":"2026-01-01T07:25:01.4178645-05:00",` +
	`"MessageID":"0a129aee-e1cd-480d-b08d-4f48548ff48d","ErrorCode":0,"Message":"OK"}`

// accept checks what Postmark checks of every call, then answers as it does.
func accept(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, body string) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/email":
		answer(http.StatusNotFound, "")
	case r.Header.Get("X-Postmark-Server-Token") != testToken:
		answer(http.StatusUnauthorized, fault(10, "Bad or missing Server API token."))
	case r.Header.Get("Accept") != "application/json" || r.Header.Get("Content-Type") != "application/json":
		answer(http.StatusUnsupportedMediaType, "")
	default:
		answer(http.StatusOK, okBody)
	}
}

// batched is a message of a batch, as far as the tests look into it.
type batched struct {
	To       string
	Metadata map[string]string
}

func emailsOf(body []byte) []batched {
	var all []batched
	_ = json.Unmarshal(body, &all)
	return all
}

// acceptBatch answers a batch as Postmark does: 200, with a result for each message.
func acceptBatch(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var results []string
	for i, m := range emailsOf(body) {
		results = append(results, fmt.Sprintf(`{"To":%q,"MessageID":"0a129aee-e1cd-480d-b08d-%012d","ErrorCode":0,"Message":"OK"}`, m.To, i))
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if r.URL.Path != "/email/batch" || r.Header.Get("X-Postmark-Server-Token") != testToken || len(results) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = io.WriteString(w, "["+strings.Join(results, ",")+"]")
}

func fault(number int, message string) string {
	return fmt.Sprintf(`{"ErrorCode":%d,"Message":%q}`, number, message)
}

func many() *provider.Send {
	m := providertest.Plain()
	m.To = []mail.Address{{Email: "ann@example.org"}, {Email: "Bob@example.org"}}
	m.Cc = []mail.Address{{Email: "o'brien@example.org"}}
	m.Bcc = []mail.Address{{Email: "brien@example.org"}, {Email: "bob@example.org.uk"}}
	return &provider.Send{Message: m, To: m.To, Cc: m.Cc, Bcc: m.Bcc, Attempt: 1}
}

func refused(number string, suppressed bool, emails ...string) []provider.Refusal {
	var rs []provider.Refusal
	for _, email := range emails {
		rs = append(rs, provider.Refusal{Email: email, Class: provider.BadRecipient, Code: number, Suppressed: suppressed})
	}
	return rs
}

// codeCases has a row for each ErrorCode that "API overview" documents for /email, and the older ones still met.
func codeCases() []providertest.CodeCase {
	const (
		id    = "0a129aee-e1cd-480d-b08d-4f48548ff48d"
		about = " Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."
		tried = "You tried to send to recipient(s) that have been marked as inactive.\nFound inactive addresses: "
	)
	accepted := provider.Error{Class: provider.Accepted}
	partial := func(list string) string {
		return fmt.Sprintf(`{"MessageID":%q,"ErrorCode":0,"Message":%q}`, id, "Message OK, but will not deliver to these inactive addresses: "+list+"."+about)
	}
	cases := []providertest.CodeCase{
		{Name: "200", Status: 200, Body: okBody, Want: accepted, Receipt: provider.Receipt{ProviderMessageID: id, Detail: "OK"}},
		{
			Name: "200 during an incident, without ErrorCode", Status: 200,
			Body: `{"MessageID":"` + id + `","Message":"Message accepted, but delivery may be delayed."}`,
			Want: accepted, Receipt: provider.Receipt{ProviderMessageID: id},
		},
		{
			Name: "200 partial", Status: 200, Send: many(), Body: partial("ann@example.org, bob@example.org"), Want: accepted,
			Receipt: provider.Receipt{ProviderMessageID: id, Refused: refused("406", true, "ann@example.org", "Bob@example.org")},
		},
		{
			Name: "200 partial with an apostrophe", Status: 200, Send: many(), Body: partial("o'brien@example.org"), Want: accepted,
			Receipt: provider.Receipt{ProviderMessageID: id, Refused: refused("406", true, "o'brien@example.org")},
		},
		{
			Name: "200 partial with a longer domain", Status: 200, Send: many(), Body: partial("bob@example.org.uk"), Want: accepted,
			Receipt: provider.Receipt{ProviderMessageID: id, Refused: refused("406", true, "bob@example.org.uk")},
		},
		{Name: "200 with an ErrorCode", Status: 200, Body: fault(405, "not allowed"), Want: provider.Error{Class: provider.Misconfigured, Code: "405"}},
		{Name: "200 of somebody else", Status: 200, Body: "<html>Welcome</html>", Want: provider.Error{Class: provider.Uncertain}},
		{Name: "200 empty", Status: 200, Body: "", Want: provider.Error{Class: provider.Uncertain}},
		{
			Name: "406 all", Status: 422, Send: providertest.PlainSend(), Body: fault(406, tried+"ANN@example.org."+about),
			Want: provider.Error{Class: provider.BadRecipient, Code: "406", Refused: refused("406", true, "ann@example.org")},
		},
		{
			Name: "406 without a list", Status: 422, Body: fault(406, "You tried to send to a recipient that has been marked as inactive."),
			Want: provider.Error{Class: provider.BadRecipient, Code: "406", Refused: refused("406", true, "ann@example.org")},
		},
		{
			Name: "406 that leaves some out", Status: 422, Send: many(), Body: fault(406, tried+"brien@example.org."+about),
			Want: provider.Error{Class: provider.Uncertain, Code: "406"},
		},
		{
			Name: "406 by header only", Status: 422, Header: http.Header{"X-PM-ApiErrorCode": {"406"}}, Body: "not json",
			Want: provider.Error{Class: provider.BadRecipient, Code: "406", Refused: refused("406", true, "ann@example.org")},
		},
		{
			Name: "300 To", Status: 422, Send: many(), Body: fault(300, "Invalid 'To' address: 'bob@example.org'."),
			Want: provider.Error{Class: provider.BadRecipient, Code: "300", Refused: refused("300", false, "Bob@example.org")},
		},
		{
			Name: "300 Cc", Status: 422, Send: many(),
			Body: fault(300, "Error parsing 'Cc': Illegal email domain 'example.org' in address 'o'brien@example.org'."),
			Want: provider.Error{Class: provider.BadRecipient, Code: "300", Refused: refused("300", false, "o'brien@example.org")},
		},
		{
			Name: "300 Bcc, whom it does not say", Status: 422, Send: many(), Body: fault(300, "Error parsing 'Bcc'."),
			Want: provider.Error{Class: provider.Rejected, Code: "300", Elsewhere: true},
		},
		{
			Name: "300 From", Status: 422, Body: fault(300, "Invalid 'From' address: 'shop@example.com'."),
			Want: provider.Error{Class: provider.Rejected, Elsewhere: true, Suspect: true, Scope: provider.ScopeAddress, Code: "300"},
		},
		{
			Name: "300 From, by its display name", Status: 422, Body: fault(300, "Error parsing 'From': illegal display name"),
			Want: provider.Error{Class: provider.Rejected, Elsewhere: true, Suspect: true, Scope: provider.ScopeAddress, Code: "300"},
		},
		{
			Name: "300 an empty file", Status: 422, Body: fault(300, "Zero-sized attachments not allowed."),
			Want: provider.Error{Class: provider.Rejected, Elsewhere: true, Code: "300"},
		},
		{
			Name: "412 pending", Status: 422, Body: fault(412, "pending approval: recipients must share the sender's domain"),
			Want: provider.Error{Class: provider.Rejected, Elsewhere: true, Suspect: true, Code: "412"},
		},
		{
			Name: "300 nobody", Status: 422, Body: fault(300, "Zero recipients specified"),
			Want: provider.Error{Class: provider.Rejected, Code: "300", Elsewhere: true},
		},
		{
			Name: "300 metadata", Status: 422, Body: fault(300, "The metadata key is over 20 characters."),
			Want: provider.Error{Class: provider.Rejected, Code: "300", Elsewhere: true},
		},
		{
			Name: "300 content", Status: 422, Body: fault(300, "Provide either email TextBody or HtmlBody or both."),
			Want: provider.Error{Class: provider.Rejected, Code: "300"},
		},
		{
			Name: "401/10 token", Status: 401, Body: fault(10, "Bad or missing Server API token."),
			Want: provider.Error{Class: provider.Misconfigured, Code: "10"},
		},
		{
			Name: "401 with code 0", Status: 401, Body: fault(0, "Bad or missing server or user API token."),
			Want: provider.Error{Class: provider.Misconfigured, Detail: "Bad or missing server or user API token."},
		},
		{Name: "403 allowlist", Status: 403, Body: fault(1480, "IP not allowed"), Want: provider.Error{Class: provider.Misconfigured, Code: "1480"}},
		{
			Name: "403 of the firewall", Status: 403, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>403 Forbidden</html>",
			Want: provider.Error{Class: provider.Transient, RetryAfter: time.Minute},
		},
		{Name: "403 with an unknown code", Status: 403, Body: fault(7777, "no"), Want: provider.Error{Class: provider.Misconfigured, Code: "7777"}},
		{Name: "413", Status: 413, Body: "", Want: provider.Error{Class: provider.Rejected, Elsewhere: true}},
		{Name: "415", Status: 415, Body: "", Want: provider.Error{Class: provider.Misconfigured}},
		{Name: "422 with an unknown code", Status: 422, Body: fault(7777, "no"), Want: provider.Error{Class: provider.Rejected, Code: "7777"}},
		{Name: "429", Status: 429, Body: "", Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Second}},
		{Name: "429 with a code", Status: 429, Body: fault(429, "Rate limit exceeded."), Want: provider.Error{Class: provider.Throttled, Code: "429", RetryAfter: time.Second}},
		{Name: "429 Retry-After", Status: 429, Header: http.Header{"Retry-After": {"9"}}, Want: provider.Error{Class: provider.Throttled, RetryAfter: 9 * time.Second}},
		{Name: "500/101", Status: 500, Body: fault(101, "Unexpected error"), Want: provider.Error{Class: provider.Uncertain, Code: "101"}},
		{Name: "502", Status: 502, Body: "<html>", Want: provider.Error{Class: provider.Uncertain}},
		{Name: "503/100", Status: 503, Body: fault(100, "Maintenance"), Want: provider.Error{Class: provider.Transient, Code: "100"}},
		{Name: "504", Status: 504, Body: "", Want: provider.Error{Class: provider.Uncertain}},
	}
	return append(cases, codesOf422()...)
}

// codesOf422 are the codes whose meaning depends only on the number.
func codesOf422() []providertest.CodeCase {
	const mis, rej = provider.Misconfigured, provider.Rejected
	suspect, doubtful := provider.Error{Class: rej, Elsewhere: true, Suspect: true}, provider.Error{Class: mis, Suspect: true}
	wants := map[int]provider.Error{
		11: {Class: rej, Elsewhere: true}, 13: {Class: rej, Elsewhere: true}, 14: {Class: mis},
		400: {Class: mis, Scope: provider.ScopeAddress}, 401: {Class: mis, Scope: provider.ScopeAddress},
		402: {Class: rej, Elsewhere: true}, 403: doubtful, 405: {Class: mis}, 409: {Class: mis},
		410: {Class: rej, Elsewhere: true}, 411: {Class: rej, Elsewhere: true}, 412: suspect, 413: {Class: mis}, 422: {Class: mis},
		1101: {Class: mis}, 1109: {Class: mis}, 1120: {Class: mis}, 1121: {Class: mis}, 1122: {Class: mis}, 1123: {Class: mis},
		1235: doubtful, 1236: doubtful, 1480: {Class: mis},
	}
	var cases []providertest.CodeCase
	for number, want := range wants {
		want.Code = fmt.Sprint(number)
		cases = append(cases, providertest.CodeCase{
			Name: fmt.Sprintf("422/%d", number), Status: http.StatusUnprocessableEntity, Body: fault(number, "in Postmark's words"), Want: want,
		})
	}
	return cases
}
