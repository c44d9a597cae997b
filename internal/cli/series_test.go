package cli

import (
	"strings"
	"testing"
)

func TestSeriesShowsWhatWasCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET /admin/v1/series": {200, nil, `{"step_seconds":60,"since":"2026-01-31T08:28:00Z","until":"2026-01-31T08:31:00Z","data":[` +
		`{"measure":"sent","account":"ses-eu","n":[120,0,40]},{"measure":"sent_seconds","account":"ses-eu","p50":[0.04123,null,null],"p95":[0.3,null,null]}]}`}})
	o := w.run("series", "sent", "sent_seconds", "--by", "account", "--since", "2026-01-31T08:28:00Z")
	o.want(t, 0, "0.0412", "")
	if lines := strings.Count(o.out, "\n"); lines != 4 || !strings.Contains(o.out, "120") || !strings.Contains(o.out, "08:30") {
		t.Errorf("%d lines, want the head, two of 08:28 and one of 08:30:\n%s", lines, o.out)
	}
	if got, want := w.last("GET", "/admin/v1/series").query, "by=account&measure=sent&measure=sent_seconds&since=2026-01-31T08%3A28%3A00Z&step=minute"; got != want {
		t.Errorf("query = %s\nwant    %s", got, want)
	}
	w.run("series", "sent", "--json").want(t, 0, `"n": [`, "")
	w.run("series").want(t, 2, "", "measure")
}
