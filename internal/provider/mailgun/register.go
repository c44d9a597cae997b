package mailgun

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// webhookNames are all webhooks of a domain ("Domain Webhooks"). There is none for rejections.
var webhookNames = []string{
	"accepted", "delivered", "opened", "clicked", "unsubscribed", "complained", "permanent_fail", "temporary_fail",
}

// maxURLs is how many URLs a webhook can have ("Domain Webhooks").
const maxURLs = 3

// webhooks is the answer of GET /v3/domains/{domain}/webhooks, by name.
type webhooks struct {
	Webhooks map[string]struct {
		URLs []string `json:"urls"`
		URL  string   `json:"url"` // the older form, with one URL
	} `json:"webhooks"`
}

func (w *webhooks) urls(name string) []string {
	hook := w.Webhooks[name]
	if hook.URL != "" && !slices.Contains(hook.URLs, hook.URL) {
		return append(hook.URLs, hook.URL)
	}
	return hook.URLs
}

// Register implements provider.Registrar. It adds our URL to each webhook of the domain, and fetches the account's signing
// key. It needs an API key of the account; a sending key is refused.
func (c *Client) Register(ctx context.Context, hook string) (provider.Registration, error) {
	var (
		reg  provider.Registration
		have webhooks
	)
	if perr := c.call(ctx, http.MethodGet, c.webhooksURL(), nil, &have); perr != nil {
		return reg, refused(perr)
	}
	for _, name := range webhookNames {
		if perr := c.subscribe(ctx, &reg, name, have.urls(name), hook); perr != nil {
			return reg, refused(perr)
		}
	}
	if perr := c.signingKey(ctx, &reg); perr != nil {
		return reg, perr
	}
	return reg, nil
}

func (c *Client) webhooksURL() string {
	return c.cfg.apiBase() + "/domains/" + c.cfg.Domain + "/webhooks"
}

// subscribe adds the URL to one webhook. POST makes a webhook; PUT replaces the URLs of an existing one.
func (c *Client) subscribe(ctx context.Context, reg *provider.Registration, name string, have []string, hook string) *provider.Error {
	switch {
	case slices.Contains(have, hook):
		return nil
	case len(have) >= maxURLs:
		reg.Steps = append(reg.Steps, "Mailgun takes 3 URLs for "+name+", and has 3 others: remove one under Sending, Webhooks, then register again.")
		return nil
	}
	form := url.Values{"url": append(slices.Clone(have), hook)}
	method, address := http.MethodPut, c.webhooksURL()+"/"+name
	if len(have) == 0 {
		method, address = http.MethodPost, c.webhooksURL()
		form.Set("id", name)
	}
	var answer struct{}
	if perr := c.call(ctx, method, address, form, &answer); perr != nil {
		return perr
	}
	reg.Done = append(reg.Done, "added the URL to the webhook "+name+" of "+c.cfg.Domain)
	return nil
}

// refused adds advice if the key may not manage webhooks.
func refused(perr *provider.Error) *provider.Error {
	if perr.Status == http.StatusUnauthorized || perr.Status == http.StatusForbidden {
		perr.Detail = provider.Cut("mailgun: this API key may not manage webhooks (" + perr.Detail +
			"): give the account a key that is not a sending key, or add the URL under Sending, Webhooks for each event")
	}
	return perr
}

// signingKey fetches the key that signs webhooks: GET /v5/accounts/http_signing_key ("Account Management"). If a different key is
// in use, that one becomes the previous key. It never makes a new key: that would end the key that others verify with.
func (c *Client) signingKey(ctx context.Context, reg *provider.Registration) *provider.Error {
	var got struct {
		Key string `json:"http_signing_key"`
	}
	perr := c.call(ctx, http.MethodGet, strings.TrimSuffix(c.cfg.apiBase(), "/v3")+"/v5/accounts/http_signing_key", nil, &got)
	if perr != nil && perr.Class != provider.Misconfigured {
		return perr
	}
	fetched, current := seal.NewSecret(got.Key), c.cfg.SigningKey
	switch {
	case perr == nil && esphttp.CheckCredential(signingKeyName, fetched) == nil:
		if fetched.Equal(current) {
			return nil
		}
		reg.Done = append(reg.Done, "fetched the HTTP webhook signing key")
		reg.Secrets = map[string]string{signingKeyName: got.Key}
		if !current.IsZero() {
			reg.Secrets[signingKeyName+"_previous"] = current.Reveal()
		}
	case current.IsZero():
		reg.Steps = append(reg.Steps, "Mailgun did not give the HTTP webhook signing key to this API key: copy it from Settings, "+
			"API Security, HTTP webhook signing key, and store it as the account's secret "+signingKeyName+".")
	}
	return nil
}
