// Package series turns the counters that this process shows to Prometheus into counts over time, for the operators' plots. So a
// plot and a metric never contradict each other, and nothing is counted twice on the way of a message.
//
// It decides which metrics become series, and how a quantile is read from a histogram. It stores nothing.
//
// The likeliest mistake of a newcomer is to expect exact numbers: what a process counted in its last seconds before it was killed
// is missing.
package series

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sendgate/sendgate/internal/record"
)

// A Measure is one thing that is counted over time.
type Measure struct {
	Name   string
	Times  bool   // a histogram of seconds; its details are the upper bounds of the buckets
	family string // the metric
	detail string // the label that becomes the detail, "" for none
	only   string // the only value of that label that counts, "" for all; it is no detail then
}

// Measures returns all measures.
func Measures() []Measure {
	return []Measure{
		{Name: "accepted", family: "sendgate_accepted_total", detail: "result", only: "accepted"},
		{Name: "attempts", family: "sendgate_attempts_total", detail: "class"},
		{Name: "sent", family: "sendgate_sent_total"},
		{Name: "delivered", family: "sendgate_delivered_total"},
		{Name: "bounced", family: "sendgate_bounced_total", detail: "class"},
		{Name: "complained", family: "sendgate_complained_total"},
		{Name: "unsubscribed", family: "sendgate_unsubscribed_total"},
		{Name: "accept_seconds", family: "sendgate_accept_seconds", Times: true},
		{Name: "sent_seconds", family: "sendgate_sent_seconds", Times: true},
	}
}

// Find returns the measure of a name.
func Find(name string) (Measure, bool) {
	all := Measures()
	i := slices.IndexFunc(all, func(m Measure) bool { return m.Name == name })
	if i < 0 {
		return Measure{}, false
	}
	return all[i], true
}

// labels are those of a count, without its time.
type labels struct{ measure, account, stream, detail string }

// Sampler reads what counters gained since the last time. It is not safe for concurrent use.
type Sampler struct {
	from prometheus.Gatherer
	last map[labels]float64
}

// NewSampler makes a Sampler for the counters of one process, which began at 0.
func NewSampler(from prometheus.Gatherer) *Sampler { return &Sampler{from: from} }

// Take returns what was gained. Once that is stored, call keep. Otherwise the next Take returns it again.
func (s *Sampler) Take(now time.Time) (gained []record.Count, keep func(), err error) {
	families, err := s.from.Gather()
	if err != nil {
		return nil, nil, fmt.Errorf("read counters: %w", err)
	}
	seen := map[labels]float64{}
	for _, m := range Measures() {
		i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == m.family })
		if i < 0 {
			continue
		}
		for _, metric := range families[i].GetMetric() {
			m.add(seen, metric)
		}
	}
	for l, v := range seen {
		before := s.last[l]
		if v < before { // the counter of an account that was deleted and made again began at 0
			before = 0
		}
		if n := int64(v - before); n > 0 {
			gained = append(gained, record.Count{Measure: l.measure, At: now, Account: l.account, Stream: l.stream, Detail: l.detail, N: n})
		}
	}
	return gained, func() { s.last = seen }, nil
}

// add sums a metric into the counts of its labels. Labels that a series does not have are summed over.
func (m Measure) add(seen map[labels]float64, metric *dto.Metric) {
	l := labels{measure: m.Name}
	for _, pair := range metric.GetLabel() {
		switch name, v := pair.GetName(), pair.GetValue(); {
		case name == "account":
			l.account = v
		case name == "stream":
			l.stream = v
		case name == m.detail && m.only == "":
			l.detail = v
		case name == m.detail && v != m.only:
			return
		}
	}
	if !m.Times {
		seen[l] += metric.GetCounter().GetValue()
		return
	}
	var below uint64
	for _, b := range metric.GetHistogram().GetBucket() {
		l.detail = strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)
		seen[l] += float64(b.GetCumulativeCount() - below)
		below = b.GetCumulativeCount()
	}
	l.detail = "+Inf"
	seen[l] += float64(metric.GetHistogram().GetSampleCount() - below)
}

// Bucket is how many times were at most so many seconds, and longer than those of the bucket before.
type Bucket struct {
	UpTo float64 // +Inf in the last one
	N    int64
}

// ParseBound reads the detail of a measure of times.
func ParseBound(detail string) (float64, error) {
	v, err := strconv.ParseFloat(detail, 64)
	if err != nil {
		return 0, fmt.Errorf("bound of a bucket: %w", err)
	}
	return v, nil
}

// Quantile estimates the q-quantile, from 0 to 1, as Prometheus' histogram_quantile does: times lie evenly within their bucket, and
// those above the last bound count as that bound. It returns false if there are no times. The buckets come in any order.
func Quantile(q float64, buckets []Bucket) (seconds float64, ok bool) {
	buckets = slices.Clone(buckets)
	slices.SortFunc(buckets, func(a, b Bucket) int {
		switch {
		case a.UpTo < b.UpTo:
			return -1
		case a.UpTo > b.UpTo:
			return 1
		}
		return 0
	})
	var total int64
	for _, b := range buckets {
		total += b.N
	}
	if total == 0 {
		return 0, false
	}
	rank, below, from := q*float64(total), 0.0, 0.0
	for _, b := range buckets {
		if n := float64(b.N); n > 0 && below+n >= rank {
			if math.IsInf(b.UpTo, 1) {
				return from, true
			}
			return from + (b.UpTo-from)*(rank-below)/n, true
		}
		below += float64(b.N)
		if !math.IsInf(b.UpTo, 1) {
			from = b.UpTo
		}
	}
	return from, true
}
