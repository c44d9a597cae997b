package record

import "slices"

// Role is what a person may do at the dashboard.
type Role string

// The roles, from the least to the most. Each may do all that the ones before it may do.
const (
	RoleViewer   Role = "viewer"   // sees messages, statistics, accounts and the queue, and changes nothing
	RoleSupport  Role = "support"  // cancels and resends messages, and changes suppressions
	RoleOperator Role = "operator" // turns weights, rules, limits and pauses, and changes webhook endpoints; sees keys and the audit
	RoleAdmin    Role = "admin"    // changes credentials, keys, tenants and users
)

// Roles lists the roles, from the least to the most.
func Roles() []Role { return []Role{RoleViewer, RoleSupport, RoleOperator, RoleAdmin} }

// Scopes returns what the role may do, in the words of the API. An unknown role may do nothing. Viewers and support see no
// webhook endpoints: their URLs may hold credentials.
func (r Role) Scopes() []Scope {
	n := slices.Index(Roles(), r)
	if n < 0 {
		return nil
	}
	return slices.Concat([][]Scope{
		{ScopeMessagesRead, ScopeEventsRead, ScopeStatsRead, ScopeSuppressionsRead, ScopeRoutingRead},
		{ScopeSend, ScopeSuppressionsWrite},
		{ScopeComplaints, ScopeWebhooksRead, ScopeWebhooksWrite, ScopeRoutingWrite, ScopeAdminRead},
		{ScopeAdminWrite},
	}[:n+1]...)
}
