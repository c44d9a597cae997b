package emulator_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

func postmarkBody(change ...any) object {
	m := object{
		"From": "Shop <shop@example.com>", "To": "Ann <ann@example.org>", "Subject": "Hello", "TextBody": "hi",
		"Metadata": object{"gw_msg": "m1"}, "MessageStream": "outbound", "TrackOpens": true,
	}
	for i := 0; i < len(change); i += 2 {
		name, ok := change[i].(string)
		if !ok {
			panic("postmarkBody takes pairs of a name and a value")
		}
		m[name] = change[i+1]
	}
	return m
}

func (b *server) postmark(t *testing.T, path string, body any) answer {
	t.Helper()
	return b.do(t, "POST", "/postmark"+path, toJSON(t, body), postmarkHeader(key("postmark", "server_token")))
}

func postmarkHeader(token string) map[string]string {
	return map[string]string{"X-Postmark-Server-Token": token, "Accept": "application/json", "Content-Type": "application/json"}
}

type postmarkResult struct {
	To, SubmittedAt, MessageID, Message string
	ErrorCode                           int
}

func TestPostmarkTakesOne(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	a := b.postmark(t, "/email", postmarkBody("Cc", `"B, Bob" <bob@example.org>`, "Bcc", "Click@example.org"))
	var got postmarkResult
	fromJSON(t, a.body, &got)
	uuid := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	if a.status != 200 || got.ErrorCode != 0 || got.Message != "OK" || !uuid.MatchString(got.MessageID) || got.To != "Ann <ann@example.org>" {
		t.Fatalf("answer = %d %s", a.status, a.body)
	}
	b.wantLedger(t, emulator.Entry{
		Provider: "postmark", MessageID: "m1", From: "shop@example.com", Subject: "Hello", Outcome: "click",
		To: []string{"ann@example.org", "bob@example.org", "Click@example.org"},
	})
	if b.Ledger()[0].ProviderMessageID != got.MessageID {
		t.Errorf("ledger has id %q, answer %q", b.Ledger()[0].ProviderMessageID, got.MessageID)
	}
}

func TestPostmarkRefuses(t *testing.T) {
	t.Parallel()
	list := func(n int) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf("a%d@example.org", i)
		}
		return strings.Join(all, ",")
	}
	keys := object{}
	for i := range 11 {
		keys[strconv.Itoa(i)] = "v"
	}
	attachment := func(name string) []any {
		return []any{object{"Name": name, "Content": "aGk=", "ContentType": "text/plain"}}
	}
	tests := []struct {
		name    string
		body    object
		code    int
		message string
	}{
		{"no from", postmarkBody("From", ""), 300, "Invalid 'From' value."},
		{"bad from", postmarkBody("From", "shop"), 300, "Invalid 'From' address: 'shop'."},
		{"no to", postmarkBody("To", ""), 300, "Zero recipients specified"},
		{"bad to", postmarkBody("To", "ann"), 300, "Invalid 'To' address: 'ann'."},
		{"bad cc", postmarkBody("Cc", "bob@"), 300, "Invalid 'Cc' address: 'bob@'."},
		{"reject outcome", postmarkBody("Bcc", "reject@example.org"), 300, "Invalid 'Bcc' address: 'reject@example.org'."},
		{"non-ascii local part", postmarkBody("To", "änn@example.org"), 300, "Invalid 'To' address"},
		{"bad reply-to", postmarkBody("ReplyTo", "x"), 300, "Invalid 'ReplyTo' address: 'x'."},
		{"51 recipients", postmarkBody("To", list(25), "Bcc", "x@example.org,"+list(50)), 300, "50 recipients"},
		{"no body", postmarkBody("TextBody", ""), 300, "Provide either email TextBody or HtmlBody or both."},
		{"long subject", postmarkBody("Subject", strings.Repeat("s", 2001)), 300, "'Subject'"},
		{"long tag", postmarkBody("Tag", strings.Repeat("s", 1001)), 300, "'Tag'"},
		{"large body", postmarkBody("HtmlBody", strings.Repeat("s", 5<<20+1)), 300, "'HtmlBody'"},
		{"bad track links", postmarkBody("TrackLinks", "All"), 300, "'TrackLinks'"},
		{"bad header", postmarkBody("Headers", []any{object{"Name": "X Y", "Value": "v"}}), 300, "header"},
		{"11 metadata", postmarkBody("Metadata", keys), 300, "Metadata is limited to 10 fields."},
		{"long metadata key", postmarkBody("Metadata", object{strings.Repeat("k", 21): "v"}), 300, "20 characters"},
		{"long metadata value", postmarkBody("Metadata", object{"k": strings.Repeat("v", 81)}), 300, "80 characters"},
		{"metadata keys alike", postmarkBody("Metadata", object{"k": "v", "K": "v"}), 300, "not unique"},
		{"attachment type", postmarkBody("Attachments", attachment("a.EXE")), 411, "forbidden"},
		{"attachment without name", postmarkBody("Attachments", attachment("")), 300, "Invalid attachment"},
		{"all inactive", postmarkBody("To", "Suppressed+1@example.org"), 406, "You tried to send to recipient(s) that have been marked as inactive. " +
			"Found inactive addresses: suppressed+1@example.org. Inactive recipients are ones that have generated"},
		{"wrong shape", postmarkBody("To", []string{"ann@example.org"}), 403, "syntactically correct"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, emulator.Options{})
			a := b.postmark(t, "/email", tc.body)
			var got postmarkResult
			fromJSON(t, a.body, &got)
			if a.status != 422 || got.ErrorCode != tc.code || !strings.Contains(got.Message, tc.message) || got.MessageID != "" {
				t.Errorf("answer = %d %s, want 422 with %d ...%s...", a.status, a.body, tc.code, tc.message)
			}
			if h := a.header.Get("X-PM-ApiErrorCode"); h != strconv.Itoa(tc.code) {
				t.Errorf("X-PM-ApiErrorCode = %q, want %d", h, tc.code)
			}
			b.wantLedger(t)
		})
	}
}

