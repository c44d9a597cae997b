package record

// Role is what a person may do at the dashboard.
type Role string

// The roles, from the least to the most.
const (
	RoleViewer   Role = "viewer"   // sees everything, changes nothing
	RoleSupport  Role = "support"  // finds messages, sends them again and suppresses addresses; sees no configuration
	RoleOperator Role = "operator" // changes routing, accounts and endpoints as well
	RoleAdmin    Role = "admin"    // as an operator; also makes people
)

// Scopes returns what the role opens in the API. An unknown role opens nothing.
func (r Role) Scopes() []Scope {
	read := []Scope{ScopeMessagesRead, ScopeEventsRead, ScopeStatsRead, ScopeSuppressionsRead, ScopeWebhooksRead}
	switch r {
	case RoleViewer:
		return append(read, ScopeAdminRead)
	case RoleSupport:
		return append(read, ScopeSend, ScopeSuppressionsWrite)
	case RoleOperator, RoleAdmin:
		return append(read, ScopeSend, ScopeSuppressionsWrite, ScopeComplaints, ScopeWebhooksWrite, ScopeAdminRead, ScopeAdminWrite)
	}
	return nil
}
