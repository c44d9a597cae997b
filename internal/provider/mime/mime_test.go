package mime

import (
	"bytes"
	"encoding/base64"
	"io"
	stdmime "mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

func message(t *testing.T) *mail.Message {
	t.Helper()
	id, err := mail.ParseID("01890a5d-ac96-774b-8d0e-b302099a8057")
	if err != nil {
		t.Fatal(err)
	}
	return &mail.Message{
		ID:        id,
		CreatedAt: time.Date(2026, 11, 23, 9, 30, 1, 500, time.FixedZone("x", 3600)),
		From:      mail.Address{Email: "shop@example.com", Name: "Shop"},
		To:        []mail.Address{{Email: "ann@example.org", Name: "Ann"}},
		Subject:   "Your order",
		Text:      "hello\n",
	}
}

// leaf is one decoded part of a re-read message, in order of appearance.
type leaf struct {
	Type, Disposition, Filename, ContentID string
	Body                                   string
}

// reread parses a message with the standard library only, which shares no code with the writer.
func reread(t testing.TB, raw []byte) (netmail.Header, []leaf) {
	t.Helper()
	msg, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("ReadMessage: %v\n%s", err, raw)
	}
	return msg.Header, leaves(t, map[string][]string(msg.Header), msg.Body)
}

func leaves(t testing.TB, h map[string][]string, body io.Reader) []leaf {
	t.Helper()
	get := func(k string) string {
		if v := h[k]; len(v) == 1 {
			return v[0]
		} else if len(v) > 1 {
			t.Fatalf("header %s stands %d times", k, len(v))
		}
		return ""
	}
	typ, params, err := stdmime.ParseMediaType(get("Content-Type"))
	if err != nil {
		t.Fatalf("Content-Type %q: %v", get("Content-Type"), err)
	}
	if strings.HasPrefix(typ, "multipart/") {
		var all []leaf
		mr := multipart.NewReader(body, params["boundary"])
		for {
			p, err := mr.NextRawPart()
			if err == io.EOF {
				return all
			}
			if err != nil {
				t.Fatalf("%s: next part: %v", typ, err)
			}
			all = append(all, leaves(t, p.Header, p)...)
		}
	}
	switch enc := get("Content-Transfer-Encoding"); enc {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	default:
		t.Fatalf("Content-Transfer-Encoding = %q, want quoted-printable or base64", enc)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("decode %s: %v", typ, err)
	}
	l := leaf{Type: typ, ContentID: get("Content-Id"), Body: string(b)}
	if d := get("Content-Disposition"); d != "" {
		var dp map[string]string
		if l.Disposition, dp, err = stdmime.ParseMediaType(d); err != nil {
			t.Fatalf("Content-Disposition %q: %v", d, err)
		}
		l.Filename = dp["filename"]
	}
	return []leaf{l}
}

// checkWire checks that every server takes the bytes: CRLF only, 7 bits, no NUL, lines of at most 998 bytes.
func checkWire(t testing.TB, raw []byte) {
	t.Helper()
	if !bytes.HasSuffix(raw, []byte("\r\n")) {
		t.Error("message does not end with CRLF")
	}
	rest := bytes.ReplaceAll(raw, []byte("\r\n"), nil)
	if i := bytes.IndexAny(rest, "\r\n\x00"); i >= 0 {
		t.Errorf("bare CR, bare LF or NUL on the wire: %#02x", rest[i])
	}
	for _, c := range rest {
		if c >= 0x80 {
			t.Errorf("8-bit byte %#02x on the wire", c)
			break
		}
	}
	for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
		if len(line) > 998 {
			t.Errorf("line of %d bytes, want at most 998", len(line))
		}
	}
}

func build(t testing.TB, m *mail.Message) []byte {
	t.Helper()
	raw, err := Build(m)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	checkWire(t, raw)
	return raw
}

func decoded(t testing.TB, h netmail.Header, name string) string {
	t.Helper()
	s, err := new(stdmime.WordDecoder).DecodeHeader(h.Get(name))
	if err != nil {
		t.Fatalf("decode %s: %v", name, err)
	}
	return s
}

