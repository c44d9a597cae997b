//go:build drill

package app

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// oddContents are the kinds of content that some providers refuse and others take, or that a provider might refuse.
func oddContents() map[string]func(*api.SendRequest) {
	attach := func(a api.Attachment) func(*api.SendRequest) {
		return func(m *api.SendRequest) { m.Attachments = []api.Attachment{a} }
	}
	file := func(name, contentType string) func(*api.SendRequest) {
		return attach(api.Attachment{Filename: name, ContentType: contentType, Content: "Y29udGVudA=="})
	}
	header := func(name, value string) func(*api.SendRequest) {
		return func(m *api.SendRequest) { m.Headers = map[string]string{name: value} }
	}
	headers := func(n int, value string) func(*api.SendRequest) {
		return func(m *api.SendRequest) {
			m.Headers = map[string]string{}
			for i := range n {
				m.Headers[fmt.Sprintf("X-Odd-%d", i)] = value
			}
		}
	}
	from := func(name string) func(*api.SendRequest) {
		return func(m *api.SendRequest) { m.From.Name = name }
	}
	return map[string]func(*api.SendRequest){
		"no subject":                func(m *api.SendRequest) { m.Subject = "" },
		"a subject of spaces":       func(m *api.SendRequest) { m.Subject = "   " },
		"a long subject":            func(m *api.SendRequest) { m.Subject = strings.Repeat("ü", 499) },
		"an empty file":             attach(api.Attachment{Filename: "empty.txt", ContentType: "text/plain", Content: ""}),
		"an empty inline file":      attach(api.Attachment{Filename: "e.png", ContentType: "image/png", ContentID: new("e"), Content: ""}),
		"a calendar":                file("invite.ics", "text/calendar; method=REQUEST"),
		"a charset":                 file("list.csv", "text/csv; charset=utf-8"),
		"a type of many parameters": file("a.txt", "text/plain; charset=utf-8; format=flowed; delsp=yes; x="+strings.Repeat("y", 60)),
		"a mail as a file":          file("mail.eml", "application/octet-stream"),
		"a program":                 file("setup.exe", "application/octet-stream"),
		"a script":                  file("Script.JS", "text/javascript"),
		"a file name in Greek":      file("τιμολόγιο.pdf", "application/pdf"),
		"a file without extension":  file("README", "text/plain"),
		"a long content id": attach(api.Attachment{
			Filename: "a.png", ContentType: "image/png", ContentID: new(strings.Repeat("c", 120)), Content: "eA==",
		}),
		"a long From":                  from(strings.Repeat("n", 250)),
		"a From of quotes":             from(strings.Repeat(`"`, 125)),
		"a From with all its marks":    from(`Shop, Inc. (EU) <sales>; "best" \o/ @home`),
		"a From of emoji":              from(strings.Repeat("😀", 60)),
		"a From that looks encoded":    from("=?UTF-8?Q?Shop?="),
		"a long To":                    func(m *api.SendRequest) { m.To[0].Name = strings.Repeat("w", 255) },
		"an empty header":              header("X-Empty", ""),
		"a header with a tab":          header("X-Tab", "a\tb"),
		"a header in Greek":            header("X-Greek", "αβγ"),
		"a long header in Greek":       header("X-Greek", strings.Repeat("αβγ ", 110)),
		"two hundred References":       header("References", strings.Repeat("<0123456789abcdef0123456789abcdef@mail.example.com> ", 200)),
		"one id of 997 bytes":          header("In-Reply-To", "<"+strings.Repeat("x", 980)+"@mail.example>"),
		"a List-Id in Greek":           header("List-Id", "αβγ <news.example.com>"),
		"a header of 996 bytes":        header("X-Long", strings.Repeat("x", 990)),
		"a header of one digit":        header("0", "x"),
		"a header of the longest name": header(strings.Repeat("X", 76), "x"),
		"fifteen headers":              headers(15, "v"),
		"sixty headers":                headers(60, "v"),
		"odd tags":                     func(m *api.SendRequest) { m.Tags = []string{"späte Bestellung", "a,b", strings.Repeat("ü", 255)} },
		"fifty tags": func(m *api.SendRequest) {
			for i := range 50 {
				m.Tags = append(m.Tags, fmt.Sprintf("tag-%d", i))
			}
		},
		"metadata of quotes": func(m *api.SendRequest) {
			m.Metadata = map[string]string{}
			for i := range 9 {
				m.Metadata[fmt.Sprint("k", i)] = strings.Repeat(`"`, 900)
			}
		},
		"an address with marks":       func(m *api.SendRequest) { m.To[0].Email = "o'brien/who?+a=b@example.org" },
		"a text of lines without end": func(m *api.SendRequest) { m.Text = strings.Repeat("x", 20_000) },
	}
}

