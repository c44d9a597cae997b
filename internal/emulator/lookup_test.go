package emulator_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// quick makes all events happen at once, without webhooks.
func quick() emulator.Options {
	return emulator.Options{EventPace: time.Nanosecond, DeferFor: time.Hour}
}

func (b *server) logs(t *testing.T, query string, limit int) (int, []object) {
	t.Helper()
	body := object{"query": query}
	if limit != 0 {
		body["limit"] = limit
	}
	a := b.do(t, "POST", "/sendgrid/v3/logs", toJSON(t, body), b.sendGridHeader())
	var out struct{ Messages []object }
	if a.status == 200 {
		fromJSON(t, a.body, &out)
	}
	return a.status, out.Messages
}

func TestSendGridLogs(t *testing.T) {
	t.Parallel()
	b := start(t, quick())
	body := sendGridTo("ann@example.org", "bounce@example.org")
	body["personalizations"].([]any)[1].(object)["custom_args"] = object{"gw_msg": "m2"}
	b.sendGrid(t, body)
	eventually(t, "the delivery", func() bool {
		_, got := b.logs(t, `status IN ('delivered')`, 0)
		return len(got) == 1
	})
	before := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	after := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	tests := []struct {
		query string
		want  []string
	}{
		{``, []string{"bounce@example.org", "ann@example.org"}},
		{`to_email = 'ann@example.org'`, []string{"ann@example.org"}},
		{`to_email="ANN@example.org" AND sg_message_id_created_at > TIMESTAMP "` + before + `"`, []string{"ann@example.org"}},
		{`sg_message_id_created_at >= TIMESTAMP "` + before + `" AND sg_message_id_created_at <= TIMESTAMP "` + after + `" AND to_email='bounce@example.org'`, []string{"bounce@example.org"}},
		{`to_email = 'ann@example.org' AND sg_message_id_created_at < TIMESTAMP "` + before + `"`, nil},
		{`sg_message_id_created_at > TIMESTAMP "` + after + `"`, nil},
		{`status IN ('bounced', 'blocked')`, []string{"bounce@example.org"}},
		{`subject = 'Hello' AND to_email = 'eve@example.org'`, nil},
		{`subject = 'it''s'`, nil},
	}
	for _, tc := range tests {
		status, lines := b.logs(t, tc.query, 0)
		var got []string
		for _, l := range lines {
			got = append(got, l["to_email"].(string))
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || status != 200 {
			t.Errorf("%s: %d (-want +got):\n%s", tc.query, status, diff)
		}
	}
	if _, lines := b.logs(t, "", 1); len(lines) != 1 {
		t.Errorf("limit 1 gives %d", len(lines))
	}
	b.sendGrid(t, sendGridTo("defer@example.org"))
	eventually(t, "the deferral", func() bool {
		_, got := b.logs(t, `to_email = 'defer@example.org' AND status IN ('deferred')`, 0)
		return len(got) == 1 // delivered is an hour away
	})
	_, lines := b.logs(t, `to_email = 'bounce@example.org'`, 0)
	var one object
	fromJSON(t, b.do(t, "GET", "/sendgrid/v3/logs/"+lines[0]["sg_message_id"].(string), "", b.sendGridHeader()).body, &one)
	want := object{"to_email": "bounce@example.org", "status": "bounced", "custom_args": object{"gw_msg": "m2"}}
	if diff := cmp.Diff(want, only(one, "to_email", "status", "custom_args")); diff != "" {
		t.Errorf("details (-want +got):\n%s", diff)
	}
	var events []any
	for _, e := range one["events"].([]any) {
		events = append(events, e.(object)["event"])
	}
	if diff := cmp.Diff([]any{"processed", "bounce"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if a := b.do(t, "GET", "/sendgrid/v3/logs/nothing", "", b.sendGridHeader()); a.status != 404 {
		t.Errorf("an unknown id = %d", a.status)
	}
	for _, bad := range []string{`to_email LIKE 'x'`, `to_email = 'x' OR subject = 'y'`, `(to_email = 'x')`, `to_email = x`, `to_email = 'x' AND `, `sg_message_id_created_at > TIMESTAMP "now"`} {
		if status, _ := b.logs(t, bad, 0); status != 400 {
			t.Errorf("%s = %d, want 400", bad, status)
		}
	}
	if status, _ := b.logs(t, "", 1001); status != 400 {
		t.Errorf("limit 1001 = %d, want 400", status)
	}
	if got := b.Stats()["sendgrid"].Lookups; got < 10 {
		t.Errorf("%d look-ups counted", got)
	}
}

func (b *server) mailgunGet(t *testing.T, path string) answer {
	t.Helper()
	return b.do(t, "GET", "/mailgun"+path, "", map[string]string{"Authorization": mailgunAuth(key("mailgun", "api_key"))})
}

func (b *server) analytics(t *testing.T, body object) (int, []object, object) {
	t.Helper()
	a := b.do(t, "POST", "/mailgun/v1/analytics/logs", toJSON(t, body), map[string]string{
		"Authorization": mailgunAuth(key("mailgun", "api_key")), "Content-Type": "application/json",
	})
	var out struct {
		Items      []object
		Pagination object
	}
	if a.status == 200 {
		fromJSON(t, a.body, &out)
	}
	return a.status, out.Items, out.Pagination
}

func predicate(attribute, comparator, value string) object {
	return object{"attribute": attribute, "comparator": comparator, "values": []any{object{"label": value, "value": value}}}
}

func TestMailgunAnalyticsLogs(t *testing.T) {
	t.Parallel()
	b := start(t, quick())
	id := b.mailgunTo(t, "ann@example.org", "h:Message-Id", "<m1@mg.example.com>")
	b.mailgunTo(t, "bounce@example.org")
	if id != "m1@mg.example.com" {
		t.Fatalf("id = %q", id)
	}
	eventually(t, "all events", func() bool { _, all, _ := b.analytics(t, object{"duration": "1h"}); return len(all) == 4 })
	now := time.Now()
	tests := []struct {
		body object
		want int
	}{
		{object{"start": now.Add(-time.Minute).Format(time.RFC1123Z), "end": now.Add(time.Minute).Format(time.RFC1123Z)}, 4},
		{object{"start": now.Add(-time.Hour).Format(time.RFC1123Z), "end": now.Add(-time.Minute).Format(time.RFC1123Z)}, 0},
		{object{"events": []any{"failed"}}, 1},
		{object{"events": []any{"accepted", "delivered"}}, 3},
		{object{"filter": object{"AND": []any{predicate("domain", "=", "mg.example.com"), predicate("recipient", "=", "ann@example.org")}}}, 2},
		{object{"filter": object{"AND": []any{predicate("domain", "=", "other.example.com")}}}, 0},
		{object{"filter": object{"AND": []any{predicate("message-id", "=", id)}}}, 2},
		{object{"filter": object{"AND": []any{predicate("recipient", "!=", "ann@example.org")}}}, 2},
		{object{"filter": object{"AND": []any{predicate("recipient", "contains", "ANN")}}}, 2},
	}
	for _, tc := range tests {
		if status, got, _ := b.analytics(t, tc.body); status != 200 || len(got) != tc.want {
			t.Errorf("%v = %d, %d items, want %d", tc.body, status, len(got), tc.want)
		}
	}
	var seen []string
	token := ""
	for range 4 {
		_, items, pages := b.analytics(t, object{"duration": "1h", "pagination": object{"sort": "timestamp:asc", "limit": 1, "token": token}})
		for _, i := range items {
			seen = append(seen, i["id"].(string))
			if i["user-variables"] != `{"gw_msg":"m1"}` || i["@timestamp"] == nil {
				t.Errorf("item = %v", i)
			}
		}
		token, _ = pages["next"].(string)
	}
	if distinct(seen) != 4 || token != "" {
		t.Errorf("pages have %v, and after the last %q", seen, token)
	}
	for _, bad := range []object{
		{"start": "yesterday"},
		{"duration": "1x"},
		{"pagination": object{"token": "x", "limit": 1}},
		{"pagination": object{"limit": 1001}},
		{"filter": object{"AND": []any{predicate("user-variables", "=", "x")}}},
		{"filter": object{"AND": []any{object{"attribute": "domain"}}}},
	} {
		if status, _, _ := b.analytics(t, bad); status != 400 {
			t.Errorf("%v = %d, want 400", bad, status)
		}
	}
}

func TestMailgunEvents(t *testing.T) {
	t.Parallel()
	b := start(t, quick())
	id := b.mailgunTo(t, "ann@example.org")
	b.mailgunTo(t, "defer@example.org")
	type page struct {
		Items  []object
		Paging struct{ Next string }
	}
	get := func(query string) page {
		a := b.mailgunGet(t, "/v3/mg.example.com/events?"+query)
		var p page
		if a.status != 200 {
			t.Fatalf("%s = %d %s", query, a.status, a.body)
		}
		fromJSON(t, a.body, &p)
		return p
	}
	eventually(t, "the events", func() bool { return len(get("ascending=yes&begin=1").Items) == 4 })
	for query, want := range map[string]int{
		"message-id=" + url.QueryEscape(id):                              2,
		"recipient=defer@example.org":                                    2,
		"event=failed":                                                   1,
		"event=failed&severity=permanent":                                0,
		"event=" + url.QueryEscape("accepted OR delivered") + "&limit=2": 2,
		"begin=1&end=2":                                                  0,
		"begin=" + url.QueryEscape(time.Now().Add(time.Minute).Format(time.RFC1123Z)) + "&end=1": 4,
	} {
		if got := get(query); len(got.Items) != want {
			t.Errorf("%s gives %d, want %d", query, len(got.Items), want)
		}
	}
	first := get("limit=3&begin=1&ascending=yes")
	next := strings.TrimPrefix(first.Paging.Next, b.URL()+"/mailgun/v3/mg.example.com/events?")
	if second := get(next); len(first.Items) != 3 || len(second.Items) != 1 || second.Items[0]["id"] == first.Items[2]["id"] {
		t.Errorf("pages of %d and %d", len(first.Items), len(second.Items))
	}
	for _, bad := range []string{"limit=301", "begin=x", "page=x"} {
		if a := b.mailgunGet(t, "/v3/mg.example.com/events?"+bad); a.status != 400 {
			t.Errorf("%s = %d, want 400", bad, a.status)
		}
	}
}

func (b *server) outbound(t *testing.T, query string) (int, []object) {
	t.Helper()
	a := b.do(t, "GET", "/postmark/messages/outbound?"+query, "", postmarkHeader(key("postmark", "server_token")))
	var out struct {
		TotalCount int
		Messages   []object
	}
	if a.status == 200 {
		fromJSON(t, a.body, &out)
	}
	return a.status, out.Messages
}

func TestPostmarkMessages(t *testing.T) {
	t.Parallel()
	b := start(t, quick())
	var res postmarkResult
	fromJSON(t, b.postmark(t, "/email", postmarkBody("To", "bounce@example.org")).body, &res)
	b.postmark(t, "/email", postmarkBody("Metadata", object{"gw_msg": "m2"}))
	b.postmark(t, "/email", postmarkBody("Metadata", object{"gw_msg": "m3"}, "MessageStream", "news"))
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Skip("no time zones on this machine")
	}
	past := url.QueryEscape(time.Now().In(zone).Add(-time.Minute).Format("2006-01-02T15:04:05"))
	next := url.QueryEscape(time.Now().In(zone).Add(time.Minute).Format("2006-01-02T15:04:05"))
	for query, want := range map[string]int{
		"count=50&offset=0":                                        2,
		"count=1&offset=0":                                         1,
		"count=50&offset=2":                                        0,
		"count=50&offset=0&metadata_gw_msg=m1":                     1,
		"count=50&offset=0&metadata_gw_msg=m9":                     0,
		"count=50&offset=0&metadata_other=m1":                      0,
		"count=50&offset=0&messagestream=news":                     1,
		"count=50&offset=0&recipient=ann@example.org":              1,
		"count=50&offset=0&fromemail=shop@example.com":             2,
		"count=50&offset=0&fromdate=" + past + "&todate=" + next:   2,
		"count=50&offset=0&fromdate=" + next:                       0,
		"count=50&offset=0&todate=" + past:                         0,
		"count=50&offset=0&todate=2001-01-01":                      0,
		"count=50&offset=0&fromdate=2001-01-01&metadata_gw_msg=m2": 1,
	} {
		if status, got := b.outbound(t, query); status != 200 || len(got) != want {
			t.Errorf("%s = %d, %d messages, want %d", query, status, len(got), want)
		}
	}
	for _, bad := range []string{"", "count=50", "count=501&offset=0", "count=500&offset=9501", "count=1&offset=0&fromdate=x", "count=1&offset=0&metadata_a=1&metadata_b=2"} {
		if status, _ := b.outbound(t, bad); status != 422 {
			t.Errorf("%q = %d, want 422", bad, status)
		}
	}
	_, found := b.outbound(t, "count=50&offset=0&metadata_gw_msg=m1")
	if found[0]["MessageID"] != res.MessageID || cmp.Diff(object{"gw_msg": "m1"}, found[0]["Metadata"]) != "" {
		t.Errorf("found %v", found[0])
	}
	details := func() (kinds []any) {
		var m struct{ MessageEvents []object }
		fromJSON(t, b.do(t, "GET", "/postmark/messages/outbound/"+res.MessageID+"/details", "", postmarkHeader(key("postmark", "server_token"))).body, &m)
		for _, e := range m.MessageEvents {
			kinds = append(kinds, e["Type"])
		}
		return kinds
	}
	eventually(t, "the bounce", func() bool { return cmp.Diff([]any{"Bounced", "SubscriptionChanged"}, details()) == "" })
	if a := b.do(t, "GET", "/postmark/messages/outbound/x/details", "", postmarkHeader(key("postmark", "server_token"))); a.status != 422 {
		t.Errorf("an unknown id = %d", a.status)
	}
}

func TestLookupsCheckTheCredential(t *testing.T) {
	t.Parallel()
	b := start(t, quick())
	for _, call := range [][2]string{
		{"POST", "/sendgrid/v3/logs"},
		{"GET", "/sendgrid/v3/logs/x"},
		{"POST", "/mailgun/v1/analytics/logs"},
		{"GET", "/mailgun/v3/mg.example.com/events"},
		{"GET", "/postmark/messages/outbound?count=1&offset=0"},
		{"GET", "/postmark/messages/outbound/x/details"},
		{"GET", "/sendgrid/v3/user/webhooks/event/settings/all"},
		{"GET", "/mailgun/v3/domains/mg.example.com/webhooks"},
		{"GET", "/mailgun/v5/accounts/http_signing_key"},
		{"GET", "/postmark/webhooks"},
	} {
		if a := b.do(t, call[0], call[1], "{}", nil); a.status != 401 {
			t.Errorf("%s %s = %d, want 401", call[0], call[1], a.status)
		}
	}
	if a := b.do(t, "GET", "/ses/v2/email/configuration-sets", "", nil); a.status != 403 {
		t.Errorf("ses = %d, want 403", a.status)
	}
}

func TestLookupFaults(t *testing.T) {
	t.Parallel()
	b := start(t, quick())
	b.postmark(t, "/email", postmarkBody())
	find := func() (int, int) {
		status, got := b.outbound(t, "count=50&offset=0&metadata_gw_msg=m1")
		return status, len(got)
	}
	for script, want := range map[string][2]int{
		`{"postmark":[{"mode":"lookup_empty","count":1}]}`:                                {200, 0},
		`{"postmark":[{"mode":"lookup_delay","latency":"1m","count":1,"match":"ann@*"}]}`: {200, 0},
		`{"postmark":[{"mode":"lookup_delay","latency":"1m","count":1,"match":"bob@*"}]}`: {200, 1},
		`{"postmark":[{"mode":"throttle","path":"lookup","count":1}]}`:                    {429, 0},
		`{"postmark":[{"mode":"error","path":"lookup","status":503,"count":1}]}`:          {503, 0},
		`{"postmark":[{"mode":"latency","path":"lookup","latency":"1ms","count":1}]}`:     {200, 1},
		`{"postmark":[{"mode":"error","status":503,"count":1}]}`:                          {200, 1},
	} {
		b.faults(t, script)
		if status, n := find(); status != want[0] || n != want[1] {
			t.Errorf("%s: %d, %d found, want %v", script, status, n, want)
		}
		if !strings.Contains(script, "bob@") && strings.Contains(script, "lookup") {
			if status, n := find(); status != 200 || n != 1 {
				t.Errorf("after %s: %d, %d found", script, status, n)
			}
		}
	}
	late := start(t, emulator.Options{LookupDelay: time.Hour})
	late.postmark(t, "/email", postmarkBody())
	if _, got := late.outbound(t, "count=50&offset=0"); len(got) != 0 {
		t.Errorf("with a delay %d are seen at once", len(got))
	}
}

func TestLookupsOutliveARestart(t *testing.T) {
	t.Parallel()
	opt := quick()
	opt.LedgerPath = t.TempDir() + "/ledger"
	first := start(t, opt)
	in := newInbox(t, nil)
	if err := first.SetHooks(map[string]emulator.Hook{"mailgun": {"url": in.URL}}); err != nil {
		t.Fatal(err)
	}
	first.mailgunTo(t, "ann@example.org")
	told := mailgunIDs(t, in.wait(t, 2), "delivered")
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := start(t, opt)
	_, items, _ := second.analytics(t, object{"events": []any{"delivered"}})
	if len(items) != 1 || items[0]["id"] != told[0] {
		t.Errorf("items = %v, told was %v", items, told)
	}
}
