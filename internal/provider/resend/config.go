// Package resend sends through Resend's email API, and reads events from its webhooks and its list of sent emails.
//
// It decides how messages become one call to /emails or /emails/batch, what each documented error means (the table in
// answers.go) and what each documented event means (the table in events.go). It leaves retrying, limits and the keeping of
// events to others. Resend's documentation pages: "Send Email", "Send Batch Emails", "Batch Validation Modes", "Errors", "Usage
// Limits", "Idempotency Keys", "Event Types", "Verify Webhooks Requests", "List Sent Emails", "Retrieve Sent Email", "Create
// Webhook". We have our own client: the official SDK drops the name of an error that comes with 429, and the class depends on
// the name.
//
// The most likely mistake of a newcomer is to let the body differ between two calls of a message. Resend compares it with the
// first body for the same idempotency key, and refuses a different one.
package resend

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

const defaultURL = "https://api.resend.com"

// Config is one API key of a Resend team. Only APIKey is required.
type Config struct {
	esphttp.Reach // of BaseURL

	APIKey  seal.Secret `json:"-"`        // secret "api_key"
	BaseURL string      `json:"base_url"` // default https://api.resend.com

	// Webhooks are signed with the secret of their endpoint. The previous secret is accepted too, during a change.
	WebhookSecret         seal.Secret `json:"-"` // secret "webhook_secret", as Resend shows it: whsec_...
	WebhookSecretPrevious seal.Secret `json:"-"` // secret "webhook_secret_previous"

	Concurrency int `json:"concurrency"` // calls in flight; default Spec().Concurrency
	BatchSize   int `json:"batch_size"`  // messages in one call, 1..100; default 100
}

// ParseConfig reads an account's settings, strictly, and checks them. Secrets holds "api_key", and "webhook_secret" if
// events should come.
func ParseConfig(settings []byte, secrets map[string]seal.Secret) (Config, error) {
	var c Config
	if err := esphttp.DecodeSettings(settings, &c); err != nil {
		return Config{}, fmt.Errorf("resend: %w", err)
	}
	if err := esphttp.OnlySecrets(secrets, Spec().Secrets...); err != nil {
		return Config{}, fmt.Errorf("resend: %w", err)
	}
	c.APIKey = secrets["api_key"]
	c.WebhookSecret, c.WebhookSecretPrevious = secrets["webhook_secret"], secrets["webhook_secret_previous"]
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate reports everything that is wrong with the configuration in one error.
func (c Config) Validate() error {
	errs := []error{esphttp.CheckCredential("api_key", c.APIKey)}
	if c.BaseURL != "" {
		errs = append(errs, c.CheckBaseURL(c.BaseURL))
	}
	errs = append(errs, checkSecret("webhook_secret", c.WebhookSecret), checkSecret("webhook_secret_previous", c.WebhookSecretPrevious))
	if c.BatchSize < 0 || c.BatchSize > maxBatch {
		errs = append(errs, fmt.Errorf("batch_size is not in 1..%d", maxBatch))
	}
	if c.Concurrency < 0 {
		errs = append(errs, errors.New("concurrency is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("resend: %w", err)
	}
	return nil
}

// secretPrefix stands before the base64 of a signing secret.
const secretPrefix = "whsec_"

// minKey is the length of the shortest accepted signing key, in bytes, as Standard Webhooks demands.
const minKey = 24

func checkSecret(name string, s seal.Secret) error {
	if s.IsZero() {
		return nil
	}
	if len(signingKey(s)) < minKey {
		return fmt.Errorf("%s is not a signing secret of Resend's: want whsec_ and the base64 of at least %d bytes", name, minKey)
	}
	return nil
}

// signingKey is the key in a signing secret, or nil when the secret cannot be read.
func signingKey(s seal.Secret) []byte {
	text, ok := strings.CutPrefix(s.Reveal(), secretPrefix)
	if !ok {
		return nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return key
}

// host is the base URL without a trailing slash.
func (c Config) host() string { return strings.TrimRight(cmp.Or(c.BaseURL, defaultURL), "/") }

// keyKept is how long Resend remembers an idempotency key. The margin allows for its clock, and for a call that takes long.
const (
	keyKept   = 24 * time.Hour
	keyMargin = time.Hour
)

// settled is how long after a call a list without its message becomes proof. Resend gives no figure, so this one is ours.
const settled = 5 * time.Minute

// kept is the shortest time that a plan of Resend's keeps sent emails.
const kept = 24 * time.Hour

// Spec describes the kind. Sources: "Send Email" (recipients, size, tags, headers) and "Idempotency Keys".
func Spec() provider.Spec {
	return provider.Spec{
		Kind: "resend",
		Privacy: provider.PrivacySpec{
			Keeps:   "sent emails, their events and logs; how long is not documented in the API reference",
			Erase:   "no interface to erase a recipient is documented; ask support",
			Sources: []string{"https://resend.com/docs/api-reference/introduction"},
			Read:    "2026-11-30",
		},
		Concurrency: 8,
		Secrets:     []string{"api_key", "webhook_secret", "webhook_secret_previous"},
		Settings:    esphttp.Settings([]string{"api_key"}, nil, "concurrency", "batch_size"), // the signing secrets are sent nowhere
		Events:      provider.EventSpec{Accepted: true, Delivered: true},
		Lookup:      provider.LookupSpec{Works: true, Settled: settled, Kept: kept},
		Repeat:      provider.RepeatSpec{Within: keyKept - keyMargin},
		Batch:       provider.BatchSpec{Max: maxBatch, NoAttachments: true},
		Capabilities: provider.Capabilities{
			MaxBytes:      40 << 20, // with the attachments in base64
			MaxRecipients: 50,
			MaxTagLen:     256,
			NeedsSubject:  true,
		},
	}
}

// MessageIDHeader is the Message-ID header of a mail that Resend took. Resend writes its own, and its answer does not contain
// it.
func MessageIDHeader([]byte, string) string { return "" }
