package sendgrid

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/sendgate/sendgate/internal/provider"
)

const (
	hooksPath    = "/v3/user/webhooks/event/settings"
	friendlyName = "sendgate"
)

// hook is an Event Webhook in the API's list, with the exact names of its members ("Webhooks", event webhook).
type hook = fields

// Register implements provider.Registrar ("Webhooks", get all, create, update, toggle signature verification). It finds our
// webhook by its URL, makes it send every type of event, and turns on its signatures. The account keeps its keys, so that
// requests under way still verify; beyond five the oldest is dropped. The API key needs user.webhooks.event.settings.
func (c *Client) Register(ctx context.Context, target string) (provider.Registration, error) {
	var r provider.Registration
	found, err := c.hookAt(ctx, target)
	if err != nil {
		return r, err
	}
	switch {
	case found == nil:
		if err := c.call(ctx, http.MethodPost, hooksPath, wanted(target), &found); err != nil {
			return r, err
		}
		r.Done = append(r.Done, "made an event webhook for "+target)
	case lacks(found):
		if err := c.call(ctx, http.MethodPatch, hooksPath+"/"+url.PathEscape(found.text("id")), wanted(target), &struct{}{}); err != nil {
			return r, err
		}
		r.Done = append(r.Done, "made the event webhook send every type of event")
	}
	key := found.text("public_key")
	if key == "" {
		if key, err = c.sign(ctx, found.text("id")); err != nil {
			return r, err
		}
		r.Done = append(r.Done, "turned on the signatures of the event webhook")
	}
	if _, err := publicKey(key); err != nil {
		return r, &provider.Error{Class: provider.Misconfigured, Detail: c.http.Scrub("sendgrid: the webhook's public key is " + err.Error()), Err: err}
	}
	r.Settings = map[string]any{"webhook_public_keys": c.keysWith(key)}
	return r, nil
}

// hookAt is the webhook with this URL, or nil. For an account without webhooks, the list has one that has no members.
func (c *Client) hookAt(ctx context.Context, target string) (hook, error) {
	var out struct {
		Webhooks []hook `json:"webhooks"`
	}
	if err := c.call(ctx, http.MethodGet, hooksPath+"/all", nil, &out); err != nil {
		return nil, err
	}
	for _, h := range out.Webhooks {
		if h.text("url") == target && h.text("id") != "" {
			return h, nil
		}
	}
	return nil, nil
}

// sign turns signatures on and returns the public key. Without an id SendGrid would use its oldest webhook.
func (c *Client) sign(ctx context.Context, id string) (string, error) {
	if id == "" {
		return "", &provider.Error{Class: provider.Transient, Detail: "sendgrid: the webhook has no id"}
	}
	var out struct {
		PublicKey string `json:"public_key"`
	}
	err := c.call(ctx, http.MethodPatch, hooksPath+"/signed/"+url.PathEscape(id), map[string]bool{"enabled": true}, &out)
	return out.PublicKey, err
}

// eventTypes are the switches of a webhook, one for each type of event.
func eventTypes() []string {
	return []string{
		"processed", "deferred", "delivered", "bounce", "dropped", "open", "click", "spam_report", "unsubscribe",
		"group_unsubscribe", "group_resubscribe",
	}
}

func wanted(target string) map[string]any {
	w := map[string]any{"enabled": true, "url": target, "friendly_name": friendlyName}
	for _, t := range eventTypes() {
		w[t] = true
	}
	return w
}

// lacks reports whether a webhook is off, or some type of event is.
func lacks(h hook) bool {
	return slices.ContainsFunc(append(eventTypes(), "enabled"), func(name string) bool { return string(h[name]) == "false" })
}

// keysWith puts the key in front of the account's keys.
func (c *Client) keysWith(key string) []string {
	keys := append([]string{key}, slices.DeleteFunc(slices.Clone(c.cfg.WebhookPublicKeys), func(k string) bool { return k == key })...)
	return keys[:min(len(keys), maxPublicKeys)]
}
