package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/api"
)

// maxOverlap is how long an old secret or key may stay valid.
const maxOverlap = 7 * 24 * time.Hour

type webhooksRotateCmd struct {
	ID      string        `arg:"" help:"Id of the endpoint, from webhooks list."`
	Overlap time.Duration `default:"24h" help:"For this long events are signed with the old secret as well, up to 168h; 0 ends it at once."`
	format
}

// Help implements kong.HelpProvider.
func (*webhooksRotateCmd) Help() string {
	return `During the overlap each event carries two signatures, so that the receiver can change its secret at any moment of it.

Examples:

  sendgate webhooks rotate 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f
  sendgate webhooks rotate 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --overlap 0s`
}

// Run implements the command.
func (c *webhooksRotateCmd) Run(ctx context.Context, s *Streams) error {
	if c.Overlap < 0 || c.Overlap > maxOverlap {
		return usagef("--overlap must be 0s to 168h, got %s", c.Overlap)
	}
	client, err := s.caller()
	if err != nil {
		return err
	}
	seconds := int(c.Overlap / time.Second)
	e, err := client.RotateWebhookEndpoint(ctx, c.ID, api.WebhookRotateRequest{OverlapSeconds: &seconds})
	if err != nil {
		return err
	}
	return showSecret(s, c.format, e)
}

type webhooksReplayCmd struct {
	ID    string    `arg:"" help:"Id of the endpoint, from webhooks list."`
	Since time.Time `required:"" help:"Events received at or after this time."`
	Until time.Time `help:"Events received before this time; now when absent."`
	format
}

// Help implements kong.HelpProvider.
func (*webhooksReplayCmd) Help() string {
	return `Queues what the endpoint's filter takes, under the ids that the events had before: a receiver that remembers webhook-id takes each once.

Examples:

  sendgate webhooks replay 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --since 2026-01-31T12:00:00Z
  sendgate webhooks replay 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --since 2026-01-31T12:00:00Z --until 2026-01-31T14:00:00Z`
}

// Run implements the command.
func (c *webhooksReplayCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.caller()
	if err != nil {
		return err
	}
	req := api.WebhookReplayRequest{Since: c.Since}
	if !c.Until.IsZero() {
		req.Until = &c.Until
	}
	result, err := client.ReplayWebhookEndpoint(ctx, c.ID, req)
	if err != nil {
		return err
	}
	return c.show(s, result, func(w io.Writer) { row(w, "queued", count(result.Queued)) })
}

type webhooksTestCmd struct {
	ID string `arg:"" help:"Id of the endpoint, from webhooks list."`
	format
}

// Help implements kong.HelpProvider.
func (*webhooksTestCmd) Help() string {
	return "Exits 1 when the endpoint did not take the event.\n\nExample:\n\n  sendgate webhooks test 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f"
}

// Run implements the command.
func (c *webhooksTestCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.caller()
	if err != nil {
		return err
	}
	d, err := client.TestWebhookEndpoint(ctx, c.ID)
	if err != nil {
		return err
	}
	err = c.show(s, d, func(w io.Writer) {
		row(w, "outcome", d.Outcome)
		if d.Status != 0 {
			row(w, "status", strconv.Itoa(d.Status))
		}
		row(w, "took", millis(d.TookMS))
		if d.Error != "" {
			row(w, "error", d.Error)
		}
	})
	if err == nil && d.Outcome != "delivered" {
		return fmt.Errorf("the endpoint did not take the event: %s", d.Outcome)
	}
	return err
}
