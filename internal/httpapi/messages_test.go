package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// post accepts one message to the address and returns its id.
func (r *rig) post(to string) string {
	r.t.Helper()
	res, err := r.client(r.send).Send(r.t.Context(), api.SendRequest{
		From: api.Address{Email: "shop@example.com", Name: "Shop"}, To: []api.Address{{Email: to, Name: "Ann"}},
		ReplyTo: []api.Address{{Email: "help@example.com"}}, Subject: "Your order", Text: "Hello", HTML: "<p>Hello</p>",
		Headers: map[string]string{"X-Order": "42"}, Tags: []string{"order"}, Metadata: map[string]string{"order_id": "42"},
		Attachments: []api.Attachment{{Filename: "a.txt", ContentType: "text/plain", Content: "aGVsbG8="}},
	}, "")
	if err != nil {
		r.t.Fatal(err)
	}
	return res.ID
}

// edit changes a stored message.
func (r *rig) edit(id string, change func(*record.View)) {
	r.t.Helper()
	parsed, err := mail.ParseID(id)
	if err != nil {
		r.t.Fatal(err)
	}
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	change(r.store.messages[parsed])
}

// code gives the code and status of the *api.Problem in err, or "".
func code(err error) string {
	var p *api.Problem
	if !errors.As(err, &p) {
		return ""
	}
	return fmt.Sprint(p.Status, " ", p.Code)
}

func TestMessageShowsRecipientsAndAttempts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.post("ann@example.org")
	start := r.clock.now()
	r.edit(id, func(v *record.View) {
		v.Status = mail.Sent
		v.Recipients[0].Status, v.Recipients[0].Detail = mail.Sent, "250 ok"
		v.Attempts = []record.Attempt{
			{
				N: 1, Account: "ses-eu", Provider: "ses", Decision: json.RawMessage(`{"config":3,"candidates":[]}`),
				Class: "throttled", Status: 429, Code: "TooManyRequests", Error: "slow down", VerdictSource: "response",
				StartedAt: start, FinishedAt: start.Add(1500 * time.Millisecond),
			},
			{N: 2, Account: "postmark", Provider: "postmark", Class: "uncertain", StartedAt: start.Add(2 * time.Second)},
			{N: 3, Account: "gone", Provider: "ses", Class: "accepted", ProviderMessageID: "0102", StartedAt: start.Add(3 * time.Second)},
			{N: 4, Account: "postmark", Provider: "postmark", StartedAt: start.Add(4 * time.Second)},
		}
	})
	got, err := r.client(r.read).Message(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	took := int64(1500)
	wantAttempts := []api.Attempt{
		{
			N: 1, Account: "ses-eu", Provider: "ses", Decision: json.RawMessage(`{"config":3,"candidates":[]}`),
			Class: "throttled", Status: 429, Code: "TooManyRequests", Error: "slow down", VerdictSource: "response",
			StartedAt: start, TookMS: &took,
		},
		{
			N: 2, Account: "postmark", Provider: "postmark", Class: "uncertain", StartedAt: start.Add(2 * time.Second),
			MessageIDHeader: "<" + id + "@example.com>",
		},
		{
			N: 3, Account: "gone", Provider: "ses", Class: "accepted", ProviderMessageID: "0102", StartedAt: start.Add(3 * time.Second),
			MessageIDHeader: "<0102@>",
		},
		{N: 4, Account: "postmark", Provider: "postmark", StartedAt: start.Add(4 * time.Second)},
	}
	if diff := cmp.Diff(wantAttempts, got.Attempts); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	wantRecipients := []api.Recipient{{
		Email: "ann@example.org", Name: "Ann", Kind: "to", Status: "sent", Detail: "250 ok", UpdatedAt: start,
	}}
	if diff := cmp.Diff(wantRecipients, got.Recipients); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
	wantFiles := []api.AttachmentInfo{{Filename: "a.txt", ContentType: "text/plain", Size: 5}}
	if diff := cmp.Diff(wantFiles, got.Attachments); diff != "" {
		t.Errorf("attachments (-want +got):\n%s", diff)
	}
	if got.Text != "Hello" || got.HTML != "<p>Hello</p>" || got.Headers["X-Order"] != "42" || got.Status != "sent" ||
		got.Events == nil || got.From != (api.Address{Email: "shop@example.com", Name: "Shop"}) {
		t.Errorf("message = %+v", got)
	}
}