// Every kind of content is sent with the weights on each account in turn.
func TestNoOddContentIsLostBesideAccountsThatTakeIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	kinds := oddContents()
	names := slices.Sorted(maps.Keys(kinds))
	tries := 0
	for _, account := range accountNames() {
		prefer(t, b, r, account)
		all := letters(len(names))
		for i, name := range names {
			kinds[name](&all[i])
		}
		ids := submit(t, r.api, all)
		b.settle(t, 60*time.Second)
		for i, id := range ids {
			m := message(t, r.api, id)
			tries += len(m.Attempts)
			if m.Status != "sent" {
				t.Errorf("%s for %s: %s by %s: %s", names[i], account, m.Status, classes(m), m.Recipients[0].Detail)
			}
		}
		if got := b.shares()[account]; got < len(names)/2 {
			t.Errorf("by %s went %d of %d: it was not the first choice", account, got, len(names))
		}
	}
	t.Logf("%d kinds, %d calls", len(kinds), tries)
	if got := len(b.ledger()); got != len(accountNames())*len(kinds) {
		t.Errorf("%d messages are in the ledger, want %d", got, len(accountNames())*len(kinds))
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM account_park`); n != 0 {
		t.Errorf("%d accounts or senders were parked by odd content", n)
	}
}

func TestContentThatNobodyTakesIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	for account, want := range map[string]struct{ kind, says string }{
		"sendgrid": {"no subject", "the subject is empty"},
		"postmark": {"an empty file", "an attachment is empty"},
		"ses":      {"a program", "attachment type .exe is forbidden"},
	} {
		only(t, r, account)
		m := letter(0)
		oddContents()[want.kind](&m)
		_, err := r.api.Send(t.Context(), m, "")
		var p *api.Problem
		if !errors.As(err, &p) || p.Status != http.StatusUnprocessableEntity || !strings.Contains(p.Detail, account+": "+want.says) {
			t.Errorf("%s to %s alone: %v, want a 422 that says %q", want.kind, account, err, want.says)
		}
	}
}

func TestContentIsFailedByASecondOpinionOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	refuses := emulator.Fault{Mode: "error", Status: 400, Body: `{"message":"content refused","errors":[{"message":"content refused"}]}`}
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {refuses}, "mailgun": {refuses}})
	only(t, r, "sendgrid", "ses")
	for _, id := range submit(t, r.api, letters(12)) {
		m := becomes(t, r.api, id, settleTime, "sent")
		if got := classes(m); got != "ses accepted" && got != "sendgrid rejected, ses accepted" {
			t.Errorf("attempts = %s", got)
		}
	}
	only(t, r, "sendgrid", "mailgun")
	for _, id := range submit(t, r.api, letters(4)) {
		m := becomes(t, r.api, id, settleTime, "failed")
		if len(m.Attempts) != 2 || !strings.Contains(m.Recipients[0].Detail, "before, by ") {
			t.Errorf("attempts = %s, detail %q; want two refusals and both told", classes(m), m.Recipients[0].Detail)
		}
	}
	only(t, r, "sendgrid")
	m := becomes(t, r.api, send(t, r.api, letter(0)), settleTime, "failed")
	if d := m.Recipients[0].Detail; len(m.Attempts) != 1 || !strings.HasPrefix(d, "rejected: status 400: content refused") {
		t.Errorf("attempts = %s, detail %q; want the refusal of the only one", classes(m), d)
	}
}
