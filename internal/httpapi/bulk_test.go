package httpapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestBulkChangesOnlyWhatWasCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.bulkMatches = 3
	c := r.client(r.admin)
	req := api.BulkRequest{Action: "cancel", Tenant: "default", Tag: "sale", To: "Ann@Example.org", DryRun: true}
	counted, err := c.Bulk(t.Context(), req)
	if err != nil || counted.Matched != 3 || counted.Done != 0 || counted.Cursor == "" || r.store.count("Bulk") != 0 {
		t.Fatalf("dry run = %+v, %v, after %d changes", counted, err, r.store.count("Bulk"))
	}
	req.DryRun = false
	if _, err := c.Bulk(t.Context(), req); code(err) != "422 invalid" {
		t.Errorf("a change without a count = %v, want 422", err)
	}
	for name, change := range map[string]func(*api.BulkRequest){
		"action": func(r *api.BulkRequest) { r.Action = "fail" },
		"filter": func(r *api.BulkRequest) { r.Tag = "other" },
		"tenant": func(r *api.BulkRequest) { r.Tenant = "" },
		"force":  func(r *api.BulkRequest) { r.Force = true },
	} {
		other := req
		other.Cursor = counted.Cursor
		change(&other)
		if _, err := c.Bulk(t.Context(), other); code(err) != "400 invalid_cursor" {
			t.Errorf("another %s under the same cursor = %v, want 400", name, err)
		}
	}
	req.Cursor = counted.Cursor
	first, err := c.Bulk(t.Context(), req)
	if err != nil || first.Done != 2 || first.Skipped != 1 || first.Matched != 3 || first.Cursor == "" {
		t.Fatalf("first page = %+v, %v", first, err)
	}
	req.Cursor = first.Cursor
	last, err := c.Bulk(t.Context(), req)
	if err != nil || last.Cursor != "" {
		t.Fatalf("last page = %+v, %v", last, err)
	}
	count, one, two := r.store.bulks[0], r.store.bulks[1], r.store.bulks[2]
	if one.Upto != count.Upto || two.Upto != count.Upto || one.Upto.IsZero() || !one.After.IsZero() || two.After.IsZero() ||
		one.Tenant != mail.DefaultTenant || one.Tag != "sale" || one.To != "Ann@example.org" {
		t.Errorf("the store was asked for %+v, then %+v and %+v", count, one, two)
	}
	audited, err := json.Marshal(one.Audit)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"at_least":false,"filter":{"action":"cancel","tenant":"default","to":"***@Example.org","tag":"sale"},"matched":3}`; string(audited) != want || two.Audit != nil {
		t.Errorf("audit = %s and %v, want %s once", audited, two.Audit, want)
	}
}

func TestBulkLooksADayBackForMessagesThatHaveEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	counted, err := r.client(r.admin).Bulk(t.Context(), api.BulkRequest{Action: "resend", Status: "failed", DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	want := r.clock.now().Add(-bulkSpan)
	if _, err := r.client(r.admin).Bulk(t.Context(), api.BulkRequest{Action: "resend", Status: "failed", Cursor: counted.Cursor}); err != nil {
		t.Fatal(err)
	}
	for _, b := range r.store.bulks {
		if !b.Since.Equal(want) {
			t.Errorf("since = %s, want %s", b.Since, want)
		}
	}
}

func TestBulkRefusesWhatItCannotMean(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, want := range map[string]string{
		`{"action":"delete"}`:                                                         "action",
		`{"action":"cancel","dry_run":true}`:                                          "all",
		`{"action":"cancel","status":"unknown","dry_run":true}`:                       "status",
		`{"action":"cancel","status":"sent","dry_run":true}`:                          "status",
		`{"action":"requeue","status":"scheduled","dry_run":true}`:                    "status",
		`{"action":"resend","all":true,"dry_run":true}`:                               "status",
		`{"action":"resend","status":"bounced","dry_run":true}`:                       "status",
		`{"action":"cancel","tag":"a","to":"nobody","dry_run":true}`:                  "to",
		`{"action":"cancel","tag":"a\u0000","dry_run":true}`:                          "tag",
		`{"action":"cancel","tag":"` + strings.Repeat("a", 321) + `","dry_run":true}`: "tag",
		`{"action":"cancel","tenant":"nobody","dry_run":true}`:                        "tenant",
		`{"action":"cancel","since":"9999-01-31T08:00:00Z","dry_run":true}`:           "since",
	} {
		a := r.do("POST", "/admin/v1/messages/bulk", r.admin, body)
		if r.want(a, 422, "invalid"); len(a.problem.Errors) != 1 || a.problem.Errors[0].Field != want {
			t.Errorf("%s: %+v, want a complaint about %s", body, a.problem.Errors, want)
		}
	}
	for _, body := range []string{
		`{"action":"requeue","status":"unknown","dry_run":true}`, `{"action":"resend","status":"failed_unknown","dry_run":true}`,
	} {
		r.want(r.do("POST", "/admin/v1/messages/bulk", r.admin, body), 409, "maybe_sent")
		r.want(r.do("POST", "/admin/v1/messages/bulk", r.admin, strings.Replace(body, "dry_run", `force":true,"dry_run`, 1)), 200, "")
	}
	if n := r.store.count("Bulk"); n != 0 {
		t.Errorf("%d changes", n)
	}
	r.store.bulkMatches = record.MaxCounted
	counted, err := r.client(r.admin).Bulk(t.Context(), api.BulkRequest{Action: "cancel", All: true, DryRun: true})
	if err != nil || !counted.AtLeast {
		t.Errorf("a count that stopped = %+v, %v", counted, err)
	}
}
