package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"
	"github.com/aws/smithy-go"
	awshttp "github.com/aws/smithy-go/transport/http"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
)

func (b *server) sesSDK(change ...func(*sesv2.Options)) *sesv2.Client {
	o := sesv2.Options{
		Region: key("ses", "region"), BaseEndpoint: aws.String(b.URL() + "/ses"), HTTPClient: b.http, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(key("ses", "access_key_id"), key("ses", "secret_access_key"), ""),
	}
	return sesv2.New(o, change...)
}

func sesInput(change ...func(*sesv2.SendEmailInput)) *sesv2.SendEmailInput {
	in := &sesv2.SendEmailInput{
		FromEmailAddress: aws.String("Shop <shop@example.com>"),
		Destination:      &types.Destination{ToAddresses: []string{"Ann <ann@example.org>"}},
		EmailTags:        []types.MessageTag{{Name: aws.String("gw_msg"), Value: aws.String("m1")}},
		Content: &types.EmailContent{Simple: &types.Message{
			Subject: &types.Content{Data: aws.String("Grüße")},
			Body:    &types.Body{Text: &types.Content{Data: aws.String("hi")}},
			Headers: []types.MessageHeader{{Name: aws.String("X-Order"), Value: aws.String("42")}},
		}},
	}
	for _, c := range change {
		c(in)
	}
	return in
}

func raw(mime string) func(*sesv2.SendEmailInput) {
	return func(in *sesv2.SendEmailInput) {
		in.Content = &types.EmailContent{Raw: &types.RawMessage{Data: []byte(mime)}}
	}
}

func to(list ...string) func(*sesv2.SendEmailInput) {
	return func(in *sesv2.SendEmailInput) { in.Destination = &types.Destination{ToAddresses: list} }
}

func TestSESTakesWhatTheSDKSends(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	out, err := b.sesSDK().SendEmail(t.Context(), sesInput(func(in *sesv2.SendEmailInput) {
		in.Destination.BccAddresses = []string{"SoftBounce@example.org"}
	}))
	if err != nil || aws.ToString(out.MessageId) == "" {
		t.Fatalf("SendEmail = %v, %v", out, err)
	}
	b.wantLedger(t, emulator.Entry{
		Provider: "ses", MessageID: "m1", From: "shop@example.com", Subject: "Grüße", Outcome: "softbounce",
		To: []string{"ann@example.org", "SoftBounce@example.org"},
	})
	if got := b.Ledger()[0].ProviderMessageID; got != *out.MessageId {
		t.Errorf("ledger has id %q, answer %q", got, *out.MessageId)
	}
}

func TestSESTakesRaw(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	fromHeader := func(in *sesv2.SendEmailInput) { in.FromEmailAddress, in.Destination = nil, nil }
	for _, in := range []*sesv2.SendEmailInput{sesInput(raw(mimeMessage), to("hidden@example.org")), sesInput(raw(mimeMessage), fromHeader)} {
		if _, err := b.sesSDK().SendEmail(t.Context(), in); err != nil {
			t.Fatalf("SendEmail: %v", err)
		}
	}
	want := emulator.Entry{Provider: "ses", MessageID: "m1", From: "shop@example.com", Subject: "Grüße", Outcome: "delivered"}
	destination, header := want, want
	destination.To, header.To = []string{"hidden@example.org"}, []string{"ann@example.org"}
	b.wantLedger(t, destination, header)
}

