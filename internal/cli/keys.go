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
	List   keysListCmd   `cmd:"" help:"List keys; secrets are not shown again." example:"keys list"`
	Create keysCreateCmd `cmd:"" help:"Create a key and print its secret, once."`
	Change keysChangeCmd `cmd:"" help:"Change the networks of a key."`
	Rotate keysRotateCmd `cmd:"" help:"Replace a key by one with the same rights, and print its secret, once."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke a key at once." example:"keys revoke 1f0c9a2b"`

	Generate keysGenerateCmd `cmd:"" help:"Print a new key that no server knows yet, for SENDGATE_ADMIN_KEY."`
}

type keysListCmd struct{ format }

// Run implements the command.
func (c *keysListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	keys, err := client.Keys(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Key]{Data: keys}, func(w io.Writer) {
		row(w, "ID", "NAME", "TENANT", "SCOPES", "SENDERS", "NETWORKS", "STATE", "CREATED", "LAST USED")
		for _, k := range keys {
			row(w, k.ID, k.Name, k.Tenant, strings.Join(k.Scopes, ","), senders(k), networks(k), keyState(k), stamp(k.CreatedAt), stampOf(k.LastUsedAt))
		}
	})
}

func senders(k api.Key) string {
	if len(k.SenderDomains) == 0 {
		return "any"
	}
	return strings.Join(k.SenderDomains, ",")
}

func networks(k api.Key) string {
	if len(k.Networks) == 0 {
		return "any"
	}
	return strings.Join(k.Networks, ",")
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
	Scope   []string      `default:"send" help:"What the key may do (repeat, or with commas): see below."`
	Tenant  string        `help:"Owner; \"default\" when absent."`
	Sender  []string      `placeholder:"DOMAIN" help:"Only this sender domain (repeat); any when absent."`
	Network []string      `placeholder:"CIDR" help:"Only from this network, of IPv4 or IPv6 (repeat); from anywhere when absent."`
	Rate    int           `help:"At most this many calls per second; 0 means no limit."`
	Expires time.Duration `help:"How long the key is valid; for ever when absent."`
	format
}

// Help implements kong.HelpProvider.
func (*keysCreateCmd) Help() string {
	return `The secret is printed only this once; the server stores its hash.

Scopes:

  send                     send, cancel and resend; add suppressions
  messages:read, events:read, stats:read, suppressions:read, webhooks:read
  suppressions:write       add and remove suppressions
  suppressions:complaints  with suppressions:write: also remove suppressions of people who complained
  webhooks:write           change webhook endpoints, which get the events
  routing:read             read accounts, pools, rules, limits and the queue
  routing:write            change pools, rules and limits, and pause accounts
  admin:read, admin:write  read and change everything under /admin/v1
  read                     messages:read, events:read, stats:read, suppressions:read and webhooks:read
  admin                    admin:read and admin:write

The scopes of routing and admin can't be combined with others.

Examples:

  sendgate keys create checkout-service --scope send,read --sender example.com
  sendgate keys create billing --network 10.20.0.0/16 --network 2001:db8:20::/48
  sendgate keys create preferences-page --scope suppressions:read,suppressions:write
  sendgate keys create grafana --scope admin:read
  sendgate keys create alice --scope admin --expires 720h`
}

// Run implements the command.
func (c *keysCreateCmd) Run(ctx context.Context, s *Streams) error {
	req := api.KeyRequest{Tenant: c.Tenant, Name: c.Name, Scopes: c.Scope, SenderDomains: c.Sender, Networks: c.Network, RatePerSecond: c.Rate}
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
	return showKey(s, c.format, k)
}

// showKey prints a key, with its secret if it is new.
func showKey(s *Streams, f format, k *api.Key) error {
	err := f.show(s, k, func(w io.Writer) {
		row(w, "id", k.ID)
		if k.Secret != "" {
			row(w, "secret", k.Secret)
		}
		row(w, "scopes", strings.Join(k.Scopes, ","))
		row(w, "senders", senders(*k))
		row(w, "networks", networks(*k))
		if k.ExpiresAt != nil {
			row(w, "expires", stampOf(k.ExpiresAt))
		}
	})
	if err == nil && k.Secret != "" && !f.JSON {
		fmt.Fprintln(s.Err, "Keep the secret now: it is not shown again.")
	}
	return err
}

type keysChangeCmd struct {
	ID       string   `arg:"" help:"Id of the key, from keys list."`
	Network  []string `placeholder:"CIDR" xor:"from" required:"" help:"Accept the key only from this network (repeat); this replaces its networks."`
	Anywhere bool     `xor:"from" required:"" help:"Accept the key from anywhere."`
	format
}

// Help implements kong.HelpProvider.
func (*keysChangeCmd) Help() string {
	return `The change takes effect everywhere within two seconds.

Examples:

  sendgate keys change 1f0c9a2b --network 10.20.4.0/24 --network 2001:db8:20::/48
  sendgate keys change 1f0c9a2b --anywhere`
}

// Run implements the command.
func (c *keysChangeCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	list := append([]string{}, c.Network...)
	k, err := client.PatchKey(ctx, c.ID, api.KeyPatch{Networks: &list})
	if err != nil {
		return err
	}
	return showKey(s, c.format, k)
}

type keysRotateCmd struct {
	ID      string        `arg:"" help:"Id of the key, from keys list."`
	Overlap time.Duration `default:"24h" help:"How long the old key still works, up to 168h; 0 ends it at once."`
	format
}

// Help implements kong.HelpProvider.
func (*keysRotateCmd) Help() string {
	return `The new key has the scopes, senders, networks, rate and expiry of the old one.

Examples:

  sendgate keys rotate 1f0c9a2b
  sendgate keys rotate 1f0c9a2b --overlap 0s`
}

// Validate implements kong's check of a command.
func (c *keysRotateCmd) Validate() error { return checkOverlap(c.Overlap) }

// Run implements the command.
func (c *keysRotateCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	seconds := int(c.Overlap / time.Second)
	k, err := client.RotateKey(ctx, c.ID, api.KeyRotateRequest{OverlapSeconds: &seconds})
	if err != nil {
		return err
	}
	return showKey(s, c.format, k)
}

type keysRevokeCmd struct {
	ID string `arg:"" help:"Id of the key, from keys list."`
	format
}

// Run implements the command.
func (c *keysRevokeCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	if err := client.RevokeKey(ctx, c.ID); err != nil {
		return err
	}
	return c.show(s, map[string]string{"revoked": c.ID}, func(w io.Writer) { row(w, "revoked", c.ID) })
}
