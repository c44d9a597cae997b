package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// mailgun answers POST /v3/{domain}/messages and messages.mime as the page "Messages" of the Mailgun API reference says.
type mailgun struct{ e *Emulator }

func (mailgun) kind() string { return kindMailgun }

// maxBody is the 52.4 MiB that Mailgun takes as a request.
func (mailgun) maxBody() int64 { return 54_945_382 }

// Mailgun's caps: recipients of a call, bytes of all o:, h:, v: and t: parameters, bytes of the message.
const (
	mailgunMaxRecipients  = 1000
	mailgunMaxParamBytes  = 16 << 10
	mailgunMaxMessageSize = 25 << 20
)

func mailgunFailure(status int, message string) *reply {
	return jsonReply(status, map[string]string{"message": message})
}

// authenticate answers a bad key in plain text: the one error of Mailgun that is not JSON.
func (g mailgun) authenticate(r *http.Request, _ []byte) *reply {
	user, key, ok := r.BasicAuth()
	if !ok || user != "api" || !same(key, g.e.opt.Credentials.MailgunKey) {
		return textReply(http.StatusUnauthorized, "Forbidden").with("WWW-Authenticate", `Basic realm="MG API"`)
	}
	domain := r.PathValue("domain")
	if domain == "" { // a call about the account
		return nil
	}
	if !strings.EqualFold(domain, g.e.opt.Credentials.MailgunDomain) {
		return mailgunFailure(http.StatusNotFound, "Domain not found: "+domain)
	}
	return nil
}

// throttled names the end in the text; Mailgun has no header for it.
func (g mailgun) throttled(f *full, _ time.Time) *reply {
	what := "request"
	if f.Unit == limit.Recipients {
		what = "recipient"
	}
	until := f.until.Add(time.Second - time.Nanosecond).UTC().Format(time.RFC1123)
	return mailgunFailure(http.StatusTooManyRequests, fmt.Sprintf(
		"Domain %s is not allowed to send: %s limit exceeded, try again after %s", g.e.opt.Credentials.MailgunDomain, what, until))
}

func (mailgun) tooLarge() *reply {
	return mailgunFailure(http.StatusRequestEntityTooLarge, "Request Entity Too Large")
}

func (mailgun) failure(status int) *reply {
	if status == http.StatusUnauthorized {
		return textReply(status, "Forbidden")
	}
	return mailgunFailure(status, http.StatusText(status))
}

func (mailgun) decorate(*reply) {}

// unknown greets at the root, as the real one does: a wrong base URL there looks like a success.
func (mailgun) unknown(r *http.Request) *reply {
	if r.URL.Path == "/mailgun/" {
		return textReply(http.StatusOK, "Mailgun Magnificent API")
	}
	if strings.HasSuffix(r.URL.Path, "/messages") || strings.HasSuffix(r.URL.Path, "/messages.mime") {
		return mailgunFailure(http.StatusMethodNotAllowed, "Method Not Allowed")
	}
	return textReply(http.StatusNotFound, "404 page not found")
}

// mailgunMail is a call's parameters, put in order.
type mailgunMail struct {
	from, subject, messageID string
	calendar                 string // see Entry
	to                       []string
	vars                     map[string]string
	tags                     []string
	perRecipient             map[string]map[string]any // recipient-variables, by lower-case address
	test                     bool
}

func (g mailgun) read(r *http.Request, body []byte) *submission {
	form, err := parseMailgunForm(r.Header.Get("Content-Type"), body)
	if err != nil {
		return refusal(mailgunFailure(http.StatusBadRequest, "request body can't be parsed"))
	}
	m, refused := form.mail(strings.HasSuffix(r.URL.Path, ".mime"))
	sub := &submission{
		cost: cost{requests: 1, messages: 1, recipients: len(m.to)},
		to:   m.to, refused: refused,
	}
	if m.perRecipient != nil {
		sub.cost.messages = len(m.to)
	}
	if refused != nil {
		return sub
	}
	id := m.messageID
	if id == "" {
		id = mailgunID(g.e.now(), g.e.opt.Credentials.MailgunDomain)
	}
	sub.accepted = jsonReply(http.StatusOK, map[string]string{"id": "<" + id + ">", "message": "Queued. Thank you."})
	if m.test {
		sub.end = endTested
		return sub
	}
	sub.entries = m.entries(id)
	return sub
}

// entries has one line for the message, or one per recipient if each gets a copy of its own.
func (m *mailgunMail) entries(id string) []*letter {
	base := letter{args: m.vars, tags: m.tags, Entry: Entry{
		MessageID: m.vars[ourIDKey], ProviderMessageID: id, From: m.from, To: m.to, Subject: m.subject,
		Calendar: m.calendar,
	}}
	if m.perRecipient == nil {
		return []*letter{&base}
	}
	all := make([]*letter, 0, len(m.to))
	for _, to := range m.to {
		own, vars := base, m.perRecipient[strings.ToLower(to)]
		own.To = []string{to}
		own.Subject = fillVariables(base.Subject, vars)
		own.args = make(map[string]string, len(m.vars))
		for name, v := range m.vars {
			own.args[name] = fillVariables(v, vars)
		}
		own.MessageID = own.args[ourIDKey]
		all = append(all, &own)
	}
	return all
}

// fillVariables puts one recipient's values into %recipient.name% marks.
func fillVariables(s string, vars map[string]any) string {
	if !strings.Contains(s, "%recipient.") {
		return s
	}
	for name, v := range vars {
		text, ok := v.(string)
		if !ok {
			b, err := json.Marshal(v)
			if err != nil {
				continue
			}
			text = string(b)
		}
		s = strings.ReplaceAll(s, "%recipient."+name+"%", text)
	}
	return s
}
