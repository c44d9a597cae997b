package mime

import (
	"bytes"
	stdmime "mime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

// FuzzBuildReadsBack checks the promise of Build: it refuses, or the standard library reads back what was given, on a wire
// that no server can misread.
func FuzzBuildReadsBack(f *testing.F) {
	f.Add("Your order", "Ann", "42", "hello\n", "<p>hello</p>", "a.pdf", "logo", "application/pdf", []byte("x"))
	f.Add("=?utf-8?q?x?=", "a, \"b\" <c>", " x ", "\n.\n\r.\r", "", "é\".txt", "", "text/plain; charset=latin1", []byte{0, 13, 10})
	f.Add("a\r\nBcc: x@y.z", "\x00", "\t", "", "\r", strings.Repeat("長", 90), "x>", "text/html\r\nX: y", []byte(nil))
	f.Add("a  b", "😀 name", strings.Repeat("w ", 600), "--=_mixed_", "=_alternative_01890a5d", ".", "a@b", "message/rfc822", []byte("From x\n"))
	f.Fuzz(func(t *testing.T, subject, name, value, text, html, filename, cid, typ string, content []byte) {
		m := &mail.Message{
			ID:      mail.ID{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, 10, 11, 12, 13, 14, 15, 16},
			From:    mail.Address{Email: "shop@example.com"},
			To:      []mail.Address{{Email: "ann@example.org", Name: name}, {Email: "bob@example.org", Name: name}},
			Subject: subject, Text: text, HTML: html,
			Headers: []mail.Header{{Name: "X-Custom", Value: value}},
		}
		m.Attachments = []mail.Attachment{{Filename: filename, ContentType: typ, ContentID: cid, Content: content}}
		raw, err := Build(m)
		if err != nil {
			return
		}
		checkWire(t, raw)
		h, got := reread(t, raw)
		if s := decoded(t, h, "Subject"); s != subject {
			t.Errorf("subject %q reads back as %q", subject, s)
		}
		if s := decoded(t, h, "X-Custom"); s != value {
			t.Errorf("header %q reads back as %q", value, s)
		}
		if diff := cmp.Diff(m.To, addresses(t, h, "To")); diff != "" {
			t.Errorf("To (-want +got):\n%s", diff)
		}
		// Nothing is in the header that was not passed to Build.
		known := map[string]bool{
			"Date": true, "From": true, "To": true, "Subject": true, "Message-Id": true, "X-Custom": true, "Mime-Version": true,
			"Content-Type": true, "Content-Transfer-Encoding": true,
		}
		for k, v := range h {
			if !known[k] || len(v) != 1 {
				t.Errorf("header %s = %q", k, v)
			}
		}
		for i := range got {
			got[i].Type = ""
		}
		if diff := cmp.Diff(wantLeaves(m), got); diff != "" {
			t.Errorf("parts (-want +got):\n%s\n%s", diff, raw)
		}
	})
}

func wantLeaves(m *mail.Message) []leaf {
	var want []leaf
	if m.Text != "" || m.HTML == "" {
		want = append(want, leaf{Body: string(crlf(m.Text))})
	}
	if m.HTML != "" {
		want = append(want, leaf{Body: string(crlf(m.HTML))})
	}
	a := m.Attachments[0]
	l := leaf{Disposition: "attachment", Filename: a.Filename, Body: string(a.Content)}
	if a.Filename == "" {
		l.Filename = "attachment-1"
	}
	if a.ContentID != "" {
		l.ContentID = "<" + a.ContentID + ">"
		if m.HTML != "" {
			l.Disposition = "inline"
		}
	}
	return append(want, l)
}

// FuzzEncodedWords compares the word encoder alone with the decoder of the standard library.
func FuzzEncodedWords(f *testing.F) {
	f.Add("Grüße", 40)
	f.Add("a_b=c?d e", 0)
	f.Fuzz(func(t *testing.T, s string, first int) {
		if checkValue("x", s) != nil {
			return
		}
		words := encodedWords(s, first)
		got, err := new(stdmime.WordDecoder).DecodeHeader(strings.Join(words, "\r\n "))
		if err != nil || got != s {
			t.Errorf("%q reads back as %q, %v", s, got, err)
		}
		for _, w := range words {
			if len(w) > 75 || bytes.ContainsAny([]byte(w), " \r\n") {
				t.Errorf("word %q", w)
			}
		}
	})
}
