package emulator_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/mailgun/mailgun-go/v4"

	"github.com/sendgate/sendgate/internal/emulator"
)

func (b *server) mailgunSDK() *mailgun.MailgunImpl {
	mg := mailgun.NewMailgun(key("mailgun", "domain"), key("mailgun", "api_key"))
	mg.SetAPIBase(b.URL() + "/mailgun/v3")
	mg.SetClient(b.http)
	return mg
}

func TestMailgunTakesWhatTheSDKSends(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	m := mailgun.NewMessage("Shop <shop@example.com>", "Your order", "hi", "Ann <ann@example.org>")
	m.AddCC("bob@example.org")
	m.AddBCC("Complaint+1@example.org")
	m.AddBufferAttachment("a.txt", []byte("hi"))
	m.AddHeader("Message-Id", "<m1@mg.example.com>")
	if err := m.AddVariable("gw_msg", "m1"); err != nil {
		t.Fatal(err)
	}
	text, id, err := b.mailgunSDK().Send(t.Context(), m)
	if err != nil || text != "Queued. Thank you." || id != "<m1@mg.example.com>" {
		t.Fatalf("Send = %q, %q, %v; want the own Message-Id", text, id, err)
	}
	b.wantLedger(t, emulator.Entry{
		Provider: "mailgun", MessageID: "m1", From: "shop@example.com", Subject: "Your order", Outcome: "complaint",
		To: []string{"ann@example.org", "bob@example.org", "Complaint+1@example.org"},
	})
	if got := b.Ledger()[0].ProviderMessageID; got != "m1@mg.example.com" {
		t.Errorf("provider message id = %q, want it without angle brackets", got)
	}
}

const mimeMessage = "From: Shop <shop@example.com>\r\nTo: ann@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
	"Message-ID: <m1@mg.example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nhi\r\n"

func TestMailgunTakesMIME(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	m := mailgun.NewMIMEMessage(io.NopCloser(strings.NewReader(mimeMessage)), "ann@example.org", "hidden@example.org")
	if err := m.AddVariable("gw_msg", "m1"); err != nil {
		t.Fatal(err)
	}
	_, id, err := b.mailgunSDK().Send(t.Context(), m)
	if err != nil || id != "<m1@mg.example.com>" {
		t.Fatalf("Send = %q, %v; want the Message-ID of the MIME header", id, err)
	}
	b.wantLedger(t, emulator.Entry{
		Provider: "mailgun", MessageID: "m1", From: "shop@example.com", Subject: "Grüße", Outcome: "delivered",
		To: []string{"ann@example.org", "hidden@example.org"},
	})
}

