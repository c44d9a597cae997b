package resend

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sendgate/sendgate/internal/emulator"
)

// course lists email.sent first, except for an address on the suppression list.
func course(outcome string) []emulator.EventType {
	all := emulator.Course(outcome)
	if outcome == emulator.OutcomeSuppressed {
		return all
	}
	return append([]emulator.EventType{emulator.Accepted}, all...)
}

// words are the types of "Event Types".
var words = map[emulator.EventType]string{
	emulator.Accepted:    "email.sent",
	emulator.Delivered:   "email.delivered",
	emulator.Deferred:    "email.delivery_delayed",
	emulator.Bounced:     "email.bounced",
	emulator.SoftBounced: "email.bounced",
	emulator.Dropped:     "email.suppressed",
	emulator.Complained:  "email.complained",
	emulator.Opened:      "email.opened",
	emulator.Clicked:     "email.clicked",
}

// Answered accepts every success. The repetitions are those of Svix: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h.
func (*api) Answered(_ *emulator.Post, status int) (bool, []int) {
	return status >= 200 && status < 300, emulator.SlowRetries
}

// Compose signs as Standard Webhooks says: over the id, the time and the body.
func (a *api) Compose(p *emulator.Post) error {
	v := &p.Events[0]
	body, err := json.Marshal(payload(v), json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode resend event: %w", err)
	}
	secret := p.Target.Hook["secret"]
	if p.Forged {
		secret = newSecret()
	}
	id, at := "msg_"+hex.EncodeToString(v.Hash("svix")[:12]), strconv.FormatInt(a.host.Now().Unix(), 10)
	h := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Svix-Webhooks/1.0"}}
	h.Set("svix-id", id)
	h.Set("svix-timestamp", at)
	h.Set("svix-signature", sign(secret, id, at, body))
	p.Header, p.Body = h, body
	return nil
}

const secretPrefix = "whsec_"

func newSecret() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return secretPrefix + base64.StdEncoding.EncodeToString(b)
}

func secretKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return nil, errors.New("secret: begins with " + secretPrefix)
	}
	return base64.StdEncoding.DecodeString(text)
}

func sign(secret, id, at string, body []byte) string {
	k, _ := secretKey(secret) // checked when the hook was set
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// payload is the body of a webhook ("Event Types").
func payload(v *emulator.Event) map[string]any {
	m := v.Message
	data := map[string]any{
		"email_id": m.ProviderMessageID, "created_at": timeText(m.At), "from": m.From, "to": v.To, "subject": m.Subject, "tags": m.Args,
	}
	switch v.Type {
	case emulator.Bounced:
		data["bounce"] = map[string]any{
			"type": "Permanent", "subType": "General", "message": "The recipient's email provider sent a hard bounce message.",
			"diagnosticCode": []string{"smtp; " + emulator.TextBounced(v.To[0])},
		}
	case emulator.SoftBounced:
		data["bounce"] = map[string]any{
			"type": "Transient", "subType": "MailboxFull", "message": "The recipient's mailbox is full.",
			"diagnosticCode": []string{"smtp; " + emulator.TextFull(v.To[0])},
		}
	case emulator.Dropped:
		data["suppressed"] = map[string]any{
			"type": "OnAccountSuppressionList", "reason": "previous_bounce", "diagnosticCode": []string{},
			"message": "The address is on the account's suppression list.",
		}
	case emulator.Opened:
		data["open"] = map[string]any{"ipAddress": emulator.ReaderIP, "timestamp": timeText(v.At), "userAgent": emulator.ReaderAgent}
	case emulator.Clicked:
		data["click"] = map[string]any{
			"ipAddress": emulator.ReaderIP, "link": emulator.ClickedURL, "timestamp": timeText(v.At), "userAgent": emulator.ReaderAgent,
		}
	case emulator.Accepted, emulator.Delivered, emulator.Deferred, emulator.Complained, emulator.Deactivated:
	}
	return map[string]any{"type": words[v.Type], "created_at": timeText(v.At), "data": data}
}
