package postgres

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// endpoint makes a webhook endpoint of the default tenant, as change wants it.
func (b *bed) endpoint(t *testing.T, change ...func(*record.Endpoint)) mail.ID {
	t.Helper()
	e := record.Endpoint{Tenant: mail.DefaultTenant, URL: "https://hooks.example.com/in"}
	for _, f := range change {
		f(&e)
	}
	got, err := b.db.CreateEndpoint(t.Context(), "tester", e, seal.NewSecret("whsec_one"), seal.Secret{})
	must(t, err)
	return got.ID
}

// happen stores n events of a type and stream that were received at the time, and fans them out. They come in order.
func (b *bed) happen(t *testing.T, tenant mail.TenantID, kind mail.EventType, stream string, at time.Time, n int) []mail.ID {
	t.Helper()
	ids := make([]mail.ID, n)
	for i := range ids {
		ids[i] = mail.NewID()
		base := mail.IDAt(at)
		copy(ids[i][:6], base[:6])
	}
	slices.SortFunc(ids, func(a, b mail.ID) int { return bytes.Compare(a[:], b[:]) })
	b.exec(t, `INSERT INTO event (id, origin, tenant_id, type, stream, at, source, recipient, key)
		SELECT i, i, $2, $3, $4, $5, 'webhook', 'ann@example.org', i FROM unnest($1::uuid[]) i`, rawIDs(ids), tenant, string(kind), stream, at)
	b.exec(t, `SELECT fan_out(array_agg(i), array_agg($2::int), array_agg($3::text), array_agg($4::text)) FROM unnest($1::uuid[]) i`,
		rawIDs(ids), tenant, string(kind), stream)
	return ids
}

// waiting lists the events in the outbox of an endpoint.
func (b *bed) waiting(t *testing.T, id mail.ID) []mail.ID {
	t.Helper()
	var ids []mail.ID
	for _, raw := range list[[16]byte](t, b, `SELECT event_id FROM outbox WHERE endpoint_id = $1 ORDER BY event_id`, [16]byte(id)) {
		ids = append(ids, raw)
	}
	return ids
}

func TestEndpointIsKeptAsItWasMade(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	in := record.Endpoint{
		Tenant: mail.DefaultTenant, URL: "https://hooks.example.com/in", Description: "the shop",
		Types: []mail.EventType{mail.EventBounced, mail.EventComplained}, Streams: []string{"bulk"}, HeaderNames: []string{},
	}
	made, err := b.db.CreateEndpoint(t.Context(), "tester", in, seal.NewSecret("whsec_canary"), seal.Secret{})
	must(t, err)
	got, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, made.ID)
	must(t, err)
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("made (-) and read (+):\n%s", diff)
	}
	ignore := cmpopts.IgnoreFields(record.Endpoint{}, "ID", "CreatedAt", "UpdatedAt")
	if diff := cmp.Diff(&in, got, ignore); diff != "" {
		t.Errorf("endpoint (-want +got):\n%s", diff)
	}
	all, err := b.db.Endpoints(t.Context(), mail.DefaultTenant)
	must(t, err)
	if diff := cmp.Diff([]record.Endpoint{*got}, all); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if n := get[int](t, b, `SELECT count(*) FROM webhook_endpoint w, audit a
		WHERE position('canary' IN encode(w.secret, 'escape')) > 0 OR a.detail::text LIKE '%canary%'`); n > 0 {
		t.Error("the secret can be read in the database")
	}
}

func TestTenantHasAtMostTwentyEndpoints(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var made, refused atomic.Int64
	var calls sync.WaitGroup
	for range 5 {
		calls.Go(func() {
			for range 6 {
				_, err := b.db.CreateEndpoint(context.Background(), "tester", record.Endpoint{Tenant: mail.DefaultTenant, URL: "https://a.example/"}, seal.NewSecret("x"), seal.Secret{})
				switch {
				case err == nil:
					made.Add(1)
				case errors.Is(err, record.ErrConflict):
					refused.Add(1)
				default:
					t.Errorf("create: %v", err)
				}
			}
		})
	}
	calls.Wait()
	if made.Load() != maxEndpoints || refused.Load() != 10 {
		t.Errorf("%d made, %d refused, want %d and 10", made.Load(), refused.Load(), maxEndpoints)
	}
	other := b.tenant(t)
	if _, err := b.db.CreateEndpoint(t.Context(), "tester", record.Endpoint{Tenant: other, URL: "https://a.example/"}, seal.NewSecret("x"), seal.Secret{}); err != nil {
		t.Errorf("another tenant's first: %v", err)
	}
	if _, err := b.db.CreateEndpoint(t.Context(), "tester", record.Endpoint{Tenant: 99, URL: "https://a.example/"}, seal.NewSecret("x"), seal.Secret{}); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("of no tenant: %v, want %v", err, record.ErrNotFound)
	}
}

