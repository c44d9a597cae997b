// Package sendgrid emulates the SendGrid API v3, written from its reference: "Mail Send", "Errors", "Filter All Messages"
// of the Email Logs API, "Create an Event Webhook", "Event Webhook Reference" and "Event Webhook Security Features".
//
// It decides what SendGrid would answer and report, and leaves ledger, limits and faults to package emulator. The most likely
// mistake of a newcomer is to accept a field without the check that SendGrid has for it: then an adapter that breaks the rule
// passes here and fails at SendGrid.
package sendgrid

import (
	"crypto/rand"
	"encoding/base64"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// Kind describes SendGrid. The largest request is 30 MB, SendGrid's limit for a message including attachments.
func Kind() emulator.Kind {
	return emulator.Kind{
		Name: "sendgrid", MaxBody: 30 << 20, Lookups: true, Batch: 500, Course: course, New: open,
		Credentials: map[string]string{"api_key": "SG.emulator.local-development-only"},
	}
}

// api is SendGrid in one emulator.
type api struct {
	host     *emulator.Host
	keys     keys
	webhooks emulator.Registry[webhook]
}

func open(h *emulator.Host) (emulator.Provider, error) {
	a := &api{host: h}
	if err := a.keys.make(); err != nil {
		return nil, err
	}
	h.Handle("POST /v3/mail/send", h.Send(a.read))
	h.Handle("POST /v3/logs", h.Lookup(a.searchLogs))
	h.Handle("GET /v3/logs/{id}", h.Lookup(a.oneLog))
	a.registrations()
	h.Handle("/", h.Open(a.unknown))
	return a, nil
}

// Account has a high cap on look-ups: SendGrid's own is low, and an emulator has none.
func (a *api) Account(at string) emulator.Account {
	return emulator.Account{
		Settings: map[string]any{"base_url": at, "lookups_per_minute": 6000, "webhook_public_keys": []string{a.keys.public}},
		Secrets:  map[string]string{"api_key": a.host.Credential("api_key")},
	}
}

type problem struct {
	Message string  `json:"message"`
	Field   *string `json:"field"`
	Help    *string `json:"help"`
}

// refuse returns an error body. An empty field becomes null, as in errors about no field.
func refuse(status int, field, message string) *emulator.Reply {
	item := problem{Message: message}
	if field != "" {
		help := "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html"
		item.Field, item.Help = &field, &help
	}
	return emulator.JSON(status, map[string][]problem{"errors": {item}})
}

func (a *api) Authenticate(r *http.Request, _ []byte) *emulator.Reply {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return refuse(http.StatusUnauthorized, "", "authorization required")
	case !emulator.Same(key, a.host.Credential("api_key")):
		return refuse(http.StatusUnauthorized, "", "The provided authorization grant is invalid, expired, or revoked")
	}
	return nil
}

func (*api) Throttled(f *emulator.Full) *emulator.Reply {
	p := refuse(http.StatusTooManyRequests, "", "too many requests")
	window(p, f, 0)
	return p
}

// window adds the headers about a window. The end is rounded up, so that a caller who waits until that second finds room.
func window(p *emulator.Reply, f *emulator.Full, left int) {
	p.With("X-RateLimit-Limit", strconv.Itoa(f.N)).
		With("X-RateLimit-Remaining", strconv.Itoa(max(left, 0))).
		With("X-RateLimit-Reset", strconv.FormatInt(f.Until.Add(time.Second-time.Nanosecond).Unix(), 10))
}

func (*api) Failure(status int) *emulator.Reply {
	if status == http.StatusRequestEntityTooLarge {
		return refuse(status, "", "Payload Too Large")
	}
	return refuse(status, "", strings.ToLower(http.StatusText(status)))
}

// Decorate shows the fullest window. SendGrid sends these headers with every answer of a limited endpoint.
func (a *api) Decorate(p *emulator.Reply) {
	if p.Header["X-Ratelimit-Limit"] != "" {
		return
	}
	if w, left := a.host.Tightest(); w != nil {
		window(p, w, left)
	}
}

