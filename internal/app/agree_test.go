package app

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

// shapes are texts as callers send them.
func shapes() []string {
	return []string{
		"Your order", "Smith, Ann", `Ann "the boss" \ Smith`, "Žluťoučký kůň 🐎", "=?utf-8?q?x?=", "a =?utf-8?b?eA==?= b", "株式会社サンプル",
		strings.Repeat("long ", 30) + "end", strings.Repeat("ž", 100), "O'Neil (sales) <x>", "a;b:c@d", "tab\there", "<b>&amp;</b>", "{{x}} %recipient.y%", "ß",
	}
}

// pick chooses one of several.
func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// generated is a message that a caller may send; n decides its shape. It may have content that only some providers take, if
// routing knows that from their capabilities.
func generated(t *testing.T, n int) *mail.Message {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(n), 7)) //nolint:gosec // the same on every run
	text := func() string { return pick(r, shapes()...) }
	boxes := func(kind string, most int) []mail.Mailbox {
		list := make([]mail.Mailbox, 0, most)
		for i := range r.IntN(most + 1) {
			name := strings.ReplaceAll(text(), "\t", " ")
			if r.IntN(2) == 0 {
				name = ""
			}
			local := pick(r, "ann", "Ann.B", "a+tag", "o'brien", "x_y-z", "a!#$%&'*/=^`{|}~b")
			list = append(list, mail.Mailbox{Email: fmt.Sprintf("%s.%s%d@%s", local, kind, i, pick(r, "example.org", "bücher.example", "a-b.example.co.uk")), Name: name})
		}
		return list
	}
	known := []mail.Header{
		{},
		{Name: "List-Id", Value: "Käse <l.example.com>"},
		{Name: "References", Value: "<a@x.test> <b@x.test>"},
		{Name: "In-Reply-To", Value: "<a@x.test>"},
		{Name: "Auto-Submitted", Value: "auto-generated"},
		{Name: "List-Unsubscribe", Value: "<https://x.test/u>"},
		{Name: "Keywords", Value: "Käse, <b>"},
	}
	d := mail.Draft{
		From: mail.Mailbox{Email: "shop@example.com", Name: pick(r, "", "Shop", "Käse & Söhne, GmbH", "=?utf-8?q?x?=", `Q "x" \`)},
		To:   append([]mail.Mailbox{{Email: "first@example.org"}}, boxes("to", pick(r, 0, 3, 30))...), Cc: boxes("cc", 3), Bcc: boxes("bcc", 3),
		ReplyTo: boxes("reply", pick(r, 0, 1, 3)), Subject: text(), Metadata: map[string]string{},
	}
	if r.IntN(3) > 0 {
		d.Text = text() + pick(r, "", "\n.\n", "\r\nline\r\n", strings.Repeat("x", 3000))
	}
	if d.Text == "" || r.IntN(2) == 0 {
		d.HTML = "<p>" + text() + `</p><img src="cid:logo">`
	}
	for i := range r.IntN(pick(r, 1, 4, 25)) {
		name, value := fmt.Sprintf("X-H%d", i), pick(r, text(), "", strings.Repeat("v", 900), "plain")
		if known := pick(r, known...); known.Name != "" && i == 0 {
			name, value = known.Name, known.Value
		}
		d.Headers = append(d.Headers, mail.Header{Name: name, Value: value})
	}
	for i := range r.IntN(4) {
		d.Tags = append(d.Tags, fmt.Sprintf("%d%s", i, strings.ReplaceAll(text(), "\t", " ")))
	}
	for i := range r.IntN(pick(r, 1, 9)) {
		d.Metadata[fmt.Sprintf("%s%d", pick(r, "order", "k-", "a.b_", "email"), i)] = pick(r, text(), "", "42", `"q" \`)
	}
	for i := range r.IntN(4) {
		d.Attachments = append(d.Attachments, mail.File{
			Filename:    fmt.Sprintf("%d-%s", i, pick(r, "a.pdf", "účet.pdf", "mail.eml", "invite.ics", "data.csv", "noext", "page.mht", "script.js", strings.Repeat("n", 150)+".txt")),
			ContentType: pick(r, "", "application/pdf", "text/csv; charset=utf-8", "text/calendar; method=REQUEST", "application/vnd.openxmlformats-officedocument.wordprocessingml.document; x=y"),
			ContentID:   pick(r, "", fmt.Sprintf("cid%d", i)), Content: mail.NewBase64([]byte(pick(r, "x", strings.Repeat("data", 500)))),
		})
	}
	m, err := d.Message(time.Now(), mail.DefaultCaps())
	if err != nil {
		t.Fatalf("message %d can't be accepted: %v", n, err)
	}
	m.ID = mail.NewID()
	return m
}

// attempts are the calls that may be made for a message: the first one, and later ones for the recipients that are left.
func attempts(m *mail.Message) []*provider.Send {
	all := []*provider.Send{{Message: m, To: m.To, Cc: m.Cc, Bcc: m.Bcc, Attempt: 1}}
	for _, s := range []*provider.Send{
		{Message: m, To: m.To[1:], Bcc: m.Bcc, Attempt: 2}, {Message: m, Cc: m.Cc, Attempt: 3}, {Message: m, Bcc: m.Bcc, Attempt: 4},
	} {
		if len(s.Envelope()) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// An adapter must be able to write each message that routing lets through. The emulator must accept it; it was written from
// the provider's documentation and not from the adapter.
func TestAdaptersAndEmulatorsAgreeOnGeneratedMessages(t *testing.T) {
	t.Parallel()
	emu, err := emulated.New(emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := emu.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = emu.Stop(context.Background()) })
	accounts, secrets, err := Emulated(emu, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		settings, err := json.Marshal(a.Settings)
		if err != nil {
			t.Fatal(err)
		}
		p, can, err := catalog.New(a.Kind, settings, secrets[a.Name])
		if err != nil {
			t.Fatal(err)
		}
		sent, kept := 0, 0
		for n := range 60 {
			m := generated(t, n)
			for _, s := range attempts(m) {
				facts := m.Facts()
				facts.Recipients = len(s.Envelope())
				if can.Refuse(&facts) != "" {
					kept++
					continue
				}
				receipt, err := p.Send(t.Context(), s)
				refused := slices.DeleteFunc(receipt.Refused, func(r provider.Refusal) bool { return r.Full }) // they go in another call
				if sent++; err != nil || len(refused) > 0 {
					t.Errorf("%s, message %d, attempt %d: %v, refused %v", a.Kind, n, s.Attempt, err, receipt.Refused)
				}
			}
		}
		t.Logf("%s: %d sent, %d that it can't carry", a.Kind, sent, kept)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
