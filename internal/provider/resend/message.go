package resend

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
)

// email is the body of POST /emails ("Send Email"). It depends only on the message and the recipients of the call: each call of
// one message has the same bytes.
type email struct {
	From        string            `json:"from"`
	To          []string          `json:"to"`
	Cc          []string          `json:"cc,omitempty"`
	Bcc         []string          `json:"bcc,omitempty"`
	ReplyTo     []string          `json:"reply_to,omitempty"`
	Subject     string            `json:"subject"`
	HTML        string            `json:"html,omitempty"`
	Text        string            `json:"text,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"` // encoding/json sorts the names
	Attachments []attachment      `json:"attachments,omitempty"`
	Tags        []tag             `json:"tags"`
}

type attachment struct {
	Filename    string `json:"filename"`
	Content     []byte `json:"content"` // encoding/json writes base64
	ContentType string `json:"content_type,omitempty"`
	ContentID   string `json:"content_id,omitempty"`
}

type tag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// build makes the request of one attempt.
func build(s *provider.Send) *email {
	m := s.Message
	to, cc, bcc := visible(s)
	out := &email{
		From: one(m.From), To: addresses(to), Cc: addresses(cc), Bcc: addresses(bcc), ReplyTo: addresses(m.ReplyTo),
		Subject: literal(m.Subject), HTML: m.HTML, Text: m.Text, Headers: headers(m), Tags: tags(m),
	}
	for _, a := range m.Attachments {
		out.Attachments = append(out.Attachments, attachment{
			Filename: cmp.Or(a.Filename, a.ContentID, "attachment"), // required
			Content:  a.Content, ContentType: a.ContentType, ContentID: a.ContentID,
		})
	}
	return out
}

// visible fills an empty To, which Resend requires, when all of To is settled. It uses Cc, whom everybody may see, or one Bcc.
// Several Bcc must not see each other, so each of them goes in a call of its own; see later.
func visible(s *provider.Send) (to, cc, bcc []mail.Address) {
	switch {
	case len(s.To) > 0:
		return s.To, s.Cc, s.Bcc
	case len(s.Cc) > 0:
		return s.Cc, nil, s.Bcc
	}
	return s.Bcc[:1], nil, nil
}

// later are the recipients that the call has no room for.
func later(s *provider.Send) []provider.Refusal {
	if len(s.To)+len(s.Cc) > 0 {
		return nil
	}
	var out []provider.Refusal
	for _, a := range s.Bcc[1:] {
		out = append(out, provider.Refusal{
			Email: a.Email, Class: provider.Transient, Full: true, Detail: "resend: an email to Bcc only has room for one of them",
		})
	}
	return out
}

// key is the idempotency key. A call for one of several Bcc has a key of its own.
func key(s *provider.Send) string {
	if s.Key == "" || len(s.To)+len(s.Cc) > 0 {
		return s.Key
	}
	sum := sha256.Sum256([]byte(s.Bcc[0].Email))
	return s.Key + "/" + hex.EncodeToString(sum[:8])
}

func addresses(as []mail.Address) []string {
	var out []string
	for _, a := range as {
		out = append(out, one(a))
	}
	return out
}

// one writes an address with its name in quotes. A comma needs quotes, and they never hurt.
func one(a mail.Address) string {
	switch {
	case a.Name == "":
		return a.Email
	case mime.LooksEncoded(a.Name):
		return mime.Words(a.Name) + " <" + a.Email + ">"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Name) + `" <` + a.Email + ">"
}

// literal encodes a text that looks like an encoded word, so that it is not decoded.
func literal(s string) string {
	if mime.LooksEncoded(s) {
		return mime.Words(s)
	}
	return s
}

// headers are the caller's. Resend writes Message-ID itself.
func headers(m *mail.Message) map[string]string {
	out := map[string]string{}
	for _, h := range m.Headers {
		if !strings.EqualFold(h.Name, "Message-ID") {
			out[h.Name] = mime.Value(h.Name, h.Value)
		}
	}
	return out
}

// tags carry our id, which every event repeats, and the caller's tags and metadata that Resend accepts: names and values of ASCII
// letters, digits, underscores and hyphens. We keep all of them.
func tags(m *mail.Message) []tag {
	out := []tag{{provider.MessageKey, m.ID.String()}}
	used := map[string]bool{strings.ToLower(provider.MessageKey): true}
	add := func(name, value string) {
		if allowed(name) && allowed(value) && !used[strings.ToLower(name)] {
			used[strings.ToLower(name)] = true
			out = append(out, tag{name, value})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Metadata)) {
		add(name, m.Metadata[name])
	}
	for _, name := range m.Tags {
		add(name, "true")
	}
	return out
}

func allowed(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	return s != "" && len(s) <= Spec().Capabilities.MaxTagLen && strings.Trim(s, letters) == ""
}
