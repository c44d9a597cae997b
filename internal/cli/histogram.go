package cli

import (
	"math/bits"
	"time"
)

// histogram counts durations in microseconds, in buckets that are at most 1/64 of their value wide (the log-linear layout of
// HdrHistogram). So a quantile is at most 1.6 % too high, for any number of values. It is not safe for concurrent use: each
// worker has its own, and they are merged at the end.
type histogram struct {
	buckets [(maxBits-subBits)*subBuckets + 2*subBuckets]uint64
	count   uint64
	max     time.Duration
}

const (
	subBits    = 7 // values below 1<<subBits have a bucket each
	subBuckets = 1 << (subBits - 1)
	maxBits    = 40 // 1<<40 microseconds are 12 days
)

func bucketOf(us uint64) int {
	us = min(us, 1<<maxBits-1)
	shift := max(bits.Len64(us)-subBits, 0)
	return shift*subBuckets + int(us>>shift) //nolint:gosec // bounded by the number of buckets
}

// upperBound returns the largest value of a bucket, in microseconds.
func upperBound(bucket int) uint64 {
	if bucket < 2*subBuckets {
		return uint64(bucket) //nolint:gosec // bounded by the number of buckets
	}
	shift := bucket/subBuckets - 1
	return uint64(bucket-shift*subBuckets+1)<<shift - 1 //nolint:gosec // bounded by the number of buckets
}

func (h *histogram) record(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d.Microseconds(), 0)))]++
	h.count++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.max = max(h.max, o.max)
}

// quantile returns a value that at least the share q (0..1) of all values does not exceed, or 0 if there are no values.
func (h *histogram) quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.count)), h.count-1)
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen > rank {
			return min(time.Duration(upperBound(i))*time.Microsecond, h.max) //nolint:gosec // bounded by the number of buckets
		}
	}
	return h.max
}
