package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// mailgunHerald posts as the pages "Webhooks" and "Securing Webhooks" of the Mailgun documentation say.
type mailgunHerald struct {
	messenger
	now func() time.Time
}

// verdict takes exactly 200 and never comes back after 406.
func (mailgunHerald) verdict(status int) verdict {
	switch status {
	case http.StatusOK:
		return told
	case http.StatusNotAcceptable:
		return final
	}
	return again
}

// retries are the six of 5, 10 and 15 minutes, 1, 2 and 4 hours. Mailgun documents them "for webhooks other than for
// delivery notification": delivered is posted once.
func (mailgunHerald) retries(p *post) []int {
	if p.events[0].what == wasDelivered {
		return nil
	}
	return []int{1, 2, 5, 10, 15, 30}
}

// compose signs timestamp and token. The event is not under the signature: that is how it is.
func (g mailgunHerald) compose(p *post) error {
	stamp, token := strconv.FormatInt(g.now().Unix(), 10), randomHex(25)
	key := p.target.SigningKey
	if p.forged {
		key = randomHex(16)
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(stamp + token))
	body, err := json.Marshal(map[string]any{
		"signature": map[string]string{
			"timestamp": stamp, "token": token, "signature": hex.EncodeToString(mac.Sum(nil)),
		},
		"event-data": mailgunEvent(&p.events[0]),
	}, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode mailgun event: %w", err)
	}
	p.body = body
	p.header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"mailgun/treq-15.1.0"}}
	return nil
}

// mailgunWebhook is the name under which a webhook is registered for an event.
func mailgunWebhook(w what) string {
	switch w {
	case wasAccepted:
		return "accepted"
	case wasDelivered:
		return "delivered"
	case wasDeferred:
		return "temporary_fail"
	case wasBounced, wasSoftBounced, wasDropped:
		return "permanent_fail"
	case wasComplained:
		return "complained"
	case wasOpened:
		return "opened"
	case wasClicked:
		return "clicked"
	case wasDeactivated:
	}
	return ""
}

// mailgunName is the word of an event, and what tells the two kinds of failures apart.
func mailgunName(w what) (event, severity string) {
	switch webhook := mailgunWebhook(w); webhook {
	case "temporary_fail":
		return "failed", "temporary"
	case "permanent_fail":
		return "failed", "permanent"
	default:
		return webhook, ""
	}
}

// mailgunEvent is the event structure of the page "Events".
func mailgunEvent(h *happening) map[string]any {
	to, l := h.to[0], h.of
	m := map[string]any{
		"id":        base64.RawURLEncoding.EncodeToString(h.hash("id")[:16]),
		"timestamp": float64(h.at.UnixMicro()) / 1e6, "log-level": "info",
		"recipient": to, "recipient-domain": domainOf(to),
		"tags": orEmpty(l.tags), "campaigns": []string{}, "user-variables": orNone(l.args),
	}
	event, severity := mailgunName(h.what)
	m["event"] = event
	if severity != "" {
		m["severity"] = severity
	}
	headers := map[string]string{"message-id": l.ProviderMessageID}
	message := map[string]any{"headers": headers}
	m["message"] = message
	if h.what == wasOpened || h.what == wasClicked {
		mailgunReader(h, m)
		return m
	}
	headers["to"], headers["from"], headers["subject"] = to, l.From, l.Subject
	message["attachments"], message["size"] = []string{}, 600+len(l.Subject)
	m["flags"] = map[string]bool{
		"is-routed": false, "is-authenticated": true, "is-system-test": false, "is-test-mode": false,
	}
	if h.what == wasComplained {
		m["log-level"] = "warn"
		m["flags"] = map[string]bool{"is-test-mode": false}
		return m
	}
	m["envelope"] = map[string]string{"sender": l.From, "transport": "smtp", "targets": to, "sending-ip": sendingIP}
	mailgunDelivery(h, m)
	return m
}

// mailgunDelivery has what a delivery came to.
func mailgunDelivery(h *happening, m map[string]any) {
	status := map[string]any{
		"attempt-no": 1, "description": "", "mx-host": mxOf(h.to[0]), "session-seconds": 0.42, "tls": true, "utf8": true,
		"certificate-verified": true,
	}
	fail := func(reason string, code int, enhanced, message string) {
		m["reason"], m["log-level"] = reason, "error"
		status["code"], status["message"] = code, message
		if enhanced != "" {
			status["enhanced-code"] = enhanced
		}
	}
	switch h.what {
	case wasDelivered:
		status["code"], status["message"] = 250, "OK"
	case wasDeferred:
		fail("generic", 451, "4.3.0", "4.3.0 Temporary server error. Please try again later")
		m["log-level"], status["retry-seconds"] = "warn", 600
	case wasBounced:
		fail("bounce", 550, "5.1.1", "5.1.1 <"+h.to[0]+">: Recipient address rejected: User unknown")
	case wasSoftBounced:
		fail("generic", 552, "5.2.2", "5.2.2 <"+h.to[0]+">: Recipient address rejected: Mailbox full")
	case wasDropped:
		fail("suppress-bounce", 605, "", "")
		status = map[string]any{
			"attempt-no": 1, "message": "", "code": 605, "session-seconds": 0.0,
			"description": "Not delivering to previously bounced address",
		}
	case wasAccepted, wasComplained, wasOpened, wasClicked, wasDeactivated: // these have no status
		m["method"], m["originating-ip"] = "HTTP", "127.0.0.1"
		return
	}
	m["delivery-status"] = status
}

// mailgunReader has who opened or clicked.
func mailgunReader(h *happening, m map[string]any) {
	m["ip"] = readerIP
	m["geolocation"] = map[string]string{"country": "US", "region": "TX", "city": "Austin"}
	m["client-info"] = map[string]string{
		"client-type": "browser", "client-os": "Linux", "device-type": "desktop", "client-name": "Firefox",
		"user-agent": readerAgent, "bot": "",
	}
	if h.what == wasClicked {
		m["url"] = clickedURL
	}
}

// orEmpty and orNone keep null out of JSON.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func orNone(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
