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

func checkOverlap(d time.Duration) error {
	if d < 0 || d > maxOverlap {
		return usagef("--overlap must be 0s to 168h, got %s", d)
	}
	return nil
}

type webhooksRotateCmd struct {
	ID      string        `arg:"" help:"Id of the endpoint, from webhooks list."`
	Overlap time.Duration `default:"24h" help:"How long events are also signed with the old secret, up to 168h; 0 ends it at once."`
	format
}

// Help implements kong.HelpProvider.
func (*webhooksRotateCmd) Help() string {
	return `During the overlap each event has two signatures, so that the receiver can change its secret at any time.

Examples:

  sendgate webhooks rotate 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f
  sendgate webhooks rotate 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --overlap 0s`
}

// Validate implements kong's check of a command.
func (c *webhooksRotateCmd) Validate() error { return checkOverlap(c.Overlap) }

// Run implements the command.
func (c *webhooksRotateCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
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
	return `Queues the events that match the endpoint's filter. They keep their ids, so a receiver that stores webhook-id takes each event once.

Examples:

  sendgate webhooks replay 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --since 2026-01-31T12:00:00Z
  sendgate webhooks replay 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --since 2026-01-31T12:00:00Z --until 2026-01-31T14:00:00Z`
}

// Run implements the command.
func (c *webhooksReplayCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
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
	return "The exit code is 1 if the endpoint did not take the event.\n\nExample:\n\n  sendgate webhooks test 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f"
}

// Run implements the command.
func (c *webhooksTestCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
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
