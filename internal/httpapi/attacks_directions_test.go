package httpapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/seal"
)

// An admin key must not have stored secrets sent to a server of its holder's: settings that decide where they go are changed
// together with them, or not at all.
func TestStoredSecretsAreNotRedirected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("a")
	r.store.keepSecrets("a", map[string]seal.Secret{"webhook_key": seal.NewSecret("0123456789abcdef")})
	const path = "/admin/v1/accounts/a"
	before := string(r.store.config.Account("a").Settings)
	for _, c := range []struct {
		body   string
		fields map[string]string // and what is asked for
	}{
		{`{"settings":{"region":"eu-west-1","base_url":"https://evil.example"}}`, map[string]string{"settings.base_url": "api_key, webhook_key"}},
		{`{"settings":{"region":"eu-west-1","base_url":"https://evil.example"},"secrets":{"webhook_key":"fedcba9876543210"}}`, map[string]string{"settings.base_url": "give api_key again"}},
		{`{"settings":{"region":"eu-west-1","port":1}}`, map[string]string{"settings.port": "give api_key again"}},
		{`{"settings":{"region":"eu-west-1","port":1,"base_url":"x"}}`, map[string]string{"settings.base_url": "api_key", "settings.port": "api_key"}},
		{`{"settings":{"region":"eu-west-1","Base_URL":"https://evil.example"}}`, map[string]string{"settings.Base_URL": "not a setting"}},
		{`{"settings":{"region":"eu-west-1","ba\u017fe_url":"https://evil.example"}}`, map[string]string{"settings.ba\u017fe_url": "not a setting"}},
		{`{"settings":{"region":"eu-west-1","base_url":{"a":1}}}`, map[string]string{"settings.base_url": "api_key"}},
	} {
		a := r.do("PATCH", path, r.admin, c.body)
		r.want(a, 422, "invalid")
		got := map[string]string{}
		for _, f := range a.problem.Errors {
			got[f.Field] = f.Message
		}
		for field, says := range c.fields {
			if !strings.Contains(got[field], says) {
				t.Errorf("%s: complains %v, want %q about %s", c.body, got, says, field)
			}
		}
	}
	if got := string(r.store.config.Account("a").Settings); got != before {
		t.Fatalf("settings = %s, want them unchanged", got)
	}
	// A change that leads nowhere else is taken, and so is one that comes with the secrets.
	for _, body := range []string{
		`{"settings":{"region":"eu-west-2"}}`,
		`{"settings":{"region":"eu-west-2","base_url":"","port":0}}`,
		`{"settings":{"region":"eu-west-2","base_url":null}}`,
		`{"settings":{"region":"eu-west-2","base_url":"https://new.example"},"secrets":{"api_key":"good","webhook_key":"0123456789abcdef"}}`,
		`{"settings":{"region":"eu-west-3","base_url":"https://new.example"}}`,
		`{"settings":{"region":"eu-west-3","base_url":"https://new.example","port":2},"secrets":{"api_key":"good"}}`,
	} {
		r.want(r.do("PATCH", path, r.admin, body), 200, "")
	}
	// The way back is a way too.
	a := r.do("PATCH", path, r.admin, `{"settings":{"region":"eu-west-3","port":2}}`)
	r.want(a, 422, "invalid")

	// A setting that was stored in other letter case counts as well.
	r.store.config.Account("a").Settings = json.RawMessage(`{"region":"x","BASE_URL":"https://old.example"}`)
	r.want(r.do("PATCH", path, r.admin, `{"settings":{"region":"x","base_url":"https://evil.example"}}`), 422, "invalid")
	r.want(r.do("PATCH", path, r.admin, `{"settings":{"region":"x","base_url":"https://old.example"}}`), 200, "")
}

// Secrets that don't open are named, and healed by giving them again.
func TestUnreadableSecretsAreNamedAndHealed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("a")
	r.store.keepSecrets("a", map[string]seal.Secret{"webhook_key": seal.NewSecret("0123456789abcdef")})
	r.store.config.Account("a").Unreadable = []string{"api_key", "webhook_key"}
	a, err := r.client(r.admin).Account(t.Context(), "a")
	if err != nil || a.State != "parked" || len(a.Parked) != 1 || !strings.Contains(a.Parked[0].Reason, "api_key, webhook_key") ||
		!cmp.Equal(a.UnreadableSecrets, []string{"api_key", "webhook_key"}) {
		t.Errorf("account = %+v, %v; want it parked, with the names of both", a, err)
	}
	for body, field := range map[string]string{
		`{"concurrency":5}`:                                        "secrets.api_key",
		`{"secrets":{"api_key":"good"}}`:                           "secrets.webhook_key",
		`{"settings":{"region":"x"},"secrets":{"api_key":"good"}}`: "secrets.webhook_key",
		`{"secrets":{"webhook_key":"0123456789abcdef"}}`:           "secrets.api_key",
	} {
		got := r.do("PATCH", "/admin/v1/accounts/a", r.admin, body)
		r.want(got, 422, "invalid")
		if f := got.problem.Errors[0]; f.Field != field || f.Code != "unreadable" {
			t.Errorf("%s: %+v, want %s unreadable", body, f, field)
		}
	}
	healed, err := r.client(r.admin).PatchAccount(t.Context(), "a", api.AccountRequest{Secrets: map[string]string{
		"api_key": "good", "webhook_key": "0123456789abcdef",
	}})
	if err != nil || healed.State != "active" || len(healed.UnreadableSecrets) != 0 {
		t.Errorf("after both were given: %+v, %v", healed, err)
	}
}
