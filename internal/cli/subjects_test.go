package cli

import (
	"strings"
	"testing"
)

func TestSubjectsEraseCountsAsksAndReports(t *testing.T) {
	t.Parallel()
	answers := map[string]answer{
		"POST /admin/v1/subjects/count": {200, nil, `{"messages":3,"open":0,"suppressions":1,"events":2,"accounts":[{"account":"pm","kind":"postmark","messages":3,` +
			`"keeps":"content for 45 days","erase":"POST /data-removals","sources":["https://postmarkapp.com/x"],"read":"2026-11-30"}]}`},
		"POST /admin/v1/subjects/erase": {200, nil, `{"cancelled":0,"messages":3,"events":2,"open":0}`},
	}
	w := newWorld(t, answers)
	o := w.run("subjects", "erase", "ann@example.org", "--yes")
	o.want(t, 0, "messages erased", "")
	o.want(t, 0, "read 2026-11-30", "")
	if got := w.last("POST", "/admin/v1/subjects/erase").body; got != `{"address":"ann@example.org"}` {
		t.Errorf("body = %s", got)
	}
	w.stdin = "n\n"
	w.run("subjects", "erase", "ann@example.org").want(t, 1, "", "nothing was changed")
	w.stdin = "y\n"
	w.run("subjects", "erase", "ann@example.org").want(t, 0, "keyed hash", "3 messages (0 of them open)")
	answers["POST /admin/v1/subjects/erase"] = answer{200, nil, `{"cancelled":0,"messages":3,"events":2,"open":1}`}
	w = newWorld(t, answers)
	w.run("subjects", "erase", "ann@example.org", "--yes").want(t, 1, "left, because open", "run this again")
}

func TestSubjectsExportWritesJSONLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"POST /admin/v1/subjects/export": {200, nil, `{"data":[{"kind":"message","row":{"subject":"<b>"}},{"kind":"suppression","row":{}}]}`},
	})
	o := w.run("subjects", "export", "ann@example.org", "--tenant", "shop")
	if want := "{\"kind\":\"message\",\"row\":{\"subject\":\"<b>\"}}\n{\"kind\":\"suppression\",\"row\":{}}\n"; o.out != want || o.code != 0 {
		t.Errorf("export = %d %q", o.code, o.out)
	}
	if got := w.last("POST", "/admin/v1/subjects/export").body; !strings.Contains(got, `"tenant":"shop"`) {
		t.Errorf("body = %s", got)
	}
}
