package emulator

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

type postmarkMail struct {
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
	postmarkMaxRecipients = 50
	postmarkMaxFrom       = 255
	postmarkMaxSubject    = 2000
	postmarkMaxTag        = 1000
	postmarkMaxBodyBytes  = 5 << 20
	postmarkMaxMetadata   = 10
	postmarkMaxMetaKey    = 20
	postmarkMaxMetaValue  = 80
)

// postmarkStream is the transactional stream that every server has.
const postmarkStream = "outbound"

const postmarkInactiveTail = ". Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."

// postmarkItem is one message with its answer.
type postmarkItem struct {
	mail   *postmarkMail
	test   bool
	from   string
	all    []string // every recipient that could be read
	taken  []string // those that are not inactive; none if the message is refused
	result postmarkResult
}

func newPostmarkItem(m *postmarkMail, now time.Time, test bool) *postmarkItem {
	it := &postmarkItem{mail: m, test: test}
	if code, message := it.check(); code != 0 {
		it.refuse(code, message)
		return it
	}
	it.taken = it.all
	it.result = postmarkResult{
		To: m.To, Cc: m.Cc, Bcc: m.Bcc, SubmittedAt: now.Format("2006-01-02T15:04:05.0000000-07:00"),
		MessageID: postmarkID(), Message: "OK",
	}
	if test {
		it.result.Message = "Test job accepted"
	}
	it.inactivate(func(_ int, addr string) bool { return OutcomeOf(addr) == outcomeSuppressed })
	return it
}

func (it *postmarkItem) refuse(code int, message string) {
	it.taken, it.result = nil, postmarkResult{ErrorCode: code, Message: message}
}

// inactivate takes recipients out of an accepted message; when none is left the message is refused with 406.
func (it *postmarkItem) inactivate(inactive func(int, string) bool) {
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
		it.refuse(postmarkInactive, "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: "+
			strings.Join(out, ", ")+postmarkInactiveTail)
	default:
		it.taken = left
		it.result.Message = "Message OK, but will not deliver to these inactive addresses: " + strings.Join(out, ", ") + postmarkInactiveTail
	}
}

func (it *postmarkItem) entries() []*letter {
	if it.test || it.result.ErrorCode != 0 {
		return nil
	}
	l := &letter{args: it.mail.Metadata, stream: it.mail.MessageStream, Entry: Entry{
		MessageID: it.mail.Metadata[ourIDKey], ProviderMessageID: it.result.MessageID,
		From: it.from, To: it.taken, Subject: it.mail.Subject,
	}}
	if l.stream == "" {
		l.stream = postmarkStream
	}
	if l.stream != postmarkStream {
		l.Stream = l.stream
	}
	if it.mail.Tag != "" {
		l.tags = []string{it.mail.Tag}
	}
	return []*letter{l}
}

func (it *postmarkItem) end() end {
	if it.test {
		return endTested
	}
	return endAccepted
}

func (it *postmarkItem) check() (code int, message string) {
	for _, c := range []func() (int, string){it.checkAddresses, it.checkTexts, it.checkMetadata, it.checkAttachments} {
		if code, message := c(); code != 0 {
			return code, message
		}
	}
	return 0, ""
}

func (it *postmarkItem) checkAddresses() (code int, message string) {
	m := it.mail
	from, ok := parseOne(m.From)
	it.from = from
	if m.From == "" {
		return postmarkInvalid, "Invalid 'From' value."
	}
	if !ok || !asciiLocal(from) || units(m.From) > postmarkMaxFrom {
		return postmarkInvalid, fmt.Sprintf("Invalid 'From' address: '%s'.", m.From)
	}
	fields := []struct{ name, value string }{{"To", m.To}, {"Cc", m.Cc}, {"Bcc", m.Bcc}}
	for _, f := range fields {
		list, ok := parseList(f.value)
		it.all = append(it.all, list...)
		if !ok || refusedAt(list) >= 0 || !allASCIILocal(list) || !postmarkMailboxes(list) {
			return postmarkInvalid, fmt.Sprintf("Invalid '%s' address: '%s'.", f.name, f.value)
		}
	}
	// The page calls To required, and the API takes a message to Cc or Bcc only: users of several client libraries have
	// seen it, and their authors lifted the check for it.
	if it.all = unique(it.all); len(it.all) == 0 {
		return postmarkInvalid, "Zero recipients specified"
	}
	if _, ok := parseList(m.ReplyTo); !ok {
		return postmarkInvalid, fmt.Sprintf("Invalid 'ReplyTo' address: '%s'.", m.ReplyTo)
	}
	if len(it.all) > postmarkMaxRecipients {
		return postmarkInvalid, "Invalid email request: the maximum of 50 recipients per message is exceeded."
	}
	return 0, ""
}

