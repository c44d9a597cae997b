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
		{"List-Help", "< not closed ü", "< not closed «ü»"},
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
	ids := make([]string, 20)
	for i := range ids {
		ids[i] = "<" + strings.Repeat("ab", 15) + "@mail.example.com>"
	}
	m := message(t)
	m.Headers = []mail.Header{{Name: "References", Value: strings.Join(ids, " ")}}
	raw := build(t, m)
	for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
		if len(line) > softLine {
			t.Errorf("line of %d characters", len(line))
		}
	}
	if h, _ := reread(t, raw); h.Get("References") != m.Headers[0].Value {
		t.Errorf("References = %q", h.Get("References"))
	}
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

// A text that looks like an encoded word arrives as it was given, wherever it stands.
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
