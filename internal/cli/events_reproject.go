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
	Since   time.Time `help:"Only payloads received at or after this time; all that are kept when absent."`
	DryRun  bool      `help:"Change nothing; count what would change."`
	Cursor  string    `help:"Continue where a run ended that was broken off."`
	format
}

// Help implements kong.HelpProvider.
func (*eventsReprojectCmd) Help() string {
	return `For after an upgrade that reads a provider's payloads better. Events that are read otherwise now are corrected, and the statuses of their messages ` +
		`with them. Works page by page beside the running service, and may be repeated.

Examples:

  sendgate events reproject --dry-run
  sendgate events reproject --account mailgun --since 2026-01-31T00:00:00Z`
}

// Run implements the command.
func (c *eventsReprojectCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	var payloads atomic.Int64
	p := startProgress(s.Err, func(time.Duration) string { return count(payloads.Load()) + " payloads read" })
	sum, err := c.pages(ctx, client, &payloads)
	p.stop()
	if err != nil {
		if sum.Cursor != "" {
			fmt.Fprintln(s.Err, "broken off after", sum.Payloads, "payloads; to go on: add --cursor", clean(sum.Cursor))
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
func (c *eventsReprojectCmd) pages(ctx context.Context, client *api.Client, payloads *atomic.Int64) (*api.ReprojectResult, error) {
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
