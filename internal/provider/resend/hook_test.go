package resend_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/resend"
	"github.com/sendgate/sendgate/internal/seal"
)

func noon() time.Time { return time.Unix(1_790_000_000, 0) }

// secretOf is a signing secret as Resend shows it.
func secretOf(fill string) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(fill, 24)))
}

func withSecrets(c *resend.Config) {
	c.WebhookSecret, c.WebhookSecretPrevious = seal.NewSecret(secretOf("a")), seal.NewSecret(secretOf("b"))
}

func signature(fill, id string, at time.Time, body string) string {
	mac := hmac.New(sha256.New, []byte(strings.Repeat(fill, 24)))
	mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signed is a request as Resend makes it, with the header names given.
func signed(prefix, body, signatures string, at time.Time) *provider.Hook {
	h := http.Header{}
	h.Set(prefix+"-id", "msg_1")
	h.Set(prefix+"-timestamp", strconv.FormatInt(at.Unix(), 10))
	h.Set(prefix+"-signature", signatures)
	return &provider.Hook{Header: h, Body: []byte(body), Now: noon()}
}

const delivered = `{"type":"email.delivered","created_at":"2026-09-21T14:13:20.123Z","data":{"email_id":"e-1","to":["ann@example.org"]}}`

func TestEvents(t *testing.T) {
	t.Parallel()
	fills := map[string]string{secretOf("a"): "a", secretOf("b"): "b", secretOf("c"): "c"}
	providertest.RunEvents(t, providertest.EventSuite{
		Secrets: [3]string{secretOf("a"), secretOf("b"), secretOf("c")},
		New: func(t *testing.T, newest, previous string) provider.EventParser {
			t.Helper()
			return newClient(t, "", func(c *resend.Config) {
				c.WebhookSecret, c.WebhookSecretPrevious = seal.NewSecret(newest), seal.NewSecret(previous)
			})
		},
		Sign: func(_ *testing.T, secret, payload string) *provider.Hook {
			return signed("svix", payload, signature(fills[secret], "msg_1", noon(), payload), noon())
		},
		Refused: 401, Unconfigured: 401,
		Readable:   delivered,
		Unreadable: []string{"", "{", "[]", `{"type":7}`, `{"type":"email.sent","data":{"to":"ann@example.org"}}`, `{"type":"email.bounced","data":{"bounce":7}}`},
	})
}

func TestOnlyWhatResendSignedIsTaken(t *testing.T) {
	t.Parallel()
	good := func(at time.Time) string { return signature("a", "msg_1", at, delivered) }
	for name, tc := range map[string]struct {
		hook   *provider.Hook
		reason string // "" when it is taken
	}{
		"names of Standard Webhooks":  {signed("webhook", delivered, good(noon()), noon()), ""},
		"one of several signatures":   {signed("svix", delivered, "v1,AAAA v2,BBBB "+good(noon()), noon()), ""},
		"within the tolerance":        {signed("svix", delivered, good(noon().Add(-5*time.Minute)), noon().Add(-5*time.Minute)), ""},
		"too old":                     {signed("svix", delivered, good(noon().Add(-301*time.Second)), noon().Add(-301*time.Second)), "timestamp"},
		"of the future":               {signed("svix", delivered, good(noon().Add(301*time.Second)), noon().Add(301*time.Second)), "timestamp"},
		"another body":                {signed("svix", delivered+" ", good(noon()), noon()), "signature"},
		"another id":                  {signed("svix", delivered, signature("a", "msg_2", noon(), delivered), noon()), "signature"},
		"another time":                {signed("svix", delivered, good(noon()), noon().Add(time.Second)), "signature"},
		"another version":             {signed("svix", delivered, strings.Replace(good(noon()), "v1,", "v2,", 1), noon()), "signature"},
		"a bare signature":            {signed("svix", delivered, strings.TrimPrefix(good(noon()), "v1,"), noon()), "signature"},
		"no signature":                {signed("svix", delivered, "", noon()), "signature"},
		"more signatures than we try": {signed("svix", delivered, strings.Repeat("v1,AAAA ", 10)+good(noon()), noon()), "signature"},
	} {
		_, err := newClient(t, "", withSecrets).Receive(t.Context(), tc.hook)
		var refused *provider.HookError
		switch {
		case tc.reason == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.reason != "" && (!errors.As(err, &refused) || refused.Reason != tc.reason || refused.Status != http.StatusUnauthorized):
			t.Errorf("%s: %v, want 401 for the %s", name, err, tc.reason)
		}
	}
}

func TestASecretMustBeOneOfResend(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"whsec_", "whsec_???", "whsec_c2hvcnQ=", strings.TrimPrefix(secretOf("a"), "whsec_")} {
		_, err := resend.ParseConfig(nil, map[string]seal.Secret{"api_key": seal.NewSecret(testKey), "webhook_secret": seal.NewSecret(bad)})
		if err == nil || strings.Contains(err.Error(), bad) && len(bad) > 6 {
			t.Errorf("webhook_secret %s: %v, want an error that does not hold it", bad, err)
		}
	}
}

