package ses

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

const sendRecord = `{"eventType":"Send","mail":{"timestamp":"2026-11-25T11:59:59.012Z","messageId":"0100-m","destination":["ann@example.org"],"tags":{"gw_msg":["0199c0de-0000-7000-8000-000000000001"]}},"send":{}}`

func TestReceiveTakesWhatSNSSigned(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(fields) fields{
		"version 2":         func(f fields) fields { return f },
		"version 1":         func(f fields) fields { return f.with("SignatureVersion", "1") },
		"with a subject":    func(f fields) fields { return f.with("Subject", "Amazon SES Email Event Notification") },
		"empty subject":     func(f fields) fields { return f.with("Subject", "") },
		"ten minutes early": func(f fields) fields { return f.with("Timestamp", "2026-11-25T12:10:00.000Z") },
		"two hours old":     func(f fields) fields { return f.with("Timestamp", "2026-11-25T10:00:00.000Z") },
		"line breaks":       func(f fields) fields { return f.with("Subject", "a\nb \"ä\" </x>\u2028") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, func(c *Config) { c.SNSSignatureVersion = "1" })
			got, err := b.Receive(t.Context(), hook(change(b.note(sendRecord)).signedBy(t, rsaKey())))
			if err != nil {
				t.Fatalf("Receive: %v", err)
			}
			id, _ := mail.ParseID("0199c0de-0000-7000-8000-000000000001")
			at := time.Date(2026, 11, 25, 11, 59, 59, 12e6, time.UTC)
			want := provider.Batch{Payloads: []mail.Payload{{
				Raw: []byte(sendRecord),
				Events: []mail.Event{{
					Type: mail.EventAccepted, Name: "Send", MessageID: id, ProviderMessageID: "0100-m",
					At: at, Recipient: "ann@example.org",
				}},
			}}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("batch (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(got.Payloads[0].Events, b.Parse(got.Payloads[0].Raw)); diff != "" {
				t.Errorf("Parse of the payload (-received +parsed):\n%s", diff)
			}
		})
	}
}

func TestReceiveRefusesWhatIsNotSigned(t *testing.T) {
	t.Parallel()
	flip := func(field string) func(*testing.T, *bed) []byte {
		return func(t *testing.T, b *bed) []byte {
			t.Helper()
			var f fields
			_ = json.Unmarshal(b.note(sendRecord).with("Subject", "s").signedBy(t, rsaKey()), &f)
			value := []byte(f[field])
			value[len(value)-2] ^= 1
			return f.with(field, string(value)).body(t)
		}
	}
	without := func(field string) func(*testing.T, *bed) []byte {
		return func(t *testing.T, b *bed) []byte {
			t.Helper()
			var f fields
			_ = json.Unmarshal(b.note(sendRecord).with("Subject", "s").signedBy(t, rsaKey()), &f)
			delete(f, field)
			return f.body(t)
		}
	}
	for name, c := range map[string]struct {
		body   func(*testing.T, *bed) []byte
		reason string
	}{
		"bit of the message":   {flip("Message"), "signature"},
		"bit of the id":        {flip("MessageId"), "signature"},
		"bit of the timestamp": {flip("Timestamp"), "signature"},
		"subject changed":      {func(t *testing.T, b *bed) []byte { return tampered(t, b, "Subject", "x") }, "signature"},
		"subject added":        {func(t *testing.T, b *bed) []byte { return tampered(t, b, "Subject", "") }, "signature"},
		"subject taken away":   {without("Subject"), "signature"},
		"no signature":         {without("Signature"), "signature"},
		"signature changed": {func(t *testing.T, b *bed) []byte {
			return bent(t, b.note(sendRecord), rsaKey())
		}, "signature"},
		"signature is no base64": {func(t *testing.T, b *bed) []byte { return tampered(t, b, "Signature", "%%%") }, "signature"},
		"version 1 declared 2": {func(t *testing.T, b *bed) []byte {
			var f fields
			_ = json.Unmarshal(b.note(sendRecord).with("SignatureVersion", "1").signedBy(t, rsaKey()), &f)
			return f.with("SignatureVersion", "2").body(t)
		}, "signature"},
		"kind changed":      {func(t *testing.T, b *bed) []byte { return tampered(t, b, "Type", "UnsubscribeConfirmation") }, "signature"},
		"unknown kind":      {func(t *testing.T, b *bed) []byte { return b.note("{}").with("Type", "Other").signedBy(t, rsaKey()) }, "signature"},
		"no JSON":           {func(*testing.T, *bed) []byte { return []byte(sendRecord[1:]) }, "signature"},
		"an array":          {func(*testing.T, *bed) []byte { return []byte(`[{"Type":"Notification"}]`) }, "signature"},
		"message an object": {func(*testing.T, *bed) []byte { return []byte(`{"Type":"Notification","Message":{}}`) }, "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, func(c *Config) { c.SNSSignatureVersion = "1" })
			batch, err := b.Receive(t.Context(), hook(c.body(t, b)))
			wantRefused(t, err, http.StatusForbidden, c.reason)
			if diff := cmp.Diff(provider.Batch{}, batch); diff != "" {
				t.Errorf("a refused request gave a batch:\n%s", diff)
			}
		})
	}
}

