package mailgun_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

const hookURL = "https://mail.example.com/hooks/mailgun"

var allHooks = []string{"accepted", "delivered", "opened", "clicked", "unsubscribed", "complained", "permanent_fail", "temporary_fail"}

// account is a Mailgun account with the webhooks of one domain, as documented: POST makes a webhook, PUT replaces its
// URLs, and neither takes more than three.
type account struct {
	hooks     map[string][]string
	key       string // "" when there is none
	keyStatus int    // of the refusal to show the key
}

func (a *account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v5/accounts/http_signing_key" && r.Method == http.MethodGet {
		if a.keyStatus != 0 {
			w.WriteHeader(a.keyStatus)
			_, _ = fmt.Fprint(w, `{"message":"could not get HSK for account"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"message": "success", "http_signing_key": a.key})
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/v3/domains/"+testDomain+"/webhooks")
	urls := r.PostForm["url"]
	known := a.hooks[strings.Trim(name, "/")] != nil
	switch {
	case !ok || len(urls) > 3:
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodGet && name == "":
		a.list(w)
	case r.Method == http.MethodPost && name == "" && len(urls) > 0 && a.hooks[r.PostForm.Get("id")] == nil:
		a.hooks[r.PostForm.Get("id")] = urls
		_, _ = fmt.Fprint(w, `{"message":"Webhook has been created","webhook":{}}`)
	case r.Method == http.MethodPut && known && len(urls) > 0:
		a.hooks[strings.Trim(name, "/")] = urls
		_, _ = fmt.Fprint(w, `{"message":"Webhook has been updated","webhook":{}}`)
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"message":"Webhook not found"}`)
	}
}

func (a *account) list(w http.ResponseWriter) {
	hooks := map[string]any{"stored": nil}
	for name, urls := range a.hooks {
		hooks[name] = map[string]any{"url": urls[0], "urls": urls}
		if name == "delivered" && len(urls) == 1 {
			hooks[name] = map[string]any{"url": urls[0]} // as it was before there were several
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"webhooks": hooks})
}

func (a *account) register(t *testing.T, configured string) (provider.Registration, []string, error) {
	t.Helper()
	reqs := &requests{}
	reg, err := serveConfig(t, reqs, a, configured).Register(t.Context(), hookURL)
	return reg, reqs.list(), err
}

func serveConfig(t *testing.T, reqs *requests, h http.Handler, configured string) *mailgun.Client {
	t.Helper()
	return serve(t, reqs, h.ServeHTTP, func(c *mailgun.Config) { c.SigningKey = seal.NewSecret(configured) })
}

func TestRegisterAddsOurURLEverywhere(t *testing.T) {
	t.Parallel()
	a := &account{key: signingKey, hooks: map[string][]string{
		"delivered":      {"https://a.example/1"},
		"opened":         {hookURL},
		"complained":     {"https://a.example/1", "https://b.example/2"},
		"permanent_fail": {"https://a.example/1", "https://b.example/2", "https://c.example/3"},
		"clicked":        {"https://a.example/1", "https://b.example/2", hookURL},
	}}
	reg, reqs, err := a.register(t, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"accepted": {hookURL}, "unsubscribed": {hookURL}, "temporary_fail": {hookURL}, "opened": {hookURL},
		"delivered":      {"https://a.example/1", hookURL},
		"complained":     {"https://a.example/1", "https://b.example/2", hookURL},
		"clicked":        {"https://a.example/1", "https://b.example/2", hookURL},
		"permanent_fail": {"https://a.example/1", "https://b.example/2", "https://c.example/3"},
	}
	if diff := cmp.Diff(want, a.hooks); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}
	if len(reg.Steps) != 1 || !strings.Contains(reg.Steps[0], "permanent_fail") {
		t.Errorf("steps = %q, want one about permanent_fail, which is full", reg.Steps)
	}
	if len(reg.Done) != 6 || reg.Again {
		t.Errorf("done = %q, again %t; want five webhooks and the key", reg.Done, reg.Again)
	}
	if diff := cmp.Diff(map[string]string{"webhook_signing_key": signingKey}, reg.Secrets); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	if strings.Contains(fmt.Sprint(reg.Done, reg.Steps), "canary") {
		t.Errorf("done %q or steps %q hold the key", reg.Done, reg.Steps)
	}
	put := "PUT /v3/domains/" + testDomain + "/webhooks/delivered " + url.Values{"url": {"https://a.example/1", hookURL}}.Encode()
	if !slices.Contains(reqs, put) {
		t.Errorf("requests = %q, want %s", reqs, put)
	}
}

func TestRegisterTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	a := &account{key: signingKey, hooks: map[string][]string{}}
	if _, _, err := a.register(t, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range allHooks {
		if diff := cmp.Diff([]string{hookURL}, a.hooks[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	reg, reqs, err := a.register(t, signingKey)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(provider.Registration{}, reg, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("second registration (-want +got):\n%s", diff)
	}
	if slices.ContainsFunc(reqs, func(s string) bool { return !strings.HasPrefix(s, "GET ") }) {
		t.Errorf("requests = %q, want none that changes anything", reqs)
	}
}

func TestSigningKeyOfAnAccount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		account    account
		configured string
		want       map[string]string
		steps      int
		class      provider.Class
	}{
		"fetched":                    {account{key: signingKey}, "", map[string]string{"webhook_signing_key": signingKey}, 0, provider.Accepted},
		"rotated at Mailgun":         {account{key: signingKey}, previousKey, map[string]string{"webhook_signing_key": signingKey, "webhook_signing_key_previous": previousKey}, 0, provider.Accepted},
		"there is none":              {account{keyStatus: 400}, "", nil, 1, provider.Accepted},
		"refused":                    {account{keyStatus: 401}, "", nil, 1, provider.Accepted},
		"forbidden":                  {account{keyStatus: 403}, "", nil, 1, provider.Accepted},
		"not found":                  {account{keyStatus: 404}, "", nil, 1, provider.Accepted},
		"refused, but we have one":   {account{keyStatus: 403}, signingKey, nil, 0, provider.Accepted},
		"empty":                      {account{}, "", nil, 1, provider.Accepted},
		"that no header could carry": {account{key: "a b"}, "", nil, 1, provider.Accepted},
		"not now":                    {account{keyStatus: 503}, "", nil, 0, provider.Transient},
		"too often":                  {account{keyStatus: 429}, "", nil, 0, provider.Throttled},
	} {
		c.account.hooks = map[string][]string{}
		for _, hook := range allHooks {
			c.account.hooks[hook] = []string{hookURL}
		}
		reg, _, err := c.account.register(t, c.configured)
		providertest.CheckClass(t, err, c.class)
		if diff := cmp.Diff(c.want, reg.Secrets, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: secrets (-want +got):\n%s", name, diff)
		}
		if len(reg.Steps) != c.steps || c.steps == 1 && !strings.Contains(reg.Steps[0], "webhook_signing_key") {
			t.Errorf("%s: steps = %q, want %d that names the secret", name, reg.Steps, c.steps)
		}
	}
}

func TestRegisterErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		method string // of the first call that fails
		status int
		body   string
		want   provider.Class
		hint   string
	}{
		{"sending key", "GET", 401, "Forbidden", provider.Misconfigured, "a key that is not a sending key"},
		{"role that only reads", "POST", 403, `{"message":"no permission"}`, provider.Misconfigured, "no permission"},
		{"role that only makes", "PUT", 403, `{"message":"no permission"}`, provider.Misconfigured, "under Sending, Webhooks"},
		{"no such domain", "GET", 404, `{"message":"Domain not found"}`, provider.Misconfigured, "Domain not found"},
		{"URL refused", "POST", 400, `{"message":"Invalid URL"}`, provider.Misconfigured, "Invalid URL"},
		{"URL refused in other words", "POST", 400, `{"Reason":"Invalid URL"}`, provider.Misconfigured, "Invalid URL"},
		{"throttled", "PUT", 429, "", provider.Throttled, ""},
		{"broken", "POST", 500, "", provider.Transient, ""},
		{"wrong path", "GET", 200, "Mailgun Magnificent API", provider.Misconfigured, "base_url"},
	} {
		a := &account{key: signingKey, hooks: map[string][]string{"delivered": {"https://a.example/1"}}}
		if c.method == "PUT" {
			a.hooks["accepted"] = []string{"https://a.example/1"}
		}
		client := serveConfig(t, &requests{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != c.method {
				a.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(c.status)
			_, _ = fmt.Fprint(w, c.body)
		}), "")
		reg, err := client.Register(t.Context(), hookURL)
		providertest.CheckClass(t, err, c.want)
		providertest.CheckNoSecret(t, err, []string{testKey, signingKey})
		if err != nil && !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s: %v, want it to say %q", c.name, err, c.hint)
		}
		if len(reg.Secrets) > 0 {
			t.Errorf("%s: secrets of a registration that failed", c.name)
		}
	}
}
