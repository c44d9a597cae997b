package mail

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// draft is a small valid draft.
func draft() *Draft {
	return &Draft{
		From: Mailbox{Email: "shop@example.com"}, To: []Mailbox{{Email: "ann@example.org"}}, Subject: "hi", Text: "hello",
	}
}

// with changes a valid draft.
func with(change func(d *Draft)) *Draft {
	d := draft()
	change(d)
	return d
}

func file(name string) File { return File{Filename: name, Content: NewBase64([]byte("x"))} }

func TestDraftFillsInDefaults(t *testing.T) {
	t.Parallel()
	got, err := draft().Message(noon(), DefaultCaps())
	if err != nil {
		t.Fatal(err)
	}
	want := &Message{
		CreatedAt: noon(), From: Address{Email: "shop@example.com"}, To: []Address{{Email: "ann@example.org"}},
		Subject: "hi", Text: "hello", Stream: "transactional", OnAmbiguous: Reconcile, ExpiresAt: noon().Add(72 * time.Hour),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestDraftGivesTheCanonicalMessage(t *testing.T) {
	t.Parallel()
	d := &Draft{
		From: Mailbox{Text: "Shop <shop@EXAMPLE.com>"}, To: []Mailbox{{Text: "ann@example.org"}, {Email: "Bob@example.org", Name: " Bob "}},
		ReplyTo: []Mailbox{{Text: "help@exämple.com"}}, Subject: " ", HTML: "<p>",
		Headers:     []Header{{"X-B", " b "}, {"X-A", "a"}},
		Attachments: []File{{Filename: "../a.PDF", ContentType: `TEXT/Plain; Charset="utf-8"; name=x`, ContentID: "logo@x", Content: NewBase64([]byte("x"))}},
		Tags:        []string{"b", "a", "b"}, Metadata: map[string]string{"k": "v"}, Stream: "bulk", Account: "ses-eu",
		SendAt: "2026-03-01T14:00:00.123456+01:00", ExpiresAt: "2026-03-02T00:00:00Z", OnAmbiguous: "never",
	}
	got, err := d.Message(noon(), DefaultCaps())
	if err != nil {
		t.Fatal(err)
	}
	want := &Message{
		CreatedAt: noon(), From: Address{Email: "shop@example.com", Name: "Shop"},
		To: []Address{{Email: "ann@example.org"}, {Email: "Bob@example.org", Name: "Bob"}}, ReplyTo: []Address{{Email: "help@xn--exmple-cua.com"}},
		Subject: " ", HTML: "<p>", Headers: []Header{{"X-A", "a"}, {"X-B", "b"}},
		Attachments: []Attachment{{Filename: "a.PDF", ContentType: "text/plain; charset=utf-8", ContentID: "logo@x", Content: []byte("x")}},
		Tags:        []string{"b", "a"}, Metadata: map[string]string{"k": "v"}, Stream: "bulk", Account: "ses-eu",
		SendAt:    time.Date(2026, 3, 1, 13, 0, 0, 123e6, time.UTC),
		ExpiresAt: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), OnAmbiguous: Never,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestDraftMailsEachAddressOnce(t *testing.T) {
	t.Parallel()
	d := draft()
	d.To = []Mailbox{{Email: "a@example.org", Name: "A"}, {Email: "a@EXAMPLE.org"}}
	d.Cc = []Mailbox{{Email: "b@example.org"}, {Email: "a@example.org"}}
	d.Bcc = []Mailbox{{Email: "b@Example.org"}, {Email: "B@example.org"}}
	m, err := d.Message(noon(), DefaultCaps())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range m.Recipients() {
		got = append(got, string(r.Kind)+" "+r.Address.Email)
	}
	want := []string{"to a@example.org", "cc b@example.org"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
}

func TestDraftRefuses(t *testing.T) {
	t.Parallel()
	many := func(n int) []Mailbox {
		list := make([]Mailbox, n)
		for i := range list {
			list[i] = Mailbox{Email: fmt.Sprintf("r%d@example.org", i)}
		}
		return list
	}
	tests := map[string]struct {
		change func(d *Draft)
		want   string
	}{
		"no from":           {func(d *Draft) { d.From = Mailbox{} }, "from required"},
		"no email in from":  {func(d *Draft) { d.From = Mailbox{Name: "x"} }, "from.email required"},
		"no to":             {func(d *Draft) { d.To = nil; d.Cc = many(1) }, "to required"},
		"bad to":            {func(d *Draft) { d.To = append(d.To, Mailbox{Email: "a@b"}) }, "to[1].email domain_not_fqdn"},
		"bad short to":      {func(d *Draft) { d.To = append(d.To, Mailbox{Text: "a@b"}) }, "to[1] domain_not_fqdn"},
		"bad name":          {func(d *Draft) { d.To[0].Name = "a\nb" }, "to[0].name control_char"},
		"long name":         {func(d *Draft) { d.To[0].Name = strings.Repeat("n", 256) }, "to[0].name name_too_long"},
		"1,001 recipients":  {func(d *Draft) { d.To, d.Cc, d.Bcc = many(400), many(400), many(201) }, "to too_many_recipients"},
		"26 reply_to":       {func(d *Draft) { d.ReplyTo = many(26) }, "reply_to too_many"},
		"subject CRLF":      {func(d *Draft) { d.Subject = "a\r\nBcc: x@y.co" }, "subject control_char"},
		"subject U+2028":    {func(d *Draft) { d.Subject = "a\u2028b" }, "subject control_char"},
		"subject 999 bytes": {func(d *Draft) { d.Subject = strings.Repeat("s", 999) }, "subject too_long"},
		"no body":           {func(d *Draft) { d.Text = "" }, "text required"},
		"text with NUL":     {func(d *Draft) { d.Text = "a\x00" }, "text control_char"},
		"text not UTF-8":    {func(d *Draft) { d.Text = "a\xff" }, "text invalid_utf8"},
		"html over the cap": {func(d *Draft) { d.HTML = strings.Repeat("h", 2<<20+1) }, "html too_long"},
		"text over the cap": {func(d *Draft) { d.Text = strings.Repeat("h", 10<<20+1) }, "text too_long"},
		"101 headers": {func(d *Draft) {
			for i := range 101 {
				d.Headers = append(d.Headers, Header{fmt.Sprint("X-", i), "v"})
			}
		}, "headers too_many"},
		"header value LF":     {func(d *Draft) { d.Headers = []Header{{"X-A", "a\n b"}} }, "headers.X-A control_char"},
		"header twice":        {func(d *Draft) { d.Headers = []Header{{"X-A", "a"}, {"x-a", "b"}} }, "headers.x-a duplicate"},
		"long header":         {func(d *Draft) { d.Headers = []Header{{"X-A", strings.Repeat("v", 994)}} }, "headers.X-A too_long"},
		"51 attachments":      {func(d *Draft) { d.Attachments = make([]File, 51) }, "attachments too_many"},
		"attachment no name":  {func(d *Draft) { d.Attachments = []File{file("")} }, "attachments[0].filename required"},
		"attachment empty":    {func(d *Draft) { d.Attachments = []File{{Filename: "a"}} }, "attachments[0].content required"},
		"attachment bad":      {func(d *Draft) { d.Attachments = []File{{Filename: "a", Content: DecodeBase64([]byte("a b="))}} }, "attachments[0].content invalid_base64"},
		"same cid":            {func(d *Draft) { a := file("a"); a.ContentID = "c"; d.Attachments = []File{a, a} }, "attachments[1].content_id duplicate"},
		"51 tags":             {func(d *Draft) { d.Tags = make([]string, 51) }, "tags too_many"},
		"empty tag":           {func(d *Draft) { d.Tags = []string{"a", ""} }, "tags[1] required"},
		"tag with LF":         {func(d *Draft) { d.Tags = []string{"a\nb"} }, "tags[0] control_char"},
		"tag of 256":          {func(d *Draft) { d.Tags = []string{strings.Repeat("ä", 256)} }, "tags[0] too_long"},
		"51 metadata keys":    {func(d *Draft) { d.Metadata = keys(51) }, "metadata too_many"},
		"empty metadata key":  {func(d *Draft) { d.Metadata = map[string]string{"": "v"} }, "metadata. invalid_key"},
		"metadata key ours":   {func(d *Draft) { d.Metadata = map[string]string{"gw_msg": "v"} }, "metadata.gw_msg reserved_key"},
		"our key in capitals": {func(d *Draft) { d.Metadata = map[string]string{"GW_Msg": "v"} }, "metadata.GW_Msg reserved_key"},
		"metadata key space":  {func(d *Draft) { d.Metadata = map[string]string{"a b": "v"} }, "metadata.a b invalid_key"},
		"metadata key 129":    {func(d *Draft) { d.Metadata = map[string]string{strings.Repeat("k", 129): "v"} }, "metadata." + strings.Repeat("k", 76) + " invalid_key"},
		"metadata value 1001": {func(d *Draft) { d.Metadata = map[string]string{"k": strings.Repeat("ä", 1001)} }, "metadata.k too_long"},
		"metadata value CR":   {func(d *Draft) { d.Metadata = map[string]string{"k": "\r"} }, "metadata.k control_char"},
		"metadata in order":   {func(d *Draft) { d.Metadata = map[string]string{"c": "\r", "a": "\r", "b": "\r"} }, "metadata.a control_char, metadata.b control_char, metadata.c control_char"},
		"stream":              {func(d *Draft) { d.Stream = "Bulk!" }, "stream invalid_name"},
		"account":             {func(d *Draft) { d.Account = "../x" }, "account invalid_name"},
		"policy":              {func(d *Draft) { d.OnAmbiguous = "maybe" }, "on_ambiguous invalid_value"},
		"send_at no zone":     {func(d *Draft) { d.SendAt = "2026-03-01T12:00:00" }, "send_at invalid_time"},
		"send_at Feb 30":      {func(d *Draft) { d.SendAt = "2026-02-30T12:00:00Z" }, "send_at invalid_time"},
		"send_at number":      {func(d *Draft) { d.SendAt = "1772366400" }, "send_at invalid_time"},
		"send_at year 1":      {func(d *Draft) { d.SendAt = "0001-01-01T00:00:00Z" }, "send_at invalid_time"},
		"send_at past":        {func(d *Draft) { d.SendAt = "2026-03-01T11:54:59Z" }, "send_at in_the_past"},
		"send_at far":         {func(d *Draft) { d.SendAt = "2026-04-01T12:00:00Z" }, "send_at too_far"},
		"expires past":        {func(d *Draft) { d.ExpiresAt = "2026-03-01T12:00:00Z" }, "expires_at in_the_past"},
		"expires before send": {func(d *Draft) { d.SendAt, d.ExpiresAt = "2026-03-02T12:00:00Z", "2026-03-02T11:00:00Z" }, "expires_at in_the_past"},
		"expires far":         {func(d *Draft) { d.ExpiresAt = "2026-04-01T12:00:00Z" }, "expires_at too_far"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := with(tt.change).Message(noon(), DefaultCaps())
			if got := codes(t, err); got != tt.want {
				t.Errorf("Message = %q, want %q", got, tt.want)
			}
		})
	}
}

func keys(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("key", i)] = "v"
	}
	return m
}

func TestDraftTakes(t *testing.T) {
	t.Parallel()
	tests := map[string]func(d *Draft){
		"empty subject":        func(d *Draft) { d.Subject = "" },
		"subject of 998 bytes": func(d *Draft) { d.Subject = strings.Repeat("s", 998) },
		"emoji and RTL":        func(d *Draft) { d.Subject = "👩\u200d💻 \u200fשלום" },
		"bare CR and dots":     func(d *Draft) { d.Text = "a\r.\rb\n.\nc\r\n.\r\n" },
		"one line of 10 MB":    func(d *Draft) { d.Text = strings.Repeat("x", 10_000_000) },
		"html only":            func(d *Draft) { d.Text, d.HTML = "", "<p>" },
		"50 metadata keys":     func(d *Draft) { d.Metadata = keys(50) },
		"metadata edges":       func(d *Draft) { d.Metadata = map[string]string{strings.Repeat("k", 128): strings.Repeat("ä", 1000)} },
		"tag of 255":           func(d *Draft) { d.Tags = []string{strings.Repeat("ä", 255)} },
		"long header":          func(d *Draft) { d.Headers = []Header{{"X-A", strings.Repeat("v", 993)}} },
		"non-ASCII local part": func(d *Draft) { d.To[0].Email = "jöhn@example.com" },
		"just past":            func(d *Draft) { d.SendAt = "2026-03-01T11:59:00Z" },
		"30 days ahead":        func(d *Draft) { d.SendAt = "2026-03-31T12:00:00Z" },
		"empty file": func(d *Draft) {
			d.Attachments = []File{{Filename: "a", Content: DecodeBase64(nil)}}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := with(change).Message(noon(), DefaultCaps()); err != nil {
				t.Errorf("Message: %v", err)
			}
		})
	}
}

