package mime

import (
	"bytes"
	netmail "net/mail"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

func TestSubjectReadsBackAsGiven(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{
		"", "x", "Your order", "two  spaces and\ta tab", " leading", "trailing ", "   ", "=?utf-8?q?not_ours?=", "a =? b",
		"Grüße aus Köln", "こんにちは世界、これはとても長い件名ですので何行かに折り返される必要があります。もう少し長くします。",
		strings.Repeat("word ", 60) + "end", strings.Repeat("x", 998), strings.Repeat("é", 300), strings.Repeat("a  ", 400) + "z",
		"emoji 👩‍👩‍👧‍👦 " + strings.Repeat("👍", 40), "\t", "\u2028", "=_mixed_",
	} {
		m := message(t)
		m.Subject = subject
		raw := build(t, m)
		h, _ := reread(t, raw)
		if got := decoded(t, h, "Subject"); got != subject {
			t.Errorf("subject %q reads back as %q", subject, got)
		}
		for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
			if bytes.Contains(line, []byte("=?utf-8?")) && len(line) > 76 {
				t.Errorf("subject %.20q: a line with encoded words has %d characters, want at most 76 (RFC 2047)", subject, len(line))
			}
			if len(line) > 0 && len(bytes.TrimSpace(line)) == 0 {
				t.Errorf("subject %.20q: a line of white space only", subject)
			}
		}
	}
}

func TestLongURLStaysWhole(t *testing.T) {
	t.Parallel()
	value := "<https://u.example/" + strings.Repeat("t", 300) + ">, <mailto:u@example.com?subject=unsubscribe>"
	m := message(t)
	m.Headers = []mail.Header{{Name: "List-Unsubscribe", Value: value}}
	h, _ := reread(t, build(t, m))
	if got := h.Get("List-Unsubscribe"); got != value {
		t.Errorf("List-Unsubscribe = %q, want %q", got, value)
	}
}

func TestAddressesReadBackAsGiven(t *testing.T) {
	t.Parallel()
	names := []string{
		"", "Ann", "Ann B. Smith", "Smith, Ann", `Ann "the boss" \ Smith`, "Änne Müller", "株式会社サンプル・カスタマーサポートセンター東京本部第一課",
		"=?utf-8?q?x?=", "ann@example.org", "  spaces  ", strings.Repeat("long name ", 12) + "end", "O'Neil (sales)", "a;b:c<d>",
		strings.Repeat("n", 200),
	}
	m := message(t)
	m.To = nil
	for _, n := range names {
		m.To = append(m.To, mail.Address{Email: "ann+tag@example.org", Name: n})
	}
	m.Cc = []mail.Address{{Email: "c@xn--bcher-kva.example", Name: "Bücher"}}
	m.ReplyTo = []mail.Address{{Email: "help@example.com"}, {Email: "help2@example.com", Name: "Help"}}
	raw := build(t, m)
	h, _ := reread(t, raw)
	for name, want := range map[string][]mail.Address{"From": {m.From}, "To": m.To, "Cc": m.Cc, "Reply-To": m.ReplyTo} {
		if diff := cmp.Diff(want, addresses(t, h, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
		if len(line) > 76 {
			t.Errorf("line of %d characters, want at most 76: %s", len(line), line)
		}
	}
}

func addresses(t testing.TB, h netmail.Header, name string) []mail.Address {
	t.Helper()
	list, err := h.AddressList(name)
	if err != nil {
		t.Fatalf("%s: %v in %q", name, err, h.Get(name))
	}
	as := make([]mail.Address, 0, len(list))
	for _, a := range list {
		as = append(as, mail.Address{Email: a.Address, Name: a.Name})
	}
	return as
}

func TestAddressWithNonASCIILocalPartStaysRaw(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.To = []mail.Address{{Email: "jürgen@example.org", Name: "Jürgen"}}
	raw, err := Build(m)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte("<jürgen@example.org>")) {
		t.Errorf("To does not hold the raw address (RFC 6532):\n%s", raw)
	}
}

func TestFilenamesReadBackAsGiven(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"a.pdf", "with space.pdf", `quo"te.txt`, `back\slash`, "per%20cent.txt", "résumé.pdf", "見積書.xlsx", "=?utf-8?q?x?=.txt",
		strings.Repeat("long-", 40) + ".pdf", strings.Repeat("長", 80) + ".pdf", "semi;colon=.txt", "'quote'.txt", "👩‍👩‍👧‍👦.png",
	} {
		m := message(t)
		m.Attachments = []mail.Attachment{{Filename: name, ContentType: "application/pdf", Content: []byte("x")}}
		raw := build(t, m)
		if _, got := reread(t, raw); got[1].Filename != name {
			t.Errorf("filename %q reads back as %q", name, got[1].Filename)
		}
		for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
			if len(line) > 78 {
				t.Errorf("filename %.20q: line of %d characters: %s", name, len(line), line)
			}
		}
	}
}

func TestEncodedWordsHoldWholeCharacters(t *testing.T) {
	t.Parallel()
	for _, s := range []string{strings.Repeat("é", 100), strings.Repeat("世", 100), strings.Repeat("👍", 100), strings.Repeat("a=", 100)} {
		for first := range 80 {
			for _, w := range encodedWords(s, first) {
				if len(w) > 75 {
					t.Fatalf("word of %d characters, want at most 75: %s", len(w), w)
				}
			}
		}
	}
}
