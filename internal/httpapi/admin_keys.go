package httpapi

import (
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

func (s *Server) listKeys(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	keys, err := s.store.Keys(r.Context())
	if err != nil {
		return err
	}
	names, err := s.tenantNames(r.Context())
	if err != nil {
		return err
	}
	out := api.List[api.Key]{Data: make([]api.Key, 0, len(keys))}
	for i := range keys {
		out.Data = append(out.Data, keyView(&keys[i], names[keys[i].Tenant]))
	}
	return writeJSON(w, http.StatusOK, out)
}

// createKey answers with the full key, which is never shown again.
func (s *Server) createKey(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.KeyRequest](s, w, r)
	if err != nil {
		return err
	}
	if in.Tenant == "" {
		in.Tenant = "default"
	}
	tenant, err := s.tenant(r.Context(), in.Tenant)
	if err != nil {
		return err
	}
	if tenant == nil {
		return invalid("tenant", "unknown_tenant", "is not a tenant")
	}
	key, err := s.keyOf(in, tenant)
	if err != nil {
		return err
	}
	id, full, hash := NewKey()
	key.ID, key.Hash = id, hash
	if err := s.store.CreateKey(r.Context(), principal(r).ID, key); err != nil {
		return err
	}
	s.keys.forget(id)
	out := keyView(&key, tenant.Name)
	out.Secret = full
	return writeJSON(w, http.StatusCreated, out)
}

// keyOf checks a request for a key and collects all its mistakes.
func (s *Server) keyOf(in api.KeyRequest, tenant *record.Tenant) (record.Key, error) {
	now := s.clock().UTC()
	k := record.Key{
		Tenant: tenant.ID, Name: in.Name, RatePerSecond: in.RatePerSecond, TenantPaused: tenant.Paused, CreatedAt: now,
	}
	bad := &mail.Invalid{}
	complain := func(field, code, message string) {
		bad.Fields = append(bad.Fields, mail.Field{Field: field, Code: code, Message: message})
	}
	if in.Name == "" || len(in.Name) > maxKeyName || !clean(in.Name) {
		complain("name", "invalid_name", "must have 1 to 100 bytes and no control characters")
	}
	if in.RatePerSecond < 0 || in.RatePerSecond > maxKeyRate {
		complain("rate_per_second", "out_of_range", "must be 0 (no limit) to 100000")
	}
	if in.ExpiresAt != nil {
		if k.ExpiresAt = in.ExpiresAt.UTC(); !k.ExpiresAt.After(now) || k.ExpiresAt.Year() > 9998 {
			complain("expires_at", "out_of_range", "must be in the future")
		}
	}
	bad.Fields = append(bad.Fields, scopesInto(&k, in.Scopes)...)
	bad.Fields = append(bad.Fields, domainsInto(&k, in.SenderDomains)...)
	networks, wrong := networksOf(in.Networks)
	k.Networks, bad.Fields = networks, append(bad.Fields, wrong...)
	if len(bad.Fields) > 0 {
		return record.Key{}, bad
	}
	return k, nil
}

// scopesInto checks scopes. Admin scopes can't be combined with others: an admin key must not be handed to programs that send.
func scopesInto(k *record.Key, in []string) []mail.Field {
	if len(in) == 0 {
		return []mail.Field{{Field: "scopes", Code: "missing", Message: "must name at least one of " + scopeNames()}}
	}
	for i, name := range in {
		scope := record.Scope(name)
		if !slices.Contains(record.Scopes(), scope) || slices.Contains(k.Scopes, scope) {
			return []mail.Field{{
				Field: fmt.Sprintf("scopes[%d]", i), Code: "invalid_scope", Message: "must be one of " + scopeNames() + ", each once",
			}}
		}
		if len(k.Scopes) > 0 && scope.OfAdmin() != k.Scopes[0].OfAdmin() {
			return []mail.Field{{
				Field: "scopes", Code: "invalid_scope", Message: "admin, admin:read and admin:write can't be joined with other scopes",
			}}
		}
		k.Scopes = append(k.Scopes, scope)
	}
	return nil
}

