package cli

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantileIsAtMostABucketAboveTheTruth(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []int64{100, 10_000, 5_000_000_000} {
		var h, part histogram
		values := make([]time.Duration, 0, 5000)
		for i := range 5000 {
			d := time.Duration(rng.Int64N(scale)) * time.Microsecond
			values = append(values, d)
			if i%2 == 0 {
				h.record(d)
			} else {
				part.record(d)
			}
		}
		h.merge(&part)
		slices.Sort(values)
		for _, q := range []float64{0, .5, .9, .95, .99, .999, 1} {
			truth := values[min(int(q*5000), 4999)]
			got := h.quantile(q)
			if got < truth || float64(got) > float64(truth)*(1+1./64)+float64(time.Microsecond) {
				t.Errorf("scale %d: quantile(%v) = %v, truth %v", scale, q, got, truth)
			}
		}
		if h.max != values[4999] || h.count != 5000 {
			t.Errorf("max %v count %d, want %v 5000", h.max, h.count, values[4999])
		}
	}
}

func TestHistogramBorders(t *testing.T) {
	t.Parallel()
	var h histogram
	if h.quantile(.5) != 0 {
		t.Error("quantile of nothing is not 0")
	}
	for us := uint64(0); us < 1<<14; us++ {
		b := bucketOf(us)
		if up := upperBound(b); up < us || bucketOf(up) != b || bucketOf(up+1) != b+1 {
			t.Fatalf("value %d: bucket %d ends at %d", us, b, up)
		}
	}
	h.record(-time.Second)
	h.record(1 << 62)
	if h.count != 2 || h.buckets[len(h.buckets)-1] != 1 {
		t.Errorf("a negative and a huge value were not kept in the outer buckets: %d, last %d", h.count, h.buckets[len(h.buckets)-1])
	}
}
