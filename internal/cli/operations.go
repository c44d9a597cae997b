package cli

import (
	"context"
	"io"
	"slices"
	"strconv"
)

type queueCmd struct{ format }

// Help implements kong.HelpProvider.
func (*queueCmd) Help() string {
	return "ready: due now. scheduled: due later (send_at, or a retry). unknown: waits for evidence of what a provider did.\n\nExample:\n\n  sendgate queue"
}

// Run implements the command.
func (c *queueCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	q, err := client.Queue(ctx)
	if err != nil {
		return err
	}
	return c.show(s, q, func(w io.Writer) {
		for _, line := range []struct {
			name string
			n    int64
		}{{"ready", q.Ready}, {"scheduled", q.Scheduled}, {"in flight", q.Inflight}, {"unknown", q.Unknown}} {
			row(w, line.name, atLeast(line.n, slices.Contains(q.AtLeast, line.name)))
		}
		row(w, "oldest due", stampOf(q.OldestDue))
		for _, t := range q.Tenants {
			row(w, "tenant "+t.Tenant, atLeast(t.Ready, t.More)+" ready")
		}
		for _, r := range q.Replicas {
			row(w, "replica "+r.Host, r.ID+"  since "+stamp(r.StartedAt)+"  lease until "+stamp(r.LeaseUntil))
		}
	})
}

// atLeast returns a figure, with a plus if there are more.
func atLeast(n int64, more bool) string {
	if more {
		return strconv.FormatInt(n, 10) + "+"
	}
	return strconv.FormatInt(n, 10)
}
