package httpapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/record"
)

func TestKeyIsShownOnceAndWorksAtOnceAndStopsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.admin)
	expires := r.clock.now().Add(time.Hour)
	k, err := c.CreateKey(t.Context(), api.KeyRequest{
		Name: "shop", Scopes: []string{"send", "read"}, SenderDomains: []string{"EXAMPLE.com", "example.com"}, RatePerSecond: 50,
		ExpiresAt: &expires,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &api.Key{
		ID: k.Secret[3:11], Tenant: "default", Name: "shop", Scopes: []string{"send", "read"}, SenderDomains: []string{"example.com"},
		RatePerSecond: 50, CreatedAt: r.clock.now(), ExpiresAt: &expires, Secret: k.Secret,
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("key (-want +got):\n%s", diff)
	}
	list := r.do("GET", "/admin/v1/keys", r.admin, "")
	if strings.Contains(string(list.body), k.Secret[12:44]) || !strings.Contains(string(list.body), k.ID) {
		t.Error("the list holds the secret, or not the key")
	}
	if _, err := r.client(k.Secret).Messages(t.Context(), api.MessageQuery{}); err != nil {
		t.Errorf("new key: %v", err)
	}
	if err := c.RevokeKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client(k.Secret).Messages(t.Context(), api.MessageQuery{}); code(err) != "401 unauthorized" {
		t.Errorf("revoked key = %v, want 401", err)
	}
	if err := c.RevokeKey(t.Context(), "00000000"); code(err) != "404 not_found" {
		t.Errorf("revoke of an unknown key = %v, want 404", err)
	}
}

func TestLastAdminKeyStays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.admin)
	if err := c.RevokeKey(t.Context(), r.admin[3:11]); code(err) != "409 last_admin_key" {
		t.Errorf("revoke of the last admin key = %v, want 409", err)
	}
	if _, err := c.CreateKey(t.Context(), api.KeyRequest{Name: "next", Scopes: []string{"admin"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.RevokeKey(t.Context(), r.admin[3:11]); err != nil {
		t.Errorf("revoke of one of two admin keys = %v", err)
	}
}

func TestKeyRequestsRefuseNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, field := range map[string]string{
		`{"scopes":["send"]}`:                                                "name",
		`{"name":"a\u0007","scopes":["send"]}`:                               "name",
		`{"name":"a"}`:                                                       "scopes",
		`{"name":"a","scopes":[]}`:                                           "scopes",
		`{"name":"a","scopes":["root"]}`:                                     "scopes[0]",
		`{"name":"a","scopes":["send","send"]}`:                              "scopes[1]",
		`{"name":"a","scopes":["send","admin"]}`:                             "scopes",
		`{"name":"a","scopes":["send"],"sender_domains":["x"]}`:              "sender_domains[0]",
		`{"name":"a","scopes":["send"],"rate_per_second":-1}`:                "rate_per_second",
		`{"name":"a","scopes":["send"],"tenant":"none"}`:                     "tenant",
		`{"name":"a","scopes":["send"],"expires_at":"2026-01-31T08:30:00Z"}`: "expires_at",
		`{"name":"a","scopes":["send"],"expires_at":"tomorrow"}`:             "expires_at",
		`{"name":"a","scopes":["send"],"secret":"sg_1"}`:                     "secret",
	} {
		a := r.do("POST", "/admin/v1/keys", r.admin, body)
		r.want(a, 422, "invalid")
		if got := a.problem.Errors[0].Field; got != field {
			t.Errorf("%s: complains about %q, want %q", body, got, field)
		}
	}
	if r.store.count("CreateKey") != 0 {
		t.Error("a refused key reached the store")
	}
}

func TestTenantIsCreatedPausedAndWeighed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.admin)
	made, err := c.CreateTenant(t.Context(), api.TenantRequest{Name: "acme"})
	want := &api.Tenant{Name: "acme", Weight: 100, CreatedAt: r.clock.now()}
	if err != nil || cmp.Diff(want, made) != "" {
		t.Errorf("CreateTenant = %s, %v", cmp.Diff(want, made), err)
	}
	k, err := c.CreateKey(t.Context(), api.KeyRequest{Name: "k", Tenant: "acme", Scopes: []string{"send"}})
	if err != nil || k.Tenant != "acme" {
		t.Fatalf("key of the new tenant = %+v, %v", k, err)
	}
	paused, five := true, 5
	got, err := c.PatchTenant(t.Context(), "acme", api.TenantRequest{Paused: &paused})
	if err != nil || !got.Paused || got.Weight != 100 {
		t.Errorf("pause = %+v, %v", got, err)
	}
	r.want(r.do("POST", "/v1/send", k.Secret, `{}`), 403, "tenant_paused")
	if got, err = c.PatchTenant(t.Context(), "acme", api.TenantRequest{Weight: &five}); err != nil || !got.Paused || got.Weight != 5 {
		t.Errorf("weight = %+v, %v", got, err)
	}
	if _, err := c.CreateTenant(t.Context(), api.TenantRequest{Name: "acme"}); code(err) != "409 name_taken" {
		t.Errorf("second CreateTenant = %v, want 409", err)
	}
	if _, err := c.PatchTenant(t.Context(), "none", api.TenantRequest{Weight: &five}); code(err) != "404 not_found" {
		t.Errorf("PatchTenant of none = %v, want 404", err)
	}
	for _, body := range []string{`{"weight":0}`, `{"weight":1001}`, `{"name":"other"}`, `{"weight":"5"}`} {
		r.want(r.do("PATCH", "/admin/v1/tenants/acme", r.admin, body), 422, "invalid")
	}
	if tenants, err := c.Tenants(t.Context()); err != nil || len(tenants) != 2 {
		t.Errorf("Tenants = %+v, %v", tenants, err)
	}
}

