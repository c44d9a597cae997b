package emulator_test

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

// shown is an element of GET /_ledger/{id}.
type shown struct {
	Entry emulator.Entry
	Mail  *emulator.Mail
}

func (b *server) shown(t *testing.T, id string) []shown {
	t.Helper()
	var all []shown
	fromJSON(t, b.do(t, "GET", "/_ledger/"+id, "", nil).body, &all)
	return all
}

// Every provider keeps what a recipient would see, whichever form the mail came in.
func TestAMailCanBeLookedAt(t *testing.T) {
	t.Parallel()
	const rich = "From: shop@example.com\r\nTo: ann@example.org\r\nSubject: s\r\nReply-To: desk@example.com\r\nMessage-ID: <m1@mg.example.com>\r\n" +
		"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n" +
		"--i\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nhi=20there\r\n" +
		"--i\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+aGkgdGhlcmU8L2I+\r\n--i--\r\n" +
		"--o\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\nContent-Transfer-Encoding: base64\r\n\r\naGk=\r\n--o--\r\n"
	attachments := func(name, content, kind string) []any {
		return []any{object{name: "a.txt", content: "aGk=", kind: "text/plain"}}
	}
	for kind, send := range everyKind(t, "of senders in mails_test.go", map[string]func(*server){
		"sendgrid": func(b *server) {
			body := sendGridBody()
			body["reply_to"], body["attachments"] = object{"email": "desk@example.com"}, attachments("filename", "content", "type")
			body["content"] = []any{object{"type": "text/plain", "value": "hi there"}, object{"type": "text/html", "value": "<b>hi there</b>"}}
			b.sendGrid(t, body)
		},
		"mailgun": func(b *server) {
			b.mailgun(t, "/mailgun/v3/mg.example.com/messages.mime", mailgunForm("message", rich, "v:gw_msg", "m1"), key("mailgun", "api_key"))
		},
		"postmark": func(b *server) {
			b.postmark(t, "/email", postmarkBody("TextBody", "hi there", "HtmlBody", "<b>hi there</b>", "ReplyTo", "desk@example.com",
				"Attachments", attachments("Name", "Content", "ContentType")))
		},
		"resend": func(b *server) {
			b.resend(t, resendBody("text", "hi there", "html", "<b>hi there</b>", "reply_to", "desk@example.com",
				"attachments", attachments("filename", "content", "content_type")), "")
		},
		"ses": func(b *server) {
			if _, err := b.sesSDK().SendEmail(t.Context(), sesInput(raw(rich))); err != nil {
				t.Error(err)
			}
		},
		"smtp": func(b *server) {
			if _, err := deliver(b.login(t), rich, "ann@example.org"); err != nil {
				t.Error(err)
			}
		},
	}) {
		b := start(t, emulator.Options{})
		send(b)
		all := b.shown(t, "m1")
		if len(all) != 1 || all[0].Mail == nil || all[0].Entry.Provider != kind {
			t.Errorf("%s: %+v", kind, all)
			continue
		}
		m := all[0].Mail
		if m.Text != "hi there" || m.HTML != "<b>hi there</b>" || m.Headers["Reply-To"] != "desk@example.com" {
			t.Errorf("%s: mail = %+v", kind, m)
		}
		if len(m.Attachments) != 1 || m.Attachments[0].Name != "a.txt" || m.Attachments[0].Type != "text/plain" || m.Attachments[0].Size != 2 {
			t.Errorf("%s: attachments = %+v", kind, m.Attachments)
		}
		page := b.do(t, "GET", "/_ledger/"+all[0].Entry.ProviderMessageID+"/html", "", nil)
		if page.body != m.HTML || !strings.HasPrefix(page.header.Get("Content-Security-Policy"), "sandbox;") {
			t.Errorf("%s: page = %s %v", kind, page.body, page.header)
		}
		b.do(t, "DELETE", "/_ledger", "", nil)
		for _, path := range []string{"/_ledger/m1", "/_ledger/m1/html"} {
			if a := b.do(t, "GET", path, "", nil); a.status != 404 {
				t.Errorf("%s: %s after the ledger was emptied = %d", kind, path, a.status)
			}
		}
	}
}

func TestEveryMessageOfACallHasItsMail(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.mailgunTo(t, "ann@example.org,bob@example.org", "text", "For %recipient.rid%", "v:gw_msg", "m%recipient.rid%",
		"recipient-variables", `{"ann@example.org":{"rid":"7"},"bob@example.org":{"rid":"8"}}`)
	for id, want := range map[string]string{"m7": "For 7", "m8": "For 8"} {
		if all := b.shown(t, id); len(all) != 1 || all[0].Mail.Text != want {
			t.Errorf("%s: %+v", id, all)
		}
		if page := b.do(t, "GET", "/_ledger/"+id+"/html", "", nil); page.body != want || !strings.HasPrefix(page.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: page = %s", id, page.body)
		}
	}
}
