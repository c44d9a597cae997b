package dash

import (
	"html"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

func TestTrafficIsDrawnFromTheSeries(t *testing.T) {
	t.Parallel()
	n := make([]int64, 720)
	n[719], n[718] = 120, 60
	half := 0.25
	p50 := make([]*float64, 720)
	p50[719] = &half
	c := &canned{answers: map[string]any{"/admin/v1/series": api.SeriesPage{StepSeconds: 3600, Data: []api.Series{
		{Measure: "sent", N: n}, {Measure: "sent_seconds", P50: p50, P95: p50},
	}}}}
	h := newDash(t, c, record.RoleViewer, noon)
	var w *httptest.ResponseRecorder
	for range 50 { // viewers
		if w = get(h, "/traffic?window=30d"); w.Code != 200 {
			t.Fatalf("the page = %d %s", w.Code, w.Body)
		}
	}
	if len(c.calls) != 3 {
		t.Errorf("calls = %v, want one reading of three series", c.calls)
	}
	page := html.UnescapeString(w.Body.String())
	for _, want := range []string{
		`"from":1767265200`, `"step":3600`, `{"name":"accepted","v":[0,`, `,1,2]}`, // a minute
		`<td>sent</td><td class="num">2</td><td class="num">0.00417</td><td class="num">2</td>`,
		`<td>accepted to sent, median</td><td class="num">0.25</td><td class="num">0.25</td>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if q := c.asked[0]; q.Get("step") != "hour" || q.Get("until") != "2026-01-31T11:00:00Z" || q.Get("since") != "2026-01-01T11:00:00Z" {
		t.Errorf("asked for %v, want the 720 hours that are over", q)
	}
	if part := get(h, "/traffic?window=30d", "HX-Request", "true").Body.String(); strings.Contains(part, "<h1>") || !strings.Contains(part, "data-plot") {
		t.Errorf("the part that is refreshed:\n%s", part)
	}
}

// A minute that is not over would look like a fall.
func TestTrafficEndsWithAFullStep(t *testing.T) {
	t.Parallel()
	c := &canned{answers: map[string]any{"/admin/v1/series": api.SeriesPage{StepSeconds: 60}}}
	get(newDash(t, c, record.RoleViewer, noon.Add(5*time.Second)), "/traffic?window=nonsense")
	if q := c.asked[0]; q.Get("until") != "2026-01-31T11:59:00Z" || q.Get("since") != "2026-01-31T10:59:00Z" {
		t.Errorf("asked for %v, want the 60 minutes that every replica has stored", q)
	}
}
