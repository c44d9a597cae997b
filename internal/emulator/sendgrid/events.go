package sendgrid

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// course lists processed first, except for a dropped message, which was never processed.
func course(outcome string) []emulator.EventType {
	all := emulator.Course(outcome)
	if outcome == emulator.OutcomeSuppressed {
		return all
	}
	return append([]emulator.EventType{emulator.Accepted}, all...)
}

// Answered accepts every 2xx. Anything else is posted again for up to 24 hours.
func (*api) Answered(_ *emulator.Post, status int) (bool, []int) {
	return status/100 == 2, emulator.SlowRetries
}

// Compose writes the array with a line end after each event, including the last one. A receiver fails if it verifies anything but
// the raw bytes.
func (a *api) Compose(p *emulator.Post) error {
	var b bytes.Buffer
	for i := range p.Events {
		b.WriteString([]string{"[", ",\r\n"}[min(i, 1)])
		if err := json.MarshalWrite(&b, record(&p.Events[i]), json.Deterministic(true)); err != nil {
			return fmt.Errorf("encode sendgrid event: %w", err)
		}
	}
	b.WriteString("]\r\n")
	p.Body = b.Bytes()
	p.Header = http.Header{"Content-Type": {"application/json;charset=utf-8"}, "User-Agent": {"SendGrid Event API"}}
	if w, ok := p.Target.Registration.(*webhook); ok && !w.signed {
		return nil
	}
	return a.sign(p)
}

// sign signs with ECDSA over the SHA-256 of the timestamp and the body.
func (a *api) sign(p *emulator.Post) error {
	key := a.keys.private
	if p.Forged {
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("make another key: %w", err)
		}
		key = other
	}
	stamp := strconv.FormatInt(a.host.Now().Unix(), 10)
	sum := sha256.Sum256(append([]byte(stamp), p.Body...))
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return fmt.Errorf("sign sendgrid events: %w", err)
	}
	p.Header.Set("X-Twilio-Email-Event-Webhook-Signature", base64.StdEncoding.EncodeToString(signature))
	p.Header.Set("X-Twilio-Email-Event-Webhook-Timestamp", stamp)
	return nil
}

// names are the values of "event", and their switches in a webhook's settings.
var names = map[emulator.EventType]struct{ event, setting string }{
	emulator.Accepted:    {"processed", "processed"},
	emulator.Delivered:   {"delivered", "delivered"},
	emulator.Deferred:    {"deferred", "deferred"},
	emulator.Bounced:     {"bounce", "bounce"},
	emulator.SoftBounced: {"bounce", "bounce"},
	emulator.Dropped:     {"dropped", "dropped"},
	emulator.Complained:  {"spamreport", "spam_report"},
	emulator.Opened:      {"open", "open"},
	emulator.Clicked:     {"click", "click"},
}

// messageID begins with the id in the answer to the send, and differs for each recipient.
func messageID(l *emulator.Message, to string) string {
	h := emulator.Event{Message: l, To: []string{to}}
	return l.ProviderMessageID + ".recvd-" + fmt.Sprintf("%x", h.Hash("recvd")[:5]) + "-1-" +
		strings.ToUpper(strconv.FormatInt(l.At.Unix(), 16)) + "-3B.0"
}

// record is one element of the array. The sender's custom arguments are next to the other members, which have priority.
func record(h *emulator.Event) map[string]any {
	m := map[string]any{}
	for name, v := range h.Message.Args {
		m[name] = v
	}
	m["email"] = h.To[0]
	m["timestamp"] = h.At.Unix()
	m["event"] = names[h.Type].event
	m["sg_event_id"] = base64.RawURLEncoding.EncodeToString(h.Hash("sg_event_id"))
	m["sg_message_id"] = messageID(h.Message, h.To[0])
	if !slices.Contains([]emulator.EventType{emulator.Complained, emulator.Opened, emulator.Clicked}, h.Type) {
		m["smtp-id"] = "<" + h.Message.ProviderMessageID + "@geopod-ismtpd-1>"
	}
	switch len(h.Message.Tags) {
	case 0:
	case 1:
		m["category"] = h.Message.Tags[0] // both forms are documented
	default:
		m["category"] = h.Message.Tags
	}
	details(h, m)
	return m
}

// details adds the fields that only some types of events have.
func details(h *emulator.Event, m map[string]any) {
	switch h.Type {
	case emulator.Delivered:
		m["response"], m["ip"], m["tls"] = "250 2.0.0 OK "+emulator.QueueID(h)+" - gsmtp", emulator.SendingIP, 1
	case emulator.Deferred:
		m["response"], m["attempt"], m["ip"], m["tls"] = emulator.TextDeferred, "0", emulator.SendingIP, 1
	case emulator.Bounced:
		m["type"], m["status"], m["reason"] = "bounce", "5.1.1", emulator.TextBounced(h.To[0])
		m["bounce_classification"], m["ip"], m["tls"] = "Invalid Address", emulator.SendingIP, 1
	case emulator.SoftBounced:
		m["type"], m["status"], m["reason"] = "blocked", "5.2.2", emulator.TextFull(h.To[0])
		m["bounce_classification"], m["ip"], m["tls"] = "Mailbox Unavailable", emulator.SendingIP, 1
	case emulator.Dropped:
		m["reason"], m["status"] = "Bounced Address", "5.0.0"
	case emulator.Opened:
		m["useragent"], m["ip"], m["sg_machine_open"], m["sg_content_type"] = emulator.ReaderAgent, emulator.ReaderIP, false, "html"
	case emulator.Clicked:
		m["useragent"], m["ip"], m["url"] = emulator.ReaderAgent, emulator.ReaderIP, emulator.ClickedURL
		m["url_offset"] = map[string]any{"index": 0, "type": "html"}
	case emulator.Accepted, emulator.Complained, emulator.Deactivated:
	}
}