// postmarkMailboxes holds local parts to the pattern of the support page "What does Error Code: '300' mean?".
func postmarkMailboxes(list []string) bool {
	return !slices.ContainsFunc(list, func(a string) bool {
		return strings.Trim(strings.ToLower(a[:strings.LastIndexByte(a, '@')]), "abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'`*+-/=^_{}|~") != ""
	})
}

func allASCIILocal(list []string) bool {
	return !slices.ContainsFunc(list, func(a string) bool { return !asciiLocal(a) })
}

// units counts as Postmark does: in UTF-16 code units.
func units(s string) int { return len(utf16.Encode([]rune(s))) }

func (it *postmarkItem) checkTexts() (code int, message string) {
	m := it.mail
	switch {
	case m.TextBody == "" && m.HtmlBody == "":
		return postmarkInvalid, "Provide either email TextBody or HtmlBody or both."
	case len(m.TextBody) > postmarkMaxBodyBytes:
		return postmarkInvalid, "The 'TextBody' exceeds the maximum size of 5 MB."
	case len(m.HtmlBody) > postmarkMaxBodyBytes:
		return postmarkInvalid, "The 'HtmlBody' exceeds the maximum size of 5 MB."
	case units(m.Subject) > postmarkMaxSubject:
		return postmarkInvalid, "The 'Subject' exceeds the maximum length of 2000 characters."
	case units(m.Tag) > postmarkMaxTag:
		return postmarkInvalid, "The 'Tag' exceeds the maximum length of 1000 characters."
	case !slices.Contains([]string{"", "None", "HtmlAndText", "HtmlOnly", "TextOnly"}, m.TrackLinks):
		return postmarkInvalid, "Invalid 'TrackLinks' value."
	}
	for _, h := range m.Headers {
		if h.Name == "" || strings.ContainsAny(h.Name, " :\r\n") || strings.ContainsAny(h.Value, "\r\n") {
			return postmarkInvalid, fmt.Sprintf("Invalid header '%s'.", h.Name)
		}
	}
	return 0, ""
}

func (it *postmarkItem) checkMetadata() (code int, message string) {
	if len(it.mail.Metadata) > postmarkMaxMetadata {
		return postmarkInvalid, "Metadata is limited to 10 fields."
	}
	seen := map[string]bool{}
	for k, v := range it.mail.Metadata {
		switch {
		case k == "" || units(k) > postmarkMaxMetaKey:
			return postmarkInvalid, fmt.Sprintf("Metadata field name '%s' must be between 1 and 20 characters long.", k)
		case units(v) > postmarkMaxMetaValue:
			return postmarkInvalid, fmt.Sprintf("Metadata value of field '%s' exceeds the maximum length of 80 characters.", k)
		case seen[strings.ToLower(k)]:
			return postmarkInvalid, fmt.Sprintf("Metadata field name '%s' is not unique.", k)
		}
		seen[strings.ToLower(k)] = true
	}
	return 0, ""
}

func (it *postmarkItem) checkAttachments() (code int, message string) {
	for _, a := range it.mail.Attachments {
		if a.Content == "" {
			return postmarkInvalid, "Zero-sized attachments not allowed."
		}
		if a.Name == "" || a.ContentType == "" || !validBase64(a.Content) {
			return postmarkInvalid, fmt.Sprintf("Invalid attachment '%s': 'Name', 'Content' as Base64 and 'ContentType' are required.", a.Name)
		}
		dot := strings.LastIndexByte(a.Name, '.')
		if dot >= 0 && slices.Contains(postmarkForbidden(), strings.ToLower(a.Name[dot+1:])) {
			return postmarkAttachment, fmt.Sprintf("The file extension of attachment '%s' is forbidden.", a.Name)
		}
	}
	return 0, ""
}

// postmarkForbidden is the list "Forbidden file types" of the page "Send email with API".
func postmarkForbidden() []string {
	return strings.Fields(`vbs exe bin bat chm com cpl crt hlp hta inf ins isp jse lnk mdb pcd pif reg scr sct shs vbe vba wsf
		wsh wsl msc msi msp mst`)
}
