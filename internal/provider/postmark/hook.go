package postmark

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// Receive implements provider.EventParser. Postmark retries after every answer except 200, and never after 403 ("Webhooks
// overview", retries). So wrong credentials are answered with 401: they may be right tomorrow.
func (c *Client) Receive(_ context.Context, h *provider.Hook) (provider.Batch, error) {
	if err := c.CheckHeader(h.Header, h.Now); err != nil {
		return provider.Batch{}, err
	}
	if len(h.Body) > provider.MaxHook {
		return provider.Batch{}, &provider.HookError{Status: http.StatusRequestEntityTooLarge, Reason: "too_large"}
	}
	return provider.Batch{Payloads: []mail.Payload{{Raw: h.Body, Events: c.Parse(h.Body)}}}, nil
}

// CheckHeader implements provider.HeaderChecker: the credentials are the only proof of a request.
func (c *Client) CheckHeader(header http.Header, _ time.Time) error {
	switch {
	case !c.cfg.receives():
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "unconfigured"}
	case !c.authentic(header):
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "credentials", Guess: true}
	}
	return nil
}

// receives reports whether there is a secret that a webhook can authenticate with.
func (c Config) receives() bool { return len(c.passwords())+len(c.tokens()) > 0 }

func (c Config) passwords() []seal.Secret { return set(c.WebhookPassword, c.WebhookPasswordPrevious) }

func (c Config) tokens() []seal.Secret { return set(c.WebhookToken, c.WebhookTokenPrevious) }

// set drops the secrets that are empty.
func set(secrets ...seal.Secret) []seal.Secret {
	var out []seal.Secret
	for _, s := range secrets {
		if !s.IsZero() {
			out = append(out, s)
		}
	}
	return out
}

// authentic compares with every possible secret. The time of each comparison depends only on the request.
func (c *Client) authentic(header http.Header) bool {
	user, password, _ := (&http.Request{Header: header}).BasicAuth()
	named := same(user, c.cfg.username())
	ok := 0
	for _, s := range c.cfg.passwords() {
		ok |= named & same(password, s.Reveal())
	}
	for _, s := range c.cfg.tokens() {
		ok |= same(header.Get(c.cfg.WebhookHeader), s.Reveal())
	}
	return ok == 1
}

// same is 1 for equal texts, else 0. Hashing makes the time independent of the length of the secret.
func same(got, want string) int {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:])
}
