package ses

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/emulator"
)

// The caps of SendEmail: recipients, message, tag name and value, number of tags, configuration set name, headers.
const (
	maxRecipients = 50
	maxMessage    = 40 << 20
	maxTag        = 256
	maxTags       = 50
	maxConfigSet  = 64
	maxHeaders    = 15
)

func (m *mail) check(from string, to []string) *emulator.Reply {
	bare, ok := emulator.ParseAddress(from)
	switch {
	case !ok || !emulator.ASCII(bare):
		return badRequest("Missing or invalid From address.")
	case len(to) == 0:
		return badRequest("Destination must have at least one recipient.")
	case len(to) > maxRecipients:
		return badRequest("Recipient count exceeds 50.")
	case len(m.ConfigurationSetName) > maxConfigSet || !tagChars(m.ConfigurationSetName):
		return badRequest("Invalid configuration set name <%s>.", m.ConfigurationSetName)
	case len(m.EmailTags) > maxTags:
		return badRequest("Too many message tags.")
	}
	for _, t := range m.EmailTags {
		if t.Name == "" || t.Value == "" || len(t.Name) > maxTag || len(t.Value) > maxTag || !tagChars(t.Name+t.Value) {
			return badRequest("Invalid tag <%s: %s>: only alphanumeric ASCII characters, '_', and '-' are allowed.", t.Name, t.Value)
		}
	}
	for _, r := range m.ReplyToAddresses {
		if _, ok := emulator.ParseAddress(r); !ok {
			return badRequest("Invalid reply-to address.")
		}
	}
	if refused := m.checkHeaders(); refused != nil {
		return refused
	}
	if refused := m.checkAttachments(); refused != nil {
		return refused
	}
	if emulator.Refuses(to) {
		return refuse(http.StatusBadRequest, "MessageRejected", "Address blacklisted.")
	}
	return nil
}

// checkHeaders checks the constraints of the types Message and MessageHeader: at most 15 headers; name up to 126 characters,
// value 1 to 995 of printable ASCII, both together up to 996.
func (m *mail) checkHeaders() *emulator.Reply {
	if m.Content.Simple == nil {
		return nil
	}
	if n := len(m.Content.Simple.Headers); n > maxHeaders {
		return badRequest("1 validation error detected: Value at 'content.simple.headers' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d", maxHeaders)
	}
	unprintable := func(r rune) bool { return r < ' ' || r > '~' }
	for _, h := range m.Content.Simple.Headers {
		bad := h.Name == "" || h.Value == "" || len(h.Name) > 126 || len(h.Value) > 995 || len(h.Name)+len(h.Value) > 996 ||
			strings.ContainsFunc(h.Name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) ||
			strings.ContainsFunc(h.Value, unprintable)
		if bad {
			return badRequest("Invalid header <%s>.", h.Name)
		}
	}
	return nil
}

// checkAttachments checks the constraints of the type Attachment, and some of the page "Amazon SES unsupported attachment types".
func (m *mail) checkAttachments() *emulator.Reply {
	if m.Content.Simple == nil {
		return nil
	}
	long := func(s *string, limit int) bool { return s != nil && (*s == "" || len(*s) > limit) }
	for _, a := range m.Content.Simple.Attachments {
		switch {
		case a.FileName == nil || *a.FileName == "" || len(*a.FileName) > 255:
			return badRequest("Invalid attachment file name.")
		case a.RawContent == nil:
			return badRequest("Attachment content is missing.")
		case long(a.ContentType, 78) || long(a.ContentId, 78):
			return badRequest("Invalid attachment <%s>.", *a.FileName)
		}
		dot := strings.LastIndexByte(*a.FileName, '.')
		if dot >= 0 && slices.Contains(unsupported(), strings.ToLower((*a.FileName)[dot+1:])) {
			return refuse(http.StatusBadRequest, "MessageRejected", "Unsupported attachment type: "+*a.FileName)
		}
	}
	return nil
}

func unsupported() []string {
	return strings.Fields("ade adp app asp bas bat cer chm cmd com cpl crt csh der exe gadget hlp hta inf ins isp its js jse ksh lnk" +
		" mdb msc msi msp mst pif ps1 reg scr sct shb shs sys tmp url vb vbe vbs ws wsc wsf wsh")
}

func tagChars(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}
