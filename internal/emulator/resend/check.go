package resend

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/sendgate/sendgate/internal/emulator"
)

// oneOrMore is one text, or a list of texts.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (o *oneOrMore) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil {
		return err
	}
	*o = many
	return nil
}

// email is the body of POST /emails.
type email struct {
	From        string            `json:"from"`
	To          oneOrMore         `json:"to"`
	Cc          oneOrMore         `json:"cc"`
	Bcc         oneOrMore         `json:"bcc"`
	ReplyTo     oneOrMore         `json:"reply_to"`
	Subject     string            `json:"subject"`
	HTML        string            `json:"html"`
	Text        string            `json:"text"`
	Headers     map[string]string `json:"headers"`
	Attachments []struct {
		Filename    string `json:"filename"`
		Content     string `json:"content"`
		ContentType string `json:"content_type"`
		ContentID   string `json:"content_id"`
	} `json:"attachments"`
	Tags []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"tags"`
	ScheduledAt string `json:"scheduled_at"` // looked at in a batch only

	from string
	all  []string // every recipient that could be read
}

const (
	maxRecipients = 50
	maxTag        = 256
)

// check checks the email against "Send Email", and reads its addresses.
func (m *email) check() *emulator.Reply {
	for _, c := range []func() *emulator.Reply{m.checkAddresses, m.checkContent, m.checkTags} {
		if p := c(); p != nil {
			return p
		}
	}
	return nil
}

func invalid(field string) *emulator.Reply {
	return refuse(http.StatusUnprocessableEntity, "validation_error", "Invalid `"+field+"` field.")
}

func missing(field string) *emulator.Reply {
	return refuse(http.StatusUnprocessableEntity, "missing_required_field", "Missing `"+field+"` field.")
}

func (m *email) checkAddresses() *emulator.Reply {
	from, ok := emulator.ParseAddress(m.From)
	switch m.from = from; {
	case m.From == "":
		return missing("from")
	case !ok || !emulator.ASCIILocal(from):
		return refuse(http.StatusUnprocessableEntity, "invalid_from_address", "Invalid `from` field.")
	case len(m.To) == 0:
		return missing("to")
	}
	fields := []struct {
		name string
		list []string
	}{{"to", m.To}, {"cc", m.Cc}, {"bcc", m.Bcc}}
	for _, f := range fields {
		for _, text := range f.list {
			address, ok := emulator.ParseAddress(text)
			if !ok || !emulator.ASCIILocal(address) || emulator.Refuses([]string{address}) {
				return invalid(f.name)
			}
			m.all = append(m.all, address)
		}
	}
	if m.all = emulator.Unique(m.all); len(m.all) > maxRecipients {
		return invalid("to")
	}
	for _, text := range m.ReplyTo {
		if _, ok := emulator.ParseAddress(text); !ok {
			return invalid("reply_to")
		}
	}
	return nil
}

func (m *email) checkContent() *emulator.Reply {
	switch {
	case m.Subject == "":
		return missing("subject")
	case m.HTML == "" && m.Text == "":
		return refuse(http.StatusUnprocessableEntity, "validation_error", "Missing `html` or `text` field.")
	}
	for name, value := range m.Headers {
		if !emulator.ValidHeader(name, value) {
			return invalid("headers")
		}
	}
	for _, a := range m.Attachments {
		if a.Filename == "" || a.Content == "" || !emulator.ValidBase64(a.Content) {
			return refuse(http.StatusUnprocessableEntity, "invalid_attachment", "Attachment must have either a `content` or `path`.")
		}
	}
	return nil
}

func (m *email) checkTags() *emulator.Reply {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	good := func(s string) bool { return s != "" && len(s) <= maxTag && strings.Trim(s, letters) == "" }
	seen := map[string]bool{}
	for _, t := range m.Tags {
		if !good(t.Name) || !good(t.Value) || seen[t.Name] {
			return refuse(http.StatusUnprocessableEntity, "validation_error",
				"Tags should only contain ASCII letters, numbers, underscores, or dashes.")
		}
		seen[t.Name] = true
	}
	return nil
}

// message is the message for the ledger.
func (m *email) message(id string) *emulator.Message {
	args := map[string]string{}
	for _, t := range m.Tags {
		args[t.Name] = t.Value
	}
	shown := emulator.NewMail(m.Text, m.HTML, strings.Join(m.ReplyTo, ", "))
	for name, value := range m.Headers {
		shown.Headers[name] = value
	}
	for _, a := range m.Attachments {
		shown.Attach(a.Filename, a.ContentType, a.Content)
	}
	return &emulator.Message{Args: args, Mail: shown, Entry: emulator.Entry{
		MessageID: args[emulator.OurID], ProviderMessageID: id, From: m.from, To: m.all, Subject: m.Subject,
	}}
}
