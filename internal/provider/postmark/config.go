// Package postmark sends through Postmark's email API.
//
// It decides how a message becomes one call to /email and what each documented answer means (the table in codes.go). It
// leaves retrying, limits, batching and events to others. Postmark's documentation pages: "Email API", "API overview"
// (error codes), "Message Streams API". The client is our own because no other shows status, code and body together,
// and the class hangs on all three.
//
// A newcomer's likeliest mistake is to mix up the two namespaces: ErrorCode 403 in the body of a 422 is an unknown
// field in the request, status 403 is a firewall, ErrorCode 422 is a wrong server. And a 200 may refuse recipients: the
// addresses stand in the text of its Message, nowhere else.
package postmark

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	defaultURL    = "https://api.postmarkapp.com"
	defaultStream = "outbound"
)

// Config is one Postmark server. Only ServerToken is required.
type Config struct {
	ServerToken   seal.Secret       `json:"-"`              // secret "server_token"
	BaseURL       string            `json:"base_url"`       // default https://api.postmarkapp.com
	MessageStream string            `json:"message_stream"` // Postmark's stream for ours that Streams does not name; default "outbound"
	Streams       map[string]string `json:"streams"`        // our stream -> Postmark's
	Tracking      Tracking          `json:"tracking"`

	Concurrency int `json:"concurrency"` // calls in flight; default Spec().Concurrency
}

// Tracking overrides the server's own tracking settings. What is not set is left to the server. Postmark does not let a
// message turn open tracking off where the server has it on.
type Tracking struct {
	Opens  *bool `json:"opens"`
	Clicks *bool `json:"clicks"`
}

// ParseConfig reads an account's settings, strictly, and checks them. Secrets holds "server_token".
func ParseConfig(settings []byte, secrets map[string]seal.Secret) (Config, error) {
	var c Config
	if err := esphttp.DecodeSettings(settings, &c); err != nil {
		return Config{}, fmt.Errorf("postmark: %w", err)
	}
	if err := esphttp.OnlySecrets(secrets, Spec().Secrets...); err != nil {
		return Config{}, fmt.Errorf("postmark: %w", err)
	}
	c.ServerToken = secrets["server_token"]
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate reports what is wrong with the configuration, all of it in one error.
func (c Config) Validate() error {
	errs := []error{esphttp.CheckCredential("server_token", c.ServerToken)}
	if c.BaseURL != "" {
		errs = append(errs, esphttp.CheckBaseURL(c.BaseURL))
	}
	if c.MessageStream != "" && !validStream(c.MessageStream) {
		errs = append(errs, fmt.Errorf("message_stream %q is not a stream id", c.MessageStream))
	}
	for ours, theirs := range c.Streams {
		if ours == "" || !validStream(theirs) {
			errs = append(errs, fmt.Errorf("streams: %q -> %q is not a pair of stream ids", ours, theirs))
		}
	}
	if c.Concurrency < 0 {
		errs = append(errs, errors.New("concurrency is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("postmark: %w", err)
	}
	return nil
}

// validStream holds to what "Message Streams API" says of ids: lower-case letters, digits, hyphen and underscore,
// beginning with a letter, at most 30 characters.
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

func (c Config) endpoint() string {
	return strings.TrimRight(cmp.Or(c.BaseURL, defaultURL), "/") + "/email"
}

// Spec describes the kind. Source: "Email API", message limits, metadata and forbidden file types.
func Spec() provider.Spec {
	return provider.Spec{
		Kind:        "postmark",
		Concurrency: 32,
		Secrets:     []string{"server_token"},
		Capabilities: provider.Capabilities{
			MaxBytes:            10 << 20, // with the attachments in base64
			MaxRecipients:       50,
			MaxTags:             1,
			MaxTagLen:           1000,
			MaxMetadataKeys:     9, // of 10, one is ours
			MaxMetadataKeyLen:   20,
			MaxMetadataValueLen: 80,
			ForbiddenExtensions: []string{
				"bat", "bin", "chm", "com", "cpl", "crt", "exe", "hlp", "hta", "inf", "ins", "isp", "jse", "lnk", "mdb", "msc",
				"msi", "msp", "mst", "pcd", "pif", "reg", "scr", "sct", "shs", "vba", "vbe", "vbs", "wsf", "wsh", "wsl",
			},
		},
	}
}
