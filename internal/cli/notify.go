package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/sendgate/sendgate/api"
)

type notifyCmd struct {
	List      notifyListCmd      `cmd:"" help:"List the rules that say who is told of incidents." example:"notify list"`
	Add       notifyAddCmd       `cmd:"" help:"Have incidents told by webhook, to Slack or by mail."`
	Remove    notifyRemoveCmd    `cmd:"" help:"Remove a rule." example:"notify remove night-shift"`
	Test      notifyTestCmd      `cmd:"" help:"Tell an example by a rule now." detail:"The exit code is 1 if that did not work." example:"notify test night-shift"`
	Incidents notifyIncidentsCmd `cmd:"" help:"List the incidents that last, and the newest that have ended." example:"notify incidents"`
}

type notifyListCmd struct{ format }

// Run implements the command.
func (c *notifyListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	rules, err := client.NotifyRules(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.NotifyRule]{Data: rules}, func(w io.Writer) { notifyRows(w, rules...) })
}

func notifyRows(w io.Writer, rules ...api.NotifyRule) {
	head(w, "NAME", "CHANNEL", "TO", "KINDS", "LAST TOLD", "LAST ERROR")
	for _, r := range rules {
		to := r.URL
		if r.Channel == "mail" {
			to = strings.Join(r.To, ",")
		}
		row(w, r.Name, r.Channel, shorten(to, 60), allOr(r.Kinds), stampOf(r.LastToldAt), orDash(shorten(r.LastError, 60)))
	}
}

type notifyAddCmd struct {
	Name    string   `arg:"" help:"Name of the rule, such as night-shift."`
	Webhook string   `xor:"channel" placeholder:"URL" help:"POST incidents to this URL, with the signature of Standard Webhooks."`
	Slack   string   `xor:"channel" placeholder:"SOURCE" help:"POST them to an incoming webhook of Slack, or of a service that takes the same: @FILE or env:VAR holds its URL, which is a secret."`
	Mail    []string `xor:"channel" placeholder:"ADDRESS" help:"Mail them to this address (repeat)."`
	From    string   `placeholder:"ADDRESS" help:"Sender of these mails. Several accounts must be able to send from it."`
	Kind    []string `help:"Only incidents of these kinds (repeat, or with commas): see below."`
	format
}

// Help implements kong.HelpProvider.
func (*notifyAddCmd) Help() string {
	return `Each incident is told once, and so is its end. A mail goes through another account than the one that the incident is about.
The secret that webhooks are signed with is printed only this once.

Kinds:

  provider_down        most calls of an account fail
  auth_failure         a provider refuses an account: its key, or its credits
  sender_parked        a provider refuses a sender of an account
  unknown_growing      many calls end without a clear answer
  queue_age            a message waits for more than 5 minutes
  webhooks_silent      an account sends, and its provider reports nothing
  quota_near           90 % of a limit of an hour or longer are used
  bounce_rate          1 % of the recipients of a day bounced
  complaint_rate, complaint_rate_high   0.1 % and 0.3 % of them complained
  books                the books do not balance

Examples:

  sendgate notify add pager --webhook https://ops.example.com/sendgate
  sendgate notify add chat --slack env:SLACK_URL --kind provider_down,auth_failure
  sendgate notify add night-shift --mail ops@example.com --from sendgate@example.com`
}

// Run implements the command.
func (c *notifyAddCmd) Run(ctx context.Context, s *Streams) error {
	req := api.NotifyRuleRequest{Name: c.Name, Kinds: c.Kind, From: c.From, To: c.Mail, URL: c.Webhook}
	switch {
	case c.Webhook != "":
		req.Channel = "webhook"
	case c.Slack != "":
		value, err := readSecret(ctx, s, "--slack", "URL", c.Slack, true)
		if err != nil {
			return err
		}
		req.Channel, req.URL = "slack", strings.TrimSpace(value)
	case len(c.Mail) > 0:
		req.Channel = "mail"
	default:
		return usagef("say how to tell: give --webhook, --slack or --mail")
	}
	if (req.Channel == "mail") != (c.From != "") {
		return usagef("--from belongs to --mail, and --mail needs it")
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	r, err := client.CreateNotifyRule(ctx, req)
	if err != nil {
		return err
	}
	return c.show(s, r, func(w io.Writer) {
		notifyRows(w, *r)
		if r.Secret != "" {
			row(w)
			row(w, "secret", r.Secret)
		}
	})
}

type notifyRemoveCmd struct {
	Name string `arg:"" help:"Name of the rule."`
	format
}

// Run implements the command.
func (c *notifyRemoveCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	if err := client.DeleteNotifyRule(ctx, c.Name); err != nil {
		return err
	}
	return c.show(s, map[string]string{"removed": c.Name}, func(w io.Writer) { row(w, "removed", c.Name) })
}

type notifyTestCmd struct {
	Name string `arg:"" help:"Name of the rule."`
	format
}

// Run implements the command.
func (c *notifyTestCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	result, err := client.TestNotifyRule(ctx, c.Name)
	if err != nil {
		return err
	}
	err = c.show(s, result, func(w io.Writer) {
		switch {
		case !result.Told:
			row(w, "not told", result.Error)
		case result.MessageID != "":
			row(w, "accepted as message", result.MessageID)
		default:
			row(w, "told")
		}
	})
	if err == nil && !result.Told {
		return fmt.Errorf("the rule did not work: %s", result.Error)
	}
	return err
}

type notifyIncidentsCmd struct{ format }

// Run implements the command.
func (c *notifyIncidentsCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	all, err := client.Incidents(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Incident]{Data: all}, func(w io.Writer) {
		head(w, "SINCE", "UNTIL", "KIND", "ACCOUNT", "ABOUT", "DETAIL")
		for _, in := range all {
			row(w, stamp(in.Since), stampOf(in.EndedAt), in.Kind, orDash(in.Account), orDash(in.Subject), orDash(shorten(in.Detail, 80)))
		}
	})
}