func TestDraftTellsEveryMistakeUpToACap(t *testing.T) {
	t.Parallel()
	d := &Draft{From: Mailbox{Text: "a@b"}, Subject: "\r", Stream: "!", SendAt: "x"}
	_, err := d.Message(noon(), DefaultCaps())
	want := "from domain_not_fqdn, to required, subject control_char, text required, stream invalid_name, send_at invalid_time"
	if got := codes(t, err); got != want {
		t.Errorf("mistakes = %q, want %q", got, want)
	}
	for range 200 {
		d.To = append(d.To, Mailbox{Text: "bad"})
	}
	var bad *Invalid
	if _, err = d.Message(noon(), DefaultCaps()); !errors.As(err, &bad) || len(bad.Fields) != MaxFields {
		t.Errorf("with 200 bad addresses: %v, want %d fields", err, MaxFields)
	}
}

func TestSendAtThatHasPassedMeansNow(t *testing.T) {
	t.Parallel()
	m, err := with(func(d *Draft) { d.SendAt = "2026-03-01T11:59:00Z" }).Message(noon(), DefaultCaps())
	if err != nil {
		t.Fatal(err)
	}
	if !m.SendAt.IsZero() || !m.ExpiresAt.Equal(noon().Add(72*time.Hour)) {
		t.Errorf("send_at, expires_at = %s, %s; want now and 72 h later", m.SendAt, m.ExpiresAt)
	}
}

