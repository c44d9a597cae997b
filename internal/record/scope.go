package record

import "slices"

// Scope is what a key may do: a noun, and what may be done with it.
type Scope string

// The scopes. Each route takes one of them. A key for /admin/v1 opens nothing else.
const (
	ScopeSend              Scope = "send" // send, cancel, resend; and add suppressions, which can only stop mail
	ScopeMessagesRead      Scope = "messages:read"
	ScopeEventsRead        Scope = "events:read"
	ScopeStatsRead         Scope = "stats:read"
	ScopeSuppressionsRead  Scope = "suppressions:read"
	ScopeSuppressionsWrite Scope = "suppressions:write"      // add and remove
	ScopeComplaints        Scope = "suppressions:complaints" // with suppressions:write: remove those of complaints too
	ScopeWebhooksRead      Scope = "webhooks:read"
	ScopeWebhooksWrite     Scope = "webhooks:write"
	ScopeRoutingRead       Scope = "routing:read"  // accounts, pools, rules, limits, the queue
	ScopeRoutingWrite      Scope = "routing:write" // pools, rules, limits, and pauses of accounts
	ScopeAdminRead         Scope = "admin:read"    // routing:read, and what it leaves: keys, tenants, users, the audit
	ScopeAdminWrite        Scope = "admin:write"   // routing:write, and what it leaves: credentials, keys, tenants, users

	ScopeRead  Scope = "read"  // an older name, see aliases
	ScopeAdmin Scope = "admin" // an older name, see aliases
)

// aliases are the scopes that a scope includes. read and admin are of keys that were made before there were scopes by noun: they
// stay valid. Who may change the routing must not be able to get more rights, so no key, user or tenant can be made with it.
var aliases = map[Scope][]Scope{
	ScopeRead:  {ScopeMessagesRead, ScopeEventsRead, ScopeStatsRead, ScopeSuppressionsRead, ScopeWebhooksRead},
	ScopeAdmin: {ScopeAdminRead, ScopeAdminWrite, ScopeRoutingRead, ScopeRoutingWrite},

	ScopeAdminRead:  {ScopeRoutingRead},
	ScopeAdminWrite: {ScopeRoutingWrite},
}

// Scopes lists every name that a key may be made with.
func Scopes() []Scope {
	return []Scope{
		ScopeSend, ScopeMessagesRead, ScopeEventsRead, ScopeStatsRead, ScopeSuppressionsRead, ScopeSuppressionsWrite,
		ScopeComplaints, ScopeWebhooksRead, ScopeWebhooksWrite, ScopeRoutingRead, ScopeRoutingWrite, ScopeAdminRead, ScopeAdminWrite, ScopeRead, ScopeAdmin,
	}
}

// Opens reports whether a key with this scope may do what needs the other one.
func (s Scope) Opens(other Scope) bool { return s == other || slices.Contains(aliases[s], other) }

// OfAdmin reports whether the scope opens routes of operators.
func (s Scope) OfAdmin() bool { return s.Opens(ScopeRoutingRead) || s.Opens(ScopeRoutingWrite) }

// May reports whether the key has the scope, by this name or an older one.
func (k *Key) May(s Scope) bool {
	return slices.ContainsFunc(k.Scopes, func(have Scope) bool { return have.Opens(s) })
}