// tenant makes another tenant.
func (b *bed) tenant(t *testing.T) mail.TenantID {
	t.Helper()
	got, err := b.db.CreateTenant(t.Context(), "tester", record.Tenant{Name: "other", Weight: 100})
	must(t, err)
	return got.ID
}

func TestEndpointOfAnotherTenantIsNotFound(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id, other, ctx := b.endpoint(t), b.tenant(t), t.Context()
	b.happen(t, mail.DefaultTenant, mail.EventDelivered, "bulk", time.Now(), 3)
	calls := map[string]func(mail.TenantID, mail.ID) error{
		"Endpoint":        func(t mail.TenantID, id mail.ID) error { _, err := b.db.Endpoint(ctx, t, id); return err },
		"EndpointSecrets": func(t mail.TenantID, id mail.ID) error { _, _, err := b.db.EndpointSecrets(ctx, t, id); return err },
		"UpdateEndpoint": func(t mail.TenantID, id mail.ID) error {
			_, err := b.db.UpdateEndpoint(ctx, "x", t, id, nil, func(e *record.Endpoint) error { e.Disabled = true; return nil })
			return err
		},
		"RotateEndpoint": func(t mail.TenantID, id mail.ID) error {
			_, err := b.db.RotateEndpoint(ctx, "x", t, id, seal.NewSecret("y"), 0)
			return err
		},
		"DeleteEndpoint": func(t mail.TenantID, id mail.ID) error { return b.db.DeleteEndpoint(ctx, "x", t, id) },
		"Deliveries": func(t mail.TenantID, id mail.ID) error {
			_, err := b.db.Deliveries(ctx, t, id, mail.ID{}, 10)
			return err
		},
		"ReplayEndpoint": func(t mail.TenantID, id mail.ID) error {
			_, err := b.db.ReplayEndpoint(ctx, "x", t, id, time.Now().Add(-time.Hour), time.Now())
			return err
		},
	}
	before := get[string](t, b, `SELECT row_to_json(w)::text FROM webhook_endpoint w`)
	audits := get[int](t, b, `SELECT count(*) FROM audit`)
	for name, call := range calls {
		if err := call(other, id); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("%s of another tenant's: %v, want %v", name, err, record.ErrNotFound)
		}
		if err := call(mail.DefaultTenant, mail.NewID()); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("%s of none: %v, want %v", name, err, record.ErrNotFound)
		}
	}
	if diff := cmp.Diff(before, get[string](t, b, `SELECT row_to_json(w)::text FROM webhook_endpoint w`)); diff != "" {
		t.Errorf("the endpoint changed:\n%s", diff)
	}
	if n := get[int](t, b, `SELECT count(*) FROM audit`); n != audits {
		t.Errorf("%d audit entries of what did not happen", n-audits)
	}
	if all, err := b.db.Endpoints(ctx, other); err != nil || len(all) != 0 {
		t.Errorf("the other tenant's list = %v, %v", all, err)
	}
	if n := len(b.waiting(t, id)); n != 3 {
		t.Errorf("%d deliveries wait, want 3", n)
	}
}

