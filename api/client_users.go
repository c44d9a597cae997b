package api

import (
	"context"
	"net/http"
	"net/url"
)

func userPath(name string) string { return admin + "/users/" + url.PathEscape(name) }

// Users lists the users of the dashboard by name.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	return list[User](ctx, c, admin+"/users")
}

// User returns one user.
func (c *Client) User(ctx context.Context, name string) (*User, error) {
	return get[User](ctx, c, userPath(name), nil)
}

// CreateUser adds a user. The link in the answer is not shown again.
func (c *Client) CreateUser(ctx context.Context, u UserRequest) (*User, error) {
	return into[User](ctx, c, call{method: http.MethodPost, path: admin + "/users", body: u})
}

// PatchUser changes the role of a user, or whether the user may sign in.
func (c *Client) PatchUser(ctx context.Context, name string, p UserPatch) (*User, error) {
	return into[User](ctx, c, call{method: http.MethodPatch, path: userPath(name), body: p})
}

// ResetUser ends password, authenticator, recovery codes and sessions of a user, and returns a link to set them anew.
func (c *Client) ResetUser(ctx context.Context, name string) (*User, error) {
	return into[User](ctx, c, call{method: http.MethodPost, path: userPath(name) + "/reset"})
}

// UserSessions lists the sessions of a user, newest first.
func (c *Client) UserSessions(ctx context.Context, name string) ([]UserSession, error) {
	return list[UserSession](ctx, c, userPath(name)+"/sessions")
}

// EndUserSessions signs a user out everywhere.
func (c *Client) EndUserSessions(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: userPath(name) + "/sessions"})
}
