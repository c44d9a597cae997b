package resend

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/sendgate/sendgate/internal/provider"
)

// endpoint is a webhook in the form of "Create Webhook", "List Webhooks" and "Retrieve Webhook".
type endpoint struct {
	ID            string   `json:"id,omitempty"`
	Endpoint      string   `json:"endpoint"`
	Events        []string `json:"events"`
	Status        string   `json:"status,omitempty"`
	SigningSecret string   `json:"signing_secret,omitempty"`
}

// Register implements provider.Registrar: it makes our webhook, or updates the one with our URL. It also returns the webhook's
// signing secret.
func (c *Client) Register(ctx context.Context, target string) (provider.Registration, error) {
	have, err := c.webhook(ctx, target)
	if err != nil {
		return provider.Registration{}, err
	}
	want := endpoint{Endpoint: target, Events: slices.Sorted(maps.Keys(types()))}
	if have.ID == "" {
		var made endpoint
		if err := c.call(ctx, http.MethodPost, "/webhooks", want, &made); err != nil {
			return provider.Registration{}, err
		}
		return c.registered("made a webhook", made.SigningSecret), nil
	}
	path := "/webhooks/" + url.PathEscape(have.ID)
	want.Status = "enabled"
	if err := c.call(ctx, http.MethodPatch, path, want, &struct{}{}); err != nil {
		return provider.Registration{}, err
	}
	var now endpoint
	if err := c.call(ctx, http.MethodGet, path, nil, &now); err != nil {
		return provider.Registration{}, err
	}
	return c.registered("brought the webhook up to date", now.SigningSecret), nil
}

// webhook finds the endpoint with the URL, or returns one without an id.
func (c *Client) webhook(ctx context.Context, target string) (endpoint, error) {
	params := url.Values{"limit": {strconv.Itoa(pageSize)}}
	for range maxPages {
		var page struct {
			HasMore bool       `json:"has_more"`
			Data    []endpoint `json:"data"`
		}
		if err := c.call(ctx, http.MethodGet, "/webhooks?"+params.Encode(), nil, &page); err != nil {
			return endpoint{}, err
		}
		for _, e := range page.Data {
			if e.Endpoint == target && e.ID != "" {
				return e, nil
			}
		}
		if !page.HasMore || len(page.Data) == 0 {
			break
		}
		params.Set("after", page.Data[len(page.Data)-1].ID)
	}
	return endpoint{}, nil
}

// registered returns the secret if it is new to us. The replaced one is still accepted for a while.
func (c *Client) registered(done, secret string) provider.Registration {
	r := provider.Registration{Done: []string{done}}
	switch old := c.cfg.WebhookSecret; {
	case secret == "":
		r.Steps = []string{"copy the signing secret of the webhook from Resend's dashboard into webhook_secret"}
	case old.IsZero() || old.Reveal() != secret:
		r.Secrets = map[string]string{"webhook_secret": secret}
		if !old.IsZero() {
			r.Secrets["webhook_secret_previous"] = old.Reveal()
		}
	}
	return r
}
