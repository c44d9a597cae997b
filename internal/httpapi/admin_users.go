package httpapi

import (
	"context"
	"net/http"
	"slices"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// UserStore keeps the people who sign in at the dashboard. Their errors are those of Store.
type UserStore interface {
	Users(ctx context.Context) ([]record.User, error)
	User(ctx context.Context, name string) (record.User, error)
	// CreateUser stores a user without a password, and the hash of the token of a link to set one.
	CreateUser(ctx context.Context, actor, name string, role record.Role, link []byte) error
	// SetUser changes the role of a user, or whether the user may sign in, and ends the sessions of the user. nil leaves it.
	SetUser(ctx context.Context, actor, name string, role *record.Role, disabled *bool) error
	// ResetUser ends password, authenticator, recovery codes, links and sessions of a user, and stores a new link.
	ResetUser(ctx context.Context, actor, name string, link []byte) error
	UserSessions(ctx context.Context, name string) ([]record.Session, error)
	// EndUserSessions ends one session of a user, or with an empty id all of them.
	EndUserSessions(ctx context.Context, actor, name, id string) error
}

const noUser = "There is no such user."

func (s *Server) listUsers(r *http.Request) (api.List[api.User], error) {
	users, err := s.store.Users(r.Context())
	return listView(users, userView), err
}

func (s *Server) getUser(r *http.Request) (out api.User, err error) {
	u, err := s.store.User(r.Context(), pathParam(r, "user"))
	return userView(&u), missing(err, noUser)
}

func (s *Server) createUser(r *http.Request, in api.UserRequest) (out api.User, err error) {
	var bad complaints
	if !record.ValidUserName(in.Name) {
		bad.complain("name", "invalid_name", "must have 1 to 40 of a-z, 0-9, '.', '_' and '-', and begin with a letter")
	}
	role := roleOf(&bad, in.Role)
	if err := bad.err(); err != nil {
		return out, err
	}
	token, hash := record.NewToken()
	if err := s.store.CreateUser(r.Context(), principal(r).ID, in.Name, role, hash); err != nil {
		return out, conflict(err, "name_taken", "There is a user of that name.")
	}
	return s.invited(r.Context(), in.Name, token)
}

func (s *Server) patchUser(r *http.Request, in api.UserPatch) (out api.User, err error) {
	name := pathParam(r, "user")
	var role *record.Role
	if in.Role != nil {
		var bad complaints
		wanted := roleOf(&bad, *in.Role)
		if err := bad.err(); err != nil {
			return out, err
		}
		role = &wanted
	}
	if role != nil || in.Disabled != nil {
		if err := s.store.SetUser(r.Context(), principal(r).ID, name, role, in.Disabled); err != nil {
			return out, missing(err, noUser)
		}
	}
	u, err := s.store.User(r.Context(), name)
	return userView(&u), missing(err, noUser)
}

func (s *Server) resetUser(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	name := pathParam(r, "user")
	token, hash := record.NewToken()
	if err := s.store.ResetUser(r.Context(), principal(r).ID, name, hash); err != nil {
		return missing(err, noUser)
	}
	out, err := s.invited(r.Context(), name, token)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, out)
}

// invited returns a user with the link that was just stored. The token is the fragment of the URL, which browsers send to no
// server, so that no log and no Referer has it.
func (s *Server) invited(ctx context.Context, name, token string) (out api.User, err error) {
	u, err := s.store.User(ctx, name)
	if err != nil {
		return out, afterStore(err)
	}
	out = userView(&u)
	expires := s.clock().UTC().Add(record.LinkLife)
	out.Link, out.LinkExpiresAt = record.WelcomePath+"#"+token, &expires
	return out, nil
}

func (s *Server) listUserSessions(r *http.Request) (api.List[api.UserSession], error) {
	sessions, err := s.store.UserSessions(r.Context(), pathParam(r, "user"))
	return listView(sessions, func(v *record.Session) api.UserSession {
		return api.UserSession{ID: v.ID, From: v.From.String(), Agent: v.Agent, CreatedAt: v.CreatedAt, SeenAt: v.SeenAt, ExpiresAt: v.ExpiresAt}
	}), missing(err, noUser)
}

func (s *Server) endUserSessions(r *http.Request) error {
	return missing(s.store.EndUserSessions(r.Context(), principal(r).ID, pathParam(r, "user"), ""), noUser)
}

func roleOf(bad *complaints, name string) record.Role {
	role := record.Role(name)
	if !slices.Contains(record.Roles(), role) {
		bad.complain("role", "invalid_role", "must be viewer, support, operator or admin")
	}
	return role
}

func userView(u *record.User) api.User {
	state := "invited"
	switch {
	case !u.DisabledAt.IsZero():
		state = "disabled"
	case u.Ready:
		state = "active"
	}
	return api.User{
		Name: u.Name, Role: string(u.Role), State: state, RecoveryCodes: u.Codes, CreatedAt: u.CreatedAt, SignedInAt: optional(u.SignedInAt),
	}
}
