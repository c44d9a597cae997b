package httpapi

import (
	"context"
	"maps"
	"slices"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// The routing configuration of fakeStore. What Config gives is a copy: handlers may write into it.

func (f *fakeStore) Config(ctx context.Context) (*route.Config, error) {
	return ask(ctx, f, "Config", func() (*route.Config, error) {
		c := f.config
		c.Accounts, c.Pools, c.Rules = slices.Clone(c.Accounts), slices.Clone(c.Pools), slices.Clone(c.Rules)
		return &c, nil
	})
}

// change runs one change of the configuration.
func (f *fakeStore) change(ctx context.Context, method, actor, target string, do func() error) error {
	return f.act(ctx, method, func() error {
		if err := do(); err != nil {
			return err
		}
		f.config.Version++
		f.note(actor, method, target)
		return nil
	})
}

// onAccount changes one account.
func (f *fakeStore) onAccount(ctx context.Context, method, actor, name string, do func(*route.Account)) error {
	return f.change(ctx, method, actor, name, func() error {
		a := f.config.Account(name)
		if a == nil {
			return record.ErrNotFound
		}
		do(a)
		a.Version++
		return nil
	})
}

func (f *fakeStore) Secrets(ctx context.Context, id int32) (map[string]seal.Secret, error) {
	return ask(ctx, f, "Secrets", func() (map[string]seal.Secret, error) {
		i := slices.IndexFunc(f.config.Accounts, func(a route.Account) bool { return a.ID == id })
		return f.secrets[f.config.Accounts[i].Name], nil
	})
}

func (f *fakeStore) CreateAccount(ctx context.Context, actor string, a route.Account, s map[string]seal.Secret) error {
	return f.change(ctx, "CreateAccount", actor, a.Name, func() error {
		if f.config.Account(a.Name) != nil {
			return record.ErrConflict
		}
		a.ID, a.Version, a.CreatedAt, a.UpdatedAt = int32(len(f.config.Accounts)+1), 1, f.at, f.at
		f.secrets[a.Name] = map[string]seal.Secret{}
		f.config.Accounts = append(f.config.Accounts, a)
		f.keepSecrets(a.Name, s)
		return nil
	})
}

func (f *fakeStore) keepSecrets(account string, s map[string]seal.Secret) {
	maps.Copy(f.secrets[account], s)
	a := f.config.Account(account)
	a.Unreadable = slices.DeleteFunc(a.Unreadable, func(name string) bool { _, given := s[name]; return given })
	a.SecretFields = slices.Sorted(maps.Keys(f.secrets[account]))
}

func (f *fakeStore) UpdateAccount(ctx context.Context, actor string, n route.Account, s map[string]seal.Secret) error {
	return f.onAccount(ctx, "UpdateAccount", actor, n.Name, func(a *route.Account) {
		a.Settings, a.Concurrency, a.Parked = n.Settings, n.Concurrency, nil
		f.keepSecrets(n.Name, s)
	})
}

func (f *fakeStore) SetLimits(ctx context.Context, actor, account string, windows []limit.Window) error {
	return f.onAccount(ctx, "SetLimits", actor, account, func(a *route.Account) { a.Limits = windows })
}

func (f *fakeStore) PauseAccount(ctx context.Context, actor, account string) error {
	return f.onAccount(ctx, "PauseAccount", actor, account, func(a *route.Account) { a.Paused = true })
}

func (f *fakeStore) ResumeAccount(ctx context.Context, actor, account string) error {
	return f.onAccount(ctx, "ResumeAccount", actor, account, func(a *route.Account) { a.Paused, a.Parked = false, nil })
}

func (f *fakeStore) DeleteAccount(ctx context.Context, actor, account string) error {
	return f.onAccount(ctx, "DeleteAccount", actor, account, func(a *route.Account) {
		a.Draining = true
		for i := range f.config.Pools {
			p := &f.config.Pools[i]
			p.Members = slices.DeleteFunc(slices.Clone(p.Members), func(m route.Member) bool { return m.Account == account })
		}
	})
}

func (f *fakeStore) CreatePool(ctx context.Context, actor string, p route.Pool) error {
	return f.change(ctx, "CreatePool", actor, p.Name, func() error {
		if f.config.Pool(p.Name) != nil {
			return record.ErrConflict
		}
		p.Version = 1
		f.config.Pools = append(f.config.Pools, p)
		return nil
	})
}

func (f *fakeStore) UpdatePool(ctx context.Context, actor string, p route.Pool, ifVersion int64) (route.Pool, error) {
	err := f.change(ctx, "UpdatePool", actor, p.Name, func() error {
		have := f.config.Pool(p.Name)
		switch {
		case have == nil:
			return record.ErrNotFound
		case ifVersion != 0 && ifVersion != have.Version:
			return record.ErrStale
		}
		p.Version = have.Version + 1
		*have = p
		return nil
	})
	return p, err
}

func (f *fakeStore) SetRules(ctx context.Context, actor string, rules []route.Rule) error {
	return f.change(ctx, "SetRules", actor, "rules", func() error {
		f.config.Rules = nil
		for i, r := range rules {
			r.ID = int64(100 + i)
			f.config.Rules = append(f.config.Rules, r)
		}
		return nil
	})
}

func (f *fakeStore) CreateRule(ctx context.Context, actor string, r route.Rule) (route.Rule, error) {
	err := f.change(ctx, "CreateRule", actor, "rule", func() error {
		r.ID = int64(len(f.config.Rules) + 1)
		f.config.Rules = append(f.config.Rules, r)
		return nil
	})
	return r, err
}

func (f *fakeStore) DeleteRule(ctx context.Context, actor string, id int64) error {
	return f.change(ctx, "DeleteRule", actor, "rule", func() error {
		n := len(f.config.Rules)
		f.config.Rules = slices.DeleteFunc(f.config.Rules, func(r route.Rule) bool { return r.ID == id })
		if len(f.config.Rules) == n {
			return record.ErrNotFound
		}
		return nil
	})
}

// BulkCount implements BulkStore.
func (f *fakeStore) BulkCount(ctx context.Context, b record.Bulk) (int, error) {
	return ask(ctx, f, "BulkCount", func() (int, error) {
		f.bulks = append(f.bulks, b)
		return f.bulkMatches, nil
	})
}

// Bulk implements BulkStore: there are two pages.
func (f *fakeStore) Bulk(ctx context.Context, _ string, b record.Bulk) (record.BulkPage, error) {
	return ask(ctx, f, "Bulk", func() (record.BulkPage, error) {
		f.bulks = append(f.bulks, b)
		page := record.BulkPage{Done: 2, Skipped: 1}
		if b.After.IsZero() {
			page.Last = mail.IDAt(f.at)
		}
		return page, nil
	})
}
