package httpapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// acting returns a client that acts for ann, whose request came from an address.
func (r *rig) acting(from, tenant string, scopes ...record.Scope) *api.Client {
	req := httptest.NewRequest("GET", "/dash/", http.NoBody)
	req.RemoteAddr = from
	return api.NewWith("http://inside.invalid", "", &http.Client{Transport: r.server.As(req, "ann", scopes, tenant)})
}

func codeOf(err error) string {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		return ""
	}
	return p.Code
}

// A person meets the checks of the API, also where the admin API has an address of its own.
func TestAPersonHasTheScopesOfTheRole(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) {
		o.AdminApart = true
		o.AdminNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	viewer := r.acting("192.0.2.7:1", "default", record.RoleViewer.Scopes()...)
	if _, err := viewer.Queue(t.Context()); err != nil {
		t.Errorf("Queue = %v", err)
	}
	if _, err := viewer.Keys(t.Context()); codeOf(err) != "scope_missing" {
		t.Errorf("Keys = %v, want scope_missing", err)
	}
	if _, err := viewer.PauseAccount(t.Context(), "x"); codeOf(err) != "scope_missing" {
		t.Errorf("PauseAccount = %v, want scope_missing", err)
	}
	if _, err := r.acting("198.51.100.7:1", "default", record.RoleAdmin.Scopes()...).Queue(t.Context()); codeOf(err) != "address_not_allowed" {
		t.Errorf("Queue from elsewhere = %v, want address_not_allowed", err)
	}
	if _, err := r.acting("192.0.2.7:1", "nobody", record.RoleAdmin.Scopes()...).Messages(t.Context(), api.MessageQuery{}); codeOf(err) != "not_found" {
		t.Errorf("Messages of no tenant = %v, want not_found", err)
	}
}

func TestAPersonCantSendForAPausedTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.tenants[0].Paused = true
	_, err := r.acting("192.0.2.7:1", "default", record.ScopeSend).Send(t.Context(), api.SendRequest{
		From: api.Address{Email: "shop@example.com"}, To: []api.Address{{Email: "ann@example.org"}}, Subject: "x", Text: "x",
	}, "")
	if codeOf(err) != "tenant_paused" {
		t.Errorf("Send = %v, want tenant_paused", err)
	}
}

func TestTheAuditNamesThePerson(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	weight := 7
	if _, err := r.acting("192.0.2.7:1", "default", record.RoleAdmin.Scopes()...).PatchTenant(t.Context(), "default", api.TenantRequest{Weight: &weight}); err != nil {
		t.Fatal(err)
	}
	if got := r.store.audit; len(got) == 0 || got[len(got)-1].Actor != "user:ann" {
		t.Errorf("audit = %+v, want an entry of user:ann", got)
	}
}
