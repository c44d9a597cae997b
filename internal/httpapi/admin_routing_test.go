package httpapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

func TestPoolIsTurnedUnderIfMatch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("a")
	r.account("b")
	const body = `{"overflow":"wait","accounts":[{"account":"b","weight":30},{"account":"a","weight":70.5}]}`
	got := r.do("GET", "/admin/v1/pools/default", r.admin, "")
	r.want(got, 200, "")
	tag := got.header.Get("ETag")
	if tag != `"1"` {
		t.Fatalf("ETag = %q, want \"1\"", tag)
	}
	a := r.do("PUT", "/admin/v1/pools/default", r.admin, body, "If-Match", tag)
	r.want(a, 200, "")
	want := api.Pool{
		Name: "default", Overflow: "wait", Version: 2,
		Accounts: []api.PoolMember{{Account: "a", Weight: 70.5}, {Account: "b", Weight: 30}},
	}
	if diff := cmp.Diff(want, decoded[api.Pool](t, a)); diff != "" || a.header.Get("ETag") != `"2"` {
		t.Errorf("pool (-want +got), ETag %s:\n%s", a.header.Get("ETag"), diff)
	}
	refused := map[string]struct {
		status int
		code   string
	}{
		tag: {412, "stale"}, `"99"`: {412, "stale"}, `"abc"`: {412, "stale"}, `W/"2"`: {412, "stale"}, `"02"`: {412, "stale"},
		"": {428, "precondition_required"}, "2": {400, "invalid_if_match"}, `"1", "2"`: {400, "invalid_if_match"},
	}
	for tag, want := range refused {
		a := r.do("PUT", "/admin/v1/pools/default", r.admin, body, "If-Match", tag)
		if a.status != want.status || a.problem.Code != want.code || a.header.Get("ETag") != "" {
			t.Errorf("If-Match %s = %d %s, want %d %s", tag, a.status, a.problem.Code, want.status, want.code)
		}
	}
	a = r.do("PUT", "/admin/v1/pools/default", r.admin, body, "If-Match", "*")
	r.want(a, 200, "")
	if got := r.store.count("UpdatePool"); got != 4 { // "1", "99", * and the first
		t.Errorf("updates that reached the store = %d, want 4", got)
	}
}

func TestPoolRefusesWeightsThatMeanNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("ses")
	r.account("old")
	if err := r.client(r.admin).DeleteAccount(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{ // accounts: field
		`[{"account":"ses","weight":-1}]`:                             "accounts[0].weight",
		`[{"account":"ses","weight":1000000.5}]`:                      "accounts[0].weight",
		`[{"account":"ses","weight":1e309}]`:                          "accounts[0].weight",
		`[{"account":"ses","weight":"70"}]`:                           "accounts[0].weight",
		`[{"account":"ses","weight":0}]`:                              "accounts",
		`[]`:                                                          "accounts",
		`[{"account":"sess","weight":1}]`:                             "accounts[0].account",
		`[{"account":"old","weight":1}]`:                              "accounts[0].account",
		`[{"account":"ses","weight":1},{"account":"ses","weight":2}]`: "accounts[1].account",
		`[{"account":"ses","wieght":1}]`:                              "accounts[0].wieght",
	}
	for accounts, field := range tests {
		a := r.do("PUT", "/admin/v1/pools/default", r.admin, `{"accounts":`+accounts+`}`, "If-Match", "*")
		r.want(a, 422, "invalid")
		if got := a.problem.Errors[0].Field; got != field {
			t.Errorf("%s: complains about %q, want %q", accounts, got, field)
		}
	}
	a := r.do("PUT", "/admin/v1/pools/default", r.admin, `{"accounts":[{"account":"sess","weight":1}]}`, "If-Match", "*")
	if got := a.problem.Errors[0].Message; got != `is not an account; did you mean "ses"?` {
		t.Errorf("message for an unknown account = %q", got)
	}
	r.want(r.do("PUT", "/admin/v1/pools/default", r.admin, `{"accounts":[{"account":"ses","weight":NaN}]}`, "If-Match", "*"),
		400, "malformed_json")
	a = r.do("PUT", "/admin/v1/pools/default", r.admin, `{"overflow":"spil","accounts":[{"account":"ses","weight":1}]}`, "If-Match", "*")
	r.want(a, 422, "invalid")
	r.want(r.do("PUT", "/admin/v1/pools/none", r.admin, `{"accounts":[{"account":"ses","weight":1}]}`, "If-Match", "*"),
		404, "not_found")
	if p := r.store.config.Pool("default"); p.Version != 1 {
		t.Errorf("pool is at version %d, want 1", p.Version)
	}
}

func TestPoolIsCreatedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("ses")
	c := r.client(r.admin)
	req := api.PoolRequest{Name: "bulk", Accounts: []api.PoolMember{{Account: "ses", Weight: 1}}}
	p, err := c.CreatePool(t.Context(), req)
	if err != nil || p.Version != 1 || p.Overflow != "spill" {
		t.Errorf("CreatePool = %+v, %v", p, err)
	}
	if _, err := c.CreatePool(t.Context(), req); code(err) != "409 name_taken" {
		t.Errorf("second CreatePool = %v, want 409", err)
	}
	req.Name = "No"
	if _, err := c.CreatePool(t.Context(), req); code(err) != "422 invalid" {
		t.Errorf("CreatePool with a bad name = %v, want 422", err)
	}
	pools, err := c.Pools(t.Context())
	if err != nil || len(pools) != 2 {
		t.Errorf("Pools = %+v, %v", pools, err)
	}
	p.Accounts[0].Weight = 5
	if p, err = c.PutPool(t.Context(), *p); err != nil || p.Version != 2 {
		t.Errorf("PutPool = %+v, %v", p, err)
	}
	p.Version = 1
	if _, err := c.PutPool(t.Context(), *p); code(err) != "412 stale" {
		t.Errorf("PutPool of an old version = %v, want 412", err)
	}
}

func TestRulesAreAddedReplacedAndRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.admin)
	made, err := c.CreateRule(t.Context(), api.Rule{Position: 10, SenderDomain: "EXAMPLE.com", RecipientDomain: "exämple.com", Pool: "default"})
	want := &api.Rule{ID: 1, Position: 10, SenderDomain: "example.com", RecipientDomain: "xn--exmple-cua.com", Pool: "default"}
	if err != nil || cmp.Diff(want, made) != "" {
		t.Errorf("CreateRule = %s, %v", cmp.Diff(want, made), err)
	}
	list, err := c.Rules(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("Rules = %+v, %v", list, err)
	}
	list = append(list, api.Rule{Position: 20, Stream: "bulk", Pool: "default"})
	replaced, err := c.ReplaceRules(t.Context(), list)
	if err != nil || len(replaced) != 2 || replaced[0].ID == 1 {
		t.Errorf("ReplaceRules = %+v, %v", replaced, err)
	}
	if err := c.DeleteRule(t.Context(), replaced[0].ID); err != nil {
		t.Error(err)
	}
	if err := c.DeleteRule(t.Context(), replaced[0].ID); code(err) != "404 not_found" {
		t.Errorf("second DeleteRule = %v, want 404", err)
	}
	if left, err := c.ReplaceRules(t.Context(), nil); err != nil || len(left) != 0 {
		t.Errorf("ReplaceRules with none = %+v, %v", left, err)
	}
}

func TestRulesRefuseNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, field := range map[string]string{
		`{"position":-1,"pool":"default"}`:                       "position",
		`{"position":1,"pool":"none"}`:                           "pool",
		`{"position":1}`:                                         "pool",
		`{"position":1,"sender_domain":"a b","pool":"default"}`:  "sender_domain",
		`{"position":1,"recipient_domain":"x","pool":"default"}`: "recipient_domain",
		`{"position":1,"tag":"a\u0001","pool":"default"}`:        "tag",
		`{"position":1,"id":5,"pool":"default"}`:                 "id",
		`{"position":1.5,"pool":"default"}`:                      "position",
	} {
		a := r.do("POST", "/admin/v1/rules", r.admin, body)
		r.want(a, 422, "invalid")
		if got := a.problem.Errors[0].Field; got != field {
			t.Errorf("%s: complains about %q, want %q", body, got, field)
		}
	}
	for body, field := range map[string]string{
		`{}`: "rules",
		`{"rules":[{"position":1,"pool":"default"},{"position":1,"pool":"default"}]}`: "rules[1].position",
		`{"rules":[{"position":1,"pool":"x"}]}`:                                       "rules[0].pool",
	} {
		a := r.do("PUT", "/admin/v1/rules", r.admin, body)
		r.want(a, 422, "invalid")
		if got := a.problem.Errors[0].Field; got != field {
			t.Errorf("%s: complains about %q, want %q", body, got, field)
		}
	}
	r.want(r.do("DELETE", "/admin/v1/rules/x", r.admin, ""), 404, "not_found")
	if r.store.config.Version != 1 {
		t.Error("a refused rule changed the configuration")
	}
}

func TestExplainTellsFactsAndDecisionAndStoresNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.do("POST", "/admin/v1/route/explain", r.admin,
		`{"from":"Shop <shop@EXAMPLE.com>","to":["ann@example.org","jöhn@example.net"],"subject":"x","text":"y","tags":["order"]}`)
	r.want(a, 200, "")
	got := decoded[api.Explanation](t, a)
	want := api.Explanation{
		Facts: api.Facts{
			Stream: "transactional", Tags: []string{"order"}, SenderDomain: "example.com",
			RecipientDomains: []string{"example.org", "example.net"}, Recipients: 2, Bytes: got.Facts.Bytes, NeedsSMTPUTF8: true,
		},
		Decision: api.Decision{
			Config: 7, Pool: "default", Chosen: "a",
			Candidates: []api.Candidate{{Account: "a", Weight: 70}, {Account: "b", Weight: 30, Code: "paused", Reason: "paused by an operator"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" || got.Facts.Bytes < 2 {
		t.Errorf("explanation (-want +got):\n%s", diff)
	}
	a = r.do("POST", "/admin/v1/route/explain", r.admin, `{"from":"shop@example.com","to":"ann","text":"y"}`)
	r.want(a, 422, "invalid")
	if r.store.count("Accept") != 0 || len(r.store.messages) != 0 {
		t.Error("explain stored something")
	}
}
