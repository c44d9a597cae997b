package emulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sendgrid/rest"
	"github.com/sendgrid/sendgrid-go"
	sgmail "github.com/sendgrid/sendgrid-go/helpers/mail"

	"github.com/sendgate/sendgate/internal/emulator"
)

// object is a JSON object that tests change before they send it.
type object = map[string]any

func sendGridBody() object {
	return object{
		"personalizations": []any{object{"to": []any{object{"email": "ann@example.org"}}}},
		"from":             object{"email": "shop@example.com", "name": "Shop"},
		"subject":          "Hello",
		"content":          []any{object{"type": "text/plain", "value": "hi"}},
		"custom_args":      object{"gw_msg": "m1"},
	}
}

func (b *server) sendGrid(t *testing.T, body any) answer {
	t.Helper()
	return b.do(t, "POST", "/sendgrid/v3/mail/send", toJSON(t, body), b.sendGridHeader())
}

func (b *server) sendGridHeader() map[string]string {
	return map[string]string{"Authorization": "Bearer " + key("sendgrid", "api_key"), "Content-Type": "application/json"}
}

func TestSendGridTakesWhatTheSDKSends(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	m := sgmail.NewV3MailInit(sgmail.NewEmail("Shop", "shop@example.com"), "Your order", sgmail.NewEmail("Ann", "ann@example.org"),
		sgmail.NewContent("text/plain", "hi"), sgmail.NewContent("text/html", "<p>hi</p>"))
	m.Personalizations[0].AddCCs(sgmail.NewEmail("", "bob@example.org"))
	m.Personalizations[0].AddBCCs(sgmail.NewEmail("", "open+1@example.org"))
	m.SetCustomArg("gw_msg", "m1").AddCategories("order")
	m.AddAttachment(sgmail.NewAttachment().SetContent("aGk=").SetFilename("a.txt").SetType("text/plain").SetDisposition("attachment"))
	req := sendgrid.GetRequest(key("sendgrid", "api_key"), "/v3/mail/send", b.URL()+"/sendgrid")
	req.Method, req.Body = rest.Post, sgmail.GetRequestBody(m)
	res, err := (&rest.Client{HTTPClient: b.http}).SendWithContext(t.Context(), req)
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	id := http.Header(res.Headers).Get("X-Message-Id")
	if res.StatusCode != http.StatusAccepted || res.Body != "" || id == "" {
		t.Fatalf("answer = %d %q, id %q; want 202, empty, an id", res.StatusCode, res.Body, id)
	}
	b.wantLedger(t, emulator.Entry{
		Provider: "sendgrid", MessageID: "m1", From: "shop@example.com", Subject: "Your order", Outcome: "open",
		To: []string{"ann@example.org", "bob@example.org", "open+1@example.org"},
	})
	if got := b.Ledger()[0]; got.ProviderMessageID != id || time.Since(got.At) > time.Minute || got.At.Location() != time.UTC {
		t.Errorf("entry has id %q at %s, want id %q and now in UTC", got.ProviderMessageID, got.At, id)
	}
	b.wantStats(t, "sendgrid", emulator.Stats{Requests: 1, Accepted: 1})
}

func TestSendGridKeepsALinePerPersonalization(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	body := sendGridBody()
	body["personalizations"] = []any{
		object{"to": []any{object{"email": "ann@example.org"}}},
		object{
			"to": []any{object{"email": "Bounce+7@example.org"}}, "subject": "Other", "custom_args": object{"gw_msg": "m2"},
			"from": object{"email": "other@example.com"},
		},
	}
	if a := b.sendGrid(t, body); a.status != http.StatusAccepted {
		t.Fatalf("answer = %d %s", a.status, a.body)
	}
	b.wantLedger(t,
		emulator.Entry{Provider: "sendgrid", MessageID: "m1", From: "shop@example.com", Subject: "Hello", Outcome: "delivered", To: []string{"ann@example.org"}},
		emulator.Entry{Provider: "sendgrid", MessageID: "m2", From: "other@example.com", Subject: "Other", Outcome: "bounce", To: []string{"Bounce+7@example.org"}},
	)
	if l := b.Ledger(); l[0].ProviderMessageID != l[1].ProviderMessageID {
		t.Errorf("ids %q and %q differ; a request has one", l[0].ProviderMessageID, l[1].ProviderMessageID)
	}
}