// tampered changes a field after the signature.
func tampered(t *testing.T, b *bed, field, value string) []byte {
	t.Helper()
	var f fields
	_ = json.Unmarshal(b.note(sendRecord).signedBy(t, rsaKey()), &f)
	return f.with(field, value).body(t)
}

// bent changes one bit of the signature.
func bent(t *testing.T, f fields, key *rsa.PrivateKey) []byte {
	t.Helper()
	var signed fields
	_ = json.Unmarshal(f.signedBy(t, key), &signed)
	raw, err := base64.StdEncoding.DecodeString(signed["Signature"])
	if err != nil {
		t.Fatal(err)
	}
	raw[100] ^= 1
	return signed.with("Signature", base64.StdEncoding.EncodeToString(raw)).body(t)
}

// These requests are refused before anything is fetched, although all of them have a valid signature.
func TestReceiveRefusesBeforeItFetches(t *testing.T) {
	t.Parallel()
	foreign := "arn:aws:sns:eu-west-1:999999999999:ses-events"
	for name, c := range map[string]struct {
		config func(*Config)
		change func(*bed) fields
		header http.Header
		reason string
	}{
		"raw delivery":  {nil, func(b *bed) fields { return b.note(sendRecord) }, http.Header{"X-Amz-Sns-Rawdelivery": {"true"}}, "raw_delivery"},
		"no topics":     {func(c *Config) { c.SNSTopicARNs = nil }, func(b *bed) fields { return b.note(sendRecord) }, nil, "unconfigured"},
		"foreign topic": {nil, func(b *bed) fields { return b.note(sendRecord).with("TopicArn", foreign) }, nil, "topic"},
		"foreign topic asks": {
			func(c *Config) { c.SNSConfirmUntil = noon().Add(time.Hour) },
			func(b *bed) fields { return b.handshake(subscribed).with("TopicArn", foreign) }, nil, "topic",
		},
		"no topic":          {nil, func(b *bed) fields { return b.note(sendRecord).with("TopicArn", "") }, nil, "topic"},
		"version 1":         {nil, func(b *bed) fields { return b.note(sendRecord).with("SignatureVersion", "1") }, nil, "version"},
		"version 3":         {func(c *Config) { c.SNSSignatureVersion = "1" }, func(b *bed) fields { return b.note(sendRecord).with("SignatureVersion", "3") }, nil, "version"},
		"no version":        {nil, func(b *bed) fields { return b.note(sendRecord).with("SignatureVersion", "") }, nil, "version"},
		"from the future":   {nil, func(b *bed) fields { return b.note(sendRecord).with("Timestamp", "2026-11-25T12:10:00.001Z") }, nil, "timestamp"},
		"stale":             {nil, func(b *bed) fields { return b.note(sendRecord).with("Timestamp", "2026-11-25T09:59:59.999Z") }, nil, "timestamp"},
		"no time":           {nil, func(b *bed) fields { return b.note(sendRecord).with("Timestamp", "yesterday") }, nil, "timestamp"},
		"asks, never asked": {nil, func(b *bed) fields { return b.handshake(subscribed) }, nil, "confirmation"},
		"asks too late": {
			func(c *Config) { c.SNSConfirmUntil = noon() },
			func(b *bed) fields { return b.handshake(subscribed) }, nil, "confirmation",
		},
		"certificate elsewhere": {nil, func(b *bed) fields {
			return b.note(sendRecord).with("SigningCertURL", strings.TrimSuffix(b.base, "/ses")+certFile)
		}, nil, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, c.config)
			h := hook(c.change(b).signedBy(t, rsaKey()))
			if c.header != nil {
				h.Header = c.header
			}
			_, err := b.Receive(t.Context(), h)
			wantRefused(t, err, http.StatusForbidden, c.reason)
			if n := b.fetches.Load(); n != 0 || b.confirmed.Load() != nil {
				t.Errorf("%d fetches, confirmed %v; want no call at all", n, b.confirmed.Load())
			}
		})
	}
}

func TestReceiveNotesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	for name, c := range map[string]struct {
		fields fields
		note   string
	}{
		"validation":  {b.note("Successfully validated SNS topic for Amazon SES event publishing."), "topic validated"},
		"unsubscribe": {b.handshake(unsubscribed), "subscription ended"},
	} {
		got, err := b.Receive(t.Context(), hook(c.fields.signedBy(t, rsaKey())))
		if diff := cmp.Diff(provider.Batch{Note: c.note}, got); err != nil || diff != "" {
			t.Errorf("%s: %v, batch (-want +got):\n%s", name, err, diff)
		}
	}
	if b.confirmed.Load() != nil {
		t.Error("something was confirmed")
	}
}

func TestSubscriptionIsConfirmedByItsToken(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(c *Config) { c.SNSConfirmUntil = noon().Add(time.Second) })
	got, err := b.Receive(t.Context(), hook(b.handshake(subscribed).signedBy(t, rsaKey())))
	if diff := cmp.Diff(provider.Batch{Note: "subscription confirmed"}, got); err != nil || diff != "" {
		t.Fatalf("Receive: %v, batch (-want +got):\n%s", err, diff)
	}
	want := &url.Values{
		"Action": {"ConfirmSubscription"}, "Version": {"2010-03-31"}, "TopicArn": {testTopic},
		"Token": {"2336412f37fb687f5d51e6e2425dacbbaeec"},
	}
	if diff := cmp.Diff(want, b.confirmed.Load()); diff != "" {
		t.Errorf("call (-want +got):\n%s", diff)
	}
	_, err = b.Receive(t.Context(), hook(bent(t, b.handshake(subscribed), rsaKey())))
	wantRefused(t, err, http.StatusForbidden, "signature")
}

func TestConfirmationThatFails(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]struct {
		status int
		reason string
	}{
		http.StatusBadRequest:          {http.StatusForbidden, "confirmation"},
		http.StatusForbidden:           {http.StatusForbidden, "confirmation"},
		http.StatusFound:               {http.StatusForbidden, "confirmation"},
		http.StatusTooManyRequests:     {http.StatusServiceUnavailable, "confirmation_unavailable"},
		http.StatusInternalServerError: {http.StatusServiceUnavailable, "confirmation_unavailable"},
		http.StatusServiceUnavailable:  {http.StatusServiceUnavailable, "confirmation_unavailable"},
	} {
		b := newBed(t, func(c *Config) { c.SNSConfirmUntil = noon().Add(time.Hour) })
		if _, err := b.Receive(t.Context(), hook(b.note("{}").signedBy(t, rsaKey()))); err != nil {
			t.Fatalf("Receive: %v", err) // and the certificate is known
		}
		b.status.Store(int64(status))
		_, err := b.Receive(t.Context(), hook(b.handshake(subscribed).signedBy(t, rsaKey())))
		wantRefused(t, err, want.status, want.reason)
	}
	b := newBed(t, func(c *Config) { c.SNSConfirmUntil = noon().Add(time.Hour) })
	if _, err := b.Receive(t.Context(), hook(b.note("{}").signedBy(t, rsaKey()))); err != nil {
		t.Fatalf("Receive: %v", err)
	}
	b.srv.Close()
	_, err := b.Receive(t.Context(), hook(b.handshake(subscribed).signedBy(t, rsaKey())))
	wantRefused(t, err, http.StatusServiceUnavailable, "confirmation_unavailable")
}

