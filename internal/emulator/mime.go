package emulator

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"net/textproto"
	"strings"
)

// MIME holds the parts of a MIME message that the ledger needs.
type MIME struct {
	From      string // bare
	MessageID string // without angle brackets
	Subject   string // decoded
	To        []string
	BadTo     bool   // a list in To, Cc or Bcc can't be read
	Calendar  string // see Entry
	Mail      Mail
}

// ReadMIME reads a message. A body that can't be parsed is left out.
func ReadMIME(raw []byte) (MIME, error) {
	msg, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return MIME{}, fmt.Errorf("read mime header: %w", err)
	}
	m := MIME{MessageID: BareMessageID(msg.Header.Get("Message-Id")), Subject: decoded(msg.Header.Get("Subject"))}
	m.From, _ = ParseAddress(msg.Header.Get("From"))
	for _, name := range []string{"To", "Cc", "Bcc"} {
		list, ok := ParseList(strings.Join(msg.Header[name], ", "))
		m.BadTo = m.BadTo || !ok
		m.To = append(m.To, list...)
	}
	m.To = Unique(m.To)
	m.Mail.Headers = map[string]string{}
	for name := range msg.Header {
		if name != "From" && name != "To" && name != "Subject" {
			m.Mail.Headers[name] = decoded(msg.Header.Get(name))
		}
	}
	if calendar, ok := m.part("", textproto.MIMEHeader(msg.Header), msg.Body); ok {
		m.Calendar = calendar
	}
	return m, nil
}

func decoded(header string) string {
	if s, err := new(mime.WordDecoder).DecodeHeader(header); err == nil {
		return s
	}
	return header
}

// part reads one part, with its nested parts, into the mail. It returns the invitation in it, which clients show if it is the
// last of the alternatives, and false if the part can't be read.
func (m *MIME) part(parent string, header textproto.MIMEHeader, body io.Reader) (calendar string, ok bool) {
	media, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if strings.HasPrefix(media, "multipart/") && err == nil {
		return m.multipart(media, multipart.NewReader(body, params["boundary"]))
	}
	content := decodedBody(header, body)
	disposition, named, _ := mime.ParseMediaType(header.Get("Content-Disposition"))
	switch {
	case parent == "multipart/alternative" && media == "text/calendar" && err == nil:
		calendar = Invitation(params["method"], content)
		if !strings.EqualFold(params["charset"], "utf-8") {
			calendar = "invalid: charset " + params["charset"]
		}
	case disposition != "attachment" && m.Mail.Text == "" && (media == "text/plain" || media == ""):
		m.Mail.Text = content
	case disposition != "attachment" && m.Mail.HTML == "" && media == "text/html":
		m.Mail.HTML = content
	default:
		m.Mail.Attachments = append(m.Mail.Attachments, Attachment{named["filename"], media, len(content)})
	}
	return calendar, err == nil
}

// multipart reads the parts of a multipart. An invitation counts only if it is the last alternative, or in a nested multipart.
func (m *MIME) multipart(media string, r *multipart.Reader) (calendar string, ok bool) {
	nested := ""
	for {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return cmp.Or(nested, calendar), true
		}
		if err != nil {
			return "", false
		}
		inner, ok := m.part(media, part.Header, part)
		if strings.HasPrefix(part.Header.Get("Content-Type"), "multipart/") && ok {
			nested, inner = cmp.Or(nested, inner), ""
		}
		if media == "multipart/alternative" {
			calendar = inner // "" if another part follows the invitation
		}
	}
}

// decodedBody returns the decoded body, or "" if it does not have the encoding that it declares.
func decodedBody(header textproto.MIMEHeader, r io.Reader) string {
	switch strings.ToLower(header.Get("Content-Transfer-Encoding")) {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return ""
	}
	return string(b)
}

// Invitation returns the method of an invitation that clients show as one, or what is wrong with it.
func Invitation(method, content string) string {
	switch {
	case method == "":
		return "invalid: the part names no method"
	case !strings.HasPrefix(content, "BEGIN:VCALENDAR\r\n") || !strings.HasSuffix(content, "END:VCALENDAR\r\n"):
		return "invalid: no VCALENDAR with CRLF"
	case !strings.Contains(content, "\r\nMETHOD:"+method+"\r\n"):
		return "invalid: METHOD is not " + method
	case strings.Contains(strings.ReplaceAll(content, "\r\n", ""), "\n"):
		return "invalid: a bare LF"
	}
	return method
}

// BareMessageID strips the angle brackets of RFC 5322 section 3.6.4. It returns "" if the form is not left@right.
func BareMessageID(s string) string {
	s = strings.TrimSpace(s)
	s = strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
	left, right, ok := strings.Cut(s, "@")
	if !ok || left == "" || right == "" || strings.ContainsAny(s, " \t\r\n<>") {
		return ""
	}
	return s
}
