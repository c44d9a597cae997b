package emulator

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// sendGrid answers POST /v3/mail/send as the pages "Mail Send" and "Errors" of the SendGrid API reference say.
type sendGrid struct{ e *Emulator }

func (sendGrid) kind() string { return kindSendGrid }

// maxBody is the 30 MB that SendGrid gives as the largest message, attachments included.
func (sendGrid) maxBody() int64 { return 30 << 20 }

type sendGridError struct {
	Message string  `json:"message"`
	Field   *string `json:"field"`
	Help    *string `json:"help"`
}

// sendGridFailure is an error body; an empty field is null, as in errors that concern no field.
func sendGridFailure(status int, field, message string) *reply {
	item := sendGridError{Message: message}
	if field != "" {
		help := "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html"
		item.Field, item.Help = &field, &help
	}
	return jsonReply(status, map[string][]sendGridError{"errors": {item}})
}

func (g sendGrid) authenticate(r *http.Request, _ []byte) *reply {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return sendGridFailure(http.StatusUnauthorized, "", "authorization required")
	case !same(key, g.e.opt.Credentials.SendGridKey):
		return sendGridFailure(http.StatusUnauthorized, "", "The provided authorization grant is invalid, expired, or revoked")
	}
	return nil
}

func (sendGrid) throttled(f *full, _ time.Time) *reply {
	return sendGridFailure(http.StatusTooManyRequests, "", "too many requests").
		with("X-RateLimit-Limit", strconv.Itoa(f.N)).
		with("X-RateLimit-Remaining", "0").
		with("X-RateLimit-Reset", unixCeil(f.until))
}

// unixCeil rounds up, so that whoever waits until that second finds room.
func unixCeil(t time.Time) string {
	return strconv.FormatInt(t.Add(time.Second-time.Nanosecond).Unix(), 10)
}

func (sendGrid) tooLarge() *reply {
	return sendGridFailure(http.StatusRequestEntityTooLarge, "", "Payload Too Large")
}

func (sendGrid) failure(status int) *reply {
	return sendGridFailure(status, "", strings.ToLower(http.StatusText(status)))
}

// decorate tells the fullest window. SendGrid has these headers on every answer of a limited endpoint.
func (g sendGrid) decorate(p *reply) {
	if p.header["X-Ratelimit-Limit"] != "" {
		return
	}
	if w, left := g.e.meters[kindSendGrid].tightest(g.e.now); w != nil {
		p.with("X-RateLimit-Limit", strconv.Itoa(w.N)).
			with("X-RateLimit-Remaining", strconv.Itoa(max(left, 0))).
			with("X-RateLimit-Reset", unixCeil(w.until))
	}
}

func (sendGrid) unknown(r *http.Request) *reply {
	if r.URL.Path == "/sendgrid/v3/mail/send" {
		return sendGridFailure(http.StatusMethodNotAllowed, "", "method not allowed")
	}
	return sendGridFailure(http.StatusNotFound, "", "not found")
}

type sendGridAddress struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

type sendGridPersonalization struct {
	To         []sendGridAddress `json:"to"`
	Cc         []sendGridAddress `json:"cc"`
	Bcc        []sendGridAddress `json:"bcc"`
	From       *sendGridAddress  `json:"from"`
	Subject    string            `json:"subject"`
	Headers    map[string]string `json:"headers"`
	CustomArgs map[string]string `json:"custom_args"`
	SendAt     int64             `json:"send_at"`
}

type sendGridMail struct {
	Personalizations []sendGridPersonalization `json:"personalizations"`
	From             *sendGridAddress          `json:"from"`
	ReplyTo          *sendGridAddress          `json:"reply_to"`
	ReplyToList      []sendGridAddress         `json:"reply_to_list"`
	Subject          string                    `json:"subject"`
	Content          []struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	} `json:"content"`
	Attachments []struct {
		Content     string `json:"content"`
		Filename    string `json:"filename"`
		Type        string `json:"type"`
		Disposition string `json:"disposition"`
		ContentID   string `json:"content_id"`
	} `json:"attachments"`
	TemplateID   string            `json:"template_id"`
	Headers      map[string]string `json:"headers"`
	Categories   []string          `json:"categories"`
	CustomArgs   map[string]string `json:"custom_args"`
	SendAt       int64             `json:"send_at"`
	MailSettings struct {
		SandboxMode struct {
			Enable bool `json:"enable"`
		} `json:"sandbox_mode"`
	} `json:"mail_settings"`
}

func (g sendGrid) read(r *http.Request, body []byte) *submission {
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(strings.ToLower(ct), "application/json") {
		return refusal(sendGridFailure(http.StatusUnsupportedMediaType, "", "Content-Type should be application/json."))
	}
	var m sendGridMail
	// Names are compared with their case, which encoding/json would not do: a misspelt field must not be taken here.
	// A value of the wrong type, such as a number in custom_args, gets the same answer as broken JSON: it names nothing.
	if json.Unmarshal(body, &m) != nil {
		return refusal(sendGridFailure(http.StatusBadRequest, "", "Bad Request"))
	}
	sub := &submission{cost: cost{requests: 1, messages: len(m.Personalizations)}}
	for i := range m.Personalizations {
		sub.to = append(sub.to, m.Personalizations[i].envelope()...)
	}
	sub.cost.recipients = len(sub.to)
	if sub.refused = m.check(g.e.now()); sub.refused != nil {
		return sub
	}
	if m.MailSettings.SandboxMode.Enable {
		sub.accepted, sub.end = &reply{status: http.StatusOK}, endTested
		return sub
	}
	id := sendGridID()
	sub.accepted = (&reply{status: http.StatusAccepted}).with("X-Message-Id", id)
	for i := range m.Personalizations {
		sub.entries = append(sub.entries, m.entry(&m.Personalizations[i], id))
	}
	return sub
}

func (p *sendGridPersonalization) envelope() []string {
	all := make([]string, 0, len(p.To)+len(p.Cc)+len(p.Bcc))
	for _, list := range [][]sendGridAddress{p.To, p.Cc, p.Bcc} {
		for _, a := range list {
			all = append(all, a.Email)
		}
	}
	return all
}

// entry is one personalization; its own values go before those of the whole request.
func (m *sendGridMail) entry(p *sendGridPersonalization, id string) *letter {
	args := make(map[string]string, len(m.CustomArgs)+len(p.CustomArgs))
	maps.Copy(args, m.CustomArgs)
	maps.Copy(args, p.CustomArgs)
	n := &letter{args: args, tags: m.Categories, Entry: Entry{
		MessageID: args[ourIDKey], ProviderMessageID: id,
		From: m.From.Email, To: p.envelope(), Subject: m.Subject, Calendar: m.calendar(),
	}}
	if p.From != nil {
		n.From = p.From.Email
	}
	if p.Subject != "" {
		n.Subject = p.Subject
	}
	return n
}