func TestPostmarkTakesTheRestOfAnInactiveList(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	a := b.postmark(t, "/email", postmarkBody("To", "ann@example.org, Suppressed@example.org", "Bcc", "suppressed+2@example.org"))
	var got postmarkResult
	fromJSON(t, a.body, &got)
	want := "Message OK, but will not deliver to these inactive addresses: suppressed@example.org, suppressed+2@example.org. Inactive recipients are ones"
	if a.status != 200 || got.ErrorCode != 0 || got.MessageID == "" || !strings.HasPrefix(got.Message, want) {
		t.Fatalf("answer = %d %s", a.status, a.body)
	}
	b.wantLedger(t, emulator.Entry{
		Provider: "postmark", MessageID: "m1", From: "shop@example.com", Subject: "Hello", Outcome: "delivered", To: []string{"ann@example.org"},
	})
}

func TestPostmarkRefusesBadRequests(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	good := postmarkHeader(key("postmark", "server_token"))
	noAccept := postmarkHeader(key("postmark", "server_token"))
	delete(noAccept, "Accept")
	noType := postmarkHeader(key("postmark", "server_token"))
	delete(noType, "Content-Type")
	tests := []struct {
		name, path, body string
		header           map[string]string
		status           int
		text             string
	}{
		{"no token", "/email", "{}", nil, 401, `"ErrorCode":10`},
		{"bad token", "/email", "{}", postmarkHeader("x"), 401, "Request does not contain a valid Server token."},
		{"no accept", "/email", "{}", noAccept, 415, ""},
		{"no content type", "/email", "{}", noType, 415, ""},
		{"broken json", "/email", "{", good, 422, `"ErrorCode":402`},
		{"batch not an array", "/email/batch", "{}", good, 422, `"ErrorCode":403`},
		{"batch of 501", "/email/batch", "[" + strings.Repeat("{},", 500) + "{}]", good, 422, `"ErrorCode":410`},
		{"large message", "/email", filler()[:10<<20+1], good, 413, ""},
		{"large batch", "/email/batch", filler()[:50<<20+1], good, 413, ""},
		{"other path", "/mail", "{}", good, 404, ""},
	}
	for _, tc := range tests {
		if a := b.do(t, "POST", "/postmark"+tc.path, tc.body, tc.header); a.status != tc.status || !strings.Contains(a.body, tc.text) {
			t.Errorf("%s: answer = %d %s, want %d ...%s...", tc.name, a.status, a.body, tc.status, tc.text)
		}
	}
	if a := b.do(t, "GET", "/postmark/email", "", good); a.status != http.StatusMethodNotAllowed {
		t.Errorf("GET = %d, want 405", a.status)
	}
	b.wantLedger(t)
}

func TestPostmarkBatchAnswersInOrder(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	a := b.postmark(t, "/email/batch", []any{
		postmarkBody(),
		postmarkBody("To", "suppressed@example.org"),
		postmarkBody("To", "bounce@example.org", "Metadata", object{"gw_msg": "m3"}),
		postmarkBody("TextBody", ""),
	})
	var got []postmarkResult
	fromJSON(t, a.body, &got)
	if a.status != 200 || len(got) != 4 {
		t.Fatalf("answer = %d %s", a.status, a.body)
	}
	for i, code := range []int{0, 406, 0, 300} {
		if got[i].ErrorCode != code || (got[i].MessageID != "") != (code == 0) {
			t.Errorf("result %d = %+v, want code %d", i, got[i], code)
		}
	}
	b.wantLedger(t,
		emulator.Entry{Provider: "postmark", MessageID: "m1", From: "shop@example.com", Subject: "Hello", Outcome: "delivered", To: []string{"ann@example.org"}},
		emulator.Entry{Provider: "postmark", MessageID: "m3", From: "shop@example.com", Subject: "Hello", Outcome: "bounce", To: []string{"bounce@example.org"}},
	)
	if a := b.postmark(t, "/email/batch", []any{postmarkBody("To", "reject@example.org")}); a.status != 200 {
		t.Errorf("batch of one bad item = %d, want 200", a.status)
	}
	b.wantStats(t, "postmark", emulator.Stats{Requests: 2, Accepted: 1, Rejected: 1})
}

func TestPostmarkTestTokenMailsNobody(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	a := b.do(t, "POST", "/postmark/email", toJSON(t, postmarkBody()), postmarkHeader("POSTMARK_API_TEST"))
	if a.status != 200 || !strings.Contains(a.body, "Test job accepted") {
		t.Errorf("answer = %d %s", a.status, a.body)
	}
	b.wantLedger(t)
	b.wantStats(t, "postmark", emulator.Stats{Requests: 1, Tested: 1})
}
