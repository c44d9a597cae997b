package postmark

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

type mail struct {
	From, To, Cc, Bcc, ReplyTo string
	Subject                    string
	TextBody, HtmlBody         string
	Tag                        string
	Metadata                   map[string]string
	MessageStream              string
	Headers                    []struct{ Name, Value string }
	TrackOpens                 *bool
	TrackLinks                 string
	Attachments                []struct{ Name, Content, ContentType, ContentID string }
}

// The caps of the page "Email API".
const (
	maxRecipients = 50
	maxFrom       = 255
	maxSubject    = 2000
	maxTag        = 1000
	maxBodyBytes  = 5 << 20
	maxMetadata   = 10
	maxMetaKey    = 20
	maxMetaValue  = 80
)

// stream is the transactional stream of every server.
const stream = "outbound"

const inactiveTail = ". Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."

// item is one message with its answer.
type item struct {
	mail   *mail
	test   bool
	from   string
	all    []string // every recipient that could be read
	taken  []string // those that are not inactive; none if the message is refused
	result result
}

// newItem checks a message and makes its result, without the inactive recipients.
func newItem(m *mail, now time.Time, test bool) *item {
	it := &item{mail: m, test: test}
	if code, message := it.check(); code != 0 {
		it.refuse(code, message)
		return it
	}
	it.taken = it.all
	it.result = result{
		To: m.To, Cc: m.Cc, Bcc: m.Bcc, SubmittedAt: now.Format("2006-01-02T15:04:05.0000000-07:00"),
		MessageID: uuid.NewString(), Message: "OK",
	}
	if test {
		it.result.Message = "Test job accepted"
	}
	it.inactivate(func(_ int, addr string) bool { return emulator.OutcomeOf(addr) == emulator.OutcomeSuppressed })
	return it
}

func (it *item) refuse(code int, message string) {
	it.taken, it.result = nil, result{ErrorCode: code, Message: message}
}

// inactivate removes recipients from an accepted message. If none is left, the message is refused with 406.
func (it *item) inactivate(inactive func(int, string) bool) {
	var left, out []string
	for i, addr := range it.taken {
		if inactive(i, addr) {
			out = append(out, strings.ToLower(addr))
		} else {
			left = append(left, addr)
		}
	}
	switch {
	case len(out) == 0:
	case len(left) == 0:
		it.refuse(allInactive, "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: "+
			strings.Join(out, ", ")+inactiveTail)
	default:
		it.taken = left
		it.result.Message = "Message OK, but will not deliver to these inactive addresses: " + strings.Join(out, ", ") + inactiveTail
	}
}

// messages returns the message for the ledger, or none if it was refused or is a test.
func (it *item) messages() []*emulator.Message {
	if it.test || it.result.ErrorCode != 0 {
		return nil
	}
	l := &emulator.Message{Args: it.mail.Metadata, Channel: it.mail.MessageStream, Mail: it.mail.shown(), Entry: emulator.Entry{
		MessageID: it.mail.Metadata[emulator.OurID], ProviderMessageID: it.result.MessageID,
		From: it.from, To: it.taken, Subject: it.mail.Subject,
	}}
	if l.Channel == "" {
		l.Channel = stream
	}
	if l.Channel != stream {
		l.Stream = l.Channel
	}
	if it.mail.Tag != "" {
		l.Tags = []string{it.mail.Tag}
	}
	return []*emulator.Message{l}
}

// shown is the mail that a recipient sees.
func (m *mail) shown() emulator.Mail {
	v := emulator.NewMail(m.TextBody, m.HtmlBody, m.ReplyTo)
	for _, h := range m.Headers {
		v.Headers[h.Name] = h.Value
	}
	for _, a := range m.Attachments {
		v.Attach(a.Name, a.ContentType, a.Content)
	}
	return v
}

func (it *item) end() emulator.End {
	if it.test {
		return emulator.EndTested
	}
	return emulator.EndAccepted
}

func (it *item) check() (code int, message string) {
	for _, c := range []func() (int, string){it.checkAddresses, it.checkTexts, it.checkMetadata, it.checkAttachments} {
		if code, message := c(); code != 0 {
			return code, message
		}
	}
	return 0, ""
}

