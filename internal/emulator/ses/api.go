// Package ses emulates the Amazon SES API v2 and the part of SNS that carries its events, written from the API references
// and developer guides of both, and from "AWS Signature Version 4 for API requests" of the IAM User Guide.
//
// It decides what SES and SNS would answer and report, and leaves ledger, limits and faults to package emulator. The most likely
// mistake of a newcomer is to compare only the access key: the signature of a request is computed and compared.
package ses

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
)

// Kind describes SES. A request may have the 40 MB of a message, in base64 inside JSON, plus a margin for the rest.
func Kind() emulator.Kind {
	return emulator.Kind{
		Name: "ses", MaxBody: maxMessage/3*4 + 1<<20, HookFields: []string{"topic_arn"}, HookModes: []string{signatureV1},
		Grouped: true, AcceptedOnce: true, New: open,
		Credentials: map[string]string{
			"access_key_id": "AKIAEMULATOREXAMPLE0", "secret_access_key": "emulator/local+development+only/EXAMPLEKEY", "region": "us-east-1",
		},
	}
}

// api is SES and SNS in one emulator.
type api struct {
	host          *emulator.Host
	keys          keys
	sets          emulator.Registry[set]
	destinations  emulator.Registry[destination]
	subscriptions emulator.Registry[subscription]
}

func open(h *emulator.Host) (emulator.Provider, error) {
	a := &api{host: h}
	a.keys.make(a.region(), h.Now)
	h.Handle("POST /v2/email/outbound-emails", h.Send(a.read))
	h.Handle("GET /v2/email/account", h.Call(a.account))
	a.registrations()
	h.Handle("/", h.Open(a.unknown))
	return a, nil
}

func (a *api) region() string { return a.host.Credential("region") }

func (a *api) Account(at string) emulator.Account {
	return emulator.Account{
		Settings: map[string]any{
			"base_url": at, "region": a.region(), "configuration_set": "sendgate",
			"sns_topic_arns": []string{a.keys.topic}, "sns_base_url": at, "sns_ca_pem": a.caPEM(),
		},
		Secrets: map[string]string{
			"access_key_id": a.host.Credential("access_key_id"), "secret_access_key": a.host.Credential("secret_access_key"),
		},
	}
}

// refuse puts the code into a header, as every REST-JSON service of AWS does.
func refuse(status int, code, message string) *emulator.Reply {
	return emulator.JSON(status, map[string]string{"message": message}).With("x-amzn-ErrorType", code)
}

func badRequest(format string, args ...any) *emulator.Reply {
	return refuse(http.StatusBadRequest, "BadRequestException", fmt.Sprintf(format, args...))
}

func (a *api) Authenticate(r *http.Request, body []byte) *emulator.Reply {
	if code, message := a.verify(r, body, "ses"); code != "" {
		return refuse(http.StatusForbidden, code, message)
	}
	return nil
}

// Throttled mentions the daily quota if the full window is an hour or longer, and else the rate.
func (*api) Throttled(f *emulator.Full) *emulator.Reply {
	message := "Maximum sending rate exceeded."
	if f.Per >= time.Hour {
		message = "Daily message quota exceeded."
	}
	return refuse(http.StatusTooManyRequests, "TooManyRequestsException", message)
}

func (*api) Failure(status int) *emulator.Reply {
	codes := map[int]string{
		http.StatusBadRequest: "BadRequestException", http.StatusForbidden: "AccessDeniedException",
		http.StatusNotFound: "NotFoundException", http.StatusConflict: "ConflictException",
		http.StatusTooManyRequests: "TooManyRequestsException", http.StatusInternalServerError: "InternalFailure",
		http.StatusServiceUnavailable: "ServiceUnavailable",
	}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		return refuse(status, "RequestEntityTooLargeException", "Request size exceeds the limit.")
	case codes[status] == "":
		return emulator.Text(status, http.StatusText(status))
	}
	return refuse(status, codes[status], http.StatusText(status))
}

func (*api) Decorate(p *emulator.Reply) { p.With("x-amzn-RequestId", uuid.NewString()) }

// unknown answers a call that does not exist.
func (a *api) unknown(r *http.Request, _ []byte) *emulator.Reply {
	p := refuse(http.StatusNotFound, "UnknownOperationException", "unknown operation "+r.Method)
	a.Decorate(p)
	return p
}

