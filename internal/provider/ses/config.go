// Package ses sends through Amazon SES, API v2 (POST /v2/email/outbound-emails), with the AWS SDK.
//
// It decides how a message becomes a SendEmail request and what each error code of SES means (answers.go, after the
// API reference page "SendEmail" and the developer guide's "Amazon SES API v2 error codes" and "Errors related to the
// sending quotas"). The SDK does the signing, the endpoints and the wire format; esphttp does the connections.
//
// Three things differ from other providers. SES replaces Message-ID and Date by its own, so a duplicate can't be recognised
// by our Message-ID. Events carry our id (tag gw_msg) only if a configuration set publishes them. And SES accepts a
// suppressed recipient, and reports it later as a bounce.
//
// Events come back through Amazon SNS: a configuration set publishes them to a topic, and the topic POSTs them to us.
// hook.go decides whether such a request is from SNS and from a topic of ours. cert.go decides whose certificate signed it.
// events.go reads the record inside. HTTPS from the one right host is not enough for a certificate, because its address comes
// with the request that it has to verify.
//
// The most likely mistake of a newcomer is to build the SDK client from aws.Config. That brings the SDK's retries, which mail
// people twice, and takes endpoint and retry settings from the environment. Only credentials come from there.
package ses

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// Kind names this provider.
const Kind provider.Kind = "ses"

// The names of the secrets.
const (
	secretAccessKeyID     = "access_key_id"
	secretSecretAccessKey = "secret_access_key"
	secretSessionToken    = "session_token"
)

// concurrency is the default cap on calls in flight. At the default rate of 14 calls a second and some 150 ms a call, 3 would
// be enough; the rest is for times when SES is slow.
const concurrency = 20

// Config is the settings of one account.
type Config struct {
	esphttp.Reach // of BaseURL and SNSBaseURL

	Region           string `json:"region"`                      // such as eu-west-1
	BaseURL          string `json:"base_url,omitempty"`          // instead of https://email.{region}.amazonaws.com
	ConfigurationSet string `json:"configuration_set,omitempty"` // publishes events, chooses the IP pool; at most 64 characters

	// UseDefaultCredentials takes the credentials from the AWS default chain: environment, shared files, web identity,
	// container, instance. The secrets must be empty then.
	UseDefaultCredentials bool `json:"use_default_credentials,omitempty"`

	Concurrency int `json:"concurrency,omitempty"` // calls in flight; default Spec().Concurrency

	SNSTopicARNs        []string  `json:"sns_topic_arns,omitempty"`        // whose events are taken; none: no events; at most 10
	SNSSignatureVersion string    `json:"sns_signature_version,omitempty"` // "2" (default) accepts only that one, "1" accepts both
	SNSConfirmUntil     time.Time `json:"sns_confirm_until,omitzero"`      // until then, subscriptions of these topics are confirmed
	SNSBaseURL          string    `json:"sns_base_url,omitempty"`          // instead of https://sns.{region}.amazonaws.com, for emulators
	SNSCAPEM            string    `json:"sns_ca_pem,omitempty"`            // roots of its certificates; only with sns_base_url

	AccessKeyID     seal.Secret `json:"-"`
	SecretAccessKey seal.Secret `json:"-"`
	SessionToken    seal.Secret `json:"-"` // only with temporary keys
}

// Spec describes the kind.
func Spec() provider.Spec {
	return provider.Spec{
		Kind: Kind,
		Privacy: provider.PrivacySpec{
			Keeps:   "the account's suppression list; what the account's event destinations store",
			Erase:   "DELETE /v2/email/suppression/addresses/{EmailAddress} in each region; no interface to erase what SES itself logged is documented",
			Sources: []string{"https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_DeleteSuppressedDestination.html"},
			Read:    "2026-11-30",
		},
		Capabilities: Config{}.Capabilities(),
		Concurrency:  concurrency,
		Secrets:      []string{secretAccessKeyID, secretSecretAccessKey, secretSessionToken},
		Settings: esphttp.Settings([]string{secretAccessKeyID, secretSecretAccessKey, secretSessionToken}, []string{"region"},
			"configuration_set", "use_default_credentials", "concurrency", "sns_topic_arns", "sns_signature_version", "sns_confirm_until",
			"sns_base_url", "sns_ca_pem"), // certificates are fetched there, and no secret is sent
		Events: provider.EventSpec{Accepted: true, Delivered: true},
	}
}

