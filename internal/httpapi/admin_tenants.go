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

func (s *Server) listTenants(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	tenants, err := s.store.Tenants(r.Context())
	if err != nil {
		return err
	}
	out := api.List[api.Tenant]{Data: make([]api.Tenant, 0, len(tenants))}
	for _, t := range tenants {
		out.Data = append(out.Data, tenantView(t))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) createTenant(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.TenantRequest](s, w, r)
	if err != nil {
		return err
	}
	if !validName(in.Name) {
		return invalidName("name")
	}
	t := record.Tenant{Name: in.Name, Weight: defaultTenantWeight}
	if err := applyTenant(&t, in); err != nil {
		return err
	}
	created, err := s.store.CreateTenant(r.Context(), principal(r).ID, t)
	if err != nil {
		return conflict(err, "name_taken", "There is a tenant of that name.")
	}
	return writeJSON(w, http.StatusCreated, tenantView(created))
}

func (s *Server) patchTenant(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.TenantRequest](s, w, r)
	if err != nil {
		return err
	}
	t, err := s.tenant(r.Context(), pathParam(r, "tenant"))
	if err != nil {
		return err
	}
	if t == nil {
		return refuse(http.StatusNotFound, "not_found", "There is no such tenant.")
	}
	if in.Name != "" && in.Name != t.Name {
		return invalid("name", "fixed", "can't be changed")
	}
	if err := applyTenant(t, in); err != nil {
		return err
	}
	if err := s.store.UpdateTenant(r.Context(), principal(r).ID, t.Name, t.Weight, t.Paused); err != nil {
		return missing(err, "There is no such tenant.")
	}
	return writeJSON(w, http.StatusOK, tenantView(*t))
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

func tenantView(t record.Tenant) api.Tenant {
	return api.Tenant{Name: t.Name, Weight: t.Weight, Paused: t.Paused, CreatedAt: t.CreatedAt}
}
