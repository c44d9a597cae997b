package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

const suppressedJSON = `{"email":"ann@example.org","stream":"bulk","reason":"soft_bounce","origin":"webhook","account":"ses-eu","detail":"5 soft bounces",` +
	`"created_at":"2026-01-31T12:00:00Z","expires_at":"2026-03-02T12:00:00Z"}`

func TestSuppressionsListAndCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /v1/suppressions": {200, nil, `{"data":[` + suppressedJSON +
			`,{"email":"bob@example.org","reason":"manual","origin":"api","created_at":"2026-01-31T12:00:00Z"}],"next_cursor":"NEXT"}`},
		"GET /v1/suppressions/ann@example.org": {200, nil, `{"data":[` + suppressedJSON + `]}`},
	})
	o := w.run("suppressions", "list", "--email", "ann@example.org", "--stream", "bulk", "--reason", "soft_bounce", "--limit", "2", "--cursor", "CUR")
	o.want(t, 0, "", "--cursor NEXT")
	want := []string{
		"ADDRESS STREAM REASON ORIGIN SINCE UNTIL BY DETAIL",
		"ann@example.org bulk soft_bounce webhook 2026-01-31 12:00:00Z 2026-03-02 12:00:00Z ses-eu 5 soft bounces",
		"bob@example.org all manual api 2026-01-31 12:00:00Z - - -",
	}
	if diff := cmp.Diff(want, fields(o.out)); diff != "" {
		t.Errorf("output (-want +got)\n%s", diff)
	}
	if got := w.last("GET", "/v1/suppressions").query; got != "cursor=CUR&email=ann%40example.org&limit=2&reason=soft_bounce&stream=bulk" {
		t.Errorf("query = %s", got)
	}
	w.run("suppressions", "list", "--limit", "201").want(t, 2, "", "1 to 200")
	w.run("suppressions", "check", "ann@example.org").want(t, 0, "soft_bounce", "")
	w.run("suppressions", "check", "ann@example.org", "--stream", "bulk", "--json").want(t, 0, `"stream": "bulk"`, "")
	if got := w.last("GET", "/v1/suppressions/ann@example.org").query; got != "stream=bulk" {
		t.Errorf("query = %s", got)
	}
	w.run("suppressions", "check", "bob@example.org").want(t, 0, "bob@example.org is not suppressed", "")
	w.run("suppressions", "check", "bob@example.org", "--json").want(t, 0, `"data": []`, "")
}

func TestSuppressionsAddAndRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"POST /v1/suppressions": {201, nil, suppressedJSON}, "DELETE /v1/suppressions/ann@example.org": {204, nil, ""},
	})
	w.run("suppressions", "add", "ann@example.org", "--reason", "complaint").want(t, 0, "ann@example.org", "")
	if got := w.last("POST", "/v1/suppressions").body; got != `{"email":"ann@example.org","reason":"complaint"}` {
		t.Errorf("body = %s", got)
	}
	before := time.Now()
	w.run("suppressions", "add", "ann@example.org", "--stream", "bulk", "--for", "720h", "--detail", "on leave").want(t, 0, "bulk", "")
	var got api.SuppressionRequest
	mustJSON(t, w.last("POST", "/v1/suppressions").body, &got)
	if got.Stream != "bulk" || got.Detail != "on leave" || got.ExpiresAt == nil || got.ExpiresAt.Sub(before).Round(time.Minute) != 720*time.Hour {
		t.Errorf("request = %+v", got)
	}
	w.run("suppressions", "add", "ann@example.org", "--for=-1h").want(t, 2, "", "negative")
	w.run("suppressions", "remove", "ann@example.org").want(t, 0, "removed", "")
	if got := w.last("DELETE", "/v1/suppressions/ann@example.org").query; got != "" {
		t.Errorf("query = %s, want none: all rows of the address", got)
	}
	for flag, query := range map[string]string{"--stream=bulk": "stream=bulk", "--stream=": "stream="} {
		w.run("suppressions", "remove", "ann@example.org", flag).want(t, 0, "removed", "")
		if got := w.last("DELETE", "/v1/suppressions/ann@example.org").query; got != query {
			t.Errorf("%s: query = %s, want %s", flag, got, query)
		}
	}
}

