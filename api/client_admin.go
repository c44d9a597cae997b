package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const admin = "/admin/v1"

func accountPath(name string) string { return admin + "/accounts/" + url.PathEscape(name) }

// Accounts lists the accounts.
func (c *Client) Accounts(ctx context.Context) ([]Account, error) {
	return list[Account](ctx, c, admin+"/accounts")
}

// Account returns one account.
func (c *Client) Account(ctx context.Context, name string) (*Account, error) {
	return get[Account](ctx, c, accountPath(name), nil)
}

// CreateAccount adds an account. It takes no mail before it is in a pool.
func (c *Client) CreateAccount(ctx context.Context, a AccountRequest) (*Account, error) {
	return into[Account](ctx, c, call{method: http.MethodPost, path: admin + "/accounts", body: a})
}

// PatchAccount changes settings, secrets or concurrency, and ends the account's parks.
func (c *Client) PatchAccount(ctx context.Context, name string, a AccountRequest) (*Account, error) {
	return into[Account](ctx, c, call{method: http.MethodPatch, path: accountPath(name), body: a})
}

// DeleteAccount takes an account out of service. The account first finishes the mail that it has.
func (c *Client) DeleteAccount(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: accountPath(name)})
}

// PauseAccount stops giving mail to an account.
func (c *Client) PauseAccount(ctx context.Context, name string) (*Account, error) {
	return into[Account](ctx, c, call{method: http.MethodPost, path: accountPath(name) + "/pause"})
}

// ResumeAccount gives mail to a paused or parked account again.
func (c *Client) ResumeAccount(ctx context.Context, name string) (*Account, error) {
	return into[Account](ctx, c, call{method: http.MethodPost, path: accountPath(name) + "/resume"})
}

// AccountLimits returns the limits of an account. Limits returns how much of them is used now.
func (c *Client) AccountLimits(ctx context.Context, name string) (*AccountLimits, error) {
	return get[AccountLimits](ctx, c, accountPath(name)+"/limits", nil)
}

// SetLimits replaces all limits of an account.
func (c *Client) SetLimits(ctx context.Context, name string, limits []Limit) (*AccountLimits, error) {
	if limits == nil {
		limits = []Limit{}
	}
	return into[AccountLimits](ctx, c, call{
		method: http.MethodPut, path: accountPath(name) + "/limits", body: LimitsRequest{Limits: limits},
	})
}

// Pools lists the pools.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	return list[Pool](ctx, c, admin+"/pools")
}

// Pool returns one pool with its version.
func (c *Client) Pool(ctx context.Context, name string) (*Pool, error) {
	return get[Pool](ctx, c, admin+"/pools/"+url.PathEscape(name), nil)
}

// CreatePool adds a pool.
func (c *Client) CreatePool(ctx context.Context, p PoolRequest) (*Pool, error) {
	return into[Pool](ctx, c, call{method: http.MethodPost, path: admin + "/pools", body: p})
}

// PutPool replaces a pool's overflow rule and accounts if it is still at p.Version; otherwise the error is a *Problem with
// status 412. Version 0 replaces any version.
func (c *Client) PutPool(ctx context.Context, p Pool) (*Pool, error) {
	tag := "*"
	if p.Version != 0 {
		tag = `"` + strconv.FormatInt(p.Version, 10) + `"`
	}
	return into[Pool](ctx, c, call{
		method: http.MethodPut, path: admin + "/pools/" + url.PathEscape(p.Name),
		body:   PoolRequest{Overflow: p.Overflow, Accounts: p.Accounts},
		header: http.Header{"If-Match": {tag}},
	})
}

// Rules lists the rules by position.
func (c *Client) Rules(ctx context.Context) ([]Rule, error) {
	return list[Rule](ctx, c, admin+"/rules")
}

// CreateRule adds a rule; its ID must be 0.
func (c *Client) CreateRule(ctx context.Context, r Rule) (*Rule, error) {
	return into[Rule](ctx, c, call{method: http.MethodPost, path: admin + "/rules", body: r})
}

// ReplaceRules replaces the whole list of rules.
func (c *Client) ReplaceRules(ctx context.Context, rules []Rule) ([]Rule, error) {
	if rules == nil {
		rules = []Rule{}
	}
	out, err := into[List[Rule]](ctx, c, call{
		method: http.MethodPut, path: admin + "/rules", body: RulesRequest{Rules: rules},
	})
	if err != nil {
		return nil, err
	}
	return out.Data, nil
}

