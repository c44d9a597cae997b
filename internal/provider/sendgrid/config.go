// Package sendgrid sends through Twilio SendGrid's v3 mail send API, and reads events from its Event Webhook and its Email
// Logs.
//
// It decides how a message becomes one call, what each documented answer means (the table in answers.go) and what each
// documented event means (the tables in events.go). It leaves retrying, limits and the keeping of events to others.
// Twilio's documentation pages: "Mail Send", "Mail Send errors", "Event Webhook Reference", "Getting Started with the
// Event Webhook Security Features", "Email Logs", "Webhooks".
//
// The most likely mistake of a newcomer is to share a sendgrid.Client. Its SendWithContext stores the body on the receiver, so
// two goroutines may send the same body twice, and the other body never. Here each call builds its own rest.Request. The next
// mistake is to read an event into a struct: encoding/json ignores the case of names, and a custom argument "Event" in the
// metadata would then count as the event.
package sendgrid

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// The hosts of the two regions ("Mail Send", base URLs).
const (
	globalURL = "https://api.sendgrid.com"
	euURL     = "https://api.eu.sendgrid.com"
)

// Config is one account. Only APIKey is required.
type Config struct {
	esphttp.Reach // of BaseURL

	APIKey   seal.Secret `json:"-"`        // secret "api_key"; needs the scope mail.send
	BaseURL  string      `json:"base_url"` // default: the host of Region
	Region   string      `json:"region"`   // "global" (default) or "eu"; not together with BaseURL
	Subuser  string      `json:"subuser"`  // sent as On-Behalf-Of
	IPPool   string      `json:"ip_pool"`  // 2 to 64 characters
	Sandbox  bool        `json:"sandbox"`  // SendGrid checks messages but delivers none
	Tracking Tracking    `json:"tracking"`

	// WebhookPublicKeys verify the Event Webhook: base64 of SPKI, ECDSA on P-256, at most 5. Any of them may have signed, so
	// that webhooks can be changed one after the other. Without a key no event is accepted.
	WebhookPublicKeys []string `json:"webhook_public_keys"`

	Concurrency      int `json:"concurrency"`        // calls in flight; default Spec().Concurrency
	BatchSize        int `json:"batch_size"`         // messages in one call, 1..1000; default 1000
	LookupsPerMinute int `json:"lookups_per_minute"` // requests to Email Logs, up to 6000; default 6, which is SendGrid's limit
}

// Tracking overrides the account's own tracking settings. Unset fields leave the decision to the account.
type Tracking struct {
	Opens  *bool `json:"opens"`
	Clicks *bool `json:"clicks"`
}

// ParseConfig reads an account's settings, strictly, and checks them. Secrets holds "api_key".
func ParseConfig(settings []byte, secrets map[string]seal.Secret) (Config, error) {
	var c Config
	if err := esphttp.DecodeSettings(settings, &c); err != nil {
		return Config{}, fmt.Errorf("sendgrid: %w", err)
	}
	if err := esphttp.OnlySecrets(secrets, Spec().Secrets...); err != nil {
		return Config{}, fmt.Errorf("sendgrid: %w", err)
	}
	c.APIKey = secrets["api_key"]
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
	switch {
	case c.Region != "" && c.Region != "global" && c.Region != "eu":
		errs = append(errs, fmt.Errorf("region is %q, want global or eu", c.Region))
	case c.Region != "" && c.BaseURL != "":
		errs = append(errs, errors.New("region and base_url are both set"))
	}
	if strings.ContainsFunc(c.Subuser, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		errs = append(errs, errors.New("subuser holds a space or a character that is not printable ASCII"))
	}
	if n := len(c.IPPool); n == 1 || n > 64 {
		errs = append(errs, errors.New("ip_pool is not 2 to 64 characters"))
	}
	if _, err := c.publicKeys(); err != nil {
		errs = append(errs, err)
	}
	if c.Concurrency < 0 {
		errs = append(errs, errors.New("concurrency is negative"))
	}
	if c.BatchSize < 0 || c.BatchSize > maxBatch {
		errs = append(errs, fmt.Errorf("batch_size is not in 1..%d", maxBatch))
	}
	if c.LookupsPerMinute < 0 || c.LookupsPerMinute > 6000 {
		errs = append(errs, errors.New("lookups_per_minute is not 1 to 6000"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sendgrid: %w", err)
	}
	return nil
}

// host is the base URL without a trailing slash.
func (c Config) host() string {
	region := globalURL
	if c.Region == "eu" {
		region = euURL
	}
	return strings.TrimRight(cmp.Or(c.BaseURL, region), "/")
}

// settled is how long after a call Email Logs without its message become proof. The documentation says "near real time" but
// gives no figure, so this one is ours.
const settled = 30 * time.Minute

// kept is how long Email Logs are kept, on any plan.
const kept = 30 * 24 * time.Hour

// Spec describes the kind. Sources: "Mail Send" and its schema (recipients, subject, attachments, categories, custom_args);
// the size of 30 MB is SendGrid's published figure for a whole message.
func Spec() provider.Spec {
	return provider.Spec{
		Kind: "sendgrid",
		Privacy: provider.PrivacySpec{
			Keeps:   "email activity, statistics by recipient, and suppressions; how long is not documented on the page of the erasure API",
			Erase:   "POST /v3/recipients/erasejob with up to 5,000 addresses; accounts from before 2023-07-25 must have it enabled by support",
			Sources: []string{"https://www.twilio.com/docs/sendgrid/api-reference/recipients-data-erasure-api/erase-recipients-email-data"},
			Read:    "2026-11-30",
		},
		Concurrency: 64,
		Secrets:     []string{"api_key"},
		Settings: esphttp.Settings([]string{"api_key"}, []string{"region"},
			"subuser", "ip_pool", "sandbox", "tracking", "webhook_public_keys", "concurrency", "batch_size", "lookups_per_minute"),
		Events: provider.EventSpec{Accepted: true, Delivered: true},
		Lookup: provider.LookupSpec{Works: true, Settled: settled, Kept: kept},
		Batch:  provider.BatchSpec{Max: maxBatch, MaxRecipients: maxBatch, Alike: true},
		Capabilities: provider.Capabilities{
			MaxBytes:          30_000_000,
			MaxRecipients:     1000, // over all personalizations
			MaxTags:           10,
			MaxTagLen:         255,
			MaxMetadataBytes:  9950, // custom_args may have 10,000 bytes, including ours
			NeedsSubject:      true, // "subject", minLength 1
			RefusesEmptyFiles: true, // "attachments", content, minLength 1
			Calendar:          true,
		},
	}
}
