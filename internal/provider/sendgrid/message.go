package sendgrid

import (
	"cmp"
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"

	sgmail "github.com/sendgrid/sendgrid-go/helpers/mail"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
	"github.com/sendgate/sendgate/internal/seal"
)

// build makes the request of one attempt ("Mail Send", request body).
func build(cfg Config, s *provider.Send) *sgmail.SGMailV3 {
	m := s.Message
	out := sgmail.NewV3Mail()
	out.SetFrom(email(m.From))
	out.Subject = literal(m.Subject)
	out.AddPersonalizations(personalizations(s)...)
	if len(m.ReplyTo) == 1 { // reply_to and reply_to_list exclude each other
		out.SetReplyTo(email(m.ReplyTo[0]))
	} else if len(m.ReplyTo) > 1 {
		out.SetReplyToList(emails(m.ReplyTo))
	}
	if m.Text != "" { // text/plain must come first, and no value may be empty
		out.AddContent(sgmail.NewContent("text/plain", m.Text))
	}
	if m.HTML != "" {
		out.AddContent(sgmail.NewContent("text/html", m.HTML))
	}
	if m.Calendar != nil { // SendGrid adds the charset, and refuses one here
		out.AddContent(sgmail.NewContent("text/calendar; method="+m.Calendar.Method, m.Calendar.Content))
	}
	for _, a := range m.Attachments {
		out.AddAttachment(attachment(a))
	}
	if a := m.InviteFile(); a != nil {
		out.AddAttachment(attachment(*a))
	}
	out.Headers = headers(m)
	out.CustomArgs = customArgs(m)
	out.Categories = categories(m.Tags)
	out.IPPoolID = cfg.IPPool
	if cfg.Sandbox {
		out.SetMailSettings(sgmail.NewMailSettings().SetSandboxMode(sgmail.NewSetting(true)))
	}
	out.TrackingSettings = tracking(cfg.Tracking)
	return out
}

// personalizations puts all recipients into one, so that they see each other as in any mail. SendGrid requires a To in each. If
// all of To is settled, Cc takes its place. If only Bcc are left, each gets a personalization of its own, so that nobody sees
// another.
func personalizations(s *provider.Send) []*sgmail.Personalization {
	to, cc := s.To, s.Cc
	if len(to) == 0 {
		to, cc = cc, nil
	}
	if len(to) > 0 {
		p := sgmail.NewPersonalization()
		p.AddTos(emails(to)...)
		p.AddCCs(emails(cc)...)
		p.AddBCCs(emails(s.Bcc)...)
		return []*sgmail.Personalization{p}
	}
	ps := make([]*sgmail.Personalization, 0, len(s.Bcc))
	for _, a := range s.Bcc {
		p := sgmail.NewPersonalization()
		p.AddTos(email(a))
		ps = append(ps, p)
	}
	return ps
}

func email(a mail.Address) *sgmail.Email { return sgmail.NewEmail(literal(a.Name), a.Email) }

// literal encodes a text that looks like an encoded word, so that it is not decoded. SendGrid encodes other names and subjects if
// they need it, and does not change ASCII.
func literal(s string) string {
	if mime.LooksEncoded(s) {
		return mime.Words(s)
	}
	return s
}

func emails(as []mail.Address) []*sgmail.Email {
	es := make([]*sgmail.Email, 0, len(as))
	for _, a := range as {
		es = append(es, email(a))
	}
	return es
}

func attachment(a mail.Attachment) *sgmail.Attachment {
	out := sgmail.NewAttachment().
		SetContent(base64.StdEncoding.EncodeToString(a.Content)).
		SetType(bareType(a.ContentType)).
		SetFilename(cmp.Or(a.Filename, a.ContentID, "attachment")). // required
		SetDisposition("attachment")
	if a.ContentID != "" {
		out.SetDisposition("inline").SetContentID(a.ContentID)
	}
	return out
}

// bareType removes the parameters; SendGrid would refuse the whole message because of them.
func bareType(contentType string) string {
	bare, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(bare)
}

// headers are the caller's, and our Message-ID unless the caller set one. SendGrid refuses a message with a header that it writes
// itself, so those are left out. It puts the others into the mail unchanged.
func headers(m *mail.Message) map[string]string {
	out := map[string]string{"Message-ID": "<" + m.MessageID() + ">"}
	for _, h := range m.Headers {
		switch strings.ToLower(h.Name) {
		case "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
			"to", "from", "subject", "reply-to", "cc", "bcc":
			continue
		case "message-id":
			out["Message-ID"] = h.Value
		default:
			out[h.Name] = mime.Value(h.Name, h.Value)
		}
	}
	return out
}

// repeatedHeader says that a header occurs twice, which SendGrid's map of headers can't carry. Otherwise it returns "".
func repeatedHeader(hs []mail.Header) string {
	seen := map[string]bool{}
	for _, h := range hs {
		name := strings.ToLower(h.Name)
		if seen[name] {
			return "header " + h.Name + " stands more than once"
		}
		seen[name] = true
	}
	return ""
}

// customArgs carry our id and the caller's metadata; every event repeats them as keys next to its own. So keys that events have
// themselves are not passed on: "event": "bounce" in the metadata must not make a bounce.
func customArgs(m *mail.Message) map[string]string {
	out := map[string]string{}
	for k, v := range m.Metadata {
		if !slices.Contains(eventFields(), strings.ToLower(k)) {
			out[k] = v
		}
	}
	out[provider.MessageKey] = m.ID.String()
	return out
}

// eventFields lists the keys of SendGrid's events ("Event Webhook Reference").
func eventFields() []string {
	return []string{
		"asm_group_id", "attempt", "bounce_classification", "category", "cert_err", "email", "event", "ip",
		"marketing_campaign_id", "marketing_campaign_name", "pool", "reason", "response", "send_at", "sg_content_type",
		"sg_event_id", "sg_machine_open", "sg_message_id", "sg_template_id", "sg_template_name", "smtp-id", "status",
		"timestamp", "tls", "type", "unique_args", "url", "url_offset", "useragent",
	}
}

// categories are the tags that fit, without duplicates. We keep the others.
func categories(tags []string) []string {
	var out []string
	for _, t := range tags {
		if t != "" && utf8.RuneCountInString(t) <= Spec().Capabilities.MaxTagLen && !slices.Contains(out, t) && len(out) < Spec().Capabilities.MaxTags {
			out = append(out, t)
		}
	}
	return out
}

func tracking(t Tracking) *sgmail.TrackingSettings {
	if t.Opens == nil && t.Clicks == nil {
		return nil
	}
	out := sgmail.NewTrackingSettings()
	if t.Opens != nil {
		out.SetOpenTracking(sgmail.NewOpenTrackingSetting().SetEnable(*t.Opens))
	}
	if t.Clicks != nil {
		out.SetClickTracking(sgmail.NewClickTrackingSetting().SetEnable(*t.Clicks).SetEnableText(*t.Clicks))
	}
	return out
}

func secretsOf(cfg Config) []seal.Secret { return []seal.Secret{cfg.APIKey} }
