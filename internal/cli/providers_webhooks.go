package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/sendgate/sendgate/api"
)

type providersWebhooksCmd struct {
	Name string `arg:"" help:"Account."`
	URL  string `placeholder:"https://..." help:"Base URL at which the provider reaches this service; registers a webhook there through the provider's API."`
	format
}

// Help implements kong.HelpProvider.
func (*providersWebhooksCmd) Help() string {
	return `Without --url it shows whether events of this account arrive. With --url it sets up the webhooks at the provider, stores their ` +
		`keys and passwords in the account, and lists the steps that you still have to do. It can be repeated. docs/webhooks.md lists the steps by hand for each provider.

Examples:

  sendgate providers webhooks mailgun
  sendgate providers webhooks mailgun --url https://send.example.com`
}

// Run implements the command.
func (c *providersWebhooksCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	if c.URL != "" {
		return c.register(ctx, s, client)
	}
	h, err := client.AccountWebhooks(ctx, c.Name)
	if err != nil {
		return err
	}
	return c.show(s, h, func(w io.Writer) {
		row(w, "account", h.Account)
		row(w, "state", receiverState(h))
		row(w, "path", h.Path)
		row(w, "events", fmt.Sprintf("%d, the last %s", h.Events, stampOf(h.LastEventAt)))
		row(w, "refused", fmt.Sprintf("%d, the last %s", h.Refused, stampOf(h.LastRefusedAt)))
		if h.LastRefusal != "" {
			row(w, "because of", h.LastRefusal)
		}
		row(w, "last sent", stampOf(h.LastSentAt))
		if h.LastEventAt == nil {
			row(w, "to set up", s.program()+" providers webhooks "+h.Account+" --url https://...")
		}
	})
}

// receiverState returns one phrase that says whether events arrive.
func receiverState(h *api.AccountWebhooks) string {
	switch {
	case h.Silent:
		return "silent: it has sent mail, but no event has come for an hour"
	case h.LastEventAt == nil && h.Refused > 0:
		return "every request was refused"
	case h.LastEventAt == nil:
		return "no event has come yet"
	case h.LastRefusedAt != nil && h.LastRefusedAt.After(*h.LastEventAt):
		return "the last request was refused"
	default:
		return "events arrive"
	}
}

func (c *providersWebhooksCmd) register(ctx context.Context, s *Streams, client adminClient) error {
	r, err := client.RegisterWebhooks(ctx, c.Name, api.AccountWebhooksRequest{URL: c.URL})
	if err != nil {
		return err
	}
	return c.show(s, r, func(w io.Writer) {
		row(w, "url", r.URL)
		for _, line := range r.Done {
			row(w, "done", line)
		}
		for _, line := range r.Steps {
			row(w, "to do", line)
		}
		if len(r.Done)+len(r.Steps) == 0 {
			row(w, "done", "nothing had to be changed")
		}
	})
}
