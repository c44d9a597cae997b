package emulator_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

const ics = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n"

func TestSendGridTakesOneParameterOfOneType(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]int{
		"text/calendar; method=REQUEST":                http.StatusAccepted,
		"text/calendar":                                http.StatusAccepted,
		"text/calendar; charset=utf-8":                 http.StatusBadRequest,
		"text/calendar; method=REQUEST; charset=utf-8": http.StatusBadRequest,
		"text/x-note; method=REQUEST":                  http.StatusBadRequest,
	} {
		b := start(t, emulator.Options{})
		body := sendGridBody()
		body["content"] = []any{object{"type": "text/plain", "value": "hi"}, object{"type": kind, "value": ics}}
		if a := b.sendGrid(t, body); a.status != want {
			t.Errorf("%s: %d %s, want %d", kind, a.status, a.body, want)
		}
	}
}

// The ledger says whether mail programs would show an invitation.
func TestLedgerTellsOfInvitations(t *testing.T) {
	t.Parallel()
	part := func(header, body string) string { return "--b\r\n" + header + "\r\n\r\n" + body + "\r\n" }
	message := func(kind string, parts ...string) string {
		return "From: shop@example.com\r\nSubject: x\r\nContent-Type: multipart/" + kind + "; boundary=b\r\n\r\n" + strings.Join(parts, "") + "--b--\r\n"
	}
	text := part("Content-Type: text/plain", "hi")
	calendar := part("Content-Type: text/calendar; method=REQUEST; charset=utf-8", ics)
	coded := part("Content-Type: text/calendar; method=REQUEST; charset=utf-8\r\nContent-Transfer-Encoding: base64", base64.StdEncoding.EncodeToString([]byte(ics)))
	for name, tc := range map[string]struct{ mime, want string }{
		"as it should be":      {message("alternative", text, calendar), "REQUEST"},
		"in Base64":            {message("alternative", text, coded), "REQUEST"},
		"not the last":         {message("alternative", calendar, text), ""},
		"an attachment only":   {message("mixed", text, calendar), ""},
		"no method":            {message("alternative", text, part("Content-Type: text/calendar; charset=utf-8", ics)), "invalid: the part names no method"},
		"another method":       {message("alternative", text, strings.Replace(calendar, "method=REQUEST", "method=CANCEL", 1)), "invalid: METHOD is not CANCEL"},
		"no charset":           {message("alternative", text, part("Content-Type: text/calendar; method=REQUEST", ics)), "invalid: charset "},
		"no invitation at all": {message("alternative", text, part("Content-Type: text/html", "<p>text/calendar")), ""},
	} {
		b := start(t, emulator.Options{})
		if _, err := deliver(b.login(t), tc.mime, "ann@example.org"); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := b.Ledger()[0].Calendar; got != tc.want {
			t.Errorf("%s: calendar = %q, want %q", name, got, tc.want)
		}
	}
}
