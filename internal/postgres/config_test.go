package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

func (b *bed) config(t *testing.T) *route.Config {
	t.Helper()
	c, err := b.db.Config(t.Context())
	must(t, err)
	return c
}

// lastAudit is the newest entry: "actor action target detail".
func (b *bed) lastAudit(t *testing.T) string {
	t.Helper()
	entries, err := b.db.Audit(t.Context(), record.AuditFilter{Limit: 1})
	must(t, err)
	if len(entries) == 0 {
		return ""
	}
	e := entries[0]
	return fmt.Sprintf("%s %s %s %s", e.Actor, e.Action, e.Target, e.Detail)
}

func TestConfigComesBackAsItWasStored(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	accounts := []route.Account{
		{Name: "ses-eu", Kind: "ses", Settings: []byte(`{"region": "eu-west-1"}`), Concurrency: 50, Limits: []limit.Window{
			{N: 14, Per: time.Second, Unit: limit.Requests}, {N: 50000, Per: 24 * time.Hour, Unit: limit.Recipients},
		}},
		{Name: "relay", Kind: "smtp", Concurrency: 1},
	}
	must(t, b.db.CreateAccount(ctx, "ops", accounts[0], map[string]seal.Secret{"secret_key": seal.NewSecret("s"), "access_key": seal.NewSecret("a")}))
	must(t, b.db.CreateAccount(ctx, "ops", accounts[1], nil))
	must(t, b.db.CreatePool(ctx, "ops", route.Pool{Name: "bulk", Overflow: route.Wait, Members: []route.Member{{Account: "ses-eu", Weight: 70}, {Account: "relay", Weight: 0.5}}}))
	must(t, b.db.SetRules(ctx, "ops", []route.Rule{
		{Position: 20, SenderDomain: "example.com", RecipientDomain: "example.org", Pool: "default"},
		{Position: 10, Stream: "bulk", Tag: "news", Pool: "bulk"},
	}))
	last, err := b.db.CreateRule(ctx, "ops", route.Rule{Position: 15, Stream: "other", Pool: "bulk"})
	must(t, err)
	got := b.config(t)
	want := &route.Config{
		Version: b.version(t),
		Accounts: []route.Account{
			{ID: 1, Name: "ses-eu", Kind: "ses", Settings: []byte(`{"region": "eu-west-1"}`), SecretFields: []string{"access_key", "secret_key"}, Concurrency: 50, Limits: accounts[0].Limits},
			{ID: 2, Name: "relay", Kind: "smtp", Settings: []byte(`{}`), Concurrency: 1},
		},
		Pools: []route.Pool{
			{Name: "bulk", Overflow: route.Wait, Version: 1, Members: []route.Member{{Account: "relay", Weight: 0.5}, {Account: "ses-eu", Weight: 70}}},
			{Name: "default", Overflow: route.Spill, Version: 1},
		},
		Rules: []route.Rule{
			{Position: 10, Stream: "bulk", Tag: "news", Pool: "bulk"},
			{ID: last.ID, Position: 15, Stream: "other", Pool: "bulk"},
			{Position: 20, SenderDomain: "example.com", RecipientDomain: "example.org", Pool: "default"},
		},
	}
	ignore := cmp.Options{
		cmpopts.IgnoreFields(route.Account{}, "CreatedAt", "UpdatedAt"), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(route.Pool{}, "ID"),
		cmp.FilterPath(func(p cmp.Path) bool {
			return p.GoString() == "{*route.Config}.Rules[0].ID" || p.GoString() == "{*route.Config}.Rules[2].ID"
		}, cmp.Ignore()),
	}
	if diff := cmp.Diff(want, got, ignore); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if a := got.Accounts[0]; a.CreatedAt.IsZero() || !a.UpdatedAt.Equal(a.CreatedAt) {
		t.Errorf("created at %s, updated at %s", a.CreatedAt, a.UpdatedAt)
	}
}

// change is a change of the configuration that is made, with its audit entry, or refused.
type change struct {
	name  string
	do    func(context.Context, *DB) error
	want  error  // nil when it is made
	audit string // empty when it is refused
}

