// Package postmark sends through Postmark's email API, and reads events from its webhooks and its Messages API.
//
// It decides how messages become one call to /email or /email/batch, what each documented answer means (the table in answers.go) and
// what each documented event means (the tables in events.go). It leaves retrying, limits and the keeping of events to others. Postmark's documentation pages: "Email API", "API overview" (error codes), "Message Streams API",
// "Webhooks overview" and the page of each webhook, "Webhooks API", "Messages API", "Bounce API". We have our own client
// because no other returns status, code and body together, and the class depends on all three.
//
// The most likely mistake of a newcomer is to mix up the two kinds of codes: ErrorCode 403 in the body of a 422 is an unknown
// field in the request, status 403 is a firewall, ErrorCode 422 is a wrong server. And a 200 may refuse recipients: their
// addresses are in the text of its Message, nowhere else. The next mistake is to answer a webhook with 403: Postmark then
// stops retrying for good.
package postmark

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// maxBatch is the cap of "Send batch emails" on messages. Its 50 MB are far more than the engine puts into a call.
const maxBatch = 500

const (
	defaultURL    = "https://api.postmarkapp.com"
	defaultStream = "outbound"
)

// Config is one Postmark server. Only ServerToken is required.
type Config struct {
	esphttp.Reach // of BaseURL

	ServerToken   seal.Secret       `json:"-"`              // secret "server_token"
	BaseURL       string            `json:"base_url"`       // default https://api.postmarkapp.com
	MessageStream string            `json:"message_stream"` // Postmark's stream for ours that Streams does not name; default "outbound"
	Streams       map[string]string `json:"streams"`        // our stream -> Postmark's
	Tracking      Tracking          `json:"tracking"`

	// Webhooks carry no signature. They authenticate by basic auth with WebhookUsername, or by the header named WebhookHeader,
	// or by either if both are set. The previous secrets are accepted too, during a change.
	WebhookUsername         string      `json:"webhook_username"` // default "sendgate"
	WebhookHeader           string      `json:"webhook_header"`   // name of a header that holds WebhookToken
	WebhookPassword         seal.Secret `json:"-"`                // secret "webhook_password"
	WebhookPasswordPrevious seal.Secret `json:"-"`                // secret "webhook_password_previous"
	WebhookToken            seal.Secret `json:"-"`                // secret "webhook_token"
	WebhookTokenPrevious    seal.Secret `json:"-"`                // secret "webhook_token_previous"

	Concurrency int `json:"concurrency"` // calls in flight; default Spec().Concurrency
	BatchSize   int `json:"batch_size"`  // messages in one call, 1..500; default 500
}

// Tracking overrides the server's own tracking settings. Unset fields leave the decision to the server. If the server has open
// tracking on, Postmark does not let a message turn it off.
type Tracking struct {
	Opens  *bool `json:"opens"`
	Clicks *bool `json:"clicks"`
}