// ParseConfig reads an account's settings, strictly, and its secrets, and checks them.
func ParseConfig(settings []byte, secrets map[string]seal.Secret) (Config, error) {
	var c Config
	if err := esphttp.DecodeSettings(settings, &c); err != nil {
		return Config{}, fmt.Errorf("ses: %w", err)
	}
	if err := esphttp.OnlySecrets(secrets, Spec().Secrets...); err != nil {
		return Config{}, fmt.Errorf("ses: %w", err)
	}
	c.AccessKeyID = secrets[secretAccessKeyID]
	c.SecretAccessKey = secrets[secretSecretAccessKey]
	c.SessionToken = secrets[secretSessionToken]
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate reports everything that is wrong with the configuration in one error that names the settings.
func (c Config) Validate() error {
	var errs []error
	if !isRegion(c.Region) {
		errs = append(errs, fmt.Errorf("region is %q, want the name of an AWS region, such as eu-west-1", c.Region))
	}
	if c.BaseURL != "" {
		errs = append(errs, c.CheckBaseURL(c.BaseURL))
	}
	if c.ConfigurationSet != "" && (len(c.ConfigurationSet) > 64 || !isTag(c.ConfigurationSet)) {
		errs = append(errs, errors.New("configuration_set is not at most 64 of A-Z a-z 0-9 _ -"))
	}
	if c.Concurrency < 0 {
		errs = append(errs, errors.New("concurrency is negative"))
	}
	if err := errors.Join(append(errs, c.checkCredentials(), c.checkSNS())...); err != nil {
		return fmt.Errorf("ses: %w", err)
	}
	return nil
}

// checkCredentials requires either the two keys or use_default_credentials, not both.
func (c Config) checkCredentials() error {
	if c.UseDefaultCredentials {
		if !c.AccessKeyID.IsZero() || !c.SecretAccessKey.IsZero() || !c.SessionToken.IsZero() {
			return errors.New("use_default_credentials is set, and secrets are as well; remove one or the other")
		}
		return c.checkDefaultBase()
	}
	if c.AccessKeyID.IsZero() && c.SecretAccessKey.IsZero() {
		return errors.New("access_key_id and secret_access_key are missing; set both, or use_default_credentials for the AWS default chain")
	}
	errs := []error{
		esphttp.CheckCredential(secretAccessKeyID, c.AccessKeyID),
		esphttp.CheckCredential(secretSecretAccessKey, c.SecretAccessKey),
	}
	if !c.SessionToken.IsZero() {
		errs = append(errs, esphttp.CheckCredential(secretSessionToken, c.SessionToken))
	}
	return errors.Join(errs...)
}

// regionForm is the form of the names of regions.
const regionForm = `[a-z]{2,8}(-[a-z]{2,12}){1,3}-[0-9]{1,2}`

// sesHost matches the hosts of SES: its public names, its FIPS names, and the endpoints of a VPC. Anything else than a region
// behind "email" could be another service: email.s3.amazonaws.com is somebody's bucket.
var sesHost = regexp.MustCompile(`^(email(-fips)?\.` + regionForm + `|[a-z0-9-]+\.email(-fips)?\.` + regionForm + `\.vpce)\.(amazonaws\.com|amazonaws\.com\.cn|api\.aws)$`)

// checkDefaultBase makes sure that the credentials of this machine go only to Amazon. They are not the account's, so a person who
// changes the account can't be asked for them.
func (c Config) checkDefaultBase() error {
	u, err := url.Parse(c.BaseURL)
	if c.BaseURL == "" || err != nil || jail.IsLoopback(u.Hostname()) || u.Scheme == "https" && sesHost.MatchString(strings.ToLower(u.Hostname())) {
		return nil
	}
	return errors.New("base_url is no https URL of SES: with use_default_credentials it must be, or the credentials of this machine would go elsewhere")
}

// maxTopics caps sns_topic_arns: an account has one, and a second one during a move.
const maxTopics = 10

// checkSNS checks the settings for the source of events.
func (c Config) checkSNS() error {
	var errs []error
	if len(c.SNSTopicARNs) > maxTopics {
		errs = append(errs, fmt.Errorf("sns_topic_arns has %d topics, over the cap of %d", len(c.SNSTopicARNs), maxTopics))
	}
	for i, arn := range c.SNSTopicARNs {
		if _, ok := parseTopic(arn); !ok {
			errs = append(errs, fmt.Errorf("sns_topic_arns[%d] is not the ARN of a standard topic, such as arn:aws:sns:eu-west-1:123456789012:ses-events", i))
		}
	}
	if v := c.SNSSignatureVersion; v != "" && v != "1" && v != "2" {
		errs = append(errs, errors.New(`sns_signature_version is neither "1" nor "2"`))
	}
	if c.SNSBaseURL != "" {
		if err := c.CheckBaseURL(c.SNSBaseURL); err != nil {
			errs = append(errs, fmt.Errorf("sns_%w", err)) // the error says base_url
		}
	}
	return errors.Join(append(errs, c.checkCA())...)
}

func (c Config) checkCA() error {
	switch {
	case c.SNSCAPEM == "":
		return nil
	case c.SNSBaseURL == "":
		return errors.New("sns_ca_pem is set without sns_base_url; Amazon's certificates are checked by public roots")
	case len(c.SNSCAPEM) > maxCertificate:
		return fmt.Errorf("sns_ca_pem of %d bytes is over the cap of %d", len(c.SNSCAPEM), maxCertificate)
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(c.SNSCAPEM)) {
		return errors.New("sns_ca_pem holds no PEM certificate")
	}
	return nil
}

// Capabilities says what SES can carry. Metadata has no cap here: we keep what does not fit in a message tag, and do not pass it
// on. Headers and files have no cap either: a message that does not fit Content.Simple goes as Content.Raw.
func (c Config) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		MaxBytes:            40_000_000, // developer guide, "Service quotas": 40 MB after encoding
		MaxRecipients:       50,
		ForbiddenExtensions: forbiddenExtensions(),
		Calendar:            true, // as Content.Raw
	}
}

