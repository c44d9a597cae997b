// Package mailgun sends through Mailgun's HTTP API, as MIME: POST /v3/{domain}/messages.mime with the bytes of package
// mime. The other endpoint would build the message itself. There an attachment has no content type, an inline image is
// found only by its file name, and the bytes differ from those that every other provider sends.
//
// It decides how a message becomes one call and what each documented answer means (the table in answers.go), whether a
// webhook is from Mailgun (hook.go), what its events mean (events.go), where a lost call is looked up (find.go) and how
// webhooks are set up (register.go). It leaves retrying, limits and the state of
// messages to others. Mailgun's documentation pages: "Messages", "Events", "Domain Webhooks" and "Account Management"
// (API reference), "Sending Messages", "Batch Sending", "Error Codes", "Webhooks", "Securing Webhooks" and "Events".
//
// The most likely mistakes of a newcomer: to leave Cc and Bcc out of "to", which is the envelope here and must list everyone;
// to put confidential data into metadata, because Mailgun shows variables to recipients in the header X-Mailgun-Variables; to
// trust a 200, which a wrong path also returns ("Mailgun Magnificent API"); and to trust a signed event, because the signature
// covers a token and not the event.
package mailgun

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

// The hosts of the two regions. A domain lives in exactly one; the other answers 404 or 401.
const (
	globalURL = "https://api.mailgun.net"
	euURL     = "https://api.eu.mailgun.net"
)

// The caps ("Messages": recipients, tags, parameters, size).
const (
	maxBytes      = 25_000_000
	maxRecipients = 1000
	maxTags       = 3
	maxTagLen     = 128
	maxParameters = 16 << 10 // names and values of all o:, h:, v: and t: parameters together, in bytes
)

// Config is one sending domain. APIKey and Domain are required.
type Config struct {
	esphttp.Reach // of BaseURL

	APIKey     seal.Secret `json:"-"`          // secret "api_key"; for sending, a domain sending key is enough
	Domain     string      `json:"domain"`     // as set up at Mailgun: mg.example.com
	BaseURL    string      `json:"base_url"`   // default: the host of Region; a /v3 at its end is removed
	Region     string      `json:"region"`     // "us" (default) or "eu"; not together with BaseURL
	Subaccount string      `json:"subaccount"` // id, sent as X-Mailgun-On-Behalf-Of
	TestMode   bool        `json:"test_mode"`  // Mailgun accepts and bills messages but delivers none
	Tracking   Tracking    `json:"tracking"`

	Concurrency int `json:"concurrency"` // calls in flight; default Spec().Concurrency

	// The HTTP webhook signing key, which is not the API key, and the previous one while both are in use. Secrets
	// "webhook_signing_key" and "webhook_signing_key_previous"; without either, no event is accepted.
	SigningKey         seal.Secret `json:"-"`
	PreviousSigningKey seal.Secret `json:"-"`
}

// Tracking overrides the domain's own tracking settings. Unset fields leave the decision to the domain.
type Tracking struct {
	Opens  *bool `json:"opens"`
	Clicks *bool `json:"clicks"`
}

// ParseConfig reads an account's settings, strictly, and checks them. Secrets holds "api_key" and the signing keys.
func ParseConfig(settings []byte, secrets map[string]seal.Secret) (Config, error) {
	var c Config
	if err := esphttp.DecodeSettings(settings, &c); err != nil {
		return Config{}, fmt.Errorf("mailgun: %w", err)
	}
	if err := esphttp.OnlySecrets(secrets, Spec().Secrets...); err != nil {
		return Config{}, fmt.Errorf("mailgun: %w", err)
	}
	c.APIKey = secrets["api_key"]
	c.SigningKey, c.PreviousSigningKey = secrets[signingKeyName], secrets[signingKeyName+"_previous"]
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate reports everything that is wrong with the configuration in one error.
func (c Config) Validate() error {
	errs := []error{esphttp.CheckCredential("api_key", c.APIKey)}
	for _, key := range c.signingKeys() {
		errs = append(errs, esphttp.CheckCredential(signingKeyName, key))
	}
	if !isDomain(c.Domain) {
		errs = append(errs, errors.New("domain is not a domain name"))
	}
	if c.BaseURL != "" {
		errs = append(errs, c.CheckBaseURL(c.BaseURL))
	}
	if c.Region != "" && c.Region != "us" && c.Region != "eu" {
		errs = append(errs, errors.New("region is neither us nor eu"))
	}
	if c.Region != "" && c.BaseURL != "" {
		errs = append(errs, errors.New("region and base_url are both set"))
	}
	if strings.Trim(c.Subaccount, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		errs = append(errs, errors.New("subaccount is not an id"))
	}
	if c.Concurrency < 0 {
		errs = append(errs, errors.New("concurrency is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("mailgun: %w", err)
	}
	return nil
}

// signingKeyName is the secret that verifies webhooks.
const signingKeyName = "webhook_signing_key"

// signingKeys are the keys that are set, the newer first.
func (c Config) signingKeys() []seal.Secret {
	var keys []seal.Secret
	for _, key := range []seal.Secret{c.SigningKey, c.PreviousSigningKey} {
		if !key.IsZero() {
			keys = append(keys, key)
		}
	}
	return keys
}

// isDomain requires at least two labels of letters, digits and hyphens. The domain becomes a part of the path: a slash in it
// would call another endpoint, and a wrong path answers 200.
func isDomain(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		odd := strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != ""
		if odd || label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// apiBase is the base URL for mailgun-go, with the version.
func (c Config) apiBase() string {
	host := globalURL
	if c.Region == "eu" {
		host = euURL
	}
	base := strings.TrimRight(cmp.Or(c.BaseURL, host), "/")
	return strings.TrimSuffix(base, "/v3") + "/v3"
}

// Capabilities says what the account can carry: the same for every Mailgun account.
func (Config) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		MaxBytes:      maxBytes,
		MaxRecipients: maxRecipients,
		MaxTags:       maxTags,
		MaxTagLen:     maxTagLen,
		// The cap on parameters, minus tags, options, our own id and the prefixes of some dozens of keys. Send counts exactly.
		MaxMetadataBytes: maxParameters - maxTags*(maxTagLen+len("o:tag")) - 512,
		Calendar:         true,
	}
}

// Spec describes the kind.
func Spec() provider.Spec {
	return provider.Spec{
		Kind: "mailgun",
		Privacy: provider.PrivacySpec{
			Keeps:   "messages for 0 to 7 days, as the domain's message retention says; logs and suppressions",
			Erase:   "no interface to erase a recipient is documented; set the domain's message retention to 0, and delete the address from the domain's suppressions",
			Sources: []string{"https://help.mailgun.com/hc/en-us/articles/8841411163035-Adjusting-a-domain-s-message-retention-settings"},
			Read:    "2026-11-30",
		},
		Capabilities: Config{}.Capabilities(),
		Concurrency:  64,
		Secrets:      []string{"api_key", signingKeyName, signingKeyName + "_previous"},
		Settings: esphttp.Settings([]string{"api_key"}, []string{"region"}, // the signing keys are sent nowhere
			"domain", "subaccount", "test_mode", "tracking", "concurrency"),
		Events: provider.EventSpec{Accepted: true, Delivered: true},
		// "Events", "Event Polling": the list of events is complete only up to half an hour ago. The smallest plan keeps them
		// for a day.
		Lookup: provider.LookupSpec{Works: true, Settled: 30 * time.Minute, Kept: 24 * time.Hour},
	}
}
