package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/series"
)

// SeriesStore has the counts over time.
type SeriesStore interface {
	Series(ctx context.Context, f record.SeriesFilter) ([]record.Count, error)
}

const (
	maxPoints     = 1500  // of one series
	maxSeriesRows = 50000 // that an answer is made of
)

// listSeries shows counts over time, all replicas and tenants together.
func (s *Server) listSeries(r *http.Request) (out api.SeriesPage, err error) {
	q := readRepeating(r, "measure", "step", "since", "until", "account", "by")
	f := q.series(s.clock().UTC())
	if err := q.err(); err != nil {
		return out, err
	}
	counts, err := s.store.Series(r.Context(), f)
	if err != nil {
		return out, err
	}
	if len(counts) == f.Limit {
		return out, invalid("since", "out_of_range", fmt.Sprintf("selects more than %d counts: ask for a shorter time, or for one account", f.Limit))
	}
	return seriesView(f, counts), nil
}

// series reads what is asked for. The times are moved to where their steps begin.
func (q *query) series(now time.Time) record.SeriesFilter {
	f := record.SeriesFilter{Measures: q.values["measure"], Step: record.Minute, Account: q.text("account"), Limit: maxSeriesRows}
	if len(f.Measures) == 0 {
		q.complain("measure", "missing", "must be given: one of "+measureNames())
	}
	for _, name := range f.Measures {
		m, ok := series.Find(name)
		if !ok {
			q.complain("measure", "unknown_measure", "must be one of "+measureNames())
		}
		f.ByDetail = f.ByDetail || m.Times
	}
	switch q.values.Get("step") {
	case "", "minute":
	case "hour":
		f.Step = record.Hour
	default:
		q.complain("step", "unknown_step", "must be minute or hour")
	}
	switch q.values.Get("by") {
	case "":
	case "account":
		f.ByAccount = true
	case "stream":
		f.ByStream = true
	case "detail":
		f.ByDetail = true
	default:
		q.complain("by", "unknown_key", "must be account, stream or detail")
	}
	if f.Until = q.moment("until").UTC(); f.Until.IsZero() {
		f.Until = now
	}
	if f.Since = q.moment("since").UTC(); f.Since.IsZero() {
		f.Since = f.Until.Add(-60 * f.Step)
	}
	f.Since, f.Until = f.Since.Truncate(f.Step), f.Until.Add(f.Step-1).Truncate(f.Step)
	switch n := f.Until.Sub(f.Since) / f.Step; {
	case n < 1:
		q.complain("since", "out_of_range", "must be before until")
	case n > maxPoints:
		q.complain("since", "out_of_range", fmt.Sprintf("must be at most %d steps before until", maxPoints))
	}
	return f
}

func measureNames() string {
	var names []string
	for _, m := range series.Measures() {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

// seriesView makes a series with one value for each step of each group of labels. The counts come by measure and labels, in order
// of time. A measure of times becomes two quantiles.
func seriesView(f record.SeriesFilter, counts []record.Count) api.SeriesPage {
	points := int(f.Until.Sub(f.Since) / f.Step)
	out := api.SeriesPage{StepSeconds: int(f.Step.Seconds()), Since: f.Since, Until: f.Until, Data: []api.Series{}}
	for len(counts) > 0 {
		n := 1
		m, _ := series.Find(counts[0].Measure)
		for n < len(counts) && sameSeries(m, counts[0], counts[n]) {
			n++
		}
		group := api.Series{Measure: m.Name, Account: counts[0].Account, Stream: counts[0].Stream}
		if m.Times {
			group.P50, group.P95 = quantilesOf(f, counts[:n], points)
		} else {
			group.Detail, group.N = counts[0].Detail, make([]int64, points)
			for _, c := range counts[:n] {
				group.N[int(c.At.Sub(f.Since)/f.Step)] += c.N
			}
		}
		out.Data, counts = append(out.Data, group), counts[n:]
	}
	return out
}

func sameSeries(m series.Measure, a, b record.Count) bool {
	return a.Measure == b.Measure && a.Account == b.Account && a.Stream == b.Stream && (m.Times || a.Detail == b.Detail)
}

// quantilesOf returns the median and the 95th percentile of each step, in seconds; nil for a step without times.
func quantilesOf(f record.SeriesFilter, counts []record.Count, points int) (p50, p95 []*float64) {
	buckets := make([][]series.Bucket, points)
	for _, c := range counts {
		if bound, err := series.ParseBound(c.Detail); err == nil {
			i := int(c.At.Sub(f.Since) / f.Step)
			buckets[i] = append(buckets[i], series.Bucket{UpTo: bound, N: c.N})
		}
	}
	at := func(q float64, b []series.Bucket) *float64 {
		if v, ok := series.Quantile(q, b); ok {
			return &v
		}
		return nil
	}
	for _, b := range buckets {
		p50, p95 = append(p50, at(0.5, b)), append(p95, at(0.95, b))
	}
	return p50, p95
}
