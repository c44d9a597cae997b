package postmark_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestParseConfig(t *testing.T) {
	t.Parallel()
	token := map[string]seal.Secret{"server_token": seal.NewSecret(testToken)}
	hooks := map[string]seal.Secret{
		"server_token": token["server_token"], "webhook_password": seal.NewSecret("a"), "webhook_password_previous": seal.NewSecret("b"),
		"webhook_token": seal.NewSecret("c"), "webhook_token_previous": seal.NewSecret("d"),
	}
	for _, c := range []struct {
		name, settings string
		secrets        map[string]seal.Secret
		ok             bool
	}{
		{"token alone", "", token, true},
		{"everything", `{"base_url":"http://127.0.0.1:8025/postmark","message_stream":"outbound","streams":{"bulk":"broadcasts"},"tracking":{"opens":true,"clicks":false},"concurrency":4,"batch_size":1}`, token, true},
		{"webhook", `{"webhook_username":"shop","webhook_header":"X-Token"}`, hooks, true},
		{"webhook secrets, and no header", "", hooks, false},
		{"password among the settings", `{"webhook_password":"x"}`, token, false},
		{"no token", "{}", nil, false},
		{"token with a space", "", map[string]seal.Secret{"server_token": seal.NewSecret("a b")}, false},
		{"unknown secret", "", map[string]seal.Secret{"server_token": token["server_token"], "api_key": token["server_token"]}, false},
		{"unknown field", `{"stream":"outbound"}`, token, false},
		{"token among the settings", `{"server_token":"` + testToken + `"}`, token, false},
		{"bad stream", `{"message_stream":"Out Bound"}`, token, false},
		{"bad stream in the map", `{"streams":{"bulk":""}}`, token, false},
		{"bad base URL", `{"base_url":"//x"}`, token, false},
		{"negative batch_size", `{"batch_size":-1}`, token, false},
		{"too large a batch_size", `{"batch_size":501}`, token, false},
		{"negative concurrency", `{"concurrency":-1}`, token, false},
	} {
		cfg, err := postmark.ParseConfig([]byte(c.settings), c.secrets)
		if (err == nil) != c.ok {
			t.Errorf("%s: ParseConfig = %v, want ok %t", c.name, err, c.ok)
		}
		if err != nil && strings.Contains(err.Error(), testToken) {
			t.Errorf("%s: the error shows the token", c.name)
		}
		if err == nil {
			if _, err := postmark.New(cfg); err != nil {
				t.Errorf("%s: New = %v", c.name, err)
			}
		}
	}
}

func TestNewRefusesAnInvalidConfig(t *testing.T) {
	t.Parallel()
	if _, err := postmark.New(postmark.Config{}); err == nil {
		t.Error("New took a config without a token")
	}
}

func TestParseConfigReadsTheWebhookSecrets(t *testing.T) {
	t.Parallel()
	s := map[string]seal.Secret{}
	for _, name := range postmark.Spec().Secrets {
		s[name] = seal.NewSecret("value-of-" + name)
	}
	c, err := postmark.ParseConfig([]byte(`{"webhook_header":"X-Token"}`), s)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]seal.Secret{
		"server_token": c.ServerToken, "webhook_password": c.WebhookPassword, "webhook_password_previous": c.WebhookPasswordPrevious,
		"webhook_token": c.WebhookToken, "webhook_token_previous": c.WebhookTokenPrevious,
	} {
		if got.Reveal() != "value-of-"+name {
			t.Errorf("%s = %q", name, got.Reveal())
		}
	}
}

func TestSpecTellsWhatComesBack(t *testing.T) {
	t.Parallel()
	s := postmark.Spec()
	if s.Events.Accepted || !s.Events.Delivered || !s.Lookup.Works || s.Lookup.Settled != 5*time.Minute {
		t.Errorf("spec = %+v %+v", s.Events, s.Lookup)
	}
}

var (
	_ provider.EventParser = (*postmark.Client)(nil)
	_ provider.Finder      = (*postmark.Client)(nil)
	_ provider.Registrar   = (*postmark.Client)(nil)
)