func TestExpiryCountsFromSendAt(t *testing.T) {
	t.Parallel()
	m, err := with(func(d *Draft) { d.SendAt = "2026-03-05T12:00:00Z" }).Message(noon(), DefaultCaps())
	if err != nil {
		t.Fatal(err)
	}
	if want := noon().Add(7 * 24 * time.Hour); !m.ExpiresAt.Equal(want) {
		t.Errorf("expires_at = %s, want %s", m.ExpiresAt, want)
	}
}

func TestHeadersThatSteerProvidersAreDenied(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"X-Order": "", "List-Unsubscribe": "", "In-Reply-To": "", "References": "", "Feedback-ID": "", "X-Priority": "",
		"Auto-Submitted": "", "List-Unsubscribe-Post": "", "X-1": "",
		"From": "header_not_allowed", "bcc": "header_not_allowed", "CC": "header_not_allowed", "To": "header_not_allowed",
		"Sender": "header_not_allowed", "Return-Path": "header_not_allowed", "Received": "header_not_allowed",
		"DKIM-Signature": "header_not_allowed", "Content-Type": "header_not_allowed", "MIME-Version": "header_not_allowed",
		"Message-ID": "header_not_allowed", "X-SMTPAPI": "header_not_allowed", "X-SES-CONFIGURATION-SET": "header_not_allowed",
		"X-MC-Tags": "header_not_allowed", "X-PM-Message-Stream": "header_not_allowed", "X-Mailgun-Variables": "header_not_allowed",
		"x-sg-eid": "header_not_allowed", "Resent-To": "header_not_allowed", "Reply-To": "header_not_allowed",
		"": "invalid_header_name", "X Order": "invalid_header_name", "X-Order:": "invalid_header_name",
		"X-\nBcc": "invalid_header_name", "X-Ö": "invalid_header_name", strings.Repeat("x", 77): "invalid_header_name",
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if f := checkHeader(Header{Name: name, Value: "v"}); f != nil {
				got = f.code
			}
			if got != want {
				t.Errorf("header %q = %q, want %q", name, got, want)
			}
		})
	}
}

