package postmark

import (
	"cmp"
	"strings"
	"unicode/utf8"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
)

// email is the body of POST /email ("Email API", send a single email).
type email struct {
	From          string
	To            string `json:",omitempty"`
	Cc            string `json:",omitempty"`
	Bcc           string `json:",omitempty"`
	ReplyTo       string `json:",omitempty"`
	Subject       string `json:",omitempty"`
	TextBody      string `json:",omitempty"`
	HtmlBody      string `json:",omitempty"`
	Tag           string `json:",omitempty"`
	Metadata      map[string]string
	MessageStream string
	Headers       []header     `json:",omitempty"`
	TrackOpens    *bool        `json:",omitempty"`
	TrackLinks    string       `json:",omitempty"`
	Attachments   []attachment `json:",omitempty"`
}

type header struct{ Name, Value string }

type attachment struct {
	Name        string
	Content     []byte // encoding/json writes base64
	ContentType string
	ContentID   string `json:",omitempty"`
}

// build makes the request of one attempt.
func build(cfg Config, s *provider.Send) *email {
	m := s.Message
	to, cc, bcc := visible(s)
	out := &email{
		From: one(m.From), To: list(to), Cc: list(cc), Bcc: list(bcc), ReplyTo: list(m.ReplyTo),
		Subject: subject(m.Subject), TextBody: m.Text, HtmlBody: m.HTML,
		Tag: tag(m.Tags), Metadata: metadata(m), MessageStream: cfg.stream(m.Stream), Headers: headers(m),
		TrackOpens: cfg.Tracking.Opens, TrackLinks: trackLinks(cfg.Tracking.Clicks),
	}
	for _, a := range m.Attachments {
		out.Attachments = append(out.Attachments, attach(a))
	}
	return out
}

// visible fills an empty To when all of To is settled. It uses Cc, whom everybody may see, or a sole remaining Bcc, who then sees
// only their own address. Several Bcc stay where they are and To stays empty. Postmark accepts such a message, although "Email
// API" calls To required (the authors of two client libraries saw this). If it ever does not, it refuses the whole message. No
// address is put where another recipient can read it.
func visible(s *provider.Send) (to, cc, bcc []mail.Address) {
	switch {
	case len(s.To) > 0:
		return s.To, s.Cc, s.Bcc
	case len(s.Cc) > 0:
		return s.Cc, nil, s.Bcc
	case len(s.Bcc) == 1:
		return s.Bcc, nil, nil
	default:
		return nil, nil, s.Bcc
	}
}

func list(as []mail.Address) string {
	parts := make([]string, 0, len(as))
	for _, a := range as {
		parts = append(parts, one(a))
	}
	return strings.Join(parts, ", ")
}

// one writes an address with its name. Postmark wants the name as plain text, not as encoded words, and in quotes if it has a
// comma; quotes never hurt. But a name that looks like an encoded word would be decoded, so it is encoded here.
func one(a mail.Address) string {
	if a.Name == "" {
		return a.Email
	}
	if mime.LooksEncoded(a.Name) {
		return mime.Words(a.Name) + " <" + a.Email + ">"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Name) + `" <` + a.Email + ">"
}

// subject encodes only a text that looks encoded: Postmark encodes the others, and leaves such a text alone.
func subject(s string) string {
	if mime.LooksEncoded(s) {
		return mime.Words(s)
	}
	return s
}

// tag is the first tag: Postmark has only one per message. We keep the others.
func tag(tags []string) string {
	if len(tags) == 0 || utf8.RuneCountInString(tags[0]) > Spec().Capabilities.MaxTagLen {
		return ""
	}
	return tags[0]
}

// metadata holds our id and the caller's metadata; every event repeats it.
func metadata(m *mail.Message) map[string]string {
	out := map[string]string{provider.MessageKey: m.ID.String()}
	for k, v := range m.Metadata {
		if !strings.EqualFold(k, provider.MessageKey) {
			out[k] = v
		}
	}
	return out
}

// headers are the caller's, and our Message-ID unless the caller set one. X-PM-KeepID asks Postmark not to replace it with its
// own.
func headers(m *mail.Message) []header {
	out := make([]header, 0, len(m.Headers)+2)
	own := header{"Message-ID", "<" + m.MessageID() + ">"}
	for _, h := range m.Headers {
		switch {
		case strings.EqualFold(h.Name, own.Name):
			own.Value = h.Value
		case strings.EqualFold(h.Name, "X-PM-KeepID"):
		default:
			out = append(out, header{h.Name, mime.Value(h.Name, h.Value)})
		}
	}
	return append(out, own, header{"X-PM-KeepID", "true"})
}

// trackLinks maps our setting to Postmark's value; "" leaves it to the server.
func trackLinks(clicks *bool) string {
	switch {
	case clicks == nil:
		return ""
	case *clicks:
		return "HtmlAndText"
	default:
		return "None"
	}
}

func attach(a mail.Attachment) attachment {
	out := attachment{
		Name:    cmp.Or(a.Filename, a.ContentID, "attachment"), // required
		Content: a.Content, ContentType: a.ContentType,
	}
	if a.ContentID != "" {
		out.ContentID = "cid:" + a.ContentID
	}
	return out
}
