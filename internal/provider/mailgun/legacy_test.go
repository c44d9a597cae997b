package mailgun_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
)

// TestLegacyWebhooksAreNamed checks that a form of Mailgun's legacy webhooks gets its own reason if Mailgun signed it, and
// that its events are not taken.
func TestLegacyWebhooksAreNamed(t *testing.T) {
	t.Parallel()
	form := func(key string) url.Values {
		stamp := stamp(hookTime())
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(stamp + token))
		return url.Values{
			"event": {"bounced"}, "recipient": {"ann@example.org"}, "domain": {"example.com"}, "code": {"550"}, "gw_msg": {plainID().String()},
			"timestamp": {stamp}, "token": {token}, "signature": {hex.EncodeToString(mac.Sum(nil))},
		}
	}
	inParts := func(values url.Values) (kind, body string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for name := range values {
			_ = w.WriteField(name, values.Get(name))
		}
		_ = w.Close()
		return w.FormDataContentType(), b.String()
	}
	kind, parts := inParts(form(signingKey))
	const encoded = "application/x-www-form-urlencoded"
	for name, c := range map[string]struct{ kind, body, reason string }{
		"url-encoded":      {encoded + "; charset=utf-8", form(signingKey).Encode(), "legacy_webhook"},
		"in parts":         {kind, parts, "legacy_webhook"},
		"of another":       {encoded, form("another key").Encode(), "signature"},
		"unsigned":         {encoded, "event=bounced&recipient=ann%40example.org", "signature"},
		"another type":     {"text/plain", form(signingKey).Encode(), "legacy_webhook"},
		"no type":          {"", form(signingKey).Encode(), "legacy_webhook"},
		"no end":           {kind, parts[:len(parts)/2], "signature"},
		"no boundary":      {"multipart/form-data", parts, "signature"},
		"many parts":       {kind, strings.Repeat(parts, 3), "legacy_webhook"},
		"malformed fields": {encoded, "%zz&" + form(signingKey).Encode(), "legacy_webhook"},
	} {
		_, err := parser(t).Receive(t.Context(), &provider.Hook{Header: http.Header{"Content-Type": {c.kind}}, Body: []byte(c.body), Now: hookTime()})
		refused, ok := errors.AsType[*provider.HookError](err)
		if !ok || refused.Status != http.StatusNotAcceptable || refused.Reason != c.reason {
			t.Errorf("%s: %v, want 406 %s", name, err, c.reason)
		}
	}
}
