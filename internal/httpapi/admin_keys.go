package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// KeyStore keeps API keys.
type KeyStore interface {
	KeyByID(ctx context.Context, id string) (*record.Key, error)
	// KeyIDs lists the ids of the keys that are neither revoked nor expired.
	KeyIDs(ctx context.Context) ([]string, error)
	TouchKey(ctx context.Context, id string) error
	Keys(ctx context.Context) ([]record.Key, error)
	CreateKey(ctx context.Context, actor string, k record.Key) error
	SetKeyNetworks(ctx context.Context, actor, id string, networks []netip.Prefix) error
	// RotateKey makes a new key with the rights of key id; the old key ends after the overlap. record.ErrNotFound: it has ended
	// already.
	RotateKey(ctx context.Context, actor, id, next string, hash []byte, overlap time.Duration) error
	RevokeKey(ctx context.Context, actor, id string) error
}

const (
	maxKeyName      = 100
	maxKeyRate      = 100_000
	maxSenderDomain = 100
	maxKeyNetworks  = 32
)

func (s *Server) listKeys(r *http.Request) (out api.List[api.Key], err error) {
	keys, err := s.store.Keys(r.Context())
	if err != nil {
		return out, err
	}
	names, err := s.tenantNames(r.Context())
	return listView(keys, func(k *record.Key) api.Key { return keyView(k, names[k.Tenant]) }), err
}

// createKey answers with the full key, which is never shown again.
func (s *Server) createKey(r *http.Request, in api.KeyRequest) (out api.Key, err error) {
	tenant, err := s.tenant(r.Context(), cmp.Or(in.Tenant, "default"))
	if err != nil {
		return out, err
	}
	if tenant == nil {
		return out, invalid("tenant", "unknown_tenant", "is not a tenant")
	}
	key, err := s.keyOf(in, tenant)
	if err != nil {
		return out, err
	}
	id, full, hash := NewKey()
	key.ID, key.Hash = id, hash
	if err := s.store.CreateKey(r.Context(), principal(r).ID, key); err != nil {
		return out, err
	}
	s.keys.forget(id)
	out = keyView(&key, tenant.Name)
	out.Secret = full
	return out, nil
}

// keyOf checks a request for a key and collects all its mistakes.
func (s *Server) keyOf(in api.KeyRequest, tenant *record.Tenant) (record.Key, error) {
	now := s.clock().UTC()
	k := record.Key{
		Tenant: tenant.ID, Name: in.Name, RatePerSecond: in.RatePerSecond, TenantPaused: tenant.Paused, CreatedAt: now,
	}
	var bad complaints
	if in.Name == "" || len(in.Name) > maxKeyName || !clean(in.Name) {
		bad.complain("name", "invalid_name", "must have 1 to 100 bytes and no control characters")
	}
	if in.RatePerSecond < 0 || in.RatePerSecond > maxKeyRate {
		bad.complain("rate_per_second", "out_of_range", "must be 0 (no limit) to 100000")
	}
	if in.ExpiresAt != nil {
		if k.ExpiresAt = in.ExpiresAt.UTC(); !k.ExpiresAt.After(now) || k.ExpiresAt.Year() > 9998 {
			bad.complain("expires_at", "out_of_range", "must be in the future")
		}
	}
	k.Scopes = scopesOf(&bad, in.Scopes)
	k.SenderDomains = listed(&bad, "sender_domains", maxSenderDomain, in.SenderDomains, mail.ParseDomain, "invalid_domain", "must be a domain")
	k.Networks = networksOf(&bad, in.Networks)
	return k, bad.err()
}

// scopesOf checks scopes. Admin scopes can't be combined with others: an admin key must not be handed to programs that send.
func scopesOf(bad *complaints, in []string) (out []record.Scope) {
	if len(in) == 0 {
		bad.complain("scopes", "missing", "must name at least one of "+scopeNames())
	}
	for i, name := range in {
		scope := record.Scope(name)
		switch {
		case !slices.Contains(record.Scopes(), scope) || slices.Contains(out, scope):
			bad.complain(fmt.Sprintf("scopes[%d]", i), "invalid_scope", "must be one of "+scopeNames()+", each once")
			return nil
		case len(out) > 0 && scope.OfAdmin() != out[0].OfAdmin():
			bad.complain("scopes", "invalid_scope", "admin scopes and routing scopes can't be joined with other scopes")
			return nil
		}
		out = append(out, scope)
	}
	return out
}

func scopeNames() string {
	var names []string
	for _, scope := range record.Scopes() {
		names = append(names, string(scope))
	}
	return strings.Join(names, ", ")
}

func networksOf(bad *complaints, in []string) []netip.Prefix {
	return listed(bad, "networks", maxKeyNetworks, in, record.ParseNetwork,
		"invalid_network", "must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32, or an address")
}

