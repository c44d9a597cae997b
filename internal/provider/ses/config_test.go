package ses

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
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