func TestSESRefuses(t *testing.T) {
	t.Parallel()
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprintf("a%d@example.org", i)
	}
	tag := func(name, value string) func(*sesv2.SendEmailInput) {
		return func(in *sesv2.SendEmailInput) {
			in.EmailTags = []types.MessageTag{{Name: aws.String(name), Value: aws.String(value)}}
		}
	}
	header := func(name, value string) func(*sesv2.SendEmailInput) {
		return func(in *sesv2.SendEmailInput) {
			in.Content.Simple.Headers = []types.MessageHeader{{Name: aws.String(name), Value: aws.String(value)}}
		}
	}
	tests := []struct {
		name          string
		in            *sesv2.SendEmailInput
		code, message string
	}{
		{"51 recipients", sesInput(to(many...)), "BadRequestException", "Recipient count exceeds 50."},
		{"no recipient", sesInput(to()), "BadRequestException", "at least one recipient"},
		{"no domain", sesInput(to("ann")), "BadRequestException", "Missing final '@domain'"},
		{"bad address", sesInput(to("a b@example.org")), "BadRequestException", "Illegal address"},
		{"non-ascii local part", sesInput(to("änn@example.org")), "BadRequestException", "Local address"},
		{"non-ascii domain", sesInput(to("ann@exämple.org")), "BadRequestException", "Domain contains illegal character"},
		{"reject outcome", sesInput(to("reject@example.org")), "MessageRejected", "Address blacklisted."},
		{"bad from", sesInput(func(in *sesv2.SendEmailInput) { in.FromEmailAddress = aws.String("shop") }), "BadRequestException", "From"},
		{"tag charset", sesInput(tag("gw_msg", "a.b")), "BadRequestException", "Invalid tag"},
		{"long tag", sesInput(tag("gw_msg", strings.Repeat("a", 257))), "BadRequestException", "Invalid tag"},
		{"long header", sesInput(header("X-A", strings.Repeat("a", 996))), "BadRequestException", "Invalid header"},
		{"header name", sesInput(header("X A", "v")), "BadRequestException", "Invalid header"},
		{"no body", sesInput(func(in *sesv2.SendEmailInput) { in.Content.Simple.Body = &types.Body{} }), "BadRequestException", "Body"},
		{"no content", sesInput(func(in *sesv2.SendEmailInput) { in.Content = &types.EmailContent{} }), "BadRequestException", "Content"},
		{"broken raw", sesInput(raw("x")), "BadRequestException", "raw message"},
		{"raw with bad to", sesInput(raw("From: a@example.com\r\nTo: x y\r\n\r\n"), to()), "BadRequestException", "Illegal address"},
		{"configuration set", sesInput(func(in *sesv2.SendEmailInput) { in.ConfigurationSetName = aws.String("a b") }), "BadRequestException", "configuration set"},
		{"reply-to", sesInput(func(in *sesv2.SendEmailInput) { in.ReplyToAddresses = []string{"x"} }), "BadRequestException", "reply-to"},
		{"stored template", sesInput(func(in *sesv2.SendEmailInput) {
			in.Content = &types.EmailContent{Template: &types.Template{TemplateName: aws.String("t")}}
		}), "NotFoundException", "Template t does not exist."},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, emulator.Options{})
			_, err := b.sesSDK().SendEmail(t.Context(), tc.in)
			wantAPIError(t, err, tc.code, tc.message)
			b.wantLedger(t)
		})
	}
}

func wantAPIError(t *testing.T, err error, code, message string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code || !strings.Contains(api.ErrorMessage(), message) {
		t.Errorf("error = %v, want %s ...%s...", err, code, message)
	}
}

func TestSESChecksTheSignature(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	static := func(id, secret string) func(*sesv2.Options) {
		return func(o *sesv2.Options) { o.Credentials = credentials.NewStaticCredentialsProvider(id, secret, "") }
	}
	_, err := b.sesSDK(static("AKIAX", key("ses", "secret_access_key"))).SendEmail(t.Context(), sesInput())
	wantAPIError(t, err, "UnrecognizedClientException", "security token")
	_, err = b.sesSDK(static(key("ses", "access_key_id"), "wrong")).SendEmail(t.Context(), sesInput())
	wantAPIError(t, err, "SignatureDoesNotMatch", "The request signature we calculated does not match")
	_, err = b.sesSDK(func(o *sesv2.Options) { o.Region = "eu-west-1" }).SendEmail(t.Context(), sesInput())
	wantAPIError(t, err, "SignatureDoesNotMatch", "us-east-1")
	var status *awshttp.ResponseError
	if !errors.As(err, &status) || status.HTTPStatusCode() != 403 {
		t.Errorf("status of %v is not 403", err)
	}
	b.wantStats(t, "ses", emulator.Stats{Requests: 3, Rejected: 3})
}

