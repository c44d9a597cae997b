package cli

import (
	"strings"
	"testing"
)

func TestNotifyAddKnowsItsChannels(t *testing.T) {
	t.Parallel()
	const rules = "/admin/v1/notify-rules"
	w := newWorld(t, map[string]answer{
		"POST " + rules: {201, nil, `{"name":"pager","channel":"webhook","url":"https://ops.example.com","secret":"whsec_abc","created_at":"2026-01-31T08:30:00Z"}`},
	})
	w.env = append(w.env, "SLACK_URL=https://hooks.example.com/canary")
	o := w.run("notify", "add", "pager", "--webhook", "https://ops.example.com/in", "--kind", "books,queue_age")
	o.want(t, 0, "whsec_abc", "")
	for _, tt := range []struct{ args, body string }{
		{"", `{"name":"pager","channel":"webhook","kinds":["books","queue_age"],"url":"https://ops.example.com/in"}`},
		{"--slack=env:SLACK_URL", `{"name":"chat","channel":"slack","url":"https://hooks.example.com/canary"}`},
		{"--mail=ops@example.com --from=sendgate@example.com", `{"name":"chat","channel":"mail","from":"sendgate@example.com","to":["ops@example.com"]}`},
	} {
		if tt.args != "" {
			w.run(append([]string{"notify", "add", "chat"}, strings.Fields(tt.args)...)...).want(t, 0, "pager", "")
		}
		if got := w.last("POST", rules).body; got != tt.body {
			t.Errorf("%s: POST %s\nwant %s", tt.args, got, tt.body)
		}
	}
	calls := len(w.calls)
	w.run("notify", "add", "chat").want(t, 2, "", "say how to tell")
	w.run("notify", "add", "chat", "--slack", "https://hooks.example.com/canary").want(t, 2, "", "visible to every user")
	w.run("notify", "add", "chat", "--mail", "ops@example.com").want(t, 2, "", "--mail needs it")
	w.run("notify", "add", "chat", "--webhook", "https://a.example", "--mail", "b@example.com").want(t, 2, "", "can't be used together")
	if len(w.calls) != calls {
		t.Error("a wrong command line made a call")
	}
}

func TestNotifyTestFailsWithItsRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"POST /admin/v1/notify-rules/good/test": {200, nil, `{"told":true}`},
		"POST /admin/v1/notify-rules/bad/test":  {200, nil, `{"told":false,"error":"the answer was 404"}`},
	})
	w.run("notify", "test", "good").want(t, 0, "told", "")
	w.run("notify", "test", "bad").want(t, 1, "the answer was 404", "the rule did not work")
}

func TestNotifyIncidents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET /admin/v1/incidents": {
		200, nil,
		`{"data":[{"id":"01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f","kind":"auth_failure","account":"ses","summary":"x","detail":"403","runbook":"r","since":"2026-01-31T08:30:00Z","began_at":"2026-01-31T08:30:00Z"}]}`,
	}})
	w.run("notify", "incidents").want(t, 0, "auth_failure", "")
}
