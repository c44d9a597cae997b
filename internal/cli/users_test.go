package cli

import (
	"strings"
	"testing"
)

const invitedJSON = `{"name":"ann","role":"admin","state":"invited","recovery_codes":0,"created_at":"2026-01-31T08:30:00.000Z","link":"/dash/welcome#TOKEN","link_expires_at":"2026-02-01T08:30:00.000Z"}`

func TestUsersCreatePrintsTheLinkAtTheAddressOfTheAdminAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"POST /admin/v1/users": {201, nil, invitedJSON}, "POST /admin/v1/users/ann/reset": {201, nil, invitedJSON},
	})
	o := w.run("users", "create", "ann", "--role", "admin")
	o.want(t, 0, w.url()+"/dash/welcome#TOKEN", "whoever opens it first")
	if got, want := w.last("POST", "/admin/v1/users").body, `{"name":"ann","role":"admin"}`; got != want {
		t.Errorf("POST %s\nwant %s", got, want)
	}
	w.run("users", "reset", "ann", "--json").want(t, 0, `"link": "`+w.url()+`/dash/welcome#TOKEN"`, "")
	w.run("users", "create", "ann", "--role", "root").want(t, 2, "", "role")
}

func TestUsersAreChangedAndSignedOut(t *testing.T) {
	t.Parallel()
	const ann = `{"name":"ann","role":"viewer","state":"active","recovery_codes":9,"created_at":"2026-01-31T08:30:00.000Z"}`
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/users": {200, nil, `{"data":[` + ann + `]}`}, "GET /admin/v1/users/ann": {200, nil, ann}, "PATCH /admin/v1/users/ann": {200, nil, ann},
		"GET /admin/v1/users/ann/sessions": {200, nil, `{"data":[{"id":"3f9a","from":"192.0.2.7/32","agent":"Firefox",` +
			`"created_at":"2026-01-31T08:30:00.000Z","seen_at":"2026-01-31T08:30:00.000Z","expires_at":"2026-01-31T08:30:00.000Z"}]}`},
		"DELETE /admin/v1/users/ann/sessions": {204, nil, ""},
	})
	w.run("users", "list").want(t, 0, "ann", "")
	w.run("users", "show", "ann").want(t, 0, "viewer", "")
	w.run("users", "sessions", "ann").want(t, 0, "Firefox", "")
	w.run("users", "sign-out", "ann").want(t, 0, "signed out", "")
	for _, tc := range []struct{ line, body string }{{"role", `{"role":"support"}`}, {"disable", `{"disabled":true}`}, {"enable", `{"disabled":false}`}} {
		args := []string{"users", tc.line, "ann"}
		if tc.line == "role" {
			args = append(args, "support")
		}
		w.run(args...).want(t, 0, "ann", "")
		if got := w.last("PATCH", "/admin/v1/users/ann").body; got != tc.body {
			t.Errorf("%s: PATCH %s, want %s", tc.line, got, tc.body)
		}
	}
}

// url is the address of the service that the commands call.
func (w *world) url() string {
	for _, kv := range w.env {
		if url, ok := strings.CutPrefix(kv, "SENDGATE_URL="); ok {
			return url
		}
	}
	return ""
}
