package emulator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/limit"
)

// ses answers SendEmail and GetAccount as the "Amazon SES API v2 Reference" says.
type ses struct{ e *Emulator }

func (ses) kind() string { return kindSES }

// maxBody is the 40 MB of a message, in base64 inside JSON, and a margin for the rest.
func (ses) maxBody() int64 { return sesMaxMessage/3*4 + 1<<20 }

// The caps of SendEmail: recipients, message, tag name and value, configuration set name.
const (
	sesMaxRecipients = 50
	sesMaxMessage    = 40 << 20
	sesMaxTag        = 256
	sesMaxTags       = 50
	sesMaxConfigSet  = 64
	sesMaxHeaders    = 15
)

// sesFailure has the code in a header, as in every REST-JSON service of AWS.
func sesFailure(status int, code, message string) *reply {
	return jsonReply(status, map[string]string{"message": message}).with("x-amzn-ErrorType", code)
}

func sesBadRequest(format string, args ...any) *reply {
	return sesFailure(http.StatusBadRequest, "BadRequestException", fmt.Sprintf(format, args...))
}

func (g ses) authenticate(r *http.Request, body []byte) *reply {
	c := g.e.opt.Credentials
	code, message := verifySigV4(r, body, c.AWSAccessKeyID, c.AWSSecretAccessKey, scope{c.AWSRegion, "ses"}, g.e.now())
	if code != "" {
		return sesFailure(http.StatusForbidden, code, message)
	}
	return nil
}

// throttled names the daily quota when a window of an hour or more is full, else the rate.
func (ses) throttled(f *full, _ time.Time) *reply {
	message := "Maximum sending rate exceeded."
	if f.Per >= time.Hour {
		message = "Daily message quota exceeded."
	}
	return sesFailure(http.StatusTooManyRequests, "TooManyRequestsException", message)
}

func (ses) tooLarge() *reply {
	return sesFailure(http.StatusRequestEntityTooLarge, "RequestEntityTooLargeException", "Request size exceeds the limit.")
}

func (ses) failure(status int) *reply {
	codes := map[int]string{
		http.StatusBadRequest: "BadRequestException", http.StatusForbidden: "AccessDeniedException",
		http.StatusNotFound: "NotFoundException", http.StatusConflict: "ConflictException",
		http.StatusTooManyRequests: "TooManyRequestsException", http.StatusInternalServerError: "InternalFailure",
		http.StatusServiceUnavailable: "ServiceUnavailable",
	}
	code := codes[status]
	if code == "" {
		return textReply(status, http.StatusText(status))
	}
	return sesFailure(status, code, http.StatusText(status))
}

func (g ses) decorate(p *reply) { g.stamp(p) }

func (ses) stamp(p *reply) *reply { return p.with("x-amzn-RequestId", uuid.NewString()) }

func (g ses) unknown(r *http.Request) *reply {
	return g.stamp(sesFailure(http.StatusNotFound, "UnknownOperationException", "unknown operation "+r.Method))
}

type sesMail struct {
	FromEmailAddress     string
	ConfigurationSetName string
	ReplyToAddresses     []string
	EmailTags            []struct{ Name, Value string }
	Destination          *struct{ ToAddresses, CcAddresses, BccAddresses []string }
	Content              struct {
		Raw    *struct{ Data []byte }
		Simple *struct {
			Subject struct{ Data string }
			Body    struct{ Text, Html *struct{ Data string } }
			Headers []struct{ Name, Value string }

			Attachments []struct {
				FileName, ContentType, ContentId *string
				RawContent                       []byte
			}
		}
		Template *struct {
			TemplateName, TemplateArn string
			TemplateContent           *struct{ Subject, Text, Html string }
			TemplateData              string
		}
	}
}