func scopeNames() string {
	var names []string
	for _, scope := range record.Scopes() {
		names = append(names, string(scope))
	}
	return strings.Join(names, ", ")
}

// domainsInto checks sender domains and drops duplicates.
func domainsInto(k *record.Key, in []string) []mail.Field {
	if len(in) > maxSenderDomain {
		return []mail.Field{{Field: "sender_domains", Code: "too_many", Message: "must be at most 100"}}
	}
	var fields []mail.Field
	for i, name := range in {
		domain, err := mail.ParseDomain(name)
		if err != nil {
			fields = append(fields, mail.Field{
				Field: fmt.Sprintf("sender_domains[%d]", i), Code: "invalid_domain", Message: "must be a domain",
			})
			continue
		}
		if !slices.Contains(k.SenderDomains, domain) {
			k.SenderDomains = append(k.SenderDomains, domain)
		}
	}
	return fields
}

// networksOf reads networks and drops duplicates.
func networksOf(in []string) (networks []netip.Prefix, wrong []mail.Field) {
	if len(in) > maxKeyNetworks {
		return nil, []mail.Field{{Field: "networks", Code: "too_many", Message: "must be at most 32"}}
	}
	for i, text := range in {
		network, err := record.ParseNetwork(text)
		if err != nil {
			wrong = append(wrong, mail.Field{
				Field: fmt.Sprintf("networks[%d]", i), Code: "invalid_network", Message: "must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32, or an address",
			})
			continue
		}
		if !slices.Contains(networks, network) {
			networks = append(networks, network)
		}
	}
	return networks, wrong
}

// patchKey sets the networks from which a key is accepted, on every replica within keyTTL plus keyGrace. It refuses a change
// that would lock out the caller.
func (s *Server) patchKey(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.KeyPatch](s, w, r)
	if err != nil {
		return err
	}
	id := pathParam(r, "key")
	if in.Networks != nil {
		networks, wrong := networksOf(*in.Networks)
		if len(wrong) > 0 {
			return &mail.Invalid{Fields: wrong}
		}
		if from := s.clientIP(r); id == principal(r).ID && !admits(networks, from) {
			return refuse(http.StatusConflict, "locks_you_out", "You call with this key from "+from.String()+", which the networks do not hold.")
		}
		if err := s.store.SetKeyNetworks(r.Context(), principal(r).ID, id, networks); err != nil {
			return missing(err, noKey)
		}
		s.keys.forget(id)
	}
	out, err := s.keyShown(r.Context(), id)
	if err != nil {
		return missing(err, noKey)
	}
	return writeJSON(w, http.StatusOK, out)
}

// rotateKey makes a key with the rights of the old one, which ends after the overlap. The new key is shown only in this answer.
func (s *Server) rotateKey(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.KeyRotateRequest](s, w, r)
	if err != nil {
		return err
	}
	overlap, err := overlapOf(in.OverlapSeconds)
	if err != nil {
		return err
	}
	id := pathParam(r, "key")
	next, full, hash := NewKey()
	if err := s.store.RotateKey(r.Context(), principal(r).ID, id, next, hash, overlap); err != nil {
		return missing(err, "There is no key of this id that has not ended.")
	}
	s.keys.forget(id)
	s.keys.forget(next)
	out, err := s.keyShown(r.Context(), next)
	if err != nil {
		return err
	}
	out.Secret = full
	return writeJSON(w, http.StatusCreated, out)
}

const noKey = "There is no such key."

func (s *Server) keyShown(ctx context.Context, id string) (*api.Key, error) {
	key, err := s.store.KeyByID(ctx, id)
	if err != nil {
		return nil, err
	}
	names, err := s.tenantNames(ctx)
	if err != nil {
		return nil, err
	}
	out := keyView(key, names[key.Tenant])
	return &out, nil
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
func (s *Server) revokeKey(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
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
	return noContent(w)
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