func TestBuildWritesOneSimpleMessage(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.Headers = []mail.Header{{Name: "X-Order", Value: "42"}}
	want := strings.ReplaceAll(`Date: Mon, 23 Nov 2026 08:30:01 +0000
From: Shop <shop@example.com>
To: Ann <ann@example.org>
Subject: Your order
Message-ID: <01890a5d-ac96-774b-8d0e-b302099a8057@example.com>
X-Order: 42
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

hello
`, "\n", "\r\n")
	if diff := cmp.Diff(want, string(build(t, m))); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestBuildNestsMixedRelatedAlternative(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.HTML = "<p>hello <img src=\"cid:logo\"></p>"
	m.Attachments = []mail.Attachment{
		{Filename: "a.pdf", ContentType: "application/pdf", Content: []byte("%PDF\r\n\x00\xff")},
		{Filename: "logo.png", ContentType: "image/png", ContentID: "logo", Content: []byte{0x89, 'P', 'N', 'G'}},
	}
	raw := build(t, m)
	h, got := reread(t, raw)
	want := []leaf{
		{Type: "text/plain", Body: "hello\r\n"},
		{Type: "text/html", Body: m.HTML},
		{Type: "image/png", Disposition: "inline", Filename: "logo.png", ContentID: "<logo>", Body: "\x89PNG"},
		{Type: "application/pdf", Disposition: "attachment", Filename: "a.pdf", Body: "%PDF\r\n\x00\xff"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
	if got := h.Get("Content-Type"); !strings.HasPrefix(got, "multipart/mixed;") {
		t.Errorf("Content-Type = %q, want multipart/mixed", got)
	}
	mixed := bytes.Index(raw, []byte("multipart/mixed"))
	related := bytes.Index(raw, []byte(`multipart/related; type="multipart/alternative"`))
	alternative := bytes.LastIndex(raw, []byte("multipart/alternative;"))
	if mixed < 0 || related < mixed || alternative < related {
		t.Errorf("nesting: mixed at %d, related at %d, alternative at %d", mixed, related, alternative)
	}
}

func TestBuildIsTheSameOnEachAttempt(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.HTML, m.Metadata = "<p>x</p>", map[string]string{"a": "1", "b": "2"}
	m.Attachments = []mail.Attachment{{Filename: "é.csv", ContentType: `text/csv; header=present; charset=iso-8859-1; x=y`, Content: []byte("a")}}
	first := build(t, m)
	for range 50 {
		if !bytes.Equal(first, build(t, m)) {
			t.Fatal("two builds of one message differ")
		}
	}
	if !bytes.Contains(first, []byte("charset=iso-8859-1; header=present; x=y")) {
		t.Errorf("parameters of the attachment's type are not kept:\n%s", first)
	}
}

func TestBuildNeverShowsBcc(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.Bcc = []mail.Address{{Email: "hidden@example.net", Name: "Hidden"}}
	if raw := build(t, m); bytes.Contains(bytes.ToLower(raw), []byte("hidden")) || bytes.Contains(bytes.ToLower(raw), []byte("bcc")) {
		t.Errorf("a hidden recipient shows:\n%s", raw)
	}
	m.To = nil
	h, _ := reread(t, build(t, m))
	if got := h.Get("To"); got != "undisclosed-recipients:;" {
		t.Errorf("To of a message to hidden recipients only = %q", got)
	}
}

func TestBuildNormalisesLineEnds(t *testing.T) {
	t.Parallel()
	// One text is sent as quoted-printable, the other as base64: neither may contain a lone CR or LF.
	for _, word := range []string{"a", "こんにちは世界"} {
		for _, in := range []string{"\n.\n", "\r.\r", "\r\n.\n", "\n.\r\n", "\r\n.\r"} {
			m := message(t)
			m.Text, m.HTML = word+in+word, "<p>"+word+in+word
			_, got := reread(t, build(t, m))
			want := word + "\r\n.\r\n" + word
			if len(got) != 2 || strings.TrimSuffix(got[0].Body, "\r\n") != want || strings.TrimSuffix(got[1].Body, "\r\n") != "<p>"+want {
				t.Errorf("Build(%q) reads back as %q, want %q twice", word+in+word, got, want)
			}
		}
	}
	if got := string(crlf("\r\r\n\n")); got != "\r\n\r\n\r\n" {
		t.Errorf(`crlf("\r\r\n\n") = %q`, got)
	}
}

func TestBuildFoldsALineOfTenMegabytes(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.Text = strings.Repeat("x", 10<<20)
	raw := build(t, m)
	for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
		if len(line) > 76 {
			t.Fatalf("line of %d bytes, want at most 76", len(line))
		}
	}
	if _, got := reread(t, raw); got[0].Body != m.Text+"\r\n" { // a lone body ends with a line end
		t.Error("the long line reads back changed")
	}
}

func TestBuildChoosesTheShorterEncoding(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain": "quoted-printable",
		"Die Bestellung ist über Köln unterwegs.": "quoted-printable",
		"こんにちは世界":                                 "base64",
	} {
		m := message(t)
		m.Text = text
		h, got := reread(t, build(t, m))
		if h.Get("Content-Transfer-Encoding") != want {
			t.Errorf("encoding of %q = %s, want %s", text, h.Get("Content-Transfer-Encoding"), want)
		}
		if strings.TrimSuffix(got[0].Body, "\r\n") != text {
			t.Errorf("%q reads back as %q", text, got[0].Body)
		}
	}
}

func TestBuildRefusesWhatCouldForgeAHeader(t *testing.T) {
	t.Parallel()
	evil := "a\r\nBcc: x@example.net"
	file := func(a mail.Attachment) func(*mail.Message) {
		return func(m *mail.Message) { m.Attachments, m.HTML = []mail.Attachment{a}, "<p>x</p>" }
	}
	header := func(name, value string) func(*mail.Message) {
		return func(m *mail.Message) { m.Headers = []mail.Header{{Name: name, Value: value}} }
	}
	cases := map[string]func(*mail.Message){
		"subject CRLF":     func(m *mail.Message) { m.Subject = evil },
		"subject LF":       func(m *mail.Message) { m.Subject = "a\nb" },
		"subject folded":   func(m *mail.Message) { m.Subject = "a\r\n b" },
		"subject NUL":      func(m *mail.Message) { m.Subject = "a\x00b" },
		"subject not UTF8": func(m *mail.Message) { m.Subject = "a\xff" },
		"from name":        func(m *mail.Message) { m.From.Name = evil },
		"from address":     func(m *mail.Message) { m.From.Email = "a@b.com\r\nBcc: c@d.com" },
		"no from":          func(m *mail.Message) { m.From.Email = "" },
		"to with bracket":  func(m *mail.Message) { m.To[0].Email = "a>,<x@b.com" },
		"quoted local":     func(m *mail.Message) { m.To[0].Email = `"a b"@example.org` },
		"literal":          func(m *mail.Message) { m.To[0].Email = "a@[127.0.0.1]" },
		"C1 in local":      func(m *mail.Message) { m.To[0].Email = "a\u0085b@example.org" },
		"reply-to name":    func(m *mail.Message) { m.ReplyTo = []mail.Address{{Email: "a@b.com", Name: "x\ny"}} },
		"value CRLF":       header("X-A", evil),
		"value DEL":        header("X-A", "a\x7f"),
		"name colon":       header("X-A: b\r\nBcc", "x"),
		"name space":       header("X A", "b"),
		"name empty":       header("", "b"),
		"name UTF-8":       header("X-é", "b"),
		"name long":        header("X-"+strings.Repeat("a", 75), "b"),
		"bcc":              header("bCC", "x@example.net"),
		"from twice":       header("From", "x@example.net"),
		"content type":     header("Content-Type", "text/html"),
		"dkim":             header("DKIM-Signature", "v=1"),
		"filename":         file(mail.Attachment{Filename: evil}),
		"filename NUL":     file(mail.Attachment{Filename: "a\x00.txt"}),
		"content id":       file(mail.Attachment{Filename: "a", ContentID: "x>"}),
		"content id space": file(mail.Attachment{Filename: "a", ContentID: "x y"}),
		"content id CRLF":  file(mail.Attachment{Filename: "a", ContentID: evil}),
		"content id long":  file(mail.Attachment{Filename: "a", ContentID: strings.Repeat("x", 256)}),
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := message(t)
			change(m)
			if raw, err := Build(m); err == nil {
				t.Errorf("Build accepted it:\n%s", raw)
			} else if strings.Contains(err.Error(), "x@example.net") || strings.Contains(err.Error(), "c@d.com") {
				t.Errorf("the error repeats the input: %v", err)
			}
		})
	}
}

