package resend

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// tolerance is how far the time in a signature may be from ours (Standard Webhooks, "Verifying webhook authenticity").
const tolerance = 5 * time.Minute

// maxSignatures caps how many signatures of one request are compared. There are several during the rotation of a secret.
const maxSignatures = 10

// Receive implements provider.EventParser. The signature is over the id, the time and the raw body ("Verify Webhooks Requests").
// Resend retries after every answer except a success. Problems that may be fixed tomorrow are answered with 401.
func (c *Client) Receive(_ context.Context, h *provider.Hook) (provider.Batch, error) {
	if err := c.CheckHeader(h.Header, h.Now); err != nil {
		return provider.Batch{}, err
	}
	if len(h.Body) > provider.MaxHook {
		return provider.Batch{}, &provider.HookError{Status: http.StatusRequestEntityTooLarge, Reason: "too_large"}
	}
	if !c.signed(h) {
		return provider.Batch{}, &provider.HookError{Status: http.StatusUnauthorized, Reason: "signature"}
	}
	events := c.Parse(h.Body)
	if len(events) > provider.MaxHookEvents {
		return provider.Batch{}, &provider.HookError{Status: http.StatusRequestEntityTooLarge, Reason: "too_large"}
	}
	return provider.Batch{Payloads: []mail.Payload{{Raw: h.Body, Events: events}}}, nil
}

// CheckHeader implements provider.HeaderChecker: no body is read without an id, a signature and a time near ours.
func (c *Client) CheckHeader(header http.Header, now time.Time) error {
	seconds, err := strconv.ParseInt(signatureHeader(header, "timestamp"), 10, 64)
	switch {
	case c.cfg.WebhookSecret.IsZero() && c.cfg.WebhookSecretPrevious.IsZero():
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "unconfigured"}
	case signatureHeader(header, "id") == "" || signatureHeader(header, "signature") == "" || err != nil:
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "signature"}
	case now.Sub(time.Unix(seconds, 0)).Abs() > tolerance:
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "timestamp"}
	}
	return nil
}

// signatureHeader reads a header under its name at Resend, or under the one of Standard Webhooks.
func signatureHeader(h http.Header, name string) string {
	if v := h.Get("svix-" + name); v != "" {
		return v
	}
	return h.Get("webhook-" + name)
}

// signed compares every signature of the request with one made with each secret.
func (c *Client) signed(h *provider.Hook) bool {
	signed := signatureHeader(h.Header, "id") + "." + signatureHeader(h.Header, "timestamp") + "."
	var given [][]byte
	for _, s := range strings.Fields(signatureHeader(h.Header, "signature")) {
		text, ok := strings.CutPrefix(s, "v1,")
		if sum, err := base64.StdEncoding.DecodeString(text); ok && err == nil && len(given) < maxSignatures {
			given = append(given, sum)
		}
	}
	ok := false
	for _, secret := range []seal.Secret{c.cfg.WebhookSecret, c.cfg.WebhookSecretPrevious} {
		if secret.IsZero() {
			continue // anybody can sign with an empty key
		}
		mac := hmac.New(sha256.New, signingKey(secret))
		mac.Write([]byte(signed))
		mac.Write(h.Body)
		want := mac.Sum(nil)
		for _, sum := range given {
			ok = hmac.Equal(sum, want) || ok
		}
	}
	return ok
}
