package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
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

func TestTheChainOfTheAuditIsPaged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.admin)
	var got []string
	for cursor := ""; ; {
		page, err := c.AuditChain(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page.Data {
			got = append(got, fmt.Sprintf("%d %d %d %s %v", l.N, l.ID, len(l.Hash), l.Content, page.Unlinked))
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"1 7 64 [] []", "2 14 64 [] []", "3 21 64 [] [14]"}, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

// Reads of bodies get an entry for each minute and key, or for each hundred messages. A message without a body does not count.
func TestReadsOfBodiesAreCollected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	read := func(id, key string) {
		t.Helper()
		if a := r.do("GET", "/v1/messages/"+id, key, ""); a.status != http.StatusOK {
			t.Fatalf("GET = %+v", a)
		}
	}
	first, second, bare := r.post("ann@example.org"), r.post("ann@example.org"), r.post("ann@example.org")
	r.edit(bare, func(v *record.View) { v.Message.Text, v.Message.HTML, v.Message.Attachments = "", "", nil })
	other := r.store.addKey(nil, record.ScopeMessagesRead)
	for _, id := range []string{first, second, first, bare} {
		read(id, r.read)
	}
	read(first, other)
	if got := r.server.BodyReads(false); len(got) != 0 {
		t.Errorf("entries before a minute is over = %+v", got)
	}
	r.clock.move(time.Minute)
	got := map[string]string{}
	for _, e := range r.server.BodyReads(false) {
		got["sg_"+e.Key] = fmt.Sprint(e.Messages, e.Caller.Name, e.Caller.Address, e.Caller.RequestID != "")
	}
	want := map[string]string{r.read[:11]: fmt.Sprintf("[%s %s]test192.0.2.1true", first, second), other[:11]: fmt.Sprintf("[%s]test192.0.2.1true", first)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
	for range readsPerEntry + 1 {
		r.server.reads.note("key", record.Caller{}, mail.NewID(), r.clock.now())
	}
	if full, rest := r.server.BodyReads(false), r.server.BodyReads(true); len(full) != 1 || len(full[0].Messages) != readsPerEntry || len(rest) != 1 || len(rest[0].Messages) != 1 {
		t.Errorf("%d reads gave %d entries, and %d at the end; want one each", readsPerEntry+1, len(full), len(rest))
	}
}

func TestAnExportIsAudited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if a := r.do("GET", "/v1/suppressions/export?stream=bulk", r.read, ""); a.status != http.StatusOK {
		t.Fatalf("export = %+v", a)
	}
	r.store.mu.Lock()
	e := r.store.audit[len(r.store.audit)-1]
	r.store.mu.Unlock()
	if got := fmt.Sprint(e.Actor, " ", e.Name, " ", e.Action, " ", string(e.Detail)); got != r.read[3:11]+` test suppression.export {"reason":"","stream":"bulk","tenant":1}` || e.Address == "" || e.RequestID == "" {
		t.Errorf("audit has %s from %s by %s", got, e.Address, e.RequestID)
	}
	r.store.failWith(&record.Unavailable{Reason: "database"})
	if a := r.do("GET", "/v1/suppressions/export", r.read, ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("an export that can't be audited = %d, want 503", a.status)
	}
}
