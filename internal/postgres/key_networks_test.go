package postgres

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestKeyKeepsItsNetworksWhenItIsChangedAndRotated(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	hash, next := make([]byte, 32), make([]byte, 32)
	next[0] = 1
	k := record.Key{
		ID: "0011aabb", Tenant: mail.DefaultTenant, Name: "orders", Hash: hash, Scopes: []record.Scope{record.ScopeSend},
		SenderDomains: []string{"example.com"}, RatePerSecond: 50, ExpiresAt: time.Now().UTC().Truncate(time.Second).Add(time.Hour),
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")},
	}
	must(t, b.db.CreateKey(ctx, "ops", k))
	same := cmp.Options{cmpopts.IgnoreFields(record.Key{}, "CreatedAt"), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	read := func(id string) *record.Key {
		t.Helper()
		got, err := b.db.KeyByID(ctx, id)
		must(t, err)
		return got
	}
	if diff := cmp.Diff(&k, read(k.ID), same); diff != "" {
		t.Errorf("key (-want +got):\n%s", diff)
	}
	k.Networks = k.Networks[:1]
	must(t, b.db.SetKeyNetworks(ctx, "ops", k.ID, k.Networks))
	must(t, b.db.RotateKey(ctx, "ops", k.ID, "ffffffff", next, time.Minute))
	want := k
	want.ID, want.Hash = "ffffffff", next
	if diff := cmp.Diff(&want, read("ffffffff"), same); diff != "" {
		t.Errorf("the next key (-want +got):\n%s", diff)
	}
	if old := read(k.ID); old.ExpiresAt.After(time.Now().Add(2*time.Minute)) || !old.ExpiresAt.After(time.Now()) {
		t.Errorf("the one before ends at %s, want after the overlap", old.ExpiresAt)
	}
	must(t, b.db.SetKeyNetworks(ctx, "ops", k.ID, nil))
	if got := read(k.ID).Networks; len(got) > 0 {
		t.Errorf("networks after all were taken away = %v", got)
	}
	must(t, b.db.RevokeKey(ctx, "ops", k.ID))
	for name, err := range map[string]error{
		"networks of no key":    b.db.SetKeyNetworks(ctx, "ops", "00000000", nil),
		"rotate no key":         b.db.RotateKey(ctx, "ops", "00000000", "eeeeeeee", next, 0),
		"rotate a revoked one":  b.db.RotateKey(ctx, "ops", k.ID, "eeeeeeee", next, 0),
		"key that was not made": func() error { _, err := b.db.KeyByID(ctx, "eeeeeeee"); return err }(),
	} {
		if !errors.Is(err, record.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	entries, err := b.db.Audit(ctx, record.AuditFilter{Target: k.ID, Limit: 10})
	must(t, err)
	var actions []string
	for _, e := range entries {
		actions = append(actions, e.Action+" "+string(e.Detail))
	}
	if diff := cmp.Diff([]string{
		`key.revoke null`, `key.update {"networks": []}`, `key.rotate {"next": "ffffffff", "overlap_seconds": 60}`,
		`key.update {"networks": ["10.0.0.0/8"]}`,
		`key.create {"name": "orders", "scopes": ["send"], "tenant": 1, "networks": ["10.0.0.0/8", "2001:db8::1/128"]}`,
	}, actions); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}
