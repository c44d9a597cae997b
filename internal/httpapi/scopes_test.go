package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/record"
)

// scopeOf is who may call what: the scope that a 403 names, and others that open the route too. No scope is a route that
// takes no key. A new route needs a line here.
func scopeOf() map[string][]record.Scope {
	return map[string][]record.Scope{
		"POST /hooks/{account}":                      nil,
		"GET /u/{token}":                             nil,
		"GET /openapi.yaml":                          nil,
		"GET /openapi.json":                          nil,
		"GET /problems/{code}":                       nil,
		"HEAD /u/{token}":                            nil,
		"POST /u/{token}":                            nil,
		"POST /v1/send":                              {record.ScopeSend},
		"POST /v1/send/batch":                        {record.ScopeSend},
		"GET /v1/messages":                           {record.ScopeMessagesRead},
		"GET /v1/messages/{id}":                      {record.ScopeMessagesRead},
		"POST /v1/messages/{id}/cancel":              {record.ScopeSend},
		"POST /v1/messages/{id}/resend":              {record.ScopeSend},
		"GET /v1/events":                             {record.ScopeEventsRead},
		"GET /v1/events/stream":                      {record.ScopeEventsRead},
		"GET /v1/stats":                              {record.ScopeStatsRead},
		"GET /v1/suppressions":                       {record.ScopeSuppressionsRead},
		"POST /v1/suppressions":                      {record.ScopeSuppressionsWrite, record.ScopeSend},
		"GET /v1/suppressions/export":                {record.ScopeSuppressionsRead},
		"POST /v1/suppressions/import":               {record.ScopeSuppressionsWrite, record.ScopeSend},
		"GET /v1/suppressions/{email}":               {record.ScopeSuppressionsRead},
		"DELETE /v1/suppressions/{email}":            {record.ScopeSuppressionsWrite},
		"GET /v1/webhook-endpoints":                  {record.ScopeWebhooksRead},
		"POST /v1/webhook-endpoints":                 {record.ScopeWebhooksWrite},
		"GET /v1/webhook-endpoints/{id}":             {record.ScopeWebhooksRead},
		"PATCH /v1/webhook-endpoints/{id}":           {record.ScopeWebhooksWrite},
		"DELETE /v1/webhook-endpoints/{id}":          {record.ScopeWebhooksWrite},
		"GET /v1/webhook-endpoints/{id}/deliveries":  {record.ScopeWebhooksRead},
		"POST /v1/webhook-endpoints/{id}/replay":     {record.ScopeWebhooksWrite},
		"POST /v1/webhook-endpoints/{id}/rotate":     {record.ScopeWebhooksWrite},
		"POST /v1/webhook-endpoints/{id}/test":       {record.ScopeWebhooksWrite},
		"GET /admin/v1/accounts":                     {record.ScopeRoutingRead},
		"POST /admin/v1/accounts":                    {record.ScopeAdminWrite},
		"GET /admin/v1/accounts/{account}":           {record.ScopeRoutingRead},
		"PATCH /admin/v1/accounts/{account}":         {record.ScopeAdminWrite},
		"DELETE /admin/v1/accounts/{account}":        {record.ScopeAdminWrite},
		"POST /admin/v1/accounts/{account}/pause":    {record.ScopeRoutingWrite},
		"POST /admin/v1/accounts/{account}/resume":   {record.ScopeRoutingWrite},
		"GET /admin/v1/accounts/{account}/limits":    {record.ScopeRoutingRead},
		"PUT /admin/v1/accounts/{account}/limits":    {record.ScopeRoutingWrite},
		"GET /admin/v1/accounts/{account}/webhooks":  {record.ScopeRoutingRead},
		"POST /admin/v1/accounts/{account}/webhooks": {record.ScopeAdminWrite},
		"POST /admin/v1/events/reproject":            {record.ScopeAdminWrite},
		"GET /admin/v1/pools":                        {record.ScopeRoutingRead},
		"POST /admin/v1/pools":                       {record.ScopeRoutingWrite},
		"GET /admin/v1/pools/{pool}":                 {record.ScopeRoutingRead},
		"PUT /admin/v1/pools/{pool}":                 {record.ScopeRoutingWrite},
		"GET /admin/v1/rules":                        {record.ScopeRoutingRead},
		"POST /admin/v1/rules":                       {record.ScopeRoutingWrite},
		"PUT /admin/v1/rules":                        {record.ScopeRoutingWrite},
		"DELETE /admin/v1/rules/{rule}":              {record.ScopeRoutingWrite},
		"POST /admin/v1/route/explain":               {record.ScopeRoutingRead},
		"GET /admin/v1/route/explain/{id}":           {record.ScopeRoutingRead},
		"GET /admin/v1/keys":                         {record.ScopeAdminRead},
		"POST /admin/v1/keys":                        {record.ScopeAdminWrite},
		"PATCH /admin/v1/keys/{key}":                 {record.ScopeAdminWrite},
		"POST /admin/v1/keys/{key}/rotate":           {record.ScopeAdminWrite},
		"DELETE /admin/v1/keys/{key}":                {record.ScopeAdminWrite},
		"GET /admin/v1/tenants":                      {record.ScopeAdminRead},
		"POST /admin/v1/tenants":                     {record.ScopeAdminWrite},
		"PATCH /admin/v1/tenants/{tenant}":           {record.ScopeAdminWrite},
		"GET /admin/v1/users":                        {record.ScopeAdminRead},
		"POST /admin/v1/users":                       {record.ScopeAdminWrite},
		"GET /admin/v1/users/{user}":                 {record.ScopeAdminRead},
		"PATCH /admin/v1/users/{user}":               {record.ScopeAdminWrite},
		"POST /admin/v1/users/{user}/reset":          {record.ScopeAdminWrite},
		"GET /admin/v1/users/{user}/sessions":        {record.ScopeAdminRead},
		"DELETE /admin/v1/users/{user}/sessions":     {record.ScopeAdminWrite},
		"GET /admin/v1/queue":                        {record.ScopeRoutingRead},
		"GET /admin/v1/limits":                       {record.ScopeRoutingRead},
		"GET /admin/v1/audit":                        {record.ScopeAdminRead},
	}
}

