package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

// scopeOf is who may call what: the scope that a 403 names, and others that open the route too. No scope is a route that
// takes no key. A new route needs a line here.
func scopeOf() map[string][]mail.Scope {
	return map[string][]mail.Scope{
		"POST /hooks/{account}":                      nil,
		"GET /u/{token}":                             nil,
		"GET /openapi.yaml":                          nil,
		"GET /openapi.json":                          nil,
		"GET /problems/{code}":                       nil,
		"HEAD /u/{token}":                            nil,
		"POST /u/{token}":                            nil,
		"POST /v1/send":                              {mail.ScopeSend},
		"POST /v1/send/batch":                        {mail.ScopeSend},
		"GET /v1/messages":                           {mail.ScopeMessagesRead},
		"GET /v1/messages/{id}":                      {mail.ScopeMessagesRead},
		"POST /v1/messages/{id}/cancel":              {mail.ScopeSend},
		"POST /v1/messages/{id}/resend":              {mail.ScopeSend},
		"GET /v1/events":                             {mail.ScopeEventsRead},
		"GET /v1/events/stream":                      {mail.ScopeEventsRead},
		"GET /v1/stats":                              {mail.ScopeStatsRead},
		"GET /v1/suppressions":                       {mail.ScopeSuppressionsRead},
		"POST /v1/suppressions":                      {mail.ScopeSuppressionsWrite, mail.ScopeSend},
		"GET /v1/suppressions/export":                {mail.ScopeSuppressionsRead},
		"POST /v1/suppressions/import":               {mail.ScopeSuppressionsWrite, mail.ScopeSend},
		"GET /v1/suppressions/{email}":               {mail.ScopeSuppressionsRead},
		"DELETE /v1/suppressions/{email}":            {mail.ScopeSuppressionsWrite},
		"GET /v1/webhook-endpoints":                  {mail.ScopeWebhooksRead},
		"POST /v1/webhook-endpoints":                 {mail.ScopeWebhooksWrite},
		"GET /v1/webhook-endpoints/{id}":             {mail.ScopeWebhooksRead},
		"PATCH /v1/webhook-endpoints/{id}":           {mail.ScopeWebhooksWrite},
		"DELETE /v1/webhook-endpoints/{id}":          {mail.ScopeWebhooksWrite},
		"GET /v1/webhook-endpoints/{id}/deliveries":  {mail.ScopeWebhooksRead},
		"POST /v1/webhook-endpoints/{id}/replay":     {mail.ScopeWebhooksWrite},
		"POST /v1/webhook-endpoints/{id}/rotate":     {mail.ScopeWebhooksWrite},
		"POST /v1/webhook-endpoints/{id}/test":       {mail.ScopeWebhooksWrite},
		"GET /admin/v1/accounts":                     {mail.ScopeAdminRead},
		"POST /admin/v1/accounts":                    {mail.ScopeAdminWrite},
		"GET /admin/v1/accounts/{account}":           {mail.ScopeAdminRead},
		"PATCH /admin/v1/accounts/{account}":         {mail.ScopeAdminWrite},
		"DELETE /admin/v1/accounts/{account}":        {mail.ScopeAdminWrite},
		"POST /admin/v1/accounts/{account}/pause":    {mail.ScopeAdminWrite},
		"POST /admin/v1/accounts/{account}/resume":   {mail.ScopeAdminWrite},
		"GET /admin/v1/accounts/{account}/limits":    {mail.ScopeAdminRead},
		"PUT /admin/v1/accounts/{account}/limits":    {mail.ScopeAdminWrite},
		"GET /admin/v1/accounts/{account}/webhooks":  {mail.ScopeAdminRead},
		"POST /admin/v1/accounts/{account}/webhooks": {mail.ScopeAdminWrite},
		"POST /admin/v1/events/reproject":            {mail.ScopeAdminWrite},
		"GET /admin/v1/pools":                        {mail.ScopeAdminRead},
		"POST /admin/v1/pools":                       {mail.ScopeAdminWrite},
		"GET /admin/v1/pools/{pool}":                 {mail.ScopeAdminRead},
		"PUT /admin/v1/pools/{pool}":                 {mail.ScopeAdminWrite},
		"GET /admin/v1/rules":                        {mail.ScopeAdminRead},
		"POST /admin/v1/rules":                       {mail.ScopeAdminWrite},
		"PUT /admin/v1/rules":                        {mail.ScopeAdminWrite},
		"DELETE /admin/v1/rules/{rule}":              {mail.ScopeAdminWrite},
		"POST /admin/v1/route/explain":               {mail.ScopeAdminRead},
		"GET /admin/v1/route/explain/{id}":           {mail.ScopeAdminRead},
		"GET /admin/v1/keys":                         {mail.ScopeAdminRead},
		"POST /admin/v1/keys":                        {mail.ScopeAdminWrite},
		"PATCH /admin/v1/keys/{key}":                 {mail.ScopeAdminWrite},
		"POST /admin/v1/keys/{key}/rotate":           {mail.ScopeAdminWrite},
		"DELETE /admin/v1/keys/{key}":                {mail.ScopeAdminWrite},
		"GET /admin/v1/tenants":                      {mail.ScopeAdminRead},
		"POST /admin/v1/tenants":                     {mail.ScopeAdminWrite},
		"PATCH /admin/v1/tenants/{tenant}":           {mail.ScopeAdminWrite},
		"GET /admin/v1/queue":                        {mail.ScopeAdminRead},
		"GET /admin/v1/limits":                       {mail.ScopeAdminRead},
		"GET /admin/v1/audit":                        {mail.ScopeAdminRead},
	}
}

// meanings are the names that keys were made with before there were scopes by noun, in today's.
func meanings() map[mail.Scope][]mail.Scope {
	return map[mail.Scope][]mail.Scope{
		"read":  {"messages:read", "events:read", "stats:read", "suppressions:read", "webhooks:read"},
		"admin": {"admin:read", "admin:write"},
	}
}

// Each route of the router is tried with a key of each scope, and of each older name.
func TestEveryRouteOpensToItsScopesOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	table, routes := scopeOf(), r.routesOf()
	keys := map[mail.Scope]string{}
	for _, scope := range mail.Scopes() {
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
			opens := slices.ContainsFunc(append(meanings()[scope], scope), func(s mail.Scope) bool { return slices.Contains(wanted, s) })
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
	for _, scope := range mail.Scopes() {
		opens := slices.ContainsFunc(append(meanings()[scope], scope), func(s mail.Scope) bool { return slices.Contains(all, s) })
		if !opens && scope != mail.ScopeComplaints { // which comes on top: see below
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
	writes := r.store.addKey(nil, mail.ScopeSuppressionsWrite)
	alone := r.store.addKey(nil, mail.ScopeComplaints)
	both := r.store.addKey(nil, mail.ScopeSuppressionsWrite, mail.ScopeComplaints)
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
	named := map[string][]mail.Scope{}
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
				named[route] = append(named[route], mail.Scope(way["key"][0]))
			}
		}
	}
	if diff := cmp.Diff(scopeOf(), named); diff != "" {
		t.Errorf("scopes in openapi.yaml differ from the table (-want +spec):\n%s", diff)
	}
	var enum []mail.Scope
	for _, name := range spec.doc.Components.Schemas["Scope"].Value.Enum {
		enum = append(enum, mail.Scope(name.(string)))
	}
	if diff := cmp.Diff(mail.Scopes(), enum); diff != "" {
		t.Errorf("scopes of a key in openapi.yaml (-want +spec):\n%s", diff)
	}
}