func TestMailgunSplitsByRecipientVariables(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	m := mailgun.NewMessage("shop@example.com", "For %recipient.name%", "hi")
	for i, addr := range []string{"ann@example.org", "defer@example.org"} {
		if err := m.AddRecipientAndVariables(addr, map[string]any{"name": "N" + fmt.Sprint(i), "rid": i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.AddVariable("gw_msg", "m-%recipient.rid%"); err != nil {
		t.Fatal(err)
	}
	if _, id, err := b.mailgunSDK().Send(t.Context(), m); err != nil || !strings.HasSuffix(id, "@mg.example.com>") {
		t.Fatalf("Send = %q, %v", id, err)
	}
	b.wantLedger(t,
		emulator.Entry{Provider: "mailgun", MessageID: "m-0", From: "shop@example.com", Subject: "For N0", Outcome: "delivered", To: []string{"ann@example.org"}},
		emulator.Entry{Provider: "mailgun", MessageID: "m-1", From: "shop@example.com", Subject: "For N1", Outcome: "defer", To: []string{"defer@example.org"}},
	)
}

func mailgunForm(extra ...string) url.Values {
	v := url.Values{"from": {"shop@example.com"}, "to": {"ann@example.org"}, "subject": {"s"}, "text": {"hi"}}
	for i := 0; i < len(extra); i += 2 {
		if v.Del(extra[i]); extra[i+1] != "" {
			v.Set(extra[i], extra[i+1])
		}
	}
	return v
}

func (b *server) mailgun(t *testing.T, path string, form url.Values, key string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("api", key)
	return b.do(t, "POST", path, form.Encode(), map[string]string{
		"Authorization": req.Header.Get("Authorization"), "Content-Type": "application/x-www-form-urlencoded",
	})
}

func TestMailgunTakesURLEncodedAndDropsDuplicates(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	form := mailgunForm("cc", "ANN@example.org, Bob <bob@example.org>")
	a := b.mailgun(t, "/mailgun/v3/mg.example.com/messages", form, key("mailgun", "api_key"))
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("answer = %d %s", a.status, a.body)
	}
	b.wantLedger(t, emulator.Entry{
		Provider: "mailgun", From: "shop@example.com", Subject: "s", Outcome: "delivered", To: []string{"ann@example.org", "bob@example.org"},
	})
}

func TestMailgunTestModeMailsNobody(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	a := b.mailgun(t, "/mailgun/v3/mg.example.com/messages", mailgunForm("o:testmode", "yes"), key("mailgun", "api_key"))
	if a.status != 200 || !strings.Contains(a.body, "Queued") {
		t.Errorf("answer = %d %s", a.status, a.body)
	}
	b.wantLedger(t)
}

func TestMailgunRefuses(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("a%d@example.org", i)
	}
	const at = "/mailgun/v3/mg.example.com/messages"
	const notAddress = `{"message":"to parameter is not a valid address. please check documentation"}`
	tests := []struct {
		name, path string
		form       url.Values
		key        string
		status     int
		body       string
	}{
		{"bad key in plain text", at, mailgunForm(), "key-x", 401, "Forbidden"},
		{"unknown domain", "/mailgun/v3/other.example.com/messages", mailgunForm(), "", 404, `{"message":"Domain not found: other.example.com"}`},
		{"no to", at, mailgunForm("to", ""), "", 400, `{"message":"to parameter is missing"}`},
		{"bad to", at, mailgunForm("to", "ann@example.org, bob"), "", 400, notAddress},
		{"reject outcome", at, mailgunForm("to", "Reject@example.org"), "", 400, notAddress},
		{"bad cc", at, mailgunForm("cc", "bob"), "", 400, `{"message":"cc parameter is not a valid address. please check documentation"}`},
		{"too many", at, mailgunForm("to", strings.Join(many, ",")), "", 400, `{"message":"Too many recipients, max is 1000"}`},
		{"no from", at, mailgunForm("from", ""), "", 400, `{"message":"from parameter is missing"}`},
		{"bad from", at, mailgunForm("from", "shop"), "", 400, `{"message":"from parameter is not a valid address. please check documentation"}`},
		{"no body", at, mailgunForm("text", ""), "", 400, `{"message":"Need at least one of 'text', 'html', 'amp-html' or 'template' parameters specified"}`},
		{"large parameters", at, mailgunForm("v:x", strings.Repeat("v", 16<<10)), "", 400, `{"message":"o:, h:, v:, and t: parameters combined are limited to 16 KB"}`},
		{"bad variables", at, mailgunForm("recipient-variables", "x"), "", 400, `{"message":"recipient-variables parameter is not a valid JSON"}`},
		{"no mime", at + ".mime", mailgunForm(), "", 400, `{"message":"message parameter is missing"}`},
		{"broken mime", at + ".mime", mailgunForm("message", "x"), "", 400, `{"message":"message parameter is not a valid MIME message"}`},
		{"mime without from", at + ".mime", mailgunForm("message", "Subject: x\r\n\r\n"), "", 400, `{"message":"from parameter is missing"}`},
		{"large message", at, mailgunForm("text", filler()[:25<<20]), "", 413, `{"message":"Message exceeds the limit of 25 MB"}`},
		{"large request", at, mailgunForm("text", filler()), "", 413, `{"message":"Request Entity Too Large"}`},
		{"other path", "/mailgun/v3/mg.example.com", mailgunForm(), "", 404, "404 page not found"},
		{"root greets", "/mailgun/", mailgunForm(), "", 200, "Mailgun Magnificent API"},
	}
	for _, tc := range tests {
		if tc.key == "" {
			tc.key = key("mailgun", "api_key")
		}
		if a := b.mailgun(t, tc.path, tc.form, tc.key); a.status != tc.status || a.body != tc.body {
			t.Errorf("%s: answer = %d %s, want %d %s", tc.name, a.status, a.body, tc.status, tc.body)
		}
	}
	b.wantLedger(t)
}

func TestMailgunSDKSeesTheRefusal(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	_, _, err := b.mailgunSDK().Send(t.Context(), mailgun.NewMessage("shop@example.com", "s", "t", "reject@example.org"))
	var refused *mailgun.UnexpectedResponseError
	if !errors.As(err, &refused) || refused.Actual != 400 {
		t.Fatalf("Send error = %v, want a 400", err)
	}
	if a := b.mailgun(t, "/mailgun/v3/x/messages", nil, key("mailgun", "api_key")); a.header.Get("Content-Type") != "application/json" {
		t.Errorf("errors other than 401 must be JSON, got %v", a.header)
	}
}