// checkChanges does each change on a database of its own, which holds what given makes. A change that is made moves the
// version by one and is audited. A refused one leaves everything as it was.
func checkChanges(t *testing.T, given func(*testing.T, *bed), changes []change) {
	t.Helper()
	t.Parallel()
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			given(t, b)
			before, audit := b.config(t), b.lastAudit(t)
			err := c.do(t.Context(), b.db)
			if !errors.Is(err, c.want) {
				t.Fatalf("error = %v, want %v", err, c.want)
			}
			after := b.config(t)
			if c.want == nil {
				audit = c.audit
				if after.Version != before.Version+1 {
					t.Errorf("version %d after %d", after.Version, before.Version)
				}
			} else if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("a refused change left something (-want +got):\n%s", diff)
			}
			if got := b.lastAudit(t); got != audit {
				t.Errorf("audit says %s, want %s", got, audit)
			}
		})
	}
}

func TestAChangeOfAnAccountIsAuditedOrRefused(t *testing.T) {
	password := map[string]seal.Secret{"password": seal.NewSecret("hunter2")}
	account := func(name string, concurrency int) route.Account {
		return route.Account{Name: name, Kind: "smtp", Concurrency: concurrency}
	}
	checkChanges(t, func(t *testing.T, b *bed) {
		t.Helper()
		must(t, b.db.CreateAccount(t.Context(), "ops", account("a", 2), password))
	}, []change{
		{
			"create", func(ctx context.Context, db *DB) error {
				return db.CreateAccount(ctx, "ops", account("new", 2), password)
			}, nil,
			`ops account.create new {"kind": "smtp", "limits": null, "secrets": ["password"], "settings": null, "concurrency": 2}`,
		},
		{"create twice", func(ctx context.Context, db *DB) error { return db.CreateAccount(ctx, "ops", account("a", 2), nil) }, record.ErrConflict, ""},
		{
			"update", func(ctx context.Context, db *DB) error { return db.UpdateAccount(ctx, "ops", account("a", 3), nil) }, nil,
			`ops account.update a {"kind": "smtp", "limits": null, "secrets": null, "settings": null, "concurrency": 3}`,
		},
		{"update another", func(ctx context.Context, db *DB) error { return db.UpdateAccount(ctx, "ops", account("x", 3), nil) }, record.ErrNotFound, ""},
		{
			"limits", func(ctx context.Context, db *DB) error {
				return db.SetLimits(ctx, "ops", "a", []limit.Window{hourly(5, limit.Requests)})
			}, nil,
			`ops account.limits a [{"n": 5, "per": 3600000000000, "unit": "requests"}]`,
		},
		{"limits of another", func(ctx context.Context, db *DB) error { return db.SetLimits(ctx, "ops", "x", nil) }, record.ErrNotFound, ""},
		{"pause", func(ctx context.Context, db *DB) error { return db.PauseAccount(ctx, "ops", "a") }, nil, `ops account.pause a null`},
		{"pause another", func(ctx context.Context, db *DB) error { return db.PauseAccount(ctx, "ops", "x") }, record.ErrNotFound, ""},
		{"resume", func(ctx context.Context, db *DB) error { return db.ResumeAccount(ctx, "ops", "a") }, nil, `ops account.resume a null`},
		{"resume another", func(ctx context.Context, db *DB) error { return db.ResumeAccount(ctx, "ops", "x") }, record.ErrNotFound, ""},
		{"delete", func(ctx context.Context, db *DB) error { return db.DeleteAccount(ctx, "ops", "a") }, nil, `ops account.delete a null`},
		{"delete another", func(ctx context.Context, db *DB) error { return db.DeleteAccount(ctx, "ops", "x") }, record.ErrNotFound, ""},
	})
}

