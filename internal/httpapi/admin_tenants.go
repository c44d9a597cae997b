package httpapi

import (
	"context"
	"net/http"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// TenantStore keeps tenants.
type TenantStore interface {
	Tenants(ctx context.Context) ([]record.Tenant, error)
	CreateTenant(ctx context.Context, actor string, t record.Tenant) (record.Tenant, error)
	UpdateTenant(ctx context.Context, actor, name string, weight int, paused bool) error
}

const (
	defaultTenantWeight = 100
	maxTenantWeight     = 1000
)

func (s *Server) listTenants(r *http.Request) (api.List[api.Tenant], error) {
	tenants, err := s.store.Tenants(r.Context())
	return listView(tenants, tenantView), err
}

func (s *Server) createTenant(r *http.Request, in api.TenantRequest) (out api.Tenant, err error) {
	if !validName(in.Name) {
		return out, invalidName("name")
	}
	t := record.Tenant{Name: in.Name, Weight: defaultTenantWeight}
	if err := applyTenant(&t, in); err != nil {
		return out, err
	}
	created, err := s.store.CreateTenant(r.Context(), principal(r).ID, t)
	return tenantView(&created), conflict(err, "name_taken", "There is a tenant of that name.")
}

func (s *Server) patchTenant(r *http.Request, in api.TenantRequest) (out api.Tenant, err error) {
	t, err := s.tenant(r.Context(), pathParam(r, "tenant"))
	if err != nil {
		return out, err
	}
	if t == nil {
		return out, refuse(http.StatusNotFound, "not_found", "There is no such tenant.")
	}
	if in.Name != "" && in.Name != t.Name {
		return out, invalid("name", "fixed", "can't be changed")
	}
	if err := applyTenant(t, in); err != nil {
		return out, err
	}
	err = s.store.UpdateTenant(r.Context(), principal(r).ID, t.Name, t.Weight, t.Paused)
	return tenantView(t), missing(err, "There is no such tenant.")
}

func applyTenant(t *record.Tenant, in api.TenantRequest) error {
	if in.Weight != nil {
		if *in.Weight < 1 || *in.Weight > maxTenantWeight {
			return invalid("weight", "out_of_range", "must be 1 to 1000")
		}
		t.Weight = *in.Weight
	}
	if in.Paused != nil {
		t.Paused = *in.Paused
	}
	return nil
}

func tenantView(t *record.Tenant) api.Tenant {
	return api.Tenant{Name: t.Name, Weight: t.Weight, Paused: t.Paused, CreatedAt: t.CreatedAt}
}