type mail struct {
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

// read parses a send request and checks it.
func (a *api) read(_ *http.Request, body []byte) *emulator.Submission {
	var m mail
	if json.Unmarshal(body, &m) != nil {
		return emulator.Refuse(refuse(http.StatusBadRequest, "SerializationException", "Unable to parse the request body."))
	}
	from, subject, head, refused := m.content()
	sub := &emulator.Submission{Cost: emulator.Cost{Requests: 1, Messages: 1}, Refused: refused}
	var bad *emulator.Reply
	if sub.To, bad = m.recipients(head); sub.Refused == nil {
		sub.Refused = bad
	}
	sub.Cost.Recipients = len(sub.To)
	if sub.Refused == nil {
		sub.Refused = m.check(from, sub.To)
	}
	if sub.Refused != nil {
		return sub
	}
	// Like 0100019a1b2c3d4e-3b5bf3b6-58b7-4d2c-a9e3-5f0d8a1b2c3d-000000: region, milliseconds, UUID.
	id := fmt.Sprintf("0100%012x-%s-000000", a.host.Now().UnixMilli(), uuid.NewString())
	sub.Accepted = emulator.JSON(http.StatusOK, map[string]string{"MessageId": id})
	bareFrom, _ := emulator.ParseAddress(from)
	n := &emulator.Message{Channel: m.ConfigurationSetName, Args: map[string]string{}, Mail: m.shown(head), Entry: emulator.Entry{
		ProviderMessageID: id, From: bareFrom, To: sub.To, Subject: subject, Calendar: head.Calendar,
	}}
	for _, t := range m.EmailTags {
		n.Args[t.Name] = t.Value
	}
	n.MessageID = n.Args[emulator.OurID]
	sub.Messages = []*emulator.Message{n}
	return sub
}

// content finds sender, subject and, for Raw, the parsed message.
func (m *mail) content() (from, subject string, head emulator.MIME, refused *emulator.Reply) {
	c, from := &m.Content, m.FromEmailAddress
	switch {
	case c.Raw != nil:
		if len(c.Raw.Data) > maxMessage {
			return from, "", emulator.MIME{}, refuse(http.StatusBadRequest, "MessageRejected", "Message length is more than the maximum allowed.")
		}
		h, err := emulator.ReadMIME(c.Raw.Data)
		if err != nil {
			return from, "", emulator.MIME{}, badRequest("Could not parse the raw message.")
		}
		if from == "" {
			from = h.From
		}
		return from, h.Subject, h, nil
	case c.Simple != nil:
		if c.Simple.Body.Text == nil && c.Simple.Body.Html == nil {
			return from, "", emulator.MIME{}, badRequest("Body must have at least one of Text or Html.")
		}
		return from, c.Simple.Subject.Data, emulator.MIME{}, nil
	case c.Template != nil:
		if t := c.Template.TemplateContent; t != nil {
			return from, t.Subject, emulator.MIME{}, nil
		}
		return from, "", emulator.MIME{}, refuse(http.StatusNotFound, "NotFoundException", "Template "+c.Template.TemplateName+" does not exist.")
	}
	return from, "", emulator.MIME{}, badRequest("Content must have one of Simple, Raw or Template.")
}

// recipients lists the envelope: the Destination, which has priority over the header of Raw.
func (m *mail) recipients(head emulator.MIME) ([]string, *emulator.Reply) {
	d := m.Destination
	if d == nil || len(d.ToAddresses)+len(d.CcAddresses)+len(d.BccAddresses) == 0 {
		if head.BadTo {
			return nil, badRequest("Illegal address")
		}
		return head.To, nil
	}
	var all []string
	var refused *emulator.Reply
	for _, raw := range slices.Concat(d.ToAddresses, d.CcAddresses, d.BccAddresses) {
		addr, ok := emulator.ParseAddress(raw)
		switch {
		case !strings.Contains(raw, "@"):
			refused = badRequest("Missing final '@domain'")
		case !ok:
			refused = badRequest("Illegal address")
		case !emulator.ASCIILocal(addr):
			refused = badRequest("Local address contains control or whitespace")
		case !emulator.ASCII(addr):
			refused = badRequest("Domain contains illegal character")
		}
		if ok {
			all = append(all, addr)
		}
	}
	return all, refused
}

// shown is the mail that a recipient sees.
func (m *mail) shown(head emulator.MIME) emulator.Mail {
	c := m.Content.Simple
	if c == nil {
		if m.Content.Template != nil && m.Content.Template.TemplateContent != nil {
			head.Mail.Text, head.Mail.HTML = m.Content.Template.TemplateContent.Text, m.Content.Template.TemplateContent.Html
		}
		return head.Mail
	}
	v := emulator.NewMail("", "", strings.Join(m.ReplyToAddresses, ", "))
	if c.Body.Text != nil {
		v.Text = c.Body.Text.Data
	}
	if c.Body.Html != nil {
		v.HTML = c.Body.Html.Data
	}
	for _, h := range c.Headers {
		v.Headers[h.Name] = h.Value
	}
	for _, a := range c.Attachments {
		one := emulator.Attachment{Name: *a.FileName, Size: len(a.RawContent)}
		if a.ContentType != nil {
			one.Type = *a.ContentType
		}
		v.Attachments = append(v.Attachments, one)
	}
	return v
}

// account answers GetAccount from the configured windows. MaxSendRate is the recipients (else requests) of a window of up to a
// minute, per second. Max24HourSend is the recipients of a window of a day, or -1 without one.
func (a *api) account(*http.Request, []byte) *emulator.Reply {
	rate, daily, unit := 1000.0, -1.0, limit.Unit("")
	for _, w := range a.host.Limits() {
		if w.Per <= time.Minute && (unit != limit.Recipients || w.Unit == unit) {
			rate, unit = float64(w.N)/w.Per.Seconds(), w.Unit
		}
		if w.Per == 24*time.Hour && w.Unit == limit.Recipients {
			daily = float64(w.N)
		}
	}
	sent := 0
	for _, n := range a.host.Sent(a.host.Now().Add(-24 * time.Hour)) {
		sent += len(n.To)
	}
	return emulator.JSON(http.StatusOK, map[string]any{
		"DedicatedIpAutoWarmupEnabled": false, "EnforcementStatus": "HEALTHY",
		"ProductionAccessEnabled": true, "SendingEnabled": true,
		"SendQuota": map[string]float64{"MaxSendRate": rate, "Max24HourSend": daily, "SentLast24Hours": float64(sent)},
	})
}
