package api

import (
	"encoding/json"
	"time"
)

// Limit is one window of an account, in its provider's unit.
type Limit struct {
	N    int    `json:"n"`
	Per  string `json:"per"`  // Go duration: "1s", "5m", "24h"
	Unit string `json:"unit"` // requests, messages, recipients
}

// Account is one configured account. Secrets are never part of it.
type Account struct {
	Name     string          `json:"name"`
	Kind     string          `json:"kind"`
	Settings json.RawMessage `json:"settings"`
	Secrets  []string        `json:"secrets"` // names of the secrets that are set

	// UnreadableSecrets are the names of the secrets that do not open with the server's keys. The account is parked until they
	// are given again, or until the server gets their key.
	UnreadableSecrets []string `json:"unreadable_secrets,omitempty"`

	Capabilities json.RawMessage `json:"capabilities"`
	Concurrency  int             `json:"concurrency"`
	Limits       []Limit         `json:"limits"`
	State        string          `json:"state"` // active, paused, parked, draining
	Parked       []Park          `json:"parked,omitempty"`
	CreatedAt    time.Time       `json:"created_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
}

// Park says why an account, or one sender domain or sender address on it, gets no mail.
type Park struct {
	SenderDomain string    `json:"sender_domain,omitempty"`
	Sender       string    `json:"sender,omitempty"` // the address, if only one is parked
	Reason       string    `json:"reason"`
	Since        time.Time `json:"since"`
	NextProbe    time.Time `json:"next_probe,omitzero"` // earliest time at which a message may go through as a probe
}

// AccountRequest creates an account (POST) or changes one (PATCH). In a PATCH absent fields stay. Name, kind and limits
// can't be changed by it; limits have their own call.
type AccountRequest struct {
	Name        string            `json:"name,omitempty"`
	Kind        string            `json:"kind,omitempty"`
	Settings    json.RawMessage   `json:"settings,omitempty"` // an object, replaced as a whole
	Secrets     map[string]string `json:"secrets,omitempty"`  // replaces the secrets that it names
	Concurrency *int              `json:"concurrency,omitempty"`
	Limits      *[]Limit          `json:"limits,omitempty"` // absent on create: the kind's documented limits
}

// LimitsRequest replaces the limits of an account.
type LimitsRequest struct {
	Limits []Limit `json:"limits"`
}

// AccountLimits are the limits of an account, and those that its provider documents.
type AccountLimits struct {
	Limits     []Limit `json:"limits"`
	Documented []Limit `json:"documented"`
}

// Pool is a named set of accounts with weights.
type Pool struct {
	Name     string       `json:"name"`
	Overflow string       `json:"overflow"` // spill, wait
	Accounts []PoolMember `json:"accounts"`
	Version  int64        `json:"version"`
}

// PoolMember is one account of a pool.
type PoolMember struct {
	Account string  `json:"account"`
	Weight  float64 `json:"weight"`
}

// PoolRequest creates a pool (POST) or replaces its overflow rule and accounts (PUT, without a name).
type PoolRequest struct {
	Name     string       `json:"name,omitempty"`
	Overflow string       `json:"overflow,omitempty"` // default spill
	Accounts []PoolMember `json:"accounts"`
}

// RulesRequest replaces all rules at once. All rules get new ids.
type RulesRequest struct {
	Rules []Rule `json:"rules"`
}

// Rule routes matching messages to a pool. Empty fields match everything; the lowest position wins.
type Rule struct {
	ID              int64  `json:"id,omitempty"`
	Position        int    `json:"position"`
	Stream          string `json:"stream,omitempty"`
	Tag             string `json:"tag,omitempty"`
	SenderDomain    string `json:"sender_domain,omitempty"`
	RecipientDomain string `json:"recipient_domain,omitempty"`
	Pool            string `json:"pool"`
}

// Key is an API key. Secret is present only once, in the answer that creates it.
type Key struct {
	ID            string     `json:"id"`
	Tenant        string     `json:"tenant"`
	Name          string     `json:"name"`
	Scopes        []string   `json:"scopes"`
	SenderDomains []string   `json:"sender_domains,omitempty"`
	Networks      []string   `json:"networks,omitempty"` // CIDRs that it is accepted from; empty: anywhere
	RatePerSecond int        `json:"rate_per_second,omitempty"`
	CreatedAt     time.Time  `json:"created_at"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`
	RevokedAt     *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt    *time.Time `json:"last_used_at,omitempty"`
	Secret        string     `json:"secret,omitempty"`
}

// KeyRequest creates a key.
type KeyRequest struct {
	Tenant        string     `json:"tenant,omitempty"` // default "default"
	Name          string     `json:"name"`
	Scopes        []string   `json:"scopes"` // such as send, events:read; see openapi.yaml, "Keys"
	SenderDomains []string   `json:"sender_domains,omitempty"`
	Networks      []string   `json:"networks,omitempty"` // at most 32
	RatePerSecond int        `json:"rate_per_second,omitempty"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`
}

// KeyPatch changes a key. Absent fields stay; an empty list of networks means anywhere.
type KeyPatch struct {
	Networks *[]string `json:"networks,omitempty"`
}

// KeyRotateRequest says how long the old key stays valid beside the new one; the default is a day.
type KeyRotateRequest struct {
	OverlapSeconds *int `json:"overlap_seconds,omitempty"`
}

// Tenant is an owner of keys and messages.
type Tenant struct {
	Name      string    `json:"name"`
	Weight    int       `json:"weight"` // 1..1000
	Paused    bool      `json:"paused"`
	CreatedAt time.Time `json:"created_at"`
}

// TenantRequest creates a tenant (POST) or changes one (PATCH, absent fields stay, the name can't be changed).
type TenantRequest struct {
	Name   string `json:"name,omitempty"`
	Weight *int   `json:"weight,omitempty"` // default 100
	Paused *bool  `json:"paused,omitempty"`
}

// User is a person who may sign in at the dashboard. Link is present only in the answers of creation and reset.
type User struct {
	Name          string     `json:"name"`
	Role          string     `json:"role"`           // viewer, support, operator, admin
	State         string     `json:"state"`          // invited, active, disabled
	RecoveryCodes int        `json:"recovery_codes"` // that are left
	CreatedAt     time.Time  `json:"created_at"`
	SignedInAt    *time.Time `json:"signed_in_at,omitempty"`

	// Link is where the user sets a password and an authenticator, once, until LinkExpiresAt. It is relative to the address of
	// the dashboard, which is that of the admin API.
	Link          string     `json:"link,omitempty"`
	LinkExpiresAt *time.Time `json:"link_expires_at,omitempty"`
}

// UserRequest creates a user.
type UserRequest struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

// UserPatch changes a user. Absent fields stay. A change ends the user's sessions.
type UserPatch struct {
	Role     *string `json:"role,omitempty"`
	Disabled *bool   `json:"disabled,omitempty"`
}

// UserSession is a sign-in of a user that lasts.
type UserSession struct {
	ID        string    `json:"id"`
	From      string    `json:"from"`  // network of the client that signed in
	Agent     string    `json:"agent"` // its User-Agent
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"` // exact to a minute
	ExpiresAt time.Time `json:"expires_at"`
}

