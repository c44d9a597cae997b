package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

type eventsStatsCmd struct {
	By    string    `enum:"account,stream,domain" default:"account" help:"One line for each account, stream, or domain of the recipients."`
	Since time.Time `help:"Messages accepted at or after this time; the last 24 hours when absent."`
	Until time.Time `help:"Messages accepted before this time; now when absent."`
	Limit int       `default:"50" help:"At most this many lines, the largest first, 1 to 200."`
	format
}

// Help implements kong.HelpProvider.
func (*eventsStatsCmd) Help() string {
	return `Counts recipients of the messages that were accepted in a period of at most 31 days. Opens and clicks by machines do not ` +
		`count. The latencies begin when sendgate accepted the message, or at its send_at. Half of the recipients were faster than the first number, and 95% were faster than the second.

Examples:

  sendgate events stats
  sendgate events stats --by domain --since 2026-01-31T00:00:00Z --limit 20
  sendgate events stats --by stream --json`
}

// Validate implements kong's check of a command.
func (c *eventsStatsCmd) Validate() error { return checkLimit(c.Limit) }

// Run implements the command.
func (c *eventsStatsCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	stats, err := client.Stats(ctx, api.StatsQuery{By: c.By, Since: c.Since, Until: c.Until, Limit: c.Limit})
	if err != nil {
		return err
	}
	return c.show(s, stats, func(w io.Writer) {
		row(w, strings.ToUpper(stats.By), "RECIPIENTS", "SENT", "DELIVERED", "DEFERRED", "BOUNCED", "COMPLAINED", "SUPPRESSED", "FAILED", "MAYBE SENT", "UNKNOWN",
			"OPENED", "CLICKED", "UNSUBSCRIBED", "TO SENT", "TO DELIVERED")
		for _, x := range stats.Data {
			row(w, orDash(x.Key), count(x.Recipients), count(x.Sent), count(x.Delivered), count(x.Deferred), bounces(x.Bounced), count(x.Complained),
				count(x.Suppressed), count(x.Failed), count(x.FailedUnknown), count(x.Unknown), count(x.Opened), count(x.Clicked), count(x.Unsubscribed),
				latency(x.AcceptToSentMS), latency(x.AcceptToDeliveredMS))
		}
		fmt.Fprintf(w, "accepted from %s to %s\n", stamp(stats.Since), stamp(stats.Until))
	})
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

// bounces returns a text such as "3 hard, 1 soft", or "0" for none.
func bounces(by map[string]int64) string {
	var parts []string
	for _, class := range []string{"hard", "soft", "policy"} {
		if by[class] > 0 {
			parts = append(parts, count(by[class])+" "+class)
		}
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ", ")
}

// latency returns both quantiles, or "-" if nothing was measured.
func latency(q api.Quantiles) string {
	if q.P50 == 0 && q.P95 == 0 {
		return "-"
	}
	return millis(q.P50) + " / " + millis(q.P95)
}

// millis formats milliseconds, rounded for reading: 850ms, 1.2s, 3m20s.
func millis(n int64) string {
	d := time.Duration(n) * time.Millisecond
	switch {
	case d >= time.Minute:
		return shortDuration(d.Round(time.Second))
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.String()
	}
}