func TestSendGridSandboxMailsNobody(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	body := sendGridBody()
	body["mail_settings"] = object{"sandbox_mode": object{"enable": true}}
	if a := b.sendGrid(t, body); a.status != http.StatusOK || a.body != "" {
		t.Errorf("answer = %d %q, want 200 and nothing", a.status, a.body)
	}
	b.wantLedger(t)
	b.wantStats(t, "sendgrid", emulator.Stats{Requests: 1, Tested: 1})
}

func addresses(n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = object{"email": fmt.Sprintf("a%d@example.org", i)}
	}
	return list
}

func TestSendGridRefusesWithFieldPaths(t *testing.T) {
	t.Parallel()
	pers := func(p object) func(object) { return func(m object) { m["personalizations"] = []any{p} } }
	ann := []any{object{"email": "ann@example.org"}}
	set := func(key string, v any) func(object) { return func(m object) { m[key] = v } }
	tests := []struct {
		name, field, message string
		change               func(object)
	}{
		{"no personalization", "personalizations", "at least one personalization", set("personalizations", []any{})},
		{"another case of letters", "personalizations", "at least one personalization", func(m object) {
			m["Personalizations"] = m["personalizations"]
			delete(m, "personalizations")
		}},
		{"too many recipients", "personalizations", "1000 total recipients", pers(object{"to": addresses(1001)})},
		{"no to", "personalizations.0.to", "The to array is required", pers(object{"cc": ann})},
		{"bad address", "personalizations.0.to.0.email", "Does not contain a valid address.", pers(object{"to": []any{object{"email": "ann"}}})},
		{"non-ascii local part", "personalizations.0.to.0.email", "Does not contain", pers(object{"to": []any{object{"email": "änn@example.org"}}})},
		{"reject outcome", "personalizations.0.cc.0.email", "Does not contain", pers(object{"to": ann, "cc": []any{object{"email": "reject+1@example.org"}}})},
		{"duplicate", "personalizations.0", "duplicate instance of [Ann@example.org] in the personalizations.0.cc field", pers(object{"to": ann, "cc": []any{object{"email": "Ann@example.org"}}})},
		{"duplicate over two", "personalizations.1", "in the personalizations.1.to field", set("personalizations", []any{object{"to": ann}, object{"to": ann}})},
		{"no from", "from", "The from object must be provided", func(m object) { delete(m, "from") }},
		{"bad from", "from.email", "from email does not contain a valid address", set("from", object{"email": "shop"})},
		{"both reply_to", "reply_to", "mutually exclusive", func(m object) {
			m["reply_to"], m["reply_to_list"] = object{"email": "r@example.com"}, []any{object{"email": "r@example.com"}}
		}},
		{"no subject", "subject", "The subject is required.", func(m object) { delete(m, "subject") }},
		{"no content", "content", "Unless a valid template_id is provided", func(m object) { delete(m, "content") }},
		{"empty content", "content.0.value", "at least one character", set("content", []any{object{"type": "text/plain", "value": ""}})},
		{"html first", "content", "text/plain must be first", set("content", []any{object{"type": "text/html", "value": "x"}, object{"type": "text/plain", "value": "x"}})},
		{"plain twice", "content", "only be provided once", set("content", []any{object{"type": "text/plain", "value": "x"}, object{"type": "text/plain", "value": "x"}})},
		{"forbidden header", "headers.DKIM-Signature", "reserved", set("headers", object{"DKIM-Signature": "x"})},
		{"forbidden own header", "personalizations.0.headers.To", "reserved", pers(object{"to": ann, "headers": object{"To": "x"}})},
		{"large custom_args", "personalizations.0.custom_args", "10000 bytes", set("custom_args", object{"k": strings.Repeat("v", 9_993)})},
		{"too many categories", "categories", "more than 10", set("categories", strings.Split("a b c d e f g h i j k", " "))},
		{"long category", "categories.0", "255 characters", set("categories", []string{strings.Repeat("c", 256)})},
		{"same category twice", "categories", "unique", set("categories", []string{"a", "a"})},
		{"attachment not base64", "attachments.0.content", "base64", set("attachments", []any{object{"content": "!", "filename": "a"}})},
		{"attachment without name", "attachments.0.filename", "filename", set("attachments", []any{object{"content": "aGk="}})},
		{"bad disposition", "attachments.0.disposition", "inline", set("attachments", []any{object{"content": "aGk=", "filename": "a", "disposition": "x"}})},
		{"scheduled too far", "send_at", "72 hours", set("send_at", time.Now().Add(73*time.Hour).Unix())},
		{"custom_args not strings", "", "Bad Request", set("custom_args", object{"gw_msg": 7})},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, emulator.Options{})
			body := sendGridBody()
			tc.change(body)
			a := b.sendGrid(t, body)
			var got struct {
				Errors []struct {
					Message string
					Field   *string
					Help    json.RawMessage
				}
			}
			fromJSON(t, a.body, &got)
			if a.status != http.StatusBadRequest || len(got.Errors) != 1 {
				t.Fatalf("answer = %d %s, want 400 with one error", a.status, a.body)
			}
			field := ""
			if got.Errors[0].Field != nil {
				field = *got.Errors[0].Field
			}
			if field != tc.field || !strings.Contains(got.Errors[0].Message, tc.message) {
				t.Errorf("error = %q %q, want %q ...%q...", field, got.Errors[0].Message, tc.field, tc.message)
			}
			b.wantLedger(t)
			b.wantStats(t, "sendgrid", emulator.Stats{Requests: 1, Rejected: 1})
		})
	}
}

