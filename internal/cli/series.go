package cli

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/api"
)

type seriesCmd struct {
	Measure []string  `arg:"" placeholder:"MEASURE" help:"accepted, attempts, sent, delivered, bounced, complained, unsubscribed, accept_seconds or sent_seconds."`
	Since   time.Time `help:"Only what was counted at or after this time. Default: the last 60 steps."`
	Until   time.Time `help:"Only what was counted before this time."`
	Step    string    `enum:"minute,hour" default:"minute" help:"minute (kept for two days) or hour (kept for 400)."`
	Account string    `help:"Only counts of this account."`
	By      string    `enum:"account,stream,detail,none" default:"none" help:"A line for each account, stream or detail (the class of an attempt or a bounce)."`
	format
}

// Help implements kong.HelpProvider.
func (*seriesCmd) Help() string {
	return `Steps in which nothing was counted are left out, but for --json. What was counted in the last 5 s is not there yet. Times are in seconds.

Examples:

  sendgate series accepted sent delivered
  sendgate series sent --by account --since 6h
  sendgate series bounced --by detail --step hour --since 7d
  sendgate series sent_seconds --account ses-eu --json`
}

// Run implements the command.
func (c *seriesCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	q := api.SeriesQuery{Measures: c.Measure, Step: c.Step, Since: c.Since, Until: c.Until, Account: c.Account}
	if c.By != "none" {
		q.By = c.By
	}
	page, err := client.Series(ctx, q)
	if err != nil {
		return err
	}
	return c.show(s, page, func(w io.Writer) {
		head(w, "AT", "MEASURE", "OF", "N", "P50", "P95")
		for i := range int(page.Until.Sub(page.Since).Seconds()) / max(page.StepSeconds, 1) {
			at := stamp(page.Since.Add(time.Duration(i*page.StepSeconds) * time.Second))
			for _, series := range page.Data {
				seriesRow(w, at, series, i)
			}
		}
	})
}

// seriesRow writes the i-th value of a series, unless nothing was counted.
func seriesRow(w io.Writer, at string, s api.Series, i int) {
	of := orDash(s.Account + s.Stream + s.Detail) // at most one of them, for by names one
	switch {
	case len(s.N) > i && s.N[i] > 0:
		row(w, at, s.Measure, of, strconv.FormatInt(s.N[i], 10), "-", "-")
	case len(s.P50) > i && len(s.P95) > i && s.P50[i] != nil && s.P95[i] != nil:
		row(w, at, s.Measure, of, "-", seconds(*s.P50[i]), seconds(*s.P95[i]))
	}
}

// seconds writes a time with three digits.
func seconds(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
