package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

type keysCmd struct {
	List   keysListCmd   `cmd:"" help:"List keys; secrets are not shown again."`
	Create keysCreateCmd `cmd:"" help:"Create a key and print its secret, once."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke a key at once."`

	Generate keysGenerateCmd `cmd:"" help:"Print a new key that no server knows yet, for SENDGATE_ADMIN_KEY."`
}

type keysListCmd struct{ format }

// Help implements kong.HelpProvider.
func (*keysListCmd) Help() string { return "Example:\n\n  sendgate keys list" }

// Run implements the command.
func (c *keysListCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	keys, err := client.Keys(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Key]{Data: keys}, func(w io.Writer) {
		row(w, "ID", "NAME", "TENANT", "SCOPES", "SENDERS", "STATE", "CREATED", "LAST USED")
		for _, k := range keys {
			row(w, k.ID, k.Name, k.Tenant, strings.Join(k.Scopes, ","), senders(k), keyState(k), stamp(k.CreatedAt), stampOf(k.LastUsedAt))
		}
	})
}

func senders(k api.Key) string {
	if len(k.SenderDomains) == 0 {
		return "any"
	}
	return strings.Join(k.SenderDomains, ",")
}

func keyState(k api.Key) string {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case k.ExpiresAt != nil && k.ExpiresAt.Before(time.Now()):
		return "expired"
	default:
		return "valid"
	}
}

type keysCreateCmd struct {
	Name    string        `arg:"" help:"Whose key it is, such as checkout-service."`
	Scope   []string      `default:"send" help:"What it may do (repeat, or with commas): see below."`
	Tenant  string        `help:"Owner; \"default\" when absent."`
	Sender  []string      `placeholder:"DOMAIN" help:"Only this sender domain (repeat); any when absent."`
	Rate    int           `help:"Calls per second at most; 0 is no bound."`
	Expires time.Duration `help:"Valid for this long; for ever when absent."`
	format
}

// Help implements kong.HelpProvider.
func (*keysCreateCmd) Help() string {
	return `The secret is printed this once; the server keeps only its hash.

Scopes:

  send                     send, cancel and resend; add suppressions
  messages:read, events:read, stats:read, suppressions:read, webhooks:read
  suppressions:write       add and remove suppressions
  suppressions:complaints  beside suppressions:write: remove those of people who complained, too
  webhooks:write           change webhook endpoints, which get the events
  admin:read, admin:write  look at the operators' side, and turn it; not to be joined with others
  read                     the first five that end in :read, in one word
  admin                    admin:read and admin:write, in one word

Examples:

  sendgate keys create checkout-service --scope send,read --sender example.com
  sendgate keys create preferences-page --scope suppressions:read,suppressions:write
  sendgate keys create grafana --scope admin:read
  sendgate keys create alice --scope admin --expires 720h`
}

// Run implements the command.
func (c *keysCreateCmd) Run(ctx context.Context, s *Streams) error {
	req := api.KeyRequest{Tenant: c.Tenant, Name: c.Name, Scopes: c.Scope, SenderDomains: c.Sender, RatePerSecond: c.Rate}
	if c.Expires < 0 {
		return usagef("--expires can't be negative")
	}
	if c.Expires > 0 {
		at := time.Now().Add(c.Expires).UTC().Truncate(time.Second)
		req.ExpiresAt = &at
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	k, err := client.CreateKey(ctx, req)
	if err != nil {
		return err
	}
	err = c.show(s, k, func(w io.Writer) {
		row(w, "id", k.ID)
		row(w, "secret", k.Secret)
		row(w, "scopes", strings.Join(k.Scopes, ","))
		row(w, "senders", senders(*k))
		if k.ExpiresAt != nil {
			row(w, "expires", stampOf(k.ExpiresAt))
		}
	})
	if err == nil && !c.JSON {
		fmt.Fprintln(s.Err, "Keep the secret now: it is not shown again.")
	}
	return err
}

type keysRevokeCmd struct {
	ID string `arg:"" help:"Id of the key, from keys list."`
	format
}

// Help implements kong.HelpProvider.
func (*keysRevokeCmd) Help() string { return "Example:\n\n  sendgate keys revoke 1f0c9a2b" }

// Run implements the command.
func (c *keysRevokeCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	if err := client.RevokeKey(ctx, c.ID); err != nil {
		return err
	}
	return c.show(s, map[string]string{"revoked": c.ID}, func(w io.Writer) { row(w, "revoked", c.ID) })
}
