package ses

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	testKeyID  = "AKIDTESTONLY1234"
	testSecret = "wJalrSECRETtest/only+key"
	testToken  = "SESSIONtokenTestOnly=="
)

func testConfig(baseURL string) Config {
	return Config{
		Region: "eu-west-1", BaseURL: baseURL, ConfigurationSet: "tx",
		AccessKeyID: seal.NewSecret(testKeyID), SecretAccessKey: seal.NewSecret(testSecret), SessionToken: seal.NewSecret(testToken),
	}
}

func newClient(t *testing.T, c Config) *Client {
	t.Helper()
	client, err := New(c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// wire is the part of a SendEmail request that tests look into.
type wire struct {
	FromEmailAddress string
	ReplyToAddresses []string
	Destination      struct{ ToAddresses, CcAddresses, BccAddresses []string }
	EmailTags        []struct{ Name, Value string }
	Content          struct {
		Raw    struct{ Data []byte }
		Simple struct {
			Subject struct{ Data, Charset string }
			Headers []struct{ Name, Value string }
		}
	}
}

func readWire(body []byte) wire {
	var w wire
	_ = json.Unmarshal(body, &w)
	return w
}

func messageID(_ *http.Request, body []byte) string {
	for _, tag := range readWire(body).EmailTags {
		if tag.Name == provider.MessageKey {
			return tag.Value
		}
	}
	return ""
}

const accepted = `{"MessageId":"0102018f-0000-test"}`

func accept(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, accepted)
}

// answer is the answer of SES for a bare status: an acceptance for 2xx, else an error without a code.
func answer(status int) (string, http.Header) {
	if status < 300 {
		return accepted, nil
	}
	return `{"message":"test"}`, nil
}

func TestConformance(t *testing.T) {
	t.Parallel()
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T, baseURL string) provider.Provider {
			t.Helper()
			client, err := New(testConfig(baseURL))
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			return client
		},
		Accept: http.HandlerFunc(accept),
		Answer: answer,
		WantByStatus: map[int]provider.Class{
			http.StatusNoContent: provider.Uncertain, // no body, so no MessageId
		},
		Codes:     codeCases(),
		Secrets:   []string{testKeyID, testSecret, testToken},
		Fault:     func(text string) string { return `{"__type":"BadRequestException","message":"` + text + `"}` },
		ExtractID: messageID,
		Normalise: render,
	})
}

// render leaves out the headers, which change with each signature, and shows attachments in clear.
func render(t *testing.T, r *http.Request, body []byte) []byte {
	t.Helper()
	out := providertest.Render(t, r, body)
	var files struct {
		Content struct {
			Simple struct {
				Attachments []struct{ FileName, RawContent string }
			}
		}
	}
	_ = json.Unmarshal(body, &files)
	for _, f := range files.Content.Simple.Attachments {
		raw, err := base64.StdEncoding.DecodeString(f.RawContent)
		if err != nil {
			t.Errorf("RawContent of %s is not base64: %v", f.FileName, err)
		}
		out = append(out, []byte("attachment "+f.FileName+": ")...)
		out = append(out, bytes.ToValidUTF8(raw, []byte("?"))...)
		out = append(out, '\n')
	}
	return out
}

// code builds a case for an answer with the code in the header, as SES gives it.
func code(status int, name, message string, want provider.Error) providertest.CodeCase {
	if want.Code == "" {
		want.Code = name
	}
	body, _ := json.Marshal(map[string]string{"message": message})
	return providertest.CodeCase{
		Name: name + " " + message, Status: status, Body: string(body), Want: want,
		Header: http.Header{"X-Amzn-ErrorType": {name}},
	}
}

const unverified = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "

func codeCases() []providertest.CodeCase {
	class := func(c provider.Class) provider.Error { return provider.Error{Class: c} }
	wait := provider.Error{Class: provider.Throttled, RetryAfter: rateWait}
	quota := provider.Error{Class: provider.Throttled, RetryAfter: quotaWait}
	sender := provider.Error{Class: provider.Misconfigured, Scope: provider.ScopeSender}
	address := provider.Error{Class: provider.Misconfigured, Scope: provider.ScopeAddress}
	account := class(provider.Misconfigured)
	elsewhere := provider.Error{Class: provider.Rejected, Elsewhere: true}

	cases := []providertest.CodeCase{
		{
			Name: "200", Status: 200, Body: accepted,
			Want:    provider.Error{Class: provider.Accepted},
			Receipt: provider.Receipt{ProviderMessageID: "0102018f-0000-test"},
		},
		{
			Name: "200 without MessageId", Status: 200, Body: `{}`,
			Want: provider.Error{Class: provider.Uncertain, Code: "NoMessageId"},
		},
		{
			Name: "200 that is no JSON", Status: 200, Body: `<html>captive portal</html>`, Want: class(provider.Uncertain),
		},
		{
			Name: "code in the body", Status: 400, Body: `{"__type":"com.amazonaws.ses#MessageRejected","message":"bad words"}`,
			Want: provider.Error{Class: provider.Rejected, Code: "MessageRejected"},
		},
		{
			Name: "code with a URL behind it", Status: 400, Body: `{"message":"x"}`,
			Header: http.Header{"X-Amzn-ErrorType": {"SendingPausedException:http://internal.amazon.com/coral/"}},
			Want:   provider.Error{Class: provider.Misconfigured, Code: "SendingPausedException"},
		},
		{
			Name: "unknown code falls back on its status", Status: 400, Body: `{"message":"x"}`,
			Header: http.Header{"X-Amzn-ErrorType": {"BrandNewException"}},
			Want:   provider.Error{Class: provider.Rejected, Code: "BrandNewException"},
		},
		{
			Name: "error page of a proxy", Status: 503, Body: `<html>busy</html>`, Want: class(provider.Transient),
		},
		{
			Name: "429 without a code", Status: 429, Body: `{"message":"slow down"}`, Want: wait,
		},
		{
			Name: "Retry-After wins", Status: 429, Body: `{"message":"slow down"}`, Header: http.Header{"Retry-After": {"7"}},
			Want: provider.Error{Class: provider.Throttled, RetryAfter: 7e9},
		},
		code(429, "TooManyRequestsException", "Maximum sending rate exceeded.", wait),
		code(429, "TooManyRequestsException", "Too Many Requests", wait),
		code(429, "TooManyRequestsException", "Daily message quota exceeded.", quota),
		code(400, "LimitExceededException", "Daily message quota exceeded.", quota),
		code(400, "LimitExceededException", "Maximum sending rate exceeded.", wait),
		code(400, "LimitExceededException", "too many", provider.Error{Class: provider.Throttled, RetryAfter: resourceWait}),
		code(400, "ThrottlingException", "Daily message quota exceeded.", quota),
		code(400, "MessageRejected", unverified+"shop@example.com", address),
		code(400, "MessageRejected", unverified+"ann@example.org, example.com", address),
		code(400, "MessageRejected", unverified+"arn:aws:ses:eu-west-1:1:identity/Example.com", address),
		code(400, "MessageRejected", "Email address is not verified.", address),
		code(400, "MessageRejected", unverified+"ann@example.org", provider.Error{Class: provider.Rejected, Elsewhere: true, Suspect: true}),
		code(403, "AccessDeniedException", "not authorized to perform `ses:SendEmail' on resource `arn:aws:ses:eu-west-1:1:identity/shop@example.com'", address),
		code(400, "MessageRejected", "Sending paused for this account.", account),
		code(400, "MessageRejected", "Message failed to comply", class(provider.Rejected)),
		code(400, "MailFromDomainNotVerifiedException", "x", sender),
		code(403, "AccessDeniedException", "User is not authorized to perform `ses:SendEmail' on resource `arn:aws:ses:eu-west-1:1:identity/example.com'", sender),
		code(413, "RequestEntityTooLarge", "x", elsewhere),
		{Name: "413 without a code", Status: 413, Body: `{}`, Want: elsewhere},
		code(403, "InvalidSignatureException", "Signature expired: 20260102T030405Z is now earlier than 20260102T040405Z", class(provider.Transient)),
		code(403, "InvalidSignatureException", "Signature not yet current: 20260102T030405Z", class(provider.Transient)),
	}
	for name, c := range map[string]struct {
		status int
		class  provider.Class
	}{
		"Throttling":                      {400, provider.Throttled},
		"ThrottledException":              {400, provider.Throttled},
		"RequestLimitExceeded":            {503, provider.Throttled},
		"AccountSuspendedException":       {400, provider.Misconfigured},
		"SendingPausedException":          {400, provider.Misconfigured},
		"NotFoundException":               {404, provider.Misconfigured},
		"AccessDeniedException":           {403, provider.Misconfigured},
		"UnrecognizedClientException":     {403, provider.Misconfigured},
		"InvalidClientTokenId":            {403, provider.Misconfigured},
		"SignatureDoesNotMatch":           {403, provider.Misconfigured},
		"InvalidSignatureException":       {403, provider.Misconfigured},
		"IncompleteSignature":             {400, provider.Misconfigured},
		"ExpiredToken":                    {403, provider.Misconfigured}, // keys of our own can't be renewed
		"ExpiredTokenException":           {403, provider.Misconfigured},
		"BadRequestException":             {400, provider.Rejected},
		"ValidationException":             {400, provider.Rejected},
		"ConflictException":               {409, provider.Transient},
		"ConcurrentModificationException": {500, provider.Transient},
		"ServiceUnavailable":              {503, provider.Transient},
		"RequestTimeTooSkewed":            {403, provider.Transient},
		"InternalServiceErrorException":   {500, provider.Uncertain},
		"InternalFailure":                 {500, provider.Uncertain},
	} {
		cases = append(cases, code(c.status, name, "x", provider.Error{Class: c.class}))
	}
	return cases
}

// Whatever the answer says, it has a class, and it is not an acceptance.
func FuzzVerdict(f *testing.F) {
	for _, c := range codeCases() {
		if c.Status >= 300 {
			f.Add(c.Status, c.Want.Code, c.Body)
		}
	}
	f.Add(400, "MessageRejected", unverified+"<, /,ann@example.org>")
	client, err := New(testConfig("http://127.0.0.1:9"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, code, message string) {
		if status < 300 || status > 599 {
			return
		}
		e := client.verdict(providertest.PlainSend(), status, code, message)
		if e.Class == provider.Accepted || !slices.Contains(provider.Classes(), e.Class) {
			t.Errorf("class of %d %q %q = %q", status, code, message, e.Class)
		}
		if len(e.Detail) > provider.MaxDetail || len(e.Code) > provider.MaxDetail {
			t.Errorf("detail of %d bytes, code of %d", len(e.Detail), len(e.Code))
		}
		if e.Class == provider.Throttled && e.RetryAfter <= 0 {
			t.Errorf("throttled without a time to wait: %d %q %q", status, code, message)
		}
	})
}
