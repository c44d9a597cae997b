package sendgrid_test

import (
	"mime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

func changed(change func(*mail.Message)) *provider.Send {
	m := providertest.Plain()
	change(m)
	return &provider.Send{Message: m, To: m.To, Cc: m.Cc, Bcc: m.Bcc, Attempt: 1}
}

func TestAttachmentTypesGoWithoutParameters(t *testing.T) {
	t.Parallel()
	body, _ := sent(t, changed(func(m *mail.Message) {
		for _, kind := range []string{"text/calendar; method=REQUEST", "text/csv; charset=utf-8", "application/pdf", `text/plain; x="a;b"`, "text/plain ;x=y", ""} {
			m.Attachments = append(m.Attachments, mail.Attachment{Filename: "f", ContentType: kind, Content: []byte("x")})
		}
	}))
	var got []any
	for _, a := range body["attachments"].([]any) {
		got = append(got, a.(map[string]any)["type"])
	}
	if diff := cmp.Diff([]any{"text/calendar", "text/csv", "application/pdf", "text/plain", "text/plain", nil}, got); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
}

// SendGrid puts header values into the mail as it gets them, so they must be ASCII and read back as given.
func TestHeaderValuesAreASCII(t *testing.T) {
	t.Parallel()
	given := map[string]string{
		"X-Note": "Grüße aus Köln " + strings.Repeat("ü", 100), "X-Look": "=?utf-8?q?x?=", "X-Plain": "a  b\tc", "References": "<ü@x.test> <b@x.test>",
		"List-Id": "Käse <news.example.com>", "X-Empty": "",
	}
	body, _ := sent(t, changed(func(m *mail.Message) {
		for name, value := range given {
			m.Headers = append(m.Headers, mail.Header{Name: name, Value: value})
		}
	}))
	given["References"] = "<%C3%BC@x.test> <b@x.test>"
	headers := body["headers"].(map[string]any)
	for name, want := range given {
		value := headers[name].(string)
		if strings.ContainsFunc(value, func(r rune) bool { return r > '~' || r == '\r' || r == '\n' }) {
			t.Errorf("%s = %q, want ASCII on one line", name, value)
		}
		if got, err := new(mime.WordDecoder).DecodeHeader(value); err != nil || got != want {
			t.Errorf("%s = %q reads back as %q, %v, want %q", name, value, got, err, want)
		}
	}
}

func TestLookAlikesAreEncoded(t *testing.T) {
	t.Parallel()
	const look = "=?utf-8?q?x?="
	body, _ := sent(t, changed(func(m *mail.Message) {
		m.From.Name, m.Subject = look, look
		m.To[0].Name = look
		m.ReplyTo = []mail.Address{{Email: "help@example.com", Name: look}}
	}))
	to := body["personalizations"].([]any)[0].(map[string]any)["to"].([]any)[0]
	for name, text := range map[string]any{
		"subject": body["subject"], "from": body["from"].(map[string]any)["name"], "to": to.(map[string]any)["name"],
		"reply_to": body["reply_to"].(map[string]any)["name"],
	} {
		if got, err := new(mime.WordDecoder).DecodeHeader(text.(string)); err != nil || got != look {
			t.Errorf("%s = %q reads back as %q, %v, want %q", name, text, got, err, look)
		}
	}
}

func TestCategoriesCountCharacters(t *testing.T) {
	t.Parallel()
	fits, over := strings.Repeat("ž", 255), strings.Repeat("ž", 256)
	body, _ := sent(t, changed(func(m *mail.Message) { m.Tags = []string{over, fits} }))
	if diff := cmp.Diff([]any{fits}, body["categories"]); diff != "" {
		t.Errorf("categories (-want +got):\n%s", diff)
	}
}