func TestAChangeOfAPoolIsAuditedOrRefused(t *testing.T) {
	pool := func(name string, o route.Overflow, accounts ...string) route.Pool {
		p := route.Pool{Name: name, Overflow: o}
		for _, a := range accounts {
			p.Members = append(p.Members, route.Member{Account: a, Weight: 1})
		}
		return p
	}
	update := func(p route.Pool, version int64) func(context.Context, *DB) error {
		return func(ctx context.Context, db *DB) error { _, err := db.UpdatePool(ctx, "ops", p, version); return err }
	}
	checkChanges(t, func(t *testing.T, b *bed) {
		t.Helper()
		must(t, b.db.CreateAccount(t.Context(), "ops", route.Account{Name: "a", Kind: "smtp", Concurrency: 2}, nil))
		must(t, b.db.CreatePool(t.Context(), "ops", pool("p", route.Wait, "a")))
	}, []change{
		{
			"create", func(ctx context.Context, db *DB) error {
				return db.CreatePool(ctx, "ops", pool("new", route.Wait, "a"))
			}, nil,
			`ops pool.create new {"accounts": [{"weight": 1, "account": "a"}], "overflow": "wait"}`,
		},
		{"create twice", func(ctx context.Context, db *DB) error { return db.CreatePool(ctx, "ops", pool("p", route.Wait)) }, record.ErrConflict, ""},
		{"create of no account", func(ctx context.Context, db *DB) error {
			return db.CreatePool(ctx, "ops", pool("new", route.Wait, "x"))
		}, record.ErrNotFound, ""},
		{"update", update(pool("p", route.Spill), 0), nil, `ops pool.update p {"accounts": null, "overflow": "spill"}`},
		{"update another", update(pool("x", route.Spill), 0), record.ErrNotFound, ""},
		{"update a stale version", update(pool("p", route.Spill), 99), record.ErrStale, ""},
		{"update to no account", update(pool("p", route.Spill, "x"), 0), record.ErrNotFound, ""},
	})
}

func TestAChangeOfTheRulesIsAuditedOrRefused(t *testing.T) {
	checkChanges(t, func(t *testing.T, b *bed) {
		t.Helper()
		rule, err := b.db.CreateRule(t.Context(), "ops", route.Rule{Position: 1, Pool: "default"})
		must(t, err)
		if rule.ID != 1 {
			t.Fatalf("rule = %+v, want the id 1", rule)
		}
	}, []change{
		{"create", func(ctx context.Context, db *DB) error {
			_, err := db.CreateRule(ctx, "ops", route.Rule{Position: 2, Pool: "default"})
			return err
		}, nil, `ops rule.create rules {"id": 0, "pool": "default", "position": 2}`},
		{"create for no pool", func(ctx context.Context, db *DB) error {
			_, err := db.CreateRule(ctx, "ops", route.Rule{Pool: "x"})
			return err
		}, record.ErrNotFound, ""},
		{"delete", func(ctx context.Context, db *DB) error { return db.DeleteRule(ctx, "ops", 1) }, nil, `ops rule.delete 1 null`},
		{"delete another", func(ctx context.Context, db *DB) error { return db.DeleteRule(ctx, "ops", 2) }, record.ErrNotFound, ""},
		{
			"replace", func(ctx context.Context, db *DB) error {
				return db.SetRules(ctx, "ops", []route.Rule{{Position: 7, Pool: "default"}})
			}, nil,
			`ops rules.replace rules [{"id": 0, "pool": "default", "position": 7}]`,
		},
		{"replace for no pool", func(ctx context.Context, db *DB) error {
			return db.SetRules(ctx, "ops", []route.Rule{{Pool: "default"}, {Pool: "x"}})
		}, record.ErrNotFound, ""},
	})
}

func TestAChangeOfAKeyIsAuditedOrRefused(t *testing.T) {
	key := func(id string, tenant mail.TenantID) record.Key {
		return record.Key{ID: id, Tenant: tenant, Name: "k", Hash: make([]byte, 32), Scopes: []record.Scope{record.ScopeSend}}
	}
	checkChanges(t, func(t *testing.T, b *bed) {
		t.Helper()
		must(t, b.db.CreateKey(t.Context(), "ops", key("0011aabb", 1)))
	}, []change{
		{
			"create", func(ctx context.Context, db *DB) error { return db.CreateKey(ctx, "ops", key("ccddeeff", 1)) }, nil,
			`ops key.create ccddeeff {"name": "k", "scopes": ["send"], "tenant": 1, "networks": []}`,
		},
		{"create twice", func(ctx context.Context, db *DB) error { return db.CreateKey(ctx, "ops", key("0011aabb", 1)) }, record.ErrConflict, ""},
		{"create for no tenant", func(ctx context.Context, db *DB) error { return db.CreateKey(ctx, "ops", key("ccddeeff", 77)) }, record.ErrNotFound, ""},
		{"revoke", func(ctx context.Context, db *DB) error { return db.RevokeKey(ctx, "ops", "0011aabb") }, nil, `ops key.revoke 0011aabb null`},
		{"revoke another", func(ctx context.Context, db *DB) error { return db.RevokeKey(ctx, "ops", "ffffffff") }, record.ErrNotFound, ""},
	})
}

