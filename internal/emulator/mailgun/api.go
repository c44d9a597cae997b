// Package mailgun emulates the Mailgun API, written from its reference: "Messages", "Webhooks", "Securing Webhooks", "Events",
// "List logs" and "Get webhook signing key saved on the account".
//
// It decides what Mailgun would answer and report, and leaves ledger, limits and faults to package emulator. The most likely
// mistake of a newcomer is to make every error JSON: the error for a bad key is plain text.
package mailgun

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
)

// Kind describes Mailgun. It accepts requests of up to 52.4 MiB.
func Kind() emulator.Kind {
	return emulator.Kind{
		Name: "mailgun", MaxBody: 54_945_382, Lookups: true, HookFields: []string{"signing_key"}, Course: course, New: open,
		Credentials: map[string]string{"api_key": "key-emulator-local-development-only", "domain": "mg.example.com"},
	}
}

// Mailgun's caps: recipients of a call, bytes of all o:, h:, v: and t: parameters, bytes of the message.
const (
	maxRecipients  = 1000
	maxParamBytes  = 16 << 10
	maxMessageSize = 25 << 20
)

// api is Mailgun in one emulator.
type api struct {
	host       *emulator.Host
	signingKey string
	webhooks   emulator.Registry[webhook]
}

func open(h *emulator.Host) (emulator.Provider, error) {
	a := &api{host: h, signingKey: emulator.RandomHex(16)}
	h.Handle("POST /v3/{domain}/messages", h.Send(a.read))
	h.Handle("POST /v3/{domain}/messages.mime", h.Send(a.read))
	h.Handle("POST /v1/analytics/logs", h.Lookup(a.searchLogs))
	h.Handle("GET /v3/{domain}/events", h.Lookup(a.searchEvents))
	a.registrations()
	h.Handle("/", h.Open(a.unknown))
	return a, nil
}

func (a *api) domain() string { return a.host.Credential("domain") }

func (a *api) Account(at string) emulator.Account {
	return emulator.Account{
		Settings: map[string]any{"base_url": at, "domain": a.domain()},
		Secrets:  map[string]string{"api_key": a.host.Credential("api_key"), "webhook_signing_key": a.signingKey},
	}
}

func refuse(status int, message string) *emulator.Reply {
	return emulator.JSON(status, map[string]string{"message": message})
}

// Authenticate answers a bad key in plain text: this is Mailgun's only error that is not JSON.
func (a *api) Authenticate(r *http.Request, _ []byte) *emulator.Reply {
	user, key, ok := r.BasicAuth()
	if !ok || user != "api" || !emulator.Same(key, a.host.Credential("api_key")) {
		return emulator.Text(http.StatusUnauthorized, "Forbidden").With("WWW-Authenticate", `Basic realm="MG API"`)
	}
	domain := r.PathValue("domain")
	if domain != "" && !strings.EqualFold(domain, a.domain()) { // a call about the account has no domain
		return refuse(http.StatusNotFound, "Domain not found: "+domain)
	}
	return nil
}

// Throttled gives the end in the text; Mailgun has no header for it.
func (a *api) Throttled(f *emulator.Full) *emulator.Reply {
	what := "request"
	if f.Unit == limit.Recipients {
		what = "recipient"
	}
	until := f.Until.Add(time.Second - time.Nanosecond).UTC().Format(time.RFC1123)
	return refuse(http.StatusTooManyRequests, fmt.Sprintf(
		"Domain %s is not allowed to send: %s limit exceeded, try again after %s", a.domain(), what, until))
}

func (*api) Failure(status int) *emulator.Reply {
	if status == http.StatusUnauthorized {
		return emulator.Text(status, "Forbidden")
	}
	return refuse(status, http.StatusText(status))
}

func (*api) Decorate(*emulator.Reply) {}

// unknown greets at the root, as Mailgun does: a wrong base URL looks like a success there.
func (*api) unknown(r *http.Request, _ []byte) *emulator.Reply {
	switch {
	case r.URL.Path == "/mailgun/":
		return emulator.Text(http.StatusOK, "Mailgun Magnificent API")
	case strings.HasSuffix(r.URL.Path, "/messages"), strings.HasSuffix(r.URL.Path, "/messages.mime"):
		return refuse(http.StatusMethodNotAllowed, "Method Not Allowed")
	}
	return emulator.Text(http.StatusNotFound, "404 page not found")
}

// mail holds a call's parameters after parsing.
type mail struct {
	from, subject, messageID string
	calendar                 string // see Entry
	to                       []string
	vars                     map[string]string
	tags                     []string
	perRecipient             map[string]map[string]any // recipient-variables, by lower-case address
	test                     bool
	shown                    emulator.Mail
}

// read parses a send request and checks it.
func (a *api) read(r *http.Request, body []byte) *emulator.Submission {
	form, err := parseForm(r.Header.Get("Content-Type"), body)
	if err != nil {
		return emulator.Refuse(refuse(http.StatusBadRequest, "request body can't be parsed"))
	}
	m, refused := form.mail(strings.HasSuffix(r.URL.Path, ".mime"))
	sub := &emulator.Submission{
		Cost: emulator.Cost{Requests: 1, Messages: 1, Recipients: len(m.to)},
		To:   m.to, Refused: refused,
	}
	if m.perRecipient != nil {
		sub.Cost.Messages = len(m.to)
	}
	if refused != nil {
		return sub
	}
	id := m.messageID
	if id == "" {
		// Like 20260101072501.d5a9eaf68dd1c0c4@mg.example.com, without angle brackets.
		id = a.host.Now().UTC().Format("20060102150405") + "." + emulator.RandomHex(8) + "@" + a.domain()
	}
	sub.Accepted = emulator.JSON(http.StatusOK, map[string]string{"id": "<" + id + ">", "message": "Queued. Thank you."})
	if m.test {
		sub.End = emulator.EndTested
		return sub
	}
	sub.Messages = m.messages(id)
	return sub
}

// messages returns one message, or one per recipient if each gets its own copy.
func (m *mail) messages(id string) []*emulator.Message {
	base := emulator.Message{Args: m.vars, Tags: m.tags, Mail: m.shown, Entry: emulator.Entry{
		MessageID: m.vars[emulator.OurID], ProviderMessageID: id, From: m.from, To: m.to, Subject: m.subject,
		Calendar: m.calendar,
	}}
	if m.perRecipient == nil {
		return []*emulator.Message{&base}
	}
	all := make([]*emulator.Message, 0, len(m.to))
	for _, to := range m.to {
		own, vars := base, m.perRecipient[strings.ToLower(to)]
		own.To = []string{to}
		own.Subject = fillVariables(base.Subject, vars)
		own.Args = make(map[string]string, len(m.vars))
		for name, v := range m.vars {
			own.Args[name] = fillVariables(v, vars)
		}
		own.Mail.Text, own.Mail.HTML = fillVariables(base.Mail.Text, vars), fillVariables(base.Mail.HTML, vars)
		own.MessageID = own.Args[emulator.OurID]
		all = append(all, &own)
	}
	return all
}

// fillVariables puts one recipient's values in place of the %recipient.name% marks.
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
