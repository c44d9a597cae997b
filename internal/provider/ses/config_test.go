package ses

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

func secretMap(names ...string) map[string]seal.Secret {
	m := map[string]seal.Secret{}
	for _, n := range names {
		m[n] = seal.NewSecret("value-of-" + n)
	}
	return m
}

func TestParseConfigReadsEverySetting(t *testing.T) {
	t.Parallel()
	got, err := ParseConfig(
		[]byte(`{"region":"eu-west-1","base_url":"http://127.0.0.1:9/ses","configuration_set":"tx","use_default_credentials":false}`),
		secretMap("access_key_id", "secret_access_key", "session_token"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Region: "eu-west-1", BaseURL: "http://127.0.0.1:9/ses", ConfigurationSet: "tx",
		AccessKeyID: seal.NewSecret("value-of-access_key_id"), SecretAccessKey: seal.NewSecret("value-of-secret_access_key"),
		SessionToken: seal.NewSecret("value-of-session_token"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestParseConfigReadsTheSettingsOfEvents(t *testing.T) {
	t.Parallel()
	settings := `{"region":"eu-west-1","sns_topic_arns":["` + testTopic + `"],"sns_signature_version":"1",
		"sns_confirm_until":"2026-11-25T12:00:00Z","sns_base_url":"http://127.0.0.1:9/ses"}`
	got, err := ParseConfig([]byte(settings), secretMap("access_key_id", "secret_access_key"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Region: "eu-west-1", AccessKeyID: seal.NewSecret("value-of-access_key_id"), SecretAccessKey: seal.NewSecret("value-of-secret_access_key"),
		SNSTopicARNs: []string{testTopic}, SNSSignatureVersion: "1", SNSConfirmUntil: noon(), SNSBaseURL: "http://127.0.0.1:9/ses",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if _, err := ParseConfig([]byte(`{"region":"eu-west-1","sns_confirm_until":"soon"}`), nil); err == nil {
		t.Error("ParseConfig with a sns_confirm_until that is no time succeeded")
	}
}

func TestValidateNamesTheSettingOfEvents(t *testing.T) {
	t.Parallel()
	ca := string(toPEM(newAuthority(t, nil).cert))
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" for valid
	}{
		"topics":              {func(c *Config) { c.SNSTopicARNs = []string{testTopic, "arn:aws-cn:sns:cn-north-1:123456789012:t"} }, ""},
		"no ARN":              {func(c *Config) { c.SNSTopicARNs = []string{testTopic, "ses-events"} }, "sns_topic_arns[1]"},
		"FIFO topic":          {func(c *Config) { c.SNSTopicARNs = []string{testTopic + ".fifo"} }, "sns_topic_arns[0]"},
		"region of a bucket":  {func(c *Config) { c.SNSTopicARNs = []string{"arn:aws:sns:s3-us-west-2:123456789012:t"} }, "sns_topic_arns[0]"},
		"ten topics":          {func(c *Config) { c.SNSTopicARNs = slices.Repeat([]string{testTopic}, 10) }, ""},
		"eleven topics":       {func(c *Config) { c.SNSTopicARNs = slices.Repeat([]string{testTopic}, 11) }, "sns_topic_arns"},
		"version 1":           {func(c *Config) { c.SNSSignatureVersion = "1" }, ""},
		"version 2":           {func(c *Config) { c.SNSSignatureVersion = "2" }, ""},
		"version 3":           {func(c *Config) { c.SNSSignatureVersion = "3" }, "sns_signature_version"},
		"base url":            {func(c *Config) { c.SNSBaseURL = "http://127.0.0.1:9/ses" }, ""},
		"base url with query": {func(c *Config) { c.SNSBaseURL = "http://127.0.0.1:9/?x=1" }, "sns_base_url"},
		"base url with user":  {func(c *Config) { c.SNSBaseURL = "http://u:p@127.0.0.1:9" }, "sns_base_url"},
		"roots":               {func(c *Config) { c.SNSBaseURL, c.SNSCAPEM = "http://127.0.0.1:9", ca }, ""},
		"roots of Amazon":     {func(c *Config) { c.SNSCAPEM = ca }, "sns_ca_pem"},
		"roots that are none": {func(c *Config) { c.SNSBaseURL, c.SNSCAPEM = "http://127.0.0.1:9", "PEM" }, "sns_ca_pem"},
		"roots without end": {func(c *Config) {
			c.SNSBaseURL, c.SNSCAPEM = "http://127.0.0.1:9", ca+strings.Repeat("\n", maxCertificate)
		}, "sns_ca_pem"},
	} {
		config := testConfig("http://127.0.0.1:9")
		c.change(&config)
		err := config.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: Validate = %v, want nil", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: Validate = %v, want an error about %s", name, err, c.want)
		}
	}
}

func TestSpecSaysWhatIsReported(t *testing.T) {
	t.Parallel()
	got := Spec()
	if want := (provider.EventSpec{Accepted: true, Delivered: true}); got.Events != want || got.Lookup != (provider.LookupSpec{}) {
		t.Errorf("events = %+v, look-up = %+v; want %+v and none", got.Events, got.Lookup, want)
	}
	var client provider.Provider = &Client{}
	if _, ok := client.(provider.EventParser); !ok {
		t.Error("the client reads no events")
	}
	if _, ok := client.(provider.Registrar); !ok {
		t.Error("the client does not register")
	}
	if _, ok := client.(provider.Finder); ok {
		t.Error("the client claims to look up")
	}
}

func TestParseConfigRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{
		"unknown name":    `{"region":"eu-west-1","regoin":"x"}`,
		"secret in clear": `{"region":"eu-west-1","secret_access_key":"s3cr3t"}`,
		"trailing data":   `{} {}`,
		"not an object":   `[]`,
	} {
		_, err := ParseConfig([]byte(settings), nil)
		if err == nil {
			t.Errorf("%s: ParseConfig(%s) succeeded", name, settings)
		} else if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: error holds the value: %v", name, err)
		}
	}
	_, err := ParseConfig([]byte(`{"region":"eu-west-1"}`), secretMap("api_key"))
	if err == nil || !strings.Contains(err.Error(), "api_key") {
		t.Errorf("ParseConfig with an unknown secret = %v, want an error that names it", err)
	}
	chain, err := ParseConfig([]byte(`{"region":"eu-west-1","use_default_credentials":true}`), nil)
	if err != nil || !chain.UseDefaultCredentials {
		t.Errorf("ParseConfig for the default chain = %+v, %v; want it set", chain, err)
	}
}

func TestValidateNamesTheSetting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" for valid
	}{
		"all well":          {func(*Config) {}, ""},
		"no base url":       {func(c *Config) { c.BaseURL = "" }, ""},
		"gov region":        {func(c *Config) { c.Region = "us-gov-west-1" }, ""},
		"no region":         {func(c *Config) { c.Region = "" }, "region"},
		"region with host":  {func(c *Config) { c.Region = "evil.example/eu-west-1" }, "region"},
		"base url user":     {func(c *Config) { c.BaseURL = "https://u:p@host" }, "base_url"},
		"base url query":    {func(c *Config) { c.BaseURL = "https://host/?x=1" }, "base_url"},
		"base url scheme":   {func(c *Config) { c.BaseURL = "ftp://host" }, "base_url"},
		"base url bare":     {func(c *Config) { c.BaseURL = "host:80" }, "base_url"},
		"configuration set": {func(c *Config) { c.ConfigurationSet = "a b" }, "configuration_set"},
		"long set":          {func(c *Config) { c.ConfigurationSet = strings.Repeat("x", 65) }, "configuration_set"},
		"concurrency":       {func(c *Config) { c.Concurrency = -1 }, "concurrency"},
		"half a key":        {func(c *Config) { c.SecretAccessKey = seal.Secret{} }, "secret_access_key"},
		"newline in a key":  {func(c *Config) { c.SecretAccessKey = seal.NewSecret("x\n") }, "secret_access_key"},
		"no credentials":    {func(c *Config) { *c = Config{Region: "eu-west-1"} }, "use_default_credentials"},
		"keys and chain":    {func(c *Config) { c.UseDefaultCredentials = true }, "use_default_credentials"},
		"token alone, chain": {func(c *Config) {
			*c = Config{Region: "eu-west-1", UseDefaultCredentials: true, SessionToken: seal.NewSecret("t")}
		}, "use_default_credentials"},
		"chain alone":          {func(c *Config) { *c = Config{Region: "eu-west-1", UseDefaultCredentials: true} }, ""},
		"keys without a token": {func(c *Config) { c.SessionToken = seal.Secret{} }, ""},
	} {
		config := testConfig("http://127.0.0.1:9")
		c.change(&config)
		err := config.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: Validate = %v, want nil", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: Validate = %v, want an error about %s", name, err, c.want)
		}
		if _, newErr := New(config); (newErr == nil) != (err == nil) {
			t.Errorf("%s: New = %v, but Validate = %v", name, newErr, err)
		}
	}
}

func TestConfigPrintsNoSecret(t *testing.T) {
	t.Parallel()
	c := testConfig("")
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", c, c, c)} {
		if strings.Contains(text, testKeyID) || strings.Contains(text, testSecret) || strings.Contains(text, testToken) {
			t.Errorf("a printed Config holds a secret: %s", text)
		}
	}
}

func TestCapabilitiesRefuseWhatSESRefuses(t *testing.T) {
	t.Parallel()
	c := Spec().Capabilities
	for name, f := range map[string]mail.Facts{
		"51 recipients":  {Recipients: 51},
		"over 40 MB":     {Bytes: 40_000_001},
		"an executable":  {Extensions: []string{"exe"}},
		"an EAI address": {NeedsSMTPUTF8: true},
	} {
		if c.Refuse(&f) == "" {
			t.Errorf("%s is not refused", name)
		}
	}
	if why := c.Refuse(&mail.Facts{Recipients: 50, Bytes: 40_000_000, Extensions: []string{"pdf"}, MetaKeys: 100, MetaValueLen: 500}); why != "" {
		t.Errorf("a message within the caps is refused: %s", why)
	}
}