// meanings are the scopes that others include: the older names of keys, and those of the whole admin API.
func meanings() map[record.Scope][]record.Scope {
	return map[record.Scope][]record.Scope{
		"read":  {"messages:read", "events:read", "stats:read", "suppressions:read", "webhooks:read"},
		"admin": {"admin:read", "admin:write", "routing:read", "routing:write"},

		"admin:read":  {"routing:read"},
		"admin:write": {"routing:write"},
	}
}

// Each route of the router is tried with a key of each scope, and of each older name.
func TestEveryRouteOpensToItsScopesOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	table, routes := scopeOf(), r.routesOf()
	keys := map[record.Scope]string{}
	for _, scope := range record.Scopes() {
		keys[scope] = r.store.addKey(nil, scope)
	}
	for route := range table {
		if !slices.Contains(routes, route) {
			t.Errorf("scopeOf has a line for %s, which is no route", route)
		}
	}
	for _, route := range routes {
		wanted, ok := table[route]
		if !ok {
			t.Errorf("route %s has no line in scopeOf", route)
			continue
		}
		if wanted == nil {
			continue // hooks_test.go and unsubscribe_test.go have what opens these
		}
		method, pattern, _ := strings.Cut(route, " ")
		path := strings.NewReplacer("{", "", "}", "").Replace(pattern)
		if got := r.do(method, path, "", "").status; got != http.StatusUnauthorized {
			t.Errorf("%s without a key = %d, want 401", route, got)
		}
		for scope, key := range keys {
			opens := slices.ContainsFunc(append(meanings()[scope], scope), func(s record.Scope) bool { return slices.Contains(wanted, s) })
			a := r.do(method, path, key, "")
			refused := a.status == http.StatusForbidden && a.problem.Code == "scope_missing"
			if refused == opens {
				t.Errorf("%s with scope %s = %d %s, wanted scopes are %v", route, scope, a.status, a.problem.Code, wanted)
			}
			if named := string(wanted[0]); refused && (!strings.Contains(a.problem.Detail, " "+named+".") ||
				!strings.Contains(a.header.Get("Www-Authenticate"), `error="insufficient_scope", scope="`+named+`"`)) {
				t.Errorf("%s with scope %s: %q, %q; want that both name %s", route, scope, a.problem.Detail, a.header.Get("Www-Authenticate"), named)
			}
		}
		r.clock.move(time.Minute) // the 401 above counts as a failure
	}
}

