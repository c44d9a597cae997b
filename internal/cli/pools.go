package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
)

type poolsCmd struct {
	List   poolsListCmd   `cmd:"" help:"List pools with their weights and shares." example:"pools list"`
	Show   poolsShowCmd   `cmd:"" help:"Show one pool." example:"pools show default"`
	Create poolsCreateCmd `cmd:"" help:"Create a pool."`
	Set    poolsSetCmd    `cmd:"" help:"Change weights, add and remove accounts, change the overflow rule."`
}

type poolsListCmd struct{ format }

// Run implements the command.
func (c *poolsListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	pools, err := client.Pools(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Pool]{Data: pools}, func(w io.Writer) {
		head(w, "POOL", "OVERFLOW", "ACCOUNT", "WEIGHT", "SHARE")
		for _, p := range pools {
			poolRows(w, p)
		}
	})
}

func poolRows(w io.Writer, p api.Pool) {
	if len(p.Accounts) == 0 {
		row(w, p.Name, p.Overflow, "(none)")
	}
	for _, m := range p.Accounts {
		row(w, p.Name, p.Overflow, m.Account, number(m.Weight), share(p.Accounts, m.Account))
	}
}

// share returns a member's part of the pool's mail while every account can take mail.
func share(members []api.PoolMember, account string) string {
	var sum, own float64
	for _, m := range members {
		sum += m.Weight
		if m.Account == account {
			own = m.Weight
		}
	}
	if sum == 0 {
		return "0%"
	}
	return strconv.FormatFloat(100*own/sum, 'f', 1, 64) + "%"
}

type poolsShowCmd struct {
	Name string `arg:"" help:"Pool."`
	format
}

// Run implements the command.
func (c *poolsShowCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	p, err := client.Pool(ctx, c.Name)
	if err != nil {
		return err
	}
	return showPool(s, c.format, p)
}

func showPool(s *Streams, f format, p *api.Pool) error {
	return f.show(s, p, func(w io.Writer) {
		head(w, "POOL", "OVERFLOW", "ACCOUNT", "WEIGHT", "SHARE")
		poolRows(w, *p)
	})
}

type poolsCreateCmd struct {
	Name     string   `arg:"" help:"Name of the new pool."`
	Weights  []string `arg:"" placeholder:"ACCOUNT=WEIGHT" help:"Its accounts; at least one needs a weight above 0."`
	Overflow string   `enum:"spill,wait" default:"spill" help:"If the chosen account has no free slot: spill to another account, or wait for it."`
	format
}

// Help implements kong.HelpProvider.
func (*poolsCreateCmd) Help() string {
	return `Mail goes to pool "default" until a rule (PUT /admin/v1/rules) sends some of it elsewhere.

Example:

  sendgate pools create bulk mailgun=80 ses=20 --overflow wait`
}

