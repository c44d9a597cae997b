package mailgun_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	testKey    = "key-0123456789abcdef0123456789abcdef"
	testDomain = "mg.example.com"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	// JSON without an id is no acceptance, and any 5xx has been seen for delivered messages.
	byStatus := map[int]provider.Class{http.StatusServiceUnavailable: provider.Uncertain}
	for status := 200; status < 300; status++ {
		byStatus[status] = provider.Uncertain
	}
	providertest.Run(t, providertest.Suite{
		New:          func(t *testing.T, baseURL string) provider.Provider { return newClient(t, baseURL) },
		Accept:       http.HandlerFunc(accept),
		WantByStatus: byStatus,
		Codes:        codeCases(),
		Secrets:      []string{testKey},
		Fault:        says,
		ExtractID: func(r *http.Request, body []byte) string {
			f, err := parseForm(r, body)
			if err != nil {
				return err.Error()
			}
			return f.values.first("v:gw_msg")
		},
		Normalise: normalise,
	})
}

// normalise sorts the variables, which mailgun-go writes in the order of a map.
func normalise(t *testing.T, r *http.Request, body []byte) []byte {
	t.Helper()
	lines := strings.SplitAfter(string(providertest.Render(t, r, body)), "\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		if strings.HasPrefix(a, "v:") && strings.HasPrefix(b, "v:") {
			return strings.Compare(a, b)
		}
		return 0
	})
	return []byte(strings.Join(lines, ""))
}

func newClient(t *testing.T, baseURL string, more ...func(*mailgun.Config)) *mailgun.Client {
	t.Helper()
	cfg := mailgun.Config{APIKey: seal.NewSecret(testKey), Domain: testDomain, BaseURL: baseURL}
	for _, m := range more {
		m(&cfg)
	}
	c, err := mailgun.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return c
}

// form is a request as Mailgun reads it.
type form struct {
	values  values
	message []byte
}

type values [][2]string

func (v values) first(name string) string {
	if all := v.all(name); len(all) > 0 {
		return all[0]
	}
	return ""
}

func (v values) all(name string) []string {
	var out []string
	for _, kv := range v {
		if kv[0] == name {
			out = append(out, kv[1])
		}
	}
	return out
}

func parseForm(r *http.Request, body []byte) (form, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return form{}, err
	}
	var f form
	mr := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		p, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return form{}, err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return form{}, err
		}
		if p.FormName() == "message" && p.FileName() != "" {
			f.message = b
			continue
		}
		f.values = append(f.values, [2]string{p.FormName(), string(b)})
	}
}

// accept checks what Mailgun checks of every call, then answers as it does.
func accept(w http.ResponseWriter, r *http.Request) {
	say := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v3/"+testDomain+"/messages.mime" {
		_, _ = io.WriteString(w, "Mailgun Magnificent API")
		return
	}
	if user, key, _ := r.BasicAuth(); user != "api" || key != testKey {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "Forbidden")
		return
	}
	body, _ := io.ReadAll(r.Body)
	f, err := parseForm(r, body)
	if err != nil || len(f.values.all("to")) == 0 || len(f.values.all("o:tag")) > 3 {
		say(http.StatusBadRequest, map[string]string{"message": "to parameter is missing"})
		return
	}
	msg, err := netmail.ReadMessage(bytes.NewReader(f.message))
	if err != nil || msg.Header.Get("Bcc") != "" {
		say(http.StatusBadRequest, map[string]string{"message": "message is not MIME"})
		return
	}
	say(http.StatusOK, map[string]string{"id": msg.Header.Get("Message-Id"), "message": "Queued. Thank you."})
}

func many() *provider.Send {
	m := providertest.Plain()
	m.To = []mail.Address{{Email: "ann@example.org"}, {Email: "bob@example.org"}}
	m.Bcc = []mail.Address{{Email: "bob@example.org.uk"}}
	return &provider.Send{Message: m, To: m.To, Bcc: m.Bcc, Attempt: 1}
}

func says(message string) string { return fmt.Sprintf(`{"message":%q}`, message) }

func bad(emails ...string) []provider.Refusal {
	var rs []provider.Refusal
	for _, e := range emails {
		rs = append(rs, provider.Refusal{Email: e, Class: provider.BadRecipient})
	}
	return rs
}

