package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/sendgate/sendgate/api"
)

type usersCmd struct {
	List     usersListCmd     `cmd:"" help:"List the people of the dashboard." example:"users list"`
	Show     usersShowCmd     `cmd:"" help:"Show one of them." example:"users show ann"`
	Create   usersCreateCmd   `cmd:"" help:"Add a person, and print the link to set a password with, once."`
	Role     usersRoleCmd     `cmd:"" help:"Change the role of a person, and sign the person out." example:"users role ann viewer"`
	Disable  usersDisableCmd  `cmd:"" help:"Let a person no longer sign in, and sign the person out at once." example:"users disable ann"`
	Enable   usersEnableCmd   `cmd:"" help:"Let a disabled person sign in again." example:"users enable ann"`
	Reset    usersResetCmd    `cmd:"" help:"End password, authenticator and sessions of a person, and print a link to set them anew." detail:"For somebody who has lost the authenticator, or whose computer was stolen." example:"users reset ann"`
	Sessions usersSessionsCmd `cmd:"" help:"List where a person is signed in." example:"users sessions ann"`
	SignOut  usersSignOutCmd  `cmd:"" help:"Sign a person out everywhere." example:"users sign-out ann"`
}

func userRows(w io.Writer, users ...api.User) {
	row(w, "NAME", "ROLE", "STATE", "RECOVERY CODES", "CREATED", "SIGNED IN")
	for _, u := range users {
		row(w, u.Name, u.Role, u.State, strconv.Itoa(u.RecoveryCodes), stamp(u.CreatedAt), stampOf(u.SignedInAt))
	}
}

// showUser prints a user, and the link that the user needs.
func showUser(s *Streams, f format, u *api.User) error {
	if u.Link != "" {
		t, err := s.target()
		if err != nil {
			return err
		}
		u.Link = t.adminURL + u.Link
	}
	err := f.show(s, u, func(w io.Writer) {
		if u.Link == "" {
			userRows(w, *u)
			return
		}
		row(w, "name", u.Name)
		row(w, "role", u.Role)
		row(w, "link", u.Link)
		row(w, "valid until", stampOf(u.LinkExpiresAt))
	})
	if err == nil && u.Link != "" && !f.JSON {
		fmt.Fprintln(s.Err, "Give the link to nobody but "+u.Name+": whoever opens it first sets the password. It works once and is not shown again.")
	}
	return err
}

type usersListCmd struct{ format }

// Run implements the command.
func (c *usersListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	users, err := client.Users(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.User]{Data: users}, func(w io.Writer) { userRows(w, users...) })
}

type usersShowCmd struct {
	Name string `arg:"" help:"User."`
	format
}

// Run implements the command.
func (c *usersShowCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	u, err := client.User(ctx, c.Name)
	if err != nil {
		return err
	}
	return showUser(s, c.format, u)
}

type usersCreateCmd struct {
	Name string `arg:"" help:"Name to sign in with: a-z, 0-9, '.', '_' and '-', at most 40."`
	Role string `enum:"viewer,support,operator,admin" default:"viewer" help:"What the person may do (${enum}): see below."`
	format
}

// Help implements kong.HelpProvider.
func (*usersCreateCmd) Help() string {
	return `The link is printed only this once and works once, within 24 hours. There the person sets a password and an authenticator (TOTP).

Roles; each may do all that the ones before it may do:

  viewer    read messages, statistics, accounts and the queue
  support   cancel and resend messages, change suppressions
  operator  change weights, rules, limits, pauses and webhook endpoints; see keys and the audit
  admin     change credentials, keys, tenants and users

Examples:

  sendgate users create ann --role admin
  sendgate users create bob --role support`
}

// Run implements the command.
func (c *usersCreateCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	u, err := client.CreateUser(ctx, api.UserRequest{Name: c.Name, Role: c.Role})
	if err != nil {
		return err
	}
	return showUser(s, c.format, u)
}

type usersRoleCmd struct {
	Name string `arg:"" help:"User."`
	Role string `arg:"" enum:"viewer,support,operator,admin" help:"The new role (${enum})."`
	format
}

// Run implements the command.
func (c *usersRoleCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	return patchUser(ctx, s, client, c.format, c.Name, api.UserPatch{Role: &c.Role})
}

type usersDisableCmd struct {
	Name string `arg:"" help:"User."`
	format
}

// Run implements the command.
func (c *usersDisableCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	disabled := true
	return patchUser(ctx, s, client, c.format, c.Name, api.UserPatch{Disabled: &disabled})
}

type usersEnableCmd struct {
	Name string `arg:"" help:"User."`
	format
}

// Run implements the command.
func (c *usersEnableCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	disabled := false
	return patchUser(ctx, s, client, c.format, c.Name, api.UserPatch{Disabled: &disabled})
}

func patchUser(ctx context.Context, s *Streams, client adminClient, f format, name string, p api.UserPatch) error {
	u, err := client.PatchUser(ctx, name, p)
	if err != nil {
		return err
	}
	return showUser(s, f, u)
}

type usersResetCmd struct {
	Name string `arg:"" help:"User."`
	format
}

// Run implements the command.
func (c *usersResetCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	u, err := client.ResetUser(ctx, c.Name)
	if err != nil {
		return err
	}
	return showUser(s, c.format, u)
}

type usersSessionsCmd struct {
	Name string `arg:"" help:"User."`
	format
}

// Run implements the command.
func (c *usersSessionsCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	sessions, err := client.UserSessions(ctx, c.Name)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.UserSession]{Data: sessions}, func(w io.Writer) {
		row(w, "FROM", "SIGNED IN", "LAST SEEN", "ENDS", "BROWSER")
		for _, v := range sessions {
			row(w, v.From, stamp(v.CreatedAt), stamp(v.SeenAt), stamp(v.ExpiresAt), v.Agent)
		}
	})
}

type usersSignOutCmd struct {
	Name string `arg:"" help:"User."`
	format
}

// Run implements the command.
func (c *usersSignOutCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	if err := client.EndUserSessions(ctx, c.Name); err != nil {
		return err
	}
	return c.show(s, map[string]string{"signed_out": c.Name}, func(w io.Writer) { row(w, "signed out", c.Name) })
}