// Run implements the command.
func (c *poolsCreateCmd) Run(ctx context.Context, s *Streams) error {
	weights, err := parseWeights(c.Weights)
	if err != nil {
		return err
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	p, err := client.CreatePool(ctx, api.PoolRequest{Name: c.Name, Overflow: c.Overflow, Accounts: weights})
	if err != nil {
		return nameMembers(err, weights)
	}
	return showPool(s, c.format, p)
}

type poolsSetCmd struct {
	Name     string   `arg:"" help:"Pool."`
	Weights  []string `arg:"" optional:"" placeholder:"ACCOUNT=WEIGHT" help:"New weights. Accounts that are not named keep theirs; an account that is not in the pool is added."`
	Remove   []string `sep:"none" placeholder:"ACCOUNT" help:"Take this account out of the pool (repeat)."`
	Overflow string   `placeholder:"RULE" help:"If the chosen account has no free slot: spill to another account, or wait for it."`
	format
}

// Help implements kong.HelpProvider.
func (*poolsSetCmd) Help() string {
	return `An account with weight 0 gets no new mail; the backlog follows the new weights at once. Shows the shares before and after. If somebody else changed the ` +
		`pool at the same time, nothing is changed and the exit code is 1.

Examples:

  sendgate pools set default sendgrid=0 ses=70 postmark=30
  sendgate pools set default ses=1 --overflow wait
  sendgate pools set bulk --remove mailgun`
}

// Run implements the command.
func (c *poolsSetCmd) Run(ctx context.Context, s *Streams) error {
	weights, err := parseWeights(c.Weights)
	if err != nil {
		return err
	}
	if len(weights)+len(c.Remove) == 0 && c.Overflow == "" {
		return usagef("nothing to change: give ACCOUNT=WEIGHT, --remove or --overflow")
	}
	if c.Overflow != "" && c.Overflow != "spill" && c.Overflow != "wait" {
		return usagef("--overflow must be spill or wait, got %q (see sendgate pools set --help)", c.Overflow)
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	before, err := client.Pool(ctx, c.Name)
	if err != nil {
		return err
	}
	wanted, err := c.change(*before, weights)
	if err != nil {
		return err
	}
	after, err := client.PutPool(ctx, wanted) // carries before's version in If-Match
	if err != nil {
		return nameMembers(err, wanted.Accounts)
	}
	return c.show(s, after, func(w io.Writer) { poolChange(w, before, after) })
}

func parseWeights(list []string) ([]api.PoolMember, error) {
	var members []api.PoolMember
	for _, pair := range list {
		account, text, ok := strings.Cut(pair, "=")
		weight, err := strconv.ParseFloat(text, 64)
		if !ok || account == "" || err != nil || weight < 0 || weight > 1e6 || math.IsNaN(weight) {
			return nil, usagef("want ACCOUNT=WEIGHT with a weight of 0 to 1000000, got %q", pair)
		}
		members = append(members, api.PoolMember{Account: account, Weight: weight})
	}
	return members, nil
}

// nameMembers replaces the numbers of accounts in field errors by their names, since the user gave no numbers.
func nameMembers(err error, members []api.PoolMember) error {
	var problem *api.Problem
	if !errors.As(err, &problem) {
		return err
	}
	for i, f := range problem.Errors {
		var n int
		if _, scan := fmt.Sscanf(f.Field, "accounts[%d]", &n); scan == nil && n >= 0 && n < len(members) {
			problem.Errors[i].Field = "account " + members[n].Account
		}
	}
	return err
}

// change applies the flags to a copy of the pool.
func (c *poolsSetCmd) change(p api.Pool, weights []api.PoolMember) (api.Pool, error) {
	p.Accounts = append([]api.PoolMember(nil), p.Accounts...)
	if c.Overflow != "" {
		p.Overflow = c.Overflow
	}
	for _, name := range c.Remove {
		i := indexOf(p.Accounts, name)
		if i < 0 {
			return p, fmt.Errorf("account %s is not in pool %s", name, p.Name)
		}
		p.Accounts = append(p.Accounts[:i], p.Accounts[i+1:]...)
	}
	for _, m := range weights {
		if i := indexOf(p.Accounts, m.Account); i >= 0 {
			p.Accounts[i].Weight = m.Weight
			continue
		}
		p.Accounts = append(p.Accounts, m)
	}
	return p, nil
}

func indexOf(members []api.PoolMember, account string) int {
	for i, m := range members {
		if m.Account == account {
			return i
		}
	}
	return -1
}

// poolChange prints the weights and shares before and after a change.
func poolChange(w io.Writer, before, after *api.Pool) {
	head(w, "ACCOUNT", "WEIGHT", "SHARE", "WAS", "SHARE")
	for _, m := range after.Accounts {
		was, wasShare := "-", "-"
		if i := indexOf(before.Accounts, m.Account); i >= 0 {
			was, wasShare = number(before.Accounts[i].Weight), share(before.Accounts, m.Account)
		}
		row(w, m.Account, number(m.Weight), share(after.Accounts, m.Account), was, wasShare)
	}
	for _, m := range before.Accounts {
		if indexOf(after.Accounts, m.Account) < 0 {
			row(w, m.Account, "removed", "-", number(m.Weight), share(before.Accounts, m.Account))
		}
	}
	if before.Overflow != after.Overflow {
		row(w, "overflow", after.Overflow, "", before.Overflow)
	}
}
