package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// EndpointOptions are the parts that the routes of webhook endpoints need.
type EndpointOptions struct {
	Endpoints       EndpointStore
	TestDelivery    TestDelivery
	CheckWebhookURL func(raw string) error // refuses a URL that may not be called; nil refuses all
}

// EndpointStore keeps webhook endpoints. Every change writes its audit entry in the same transaction. An endpoint of another
// tenant is record.ErrNotFound, like one that does not exist.
type EndpointStore interface {
	Endpoints(ctx context.Context, t mail.TenantID) ([]record.Endpoint, error)
	Endpoint(ctx context.Context, t mail.TenantID, id mail.ID) (*record.Endpoint, error)
	// CreateEndpoint returns record.ErrConflict when the tenant has as many endpoints as it may.
	CreateEndpoint(ctx context.Context, actor string, e record.Endpoint, secret, headers seal.Secret) (*record.Endpoint, error)
	// UpdateEndpoint calls change on the endpoint while its row is locked. Enabling the endpoint clears its failures. headers
	// replace the stored ones, unless they are nil.
	UpdateEndpoint(
		ctx context.Context, actor string, t mail.TenantID, id mail.ID, headers *seal.Secret, change func(*record.Endpoint) error,
	) (*record.Endpoint, error)
	DeleteEndpoint(ctx context.Context, actor string, t mail.TenantID, id mail.ID) error
	// RotateEndpoint sets a new signing secret. The old one signs as well during the overlap.
	RotateEndpoint(
		ctx context.Context, actor string, t mail.TenantID, id mail.ID, secret seal.Secret, overlap time.Duration,
	) (*record.Endpoint, error)
	// Deliveries lists the tries, newest first. Unless before is zero, it lists only ids less than before.
	Deliveries(ctx context.Context, t mail.TenantID, id, before mail.ID, limit int) ([]record.DeliveryEntry, error)
	// ReplayEndpoint queues the events received in [since, until) that match the endpoint's filter. It returns how many.
	ReplayEndpoint(ctx context.Context, actor string, t mail.TenantID, id mail.ID, since, until time.Time) (int64, error)
}

// TestDelivery sends an example event to an endpoint, at once and without retries.
type TestDelivery interface {
	Test(ctx context.Context, t mail.TenantID, endpoint mail.ID) (record.DeliveryResult, error)
}

// endpointRoutes are the routes by which callers manage the endpoints that get their events.
func (s *Server) endpointRoutes(r chi.Router) {
	r.Get("/webhook-endpoints", s.may(record.ScopeWebhooksRead, show(s.listEndpoints)))
	r.Post("/webhook-endpoints", s.may(record.ScopeWebhooksWrite, take(s, http.StatusCreated, s.createEndpoint)))
	r.Get("/webhook-endpoints/{id}", s.may(record.ScopeWebhooksRead, show(s.getEndpoint)))
	r.Patch("/webhook-endpoints/{id}", s.may(record.ScopeWebhooksWrite, take(s, http.StatusOK, s.patchEndpoint)))
	r.Delete("/webhook-endpoints/{id}", s.may(record.ScopeWebhooksWrite, remove(s.deleteEndpoint)))
	r.Post("/webhook-endpoints/{id}/rotate", s.may(record.ScopeWebhooksWrite, take(s, http.StatusOK, s.rotateEndpoint)))
	r.Post("/webhook-endpoints/{id}/replay", s.may(record.ScopeWebhooksWrite, take(s, http.StatusOK, s.replayEndpoint)))
	r.Post("/webhook-endpoints/{id}/test", s.may(record.ScopeWebhooksWrite, show(s.testEndpoint)))
	r.Get("/webhook-endpoints/{id}/deliveries", s.may(record.ScopeWebhooksRead, reply(s.listDeliveries)))
}

const noEndpoint = "There is no such webhook endpoint."

func (s *Server) listEndpoints(r *http.Request) (api.List[api.WebhookEndpoint], error) {
	all, err := s.webhooks.Endpoints.Endpoints(r.Context(), principal(r).Tenant)
	return listView(all, endpointView), err
}

func (s *Server) getEndpoint(r *http.Request) (out api.WebhookEndpoint, err error) {
	id, err := pathID(r, noEndpoint)
	if err != nil {
		return out, err
	}
	e, err := s.webhooks.Endpoints.Endpoint(r.Context(), principal(r).Tenant, id)
	if err != nil {
		return out, missing(err, noEndpoint)
	}
	return endpointView(e), nil
}

// createEndpoint answers with the secret, which is never shown again.
func (s *Server) createEndpoint(r *http.Request, in api.WebhookEndpointRequest) (out api.WebhookEndpoint, err error) {
	if in.URL == nil {
		return out, invalid("url", "missing", "must say where events are to be POSTed")
	}
	if err := s.checkEndpoint(&in); err != nil {
		return out, err
	}
	e := record.Endpoint{Tenant: principal(r).Tenant}
	applyEndpoint(&e, &in)
	secret, headers := newWebhookSecret(), seal.Secret{}
	if h := endpointHeaders(&in); h != nil {
		headers = *h
	}
	made, err := s.webhooks.Endpoints.CreateEndpoint(r.Context(), principal(r).ID, e, secret, headers)
	if err != nil {
		return out, conflict(err, "too_many_endpoints", "The tenant has as many webhook endpoints as it may. Delete one first.")
	}
	out = endpointView(made)
	out.Secret = secret.Reveal()
	return out, nil
}

// patchEndpoint changes an endpoint. A new origin needs the headers again, so that they are not sent to another host.
func (s *Server) patchEndpoint(r *http.Request, in api.WebhookEndpointRequest) (out api.WebhookEndpoint, err error) {
	id, err := pathID(r, noEndpoint)
	if err != nil {
		return out, err
	}
	if err := s.checkEndpoint(&in); err != nil {
		return out, err
	}
	headers := endpointHeaders(&in)
	change := func(e *record.Endpoint) error {
		before := *e
		applyEndpoint(e, &in)
		if headers == nil && len(e.HeaderNames) > 0 && !sameOrigin(before.URL, e.URL) {
			return invalid("headers", "missing", "must be given again, or be {}: those that are there were for another host")
		}
		return nil
	}
	e, err := s.webhooks.Endpoints.UpdateEndpoint(r.Context(), principal(r).ID, principal(r).Tenant, id, headers, change)
	if err != nil {
		return out, missing(err, noEndpoint)
	}
	return endpointView(e), nil
}

func (s *Server) deleteEndpoint(r *http.Request) error {
	id, err := pathID(r, noEndpoint)
	if err != nil {
		return err
	}
	return missing(s.webhooks.Endpoints.DeleteEndpoint(r.Context(), principal(r).ID, principal(r).Tenant, id), noEndpoint)
}

// newWebhookSecret makes a signing secret of Standard Webhooks: whsec_ and the base64 of 32 random bytes.
func newWebhookSecret() seal.Secret {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	return seal.NewSecret("whsec_" + base64.StdEncoding.EncodeToString(key))
}

func endpointView(e *record.Endpoint) api.WebhookEndpoint {
	out := api.WebhookEndpoint{
		ID: e.ID.String(), URL: e.URL, Description: e.Description, Streams: e.Streams, HeaderNames: e.HeaderNames, UnreadableSecrets: e.Unreadable, Disabled: e.Disabled,
		DisabledReason: e.DisabledReason, FailingSince: optional(e.FailingSince), LastSuccessAt: optional(e.LastSuccess),
		Pending: e.Pending, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
	}
	for _, t := range e.Types {
		out.Types = append(out.Types, string(t))
	}
	return out
}