// Queue is GET /admin/v1/queue.
type Queue struct {
	AtLeast   []string    `json:"at_least,omitempty"` // lower bounds (counting stopped): ready, scheduled, unknown
	Ready     int64       `json:"ready"`              // due now
	Scheduled int64       `json:"scheduled"`          // due later
	Inflight  int64       `json:"inflight"`
	Unknown   int64       `json:"unknown"`
	OldestDue *time.Time  `json:"oldest_due,omitempty"`
	Tenants   []TenantRow `json:"tenants"`
	Replicas  []Replica   `json:"replicas"`
}

// TenantRow is one tenant's share of the queue.
type TenantRow struct {
	Tenant string `json:"tenant"`
	Ready  int64  `json:"ready"`
	More   bool   `json:"more,omitempty"` // there are more than Ready
}

// Replica is one running engine.
type Replica struct {
	ID         string    `json:"id"`
	Host       string    `json:"host"`
	StartedAt  time.Time `json:"started_at"`
	LeaseUntil time.Time `json:"lease_until"`
}

// WindowState is one line of GET /admin/v1/limits.
type WindowState struct {
	Account      string     `json:"account"`
	Limit        Limit      `json:"limit"`
	Used         int        `json:"used"` // in the window that ends now
	Free         int        `json:"free"`
	BlockedUntil *time.Time `json:"blocked_until,omitempty"`
}

// AuditEntry is one change of configuration.
type AuditEntry struct {
	ID        int64           `json:"id"`
	At        time.Time       `json:"at"`
	Actor     string          `json:"actor"`                // id of the key, or "system"
	ActorName string          `json:"actor_name,omitempty"` // name of the key
	Action    string          `json:"action"`
	Target    string          `json:"target"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}

// AuditFilter selects audit entries; zero fields select everything.
type AuditFilter struct {
	Actor, Action, Target string
	Since, Until          time.Time
	Cursor                string
	Limit                 int
}

// AuditPage is one page of GET /admin/v1/audit, newest first.
type AuditPage = Page[AuditEntry]

// Explanation is the answer of POST /admin/v1/route/explain: the facts that routing knows about the message, and where it
// would go now. Nothing is stored or sent.
type Explanation struct {
	Facts    Facts    `json:"facts"`
	Decision Decision `json:"decision"`
}

// Facts are the properties of a message that routing uses.
type Facts struct {
	Account          string   `json:"account,omitempty"` // pinned
	Stream           string   `json:"stream"`
	Tags             []string `json:"tags"`
	SenderDomain     string   `json:"sender_domain"`
	RecipientDomains []string `json:"recipient_domains"` // at most 20
	Recipients       int      `json:"recipients"`
	Bytes            int64    `json:"bytes"`
	Attachments      int      `json:"attachments"`
	NeedsSMTPUTF8    bool     `json:"needs_smtputf8"`
	Calendar         bool     `json:"calendar"`
}

// Decision says where a message goes and why; Attempt.Decision holds one.
type Decision struct {
	Config     int64       `json:"config"`         // configuration version in force
	Rule       int64       `json:"rule,omitempty"` // id of the rule that matched
	Pool       string      `json:"pool,omitempty"`
	Pinned     bool        `json:"pinned,omitempty"`
	Chosen     string      `json:"chosen,omitempty"`    // absent when no account can take the message now
	WaitsFor   string      `json:"waits_for,omitempty"` // the account that it waits for, if it may not spill
	Spilled    bool        `json:"spilled,omitempty"`
	Probe      bool        `json:"probe,omitempty"` // the account is parked, and this message tests it
	Candidates []Candidate `json:"candidates"`
	Omitted    int         `json:"omitted,omitempty"` // number of candidates left out of a stored decision
}

// Candidate is one account that routing considered. Without a Reason it could take the message.
type Candidate struct {
	Account string     `json:"account"`
	Weight  float64    `json:"weight"`
	Code    string     `json:"code,omitempty"`   // why not; "" when it could take the message
	Reason  string     `json:"reason,omitempty"` // the same for people
	Until   *time.Time `json:"until,omitempty"`  // when that ends, if known
}