// codeCases has a row for each documented answer of the messages API, and for the texts met in the field.
func codeCases() []providertest.CodeCase {
	const notAllowed = "Domain mg.example.com is not allowed to send: "
	date := http.Header{"Date": {"Mon, 23 Nov 2026 09:58:00 GMT"}}
	account := provider.Error{Class: provider.Misconfigured}
	elsewhere := provider.Error{Class: provider.Rejected, Elsewhere: true}
	suspect := provider.Error{Class: provider.Rejected, Elsewhere: true, Suspect: true}
	accepted := provider.Error{Class: provider.Accepted}
	return []providertest.CodeCase{
		{
			Name: "200", Status: 200, Body: `{"id":"<20260101.1.AB@mg.example.com>","message":"Queued. Thank you."}`, Want: accepted,
			Receipt: provider.Receipt{ProviderMessageID: "20260101.1.AB@mg.example.com", Detail: "Queued. Thank you."},
		},
		{
			Name: "200 without brackets", Status: 200, Body: `{"id":"20260101.1.AB@mg.example.com","message":"Queued"}`, Want: accepted,
			Receipt: provider.Receipt{ProviderMessageID: "20260101.1.AB@mg.example.com"},
		},
		{Name: "200 of a wrong path", Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: "Mailgun Magnificent API", Want: account},
		{Name: "200 of another server", Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>Welcome</html>", Want: provider.Error{Class: provider.Uncertain}},
		{Name: "200 without an id", Status: 200, Body: `{"message":"Queued. Thank you."}`, Want: provider.Error{Class: provider.Uncertain}},
		{Name: "200 with an empty id", Status: 200, Body: `{"id":"<>","message":"Queued. Thank you."}`, Want: provider.Error{Class: provider.Uncertain}},
		{Name: "200 empty", Status: 200, Want: provider.Error{Class: provider.Uncertain}},
		{Name: "200 JSON cut off", Status: 200, Body: `{"id":"<2026`, Want: provider.Error{Class: provider.Uncertain}},
		{
			Name: "400 the only recipient", Status: 400, Body: says("to parameter is not a valid address. please check documentation"),
			Want: provider.Error{Class: provider.BadRecipient, Refused: bad("ann@example.org")},
		},
		{
			Name: "400 one of several, not named", Status: 400, Send: many(), Body: says("'to' parameter is not a valid address. please check documentation"),
			Want: elsewhere,
		},
		{
			Name: "400 one of several, named", Status: 400, Send: many(), Body: says("'BOB@example.org' is not a valid address."),
			Want: provider.Error{Class: provider.BadRecipient, Refused: bad("bob@example.org")},
		},
		{
			Name: "400 a longer domain, named", Status: 400, Send: many(), Body: says("bob@example.org.uk is not a valid address."),
			Want: provider.Error{Class: provider.BadRecipient, Refused: bad("bob@example.org.uk")},
		},
		{Name: "400 a stranger, named", Status: 400, Send: many(), Body: says("jann@example.org is not a valid address."), Want: elsewhere},
		{Name: "400 from", Status: 400, Body: says("from parameter is not a valid address. please check documentation"), Want: provider.Error{Class: provider.Rejected}},
		{Name: "400 missing body", Status: 400, Body: says("Need at least one of 'text', 'html' or 'template' parameters specified"), Want: provider.Error{Class: provider.Rejected}},
		{Name: "400 too many", Status: 400, Body: says("Too many recipients, max is 1000"), Want: elsewhere},
		{Name: "400 size", Status: 400, Body: says("Message size is too large"), Want: elsewhere},
		{Name: "400 unverified", Status: 400, Body: says(notAllowed + "The domain is unverified and requires DNS configuration."), Want: account},
		{Name: "400 sandbox", Status: 400, Body: says("Sandbox subdomains are for test purposes only. Please add your own domain or add the address to authorized recipients."), Want: suspect},
		{Name: "403 sandbox, as it is told today", Status: 403, Body: says(notAllowed + "Sandbox subdomains are for test purposes only."), Want: suspect},
		{Name: "400 free", Status: 400, Body: says("Free accounts are for test purposes only. Please upgrade or add the address to your authorized recipients."), Want: suspect},
		{
			Name: "400 that is a limit", Status: 400, Header: date, Body: says(notAllowed + "recipient limit exceeded, try again after Mon, 23 Nov 2026 10:00:00 UTC"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: 2 * time.Minute},
		},
		{Name: "401 plain text", Status: 401, Header: http.Header{"Content-Type": {"text/plain"}}, Body: "Forbidden", Want: provider.Error{Class: provider.Misconfigured, Detail: "Forbidden"}},
		{Name: "402", Status: 402, Body: says("Payment required"), Want: account},
		{Name: "403 batches", Status: 403, Body: says("Your account is not allowed to send large batches yet"), Want: provider.Error{Class: provider.Misconfigured, Suspect: true}},
		{Name: "404 other region", Status: 404, Body: says("Domain not found: mg.example.com"), Want: account},
		{Name: "413", Status: 413, Body: "", Want: elsewhere},
		{
			Name: "429 GMT", Status: 429, Header: date, Body: says(notAllowed + "request limit exceeded, try again after Mon, 23 Nov 2026 10:58:00 GMT"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Hour},
		},
		{
			Name: "429 numeric zone", Status: 429, Header: date, Body: says(notAllowed + "bytes limit exceeded, try again after Mon, 23 Nov 2026 11:58:00 +0100"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Hour},
		},
		{
			Name: "429 in the past", Status: 429, Header: date, Body: says(notAllowed + "request limit exceeded, try again after Mon, 23 Nov 2026 09:00:00 UTC"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Second},
		},
		{
			Name: "429 far away", Status: 429, Header: date, Body: says(notAllowed + "request limit exceeded, try again after Fri, 23 Nov 2029 09:00:00 UTC"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: 24 * time.Hour},
		},
		{
			Name: "429 no date", Status: 429, Body: says(notAllowed + "request limit exceeded, try again after a while"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Minute},
		},
		{
			Name: "429 no such date", Status: 429, Header: date, Body: says(notAllowed + "request limit exceeded, try again after Mon, 31 Feb 2026 09:00:00 UTC"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Minute},
		},
		{Name: "429 bare", Status: 429, Want: provider.Error{Class: provider.Throttled, RetryAfter: time.Minute}},
		{
			Name: "429 Retry-After", Status: 429, Header: http.Header{"Retry-After": {"9"}}, Body: says("slow down"),
			Want: provider.Error{Class: provider.Throttled, RetryAfter: 9 * time.Second},
		},
		{Name: "500", Status: 500, Body: says("Internal Server Error"), Want: provider.Error{Class: provider.Uncertain}},
		{Name: "502", Status: 502, Body: "<html>", Want: provider.Error{Class: provider.Uncertain}},
		{Name: "503", Status: 503, Body: says("try again after lunch"), Want: provider.Error{Class: provider.Uncertain}},
	}
}