func TestEventsGetOurWords(t *testing.T) {
	t.Parallel()
	const id = "0199c0de-0000-7000-8000-000000000001"
	body := func(kind, to, more string) string {
		return `{"type":"` + kind + `","created_at":"2026-09-21T14:13:20.123Z","data":{"email_id":"e-1","to":[` + to + `],"tags":{"gw_msg":"` + id + `"}` + more + `}}`
	}
	const ann = `"Ann <ann@example.org>"`
	bounce := func(kind, sub, text string) string {
		return `,"bounce":{"type":"` + kind + `","subType":"` + sub + `","message":"m","diagnosticCode":["` + text + `"]}`
	}
	for name, tc := range map[string]struct {
		body   string
		event  mail.EventType
		reason mail.Reason // of the bounce
		class  mail.BounceClass
	}{
		"sent":                          {body("email.sent", ann, ""), mail.EventAccepted, "", ""},
		"delivered":                     {body("email.delivered", ann, ""), mail.EventDelivered, "", ""},
		"delayed":                       {body("email.delivery_delayed", ann, ""), mail.EventDeferred, mail.Connection, mail.Soft},
		"complained":                    {body("email.complained", ann, ""), mail.EventComplained, "", ""},
		"failed":                        {body("email.failed", ann, `,"failed":{"reason":"reached_daily_quota"}`), mail.EventRejected, mail.OtherReason, ""},
		"suppressed":                    {body("email.suppressed", ann, `,"suppressed":{"reason":"previous_bounce"}`), mail.EventRejected, mail.SuppressedBounce, ""},
		"suppressed for spam":           {body("email.suppressed", ann, `,"suppressed":{"reason":"previous_complaint"}`), mail.EventRejected, mail.SuppressedComplaint, ""},
		"opened":                        {body("email.opened", ann, ""), mail.EventOpened, "", ""},
		"clicked":                       {body("email.clicked", ann, `,"click":{"link":"https://x.example/"}`), mail.EventClicked, "", ""},
		"scheduled":                     {body("email.scheduled", ann, ""), mail.EventUnmapped, "", ""},
		"received":                      {body("email.received", ann, ""), mail.EventUnmapped, "", ""},
		"of tomorrow":                   {body("email.teleported", ann, ""), mail.EventUnmapped, "", ""},
		"unknown user":                  {body("email.bounced", ann, bounce("Permanent", "General", "smtp; 550 5.1.1 user unknown")), mail.EventBounced, mail.InvalidAddress, mail.Hard},
		"no mailbox":                    {body("email.bounced", ann, bounce("Permanent", "NoEmail", "")), mail.EventBounced, mail.InvalidAddress, mail.Hard},
		"general, for spam":             {body("email.bounced", ann, bounce("Permanent", "General", "smtp; 550 5.7.1 message rejected as spam")), mail.EventBounced, "", mail.PolicyClass},
		"full":                          {body("email.bounced", ann, bounce("Transient", "MailboxFull", "")), mail.EventBounced, mail.MailboxFull, mail.Soft},
		"transient, whatever the words": {body("email.bounced", ann, bounce("Transient", "General", "smtp; 550 5.1.1 user unknown")), mail.EventBounced, mail.Undetermined, mail.Soft},
		"undetermined":                  {body("email.bounced", ann, bounce("Undetermined", "Undetermined", "")), mail.EventBounced, mail.Undetermined, mail.Soft},
		"a bounce without why":          {body("email.bounced", ann, ""), mail.EventBounced, mail.Undetermined, mail.Soft},
	} {
		events := newClient(t, "").Parse([]byte(tc.body))
		if len(events) != 1 || events[0].Type != tc.event {
			t.Errorf("%s: %+v, want one event %s", name, events, tc.event)
			continue
		}
		e := events[0]
		if e.MessageID.String() != id || e.ProviderMessageID != "e-1" || e.At.IsZero() {
			t.Errorf("%s: %+v, want the ids and the time", name, e)
		}
		if tc.event != mail.EventUnmapped && e.Recipient != "ann@example.org" {
			t.Errorf("%s: recipient %q", name, e.Recipient)
		}
		switch {
		case (e.Bounce == nil) != (tc.class == "" && tc.reason == ""):
			t.Errorf("%s: bounce %+v", name, e.Bounce)
		case e.Bounce != nil && (e.Bounce.Class != tc.class || tc.reason != "" && e.Bounce.Reason != tc.reason):
			t.Errorf("%s: bounce %+v, want %s, %s", name, e.Bounce, tc.class, tc.reason)
		}
	}
}

// An event about several recipients becomes one event for each. It is not known who of them opened a mail.
func TestAnEventIsAboutEachOfItsRecipients(t *testing.T) {
	t.Parallel()
	several := func(kind string) []mail.Event {
		return newClient(t, "").Parse([]byte(`{"type":"` + kind + `","data":{"to":["ann@example.org","bob@example.org"],
			"bounce":{"type":"Permanent","subType":"General","diagnosticCode":["smtp; 550 5.1.1 no such user","smtp; 452 4.2.2 over quota"]}}}`))
	}
	bounced := several("email.bounced")
	if len(bounced) != 2 || bounced[0].Bounce.Class != mail.Hard || bounced[1].Recipient != "bob@example.org" || bounced[1].Bounce.Class == mail.Hard {
		t.Errorf("bounced = %+v, want a hard one and another", bounced)
	}
	if opened := several("email.opened"); len(opened) != 1 || opened[0].Recipient != "" {
		t.Errorf("opened = %+v, want one of nobody", opened)
	}
}