func TestSendGridTakesTheEdgesOfItsLimits(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	body := sendGridBody()
	body["personalizations"] = []any{object{"to": addresses(1000)}}
	body["custom_args"] = object{"k": strings.Repeat("v", 10_000-len(`{"k":""}`))}
	body["headers"] = object{"List-Unsubscribe": "<https://example.com/u>"}
	body["content"] = []any{object{"type": "text/plain", "value": "x"}, object{"type": "text/x-amp-html", "value": "x"}}
	if a := b.sendGrid(t, body); a.status != http.StatusAccepted {
		t.Errorf("answer = %d %s, want 202", a.status, a.body)
	}
}

func TestSendGridRefusesBadRequests(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	good := b.sendGridHeader()
	tests := []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
		text                     string
	}{
		{"no key", "POST", "/sendgrid/v3/mail/send", "{}", nil, 401, `{"errors":[{"message":"authorization required","field":null,"help":null}]}`},
		{"bad key", "POST", "/sendgrid/v3/mail/send", "{}", map[string]string{"Authorization": "Bearer SG.x"}, 401, "authorization grant is invalid, expired, or revoked"},
		{"broken json", "POST", "/sendgrid/v3/mail/send", "{", good, 400, `{"errors":[{"message":"Bad Request","field":null,"help":null}]}`},
		{"not json", "POST", "/sendgrid/v3/mail/send", "{}", map[string]string{"Authorization": good["Authorization"], "Content-Type": "text/plain"}, 415, "Content-Type"},
		{"too large", "POST", "/sendgrid/v3/mail/send", filler()[:30<<20+1], good, 413, "Payload Too Large"},
		{"other method", "GET", "/sendgrid/v3/mail/send", "", good, 405, "method not allowed"},
		{"other path", "POST", "/sendgrid/v3/mail", "", good, 404, "not found"},
	}
	for _, tc := range tests {
		a := b.do(t, tc.method, tc.path, tc.body, tc.header)
		if a.status != tc.status || !strings.Contains(a.body, tc.text) {
			t.Errorf("%s: answer = %d %s, want %d ...%s...", tc.name, a.status, a.body, tc.status, tc.text)
		}
	}
	b.wantLedger(t)
}
