package sendgrid

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// The caps of the page "Mail Send", section "Limitations", and of its schema.
const (
	maxPersonalizations = 1000
	maxRecipients       = 1000
	maxArgBytes         = 10_000
	maxCategories       = 10
	maxCategoryLen      = 255
	maxAhead            = 72 * time.Hour
)

// check finds the first error that SendGrid refuses; each such answer is a 400 with the field's path.
func (m *mail) check(now time.Time) *emulator.Reply {
	checks := []func() (field, message string){
		m.checkCounts,
		m.checkRecipients,
		m.checkSender,
		m.checkContent,
		func() (string, string) { return m.checkSettings(now) },
		m.checkCategories,
		m.checkAttachments,
	}
	for _, c := range checks {
		if field, message := c(); message != "" {
			return refuse(http.StatusBadRequest, field, message)
		}
	}
	return nil
}

func (m *mail) checkCounts() (field, message string) {
	n := len(m.Personalizations)
	switch {
	case n == 0:
		return "personalizations", "The personalizations field is required and must have at least one personalization."
	case n > maxPersonalizations:
		return "personalizations", fmt.Sprintf("The personalization block is limited to 1000 personalizations per API request. "+
			"You have provided %d personalizations. Please consider splitting this into multiple requests and resending your request.", n)
	}
	total := 0
	for i := range m.Personalizations {
		total += len(m.Personalizations[i].envelope())
	}
	if total > maxRecipients {
		return "personalizations", "There is a limit of 1000 total recipients (to + cc + bcc) per request."
	}
	return "", ""
}

// checkRecipients checks the rule of the page "Errors": each address may occur only once in the personalizations of a request.
func (m *mail) checkRecipients() (field, message string) {
	seen := map[string]bool{}
	for i := range m.Personalizations {
		p := &m.Personalizations[i]
		path := fmt.Sprintf("personalizations.%d", i)
		if len(p.To) == 0 {
			return path + ".to", "The to array is required for all personalization objects, and must have at least one email " +
				"object with a valid email address."
		}
		lists := []struct {
			name string
			list []address
		}{{"to", p.To}, {"cc", p.Cc}, {"bcc", p.Bcc}}
		for _, l := range lists {
			for j, a := range l.list {
				if !takes(a.Email) || emulator.OutcomeOf(a.Email) == emulator.OutcomeReject {
					return fmt.Sprintf("%s.%s.%d.email", path, l.name, j), "Does not contain a valid address."
				}
				key := strings.ToLower(a.Email)
				if seen[key] {
					return path, fmt.Sprintf("Each email address in the personalization block should be unique between to, cc, and bcc. "+
						"We found the first duplicate instance of [%s] in the %s.%s field.", a.Email, path, l.name)
				}
				seen[key] = true
			}
		}
	}
	return "", ""
}

func takes(addr string) bool { return emulator.BareAddress(addr) && emulator.ASCIILocal(addr) }

func (m *mail) checkSender() (field, message string) {
	switch {
	case m.From == nil:
		return "from", "The from object must be provided for every email send. It is an object that requires the email " +
			"parameter, but may also contain a name parameter.  e.g. {\"email\" : \"example@example.com\"}  or " +
			"{\"email\" : \"example@example.com\", \"name\" : \"Example Recipient\"}."
	case !takes(m.From.Email):
		return "from.email", "The from email does not contain a valid address."
	case m.ReplyTo != nil && m.ReplyToList != nil:
		return "reply_to", "The reply_to and reply_to_list parameters are mutually exclusive."
	case m.ReplyTo != nil && !takes(m.ReplyTo.Email):
		return "reply_to.email", "The reply_to email does not contain a valid address."
	}
	for i, a := range m.ReplyToList {
		if !takes(a.Email) {
			return fmt.Sprintf("reply_to_list.%d.email", i), "The reply_to_list email does not contain a valid address."
		}
	}
	for i := range m.Personalizations {
		if p := m.Personalizations[i].From; p != nil && !takes(p.Email) {
			return fmt.Sprintf("personalizations.%d.from.email", i), "The from email does not contain a valid address."
		}
	}
	return "", ""
}

