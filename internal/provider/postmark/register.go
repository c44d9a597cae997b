package postmark

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/sendgate/sendgate/internal/provider"
)

// webhook is the input of "Webhooks API". MessageStream can't change after creation.
type webhook struct {
	URL           string    `json:"Url"`
	MessageStream string    `json:",omitempty"`
	HttpAuth      *httpAuth `json:",omitempty"`
	HttpHeaders   []header
	Triggers      triggers
}

type httpAuth struct{ Username, Password string }

type triggers struct {
	Open               trigger
	Click              trigger
	Delivery           trigger
	Bounce             trigger
	SpamComplaint      trigger
	SubscriptionChange trigger
}

// trigger is one type of event. The content of messages is not included: a request would exceed every cap.
type trigger struct {
	Enabled           bool
	PostFirstOpenOnly *bool `json:",omitempty"`
	IncludeContent    *bool `json:",omitempty"`
}

// Register implements provider.Registrar ("Webhooks API", list, create, edit), for each message stream that the account
// sends by. Postmark calls the URL before it accepts a webhook, and wants 200, so the receiver must know the password by
// then. If there is no password yet, Register only makes one, and must be called again.
func (c *Client) Register(ctx context.Context, target string) (provider.Registration, error) {
	if c.cfg.WebhookToken.IsZero() && c.cfg.WebhookPassword.IsZero() {
		random := make([]byte, 32)
		_, _ = rand.Read(random) // never fails
		return provider.Registration{
			Again:   true,
			Done:    []string{"made a password for the webhooks"},
			Secrets: map[string]string{"webhook_password": base64.RawURLEncoding.EncodeToString(random)},
		}, nil
	}
	var r provider.Registration
	for _, stream := range c.cfg.streams() {
		done, err := c.registerStream(ctx, target, stream)
		if err != nil {
			return r, err
		}
		r.Done = append(r.Done, done)
	}
	return r, nil
}

// registerStream makes our webhook of one stream, or updates the one with our URL.
func (c *Client) registerStream(ctx context.Context, target, stream string) (string, error) {
	var list struct {
		Webhooks []struct {
			ID  json.Number
			URL string `json:"Url"`
		}
	}
	if err := c.call(ctx, http.MethodGet, "/webhooks?"+url.Values{"MessageStream": {stream}}.Encode(), nil, &list); err != nil {
		return "", err
	}
	var made struct{ ID json.Number }
	w := c.wanted(target)
	for _, have := range list.Webhooks {
		if have.URL == target && have.ID != "" {
			err := c.call(ctx, http.MethodPut, "/webhooks/"+url.PathEscape(have.ID.String()), w, &made)
			return "brought the webhook of the stream " + stream + " up to date", err
		}
	}
	w.MessageStream = stream
	err := c.call(ctx, http.MethodPost, "/webhooks", w, &made)
	return "made a webhook for the stream " + stream, err
}

// wanted is the webhook that we want to have.
func (c *Client) wanted(target string) webhook {
	no := false
	on := trigger{Enabled: true}
	w := webhook{URL: target, HttpHeaders: []header{}, Triggers: triggers{
		Open:  trigger{Enabled: true, PostFirstOpenOnly: &no},
		Click: on, Delivery: on, SubscriptionChange: on,
		Bounce:        trigger{Enabled: true, IncludeContent: &no},
		SpamComplaint: trigger{Enabled: true, IncludeContent: &no},
	}}
	if !c.cfg.WebhookPassword.IsZero() {
		w.HttpAuth = &httpAuth{Username: c.cfg.username(), Password: c.cfg.WebhookPassword.Reveal()}
	}
	if !c.cfg.WebhookToken.IsZero() {
		w.HttpHeaders = append(w.HttpHeaders, header{Name: c.cfg.WebhookHeader, Value: c.cfg.WebhookToken.Reveal()})
	}
	return w
}
