package httpapi

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// fakeUsers are the users of fakeStore. One without a link has a password.
type fakeUsers struct {
	users []fakeUser
}

type fakeUser struct {
	record.User
	link     string // hash of its token, in hex
	sessions int
}

func (f *fakeStore) user(name string) *fakeUser {
	i := slices.IndexFunc(f.users, func(u fakeUser) bool { return u.Name == name })
	if i < 0 {
		return &fakeUser{}
	}
	return &f.users[i]
}

// onUser changes one user.
func (f *fakeStore) onUser(ctx context.Context, method, actor, action, name string, do func(*fakeUser)) error {
	return f.act(ctx, method, func() error {
		u := f.user(name)
		if u.Name == "" {
			return record.ErrNotFound
		}
		do(u)
		f.note(actor, action, name)
		return nil
	})
}

func (f *fakeStore) Users(ctx context.Context) ([]record.User, error) {
	return ask(ctx, f, "Users", func() (out []record.User, err error) {
		for _, u := range f.users {
			out = append(out, u.User)
		}
		slices.SortFunc(out, func(a, b record.User) int { return strings.Compare(a.Name, b.Name) })
		return out, nil
	})
}

func (f *fakeStore) User(ctx context.Context, name string) (record.User, error) {
	return ask(ctx, f, "User", func() (record.User, error) {
		u := f.user(name)
		if u.Name == "" {
			return record.User{}, record.ErrNotFound
		}
		return u.User, nil
	})
}

func (f *fakeStore) CreateUser(ctx context.Context, actor, name string, role record.Role, link []byte) error {
	return f.act(ctx, "CreateUser", func() error {
		if f.user(name).Name != "" {
			return record.ErrConflict
		}
		f.users = append(f.users, fakeUser{User: record.User{Name: name, Role: role, CreatedAt: f.at}, link: hex.EncodeToString(link)})
		f.note(actor, "user.create", name)
		return nil
	})
}

func (f *fakeStore) SetUser(ctx context.Context, actor, name string, role *record.Role, disabled *bool) error {
	return f.onUser(ctx, "SetUser", actor, "user.update", name, func(u *fakeUser) {
		if role != nil {
			u.Role = *role
		}
		if disabled != nil {
			u.DisabledAt = time.Time{}
			if *disabled {
				u.DisabledAt = f.at
			}
		}
		u.sessions = 0
	})
}

func (f *fakeStore) ResetUser(ctx context.Context, actor, name string, link []byte) error {
	return f.onUser(ctx, "ResetUser", actor, "user.reset", name, func(u *fakeUser) {
		u.link, u.sessions, u.Ready = hex.EncodeToString(link), 0, false
	})
}

func (f *fakeStore) UserSessions(ctx context.Context, name string) ([]record.Session, error) {
	return ask(ctx, f, "UserSessions", func() ([]record.Session, error) {
		u := f.user(name)
		if u.Name == "" {
			return nil, record.ErrNotFound
		}
		return slices.Repeat([]record.Session{{
			ID: "3f9a1c0b", User: name, Role: u.Role, From: netip.MustParsePrefix("192.0.2.7/32"), Agent: "test", CreatedAt: f.at, SeenAt: f.at, ExpiresAt: f.at.Add(time.Hour),
		}}, u.sessions), nil
	})
}

func (f *fakeStore) EndUserSessions(ctx context.Context, actor, name, _ string) error {
	return f.onUser(ctx, "EndUserSessions", actor, "session.end", name, func(u *fakeUser) { u.sessions = 0 })
}
