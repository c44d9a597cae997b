package cli

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestErrorsAreJSONWhereTheOutputIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/queue": {503, map[string]string{"Retry-After": "90"}, `{"type":"/problems/database","title":"Database","status":503,"code":"database","request_id":"r-1"}`},
		"POST /v1/send":       {422, nil, `{"title":"Invalid","status":422,"code":"invalid","errors":[{"field":"to[0].email","code":"invalid_address","message":"must be <one> address"}]}`},
	})
	closed := httptest.NewServer(nil)
	closed.Close()
	away := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_URL=" + closed.URL, "SENDGATE_ADMIN_KEY=sg_admin"}}
	for _, c := range []struct {
		o    outcome
		code int
		want map[string]any
	}{
		{w.run("queue", "--json"), 1, map[string]any{
			"type": "/problems/database", "title": "Database", "status": 503.0, "code": "database", "request_id": "r-1",
			"retry_after_seconds": 90.0, "hint": "Repeat the command after 1m30s.",
		}},
		{w.run("send", "--json", "--from", "a@example.com", "--to", "x", "--text", "Hi"), 1, map[string]any{
			"title": "Invalid", "status": 422.0, "code": "invalid", "hint": "Correct to[0].email and repeat the command. Nothing was changed.",
			"errors": []any{map[string]any{"field": "to[0].email", "code": "invalid_address", "message": "must be <one> address"}},
		}},
		{w.run("messages", "list", "--json", "--limit", "0"), 2, map[string]any{
			"title": "Wrong usage", "code": "usage", "detail": "--limit must be 1 to 200, got 0",
		}},
		{w.run("route", "explain", "--json", "--file", "nowhere"), 1, map[string]any{
			"title": "Failed", "code": "failed", "detail": "read message: open " + w.dir + "/nowhere: no such file or directory",
		}},
	} {
		var got map[string]map[string]any
		mustJSON(t, c.o.err, &got)
		if diff := cmp.Diff(c.want, got["error"]); diff != "" || c.o.code != c.code || c.o.out != "" || strings.Count(c.o.err, "\n") != 1 {
			t.Errorf("code %d, stdout %q, stderr %s (-want +got)\n%s", c.o.code, c.o.out, c.o.err, diff)
		}
	}
	away.run("queue", "--json").want(t, 1, "", `"code":"unreachable"`)
	w.run("queue", "--json", "--nope").want(t, 2, "", `"code":"usage"`)
	w.run("queue").want(t, 1, "", "sendgate: Database")
}
