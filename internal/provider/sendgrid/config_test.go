package sendgrid_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestParseConfig(t *testing.T) {
	t.Parallel()
	key := map[string]seal.Secret{"api_key": seal.NewSecret(testKey)}
	for _, c := range []struct {
		name, settings string
		secrets        map[string]seal.Secret
		ok             bool
	}{
		{"key alone", "", key, true},
		{"everything", `{"region":"eu","subuser":"shop","ip_pool":"tx","sandbox":true,"tracking":{"opens":false,"clicks":true},"concurrency":8,"batch_size":1}`, key, true},
		{"base URL", `{"base_url":"http://127.0.0.1:8025/sendgrid/"}`, key, true},
		{"webhook keys", `{"webhook_public_keys":["` + vectorKey + `"]}`, key, true},
		{"webhook key that is none", `{"webhook_public_keys":["AAAA"]}`, key, false},
		{"webhook key as a text", `{"webhook_public_keys":"` + vectorKey + `"}`, key, false},
		{"no key", "", nil, false},
		{"empty key", "", map[string]seal.Secret{"api_key": {}}, false},
		{"key with a newline", "", map[string]seal.Secret{"api_key": seal.NewSecret(testKey + "\n")}, false},
		{"unknown secret", "", map[string]seal.Secret{"api_key": key["api_key"], "token": key["api_key"]}, false},
		{"unknown field", `{"regoin":"eu"}`, key, false},
		{"key among the settings", `{"api_key":"` + testKey + `"}`, key, false},
		{"unknown region", `{"region":"mars"}`, key, false},
		{"region and base URL", `{"region":"eu","base_url":"https://x.test"}`, key, false},
		{"base URL without a scheme", `{"base_url":"x.test"}`, key, false},
		{"subuser with a newline", `{"subuser":"a\nb"}`, key, false},
		{"short pool", `{"ip_pool":"x"}`, key, false},
		{"negative batch_size", `{"batch_size":-1}`, key, false},
		{"too large a batch_size", `{"batch_size":1001}`, key, false},
		{"negative concurrency", `{"concurrency":-1}`, key, false},
	} {
		cfg, err := sendgrid.ParseConfig([]byte(c.settings), c.secrets)
		if (err == nil) != c.ok {
			t.Errorf("%s: ParseConfig = %v, want ok %t", c.name, err, c.ok)
		}
		if err != nil && strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: the error shows the key", c.name)
		}
		if err == nil {
			if _, err := sendgrid.New(cfg); err != nil {
				t.Errorf("%s: New = %v", c.name, err)
			}
		}
	}
}

func TestNewRefusesAnInvalidConfig(t *testing.T) {
	t.Parallel()
	if _, err := sendgrid.New(sendgrid.Config{}); err == nil {
		t.Error("New took a config without a key")
	}
}

func TestSpecTellsWhatComesBack(t *testing.T) {
	t.Parallel()
	s := sendgrid.Spec()
	if !s.Events.Accepted || !s.Events.Delivered || !s.Lookup.Works || s.Lookup.Settled != 30*time.Minute {
		t.Errorf("spec = %+v %+v", s.Events, s.Lookup)
	}
}

var (
	_ provider.EventParser = (*sendgrid.Client)(nil)
	_ provider.Finder      = (*sendgrid.Client)(nil)
	_ provider.Registrar   = (*sendgrid.Client)(nil)
)
