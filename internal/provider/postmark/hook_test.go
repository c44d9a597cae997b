package postmark_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	testPassword = "hook-password-0123456789abcdefghijklmn"
	oldPassword  = "hook-password-of-yesterday"
	testHookName = "X-Sendgate-Token"
	testHookCode = "hook-token-0123456789abcdefghijklmnopq"
	oldHookCode  = "hook-token-of-yesterday"
)

func withPassword(c *postmark.Config) { c.WebhookPassword = seal.NewSecret(testPassword) }

func withHeader(c *postmark.Config) {
	c.WebhookHeader, c.WebhookToken = testHookName, seal.NewSecret(testHookCode)
}

// basic is a request of a webhook with basic auth.
func basic(user, password, body string) *provider.Hook {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return &provider.Hook{Header: r.Header, Body: []byte(body), Now: time.Unix(1_790_000_000, 0)}
}

func withToken(token, body string) *provider.Hook {
	h := http.Header{}
	h.Set(testHookName, token)
	return &provider.Hook{Header: h, Body: []byte(body), Now: time.Unix(1_790_000_000, 0)}
}

// receive takes one request and gives its only event.
func receive(t *testing.T, body string) mail.Event {
	t.Helper()
	c := newClient(t, "", withPassword)
	b, err := c.Receive(t.Context(), basic("sendgate", testPassword, body))
	if err != nil {
		t.Fatalf("Receive(%.100s) = %v", body, err)
	}
	if len(b.Payloads) != 1 || len(b.Payloads[0].Events) != 1 || string(b.Payloads[0].Raw) != body {
		t.Fatalf("Receive(%.100s) = %+v, want the body whole with one event", body, b)
	}
	if diff := cmp.Diff(b.Payloads[0].Events, c.Parse(b.Payloads[0].Raw)); diff != "" {
		t.Errorf("Parse reads the payload otherwise (-received +parsed):\n%s", diff)
	}
	return b.Payloads[0].Events[0]
}

// A 403 would make Postmark stop for good.
func TestCredentialsAreCheckedAndRefusedWith401(t *testing.T) {
	t.Parallel()
	both := func(c *postmark.Config) {
		withPassword(c)
		withHeader(c)
		c.WebhookPasswordPrevious, c.WebhookTokenPrevious = seal.NewSecret(oldPassword), seal.NewSecret(oldHookCode)
	}
	named := func(c *postmark.Config) {
		withPassword(c)
		c.WebhookUsername = "shop"
	}
	for _, c := range []struct {
		name      string
		configure func(*postmark.Config)
		hook      *provider.Hook
		want      string // reason of the refusal, "" for none
	}{
		{"own name", named, basic("shop", testPassword, "{}"), ""},
		{"token", withHeader, withToken(testHookCode, "{}"), ""},
		{"token beside a password", both, withToken(testHookCode, "{}"), ""},
		{"previous token", both, withToken(oldHookCode, "{}"), ""},
		{"password beside a token", both, basic("sendgate", testPassword, "{}"), ""},

		{"start of the password", withPassword, basic("sendgate", testPassword[:8], "{}"), "credentials"},
		{"wrong name", withPassword, basic("shop", testPassword, "{}"), "credentials"},
		{"default name", named, basic("sendgate", testPassword, "{}"), "credentials"},
		{"server token", withPassword, basic("sendgate", testToken, "{}"), "credentials"},
		{"wrong token", withHeader, withToken(testHookCode+"x", "{}"), "credentials"},
		{"empty token", withHeader, withToken("", "{}"), "credentials"},
		{"password as token", both, withToken(testPassword, "{}"), "credentials"},
		{"token as password", both, basic("sendgate", testHookCode, "{}"), "credentials"},
	} {
		b, err := newClient(t, "", c.configure).Receive(t.Context(), c.hook)
		var refused *provider.HookError
		switch {
		case c.want == "" && (err != nil || len(b.Payloads) != 1):
			t.Errorf("%s: %+v, %v, want it taken", c.name, b, err)
		case c.want != "" && (!errors.As(err, &refused) || refused.Status != http.StatusUnauthorized || refused.Reason != c.want || len(b.Payloads) > 0):
			t.Errorf("%s: %+v, %v, want 401 %s", c.name, b, err, c.want)
		}
	}
}

func TestTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	_, err := newClient(t, "", withPassword).Receive(t.Context(), basic("sendgate", testPassword, strings.Repeat(" ", provider.MaxHook+1)))
	var refused *provider.HookError
	if !errors.As(err, &refused) || refused.Status != http.StatusRequestEntityTooLarge || refused.Reason != "too_large" {
		t.Errorf("Receive = %v, want 413", err)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	providertest.RunEvents(t, providertest.EventSuite{
		Secrets: [3]string{testPassword, oldPassword, testPassword + "x"},
		New: func(t *testing.T, newest, previous string) provider.EventParser {
			t.Helper()
			return newClient(t, "", func(c *postmark.Config) {
				c.WebhookPassword, c.WebhookPasswordPrevious = seal.NewSecret(newest), seal.NewSecret(previous)
			})
		},
		Sign:    func(_ *testing.T, secret, payload string) *provider.Hook { return basic("sendgate", secret, payload) },
		Refused: 401, Unconfigured: 401,
		Readable: `{"RecordType":"Delivery","MessageID":"0a129aee","Recipient":"ann@example.org","DeliveredAt":"2026-09-21T14:13:20Z"}`,
		Unreadable: []string{
			"", "null", "{", "7", `[{"RecordType":"Delivery"}]`, `{"RecordType":"Delivery"} x`, "{}", `{"RecordType":["Bounce"]}`, `{"recordtype":"Bounce"}`, "\xff",
		},
	})
}

func TestWebhookSettingsAreChecked(t *testing.T) {
	t.Parallel()
	s := seal.NewSecret
	for name, c := range map[string]struct {
		change func(*postmark.Config)
		ok     bool
	}{
		"password":               {withPassword, true},
		"header and token":       {withHeader, true},
		"header alone":           {func(c *postmark.Config) { c.WebhookHeader = "X-A" }, false},
		"token alone":            {func(c *postmark.Config) { c.WebhookToken = s("a") }, false},
		"previous token alone":   {func(c *postmark.Config) { c.WebhookTokenPrevious = s("a") }, false},
		"header with a space":    {func(c *postmark.Config) { c.WebhookHeader, c.WebhookToken = "X A", s("a") }, false},
		"Authorization":          {func(c *postmark.Config) { c.WebhookHeader, c.WebhookToken = "authorization", s("a") }, false},
		"name with a colon":      {func(c *postmark.Config) { c.WebhookUsername = "a:b" }, false},
		"password with a space":  {func(c *postmark.Config) { c.WebhookPassword = s("a b") }, false},
		"password with a line":   {func(c *postmark.Config) { c.WebhookPasswordPrevious = s("a\nb") }, false},
		"token that is no ASCII": {func(c *postmark.Config) { c.WebhookHeader, c.WebhookToken = "X-A", s("é") }, false},
	} {
		cfg := postmark.Config{ServerToken: s(testToken)}
		c.change(&cfg)
		if err := cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: Validate = %v, want ok %t", name, err, c.ok)
		}
	}
}
