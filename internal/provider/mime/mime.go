// Package mime turns a mail.Message into the bytes of an RFC 5322 message. It decides the structure (which multiparts, which
// transfer encoding) and how each header is written. It does not decide what a valid message is (package mail), who gets it
// (the envelope, which is the adapter's) or DKIM (package smtp, the ESPs themselves).
//
// Every byte depends on the message alone: boundaries come from its id, and the date is the later of its acceptance and its
// send_at. So each attempt at each provider sends the same bytes. The output is 7-bit with only CRLF line ends. The one
// exception is an address whose local part is not ASCII: RFC 6532 puts it into the header unchanged, and only SMTPUTF8 carries
// it.
//
// The most likely mistake of a newcomer is to write Bcc here: those recipients exist only in the envelope.
package mime

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-message/textproto"

	"github.com/sendgate/sendgate/internal/mail"
)

// dateLayout is RFC 5322 section 3.3 with a numeric zone.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// Build returns the message: To, Cc and Reply-To of the message as accepted, not those of this attempt. Bodies get CRLF line
// ends (a bare CR, a bare LF and a CRLF each count as one); attachments keep their bytes. An error means that this message can
// never be built: a header with CR, LF, NUL or another control character, a header that Build owns, or an address or content
// id with invalid syntax. Build is safe for concurrent use.
func Build(m *mail.Message) ([]byte, error) {
	h, err := messageHeader(m)
	if err != nil {
		return nil, err
	}
	root, err := body(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(m.Bytes())) // an estimate: the buffer grows if it is too small
	h.add("MIME-Version", "1.0")
	if err := textproto.WriteHeader(&b, join(h, root.header)); err != nil {
		return nil, fmt.Errorf("write message header: %w", err)
	}
	if err := root.write(&b); err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(b.Bytes(), []byte("\r\n")) {
		b.WriteString("\r\n")
	}
	return b.Bytes(), nil
}

// messageHeader makes the fields above the MIME ones.
func messageHeader(m *mail.Message) (*fields, error) {
	h := &fields{}
	date := m.CreatedAt
	if date.IsZero() {
		date = m.ID.Time()
	}
	if m.SendAt.After(date) {
		date = m.SendAt // a scheduled mail must not look days old when it arrives
	}
	h.add("Date", strings.Split(date.UTC().Truncate(time.Second).Format(dateLayout), " ")...)
	if err := addressFields(h, m); err != nil {
		return nil, err
	}
	if err := h.addText("Subject", m.Subject); err != nil {
		return nil, err
	}
	h.add("Message-ID", "<"+m.MessageID()+">")
	for _, c := range m.Headers {
		if reserved(c.Name, m) {
			return nil, fmt.Errorf("header %q is written by sendgate itself", c.Name)
		}
		if err := h.addText(c.Name, c.Value); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// addressFields adds From, To, Cc and Reply-To. A message with only hidden recipients gets the empty group of RFC 5322 section
// 3.4, because some receivers distrust mail without a To.
func addressFields(h *fields, m *mail.Message) error {
	if err := h.addAddresses("From", []mail.Address{m.From}); err != nil {
		return err
	}
	if len(m.To) == 0 && len(m.Cc) == 0 {
		h.add("To", "undisclosed-recipients:;")
	}
	for _, f := range []struct {
		name string
		list []mail.Address
	}{{"To", m.To}, {"Cc", m.Cc}, {"Reply-To", m.ReplyTo}} {
		if err := h.addAddresses(f.name, f.list); err != nil {
			return err
		}
	}
	return nil
}

// reserved reports whether a custom header would duplicate or forge a field that Build, the signer or a server writes.
func reserved(name string, m *mail.Message) bool {
	switch n := strings.ToLower(name); n {
	case "from", "to", "cc", "bcc", "date", "subject", "message-id", "mime-version", "received", "return-path", "dkim-signature":
		return true
	case "reply-to":
		return len(m.ReplyTo) > 0
	default:
		return strings.HasPrefix(n, "content-")
	}
}

// join makes one go-message header of several lists. textproto.Header grows at the top, so the last field goes in first.
func join(lists ...*fields) textproto.Header {
	var h textproto.Header
	for i := len(lists) - 1; i >= 0; i-- {
		for j := len(lists[i].list) - 1; j >= 0; j-- {
			h.AddRaw(lists[i].list[j])
		}
	}
	return h
}
