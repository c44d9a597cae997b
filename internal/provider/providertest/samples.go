package providertest

import (
	"fmt"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// Sample is a named send, the same on every run.
type Sample struct {
	Name string
	Send *provider.Send
}

// Samples returns fresh copies of the sample sends. They cover everything that adapters translate. Their names: plain, rich,
// addressed, bcc_left, cc_left.
func Samples() []Sample {
	return []Sample{
		{"plain", whole(Plain())},
		{"rich", whole(rich())},
		{"addressed", whole(addressed())},
		{"bcc_left", &provider.Send{Message: addressed(), Bcc: addressed().Bcc, Attempt: 2, Key: addressed().ID.String()}},
		{"cc_left", &provider.Send{Message: addressed(), Cc: addressed().Cc, Bcc: addressed().Bcc[:1], Attempt: 2, Key: addressed().ID.String()}},
	}
}

// Plain is a message with one recipient and one line.
func Plain() *mail.Message {
	m := base("0199c0de-0000-7000-8000-000000000001")
	m.To = []mail.Address{{Email: "ann@example.org"}}
	m.Subject = "Your order"
	m.Text = "It is on its way."
	return m
}

// rich has both bodies, a file, an inline image, and characters outside ASCII wherever they are allowed.
func rich() *mail.Message {
	m := base("0199c0de-0000-7000-8000-000000000002")
	m.From.Name = "Käse & Söhne, GmbH"
	m.To = []mail.Address{{Email: "jiri@xn--hkyrky-ptac70bc.example", Name: `Jiří "Jirka" Novák`}}
	m.Subject = "Žluťoučký kůň 🐎 <b>&</b>"
	m.Text = "Příliš žluťoučký kůň.\nDruhý řádek.\n"
	m.HTML = `<p>Příliš <b>žluťoučký</b> kůň. <img src="cid:logo"></p>`
	m.Attachments = []mail.Attachment{
		{Filename: "účet.pdf", ContentType: "application/pdf", Content: []byte("%PDF-1.4 not really")},
		{Filename: "logo.png", ContentType: "image/png", ContentID: "logo", Content: []byte("\x89PNG\r\n\x1a\n")},
	}
	return m
}

// addressed uses every address field, headers, tags and metadata.
func addressed() *mail.Message {
	m := base("0199c0de-0000-7000-8000-000000000003")
	m.To = []mail.Address{{Email: "ann@example.org", Name: "Ann"}, {Email: "bob@example.org"}}
	m.Cc = []mail.Address{{Email: "carol@example.org", Name: "Carol, Dr."}}
	m.Bcc = []mail.Address{{Email: "dave@example.org"}, {Email: "erin@example.org", Name: "Erin"}}
	m.ReplyTo = []mail.Address{{Email: "help@example.com", Name: "Help"}, {Email: "desk@example.com"}}
	m.Subject = "Minutes"
	m.Text = "See below."
	m.HTML = "<p>See below.</p>"
	m.Headers = []mail.Header{
		{Name: "In-Reply-To", Value: "<question@example.net>"},
		{Name: "List-Unsubscribe", Value: "<https://u.example.com/t>"},
		{Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"},
		{Name: "References", Value: "<thread@example.net> <question@example.net>"},
		{Name: "X-Order", Value: "42"},
	}
	m.Tags = []string{"minutes", "internal"}
	m.Metadata = map[string]string{"order_id": "42", "team": "blue"}
	m.Stream = "bulk"
	return m
}

func base(id string) *mail.Message {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &mail.Message{
		ID: mustID(id), Tenant: mail.DefaultTenant, CreatedAt: at, ExpiresAt: at.Add(24 * time.Hour),
		From: mail.Address{Email: "shop@example.com", Name: "Shop"}, Stream: mail.DefaultStream, OnAmbiguous: mail.Reconcile,
	}
}

func mustID(s string) mail.ID {
	id, err := mail.ParseID(s)
	if err != nil {
		panic("providertest: " + err.Error())
	}
	return id
}

// whole is the first attempt of a message, to all of its recipients.
func whole(m *mail.Message) *provider.Send {
	return &provider.Send{Message: m, To: m.To, Cc: m.Cc, Bcc: m.Bcc, Attempt: 1, Key: m.ID.String()}
}

// PlainSend is the first attempt of Plain.
func PlainSend() *provider.Send { return whole(Plain()) }

// Numbered returns send n of a parallel run: an id of its own, and Marker of that id in recipient, subject and body.
func Numbered(n int) *provider.Send {
	m := base(fmt.Sprintf("0199c0de-0000-7000-8001-%012d", n))
	mark := Marker(m.ID.String())
	m.To = []mail.Address{{Email: mark + "@example.org"}}
	m.Subject = mark
	m.Text = "This is for you.\n" + mark + "\n"
	return whole(m)
}

// Marker is the text that identifies the body of a Numbered send.
func Marker(id string) string { return "marker" + id[max(0, len(id)-12):] }
