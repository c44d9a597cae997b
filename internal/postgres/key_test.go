package postgres

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestKeyComesBackAsItWasStored(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	shop, err := b.db.CreateTenant(ctx, "ops", record.Tenant{Name: "shop", Weight: 7})
	must(t, err)
	hash := make([]byte, 32)
	hash[31] = 9
	full := record.Key{
		ID: "0011aabb", Tenant: shop.ID, Name: "orders", Hash: hash, Scopes: []record.Scope{record.ScopeSend, record.ScopeRead},
		SenderDomains: []string{"example.com"}, RatePerSecond: 50, ExpiresAt: time.Now().UTC().Truncate(time.Second).Add(time.Hour),
	}
	plain := record.Key{ID: "ffffffff", Tenant: 1, Name: "admin", Hash: hash, Scopes: []record.Scope{record.ScopeAdmin}}
	must(t, b.db.CreateKey(ctx, "ops", full))
	must(t, b.db.CreateKey(ctx, "ops", plain))
	same := cmp.Options{cmpopts.IgnoreFields(record.Key{}, "CreatedAt"), cmpopts.EquateEmpty()}
	got, err := b.db.KeyByID(ctx, full.ID)
	must(t, err)
	if diff := cmp.Diff(&full, got, same); diff != "" || got.CreatedAt.IsZero() {
		t.Errorf("key made at %s (-want +got):\n%s", got.CreatedAt, diff)
	}
	must(t, b.db.TouchKey(ctx, full.ID))
	must(t, b.db.RevokeKey(ctx, "ops", full.ID))
	must(t, b.db.UpdateTenant(ctx, "ops", "shop", 7, true))
	got, err = b.db.KeyByID(ctx, full.ID)
	must(t, err)
	if got.LastUsedAt.IsZero() || got.RevokedAt.IsZero() || !got.TenantPaused {
		t.Errorf("used, revoked key of a paused tenant = %+v", got)
	}
	revoked := got.RevokedAt
	must(t, b.db.RevokeKey(ctx, "ops", full.ID))
	if got, _ = b.db.KeyByID(ctx, full.ID); !got.RevokedAt.Equal(revoked) {
		t.Errorf("revoked again: at %s, was %s", got.RevokedAt, revoked)
	}
	if _, err := b.db.KeyByID(ctx, "12345678"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("unknown key: %v, want ErrNotFound", err)
	}
	keys, err := b.db.Keys(ctx)
	must(t, err)
	if len(keys) != 2 || keys[0].ID != plain.ID || keys[1].ID != full.ID || !keys[0].ExpiresAt.IsZero() {
		t.Errorf("keys, newest first = %+v", keys)
	}
}

func TestTenantsAreListedByName(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	shop, err := b.db.CreateTenant(t.Context(), "ops", record.Tenant{Name: "shop", Weight: 7, Paused: true})
	must(t, err)
	ads, err := b.db.CreateTenant(t.Context(), "ops", record.Tenant{Name: "ads", Weight: 1})
	must(t, err)
	must(t, b.db.UpdateTenant(t.Context(), "ops", "shop", 900, false))
	shop.Weight, shop.Paused = 900, false
	got, err := b.db.Tenants(t.Context())
	must(t, err)
	want := []record.Tenant{ads, {ID: mail.DefaultTenant, Name: "default", Weight: 100, CreatedAt: got[1].CreatedAt}, shop}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tenants (-want +got):\n%s", diff)
	}
	if shop.ID == mail.DefaultTenant || ads.ID == shop.ID || shop.CreatedAt.IsZero() {
		t.Errorf("ids %d and %d, made at %s", shop.ID, ads.ID, shop.CreatedAt)
	}
}

func TestSuppressionsBelongToATenantAndKeepTheirFirstReason(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	other, err := b.db.CreateTenant(ctx, "ops", record.Tenant{Name: "other", Weight: 1})
	must(t, err)
	for _, email := range []string{"cy@example.org", "ann@example.org", "bob@example.org"} {
		must(t, b.db.Suppress(ctx, record.Suppression{Tenant: 1, Email: email, Reason: "hard_bounce", Origin: "webhook"}))
	}
	must(t, b.db.Suppress(ctx, record.Suppression{Tenant: 1, Email: "ann@example.org", Reason: "manual", Origin: "api"}))
	must(t, b.db.Suppress(ctx, record.Suppression{Tenant: other.ID, Email: "ann@example.org", Reason: "manual", Origin: "api"}))
	emails := func(tenant mail.TenantID, email, after string, limit int) []string {
		t.Helper()
		found, err := b.db.FindSuppressions(ctx, record.Suppression{Tenant: tenant, Email: email}, record.Suppression{Email: after}, limit)
		must(t, err)
		var got []string
		for _, s := range found {
			got = append(got, s.Email)
			if s.Tenant != tenant || s.CreatedAt.IsZero() {
				t.Errorf("suppression = %+v", s)
			}
		}
		return got
	}
	for _, tc := range []struct {
		email, after string
		limit        int
		want         []string
	}{
		{"", "", 10, []string{"ann@example.org", "bob@example.org", "cy@example.org"}},
		{"", "ann@example.org", 1, []string{"bob@example.org"}},
		{"cy@example.org", "", 10, []string{"cy@example.org"}},
		{"dee@example.org", "", 10, nil},
	} {
		if got := emails(1, tc.email, tc.after, tc.limit); !slices.Equal(got, tc.want) {
			t.Errorf("Suppressions(%q, after %q, %d) = %v, want %v", tc.email, tc.after, tc.limit, got, tc.want)
		}
	}
	found, err := b.db.FindSuppressions(ctx, record.Suppression{Tenant: 1, Email: "ann@example.org"}, record.Suppression{}, 1)
	must(t, err)
	if found[0].Reason != "hard_bounce" || found[0].Origin != "webhook" {
		t.Errorf("a second reason replaced the first: %+v", found[0])
	}
	must(t, b.db.Unsuppress(ctx, "tester", 1, "ann@example.org", true))
	if err := b.db.Unsuppress(ctx, "tester", 1, "ann@example.org", true); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("removed twice: %v, want ErrNotFound", err)
	}
	if got := emails(other.ID, "", "", 10); !slices.Equal(got, []string{"ann@example.org"}) {
		t.Errorf("the other tenant's list = %v", got)
	}
}
