package cli

import (
	"context"
	"io"

	"github.com/sendgate/sendgate/api"
)

type providersPauseCmd struct {
	Name string `arg:"" help:"Account."`
	format
}

// Run implements the command.
func (c *providersPauseCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	a, err := client.PauseAccount(ctx, c.Name)
	if err != nil {
		return err
	}
	return showAccount(s, c.format, a)
}

type providersResumeCmd struct {
	Name string `arg:"" help:"Account."`
	format
}

// Run implements the command.
func (c *providersResumeCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	a, err := client.ResumeAccount(ctx, c.Name)
	if err != nil {
		return err
	}
	return showAccount(s, c.format, a)
}

type providersRemoveCmd struct {
	Name string `arg:"" help:"Account."`
	format
}

// Run implements the command.
func (c *providersRemoveCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	if err := client.DeleteAccount(ctx, c.Name); err != nil {
		return err
	}
	return c.show(s, map[string]string{"removed": c.Name}, func(w io.Writer) {
		row(w, "removed", c.Name+" (it first finishes its calls)")
	})
}

type providersLimitsCmd struct {
	Name string   `arg:"" help:"Account."`
	Set  []string `sep:"none" xor:"what" placeholder:"N/PER/UNIT" help:"Replace all limits by these (repeat)."`
	None bool     `xor:"what" help:"Remove all limits: only the provider's own answers then slow down sending."`
	format
}

// Help implements kong.HelpProvider.
func (*providersLimitsCmd) Help() string {
	return `UNIT is the unit that the provider counts: requests, messages or recipients. PER is a time from 1s to 744h.

Examples:

  sendgate providers limits ses
  sendgate providers limits ses --set 50/1s/requests --set 100000/24h/recipients`
}

// Run implements the command.
func (c *providersLimitsCmd) Run(ctx context.Context, s *Streams) error {
	wanted, err := parseLimits(c.Set)
	if err != nil {
		return err
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	limits, err := c.apply(ctx, client, wanted)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.Out, limits)
	}
	windows, err := client.Limits(ctx)
	if err != nil {
		return err
	}
	return c.show(s, nil, func(w io.Writer) {
		head(w, "LIMIT", "LEFT", "BLOCKED UNTIL")
		for _, l := range limits.Limits {
			left, blocked := windowState(windows, c.Name, l)
			row(w, limitText(l), left, blocked)
		}
		for _, l := range limits.Documented {
			row(w, "documented: "+limitText(l))
		}
	})
}

// apply replaces the limits, or reads them when nothing is to change.
func (c *providersLimitsCmd) apply(ctx context.Context, client adminClient, wanted []api.Limit) (*api.AccountLimits, error) {
	switch {
	case len(wanted) > 0:
		return client.SetLimits(ctx, c.Name, wanted)
	case c.None:
		return client.SetLimits(ctx, c.Name, nil)
	default:
		return client.AccountLimits(ctx, c.Name)
	}
}