func TestQueueAndLimitsAreShown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now := r.clock.now()
	r.store.queue = record.QueueState{
		Ready: 3, Scheduled: 2, Inflight: 1, Unknown: 4, OldestDue: now,
		Tenants:  []record.TenantDepth{{Tenant: "default", Ready: 3}},
		Replicas: []record.Replica{{ID: "r1", Host: "h", StartedAt: now, LeaseUntil: now.Add(time.Second)}},
	}
	r.store.limits = []limit.State{
		{Account: "a", Window: limit.Window{N: 10, Per: time.Second, Unit: limit.Requests}, Used: 12, BlockedUntil: now.Add(time.Minute)},
		{Account: "a", Window: limit.Window{N: 10, Per: time.Hour, Unit: limit.Messages}, Used: 4, BlockedUntil: now},
	}
	c := r.client(r.admin)
	q, err := c.Queue(t.Context())
	wantQueue := &api.Queue{
		Ready: 3, Scheduled: 2, Inflight: 1, Unknown: 4, OldestDue: &now, Tenants: []api.TenantRow{{Tenant: "default", Ready: 3}},
		Replicas: []api.Replica{{ID: "r1", Host: "h", StartedAt: now, LeaseUntil: now.Add(time.Second)}},
	}
	if err != nil || cmp.Diff(wantQueue, q) != "" {
		t.Errorf("Queue = %s, %v", cmp.Diff(wantQueue, q), err)
	}
	until := now.Add(time.Minute)
	wantLimits := []api.WindowState{
		{Account: "a", Limit: api.Limit{N: 10, Per: "1s", Unit: "requests"}, Used: 12, Free: 0, BlockedUntil: &until},
		{Account: "a", Limit: api.Limit{N: 10, Per: "1h", Unit: "messages"}, Used: 4, Free: 6},
	}
	limits, err := c.Limits(t.Context())
	if err != nil || cmp.Diff(wantLimits, limits) != "" {
		t.Errorf("Limits = %s, %v", cmp.Diff(wantLimits, limits), err)
	}
}

func TestAuditIsPagedNewestFirstAndNamesTheKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.admin)
	for i := range 5 {
		if _, err := c.CreateTenant(t.Context(), api.TenantRequest{Name: fmt.Sprintf("t%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	cursor := ""
	for range 4 {
		page, err := c.Audit(t.Context(), api.AuditFilter{Cursor: cursor, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Data {
			got = append(got, e.Actor+" "+e.Action+" "+e.Target)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	var want []string
	for i := 4; i >= 0; i-- {
		want = append(want, fmt.Sprintf("%s tenant.create t%d", r.admin[3:11], i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}
