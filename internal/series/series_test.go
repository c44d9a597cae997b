package series

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/telemetry"
)

func TestTakeReturnsWhatWasGained(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := telemetry.New(reg)
	s, now := NewSampler(reg), time.Date(2026, 1, 31, 8, 30, 5, 0, time.UTC)
	take := func(want ...record.Count) func() {
		t.Helper()
		got, keep, err := s.Take(now)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			want[i].At = now
		}
		byLabels := cmpopts.SortSlices(func(a, b record.Count) bool { return a.Measure+a.Account+a.Detail < b.Measure+b.Account+b.Detail })
		if diff := cmp.Diff(want, got, byLabels, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("gained (-want +got):\n%s", diff)
		}
		return keep
	}
	take()()
	m.Accepted.WithLabelValues("accepted").Add(3)
	m.Accepted.WithLabelValues("invalid").Add(2)
	m.Attempts.WithLabelValues("a", "ses", "accepted").Add(5)
	m.Attempts.WithLabelValues("b", "ses", "accepted").Add(1)
	m.AcceptSeconds.Observe(1e6)
	first := []record.Count{
		{Measure: "accepted", N: 3},
		{Measure: "attempts", Account: "a", Detail: "accepted", N: 5},
		{Measure: "attempts", Account: "b", Detail: "accepted", N: 1},
		{Measure: "accept_seconds", Detail: "+Inf", N: 1},
	}
	take(first...)   // and is not stored
	take(first...)() // so it comes again
	take()
	m.Forget("a")
	m.Attempts.WithLabelValues("a", "ses", "accepted").Add(2)
	take(record.Count{Measure: "attempts", Account: "a", Detail: "accepted", N: 2})()
	take()
}

// Every measure names a metric that exists.
func TestMeasuresAreMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	telemetry.New(reg)
	known := map[string]bool{}
	descs := make(chan *prometheus.Desc, 1000)
	reg.Describe(descs)
	close(descs)
	for d := range descs {
		_, name, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		known[name] = true
	}
	for _, m := range Measures() {
		if got, ok := Find(m.Name); !ok || got != m {
			t.Errorf("Find(%s) = %v, %t", m.Name, got, ok)
		}
		if !known[m.family] {
			t.Errorf("%s: there is no metric %s", m.Name, m.family)
		}
	}
	if _, ok := Find("weather"); ok {
		t.Error("weather is a measure")
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for name, tc := range map[string]struct {
		q       float64
		buckets []Bucket
		want    float64
		ok      bool
	}{
		"none":                 {0.5, nil, 0, false},
		"empty buckets":        {0.5, []Bucket{{1, 0}, {inf, 0}}, 0, false},
		"evenly in the first":  {0.5, []Bucket{{1, 10}, {2, 0}, {inf, 0}}, 0.5, true},
		"in any order":         {0.75, []Bucket{{inf, 0}, {2, 10}, {1, 10}}, 1.5, true},
		"above the last bound": {0.95, []Bucket{{1, 1}, {4, 1}, {inf, 98}}, 4, true},
		"an empty one between": {0.95, []Bucket{{1, 90}, {2, 0}, {4, 10}, {inf, 0}}, 3, true},
		"all of them":          {1, []Bucket{{1, 3}, {2, 1}, {inf, 0}}, 2, true},
	} {
		if got, ok := Quantile(tc.q, tc.buckets); ok != tc.ok || math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("%s: %v, %t, want %v, %t", name, got, ok, tc.want, tc.ok)
		}
	}
}