func TestUpdateEndpoint(t *testing.T) {
	t.Parallel()
	failing := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	tests := map[string]struct {
		disabled bool
		change   func(*record.Endpoint)
		failing  bool
		reason   string
	}{
		"nothing":             {true, func(*record.Endpoint) {}, true, "gone"},
		"enabled again":       {true, func(e *record.Endpoint) { e.Disabled = false }, false, ""},
		"disabled":            {false, func(e *record.Endpoint) { e.Disabled = true }, true, "gone"},
		"another URL":         {false, func(e *record.Endpoint) { e.URL = "https://b.example/" }, false, ""},
		"another description": {false, func(e *record.Endpoint) { e.Description = "x" }, true, ""},
		"other filters": {false, func(e *record.Endpoint) {
			e.Types, e.Streams = []mail.EventType{mail.EventOpened}, []string{"bulk", "news"}
		}, true, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			id := b.endpoint(t)
			b.exec(t, `UPDATE webhook_endpoint SET disabled = $1, disabled_reason = 'gone', failing_since = $2, updated_at = now() - interval '1 h'`, tt.disabled, failing)
			want, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, id)
			must(t, err)
			tt.change(want)
			want.FailingSince, want.DisabledReason = time.Time{}, tt.reason
			if tt.failing {
				want.FailingSince = failing
			}
			got, err := b.db.UpdateEndpoint(t.Context(), "tester", mail.DefaultTenant, id, nil, func(e *record.Endpoint) error { tt.change(e); return nil })
			must(t, err)
			if !got.UpdatedAt.After(want.UpdatedAt) {
				t.Error("updated_at did not move")
			}
			got.UpdatedAt = want.UpdatedAt
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("endpoint (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpdateEndpointReturnsTheErrorOfTheChange(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.endpoint(t)
	refused := &mail.Invalid{Fields: []mail.Field{{Field: "url"}}}
	_, err := b.db.UpdateEndpoint(t.Context(), "tester", mail.DefaultTenant, id, nil, func(e *record.Endpoint) error { e.URL = "x"; return refused })
	if !errors.Is(err, refused) {
		t.Errorf("%v, want the error of the change", err)
	}
	if e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, id); err != nil || e.URL == "x" {
		t.Errorf("%v, %v: a refused change was stored", e, err)
	}
}

func TestRotationKeepsTheOldSecretForAWhile(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.endpoint(t)
	signs := func(want ...string) {
		t.Helper()
		_, secrets, err := b.db.EndpointSecrets(t.Context(), mail.DefaultTenant, id)
		must(t, err)
		var got []string
		for _, name := range []string{record.EndpointSecret, record.EndpointOldSecret} {
			if s, is := secrets[name]; is {
				got = append(got, s.Reveal())
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("secrets (-want +got):\n%s", diff)
		}
	}
	rotate := func(secret string, overlap time.Duration) {
		t.Helper()
		_, err := b.db.RotateEndpoint(t.Context(), "tester", mail.DefaultTenant, id, seal.NewSecret(secret), overlap)
		must(t, err)
	}
	signs("whsec_one")
	rotate("whsec_two", time.Hour)
	signs("whsec_two", "whsec_one")
	rotate("whsec_three", time.Hour)
	signs("whsec_three", "whsec_two")
	b.exec(t, `UPDATE webhook_endpoint SET old_secret_until = now()`)
	signs("whsec_three")
	rotate("whsec_four", 0)
	signs("whsec_four")
	if got := list[string](t, b, `SELECT DISTINCT action FROM audit WHERE action LIKE 'webhook%' ORDER BY 1`); !cmp.Equal(got, []string{"webhook_endpoint.create", "webhook_endpoint.rotate"}) {
		t.Errorf("audit has %v", got)
	}
}

func TestHeadersAreSealedAndStayUnlessTheyAreReplaced(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	made, err := b.db.CreateEndpoint(t.Context(), "tester", record.Endpoint{
		Tenant: mail.DefaultTenant, URL: "https://a.example/", HeaderNames: []string{"X-Key"},
	}, seal.NewSecret("whsec_one"), seal.NewSecret(`{"X-Key":"canary"}`))
	must(t, err)
	if !slices.Equal(made.HeaderNames, []string{"X-Key"}) {
		t.Errorf("header names = %v", made.HeaderNames)
	}
	headers := func(want string) {
		t.Helper()
		_, secrets, err := b.db.EndpointSecrets(t.Context(), mail.DefaultTenant, made.ID)
		must(t, err)
		if got := secrets[record.EndpointHeaders].Reveal(); got != want {
			t.Errorf("headers = %s, want %s", got, want)
		}
	}
	update := func(with *seal.Secret) {
		t.Helper()
		_, err := b.db.UpdateEndpoint(t.Context(), "tester", mail.DefaultTenant, made.ID, with, func(e *record.Endpoint) error { e.Description = "x"; return nil })
		must(t, err)
	}
	headers(`{"X-Key":"canary"}`)
	if n := get[int](t, b, `SELECT count(*) FROM webhook_endpoint w, audit a WHERE w::text LIKE '%canary%' OR a::text LIKE '%canary%'`); n != 0 {
		t.Error("the value of a header stands in the database")
	}
	update(nil)
	headers(`{"X-Key":"canary"}`)
	other := seal.NewSecret(`{"X-Other":"v"}`)
	update(&other)
	headers(`{"X-Other":"v"}`)
	update(&seal.Secret{})
	headers("")
	b.exec(t, `UPDATE webhook_endpoint SET headers = secret`)
	if _, _, err := b.db.EndpointSecrets(t.Context(), mail.DefaultTenant, made.ID); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("a secret in the place of the headers: %v, want %v", err, seal.ErrSealed)
	}
}

func TestSecretMovedToAnotherEndpointDoesNotOpen(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one, two := b.endpoint(t), b.endpoint(t)
	b.exec(t, `UPDATE webhook_endpoint SET secret = (SELECT secret FROM webhook_endpoint WHERE id = $1) WHERE id = $2`, [16]byte(one), [16]byte(two))
	if _, _, err := b.db.EndpointSecrets(t.Context(), mail.DefaultTenant, two); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("%v, want %v", err, seal.ErrSealed)
	}
}