// listed parses each text of a list and drops duplicates. A text that does not parse gets the code and message.
func listed[T comparable](
	bad *complaints, field string, most int, in []string, parse func(string) (T, error), code, message string,
) (out []T) {
	if len(in) > most {
		bad.complain(field, "too_many", fmt.Sprintf("must be at most %d", most))
		return nil
	}
	for i, text := range in {
		value, err := parse(text)
		if err != nil {
			bad.complain(fmt.Sprintf("%s[%d]", field, i), code, message)
		} else if !slices.Contains(out, value) {
			out = append(out, value)
		}
	}
	return out
}

// patchKey sets the networks from which a key is accepted, on every replica within keyTTL plus keyGrace. It refuses a change
// that would lock out the caller.
func (s *Server) patchKey(r *http.Request, in api.KeyPatch) (out api.Key, err error) {
	id := pathParam(r, "key")
	if in.Networks != nil {
		var bad complaints
		networks := networksOf(&bad, *in.Networks)
		if err := bad.err(); err != nil {
			return out, err
		}
		if from := s.clientIP(r); id == principal(r).ID && !admits(networks, from) {
			return out, refuse(http.StatusConflict, "locks_you_out", "You call with this key from "+from.String()+", which the networks do not hold.")
		}
		if err := s.store.SetKeyNetworks(r.Context(), principal(r).ID, id, networks); err != nil {
			return out, missing(err, noKey)
		}
		s.keys.forget(id)
	}
	out, err = s.keyShown(r.Context(), id)
	return out, missing(err, noKey)
}

// rotateKey makes a key with the rights of the old one, which ends after the overlap. The new key is shown only in this answer.
func (s *Server) rotateKey(r *http.Request, in api.KeyRotateRequest) (out api.Key, err error) {
	overlap, err := overlapOf(in.OverlapSeconds)
	if err != nil {
		return out, err
	}
	id := pathParam(r, "key")
	next, full, hash := NewKey()
	if err := s.store.RotateKey(r.Context(), principal(r).ID, id, next, hash, overlap); err != nil {
		return out, missing(err, "There is no key of this id that has not ended.")
	}
	s.keys.forget(id)
	s.keys.forget(next)
	out, err = s.keyShown(r.Context(), next)
	out.Secret = full
	return out, err
}

const noKey = "There is no such key."

func (s *Server) keyShown(ctx context.Context, id string) (out api.Key, err error) {
	key, err := s.store.KeyByID(ctx, id)
	if err != nil {
		return out, err
	}
	names, err := s.tenantNames(ctx)
	return keyView(key, names[key.Tenant]), err
}

func (s *Server) tenantNames(ctx context.Context) (map[mail.TenantID]string, error) {
	tenants, err := s.store.Tenants(ctx)
	names := make(map[mail.TenantID]string, len(tenants))
	for _, t := range tenants {
		names[t.ID] = t.Name
	}
	return names, err
}

// revokeKey ends a key on every replica within keyTTL plus keyGrace. The last key that can make others can't be revoked.
func (s *Server) revokeKey(r *http.Request) error {
	id := pathParam(r, "key")
	keys, err := s.store.Keys(r.Context())
	if err != nil {
		return err
	}
	if lastAdmin(keys, id, s.clock()) {
		return refuse(http.StatusConflict, "last_admin_key", "This is the last key with the scope admin:write. Create another one first.")
	}
	if err := s.store.RevokeKey(r.Context(), principal(r).ID, id); err != nil {
		return missing(err, noKey)
	}
	s.keys.forget(id)
	return nil
}

// lastAdmin reports whether key id is the only valid one with the scope admin:write.
func lastAdmin(keys []record.Key, id string, now time.Time) bool {
	is, others := false, false
	for i := range keys {
		if k := &keys[i]; k.May(record.ScopeAdminWrite) && valid(k, now) {
			is, others = is || k.ID == id, others || k.ID != id
		}
	}
	return is && !others
}

// tenant finds a tenant by name, or nil.
func (s *Server) tenant(ctx context.Context, name string) (*record.Tenant, error) {
	tenants, err := s.store.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(tenants, func(t record.Tenant) bool { return t.Name == name })
	if i < 0 {
		return nil, nil //nolint:nilnil // nil stands for "no such tenant"
	}
	return &tenants[i], nil
}

func keyView(k *record.Key, tenant string) api.Key {
	out := api.Key{
		ID: k.ID, Tenant: tenant, Name: k.Name, SenderDomains: k.SenderDomains, RatePerSecond: k.RatePerSecond,
		CreatedAt: k.CreatedAt, ExpiresAt: optional(k.ExpiresAt), RevokedAt: optional(k.RevokedAt),
		LastUsedAt: optional(k.LastUsedAt),
	}
	for _, network := range k.Networks {
		out.Networks = append(out.Networks, network.String())
	}
	for _, scope := range k.Scopes {
		out.Scopes = append(out.Scopes, string(scope))
	}
	return out
}
