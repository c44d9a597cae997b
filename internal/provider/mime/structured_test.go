package mime

import (
	"bytes"
	"mime"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

func TestStructuredHeadersKeepTheirIDs(t *testing.T) {
	t.Parallel()
	coded := regexp.MustCompile("«[^»]*»") // encoded words, readably
	for _, c := range []struct{ name, value, want string }{
		{"References", "<a@x.test> <b@x.test>", "<a@x.test> <b@x.test>"},
		{"References", "<=?utf-8?q?a?=@x.test>", "<=?utf-8?q?a?=@x.test>"},
		{"In-Reply-To", "<ü@x.test>", "<%C3%BC@x.test>"},
		{"List-Id", "<news.example.com>", "<news.example.com>"},
		{"List-Id", "Shop news <news.example.com>", "Shop news <news.example.com>"},
		{"List-Id", "Käse news <news.example.com>", "«Käse» news <news.example.com>"},
		{"List-Id", "Die Käse für Köln <news.example.com>", "Die «Käse für Köln» <news.example.com>"},
		{"List-Id", `"Käse, Wein \"&\" mehr" <news.example.com>`, `«Käse, Wein "&" mehr» <news.example.com>`},
		{"List-Id", "Käse<news.example.com>", "«Käse» <news.example.com>"},
		{"List-Id", "=?utf-8?q?x?= <news.example.com>", "«=?utf-8?q?x?=» <news.example.com>"},
		{"List-ID", `"Shop, news" <news.example.com>`, `"Shop, news" <news.example.com>`},
		{"List-Unsubscribe", "<https://u.example/ü?a==?utf-8?q?x?=>, <mailto:u@example.com?subject=a>", "<https://u.example/%C3%BC?a==?utf-8?q?x?=>, <mailto:u@example.com?subject=a>"},
		{"List-Unsubscribe-Post", "List-Unsubscribe=One-Click", "List-Unsubscribe=One-Click"},
		{"List-Post", "NO (geschlossen für alle)", "NO (geschlossen «für» alle)"},
		{"Archived-At", "<https://a.example/1>", "<https://a.example/1>"},
		{"Disposition-Notification-To", "Jiří Novák <j@x.test>, Ann <a@x.test>", "«Jiří Novák» <j@x.test>, Ann <a@x.test>"},
		{"X-Note", "<ü@x.test>", "«<ü@x.test>»"},
		{"List-Help", "< not closed ü", "< not closed %C3%BC"},
		{"Auto-Submitted", "auto-generated; note=ü", "auto-generated; note=%C3%BC"},
		{"Feedback-ID", "a:=?utf-8?q?x?=:b:c", "a:=?utf-8?q?x?=:b:c"},
		{"References", "<a@x.test>\t<b@x.test><c@x.test>  ü", "<a@x.test> <b@x.test> <c@x.test> %C3%BC"},
		{"Return-Receipt-To", "Jörg Müller <j@x.test>,Ann <a@x.test>", "«Jörg Müller» <j@x.test>, Ann <a@x.test>"},
		{"List-Unsubscribe", "<https://u.example/a>,<mailto:u@example.com>", "<https://u.example/a>, <mailto:u@example.com>"},
		{"Keywords", "plain", "plain"},
		{"X-Empty", "", ""},
	} {
		c.want = coded.ReplaceAllStringFunc(c.want, func(s string) string { return Words(strings.Trim(s, "«»")) })
		if got := Value(c.name, c.value); got != c.want {
			t.Errorf("%s: %q is written as %q, want %q", c.name, c.value, got, c.want)
		}
		m := message(t)
		m.Headers = []mail.Header{{Name: c.name, Value: c.value}}
		h, _ := reread(t, build(t, m))
		if got := h.Get(c.name); got != c.want {
			t.Errorf("%s: Build writes %q as %q, want %q", c.name, c.value, got, c.want)
		}
	}
}

func TestManyReferencesAreFolded(t *testing.T) {
	t.Parallel()
	ids := make([]string, 300)
	for i := range ids {
		ids[i] = "<" + strings.Repeat("ab", 15) + "@mail.example.com>"
	}
	long := "<" + strings.Repeat("x", 982) + "@mail.test>" // with the space before it, a line of 994
	for _, between := range []string{" ", "\t", "  ", ""} {
		for _, list := range [][]string{ids, append([]string{long}, ids...), append(ids[:2:2], long)} {
			m := message(t)
			m.Headers = []mail.Header{{Name: "References", Value: strings.Join(list, between)}, {Name: "In-Reply-To", Value: list[0]}}
			raw := build(t, m)
			for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
				if len(line) > softLine && !bytes.Contains(line, []byte(long)) || len(line) > hardLine {
					t.Errorf("line of %d characters", len(line))
				}
			}
			h, _ := reread(t, raw)
			if got := strings.Join(strings.Fields(h.Get("References")), " "); got != strings.Join(list, " ") {
				t.Errorf("%d ids with %q between: References = %q", len(list), between, got)
			}
			if got := strings.TrimSpace(h.Get("In-Reply-To")); got != list[0] {
				t.Errorf("In-Reply-To = %q", got)
			}
		}
	}
}