func TestBuildDropsAnAttachmentTypeItMayNotUse(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                          octetStream,
		"nonsense":                  octetStream,
		"text/html\r\nX-Evil: y":    octetStream,
		"message/rfc822":            octetStream,
		"message/partial; number=1": octetStream,
		"multipart/mixed":           octetStream,
		"IMAGE/PNG":                 "image/png",
	} {
		m := message(t)
		m.Attachments = []mail.Attachment{{Filename: "f", ContentType: given, Content: []byte("x")}}
		raw := build(t, m)
		if _, got := reread(t, raw); got[1].Type != want {
			t.Errorf("type %q is sent as %q, want %q", given, got[1].Type, want)
		}
		if bytes.Contains(raw, []byte("X-Evil")) {
			t.Errorf("type %q forged a header", given)
		}
	}
}

func TestBuildNamesANamelessAttachment(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.Attachments = []mail.Attachment{{Content: []byte("a")}, {Content: []byte("b"), ContentID: "no-html"}}
	_, got := reread(t, build(t, m))
	want := []leaf{
		{Type: "text/plain", Body: "hello\r\n"},
		{Type: octetStream, Disposition: "attachment", Filename: "attachment-1", Body: "a"},
		{Type: octetStream, Disposition: "attachment", Filename: "attachment-2", ContentID: "<no-html>", Body: "b"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
}