func (m *mail) checkContent() (field, message string) {
	without := func(p personalization) bool { return p.Subject == "" }
	if m.Subject == "" && m.TemplateID == "" && slices.ContainsFunc(m.Personalizations, without) {
		return "subject", "The subject is required. You can get around this requirement if you use a template with a subject " +
			"defined or if every personalization has a subject defined."
	}
	if len(m.Content) == 0 && m.TemplateID == "" {
		return "content", "Unless a valid template_id is provided, the content parameter is required. There must be at least " +
			"one defined content block. We typically suggest both text/plain and text/html blocks are included, but only one " +
			"block is required."
	}
	rank := -1
	for i, c := range m.Content {
		if c.Value == "" {
			return fmt.Sprintf("content.%d.value", i), "The content value must be a string at least one character in length."
		}
		if c.Type == "" || strings.ContainsAny(withoutMethod(c.Type), ";,\r\n") {
			return fmt.Sprintf("content.%d.type", i), "The content type cannot contain ';', ',' or CRLF characters and must be a " +
				"string at least one character in length."
		}
		next := contentRank(c.Type)
		if next < rank || next == rank && next < 2 {
			return "content", "If present, text/plain and text/html may only be provided once. text/plain must be first, " +
				"followed by text/html, then any other content."
		}
		rank = next
	}
	return "", ""
}

// withoutMethod removes the one parameter that SendGrid accepts, which calendar parts need. SendGrid refuses a charset even there
// (issues 298 of sendgrid-ruby and 150 of django-anymail).
func withoutMethod(contentType string) string {
	bare, method, ok := strings.Cut(contentType, "; method=")
	if !ok || !strings.EqualFold(bare, "text/calendar") || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return contentType
	}
	return bare
}

// calendar returns the invitation in the content.
func (m *mail) calendar() string {
	for _, c := range m.Content {
		if method, ok := strings.CutPrefix(c.Type, "text/calendar; method="); ok {
			return emulator.Invitation(method, c.Value)
		}
	}
	return ""
}

// contentRank is the required position of a content type: text/plain, then text/html, then the others.
func contentRank(contentType string) int {
	return slices.Index([]string{"text/plain", "text/html", strings.ToLower(contentType)}, strings.ToLower(contentType))
}

// reserved finds a header that the schema of "headers" forbids.
func reserved(headers map[string]string) string {
	for name := range headers {
		switch strings.ToLower(name) {
		case "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
			"to", "from", "subject", "reply-to", "cc", "bcc":
			return name
		}
	}
	return ""
}

// checkSettings checks the settings of the whole request, and those with which each personalization overrides them.
func (m *mail) checkSettings(now time.Time) (field, message string) {
	all := personalization{Headers: m.Headers, SendAt: m.SendAt}
	if field, message := all.checkSettings("", now); message != "" {
		return field, message
	}
	for i := range m.Personalizations {
		p, path := &m.Personalizations[i], fmt.Sprintf("personalizations.%d.", i)
		args := map[string]string{}
		maps.Copy(args, m.CustomArgs)
		maps.Copy(args, p.CustomArgs)
		if text, err := json.Marshal(args); err != nil || len(text) > maxArgBytes {
			return path + "custom_args", "The custom_args may not exceed 10000 bytes."
		}
		if field, message := p.checkSettings(path, now); message != "" {
			return field, message
		}
	}
	return "", ""
}

func (p *personalization) checkSettings(path string, now time.Time) (field, message string) {
	if name := reserved(p.Headers); name != "" {
		return path + "headers." + name, "The header [" + name + "] is reserved and can not be set."
	}
	if p.SendAt > now.Add(maxAhead).Unix() {
		return path + "send_at", "Scheduling more than 72 hours in advance is forbidden."
	}
	return "", ""
}

func (m *mail) checkCategories() (field, message string) {
	if len(m.Categories) > maxCategories {
		return "categories", "The categories array may not contain more than 10 items."
	}
	for i, c := range m.Categories {
		if c == "" || len([]rune(c)) > maxCategoryLen {
			return fmt.Sprintf("categories.%d", i), "The category must be a string between 1 and 255 characters in length."
		}
		if slices.Contains(m.Categories[:i], c) {
			return "categories", "The categories must be unique."
		}
	}
	return "", ""
}

func (m *mail) checkAttachments() (field, message string) {
	for i, a := range m.Attachments {
		path := fmt.Sprintf("attachments.%d.", i)
		switch {
		case a.Content == "":
			return path + "content", "The attachment content is required."
		case !emulator.ValidBase64(a.Content):
			return path + "content", "The attachment content must be base64 encoded."
		case a.Filename == "":
			return path + "filename", "The attachment filename is required."
		case a.Disposition != "" && a.Disposition != "inline" && a.Disposition != "attachment":
			return path + "disposition", "The disposition of the attachment must be either 'inline' or 'attachment'."
		case strings.ContainsAny(a.Type, ";,\r\n"):
			return path + "type", "The attachment type cannot contain ';', ',' or CRLF characters."
		}
	}
	return "", ""
}
