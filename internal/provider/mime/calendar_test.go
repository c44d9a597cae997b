package mime

import (
	"bytes"
	stdmime "mime"
	"mime/multipart"
	netmail "net/mail"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

// shape lists the types in a message, each with its depth.
func shape(t *testing.T, contentType string, body *multipart.Reader) []string {
	t.Helper()
	all := []string{contentType}
	for body != nil {
		p, err := body.NextRawPart()
		if err != nil {
			break
		}
		typ, params, err := stdmime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		var inner *multipart.Reader
		if b := params["boundary"]; b != "" {
			inner = multipart.NewReader(p, b)
		}
		for _, s := range shape(t, typ, inner) {
			all = append(all, " "+s)
		}
	}
	return all
}

// An invitation has the same parts as those of the big calendar services: a part next to the texts, for which mail programs
// show buttons, and a file for other programs.
func TestInvitations(t *testing.T) {
	t.Parallel()
	const ics = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nSUMMARY:Käse\r\nEND:VCALENDAR\r\n"
	logo := mail.Attachment{Filename: "logo.png", ContentType: "image/png", ContentID: "logo", Content: []byte("x")}
	for name, tc := range map[string]struct {
		change func(*mail.Message)
		want   []string
	}{
		"text": {func(*mail.Message) {}, []string{
			"multipart/mixed", " multipart/alternative", "  text/plain", "  text/calendar", " application/ics",
		}},
		"text and html": {func(m *mail.Message) { m.HTML = "<p>" }, []string{
			"multipart/mixed", " multipart/alternative", "  text/plain", "  text/html", "  text/calendar", " application/ics",
		}},
		"html with an image": {func(m *mail.Message) { m.Text, m.HTML, m.Attachments = "", "<p>", []mail.Attachment{logo} }, []string{
			"multipart/mixed", " multipart/related", "  multipart/alternative", "   text/html", "   text/calendar", "  image/png", " application/ics",
		}},
		"a file of the caller": {func(m *mail.Message) {
			m.Attachments = []mail.Attachment{{Filename: "termin.ics", ContentType: "text/calendar", Content: []byte("x")}}
		}, []string{"multipart/mixed", " multipart/alternative", "  text/plain", "  text/calendar", " text/calendar"}},
	} {
		m := message(t)
		m.Calendar = &mail.Calendar{Method: "REQUEST", Content: ics}
		tc.change(m)
		raw := build(t, m)
		checkWire(t, raw)
		msg, err := netmail.ReadMessage(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		typ, params, err := stdmime.ParseMediaType(msg.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, shape(t, typ, multipart.NewReader(msg.Body, params["boundary"]))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !bytes.Contains(raw, []byte("Content-Type: text/calendar; method=REQUEST; charset=utf-8\r\n")) {
			t.Errorf("%s: the part does not name its method:\n%s", name, raw)
		}
		_, got := reread(t, raw)
		n := 0
		for _, l := range got {
			if l.Body == ics {
				n++
			}
		}
		if want := map[bool]int{true: 1, false: 2}[name == "a file of the caller"]; n != want {
			t.Errorf("%s: the content stands %d times, want %d", name, n, want)
		}
	}
}