func TestEveryScopeOpensSomething(t *testing.T) {
	t.Parallel()
	all := slices.Concat(slices.Collect(maps.Values(scopeOf()))...)
	for _, scope := range record.Scopes() {
		opens := slices.ContainsFunc(append(meanings()[scope], scope), func(s record.Scope) bool { return slices.Contains(all, s) })
		if !opens && scope != record.ScopeComplaints { // which comes on top: see below
			t.Errorf("scope %s opens no route", scope)
		}
	}
}

// A key that was made to send can stop mail, as before, and neither allow it again nor have events sent elsewhere.
func TestKeyThatSendsNeitherLiftsSuppressionsNorLeaksEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.want(r.do("POST", "/v1/suppressions", r.send, `{"email":"ann@example.org"}`), 201, "")
	r.want(r.do("DELETE", "/v1/suppressions/ann@example.org", r.send, ""), 403, "scope_missing")
	r.want(r.do("POST", "/v1/webhook-endpoints", r.send, `{"url":"https://elsewhere.example.net/"}`), 403, "scope_missing")
	r.want(r.do("GET", "/v1/suppressions/ann@example.org", r.read, ""), 200, "")
}

func TestComplaintIsLiftedByItsOwnScopeOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	writes := r.store.addKey(nil, record.ScopeSuppressionsWrite)
	alone := r.store.addKey(nil, record.ScopeComplaints)
	both := r.store.addKey(nil, record.ScopeSuppressionsWrite, record.ScopeComplaints)
	for _, body := range []string{`{"email":"ann@example.org","reason":"complaint"}`, `{"email":"ann@example.org","stream":"news"}`} {
		r.want(r.do("POST", "/v1/suppressions", writes, body), 201, "")
	}
	for name, target := range map[string]string{"all": "", "this one": "?stream="} {
		a := r.do("DELETE", "/v1/suppressions/ann@example.org"+target, writes, "")
		r.want(a, 403, "scope_missing")
		if !strings.Contains(a.problem.Detail, "suppressions:complaints") {
			t.Errorf("%s: detail = %q, want the scope", name, a.problem.Detail)
		}
	}
	r.want(r.do("DELETE", "/v1/suppressions/ann@example.org", alone, ""), 403, "scope_missing")
	if got := len(r.store.suppressions); got != 2 {
		t.Errorf("suppressions left = %d, want both", got)
	}
	r.want(r.do("DELETE", "/v1/suppressions/ann@example.org?stream=news", writes, ""), 204, "")
	r.want(r.do("DELETE", "/v1/suppressions/ann@example.org", both, ""), 204, "")
}

func TestContractNamesTheScopesOfEveryCall(t *testing.T) {
	t.Parallel()
	spec, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	named := map[string][]record.Scope{}
	for path, item := range spec.doc.Paths.Map() {
		for method, op := range item.Operations() {
			route := method + " " + path
			if op.Security == nil {
				t.Errorf("%s does not say which scope it takes", route)
				continue
			}
			named[route] = nil
			for _, way := range *op.Security {
				if len(way["key"]) != 1 {
					t.Errorf("%s does not name exactly one scope in each of its ways", route)
					continue
				}
				named[route] = append(named[route], record.Scope(way["key"][0]))
			}
		}
	}
	if diff := cmp.Diff(scopeOf(), named); diff != "" {
		t.Errorf("scopes in openapi.yaml differ from the table (-want +spec):\n%s", diff)
	}
	var enum []record.Scope
	for _, name := range spec.doc.Components.Schemas["Scope"].Value.Enum {
		enum = append(enum, record.Scope(name.(string)))
	}
	if diff := cmp.Diff(record.Scopes(), enum); diff != "" {
		t.Errorf("scopes of a key in openapi.yaml (-want +spec):\n%s", diff)
	}
}