// DeleteRule removes a rule.
func (c *Client) DeleteRule(ctx context.Context, id int64) error {
	return c.do(ctx, call{method: http.MethodDelete, path: admin + "/rules/" + strconv.FormatInt(id, 10)})
}

// ExplainMessage returns where a stored message would go now, and why.
func (c *Client) ExplainMessage(ctx context.Context, id string) (*Explanation, error) {
	return get[Explanation](ctx, c, admin+"/route/explain/"+url.PathEscape(id), nil)
}

// Explain returns where a message would go now, and why. Nothing is stored or sent.
func (c *Client) Explain(ctx context.Context, m SendRequest) (*Explanation, error) {
	return into[Explanation](ctx, c, call{method: http.MethodPost, path: admin + "/route/explain", body: m})
}

// ExplainRaw is Explain with a body that is JSON already.
func (c *Client) ExplainRaw(ctx context.Context, body []byte) (*Explanation, error) {
	return into[Explanation](ctx, c, call{method: http.MethodPost, path: admin + "/route/explain", body: json.RawMessage(body)})
}

// Keys lists the API keys, without their secrets.
func (c *Client) Keys(ctx context.Context) ([]Key, error) { return list[Key](ctx, c, admin+"/keys") }

// CreateKey makes a key. Its Secret is in this answer and nowhere else.
func (c *Client) CreateKey(ctx context.Context, k KeyRequest) (*Key, error) {
	return into[Key](ctx, c, call{method: http.MethodPost, path: admin + "/keys", body: k})
}

// PatchKey changes the networks from which a key is accepted.
func (c *Client) PatchKey(ctx context.Context, id string, change KeyPatch) (*Key, error) {
	return into[Key](ctx, c, call{method: http.MethodPatch, path: admin + "/keys/" + url.PathEscape(id), body: change})
}

// RotateKey replaces a key by a new one with the same rights. Its Secret is in this answer and nowhere else.
func (c *Client) RotateKey(ctx context.Context, id string, r KeyRotateRequest) (*Key, error) {
	return into[Key](ctx, c, call{method: http.MethodPost, path: admin + "/keys/" + url.PathEscape(id) + "/rotate", body: r})
}

// RevokeKey ends a key everywhere within 2 s.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: admin + "/keys/" + url.PathEscape(id)})
}

// Tenants lists the tenants.
func (c *Client) Tenants(ctx context.Context) ([]Tenant, error) {
	return list[Tenant](ctx, c, admin+"/tenants")
}

// CreateTenant adds a tenant.
func (c *Client) CreateTenant(ctx context.Context, t TenantRequest) (*Tenant, error) {
	return into[Tenant](ctx, c, call{method: http.MethodPost, path: admin + "/tenants", body: t})
}

// PatchTenant changes a tenant's weight or pauses it.
func (c *Client) PatchTenant(ctx context.Context, name string, t TenantRequest) (*Tenant, error) {
	return into[Tenant](ctx, c, call{
		method: http.MethodPatch, path: admin + "/tenants/" + url.PathEscape(name), body: t,
	})
}

// Queue returns the depth of the queue.
func (c *Client) Queue(ctx context.Context) (*Queue, error) {
	return get[Queue](ctx, c, admin+"/queue", nil)
}

// Series returns counts over time.
func (c *Client) Series(ctx context.Context, q SeriesQuery) (*SeriesPage, error) {
	v := url.Values{"measure": q.Measures}
	for name, value := range map[string]string{"step": q.Step, "account": q.Account, "by": q.By} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			v.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return get[SeriesPage](ctx, c, admin+"/series", v)
}

// Limits returns how much of each window of each account is used and is left.
func (c *Client) Limits(ctx context.Context) ([]WindowState, error) {
	return list[WindowState](ctx, c, admin+"/limits")
}

// AuditChain returns one page of the chain of the audit, oldest first.
func (c *Client) AuditChain(ctx context.Context, cursor string) (*AuditChainPage, error) {
	return get[AuditChainPage](ctx, c, admin+"/audit/chain", pageQuery(cursor, 0))
}

// Audit returns one page of changes, newest first.
func (c *Client) Audit(ctx context.Context, f AuditFilter) (*AuditPage, error) {
	q := pageQuery(f.Cursor, f.Limit)
	for name, value := range map[string]string{"actor": f.Actor, "action": f.Action, "target": f.Target} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339))
		}
	}
	return get[AuditPage](ctx, c, admin+"/audit", q)
}
