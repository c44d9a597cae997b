package cli

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/api"
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

type auditCmd struct {
	Actor  string    `placeholder:"KEY" help:"Only changes made with this key (id or name), or by \"system\" or \"stranger\"."`
	Action string    `help:"Only this action, such as pool.update, or all actions on a kind of object: pool."`
	Target string    `help:"Only changes of this account, pool, key, tenant or address."`
	Since  time.Time `help:"Only changes at or after this time."`
	Until  time.Time `help:"Only changes before this time."`
	paging
	format
}

// Help implements kong.HelpProvider.
func (*auditCmd) Help() string {
	return "Examples:\n\n  sendgate audit --since 24h\n  sendgate audit --action account --target ses\n  sendgate audit --limit 200 --json"
}

// Run implements the command.
func (c *auditCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	page, err := client.Audit(ctx, api.AuditFilter{
		Actor: c.Actor, Action: c.Action, Target: c.Target, Since: c.Since, Until: c.Until, Cursor: c.Cursor, Limit: c.Limit,
	})
	if err != nil {
		return err
	}
	return c.showPage(s, page, page.NextCursor, func(w io.Writer) {
		head(w, "ID", "AT", "WHO", "ACTION", "TARGET", "DETAIL")
		for _, e := range page.Data {
			row(w, strconv.FormatInt(e.ID, 10), stamp(e.At), changedBy(e), e.Action, e.Target, detailText(e.Detail))
		}
	})
}

// changedBy names who made a change.
func changedBy(e api.AuditEntry) string {
	if e.ActorName == "" {
		return e.Actor
	}
	return e.ActorName + " (" + e.Actor + ")"
}

// detailText returns the details of an entry, or a dash if there are none.
func detailText(detail json.RawMessage) string {
	if len(detail) == 0 || string(detail) == "null" {
		return "-"
	}
	return shorten(string(detail), 100)
}
