package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/api"
)

type eventsReprojectCmd struct {
	Account string    `help:"Only payloads of this account."`
	Since   time.Time `help:"Only payloads received at or after this time; all stored payloads when absent."`
	DryRun  bool      `help:"Change nothing; count what would change."`
	Cursor  string    `help:"Continue an interrupted run from here."`
	format
}

// Help implements kong.HelpProvider.
func (*eventsReprojectCmd) Help() string {
	return `Use this after an upgrade that reads a provider's payloads better. Events that are now read differently are corrected, together with the statuses of their messages. ` +
		`It works page by page while the service runs, and can be repeated.

Examples:

  sendgate events reproject --dry-run
  sendgate events reproject --account mailgun --since 2026-01-31T00:00:00Z`
}

// Run implements the command.
func (c *eventsReprojectCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	var payloads atomic.Int64
	p := startProgress(s.Err, func(time.Duration) string { return count(payloads.Load()) + " payloads read" })
	sum, err := c.pages(ctx, client, &payloads)
	p.stop()
	if err != nil {
		if sum.Cursor != "" {
			fmt.Fprintln(s.Err, "interrupted after", sum.Payloads, "payloads; to continue: add --cursor", clean(sum.Cursor))
		}
		return err
	}
	return c.show(s, sum, func(w io.Writer) {
		changed := "changed"
		if c.DryRun {
			changed = "would change"
		}
		row(w, "payloads", strconv.Itoa(sum.Payloads))
		row(w, "events", strconv.Itoa(sum.Events))
		row(w, changed, fmt.Sprintf("%d events, %d messages", sum.Changed, sum.Messages))
	})
}

// pages goes through all pages and adds them up. The Cursor of the sum is where to continue, even after an error.
func (c *eventsReprojectCmd) pages(ctx context.Context, client adminClient, payloads *atomic.Int64) (*api.ReprojectResult, error) {
	sum := &api.ReprojectResult{Cursor: c.Cursor}
	for {
		page, err := client.Reproject(ctx, api.ReprojectRequest{Account: c.Account, Since: c.Since, Cursor: sum.Cursor, DryRun: c.DryRun})
		if err != nil {
			return sum, err
		}
		sum.Payloads += page.Payloads
		sum.Events += page.Events
		sum.Changed += page.Changed
		sum.Messages += page.Messages
		sum.Cursor = page.Cursor
		payloads.Store(int64(sum.Payloads))
		if page.Cursor == "" {
			return sum, nil
		}
	}
}
