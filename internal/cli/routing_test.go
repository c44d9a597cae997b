package cli

import "testing"

const ruleBody = `{"id":3,"position":1,"stream":"marketing","recipient_domain":"example.net","pool":"bulk"}`

func TestRulesAreListedAddedAndRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/rules":      {200, nil, `{"data":[` + ruleBody + `,{"id":4,"position":9,"pool":"default"}]}`},
		"POST /admin/v1/rules":     {201, nil, ruleBody},
		"DELETE /admin/v1/rules/3": {204, nil, ""},
	})
	w.run("rules", "list").want(t, 0, "stream marketing and recipient domain example.net", "")
	w.run("rules", "list").want(t, 0, "everything", "")
	w.run("rules", "add", "bulk", "--stream", "marketing", "--recipient-domain", "example.net", "--position", "1").want(t, 0, "bulk", "")
	if got, want := w.last("POST", "/admin/v1/rules").body, `{"position":1,"stream":"marketing","recipient_domain":"example.net","pool":"bulk"}`; got != want {
		t.Errorf("POST %s\nwant %s", got, want)
	}
	w.run("rules", "remove", "3").want(t, 0, "removed", "")
	w.run("rules", "remove", "three").want(t, 2, "", "three")
}

func TestTenantsAreListedCreatedWeighedAndPaused(t *testing.T) {
	t.Parallel()
	const body = `{"name":"shop-b","weight":50,"paused":true,"created_at":"2026-11-30T08:00:00.000Z"}`
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/tenants":          {200, nil, `{"data":[` + body + `]}`},
		"POST /admin/v1/tenants":         {201, nil, body},
		"PATCH /admin/v1/tenants/shop-b": {200, nil, body},
	})
	w.run("tenants", "list").want(t, 0, "paused", "")
	for _, c := range []struct {
		method, path, body string
		line               []string
	}{
		{"POST", "/admin/v1/tenants", `{"name":"shop-b","weight":50}`, []string{"create", "shop-b", "--weight", "50"}},
		{"PATCH", "/admin/v1/tenants/shop-b", `{"weight":200}`, []string{"set", "shop-b", "--weight", "200"}},
		{"PATCH", "/admin/v1/tenants/shop-b", `{"paused":true}`, []string{"pause", "shop-b"}},
		{"PATCH", "/admin/v1/tenants/shop-b", `{"paused":false}`, []string{"resume", "shop-b"}},
	} {
		w.run(append([]string{"tenants"}, c.line...)...).want(t, 0, "shop-b", "")
		if got := w.last(c.method, c.path).body; got != c.body {
			t.Errorf("tenants %v: %s %s, want %s", c.line, c.method, got, c.body)
		}
	}
	w.run("tenants", "set", "shop-b").want(t, 2, "", "--weight")
}

func TestRouteIsExplainedByMessageFileAndStandardInput(t *testing.T) {
	t.Parallel()
	const id = "01a2b3c4-5d6e-7f80-9a1b-2c3d4e5f6071"
	const x = `{"facts":{"stream":"transactional","sender_domain":"example.com","recipient_domains":["example.org"],"recipients":1,"bytes":10,"tags":[],"attachments":0,"needs_smtputf8":false},
		"decision":{"config":7,"pool":"default","chosen":"ses","candidates":[{"account":"ses","weight":1},{"account":"relay","weight":2,"code":"parked","reason":"535 no"}]}}`
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/route/explain/" + id: {200, nil, x}, "POST /admin/v1/route/explain": {200, nil, x},
	})
	w.run("route", "explain", id).want(t, 0, "relay, weight 2: parked: 535 no", "")
	const body = `{"from":"a@example.com","surplus":1}`
	w.file("m.json", body)
	w.run("route", "explain", "--file", "m.json").want(t, 0, "pool default, chose ses", "")
	if got := w.last("POST", "/admin/v1/route/explain").body; got != body {
		t.Errorf("sent %s, want the file as it is", got)
	}
	w.run("route", "explain").want(t, 2, "", "--file")
	w.run("route", "explain", id, "--file", "m.json").want(t, 2, "", "--file")
	w.file("no.json", "from: a")
	w.run("route", "explain", "--file", "no.json").want(t, 2, "", "no.json is not JSON")
}

func TestShowSaysWhyAMessageWaits(t *testing.T) {
	t.Parallel()
	const id = "01a2b3c4-5d6e-7f80-9a1b-2c3d4e5f6071"
	w := newWorld(t, map[string]answer{"GET /v1/messages/" + id: {200, nil, `{"id":"` + id + `","status":"queued","created_at":"2026-11-30T08:00:00.000Z",
		"updated_at":"2026-11-30T08:00:00.000Z","from":{"email":"a@example.com"},"subject":"Hi","stream":"transactional","on_ambiguous":"never",
		"waiting":{"code":"limit","reason":"ses: no slot until 09:00","account":"ses","due":"2026-11-30T08:30:00.000Z","until":"2026-11-30T09:00:00.000Z","ahead":10000,"ahead_more":true,
		"decision":{"config":1,"pool":"default","candidates":[{"account":"ses","weight":1,"code":"limit","reason":"no slot until 09:00"}]}}}`}})
	for _, want := range []string{
		"limit: ses: no slot until 09:00, until 2026-11-30 09:00:00Z", "10000+ messages of its queue come first",
		"next look at it by 2026-11-30 08:30:00Z", "- ses, weight 1: no slot until 09:00",
	} {
		w.run("messages", "show", id).want(t, 0, want, "")
	}
}
