package emulator

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
	"time"

	"github.com/go-json-experiment/json"
)

// sendGridHerald posts as the page "Event Webhook Reference" of the SendGrid documentation says, signed as "Event
// Webhook Security Features" says.
type sendGridHerald struct {
	messenger
	keys *keyring
	now  func() time.Time
}

// verdict takes every 2xx; anything else is posted again for up to 24 hours.
func (sendGridHerald) verdict(status int) verdict {
	if status/100 == 2 {
		return told
	}
	return again
}

func (sendGridHerald) retries(*post) []int { return []int{1, 2, 5, 10, 10, 10, 10, 10, 10, 10} }

// compose writes the array with a line end after each event, the last one included: a receiver that verifies anything
// but the raw bytes fails.
func (g sendGridHerald) compose(p *post) error {
	var b bytes.Buffer
	for i := range p.events {
		b.WriteString([]string{"[", ",\r\n"}[min(i, 1)])
		if err := json.MarshalWrite(&b, sendGridEvent(&p.events[i]), json.Deterministic(true)); err != nil {
			return fmt.Errorf("encode sendgrid event: %w", err)
		}
	}
	b.WriteString("]\r\n")
	p.body = b.Bytes()
	p.header = http.Header{"Content-Type": {"application/json;charset=utf-8"}, "User-Agent": {"SendGrid Event API"}}
	if !p.target.signed {
		return nil
	}
	return g.sign(p)
}

// sign is ECDSA over the SHA-256 of the timestamp and the body.
func (g sendGridHerald) sign(p *post) error {
	key := g.keys.sendGrid
	if p.forged {
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("make another key: %w", err)
		}
		key = other
	}
	stamp := strconv.FormatInt(g.now().Unix(), 10)
	sum := sha256.Sum256(append([]byte(stamp), p.body...))
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return fmt.Errorf("sign sendgrid events: %w", err)
	}
	p.header.Set("X-Twilio-Email-Event-Webhook-Signature", base64.StdEncoding.EncodeToString(signature))
	p.header.Set("X-Twilio-Email-Event-Webhook-Timestamp", stamp)
	return nil
}

// sendGridNames are the words for event, and their switches in a webhook's settings.
func sendGridNames(w what) (event, setting string) {
	switch w {
	case wasAccepted:
		return "processed", "processed"
	case wasDelivered:
		return "delivered", "delivered"
	case wasDeferred:
		return "deferred", "deferred"
	case wasBounced, wasSoftBounced:
		return "bounce", "bounce"
	case wasDropped:
		return "dropped", "dropped"
	case wasComplained:
		return "spamreport", "spam_report"
	case wasOpened:
		return "open", "open"
	case wasClicked:
		return "click", "click"
	case wasDeactivated:
	}
	return "", ""
}

// sendGridMessageID begins with what the send was answered, and tells the recipients apart.
func sendGridMessageID(l *letter, to string) string {
	h := happening{of: l, to: []string{to}}
	return l.ProviderMessageID + ".recvd-" + fmt.Sprintf("%x", h.hash("recvd")[:5]) + "-1-" +
		strings.ToUpper(strconv.FormatInt(l.At.Unix(), 16)) + "-3B.0"
}

// sendGridEvent is one element of the array. The sender's custom arguments stand beside the rest, which wins.
func sendGridEvent(h *happening) map[string]any {
	event, _ := sendGridNames(h.what)
	m := map[string]any{}
	for name, v := range h.of.args {
		m[name] = v
	}
	m["email"] = h.to[0]
	m["timestamp"] = h.at.Unix()
	m["event"] = event
	m["sg_event_id"] = base64.RawURLEncoding.EncodeToString(h.hash("sg_event_id"))
	m["sg_message_id"] = sendGridMessageID(h.of, h.to[0])
	if !slices.Contains([]what{wasComplained, wasOpened, wasClicked}, h.what) {
		m["smtp-id"] = "<" + h.of.ProviderMessageID + "@geopod-ismtpd-1>"
	}
	switch len(h.of.tags) {
	case 0:
	case 1:
		m["category"] = h.of.tags[0] // both forms are documented
	default:
		m["category"] = h.of.tags
	}
	sendGridDetails(h, m)
	return m
}

func sendGridDetails(h *happening, m map[string]any) {
	switch h.what {
	case wasDelivered:
		m["response"], m["ip"], m["tls"] = "250 2.0.0 OK "+queueOf(h)+" - gsmtp", sendingIP, 1
	case wasDeferred:
		m["response"], m["attempt"], m["ip"], m["tls"] = textDeferred, "0", sendingIP, 1
	case wasBounced:
		m["type"], m["status"], m["reason"] = "bounce", "5.1.1", textBounced(h.to[0])
		m["bounce_classification"], m["ip"], m["tls"] = "Invalid Address", sendingIP, 1
	case wasSoftBounced:
		m["type"], m["status"], m["reason"] = "blocked", "5.2.2", textFull(h.to[0])
		m["bounce_classification"], m["ip"], m["tls"] = "Mailbox Unavailable", sendingIP, 1
	case wasDropped:
		m["reason"], m["status"] = "Bounced Address", "5.0.0"
	case wasOpened:
		m["useragent"], m["ip"], m["sg_machine_open"], m["sg_content_type"] = readerAgent, readerIP, false, "html"
	case wasClicked:
		m["useragent"], m["ip"], m["url"] = readerAgent, readerIP, clickedURL
		m["url_offset"] = map[string]any{"index": 0, "type": "html"}
	case wasAccepted, wasComplained, wasDeactivated:
	}
}