func (*api) unknown(r *http.Request, _ []byte) *emulator.Reply {
	if r.URL.Path == "/sendgrid/v3/mail/send" {
		return refuse(http.StatusMethodNotAllowed, "", "method not allowed")
	}
	return refuse(http.StatusNotFound, "", "not found")
}

type address struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

type personalization struct {
	To         []address         `json:"to"`
	Cc         []address         `json:"cc"`
	Bcc        []address         `json:"bcc"`
	From       *address          `json:"from"`
	Subject    string            `json:"subject"`
	Headers    map[string]string `json:"headers"`
	CustomArgs map[string]string `json:"custom_args"`
	SendAt     int64             `json:"send_at"`
}

type mail struct {
	Personalizations []personalization `json:"personalizations"`
	From             *address          `json:"from"`
	ReplyTo          *address          `json:"reply_to"`
	ReplyToList      []address         `json:"reply_to_list"`
	Subject          string            `json:"subject"`
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

// read parses a send request and checks it.
func (a *api) read(r *http.Request, body []byte) *emulator.Submission {
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(strings.ToLower(ct), "application/json") {
		return emulator.Refuse(refuse(http.StatusUnsupportedMediaType, "", "Content-Type should be application/json."))
	}
	var m mail
	// Names are case-sensitive here, which encoding/json does not do: a misspelt field must not be accepted. A value of the wrong
	// type, such as a number in custom_args, gets the same answer as broken JSON, which names no field.
	if json.Unmarshal(body, &m) != nil {
		return emulator.Refuse(refuse(http.StatusBadRequest, "", "Bad Request"))
	}
	sub := &emulator.Submission{Cost: emulator.Cost{Requests: 1, Messages: len(m.Personalizations)}}
	for i := range m.Personalizations {
		sub.To = append(sub.To, m.Personalizations[i].envelope()...)
	}
	sub.Cost.Recipients = len(sub.To)
	if sub.Refused = m.check(a.host.Now()); sub.Refused != nil {
		return sub
	}
	if m.MailSettings.SandboxMode.Enable {
		sub.Accepted, sub.End = &emulator.Reply{Status: http.StatusOK}, emulator.EndTested
		return sub
	}
	id := newID()
	sub.Accepted = (&emulator.Reply{Status: http.StatusAccepted}).With("X-Message-Id", id)
	for i := range m.Personalizations {
		sub.Messages = append(sub.Messages, m.message(&m.Personalizations[i], id))
	}
	return sub
}

func (p *personalization) envelope() []string {
	all := make([]string, 0, len(p.To)+len(p.Cc)+len(p.Bcc))
	for _, list := range [][]address{p.To, p.Cc, p.Bcc} {
		for _, a := range list {
			all = append(all, a.Email)
		}
	}
	return all
}

// message makes the message of one personalization. Its own values have priority over those of the whole request.
func (m *mail) message(p *personalization, id string) *emulator.Message {
	args := make(map[string]string, len(m.CustomArgs)+len(p.CustomArgs))
	maps.Copy(args, m.CustomArgs)
	maps.Copy(args, p.CustomArgs)
	n := &emulator.Message{Args: args, Tags: m.Categories, Mail: m.shown(p), Entry: emulator.Entry{
		MessageID: args[emulator.OurID], ProviderMessageID: id,
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

// shown is the mail that a recipient sees.
func (m *mail) shown(p *personalization) emulator.Mail {
	v := emulator.NewMail("", "", "")
	maps.Copy(v.Headers, m.Headers)
	maps.Copy(v.Headers, p.Headers)
	if m.ReplyTo != nil {
		v.Headers["Reply-To"] = m.ReplyTo.Email
	}
	for _, c := range m.Content {
		switch c.Type {
		case "text/plain":
			v.Text = c.Value
		case "text/html":
			v.HTML = c.Value
		}
	}
	for _, a := range m.Attachments {
		v.Attach(a.Filename, a.Type, a.Content)
	}
	return v
}

// newID looks like LRzX_m_ARxSv1T0xL2u1yQ: 22 characters of URL-safe base64.
func newID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}