func TestReplyToCountsForSMTPUTF8(t *testing.T) {
	t.Parallel()
	m, err := with(func(d *Draft) { d.ReplyTo = []Mailbox{{Email: "jöhn@example.com"}} }).Message(noon(), DefaultCaps())
	if err != nil {
		t.Fatal(err)
	}
	if f := m.Facts(); !f.NeedsSMTPUTF8 {
		t.Error("NeedsSMTPUTF8 = false with a non-ASCII Reply-To")
	}
}

// FuzzDraft checks that no accepted message has characters in its headers that could end a header.
func FuzzDraft(f *testing.F) {
	f.Add("Shop <shop@example.com>", "ann@example.org", "Ann", "subject", "text", "X-A", "v", "a.pdf", "text/plain", "cid", "tag", "k", "v", "2026-03-01T13:00:00Z")
	f.Add("a@b.co", "jöhn@exämple.com", "\u202e", "\r\n", "\r.\r", "X-SMTPAPI", "\n x", "../CON", "message/partial", "a>", "\x00", "\x00", "\xff", "x")
	f.Fuzz(func(t *testing.T, from, to, name, subject, text, hname, hvalue, filename, ctype, cid, tag, key, value, at string) {
		d := &Draft{
			From: Mailbox{Text: from}, To: []Mailbox{{Email: to, Name: name}}, Subject: subject, Text: text,
			Headers:     []Header{{hname, hvalue}},
			Attachments: []File{{Filename: filename, ContentType: ctype, ContentID: cid, Content: DecodeBase64([]byte(base64.StdEncoding.EncodeToString([]byte(value))))}},
			Tags:        []string{tag}, Metadata: map[string]string{key: value}, SendAt: at, ExpiresAt: at,
		}
		m, err := d.Message(noon(), DefaultCaps())
		if err != nil {
			var bad *Invalid
			if !errors.As(err, &bad) || len(bad.Fields) == 0 || len(bad.Fields) > MaxFields {
				t.Fatalf("error = %v, want an *Invalid with fields", err)
			}
			return
		}
		a := m.Attachments[0]
		lines := []string{
			m.From.Email, m.From.Name, m.To[0].Email, m.To[0].Name, m.Subject, m.Headers[0].Name, m.Headers[0].Value,
			a.Filename, a.ContentType, a.ContentID, m.Tags[0],
		}
		for k := range maps.Keys(m.Metadata) {
			lines = append(lines, k, m.Metadata[k])
		}
		for _, s := range lines {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) || r == 0x2028 || r == 0x2029 }) {
				t.Fatalf("%q passed", s)
			}
		}
		if a.Filename == "" || len(a.Filename) > maxFilename || strings.ContainsAny(a.Filename, `/\`) || a.Filename[0] == '.' {
			t.Fatalf("filename %q passed", a.Filename)
		}
		if again, f := cleanContentType(a.ContentType); f != nil || again != a.ContentType {
			t.Fatalf("content type %q is not canonical: %q", a.ContentType, again)
		}
		if !m.ExpiresAt.After(m.CreatedAt) {
			t.Fatalf("expires_at %s is not after now", m.ExpiresAt)
		}
	})
}
