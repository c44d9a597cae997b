//go:build drill

package drill

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// claimTimes are the metrics of the replicas about their claims since they started: how many took at most so many seconds,
// and how many there were.
type claimTimes struct {
	within map[float64]float64 // by the bounds of the metric's buckets, +Inf for all
	sum    float64             // seconds
}

// claimTimes sums up the claims of all replicas.
func (r *rig) claimTimes(t *testing.T) claimTimes {
	t.Helper()
	c := claimTimes{within: map[float64]float64{}}
	for _, x := range r.replicas {
		var body string
		must(t, time.Minute, x.name+" tells its metrics", func() bool {
			status, text := x.get(t.Context(), "/metrics")
			body = text
			return status == http.StatusOK
		})
		for line := range strings.Lines(body) {
			series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				continue // a comment
			}
			if bound, ok := strings.CutPrefix(series, `sendgate_claim_seconds_bucket{le="`); ok {
				le, err := strconv.ParseFloat(strings.TrimSuffix(bound, `"}`), 64)
				if err != nil {
					t.Fatalf("metric %s: %v", series, err)
				}
				c.within[le] += n
			}
			if series == "sendgate_claim_seconds_sum" {
				c.sum += n
			}
		}
	}
	return c
}

// since leaves the claims that were made after an earlier look.
func (c claimTimes) since(earlier claimTimes) claimTimes {
	d := claimTimes{within: maps.Clone(c.within), sum: c.sum - earlier.sum}
	for le := range d.within {
		d.within[le] -= earlier.within[le]
	}
	return d
}

func (c claimTimes) count() float64 { return c.within[math.Inf(1)] }

func (c claimTimes) mean() time.Duration { return seconds(c.sum / max(c.count(), 1)) }

// quantile estimates the time within which a share of the claims ended. Its error is at most the width of a bucket, within
// which they are taken to lie evenly.
func (c claimTimes) quantile(q float64) time.Duration {
	below, rank, from := 0.0, q*c.count(), 0.0
	for _, le := range slices.Sorted(maps.Keys(c.within)) {
		n := c.within[le]
		if n >= rank && n > below {
			if math.IsInf(le, 1) {
				return seconds(from)
			}
			return seconds(from + (le-from)*(rank-below)/(n-below))
		}
		below, from = n, le
	}
	return 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// claimsOver lets the replicas claim for a while, and returns how long their claims took.
func (r *rig) claimsOver(t *testing.T, d time.Duration) claimTimes {
	t.Helper()
	before := r.claimTimes(t)
	pause(t, d)
	c := r.claimTimes(t).since(before)
	if c.count() <= 0 {
		t.Fatal("no claims were made")
	}
	return c
}