func (g ses) read(_ *http.Request, body []byte) *submission {
	var m sesMail
	if json.Unmarshal(body, &m) != nil {
		return refusal(sesFailure(http.StatusBadRequest, "SerializationException", "Unable to parse the request body."))
	}
	from, subject, head, refused := m.content()
	sub := &submission{cost: cost{requests: 1, messages: 1}, refused: refused}
	var bad *reply
	if sub.to, bad = m.recipients(head); sub.refused == nil {
		sub.refused = bad
	}
	sub.cost.recipients = len(sub.to)
	if sub.refused == nil {
		sub.refused = m.check(from, sub.to)
	}
	if sub.refused != nil {
		return sub
	}
	id := sesID(g.e.now())
	sub.accepted = jsonReply(http.StatusOK, map[string]string{"MessageId": id})
	bareFrom, _ := parseOne(from)
	n := &letter{stream: m.ConfigurationSetName, args: map[string]string{}, Entry: Entry{
		ProviderMessageID: id, From: bareFrom, To: sub.to, Subject: subject, Calendar: head.calendar,
	}}
	for _, t := range m.EmailTags {
		n.args[t.Name] = t.Value
	}
	n.MessageID = n.args[ourIDKey]
	sub.entries = []*letter{n}
	return sub
}

// content finds sender, subject and, for Raw, the header.
func (m *sesMail) content() (from, subject string, head mimeHead, refused *reply) {
	c, from := &m.Content, m.FromEmailAddress
	switch {
	case c.Raw != nil:
		if len(c.Raw.Data) > sesMaxMessage {
			return from, "", mimeHead{}, sesFailure(http.StatusBadRequest, "MessageRejected", "Message length is more than the maximum allowed.")
		}
		h, err := readMIMEHead(c.Raw.Data)
		if err != nil {
			return from, "", mimeHead{}, sesBadRequest("Could not parse the raw message.")
		}
		if from == "" {
			from = h.from
		}
		return from, h.subject, h, nil
	case c.Simple != nil:
		if c.Simple.Body.Text == nil && c.Simple.Body.Html == nil {
			return from, "", mimeHead{}, sesBadRequest("Body must have at least one of Text or Html.")
		}
		return from, c.Simple.Subject.Data, mimeHead{}, nil
	case c.Template != nil:
		if t := c.Template.TemplateContent; t != nil {
			return from, t.Subject, mimeHead{}, nil
		}
		return from, "", mimeHead{}, sesFailure(http.StatusNotFound, "NotFoundException", "Template "+c.Template.TemplateName+" does not exist.")
	}
	return from, "", mimeHead{}, sesBadRequest("Content must have one of Simple, Raw or Template.")
}

// recipients lists the envelope: the Destination, which for Raw goes before the header's.
func (m *sesMail) recipients(head mimeHead) ([]string, *reply) {
	d := m.Destination
	if d == nil || len(d.ToAddresses)+len(d.CcAddresses)+len(d.BccAddresses) == 0 {
		if head.badTo {
			return nil, sesBadRequest("Illegal address")
		}
		return head.to, nil
	}
	var all []string
	var refused *reply
	for _, raw := range slices.Concat(d.ToAddresses, d.CcAddresses, d.BccAddresses) {
		addr, ok := parseOne(raw)
		switch {
		case !strings.Contains(raw, "@"):
			refused = sesBadRequest("Missing final '@domain'")
		case !ok:
			refused = sesBadRequest("Illegal address")
		case !asciiLocal(addr):
			refused = sesBadRequest("Local address contains control or whitespace")
		case !isASCII(addr):
			refused = sesBadRequest("Domain contains illegal character")
		}
		if ok {
			all = append(all, addr)
		}
	}
	return all, refused
}

func (m *sesMail) check(from string, to []string) *reply {
	bare, ok := parseOne(from)
	switch {
	case !ok || !isASCII(bare):
		return sesBadRequest("Missing or invalid From address.")
	case len(to) == 0:
		return sesBadRequest("Destination must have at least one recipient.")
	case len(to) > sesMaxRecipients:
		return sesBadRequest("Recipient count exceeds 50.")
	case len(m.ConfigurationSetName) > sesMaxConfigSet || !sesTagChars(m.ConfigurationSetName):
		return sesBadRequest("Invalid configuration set name <%s>.", m.ConfigurationSetName)
	case len(m.EmailTags) > sesMaxTags:
		return sesBadRequest("Too many message tags.")
	}
	for _, t := range m.EmailTags {
		if t.Name == "" || t.Value == "" || len(t.Name) > sesMaxTag || len(t.Value) > sesMaxTag || !sesTagChars(t.Name+t.Value) {
			return sesBadRequest("Invalid tag <%s: %s>: only alphanumeric ASCII characters, '_', and '-' are allowed.", t.Name, t.Value)
		}
	}
	for _, r := range m.ReplyToAddresses {
		if _, ok := parseOne(r); !ok {
			return sesBadRequest("Invalid reply-to address.")
		}
	}
	if refused := m.checkHeaders(); refused != nil {
		return refused
	}
	if refused := m.checkAttachments(); refused != nil {
		return refused
	}
	if refusedAt(to) >= 0 {
		return sesFailure(http.StatusBadRequest, "MessageRejected", "Address blacklisted.")
	}
	return nil
}