// Accepted values are written as they were given, except names, comments and the paths of URLs.
func FuzzStructuredHeadersAreNeverEncoded(f *testing.F) {
	f.Add("References", "<a@x.test> <b@x.test>")
	f.Add("List-Unsubscribe", "<https://u.example/ü>, <mailto:u@example.com> (für alle)")
	f.Add("List-Id", "Käse <news.example.com>")
	f.Add("Auto-Submitted", "auto-generated; x=\"a  b")
	f.Add("In-Reply-To", strings.Repeat("<", 999))
	f.Fuzz(func(t *testing.T, name, value string) {
		d := mail.Draft{
			From: mail.Mailbox{Email: "shop@example.com"}, To: []mail.Mailbox{{Email: "ann@example.org"}}, Text: "x",
			Headers: []mail.Header{{Name: name, Value: value}},
		}
		m, err := d.Message(time.Now(), mail.DefaultCaps())
		syntax := mail.SyntaxOf(name)
		if err != nil || syntax == mail.Unstructured {
			return
		}
		raw := build(t, m)
		for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
			if len(line) > hardLine {
				t.Errorf("line of %d characters", len(line))
			}
		}
		given := m.Headers[0].Value
		squeezed := strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "")
		if got := Value(name, given); printable(given, "\t") && !LooksEncoded(given) && squeezed.Replace(got) != squeezed.Replace(given) ||
			!printable(got, "") || syntax != mail.Named && syntax != mail.URLs && LooksEncoded(got) && !LooksEncoded(given) {
			t.Errorf("%s: %q is written as %q", name, given, got)
		}
	})
}

func TestAStructuredValueTooLongForALineStillGoes(t *testing.T) {
	t.Parallel()
	m := message(t)
	m.Headers = []mail.Header{{Name: "List-Help", Value: "<https://u.example/" + strings.Repeat("ü", 480) + ">"}}
	for line := range bytes.SplitSeq(build(t, m), []byte("\r\n")) {
		if len(line) > hardLine {
			t.Errorf("line of %d characters", len(line))
		}
	}
}

// A text that looks like an encoded word arrives unchanged, in any place.
func TestLookAlikesReadBackAsGiven(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"=?utf-8?q?x?=", "a=?utf-8?q?x?=", "Sale =?utf-8?b?eA==?= today", "=?", "x=?y", "ü =?utf-8?q?x?="} {
		m := message(t)
		m.From.Name, m.Subject = text, text
		m.To = []mail.Address{{Email: "ann@example.org", Name: text}}
		m.Headers = []mail.Header{{Name: "X-Note", Value: text}}
		h, _ := reread(t, build(t, m))
		for _, name := range []string{"Subject", "X-Note"} {
			if got := decoded(t, h, name); got != text {
				t.Errorf("%s %q reads back as %q", name, text, got)
			}
		}
		for _, name := range []string{"From", "To"} {
			if got := addresses(t, h, name)[0].Name; got != text {
				t.Errorf("%s %q reads back as %q", name, text, got)
			}
		}
		if got, err := new(mime.WordDecoder).DecodeHeader(Words(text)); err != nil || got != text {
			t.Errorf("Words(%q) reads back as %q, %v", text, got, err)
		}
	}
}

func TestDateIsTheLaterOfAcceptanceAndSendAt(t *testing.T) {
	t.Parallel()
	m := message(t)
	for at, want := range map[time.Time]string{
		{}:                          "Mon, 23 Nov 2026 08:30:01 +0000",
		m.CreatedAt.Add(-time.Hour): "Mon, 23 Nov 2026 08:30:01 +0000",
		m.CreatedAt.AddDate(0, 0, 3).In(time.FixedZone("x", -7200)): "Thu, 26 Nov 2026 08:30:01 +0000",
	} {
		m.SendAt = at
		h, _ := reread(t, build(t, m))
		if got := h.Get("Date"); got != want {
			t.Errorf("Date with send_at %s = %s, want %s", at, got, want)
		}
	}
}