// ParseConfig reads an account's settings, strictly, and checks them. Secrets holds "server_token", and those of the webhook
// if events should come.
func ParseConfig(settings []byte, secrets map[string]seal.Secret) (Config, error) {
	var c Config
	if err := esphttp.DecodeSettings(settings, &c); err != nil {
		return Config{}, fmt.Errorf("postmark: %w", err)
	}
	if err := esphttp.OnlySecrets(secrets, Spec().Secrets...); err != nil {
		return Config{}, fmt.Errorf("postmark: %w", err)
	}
	c.ServerToken = secrets["server_token"]
	c.WebhookPassword, c.WebhookPasswordPrevious = secrets["webhook_password"], secrets["webhook_password_previous"]
	c.WebhookToken, c.WebhookTokenPrevious = secrets["webhook_token"], secrets["webhook_token_previous"]
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate reports everything that is wrong with the configuration in one error.
func (c Config) Validate() error {
	errs := []error{esphttp.CheckCredential("server_token", c.ServerToken)}
	if c.BaseURL != "" {
		errs = append(errs, c.CheckBaseURL(c.BaseURL))
	}
	if c.MessageStream != "" && !validStream(c.MessageStream) {
		errs = append(errs, fmt.Errorf("message_stream %q is not a stream id", c.MessageStream))
	}
	for ours, theirs := range c.Streams {
		if ours == "" || !validStream(theirs) {
			errs = append(errs, fmt.Errorf("streams: %q -> %q is not a pair of stream ids", ours, theirs))
		}
	}
	errs = append(errs, c.checkWebhook()...)
	if c.BatchSize < 0 || c.BatchSize > maxBatch {
		errs = append(errs, fmt.Errorf("batch_size is not in 1..%d", maxBatch))
	}
	if c.Concurrency < 0 {
		errs = append(errs, errors.New("concurrency is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("postmark: %w", err)
	}
	return nil
}

// checkWebhook checks the settings and secrets of the webhook.
func (c Config) checkWebhook() []error {
	var errs []error
	for name, s := range map[string]seal.Secret{
		"webhook_password": c.WebhookPassword, "webhook_password_previous": c.WebhookPasswordPrevious,
		"webhook_token": c.WebhookToken, "webhook_token_previous": c.WebhookTokenPrevious,
	} {
		if !s.IsZero() {
			errs = append(errs, esphttp.CheckCredential(name, s))
		}
	}
	if strings.ContainsFunc(c.WebhookUsername, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
		errs = append(errs, errors.New("webhook_username holds a colon, a space or a character that is not printable ASCII"))
	}
	if c.WebhookHeader != "" && !httpguts.ValidHeaderFieldName(c.WebhookHeader) {
		errs = append(errs, errors.New("webhook_header is not the name of a header"))
	}
	if strings.EqualFold(c.WebhookHeader, "Authorization") {
		errs = append(errs, errors.New("webhook_header is Authorization, which is for webhook_username and webhook_password"))
	}
	if token := !c.WebhookToken.IsZero() || !c.WebhookTokenPrevious.IsZero(); token != (c.WebhookHeader != "") {
		errs = append(errs, errors.New("webhook_header and webhook_token belong together, and one is missing"))
	}
	return errs
}

// username is the user name that basic auth of a webhook must have.
func (c Config) username() string { return cmp.Or(c.WebhookUsername, "sendgate") }

// validStream checks the rules of "Message Streams API" for ids: lower-case letters, digits, hyphen and underscore, beginning
// with a letter, at most 30 characters.
func validStream(id string) bool {
	if len(id) == 0 || len(id) > 30 || id[0] < 'a' || id[0] > 'z' {
		return false
	}
	return strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// stream is Postmark's id for one of our streams.
func (c Config) stream(ours string) string {
	return cmp.Or(c.Streams[ours], c.MessageStream, defaultStream)
}

// streams are Postmark's ids of all streams that the account sends by, sorted.
func (c Config) streams() []string {
	all := append(slices.Collect(maps.Values(c.Streams)), c.stream(""))
	slices.Sort(all)
	return slices.Compact(all)
}

// host is the base URL without a trailing slash.
func (c Config) host() string { return strings.TrimRight(cmp.Or(c.BaseURL, defaultURL), "/") }

// settled is how long after a call a search without its message becomes proof. Messages usually appear at once. Postmark gives
// no figure, so this one is ours.
const settled = 5 * time.Minute

// kept is the shortest retention that a server can be set to; the default is 45 days.
const kept = 7 * 24 * time.Hour

// Spec describes the kind. Source: "Email API", message limits, metadata and forbidden file types. Its caps of 2,000 characters
// for a subject and of 1,000 for a tag are above ours. "Zero-sized attachments not allowed." is undocumented, and many users
// reported it.
func Spec() provider.Spec {
	return provider.Spec{
		Kind: "postmark",
		Privacy: provider.PrivacySpec{
			Keeps:   "content and activity for 45 days, or 7 to 365 with the Retention Add-on; suppressions for good",
			Erase:   "POST /data-removals with the account token, once support has enabled it",
			Sources: []string{"https://postmarkapp.com/developer/api/data-removals-api", "https://postmarkapp.com/support/article/1289-how-does-the-retention-add-on-work"},
			Read:    "2026-11-30",
		},
		Concurrency: 32,
		Secrets: []string{
			"server_token", "webhook_password", "webhook_password_previous", "webhook_token", "webhook_token_previous",
		},
		Settings: esphttp.Settings([]string{"server_token", "webhook_password", "webhook_token"}, nil, // Register sends the latter
			"message_stream", "streams", "tracking", "webhook_username", "webhook_header", "concurrency", "batch_size"),
		Guessable: []string{"webhook_password", "webhook_token"}, // a previous one may be one that is replaced because it is too short
		Events:    provider.EventSpec{Delivered: true},
		Lookup:    provider.LookupSpec{Works: true, Settled: settled, Kept: kept},
		Batch:     provider.BatchSpec{Max: maxBatch},
		Capabilities: provider.Capabilities{
			MaxBytes:            10 << 20, // with the attachments in base64
			MaxBodyBytes:        5 << 20,
			MaxFromLen:          255,
			MaxRecipients:       50,
			MaxTags:             1,
			MaxTagLen:           1000,
			MaxMetadataKeys:     9, // of 10, one is ours
			MaxMetadataKeyLen:   20,
			MaxMetadataValueLen: 80,
			ForbiddenInLocal:    "?", // support: "What does Error Code: '300' mean?", the pattern of a mailbox
			FoldsMetadataKeys:   true,
			RefusesEmptyFiles:   true,
			ForbiddenExtensions: []string{
				"bat", "bin", "chm", "com", "cpl", "crt", "exe", "hlp", "hta", "inf", "ins", "isp", "jse", "lnk", "mdb", "msc",
				"msi", "msp", "mst", "pcd", "pif", "reg", "scr", "sct", "shs", "vba", "vbe", "vbs", "wsf", "wsh", "wsl",
			},
		},
	}
}
