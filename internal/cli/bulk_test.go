package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bulkWorld answers a count of matched messages, and then two pages. The second fails at first.
func bulkWorld(t *testing.T, matched int) (w *world, bodies *[]map[string]any) {
	t.Helper()
	bodies = &[]map[string]any{}
	failed := false
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var body map[string]any
		if err := json.Unmarshal(raw, &body); err != nil {
			t.Error(err)
		}
		*bodies = append(*bodies, body)
		switch {
		case body["dry_run"] == true:
			raw, _ = json.Marshal(map[string]any{"matched": matched, "cursor": "A"})
			answer{200, nil, string(raw)}.write(rw)
		case body["cursor"] == "A":
			answer{200, nil, `{"matched":3,"done":2,"maybe_sent":0,"skipped":0,"cursor":"B"}`}.write(rw)
		case !failed:
			failed = true
			answer{503, nil, `{"title":"Database","status":503,"code":"database"}`}.write(rw)
		default:
			answer{200, nil, `{"matched":3,"done":0,"maybe_sent":1,"skipped":0}`}.write(rw)
		}
	}))
	t.Cleanup(srv.Close)
	return &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_URL=" + srv.URL, "SENDGATE_ADMIN_KEY=sg_admin"}}, bodies
}

func TestBulkCountsThenGoesThroughAllPages(t *testing.T) {
	t.Parallel()
	w, bodies := bulkWorld(t, 3)
	o := w.run("bulk", "resend", "--status", "failed", "--account", "ses", "--tenant", "shop", "--tag", "t", "--yes", "--json")
	var got bulkOutput
	mustJSON(t, o.out, &got)
	if want := (bulkOutput{Action: "resend", Matched: 3, Done: 2, MaybeSent: 1}); got != want || o.code != 0 {
		t.Errorf("code %d, %+v, want %+v; %s", o.code, got, want, o.err)
	}
	request := func(more map[string]any) map[string]any {
		r := map[string]any{"action": "resend", "status": "failed", "account": "ses", "tenant": "shop", "tag": "t"}
		for k, v := range more {
			r[k] = v
		}
		return r
	}
	want := []map[string]any{
		request(map[string]any{"dry_run": true}), request(map[string]any{"cursor": "A"}), request(map[string]any{"cursor": "B"}), request(map[string]any{"cursor": "B"}),
	}
	if diff := cmp.Diff(want, *bodies); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

func TestBulkChangesNothingUnasked(t *testing.T) {
	t.Parallel()
	w, bodies := bulkWorld(t, 3)
	w.run("bulk", "cancel", "--tag", "t").want(t, 2, "", "add --yes, or --dry-run")
	if len(*bodies) > 0 {
		t.Errorf("requests: %v", *bodies)
	}
	w.run("bulk", "cancel", "--tag", "t", "--dry-run").want(t, 0, "matched  3", "")
	w.run("bulk", "resend", "--status", "delivered", "--yes").want(t, 2, "", "must be one of")
	if n := len(*bodies); n != 1 {
		t.Errorf("%d requests, want the count only", n)
	}
	none, bodies := bulkWorld(t, 0)
	none.run("bulk", "fail", "--all", "--yes").want(t, 0, "matched  0", "")
	if n := len(*bodies); n != 1 {
		t.Errorf("%d requests for no messages, want the count only", n)
	}
}

func TestAQuestionIsAnsweredByYesOnly(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "yes": true, "n\n": false, "\n": false, "yep\n": false} {
		var said strings.Builder
		ok, err := ask(&Streams{In: strings.NewReader(answer), Err: &said}, "cancel 3 messages?")
		if ok != want || (err == nil) != want {
			t.Errorf("%q is %t, %v", answer, ok, err)
		}
	}
	if _, err := ask(&Streams{In: strings.NewReader(""), Err: io.Discard}, "?"); err == nil {
		t.Error("no answer is an answer")
	}
}