func TestSuppressionsImportStreamsTheFile(t *testing.T) {
	t.Parallel()
	const csv = "email,reason\nann@example.org,complaint\nnobody,manual\n"
	w := newWorld(t, map[string]answer{"POST /v1/suppressions/import": {
		200, nil,
		`{"added":1,"present":2,"invalid":1,"errors":[{"line":3,"message":"is not an address"}]}`,
	}})
	w.file("list.csv", csv)
	w.stdin = csv
	for _, file := range []string{"list.csv", "-"} {
		o := w.run("suppressions", "import", file)
		o.want(t, 1, "", "rows skipped: 1")
		want := []string{"added 1", "already there 2", "skipped 1", "line 3 is not an address"}
		if diff := cmp.Diff(want, fields(o.out)); diff != "" {
			t.Errorf("%s: output (-want +got)\n%s", file, diff)
		}
		call := w.last("POST", "/v1/suppressions/import")
		if call.body != csv {
			t.Errorf("%s: body = %q, want the file as it is", file, call.body)
		}
	}
	w.run("suppressions", "import", "list.csv", "--json").want(t, 1, `"present": 2`, "")
	w.run("suppressions", "import", "nowhere.csv").want(t, 1, "", "no such file")
	w = newWorld(t, map[string]answer{"POST /v1/suppressions/import": {200, nil, `{"added":1,"present":0,"invalid":0,"errors":[]}`}})
	w.stdin = csv
	w.run("suppressions", "import", "-").want(t, 0, "added", "")
}

func TestSuppressionsExportReplacesTheFileWhenAllOfItIsThere(t *testing.T) {
	t.Parallel()
	const csv = "email,stream,reason,origin,created_at,expires_at\nann@example.org,,manual,api,2026-01-31T12:00:00Z,\n"
	w := newWorld(t, map[string]answer{"GET /v1/suppressions/export": {200, map[string]string{"Content-Type": "text/csv"}, csv}})
	if o := w.run("suppressions", "export"); o.out != csv || o.code != 0 {
		t.Errorf("code %d, output %q, want the CSV alone", o.code, o.out)
	}
	w.file("out.csv", "older")
	w.run("suppressions", "export", "out.csv").want(t, 0, "out.csv", "")
	w.wantFile("out.csv", csv)
	w.run("suppressions", "export", "out.csv", "--json").want(t, 0, `"bytes": 99`, "")
	w.run("suppressions", "export", "--json").want(t, 2, "", "give a FILE")
	w.run("suppressions", "export", "no/where.csv").want(t, 1, "", "no such file")

	broken := newWorld(t, map[string]answer{"GET /v1/suppressions/export": {503, nil, `{"title":"Unavailable","status":503,"code":"database"}`}})
	broken.file("out.csv", "older")
	broken.run("suppressions", "export", "out.csv").want(t, 1, "", "Unavailable")
	broken.wantFile("out.csv", "older")
	// the answer breaks off in the middle
	broken = newWorld(t, map[string]answer{"GET /v1/suppressions/export": {200, map[string]string{"Content-Type": "text/csv", "Content-Length": "5000"}, csv}})
	broken.file("out.csv", "older")
	broken.run("suppressions", "export", "out.csv").want(t, 1, "", "EOF")
	broken.wantFile("out.csv", "older")
}

// wantFile fails unless the file has this content and is alone in its folder.
func (w *world) wantFile(name, content string) {
	w.t.Helper()
	got, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil || string(got) != content {
		w.t.Errorf("%s = %q, %v; want %q", name, got, err, content)
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil || len(entries) != 1 {
		w.t.Errorf("%d entries in the directory, %v; want only %s", len(entries), err, name)
	}
}

func TestSizesAreReadable(t *testing.T) {
	t.Parallel()
	var got []string
	for _, n := range []int64{0, 999, 1000, 3_140_000, 64 << 20} {
		got = append(got, sizeText(n))
	}
	if want := "0 bytes, 999 bytes, 1.0 kB, 3.1 MB, 67.1 MB"; strings.Join(got, ", ") != want {
		t.Errorf("sizes = %v, want %s", got, want)
	}
}