// signed makes a request that is signed by the SDK's signer at the given time and then changed.
func (b *server) signed(t *testing.T, at time.Time, change func(*http.Request)) answer {
	t.Helper()
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	req, err := http.NewRequest(http.MethodGet, b.URL()+"/ses/v2/email/account?b=2&a=x%20y", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Spaces", "  a   b ")
	cred := aws.Credentials{AccessKeyID: key("ses", "access_key_id"), SecretAccessKey: key("ses", "secret_access_key")}
	if err := v4.NewSigner().SignHTTP(context.Background(), cred, req, empty, "ses", key("ses", "region"), at); err != nil {
		t.Fatal(err)
	}
	change(req)
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return answer{status: res.StatusCode, header: res.Header}
}

func TestSESSignatureCoversEveryPart(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	tests := []struct {
		name   string
		ago    time.Duration
		change func(*http.Request)
		code   string
	}{
		{"untouched", 0, func(*http.Request) {}, ""},
		{"query", 0, func(r *http.Request) { r.URL.RawQuery = "a=x" }, "SignatureDoesNotMatch"},
		{"header", 0, set("X-Spaces", "other"), "SignatureDoesNotMatch"},
		{"date", 0, set("X-Amz-Date", "x"), "IncompleteSignatureException"},
		{"host", 0, func(r *http.Request) { r.Host = "localhost" }, "SignatureDoesNotMatch"},
		{"four minutes old", 4 * time.Minute, func(*http.Request) {}, ""},
		{"six minutes old", 6 * time.Minute, func(*http.Request) {}, "SignatureDoesNotMatch"},
		{"six minutes ahead", -6 * time.Minute, func(*http.Request) {}, "SignatureDoesNotMatch"},
		{"none", 0, func(r *http.Request) { r.Header.Del("Authorization") }, "MissingAuthenticationTokenException"},
		{"other scheme", 0, set("Authorization", "Basic x"), "IncompleteSignatureException"},
		{"short scope", 0, set("Authorization", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=x"), "IncompleteSignatureException"},
	}
	for _, tc := range tests {
		a := b.signed(t, time.Now().Add(-tc.ago), tc.change)
		wantStatus := http.StatusOK
		if tc.code != "" {
			wantStatus = http.StatusForbidden
		}
		if got := a.header.Get("x-amzn-ErrorType"); a.status != wantStatus || got != tc.code || a.header.Get("x-amzn-RequestId") == "" {
			t.Errorf("%s: answer = %d %q, want %d %q and a request id", tc.name, a.status, got, wantStatus, tc.code)
		}
	}
}

func TestSESSignatureCoversTheBody(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	tamper := func(o *sesv2.Options) { o.HTTPClient = tampering{b.http} }
	_, err := b.sesSDK(tamper).SendEmail(t.Context(), sesInput())
	wantAPIError(t, err, "SignatureDoesNotMatch", "does not match")
	b.wantLedger(t)
}

// tampering swaps one byte of the body for another after it was signed.
type tampering struct{ next *http.Client }

func (c tampering) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte(`"hi"`), []byte(`"ho"`), 1)))
	return c.next.Do(r)
}

func TestSESAccountTellsTheQuota(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{Limits: map[string][]limit.Window{"ses": {
		{N: 14, Per: time.Second, Unit: limit.Requests},
		{N: 200, Per: time.Second, Unit: limit.Recipients},
		{N: 50_000, Per: 24 * time.Hour, Unit: limit.Recipients},
	}}})
	if _, err := b.sesSDK().SendEmail(t.Context(), sesInput(to("a@example.org", "b@example.org"))); err != nil {
		t.Fatal(err)
	}
	out, err := b.sesSDK().GetAccount(t.Context(), &sesv2.GetAccountInput{})
	if err != nil {
		t.Fatalf("GetAccount: %v", err)
	}
	if q := out.SendQuota; q.MaxSendRate != 200 || q.Max24HourSend != 50_000 || q.SentLast24Hours != 2 {
		t.Errorf("quota = %+v, want 200 a second, 50000 a day, 2 sent", q)
	}
	if !out.SendingEnabled || aws.ToString(out.EnforcementStatus) != "HEALTHY" {
		t.Errorf("account = %+v, want it enabled and healthy", out)
	}
	_, err = b.sesSDK().GetDedicatedIps(t.Context(), &sesv2.GetDedicatedIpsInput{})
	wantAPIError(t, err, "UnknownOperationException", "")
}
