package httpapi

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// The keys and tenants of fakeStore.

func (f *fakeStore) KeyByID(ctx context.Context, id string) (*record.Key, error) {
	return ask(ctx, f, "KeyByID", func() (*record.Key, error) {
		k, ok := f.keys[id]
		if !ok {
			return nil, record.ErrNotFound
		}
		for _, t := range f.tenants {
			k.TenantPaused = k.TenantPaused || t.ID == k.Tenant && t.Paused
		}
		return &k, nil
	})
}

func (f *fakeStore) KeyIDs(ctx context.Context) ([]string, error) {
	return ask(ctx, f, "KeyIDs", func() (out []string, err error) {
		for id, k := range f.keys {
			if valid(&k, f.at) {
				out = append(out, id)
			}
		}
		return out, nil
	})
}

func (f *fakeStore) Keys(ctx context.Context) ([]record.Key, error) {
	return ask(ctx, f, "Keys", func() ([]record.Key, error) {
		return slices.SortedFunc(maps.Values(f.keys), func(a, b record.Key) int { return strings.Compare(a.ID, b.ID) }), nil
	})
}

// onKey changes one key.
func (f *fakeStore) onKey(ctx context.Context, method, id string, do func(*record.Key)) error {
	return f.act(ctx, method, func() error {
		k, ok := f.keys[id]
		if !ok {
			return record.ErrNotFound
		}
		do(&k)
		f.keys[id] = k
		return nil
	})
}

func (f *fakeStore) TouchKey(ctx context.Context, id string) error {
	return f.onKey(ctx, "TouchKey", id, func(k *record.Key) { k.LastUsedAt = f.at })
}

func (f *fakeStore) CreateKey(ctx context.Context, actor string, k record.Key) error {
	return f.act(ctx, "CreateKey", func() error {
		f.keys[k.ID] = k
		f.note(actor, "key.create", k.ID)
		return nil
	})
}

func (f *fakeStore) SetKeyNetworks(ctx context.Context, actor, id string, networks []netip.Prefix) error {
	return f.onKey(ctx, "SetKeyNetworks", id, func(k *record.Key) {
		k.Networks = networks
		f.note(actor, "key.update", id)
	})
}

func (f *fakeStore) RotateKey(ctx context.Context, actor, id, next string, hash []byte, overlap time.Duration) error {
	return f.act(ctx, "RotateKey", func() error {
		k, ok := f.keys[id]
		if !ok || !valid(&k, f.at) {
			return record.ErrNotFound
		}
		made := k
		made.ID, made.Hash, made.CreatedAt = next, hash, f.at
		k.ExpiresAt = f.at.Add(overlap)
		f.keys[id], f.keys[next] = k, made
		f.note(actor, "key.rotate", id)
		return nil
	})
}

func (f *fakeStore) RevokeKey(ctx context.Context, actor, id string) error {
	return f.onKey(ctx, "RevokeKey", id, func(k *record.Key) {
		k.RevokedAt = f.at
		f.note(actor, "key.revoke", id)
	})
}

func (f *fakeStore) Tenants(ctx context.Context) ([]record.Tenant, error) {
	return ask(ctx, f, "Tenants", func() ([]record.Tenant, error) { return slices.Clone(f.tenants), nil })
}

func (f *fakeStore) tenant(name string) int {
	return slices.IndexFunc(f.tenants, func(t record.Tenant) bool { return t.Name == name })
}

func (f *fakeStore) CreateTenant(ctx context.Context, actor string, t record.Tenant) (record.Tenant, error) {
	return ask(ctx, f, "CreateTenant", func() (record.Tenant, error) {
		if f.tenant(t.Name) >= 0 {
			return record.Tenant{}, record.ErrConflict
		}
		t.ID, t.CreatedAt = mail.TenantID(len(f.tenants)+1), f.at
		f.tenants = append(f.tenants, t)
		f.note(actor, "tenant.create", t.Name)
		return t, nil
	})
}

func (f *fakeStore) UpdateTenant(ctx context.Context, actor, name string, weight int, paused bool) error {
	return f.act(ctx, "UpdateTenant", func() error {
		i := f.tenant(name)
		if i < 0 {
			return record.ErrNotFound
		}
		f.tenants[i].Weight, f.tenants[i].Paused = weight, paused
		f.note(actor, "tenant.update", name)
		return nil
	})
}
