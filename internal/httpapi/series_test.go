package httpapi

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

func TestSeriesHasOneValueForEachStep(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := time.Date(2026, 1, 31, 8, 28, 0, 0, time.UTC)
	r.store.counts = []record.Count{
		{Measure: "sent", Account: "a", At: at, N: 3},
		{Measure: "sent", Account: "a", At: at.Add(2 * time.Minute), N: 4},
		{Measure: "sent", Account: "b", At: at.Add(time.Minute), N: 5},
		{Measure: "sent_seconds", Account: "a", Detail: "1", At: at, N: 10},
		{Measure: "sent_seconds", Account: "a", Detail: "+Inf", At: at.Add(time.Minute), N: 1},
	}
	body := r.do("GET", "/admin/v1/series?measure=sent&measure=sent_seconds&by=account&since=2026-01-31T08:28:30.000Z&until=2026-01-31T08:30:01.000Z", r.admin, "")
	r.want(body, 200, "")
	var got api.SeriesPage
	if err := json.Unmarshal(body.body, &got); err != nil {
		t.Fatal(err)
	}
	f := func(v float64) *float64 { return &v }
	want := api.SeriesPage{StepSeconds: 60, Since: at, Until: at.Add(3 * time.Minute), Data: []api.Series{
		{Measure: "sent", Account: "a", N: []int64{3, 0, 4}},
		{Measure: "sent", Account: "b", N: []int64{0, 5, 0}},
		{Measure: "sent_seconds", Account: "a", P50: []*float64{f(0.5), f(0), nil}, P95: []*float64{f(0.95), f(0), nil}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	if f := r.store.asked; !f.ByAccount || !f.ByDetail || f.Step != record.Minute || !f.Since.Equal(at) {
		t.Errorf("asked for %+v", f)
	}
}

func TestSeriesRefusesWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for query, field := range map[string]string{
		"": "measure", "measure=weather": "measure", "measure=sent&step=day": "step", "measure=sent&by=tenant": "by",
		"measure=sent&since=2026-01-01T00:00:00.000Z&until=2026-01-31T00:00:00.000Z":           "since",
		"measure=sent&since=2026-01-31T00:00:00.000Z&until=2026-01-30T00:00:00.000Z&step=hour": "since",
	} {
		got := r.do("GET", "/admin/v1/series?"+query, r.admin, "")
		if r.want(got, 422, "invalid"); len(got.problem.Errors) == 0 || got.problem.Errors[0].Field != field {
			t.Errorf("%s: %+v, want a mistake in %s", query, got.problem.Errors, field)
		}
	}
	r.store.counts = make([]record.Count, maxSeriesRows)
	r.want(r.do("GET", "/admin/v1/series?measure=sent", r.admin, ""), 422, "invalid")
}
