package postmark_test

import (
	"mime"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
)

// Postmark puts header values into the mail as it gets them, so they must be ASCII and read back as given.
func TestHeaderValuesAreASCII(t *testing.T) {
	t.Parallel()
	given := map[string]string{
		"X-Note": "Grüße aus Köln " + strings.Repeat("ü", 100), "X-Look": "=?utf-8?q?x?=", "X-Plain": "a  b\tc", "References": "<ü@x.test> <b@x.test>",
		"List-Id": "Käse <news.example.com>", "X-Empty": "",
	}
	body := sent(t, plain(func(m *mail.Message) {
		for name, value := range given {
			m.Headers = append(m.Headers, mail.Header{Name: name, Value: value})
		}
	}))
	given["References"] = "<%C3%BC@x.test> <b@x.test>"
	for _, h := range body["Headers"].([]any) {
		name, value := h.(map[string]any)["Name"].(string), h.(map[string]any)["Value"].(string)
		want, ok := given[name]
		if !ok {
			continue // ours
		}
		delete(given, name)
		if strings.ContainsFunc(value, func(r rune) bool { return r > '~' || r == '\r' || r == '\n' }) {
			t.Errorf("%s = %q, want ASCII on one line", name, value)
		}
		if got, err := new(mime.WordDecoder).DecodeHeader(value); err != nil || got != want {
			t.Errorf("%s = %q reads back as %q, %v, want %q", name, value, got, err, want)
		}
	}
	if len(given) > 0 {
		t.Errorf("headers that were not sent: %v", given)
	}
}

func TestLookAlikesAreEncoded(t *testing.T) {
	t.Parallel()
	const look = "=?utf-8?q?x?="
	body := sent(t, plain(func(m *mail.Message) {
		m.From.Name, m.Subject = look, look
		m.To[0].Name = look
		m.ReplyTo = []mail.Address{{Email: "help@example.com", Name: look}}
	}))
	for _, name := range []string{"From", "To", "ReplyTo", "Subject"} {
		text, _, _ := strings.Cut(body[name].(string), " <")
		if got, err := new(mime.WordDecoder).DecodeHeader(text); err != nil || got != look {
			t.Errorf("%s = %q reads back as %q, %v, want %q", name, body[name], got, err, look)
		}
	}
}

func TestTagCountsCharacters(t *testing.T) {
	t.Parallel()
	tag := strings.Repeat("🐎", 255)
	if body := sent(t, plain(func(m *mail.Message) { m.Tags = []string{tag} })); body["Tag"] != tag {
		t.Errorf("Tag = %v, want the tag of 255 characters", body["Tag"])
	}
}
