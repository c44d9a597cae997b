package api

import (
	"context"
	"net/http"
	"net/url"
)

// WebhookEndpoints lists the tenant's webhook endpoints, oldest first.
func (c *Client) WebhookEndpoints(ctx context.Context) ([]WebhookEndpoint, error) {
	return list[WebhookEndpoint](ctx, c, "/v1/webhook-endpoints")
}

// WebhookEndpoint returns one webhook endpoint.
func (c *Client) WebhookEndpoint(ctx context.Context, id string) (*WebhookEndpoint, error) {
	return get[WebhookEndpoint](ctx, c, endpointPath(id), nil)
}

// CreateWebhookEndpoint makes a webhook endpoint. The answer holds the only copy of its secret.
func (c *Client) CreateWebhookEndpoint(ctx context.Context, r WebhookEndpointRequest) (*WebhookEndpoint, error) {
	return into[WebhookEndpoint](ctx, c, call{method: http.MethodPost, path: "/v1/webhook-endpoints", body: r})
}

// PatchWebhookEndpoint changes the fields that are set.
func (c *Client) PatchWebhookEndpoint(ctx context.Context, id string, r WebhookEndpointRequest) (*WebhookEndpoint, error) {
	return into[WebhookEndpoint](ctx, c, call{method: http.MethodPatch, path: endpointPath(id), body: r})
}

// DeleteWebhookEndpoint removes a webhook endpoint and the deliveries that wait for it.
func (c *Client) DeleteWebhookEndpoint(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: endpointPath(id)})
}

// RotateWebhookEndpoint replaces the secret of an endpoint. The answer holds the only copy of the new one.
func (c *Client) RotateWebhookEndpoint(ctx context.Context, id string, r WebhookRotateRequest) (*WebhookEndpoint, error) {
	return into[WebhookEndpoint](ctx, c, call{method: http.MethodPost, path: endpointPath(id) + "/rotate", body: r})
}

// ReplayWebhookEndpoint queues past events for an endpoint, and returns how many.
func (c *Client) ReplayWebhookEndpoint(ctx context.Context, id string, r WebhookReplayRequest) (*WebhookReplayResult, error) {
	return into[WebhookReplayResult](ctx, c, call{method: http.MethodPost, path: endpointPath(id) + "/replay", body: r})
}

// TestWebhookEndpoint sends an example event to an endpoint and returns the result.
func (c *Client) TestWebhookEndpoint(ctx context.Context, id string) (*WebhookDelivery, error) {
	return into[WebhookDelivery](ctx, c, call{method: http.MethodPost, path: endpointPath(id) + "/test"})
}

// WebhookDeliveries returns one page of an endpoint's delivery log, newest first.
func (c *Client) WebhookDeliveries(ctx context.Context, id, cursor string, limit int) (*WebhookDeliveryPage, error) {
	return get[WebhookDeliveryPage](ctx, c, endpointPath(id)+"/deliveries", pageQuery(cursor, limit))
}

func endpointPath(id string) string { return "/v1/webhook-endpoints/" + url.PathEscape(id) }