func TestEvents(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	const ours, theirs = "key of SNS", "key of a stranger"
	providertest.RunEvents(t, providertest.EventSuite{
		Secrets: [3]string{ours, "", theirs},
		New: func(t *testing.T, newest, _ string) provider.EventParser {
			t.Helper()
			if newest == "" {
				return newBed(t, func(c *Config) { c.SNSTopicARNs = nil })
			}
			return b
		},
		Sign: func(t *testing.T, secret, payload string) *provider.Hook {
			t.Helper()
			if secret == ours {
				return hook(b.note(payload).signedBy(t, rsaKey()))
			}
			return hook(b.note(payload).signedBy(t, otherKey()))
		},
		Refused: 403, Unconfigured: 403,
		Readable:   sendRecord,
		Unreadable: []string{"", "plain text", "[]", "null", `{"eventType":"Brand New","mail":{}}`, "{", "Success"},
	})
}

func TestParseTopic(t *testing.T) {
	t.Parallel()
	for arn, want := range map[string]string{
		testTopic: "https://sns.eu-west-1.amazonaws.com",
		"arn:aws-cn:sns:cn-north-1:123456789012:t":         "https://sns.cn-north-1.amazonaws.com.cn",
		"arn:aws-us-gov:sns:us-gov-west-1:123456789012:t":  "https://sns.us-gov-west-1.amazonaws.com",
		"arn:aws-eusc:sns:eusc-de-east-1:123456789012:t":   "https://sns.eusc-de-east-1.amazonaws.eu",
		"arn:aws:sns:cn-north-1:123456789012:t":            "",
		"arn:aws-cn:sns:eu-west-1:123456789012:t":          "",
		"arn:aws:sns:s3-us-west-2:123456789012:t":          "", // a bucket named sns
		"arn:aws:sns:eu-west-1.evil.test:123456789012:t":   "",
		"arn:aws:sns:eu-west-1:123456789012:t.fifo":        "",
		"arn:aws:sqs:eu-west-1:123456789012:t":             "",
		"arn:aws:sns:eu-west-1:12345:t":                    "",
		"arn:aws:sns:eu-west-1:123456789012:t\n":           "",
		"arn:aws:sns:eu-west-1:123456789012:t:0f6d7c8e-ab": "",
		"": "",
	} {
		at, ok := parseTopic(arn)
		if got := (&Client{}).endpoint(at); ok != (want != "") || ok && got != want {
			t.Errorf("parseTopic(%q) = %v, endpoint %s; want %q", arn, ok, got, want)
		}
	}
}

// Nothing that we did not sign is ever taken, and nothing makes Receive panic or call anyone.
func FuzzReceive(f *testing.F) {
	b := newBed(f, func(c *Config) { c.SNSSignatureVersion, c.SNSConfirmUntil = "1", noon().Add(time.Hour) })
	f.Add(b.note(sendRecord).signedBy(f, otherKey()))
	f.Add(b.note(sendRecord).with("SignatureVersion", "1", "Subject", "s").signedBy(f, otherKey()))
	f.Add(b.handshake(subscribed).signedBy(f, otherKey()))
	f.Add(b.handshake(unsubscribed).signedBy(f, otherKey()))
	f.Add([]byte(`{"Type":"Notification","TopicArn":"` + testTopic + `"}`))
	f.Add([]byte(sendRecord))
	f.Fuzz(func(t *testing.T, body []byte) {
		batch, err := b.Receive(t.Context(), hook(body))
		if err == nil {
			t.Errorf("an unsigned request was taken: %+v", batch)
		}
		if b.confirmed.Load() != nil {
			t.Error("an unsigned request was confirmed")
		}
	})
}
