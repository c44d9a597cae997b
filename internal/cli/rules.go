package cli

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
)

type rulesCmd struct {
	List   rulesListCmd   `cmd:"" help:"List the rules in the order in which they are tried."`
	Add    rulesAddCmd    `cmd:"" help:"Send what matches to a pool."`
	Remove rulesRemoveCmd `cmd:"" help:"Remove a rule."`
}

type rulesListCmd struct{ format }

// Help implements kong.HelpProvider.
func (*rulesListCmd) Help() string { return "Example:\n\n  sendgate rules list" }

// Run implements the command.
func (c *rulesListCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	rules, err := client.Rules(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Rule]{Data: rules}, func(w io.Writer) { ruleRows(w, rules...) })
}

func ruleRows(w io.Writer, rules ...api.Rule) {
	row(w, "ID", "POSITION", "MATCHES", "POOL")
	for _, r := range rules {
		row(w, strconv.FormatInt(r.ID, 10), strconv.Itoa(r.Position), condition(r), r.Pool)
	}
}

// condition says what a rule matches.
func condition(r api.Rule) string {
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"stream", r.Stream}, {"tag", r.Tag}, {"sender domain", r.SenderDomain}, {"recipient domain", r.RecipientDomain},
	} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, " and ")
}

type rulesAddCmd struct {
	Pool            string `arg:"" help:"Pool that takes what matches."`
	Position        int    `help:"Place in the order: lower ones are tried first."`
	Stream          string `help:"Messages of this stream."`
	Tag             string `help:"Messages with this tag."`
	SenderDomain    string `placeholder:"DOMAIN" help:"Messages from this domain."`
	RecipientDomain string `placeholder:"DOMAIN" help:"Messages of which all recipients are in this domain."`
	format
}

// Help implements kong.HelpProvider.
func (*rulesAddCmd) Help() string {
	return `A message goes to the pool of the first rule of which everything matches, else to the pool "default". Messages that wait
follow a new rule as well.

Examples:

  sendgate rules add bulk --stream marketing
  sendgate rules add inhouse --recipient-domain example.com --position 1`
}

// Run implements the command.
func (c *rulesAddCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	r, err := client.CreateRule(ctx, api.Rule{
		Position: c.Position, Stream: c.Stream, Tag: c.Tag, SenderDomain: c.SenderDomain, RecipientDomain: c.RecipientDomain, Pool: c.Pool,
	})
	if err != nil {
		return err
	}
	return c.show(s, r, func(w io.Writer) { ruleRows(w, *r) })
}

type rulesRemoveCmd struct {
	ID int64 `arg:"" help:"Id of the rule, from rules list."`
	format
}

// Help implements kong.HelpProvider.
func (*rulesRemoveCmd) Help() string { return "Example:\n\n  sendgate rules remove 3" }

// Run implements the command.
func (c *rulesRemoveCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	if err := client.DeleteRule(ctx, c.ID); err != nil {
		return err
	}
	return c.show(s, map[string]int64{"removed": c.ID}, func(w io.Writer) { row(w, "removed", strconv.FormatInt(c.ID, 10)) })
}
