package mailgun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/sendgate/sendgate/internal/emulator"
)

// form is a body, multipart or urlencoded.
type form struct {
	values   map[string][]string
	message  []byte // the first file with this name
	attached []emulator.Attachment
	size     int // total bytes of texts and files
}

// maxFormParts keeps a malicious body from making millions of map entries.
const maxFormParts = 10_000

// parseForm reads a body as a form, by its content type.
func parseForm(contentType string, body []byte) (*form, error) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, fmt.Errorf("parse content type: %w", err)
	}
	switch media {
	case "application/x-www-form-urlencoded":
		values, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, fmt.Errorf("parse urlencoded form: %w", err)
		}
		return &form{values: values, size: len(body)}, nil
	case "multipart/form-data":
		return parseMultipart(multipart.NewReader(bytes.NewReader(body), params["boundary"]))
	}
	return nil, errors.New("content type is not a form")
}

func parseMultipart(mr *multipart.Reader) (*form, error) {
	f := &form{values: map[string][]string{}}
	for range maxFormParts {
		part, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read form part: %w", err)
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, fmt.Errorf("read form part: %w", err)
		}
		name := part.FormName()
		f.size += len(content)
		if part.FileName() == "" {
			f.values[name] = append(f.values[name], string(content))
		} else if name == "message" && f.message == nil {
			f.message = content
		} else if name != "message" {
			f.attached = append(f.attached, emulator.Attachment{Name: part.FileName(), Type: part.Header.Get("Content-Type"), Size: len(content)})
		}
	}
	return nil, errors.New("form has too many parts")
}

func (f *form) get(name string) string {
	if v := f.values[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// mail checks the form and reads it into a mail. Even with a refusal the mail has the recipients that could be read.
func (f *form) mail(isMIME bool) (mail, *emulator.Reply) {
	m := mail{
		vars: map[string]string{}, tags: f.values["o:tag"], test: f.get("o:testmode") == "yes",
		shown: emulator.Mail{Text: f.get("text"), HTML: f.get("html"), Headers: map[string]string{}, Attachments: f.attached},
	}
	bad := func(format string, args ...any) (mail, *emulator.Reply) {
		return m, refuse(http.StatusBadRequest, fmt.Sprintf(format, args...))
	}
	if field := f.recipients(&m); field != "" {
		return bad("%s parameter is not a valid address. please check documentation", field)
	}
	paramBytes := 0
	for name, values := range f.values {
		prefix, key, ok := strings.Cut(name, ":")
		if !ok || len(prefix) != 1 || !strings.Contains("ohvt", prefix) {
			continue
		}
		for _, v := range values {
			paramBytes += len(name) + len(v)
		}
		switch prefix {
		case "v":
			m.vars[key] = values[0]
		case "h":
			m.shown.Headers[key] = values[0]
			if strings.EqualFold(key, "message-id") {
				m.messageID = emulator.BareMessageID(values[0])
			}
		}
	}
	if len(m.to) == 0 {
		return bad("to parameter is missing")
	}
	if len(m.to) > maxRecipients {
		return bad("Too many recipients, max is %d", maxRecipients)
	}
	if paramBytes > maxParamBytes {
		return bad("o:, h:, v:, and t: parameters combined are limited to 16 KB")
	}
	if f.size > maxMessageSize {
		return m, refuse(http.StatusRequestEntityTooLarge, "Message exceeds the limit of 25 MB")
	}
	if raw := f.get("recipient-variables"); raw != "" {
		if err := json.Unmarshal([]byte(raw), &m.perRecipient); err != nil {
			return bad("recipient-variables parameter is not a valid JSON")
		}
		m.perRecipient = lowerKeys(m.perRecipient)
	}
	var problem string
	if isMIME {
		problem = f.fillFromMIME(&m)
	} else {
		problem = f.fillFromFields(&m)
	}
	if problem != "" {
		return bad("%s", problem)
	}
	return m, nil
}

func lowerKeys(in map[string]map[string]any) map[string]map[string]any {
	out := make(map[string]map[string]any, len(in))
	for k, v := range in {
		out[strings.ToLower(k)] = v
	}
	return out
}

// recipients reads to, cc and bcc, each repeated or separated by commas, and drops duplicates as Mailgun does. It returns the
// first field with a bad address.
func (f *form) recipients(m *mail) string {
	bad := ""
	for _, field := range []string{"to", "cc", "bcc"} {
		for _, v := range f.values[field] {
			list, ok := emulator.ParseList(v)
			if (!ok || emulator.Refuses(list)) && bad == "" {
				bad = field
			}
			m.to = append(m.to, list...)
		}
	}
	m.to = emulator.Unique(m.to)
	return bad
}

// fillFromFields takes sender and subject from the fields of the form. It returns the error message, or "".
func (f *form) fillFromFields(m *mail) string {
	from := f.get("from")
	if from == "" {
		return "from parameter is missing"
	}
	addr, ok := emulator.ParseAddress(from)
	if !ok {
		return "from parameter is not a valid address. please check documentation"
	}
	m.from, m.subject = addr, f.get("subject")
	if f.get("text") == "" && f.get("html") == "" && f.get("amp-html") == "" && f.get("template") == "" {
		return "Need at least one of 'text', 'html', 'amp-html' or 'template' parameters specified"
	}
	return ""
}

// fillFromMIME takes sender, subject and Message-Id from the file part "message".
func (f *form) fillFromMIME(m *mail) string {
	raw, ok := f.message, f.message != nil
	if text := f.get("message"); !ok && text != "" {
		raw, ok = []byte(text), true
	}
	if !ok {
		return "message parameter is missing"
	}
	h, err := emulator.ReadMIME(raw)
	if err != nil {
		return "message parameter is not a valid MIME message"
	}
	if h.From == "" {
		return "from parameter is missing"
	}
	m.from, m.subject, m.calendar, m.shown = h.From, h.Subject, h.Calendar, h.Mail
	if m.messageID == "" {
		m.messageID = h.MessageID
	}
	return ""
}