func TestDeleteEndpointTakesItsOutboxAlong(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	gone, kept := b.endpoint(t), b.endpoint(t)
	b.happen(t, mail.DefaultTenant, mail.EventDelivered, "bulk", time.Now(), sweepBatch+10)
	must(t, b.db.DeleteEndpoint(t.Context(), "tester", mail.DefaultTenant, gone))
	if n := len(b.waiting(t, gone)); n != 0 {
		t.Errorf("%d deliveries of a deleted endpoint wait", n)
	}
	if n := len(b.waiting(t, kept)); n != sweepBatch+10 {
		t.Errorf("%d deliveries of the other endpoint wait, want %d", n, sweepBatch+10)
	}
	if _, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, gone); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("deleted: %v, want %v", err, record.ErrNotFound)
	}
	if e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, kept); err != nil || e.Pending != sweepBatch+10 {
		t.Errorf("the other one: %+v, %v", e, err)
	}
}

func TestFilterOfEndpoint(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other := b.tenant(t)
	filters := map[string]mail.ID{
		"all": b.endpoint(t),
		"bounces": b.endpoint(t, func(e *record.Endpoint) {
			e.Types = []mail.EventType{mail.EventBounced, mail.EventEndpointDisabled}
		}),
		"bulk":         b.endpoint(t, func(e *record.Endpoint) { e.Streams = []string{"bulk"} }),
		"bulk bounces": b.endpoint(t, func(e *record.Endpoint) { e.Types, e.Streams = []mail.EventType{mail.EventBounced}, []string{"bulk"} }),
		"disabled":     b.endpoint(t, func(e *record.Endpoint) { e.Disabled = true }),
		"other":        b.endpoint(t, func(e *record.Endpoint) { e.Tenant = other }),
	}
	now := time.Now()
	names := map[mail.ID]string{}
	for _, e := range []struct {
		kind   mail.EventType
		stream string
	}{{mail.EventBounced, "bulk"}, {mail.EventDelivered, "bulk"}, {mail.EventBounced, "news"}, {mail.EventEndpointDisabled, ""}, {mail.EventUnmapped, "bulk"}} {
		names[b.happen(t, mail.DefaultTenant, e.kind, e.stream, now, 1)[0]] = strings.TrimSpace(string(e.kind) + " " + e.stream)
	}
	want := map[string][]string{
		"all":     {"bounced bulk", "delivered bulk", "bounced news", "endpoint_disabled"},
		"bounces": {"bounced bulk", "bounced news", "endpoint_disabled"}, "bulk": {"bounced bulk", "delivered bulk", "endpoint_disabled"},
		"bulk bounces": {"bounced bulk"}, "disabled": nil, "other": nil,
	}
	look := func(when string) {
		t.Helper()
		got := map[string][]string{}
		for filter, id := range filters {
			got[filter] = nil
			for _, e := range b.waiting(t, id) {
				got[filter] = append(got[filter], names[e])
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	look("fanned out")
	// A replay takes the same, for endpoints that are disabled too.
	b.exec(t, `DELETE FROM outbox`)
	for filter, id := range filters {
		tenant := mail.DefaultTenant
		if filter == "other" {
			tenant = other
		}
		n, err := b.db.ReplayEndpoint(t.Context(), "tester", tenant, id, now.Add(-time.Minute), now.Add(time.Minute))
		must(t, err)
		if filter == "disabled" {
			want[filter] = want["all"]
		}
		if n != int64(len(want[filter])) {
			t.Errorf("replay to %q queued %d, want %d", filter, n, len(want[filter]))
		}
	}
	look("replayed")
}