// forbiddenExtensions is the list of the developer guide's page "Amazon SES unsupported attachment types".
func forbiddenExtensions() []string {
	return slices.Sorted(strings.FieldsSeq(`ade adp app asp bas bat cer chm cmd com cpl crt csh der exe fxp gadget hlp hta
		inf ins isp its js jse ksh lib lnk mad maf mag mam maq mar mas mat mau mav maw mda mdb mde mdt mdw mdz msc msh
		msh1 msh2 mshxml msh1xml msh2xml msi msp mst ops pcd pif plg prf prg reg scf scr sct shb shs sys ps1 ps1xml ps2
		ps2xml psc1 psc2 tmp url vb vbe vbs vps vsmacros vss vst vsw vxd ws wsc wsf wsh xnk`))
}

// MessageIDHeader is the Message-ID that recipients see. SES replaces any given one by its own id at a host of the region
// ("Header fields"). It is "" if the id or the region is not known.
func MessageIDHeader(settings []byte, providerID string) string {
	var in struct{ Region string }
	if json.Unmarshal(settings, &in) != nil || !isRegion(in.Region) || providerID == "" {
		return ""
	}
	if in.Region == "us-east-1" {
		in.Region = "email"
	}
	return "<" + providerID + "@" + in.Region + ".amazonses.com>"
}

func isRegion(s string) bool {
	return regexp.MustCompile(`^` + regionForm + `$`).MatchString(s)
}
