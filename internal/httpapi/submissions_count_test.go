package httpapi

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// submissions reads sendgate_accepted_total, and how many commits were timed.
func submissions(t *testing.T, reg *prometheus.Registry) (results map[string]int, timed int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	results = map[string]int{}
	for _, f := range families {
		switch f.GetName() {
		case "sendgate_accepted_total":
			for _, m := range f.GetMetric() {
				if n := int(m.GetCounter().GetValue()); n > 0 {
					results[m.GetLabel()[0].GetValue()] = n
				}
			}
		case "sendgate_accept_seconds":
			timed = int(f.GetMetric()[0].GetHistogram().GetSampleCount())
		}
	}
	return results, timed
}

func TestEachSubmissionIsCountedByWhatItsSenderIsTold(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	r := newRig(t, func(o *Options) { o.Metrics = telemetry.New(reg) })
	good, bad := sendJSON(), sendJSON("to", `"nobody"`)
	post := func(path, body string, headers ...string) int {
		return r.do("POST", path, r.send, body, headers...).status
	}
	counted := map[string]int{}
	stored := 0
	for i, c := range []struct {
		name   string
		status int
		do     func() int
		want   map[string]int
		timed  int
	}{
		{"accepted", 202, func() int { return post("/v1/send", good, "Idempotency-Key", "k") }, map[string]int{"accepted": 1}, 1},
		{"replayed", 202, func() int { return post("/v1/send", good, "Idempotency-Key", "k") }, map[string]int{"replayed": 1}, 0},
		{"mismatch", 422, func() int { return post("/v1/send", sendJSON("subject", `"x"`), "Idempotency-Key", "k") }, map[string]int{"conflict": 1}, 0},
		{"invalid", 422, func() int { return post("/v1/send", bad) }, map[string]int{"invalid": 1}, 0},
		{"no JSON", 400, func() int { return post("/v1/send", `{"from":`) }, map[string]int{"invalid": 1}, 0},
		{"a batch", 202, func() int { return post("/v1/send/batch", batchJSON(good, bad, good)) }, map[string]int{"accepted": 2, "invalid": 1}, 2},
		{"in progress", 409, func() int { return r.failing(record.ErrConflict, post, good) }, map[string]int{"conflict": 1}, 0},
		{"away", 503, func() int { return r.failing(&record.Unavailable{Reason: "database"}, post, good) }, map[string]int{"unavailable": 1}, 0},
		{"nobody knows", 504, func() int { return r.failing(&record.OutcomeUnknown{}, post, good) }, map[string]int{"unknown": 1}, 0},
		{"our mistake", 500, func() int { return r.failing(fmt.Errorf("a bug"), post, good) }, map[string]int{"failed": 1}, 0},
		{"no key", 401, func() int { return r.do("POST", "/v1/send", "", good).status }, nil, 0},
	} {
		if got := c.do(); got != c.status {
			t.Fatalf("%d %s: status = %d, want %d", i, c.name, got, c.status)
		}
		for result, n := range c.want {
			counted[result] += n
		}
		stored += c.timed
		results, timed := submissions(t, reg)
		if diff := cmp.Diff(counted, results); diff != "" || timed != stored {
			t.Errorf("after %s: timed %d, want %d; results (-want +got):\n%s", c.name, timed, stored, diff)
		}
	}
	if results, _ := submissions(t, reg); len(results) != 7 {
		t.Errorf("results = %v, want each of the seven", slices.Sorted(maps.Keys(results)))
	}
}

// failing makes the store fail once.
func (r *rig) failing(err error, post func(path, body string, headers ...string) int, body string) int {
	r.store.failFrom("Accept", 0, err)
	defer r.store.failWith(nil)
	return post("/v1/send", body)
}
