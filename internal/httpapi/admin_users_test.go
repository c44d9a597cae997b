package httpapi

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

func TestUsersAreMadeWithALinkAndChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, ctx := r.client(r.admin), t.Context()
	ann, err := c.CreateUser(ctx, api.UserRequest{Name: "ann", Role: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	path, token, _ := strings.Cut(ann.Link, "#")
	if path != "/dash/welcome" || hex.EncodeToString(record.HashToken(token)) != r.store.user("ann").link || len(token) < 50 {
		t.Errorf("link %q does not hold the token that is stored", ann.Link)
	}
	if ann.State != "invited" || ann.LinkExpiresAt == nil || !ann.LinkExpiresAt.Equal(r.clock.now().Add(record.LinkLife)) {
		t.Errorf("invited: %+v", ann)
	}
	shown, err := c.User(ctx, "ann")
	if err != nil || shown.Link != "" {
		t.Errorf("the link is shown again: %+v, %v", shown, err)
	}
	r.store.user("ann").sessions, r.store.user("ann").Ready = 2, true
	if sessions, err := c.UserSessions(ctx, "ann"); err != nil || len(sessions) != 2 {
		t.Errorf("sessions = %v, %v", sessions, err)
	}
	viewer, yes := "viewer", true
	if u, err := c.PatchUser(ctx, "ann", api.UserPatch{Role: &viewer}); err != nil || u.Role != "viewer" || u.State != "active" {
		t.Errorf("another role: %+v, %v", u, err)
	}
	if u, err := c.PatchUser(ctx, "ann", api.UserPatch{Disabled: &yes}); err != nil || u.State != "disabled" || u.Role != "viewer" {
		t.Errorf("disabled: %+v, %v", u, err)
	}
	if again, err := c.ResetUser(ctx, "ann"); err != nil || again.Link == "" || again.Link == ann.Link {
		t.Errorf("reset: %+v, %v", again, err)
	}
	if err := c.EndUserSessions(ctx, "ann"); err != nil {
		t.Error(err)
	}
	if users, err := c.Users(ctx); err != nil || len(users) != 1 || users[0].Name != "ann" {
		t.Errorf("users = %+v, %v", users, err)
	}
}

func TestUsersAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, body := range []string{
		`{"name":"","role":"admin"}`, `{"name":"Ann","role":"admin"}`, `{"name":"ann b","role":"admin"}`, `{"name":"` + strings.Repeat("a", 41) + `","role":"admin"}`,
		`{"name":"ann","role":""}`, `{"name":"ann","role":"root"}`,
	} {
		r.want(r.do("POST", "/admin/v1/users", r.admin, body), 422, "invalid")
	}
	r.want(r.do("POST", "/admin/v1/users", r.admin, `{"name":"ann","role":"admin"}`), 201, "")
	r.want(r.do("POST", "/admin/v1/users", r.admin, `{"name":"ann","role":"viewer"}`), 409, "name_taken")
	r.want(r.do("PATCH", "/admin/v1/users/ann", r.admin, `{"role":"root"}`), 422, "invalid")
	for _, call := range []string{"GET /admin/v1/users/bob", "POST /admin/v1/users/bob/reset", "GET /admin/v1/users/bob/sessions", "DELETE /admin/v1/users/bob/sessions"} {
		method, path, _ := strings.Cut(call, " ")
		r.want(r.do(method, path, r.admin, ""), 404, "not_found")
	}
	r.want(r.do("PATCH", "/admin/v1/users/bob", r.admin, `{"disabled":true}`), 404, "not_found")
}

// A role opens only what is meant for it: who turns the routing can make no key, user or tenant, and so get no further.
func TestRolesOpenTheirRoutesOnly(t *testing.T) {
	t.Parallel()
	changes := map[record.Role][]string{ // what each may change beyond the role before it
		record.RoleViewer: {"POST /admin/v1/route/explain"},
		record.RoleSupport: {
			"POST /v1/send", "POST /v1/send/batch", "POST /v1/messages/{id}/cancel", "POST /v1/messages/{id}/resend",
			"POST /v1/suppressions", "POST /v1/suppressions/import", "DELETE /v1/suppressions/{email}",
		},
		record.RoleOperator: {
			"POST /v1/webhook-endpoints", "PATCH /v1/webhook-endpoints/{id}", "DELETE /v1/webhook-endpoints/{id}",
			"POST /v1/webhook-endpoints/{id}/replay", "POST /v1/webhook-endpoints/{id}/rotate", "POST /v1/webhook-endpoints/{id}/test",
			"POST /admin/v1/accounts/{account}/pause", "POST /admin/v1/accounts/{account}/resume", "PUT /admin/v1/accounts/{account}/limits",
			"POST /admin/v1/pools", "PUT /admin/v1/pools/{pool}", "POST /admin/v1/rules", "PUT /admin/v1/rules", "DELETE /admin/v1/rules/{rule}",
		},
		record.RoleAdmin: {
			"POST /admin/v1/accounts", "PATCH /admin/v1/accounts/{account}", "DELETE /admin/v1/accounts/{account}", "POST /admin/v1/accounts/{account}/webhooks",
			"POST /admin/v1/events/reproject", "POST /admin/v1/keys", "PATCH /admin/v1/keys/{key}", "POST /admin/v1/keys/{key}/rotate", "DELETE /admin/v1/keys/{key}",
			"POST /admin/v1/tenants", "PATCH /admin/v1/tenants/{tenant}", "POST /admin/v1/users", "PATCH /admin/v1/users/{user}",
			"POST /admin/v1/users/{user}/reset", "DELETE /admin/v1/users/{user}/sessions",
		},
	}
	hidden := map[string]record.Role{ // from the roles before this one
		"GET /v1/webhook-endpoints": record.RoleOperator, "GET /v1/webhook-endpoints/{id}": record.RoleOperator, "GET /v1/webhook-endpoints/{id}/deliveries": record.RoleOperator,
		"GET /admin/v1/keys": record.RoleOperator, "GET /admin/v1/tenants": record.RoleOperator, "GET /admin/v1/audit": record.RoleOperator,
		"GET /admin/v1/users": record.RoleOperator, "GET /admin/v1/users/{user}": record.RoleOperator, "GET /admin/v1/users/{user}/sessions": record.RoleOperator,
	}
	for route, wanted := range scopeOf() {
		if wanted == nil {
			continue
		}
		first := record.RoleViewer
		for role, routes := range changes {
			if slices.Contains(routes, route) {
				first = role
			}
		}
		if from, ok := hidden[route]; ok {
			first = from
		}
		if !strings.HasPrefix(route, "GET ") && first == record.RoleViewer && !slices.Contains(changes[first], route) {
			t.Errorf("%s has no line: say which role may do it", route)
		}
		for i, role := range record.Roles() {
			key := record.Key{Scopes: role.Scopes()}
			if got, want := slices.ContainsFunc(wanted, key.May), i >= slices.Index(record.Roles(), first); got != want {
				t.Errorf("%s opens to a %s = %v, want %v", route, role, got, want)
			}
		}
	}
	if got := record.Role("root").Scopes(); got != nil {
		t.Errorf("an unknown role may do %v", got)
	}
}
