package mail

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A header for programs is refused if it can't be written as it is, because programs do not decode encoded words in it.
func TestStructuredHeadersAreTakenOnlyAsTheyCanBeWritten(t *testing.T) {
	t.Parallel()
	id := func(n int) string { return "<" + strings.Repeat("x", n-9) + "@x.test>" }
	for _, tc := range []struct{ name, value, code string }{
		{"References", "<a@x.test> <b@x.test>", ""},
		{"References", "<ü@x.test>", "not_ascii"},
		{"References", "<a@x.test> grüße", "not_ascii"},
		{"REFERENCES", "<a@x.test> (für dich)", "not_ascii"},
		{"References", strings.Repeat("<aaaaaaaaaaaaaaaaaaaaaaaa@mail.example.com> ", 1000), ""},
		{"References", strings.Repeat("<aaaaaaaaaaaaaaaaaaaaaaaa@mail.example.com>\t", 1000), ""},
		{"References", strings.Repeat("<aaaaaaaaaaaaaaaaaaaaaaaa@mail.example.com>", 1000), ""},
		{"References", "<a@x.test> " + id(997), ""},
		{"References", "<a@x.test> " + id(998), "too_long"},
		{"References", strings.Repeat("<a@x.test> ", 6000), "too_long"},
		{"In-Reply-To", "<a@x.test>", ""},
		{"In-Reply-To", "<a@xn--x-eha.test>", ""},
		{"In-Reply-To", "<a@ü.test>", "not_ascii"},
		{"In-Reply-To", id(1200), "too_long"},
		{"Original-Message-ID", "<ü@x.test>", "not_ascii"},
		{"Supersedes", "<ü@x.test>", "not_ascii"},
		{"List-Unsubscribe", "<https://u.example/a?b=c>, <mailto:u@example.com>", ""},
		{"List-Unsubscribe", "<https://u.example/ü>", ""}, // percent-encoded
		{"List-Unsubscribe", "<mailto:u@example.com?subject=für>", ""},
		{"List-Unsubscribe", "<https://ü.example/a>", "not_ascii"},
		{"List-Unsubscribe", "https://u.example/ü", "not_ascii"},
		{"List-Unsubscribe", "<https://u.example/" + strings.Repeat("a", 1000) + ">", "too_long"},
		{"List-Unsubscribe", "<https://u.example/" + strings.Repeat("ü", 400) + ">", "too_long"},
		{"List-Unsubscribe", strings.Repeat("<https://u.example/"+strings.Repeat("a", 400)+">,", 5), ""},
		{"List-Unsubscribe-Post", "List-Unsubscribe=One-Click", ""},
		{"List-Unsubscribe-Post", "List-Unsubscribe=Öne-Click", "not_ascii"},
		{"List-Post", "NO (geschlossen für alle)", ""},
		{"List-Help", "für <https://h.example>", "not_ascii"},
		{"List-Archive", "< not closed ü", "not_ascii"},
		{"List-Id", "Käse <news.example.com>", ""},
		{"List-Id", "Käse <käse.example.com>", "not_ascii"},
		{"List-ID", `"Käse, Wein" <news.example.com>`, ""},
		{"Disposition-Notification-To", "Jiří <j@x.test>", ""},
		{"Disposition-Notification-To", "Jiří <jiří@x.test>", "not_ascii"},
		{"Auto-Submitted", "auto-generated", ""},
		{"Auto-Submitted", "automatisch-für-dich", "not_ascii"},
		{"Precedence", "bülk", "not_ascii"},
		{"Feedback-ID", "Kampagne:Käse:mail:x", "not_ascii"},
		{"Feedback-ID", "a:b:c:" + strings.Repeat("d", 1000), "too_long"},
		{"Importance", "hög", "not_ascii"},
		{"Archived-At", "<https://a.example/ü>", ""},
		{"Archived-At", "<https://ü.example/>", "not_ascii"},
		{"X-Note", "für dich", ""}, // text
		{"Comments", "für dich", ""},
		{"Keywords", "Käse, Wein", ""},
		{"Message-ID", "<a@x.test>", "header_not_allowed"},
		{"Content-Language", "de", "header_not_allowed"},
	} {
		value := tc.value[:min(len(tc.value), 60)]
		d := Draft{From: Mailbox{Email: "shop@example.com"}, To: []Mailbox{{Email: "ann@example.org"}}, Text: "x", Headers: []Header{{tc.name, tc.value}}}
		_, err := d.Message(time.Now(), DefaultCaps())
		invalid, _ := errors.AsType[*Invalid](err)
		switch {
		case tc.code == "" && err != nil:
			t.Errorf("%s: %s: refused: %v", tc.name, value, err)
		case tc.code == "":
		case invalid == nil || len(invalid.Fields) != 1 || invalid.Fields[0].Field != "headers."+tc.name || invalid.Fields[0].Code != tc.code:
			t.Errorf("%s: %s: err = %v, want %s", tc.name, value, err, tc.code)
		case tc.code != "header_not_allowed" && !strings.HasPrefix(invalid.Fields[0].Message, tc.name+" "):
			t.Errorf("%s: %s: the message %q does not name the header", tc.name, value, invalid.Fields[0].Message)
		}
	}
}

// A value of 64 KiB is cut into pieces in time that grows with its length only.
func TestPiecesOfHostileValues(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"<", `"`, `"\`, `\"`, "(", "<a", "ü<", " \t"} {
		value := strings.Repeat(unit, maxStructured/len(unit))
		if got := strings.Join(HeaderPieces(value), ""); got != value {
			t.Errorf("%q: the pieces are not the value", unit)
		}
	}
}