func (it *item) checkAddresses() (code int, message string) {
	m := it.mail
	from, ok := emulator.ParseAddress(m.From)
	it.from = from
	if m.From == "" {
		return invalid, "Invalid 'From' value."
	}
	if !ok || !emulator.ASCIILocal(from) || units(m.From) > maxFrom {
		return invalid, fmt.Sprintf("Invalid 'From' address: '%s'.", m.From)
	}
	fields := []struct{ name, value string }{{"To", m.To}, {"Cc", m.Cc}, {"Bcc", m.Bcc}}
	for _, f := range fields {
		list, ok := emulator.ParseList(f.value)
		it.all = append(it.all, list...)
		if !ok || emulator.Refuses(list) || !allASCIILocal(list) || !mailboxes(list) {
			return invalid, fmt.Sprintf("Invalid '%s' address: '%s'.", f.name, f.value)
		}
	}
	// The page calls To required, but the API accepts a message with only Cc or Bcc: users of several client libraries have
	// seen it, and the authors removed the check for it.
	if it.all = emulator.Unique(it.all); len(it.all) == 0 {
		return invalid, "Zero recipients specified"
	}
	if _, ok := emulator.ParseList(m.ReplyTo); !ok {
		return invalid, fmt.Sprintf("Invalid 'ReplyTo' address: '%s'.", m.ReplyTo)
	}
	if len(it.all) > maxRecipients {
		return invalid, "Invalid email request: the maximum of 50 recipients per message is exceeded."
	}
	return 0, ""
}

// mailboxes checks local parts against the pattern of the support page "What does Error Code: '300' mean?".
func mailboxes(list []string) bool {
	return !slices.ContainsFunc(list, func(a string) bool {
		return strings.Trim(strings.ToLower(a[:strings.LastIndexByte(a, '@')]), "abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'`*+-/=^_{}|~") != ""
	})
}

func allASCIILocal(list []string) bool {
	return !slices.ContainsFunc(list, func(a string) bool { return !emulator.ASCIILocal(a) })
}

// units counts in UTF-16 code units, as Postmark does.
func units(s string) int { return len(utf16.Encode([]rune(s))) }

func (it *item) checkTexts() (code int, message string) {
	m := it.mail
	switch {
	case m.TextBody == "" && m.HtmlBody == "":
		return invalid, "Provide either email TextBody or HtmlBody or both."
	case len(m.TextBody) > maxBodyBytes:
		return invalid, "The 'TextBody' exceeds the maximum size of 5 MB."
	case len(m.HtmlBody) > maxBodyBytes:
		return invalid, "The 'HtmlBody' exceeds the maximum size of 5 MB."
	case units(m.Subject) > maxSubject:
		return invalid, "The 'Subject' exceeds the maximum length of 2000 characters."
	case units(m.Tag) > maxTag:
		return invalid, "The 'Tag' exceeds the maximum length of 1000 characters."
	case !slices.Contains([]string{"", "None", "HtmlAndText", "HtmlOnly", "TextOnly"}, m.TrackLinks):
		return invalid, "Invalid 'TrackLinks' value."
	}
	for _, h := range m.Headers {
		if h.Name == "" || strings.ContainsAny(h.Name, " :\r\n") || strings.ContainsAny(h.Value, "\r\n") {
			return invalid, fmt.Sprintf("Invalid header '%s'.", h.Name)
		}
	}
	return 0, ""
}

func (it *item) checkMetadata() (code int, message string) {
	if len(it.mail.Metadata) > maxMetadata {
		return invalid, "Metadata is limited to 10 fields."
	}
	seen := map[string]bool{}
	for k, v := range it.mail.Metadata {
		switch {
		case k == "" || units(k) > maxMetaKey:
			return invalid, fmt.Sprintf("Metadata field name '%s' must be between 1 and 20 characters long.", k)
		case units(v) > maxMetaValue:
			return invalid, fmt.Sprintf("Metadata value of field '%s' exceeds the maximum length of 80 characters.", k)
		case seen[strings.ToLower(k)]:
			return invalid, fmt.Sprintf("Metadata field name '%s' is not unique.", k)
		}
		seen[strings.ToLower(k)] = true
	}
	return 0, ""
}

func (it *item) checkAttachments() (code int, message string) {
	for _, a := range it.mail.Attachments {
		if a.Content == "" {
			return invalid, "Zero-sized attachments not allowed."
		}
		if a.Name == "" || a.ContentType == "" || !emulator.ValidBase64(a.Content) {
			return invalid, fmt.Sprintf("Invalid attachment '%s': 'Name', 'Content' as Base64 and 'ContentType' are required.", a.Name)
		}
		dot := strings.LastIndexByte(a.Name, '.')
		if dot >= 0 && slices.Contains(forbidden(), strings.ToLower(a.Name[dot+1:])) {
			return attachment, fmt.Sprintf("The file extension of attachment '%s' is forbidden.", a.Name)
		}
	}
	return 0, ""
}

// forbidden is the list "Forbidden file types" of the page "Send email with API".
func forbidden() []string {
	return strings.Fields(`vbs exe bin bat chm com cpl crt hlp hta inf ins isp jse lnk mdb pcd pif reg scr sct shs vbe vba wsf
		wsh wsl msc msi msp mst`)
}
