package catalog_test

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

func headers(n int) []mail.Header {
	hs := make([]mail.Header, n)
	for i := range hs {
		hs[i] = mail.Header{Name: "X-H-" + strings.Repeat("a", i+1), Value: "v"}
	}
	return hs
}

func TestEachContentRuleStrikesThoseProvidersThatHaveIt(t *testing.T) {
	t.Parallel()
	full := mail.Attachment{Filename: "a.txt", ContentType: "text/plain", Content: []byte("x")}
	of := func(edit func(*mail.Attachment)) func(*mail.Message) {
		a := full
		edit(&a)
		return func(m *mail.Message) { m.Attachments = []mail.Attachment{a} }
	}
	for _, tc := range []struct {
		name string
		edit func(*mail.Message)
		want string // the kinds that refuse it, in the order of the catalog, and a word of the reason
		says string
	}{
		{"nothing odd", func(*mail.Message) {}, "", ""},
		{"no subject", func(m *mail.Message) { m.Subject = "" }, "sendgrid resend", "subject"},
		{"an empty file", of(func(a *mail.Attachment) { a.Content = []byte{} }), "sendgrid postmark", "empty"},
		{"an empty file beside another", func(m *mail.Message) {
			m.Attachments = []mail.Attachment{full, {Filename: "b", ContentType: "text/plain"}}
		}, "sendgrid postmark", "empty"},
		{"a calendar", of(func(a *mail.Attachment) { a.ContentType = "text/calendar; method=REQUEST" }), "", ""},
		{"a charset", of(func(a *mail.Attachment) { a.ContentType = "text/csv; charset=utf-8" }), "", ""},
		{"a long type", of(func(a *mail.Attachment) { a.ContentType = "text/x; p=" + strings.Repeat("y", 70) }), "", ""},
		{"a long content id", of(func(a *mail.Attachment) { a.ContentID = strings.Repeat("c", 79) }), "", ""},
		{"a program", of(func(a *mail.Attachment) { a.Filename = "SETUP.EXE" }), "postmark ses", ".exe"},
		{"a script", of(func(a *mail.Attachment) { a.Filename = "a.js" }), "ses", ".js"},
		{"255 characters of From", func(m *mail.Message) { m.From.Name = strings.Repeat("n", 255-len(`"" <Shop@example.com>`)) }, "", ""},
		{"256 of them", func(m *mail.Message) { m.From.Name = strings.Repeat("n", 256-len(`"" <Shop@example.com>`)) }, "postmark", "from of 256"},
		{"From that grows by its quotes", func(m *mail.Message) { m.From.Name = strings.Repeat(`"`, 118) }, "postmark", "from of 257"},
		{"From of characters of two units", func(m *mail.Message) { m.From.Name = strings.Repeat("😀", 63) }, "", ""},
		{"a text over 5 MB", func(m *mail.Message) { m.Text = strings.Repeat("t", 5<<20+1) }, "postmark", "text or html"},
		{"16 headers", func(m *mail.Message) { m.Headers = headers(16) }, "", ""},
		{"a header that grows when it is encoded", func(m *mail.Message) {
			m.Headers = []mail.Header{{Name: "X-Long", Value: strings.Repeat("ü", 400)}}
		}, "", ""},
		{"metadata of many short keys as JSON", func(m *mail.Message) {
			m.Metadata = map[string]string{"a": strings.Repeat(`"`, 5000)}
		}, "sendgrid postmark", ""},
		{"an address with marks", func(m *mail.Message) { m.To[0].Email = "o'brien+a/b=c@example.org" }, "", ""},
		{"an address with a question mark", func(m *mail.Message) { m.Cc = []mail.Address{{Email: "who?@example.org"}} }, "postmark", "local part"},
		{"metadata keys by case", func(m *mail.Message) { m.Metadata = map[string]string{"Order": "1", "order": "2"} }, "postmark", "case"},
	} {
		m := &mail.Message{ // which every provider takes
			ID: mail.NewID(), From: mail.Address{Email: "Shop@example.com", Name: "Shop"},
			To: []mail.Address{{Email: "ann@example.org"}}, Subject: "Hello", Text: "Hi", Stream: mail.DefaultStream,
		}
		tc.edit(m)
		facts := m.Facts()
		var refused []string
		for _, s := range catalog.Specs() {
			why := s.Capabilities.Refuse(&facts)
			if why == "" {
				continue
			}
			refused = append(refused, string(s.Kind))
			if !strings.Contains(why, tc.says) {
				t.Errorf("%s: %s says %q, want %q in it", tc.name, s.Kind, why, tc.says)
			}
		}
		if got := strings.Join(refused, " "); got != tc.want {
			t.Errorf("%s: refused by %q, want %q", tc.name, got, tc.want)
		}
	}
}