// checkHeaders has the constraints of the types Message and MessageHeader: at most 15; name 126, value 1 to 995 of printable
// ASCII, both 996.
func (m *sesMail) checkHeaders() *reply {
	if m.Content.Simple == nil {
		return nil
	}
	if n := len(m.Content.Simple.Headers); n > sesMaxHeaders {
		return sesBadRequest("1 validation error detected: Value at 'content.simple.headers' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d", sesMaxHeaders)
	}
	unprintable := func(r rune) bool { return r < ' ' || r > '~' }
	for _, h := range m.Content.Simple.Headers {
		bad := h.Name == "" || h.Value == "" || len(h.Name) > 126 || len(h.Value) > 995 || len(h.Name)+len(h.Value) > 996 ||
			strings.ContainsFunc(h.Name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) ||
			strings.ContainsFunc(h.Value, unprintable)
		if bad {
			return sesBadRequest("Invalid header <%s>.", h.Name)
		}
	}
	return nil
}

// checkAttachments has the constraints of the type Attachment, and some of the page "Amazon SES unsupported attachment types".
func (m *sesMail) checkAttachments() *reply {
	if m.Content.Simple == nil {
		return nil
	}
	long := func(s *string, limit int) bool { return s != nil && (*s == "" || len(*s) > limit) }
	for _, a := range m.Content.Simple.Attachments {
		switch {
		case a.FileName == nil || *a.FileName == "" || len(*a.FileName) > 255:
			return sesBadRequest("Invalid attachment file name.")
		case a.RawContent == nil:
			return sesBadRequest("Attachment content is missing.")
		case long(a.ContentType, 78) || long(a.ContentId, 78):
			return sesBadRequest("Invalid attachment <%s>.", *a.FileName)
		}
		dot := strings.LastIndexByte(*a.FileName, '.')
		if dot >= 0 && slices.Contains(sesUnsupported(), strings.ToLower((*a.FileName)[dot+1:])) {
			return sesFailure(http.StatusBadRequest, "MessageRejected", "Unsupported attachment type: "+*a.FileName)
		}
	}
	return nil
}

func sesUnsupported() []string {
	return strings.Fields("ade adp app asp bas bat cer chm cmd com cpl crt csh der exe gadget hlp hta inf ins isp its js jse ksh lnk" +
		" mdb msc msi msp mst pif ps1 reg scr sct shb shs sys tmp url vb vbe vbs ws wsc wsf wsh")
}

func sesTagChars(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// account answers GetAccount from the configured windows: MaxSendRate is the recipients (else requests) of a window of
// up to a minute, per second; Max24HourSend the recipients of a window of a day, -1 without one.
func (g ses) account(r *http.Request) *reply {
	if p := g.authenticate(r, nil); p != nil {
		return g.stamp(p)
	}
	rate, daily, unit := 1000.0, -1.0, limit.Unit("")
	for _, w := range g.e.opt.Limits[kindSES] {
		if w.Per <= time.Minute && (unit != limit.Recipients || w.Unit == unit) {
			rate, unit = float64(w.N)/w.Per.Seconds(), w.Unit
		}
		if w.Per == 24*time.Hour && w.Unit == limit.Recipients {
			daily = float64(w.N)
		}
	}
	sent, since := 0, g.e.now().Add(-24*time.Hour)
	for _, n := range filterLedger(g.e.ledger.snapshot(), kindSES, since, -1) {
		sent += len(n.To)
	}
	return g.stamp(jsonReply(http.StatusOK, map[string]any{
		"DedicatedIpAutoWarmupEnabled": false, "EnforcementStatus": "HEALTHY",
		"ProductionAccessEnabled": true, "SendingEnabled": true,
		"SendQuota": map[string]float64{"MaxSendRate": rate, "Max24HourSend": daily, "SentLast24Hours": float64(sent)},
	}))
}
