package postgres

import (
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

func TestEachChangeIsAuditedAndMovesTheVersionAndARefusedOneDoesNeither(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	var rule route.Rule
	key := record.Key{ID: "0011aabb", Tenant: 1, Name: "k", Hash: make([]byte, 32), Scopes: []record.Scope{record.ScopeSend}}
	none, unknown := error(nil), record.ErrNotFound
	for _, tc := range []struct {
		do    func() error
		want  error
		audit string
	}{
		{
			func() error {
				return b.db.CreateAccount(ctx, "ops", route.Account{Name: "a", Kind: "smtp", Concurrency: 2}, map[string]seal.Secret{"password": seal.NewSecret("hunter2")})
			}, none,
			`ops account.create a {"kind": "smtp", "limits": null, "secrets": ["password"], "settings": null, "concurrency": 2}`,
		},
		{func() error {
			return b.db.CreateAccount(ctx, "ops", route.Account{Name: "a", Kind: "smtp", Concurrency: 2}, nil)
		}, record.ErrConflict, ""},
		{
			func() error {
				return b.db.UpdateAccount(ctx, "ops", route.Account{Name: "a", Kind: "smtp", Concurrency: 3}, nil)
			}, none,
			`ops account.update a {"kind": "smtp", "limits": null, "secrets": null, "settings": null, "concurrency": 3}`,
		},
		{func() error {
			return b.db.UpdateAccount(ctx, "ops", route.Account{Name: "x", Kind: "smtp", Concurrency: 3}, nil)
		}, unknown, ""},
		{
			func() error { return b.db.SetLimits(ctx, "ops", "a", []limit.Window{hourly(5, limit.Requests)}) }, none,
			`ops account.limits a [{"n": 5, "per": 3600000000000, "unit": "requests"}]`,
		},
		{func() error { return b.db.SetLimits(ctx, "ops", "x", nil) }, unknown, ""},
		{func() error { return b.db.PauseAccount(ctx, "ops", "a") }, none, `ops account.pause a null`},
		{func() error { return b.db.PauseAccount(ctx, "ops", "x") }, unknown, ""},
		{func() error { return b.db.ResumeAccount(ctx, "ops", "a") }, none, `ops account.resume a null`},
		{func() error { return b.db.ResumeAccount(ctx, "ops", "x") }, unknown, ""},
		{
			func() error {
				return b.db.CreatePool(ctx, "ops", route.Pool{Name: "p", Overflow: route.Wait, Members: []route.Member{{Account: "a", Weight: 1}}})
			}, none,
			`ops pool.create p {"accounts": [{"weight": 1, "account": "a"}], "overflow": "wait"}`,
		},
		{func() error { return b.db.CreatePool(ctx, "ops", route.Pool{Name: "p", Overflow: route.Wait}) }, record.ErrConflict, ""},
		{func() error {
			return b.db.CreatePool(ctx, "ops", route.Pool{Name: "q", Overflow: route.Wait, Members: []route.Member{{Account: "x"}}})
		}, unknown, ""},
		{
			func() error {
				_, err := b.db.UpdatePool(ctx, "ops", route.Pool{Name: "p", Overflow: route.Spill}, 0)
				return err
			}, none,
			`ops pool.update p {"accounts": null, "overflow": "spill"}`,
		},
		{func() error {
			_, err := b.db.UpdatePool(ctx, "ops", route.Pool{Name: "x", Overflow: route.Spill}, 0)
			return err
		}, unknown, ""},
		{func() error {
			_, err := b.db.UpdatePool(ctx, "ops", route.Pool{Name: "p", Overflow: route.Spill}, 99)
			return err
		}, record.ErrStale, ""},
		{func() error {
			_, err := b.db.UpdatePool(ctx, "ops", route.Pool{Name: "p", Overflow: route.Spill, Members: []route.Member{{Account: "x"}}}, 0)
			return err
		}, unknown, ""},
		{
			func() (err error) {
				rule, err = b.db.CreateRule(ctx, "ops", route.Rule{Position: 1, Pool: "p"})
				return err
			}, none,
			`ops rule.create rules {"id": 0, "pool": "p", "position": 1}`,
		},
		{func() error { _, err := b.db.CreateRule(ctx, "ops", route.Rule{Pool: "x"}); return err }, unknown, ""},
		{func() error { return b.db.DeleteRule(ctx, "ops", rule.ID) }, none, `ops rule.delete 1 null`},
		{func() error { return b.db.DeleteRule(ctx, "ops", rule.ID) }, unknown, ""},
		{
			func() error { return b.db.SetRules(ctx, "ops", []route.Rule{{Position: 7, Pool: "p"}}) }, none,
			`ops rules.replace rules [{"id": 0, "pool": "p", "position": 7}]`,
		},
		{func() error { return b.db.SetRules(ctx, "ops", []route.Rule{{Pool: "p"}, {Pool: "x"}}) }, unknown, ""},
		{func() error { return b.db.CreateKey(ctx, "ops", key) }, none, `ops key.create 0011aabb {"name": "k", "scopes": ["send"], "tenant": 1, "networks": []}`},
		{func() error { return b.db.CreateKey(ctx, "ops", key) }, record.ErrConflict, ""},
		{func() error { k := key; k.ID, k.Tenant = "ffffffff", 77; return b.db.CreateKey(ctx, "ops", k) }, unknown, ""},
		{func() error { return b.db.RevokeKey(ctx, "ops", "0011aabb") }, none, `ops key.revoke 0011aabb null`},
		{func() error { return b.db.RevokeKey(ctx, "ops", "ffffffff") }, unknown, ""},
		{func() error {
			_, err := b.db.CreateTenant(ctx, "ops", record.Tenant{Name: "shop", Weight: 5})
			return err
		}, none, `ops tenant.create shop null`},
		{func() error {
			_, err := b.db.CreateTenant(ctx, "ops", record.Tenant{Name: "shop", Weight: 5})
			return err
		}, record.ErrConflict, ""},
		{func() error { return b.db.UpdateTenant(ctx, "ops", "shop", 9, true) }, none, `ops tenant.update shop {"paused": true, "weight": 9}`},
		{func() error { return b.db.UpdateTenant(ctx, "ops", "x", 9, true) }, unknown, ""},
		{func() error { return b.db.DeleteAccount(ctx, "ops", "a") }, none, `ops account.delete a null`},
		{func() error { return b.db.DeleteAccount(ctx, "ops", "a") }, unknown, ""},
	} {
		before, audit := b.version(t), b.lastAudit(t)
		err := tc.do()
		if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("after %q: got %v, want %v", audit, err, tc.want)
		}
		if tc.want != nil {
			if b.version(t) != before || b.lastAudit(t) != audit {
				t.Errorf("a refused change (%v) left its traces", err)
			}
			continue
		}
		if got := b.lastAudit(t); got != tc.audit {
			t.Errorf("audit says %s, want %s", got, tc.audit)
		}
		if v := b.version(t); v != before+1 {
			t.Errorf("%s: version %d after %d", tc.audit, v, before)
		}
	}
	if c := b.config(t); len(c.Rules) != 1 || c.Rules[0].Position != 7 || c.Pool("q") != nil {
		t.Errorf("a refused change left something: %+v", c)
	}
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