func TestMessageOfAnotherTenantDoesNotExist(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.post("ann@example.org")
	other := func(scope record.Scope) string {
		return r.store.addKey(func(k *record.Key) { k.Tenant = 2 }, scope)
	}
	theirRead, theirSend := other(record.ScopeRead), other(record.ScopeSend)
	made := r.do("GET", "/v1/messages/"+mail.NewID().String(), r.read, "", "X-Request-Id", "x")
	for _, a := range []answer{
		r.do("GET", "/v1/messages/"+id, theirRead, "", "X-Request-Id", "x"),
		r.do("POST", "/v1/messages/"+id+"/cancel", theirSend, "", "X-Request-Id", "x"),
		r.do("POST", "/v1/messages/"+id+"/resend", theirSend, "", "X-Request-Id", "x"),
		r.do("GET", "/v1/messages/not-an-id", r.read, "", "X-Request-Id", "x"),
		r.do("GET", "/v1/messages/"+strings.ToUpper(strings.ReplaceAll(id, "-", "")), r.read, "", "X-Request-Id", "x"),
	} {
		r.want(a, http.StatusNotFound, "not_found")
		if diff := cmp.Diff(string(made.body), string(a.body)); diff != "" {
			t.Errorf("answer differs from that for an id nobody has:\n%s", diff)
		}
	}
	page, err := r.client(theirRead).Messages(t.Context(), api.MessageQuery{})
	if err != nil || len(page.Data) != 0 {
		t.Errorf("other tenant's listing = %v, %v, want empty", page, err)
	}
}

func TestListingPagesThroughEverythingOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var want []string
	for i := range 7 {
		want = append([]string{r.post(fmt.Sprintf("u%d@example.org", i))}, want...)
	}
	var got []string
	q := api.MessageQuery{Limit: 3, Tag: "order"}
	for range 4 {
		page, err := r.client(r.read).Messages(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Data {
			got = append(got, m.ID)
			if m.Attempts != nil || m.Events != nil || m.Text != "" || m.Attachments != nil {
				t.Errorf("a listing shows details: %+v", m)
			}
		}
		if q.Cursor = page.NextCursor; q.Cursor == "" {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestListingFilters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, second := r.post("ann@example.org"), r.post("bob@example.org")
	r.edit(first, func(v *record.View) { v.Status = mail.Failed })
	both := []string{second, first}
	tests := map[string][]string{
		"status=failed":                     {first},
		"to=bob@EXAMPLE.org":                {second},
		"from=shop@example.com":             both,
		"from=other@example.com":            nil,
		"tag=order":                         both,
		"tag=x":                             nil,
		"stream=transactional":              both,
		"account=ses":                       nil,
		"since=2026-01-31T08:30:00Z":        both,
		"since=2026-01-31T10:30:00%2B01:00": nil,
		"until=2026-01-31T08:30:00Z":        nil,
		"limit=1":                           {second},
	}
	for query, want := range tests {
		a := r.do("GET", "/v1/messages?"+query, r.read, "")
		r.want(a, 200, "")
		var got []string
		for _, m := range decoded[api.MessagePage](t, a).Data {
			got = append(got, m.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestListingRefusesWhatItCantRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tests := map[string]string{ // query: field and code, or the code of a 400
		"limit=0":                             "limit out_of_range",
		"limit=-1":                            "limit out_of_range",
		"limit=201":                           "limit out_of_range",
		"limit=1e9":                           "limit out_of_range",
		"limit=":                              "limit out_of_range",
		"sort=id;drop":                        "malformed_query",
		"sort=id":                             "sort unknown_parameter",
		"statsu=failed":                       "statsu unknown_parameter",
		"status=done":                         "status unknown_status",
		"status=sent&status=failed":           "status duplicate",
		"to=ann":                              "to invalid_address",
		"to=ann@example.org%00":               "to control_char",
		"tag=%ff":                             "tag control_char",
		"tag=" + strings.Repeat("x", 321):     "tag too_long",
		"since=yesterday":                     "since invalid_time",
		"until=2026-02-30T00:00:00Z":          "until invalid_time",
		"tag=%zz":                             "malformed_query",
		"cursor=x":                            "invalid_cursor",
		"cursor=" + strings.Repeat("A", 64):   "invalid_cursor",
		"cursor=" + strings.Repeat("A", 1025): "invalid_cursor",
	}
	for query, want := range tests {
		a := r.do("GET", "/v1/messages?"+query, r.read, "")
		got := a.problem.Code
		if a.status == http.StatusUnprocessableEntity && len(a.problem.Errors) > 0 {
			got = a.problem.Errors[0].Field + " " + a.problem.Errors[0].Code
		}
		if got != want || a.status != 422 && a.status != 400 {
			t.Errorf("%s = %d %q, want %q", query, a.status, got, want)
		}
	}
	a := r.do("GET", "/v1/messages?statsu=failed", r.read, "")
	if got := a.problem.Errors[0].Message; !strings.Contains(got, `did you mean "status"?`) {
		t.Errorf("message for a misspelt parameter = %q", got)
	}
	if r.store.count("Messages") != 0 {
		t.Error("a refused query reached the store")
	}
}

func TestCursorIsBoundToTenantListingAndFilter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.post("ann@example.org")
	r.post("bob@example.org")
	list := "/v1/messages?limit=1&tag=order"
	cursor := decoded[api.MessagePage](t, r.do("GET", list, r.read, "")).NextCursor
	if cursor == "" {
		t.Fatal("no cursor for a second page")
	}
	r.want(r.do("GET", list+"&cursor="+cursor, r.read, ""), 200, "")
	r.want(r.do("GET", "/v1/messages?tag=order&limit=5&cursor="+cursor, r.read, ""), 200, "")

	other := r.store.addKey(func(k *record.Key) { k.Tenant = 2 }, record.ScopeRead)
	refused := map[string]answer{
		"other tenant":  r.do("GET", list+"&cursor="+cursor, other, ""),
		"other filter":  r.do("GET", "/v1/messages?limit=1&tag=x&cursor="+cursor, r.read, ""),
		"no filter":     r.do("GET", "/v1/messages?limit=1&cursor="+cursor, r.read, ""),
		"other listing": r.do("GET", "/v1/suppressions?cursor="+cursor, r.read, ""),
		"audit":         r.do("GET", "/admin/v1/audit?cursor="+cursor, r.admin, ""),
		"shortened":     r.do("GET", list+"&cursor="+cursor[:len(cursor)-2], r.read, ""),
	}
	for i := range cursor {
		changed := []byte(cursor)
		if changed[i] = 'A'; cursor[i] == 'A' {
			changed[i] = 'B'
		}
		refused[fmt.Sprintf("byte %d changed", i)] = r.do("GET", list+"&cursor="+string(changed), r.read, "")
	}
	for name, a := range refused {
		if a.status != http.StatusBadRequest || a.problem.Code != "invalid_cursor" {
			t.Errorf("%s: %d %s, want 400 invalid_cursor", name, a.status, a.problem.Code)
		}
	}
}

func TestCancelAndResendFollowTheState(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.send)
	id := r.post("ann@example.org")
	if _, err := c.Resend(t.Context(), id); code(err) != "409 not_failed" {
		t.Errorf("resend of a queued message = %v, want 409 not_failed", err)
	}
	m, err := c.Cancel(t.Context(), id)
	if err != nil || m.Status != "cancelled" {
		t.Errorf("cancel of a queued message = %+v, %v", m, err)
	}
	if _, err := c.Cancel(t.Context(), id); code(err) != "409 too_late" {
		t.Errorf("second cancel = %v, want 409 too_late", err)
	}
	failed := r.post("bob@example.org")
	r.edit(failed, func(v *record.View) { v.Status = mail.FailedUnknown })
	if _, err := c.Resend(t.Context(), failed); code(err) != "409 maybe_sent" {
		t.Errorf("resend of a message that may have been sent = %v, want 409 maybe_sent", err)
	}
	r.want(r.do("POST", "/v1/messages/"+failed+"/resend?force=yes", r.send, ""), 422, "invalid")
	r.want(r.do("POST", "/v1/messages/"+failed+"/resend?force=false", r.send, ""), 409, "maybe_sent")
	if m, err := c.ResendAnyway(t.Context(), failed); err != nil || m.Status != "queued" {
		t.Errorf("forced resend of a failed message = %+v, %v", m, err)
	}
}

func FuzzCursorOpensOnlyWhatWasSealed(f *testing.F) {
	c := newCursors([]byte(strings.Repeat("k", 32)))
	l := listing{name: "messages", tenant: 1, filter: "tag=x"}
	f.Add(c.seal(l, "0198c7a1-5a3e-7cc1-9d3b-0a1b2c3d4e5f"))
	f.Add("")
	f.Add(strings.Repeat("A", 40))
	f.Fuzz(func(t *testing.T, token string) {
		last, err := c.open(l, token)
		if err == nil && c.seal(l, last) != token {
			t.Errorf("open(%q) = %q, which is not what was sealed", token, last)
		}
	})
}
