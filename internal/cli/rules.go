package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
)

type rulesCmd struct {
	List    rulesListCmd    `cmd:"" help:"List the rules in the order in which they are tried." example:"rules list"`
	Add     rulesAddCmd     `cmd:"" help:"Add a rule that sends matching messages to a pool."`
	Remove  rulesRemoveCmd  `cmd:"" help:"Remove a rule." example:"rules remove 3"`
	Replace rulesReplaceCmd `cmd:"" help:"Replace all rules at once."`
}

type rulesListCmd struct{ format }

// Run implements the command.
func (c *rulesListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	rules, err := client.Rules(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Rule]{Data: rules}, func(w io.Writer) { ruleRows(w, rules...) })
}

func ruleRows(w io.Writer, rules ...api.Rule) {
	head(w, "ID", "POSITION", "MATCHES", "POOL")
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
	Pool            string `arg:"" help:"Pool for the messages that match."`
	Position        int    `help:"Position in the order: rules with lower positions are tried first."`
	Stream          string `help:"Messages of this stream."`
	Tag             string `help:"Messages with this tag."`
	SenderDomain    string `placeholder:"DOMAIN" help:"Messages from this domain."`
	RecipientDomain string `placeholder:"DOMAIN" help:"Messages whose recipients are all in this domain."`
	format
}

// Help implements kong.HelpProvider.
func (*rulesAddCmd) Help() string {
	return `A message goes to the pool of the first rule whose conditions all match, or else to the pool "default". A new rule also applies
to messages that already wait.

Examples:

  sendgate rules add bulk --stream marketing
  sendgate rules add inhouse --recipient-domain example.com --position 1`
}

// Run implements the command.
func (c *rulesAddCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
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

// Run implements the command.
func (c *rulesRemoveCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	if err := client.DeleteRule(ctx, c.ID); err != nil {
		return err
	}
	return c.show(s, map[string]int64{"removed": c.ID}, func(w io.Writer) { row(w, "removed", strconv.FormatInt(c.ID, 10)) })
}

type rulesReplaceCmd struct {
	File string `arg:"" help:"File with the rules in the form that rules list --json prints; \"-\" reads standard input."`
	format
}

// Help implements kong.HelpProvider.
func (*rulesReplaceCmd) Help() string {
	return `All rules are replaced in one step, so no message is routed by half of a change. They get new ids. An empty list removes all rules.

Examples:

  sendgate rules list --json > rules.json
  sendgate rules replace rules.json`
}

// Run implements the command.
func (c *rulesReplaceCmd) Run(ctx context.Context, s *Streams) error {
	raw, err := readInput(s, c.File)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	var list struct {
		Data *[]api.Rule `json:"data"`
	}
	if err := json.Unmarshal(raw, &list); err != nil || list.Data == nil {
		return usagef(`%s must have the form {"data": [...]}, as rules list --json prints it`, c.File)
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	rules, err := client.ReplaceRules(ctx, *list.Data)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Rule]{Data: rules}, func(w io.Writer) { ruleRows(w, rules...) })
}