func TestAChangeOfATenantIsAuditedOrRefused(t *testing.T) {
	create := func(name string) func(context.Context, *DB) error {
		return func(ctx context.Context, db *DB) error {
			_, err := db.CreateTenant(ctx, "ops", record.Tenant{Name: name, Weight: 5})
			return err
		}
	}
	checkChanges(t, func(t *testing.T, b *bed) { t.Helper(); must(t, create("shop")(t.Context(), b.db)) }, []change{
		{"create", create("new"), nil, `ops tenant.create new null`},
		{"create twice", create("shop"), record.ErrConflict, ""},
		{
			"update", func(ctx context.Context, db *DB) error { return db.UpdateTenant(ctx, "ops", "shop", 9, true) }, nil,
			`ops tenant.update shop {"paused": true, "weight": 9}`,
		},
		{"update another", func(ctx context.Context, db *DB) error { return db.UpdateTenant(ctx, "ops", "x", 9, true) }, record.ErrNotFound, ""},
	})
}

func TestAuditIsReadBackwards(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for i := range 5 {
		_, err := b.db.CreateTenant(t.Context(), "ops", record.Tenant{Name: fmt.Sprintf("t%d", i), Weight: 1})
		must(t, err)
	}
	first, err := b.db.Audit(t.Context(), record.AuditFilter{Limit: 3})
	must(t, err)
	rest, err := b.db.Audit(t.Context(), record.AuditFilter{Before: first[2].ID, Limit: 3})
	must(t, err)
	got := ""
	for _, e := range append(first, rest...) {
		got += e.Target + " "
		if e.At.IsZero() {
			t.Errorf("entry %d has no time", e.ID)
		}
	}
	if got != "t4 t3 t2 t1 t0 " {
		t.Errorf("targets = %s", got)
	}
}

func TestAuditIsFilteredAndNamesTheKey(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	key := record.Key{ID: "0badcafe", Tenant: mail.DefaultTenant, Name: "alice", Hash: make([]byte, 32), Scopes: []record.Scope{record.ScopeAdmin}}
	must(t, b.db.CreateKey(t.Context(), "system", key))
	_, err := b.db.CreateTenant(t.Context(), key.ID, record.Tenant{Name: "t1", Weight: 1})
	must(t, err)
	must(t, b.db.UpdateTenant(t.Context(), key.ID, "t1", 2, false))
	_, err = b.db.CreateTenant(t.Context(), "system", record.Tenant{Name: "t2", Weight: 1})
	must(t, err)
	future := time.Now().Add(time.Hour)
	for _, c := range []struct {
		filter record.AuditFilter
		want   string
	}{
		{record.AuditFilter{Actor: "alice"}, "alice tenant.update t1, alice tenant.create t1"},
		{record.AuditFilter{Actor: key.ID, Action: "tenant.create"}, "alice tenant.create t1"},
		{record.AuditFilter{Action: "tenant", Actor: "system"}, " tenant.create t2"},
		{record.AuditFilter{Action: "tenan"}, ""},
		{record.AuditFilter{Target: "t2"}, " tenant.create t2"},
		{record.AuditFilter{Since: future}, ""},
		{record.AuditFilter{Until: future, Action: "key"}, " key.create 0badcafe"},
	} {
		c.filter.Limit = 10
		entries, err := b.db.Audit(t.Context(), c.filter)
		must(t, err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name+" "+e.Action+" "+e.Target)
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%+v: %s\nwant %s", c.filter, s, c.want)
		}
	}
}

func TestOnlyOneOfTwoPoolUpdatesWithOneETagWins(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.relay(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	won, stale := 0, 0
	for i := range 8 {
		wg.Go(func() {
			p := route.Pool{Name: "default", Overflow: route.Wait, Members: []route.Member{{Account: "relay", Weight: float64(i + 1)}}}
			got, err := b.db.UpdatePool(t.Context(), "ops", p, 1)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && got.Version == 2:
				won++
			case errors.Is(err, record.ErrStale):
				stale++
			default:
				t.Errorf("UpdatePool = %+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if p := b.config(t).Pool("default"); won != 1 || stale != 7 || p.Version != 2 || p.Overflow != route.Wait || len(p.Members) != 1 {
		t.Errorf("%d won and %d were stale: %+v", won, stale, p)
	}
}
