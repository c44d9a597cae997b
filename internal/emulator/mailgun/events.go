package mailgun

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// course lists accepted first.
func course(outcome string) []emulator.EventType {
	return append([]emulator.EventType{emulator.Accepted}, emulator.Course(outcome)...)
}

// Answered accepts only 200 and never retries after 406. The six repetitions, after 5, 10 and 15 minutes, 1, 2 and 4 hours, are
// documented "for webhooks other than for delivery notification": delivered is posted once.
func (*api) Answered(p *emulator.Post, status int) (bool, []int) {
	if status == http.StatusNotAcceptable || p.Events[0].Type == emulator.Delivered {
		return status == http.StatusOK, nil
	}
	return status == http.StatusOK, []int{1, 2, 5, 10, 15, 30}
}

// Compose signs timestamp and token. As at Mailgun, the signature does not cover the event.
func (a *api) Compose(p *emulator.Post) error {
	stamp, token := strconv.FormatInt(a.host.Now().Unix(), 10), emulator.RandomHex(25)
	key := p.Target.Hook["signing_key"]
	if p.Forged {
		key = emulator.RandomHex(16)
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(stamp + token))
	body, err := json.Marshal(map[string]any{
		"signature": map[string]string{
			"timestamp": stamp, "token": token, "signature": hex.EncodeToString(mac.Sum(nil)),
		},
		"event-data": record(&p.Events[0]),
	}, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode mailgun event: %w", err)
	}
	p.Body = body
	p.Header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"mailgun/treq-15.1.0"}}
	return nil
}

// webhookNames are the names under which webhooks are registered for events.
var webhookNames = map[emulator.EventType]string{
	emulator.Accepted:    "accepted",
	emulator.Delivered:   "delivered",
	emulator.Deferred:    "temporary_fail",
	emulator.Bounced:     "permanent_fail",
	emulator.SoftBounced: "permanent_fail",
	emulator.Dropped:     "permanent_fail",
	emulator.Complained:  "complained",
	emulator.Opened:      "opened",
	emulator.Clicked:     "clicked",
}

// nameOf returns the name of an event, and the severity of a failure.
func nameOf(t emulator.EventType) (event, severity string) {
	severity, failed := strings.CutSuffix(webhookNames[t], "_fail")
	if failed {
		return "failed", severity
	}
	return webhookNames[t], ""
}

// record is the event structure on the page "Events".
func record(h *emulator.Event) map[string]any {
	to, l := h.To[0], h.Message
	m := map[string]any{
		"id":        base64.RawURLEncoding.EncodeToString(h.Hash("id")[:16]),
		"timestamp": float64(h.At.UnixMicro()) / 1e6, "log-level": "info",
		"recipient": to, "recipient-domain": emulator.DomainOf(to),
		"tags": l.Tags, "campaigns": []string{}, "user-variables": l.Args,
	}
	event, severity := nameOf(h.Type)
	m["event"] = event
	if severity != "" {
		m["severity"] = severity
	}
	headers := map[string]string{"message-id": l.ProviderMessageID}
	message := map[string]any{"headers": headers}
	m["message"] = message
	if h.Type == emulator.Opened || h.Type == emulator.Clicked {
		reader(h, m)
		return m
	}
	headers["to"], headers["from"], headers["subject"] = to, l.From, l.Subject
	message["attachments"], message["size"] = []string{}, 600+len(l.Subject)
	m["flags"] = map[string]bool{
		"is-routed": false, "is-authenticated": true, "is-system-test": false, "is-test-mode": false,
	}
	if h.Type == emulator.Complained {
		m["log-level"] = "warn"
		m["flags"] = map[string]bool{"is-test-mode": false}
		return m
	}
	m["envelope"] = map[string]string{"sender": l.From, "transport": "smtp", "targets": to, "sending-ip": emulator.SendingIP}
	delivery(h, m)
	return m
}

// delivery adds the result of a delivery.
func delivery(h *emulator.Event, m map[string]any) {
	status := map[string]any{
		"attempt-no": 1, "description": "", "mx-host": emulator.MXOf(h.To[0]), "session-seconds": 0.42, "tls": true, "utf8": true,
		"certificate-verified": true,
	}
	fail := func(reason string, code int, enhanced, message string) {
		m["reason"], m["log-level"] = reason, "error"
		status["code"], status["message"] = code, message
		if enhanced != "" {
			status["enhanced-code"] = enhanced
		}
	}
	switch h.Type {
	case emulator.Delivered:
		status["code"], status["message"] = 250, "OK"
	case emulator.Deferred:
		fail("generic", 451, "4.3.0", "4.3.0 Temporary server error. Please try again later")
		m["log-level"], status["retry-seconds"] = "warn", 600
	case emulator.Bounced:
		fail("bounce", 550, "5.1.1", "5.1.1 <"+h.To[0]+">: Recipient address rejected: User unknown")
	case emulator.SoftBounced:
		fail("generic", 552, "5.2.2", "5.2.2 <"+h.To[0]+">: Recipient address rejected: Mailbox full")
	case emulator.Dropped:
		fail("suppress-bounce", 605, "", "")
		status = map[string]any{
			"attempt-no": 1, "message": "", "code": 605, "session-seconds": 0.0,
			"description": "Not delivering to previously bounced address",
		}
	case emulator.Accepted, emulator.Complained, emulator.Opened, emulator.Clicked, emulator.Deactivated: // these have no status
		m["method"], m["originating-ip"] = "HTTP", "127.0.0.1"
		return
	}
	m["delivery-status"] = status
}

// reader adds the data of the person who opened or clicked.
func reader(h *emulator.Event, m map[string]any) {
	m["ip"] = emulator.ReaderIP
	m["geolocation"] = map[string]string{"country": "US", "region": "TX", "city": "Austin"}
	m["client-info"] = map[string]string{
		"client-type": "browser", "client-os": "Linux", "device-type": "desktop", "client-name": "Firefox",
		"user-agent": emulator.ReaderAgent, "bot": "",
	}
	if h.Type == emulator.Clicked {
		m["url"] = emulator.ClickedURL
	}
}
