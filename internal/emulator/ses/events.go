package ses

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// Answered works like SNS: it accepts 2xx, retries after 5xx, and treats everything else as a final refusal. The repetitions are
// those of a topic with a delivery policy of ten; without a policy there are three.
func (*api) Answered(_ *emulator.Post, status int) (bool, []int) {
	if status != 0 && status < 500 {
		return status/100 == 2, nil
	}
	return false, emulator.SlowRetries
}

// signatureV1 is the fault mode of notifications with SignatureVersion 1.
const signatureV1 = "hook_signature_v1"

// Compose writes a record in a notification of SNS. The form is that of the page "Contents of event data that Amazon SES
// publishes to Amazon SNS" of the Developer Guide.
func (a *api) Compose(p *emulator.Post) error {
	h := &p.Events[0]
	message, err := json.Marshal(record(h, a.region()), json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode ses event: %w", err)
	}
	id, err := uuid.FromBytes(h.Hash("MessageId" + p.Target.Hook["url"])[:16])
	if err != nil {
		return fmt.Errorf("make sns message id: %w", err)
	}
	n := snsMessage{
		Type: snsNotification, MessageID: id.String(), TopicARN: p.Target.Hook["topic_arn"], Subject: "Amazon SES Email Event Notification",
		Message: string(message) + "\n", Timestamp: timeText(a.host.Now()), version: "2", forged: p.Forged,
	}
	if p.Mode == signatureV1 {
		n.version = "1"
	}
	p.Body, p.Header, err = a.sign(&n)
	return err
}

// names are the event names in the record. In MatchingEventTypes they are in capitals, with an underscore between two words.
var names = map[emulator.EventType]string{
	emulator.Accepted:    "Send",
	emulator.Delivered:   "Delivery",
	emulator.Deferred:    "DeliveryDelay",
	emulator.Bounced:     "Bounce",
	emulator.SoftBounced: "Bounce",
	emulator.Dropped:     "Bounce",
	emulator.Complained:  "Complaint",
	emulator.Opened:      "Open",
	emulator.Clicked:     "Click",
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func record(h *emulator.Event, region string) map[string]any {
	event := names[h.Type]
	key := strings.ToLower(event[:1]) + event[1:]
	return map[string]any{"eventType": event, "mail": mailRecord(h.Message, region), key: details(h)}
}

// mailRecord is the object "mail".
func mailRecord(l *emulator.Message, region string) map[string]any {
	tags := map[string][]string{
		"ses:source-tls-version": {"TLSv1.3"}, "ses:source-ip": {"127.0.0.1"}, "ses:from-domain": {emulator.DomainOf(l.From)},
		"ses:caller-identity": {"emulator"}, "ses:operation": {"SendEmail"},
	}
	if l.Channel != "" {
		tags["ses:configuration-set"] = []string{l.Channel}
	}
	for name, v := range l.Args {
		tags[name] = []string{v}
	}
	headers := []map[string]string{
		{"name": "From", "value": l.From},
		{"name": "To", "value": strings.Join(l.To, ", ")},
		{"name": "Subject", "value": l.Subject},
	}
	return map[string]any{
		"timestamp": timeText(l.At), "source": l.From, "messageId": l.ProviderMessageID, "destination": l.To,
		"sourceArn":        "arn:aws:ses:" + region + ":123456789012:identity/" + emulator.DomainOf(l.From),
		"sendingAccountId": "123456789012", "headersTruncated": false, "headers": headers, "tags": tags,
		"commonHeaders": map[string]any{
			"from": []string{l.From}, "to": l.To, "messageId": l.ProviderMessageID, "subject": l.Subject,
		},
	}
}

// details is the part of a record that depends on its type.
func details(h *emulator.Event) map[string]any {
	at := timeText(h.At)
	switch h.Type {
	case emulator.Delivered:
		return map[string]any{
			"timestamp": at, "processingTimeMillis": h.At.Sub(h.Message.At).Milliseconds(), "recipients": h.To,
			"smtpResponse": "250 2.0.0 OK " + emulator.QueueID(h), "reportingMTA": mTA, "remoteMtaIp": emulator.RemoteIP,
		}
	case emulator.Deferred:
		return map[string]any{
			"timestamp": at, "delayType": "TransientCommunicationFailure", "expirationTime": timeText(h.At.Add(14 * time.Hour)),
			"reportingMTA":      mTA,
			"delayedRecipients": recipients(h.To, func(string) (string, string) { return "4.3.0", "smtp; " + emulator.TextDeferred }, ""),
		}
	case emulator.Complained:
		return map[string]any{
			"timestamp": at, "feedbackId": feedbackID(h), "complaintSubType": nil, "complaintFeedbackType": "abuse",
			"complainedRecipients": recipients(h.To, nil, ""), "userAgent": "Emulated-FBL/1.0", "arrivalDate": at,
		}
	case emulator.Opened:
		return map[string]any{"timestamp": at, "ipAddress": emulator.ReaderIP, "userAgent": emulator.ReaderAgent}
	case emulator.Clicked:
		return map[string]any{
			"timestamp": at, "ipAddress": emulator.ReaderIP, "userAgent": emulator.ReaderAgent, "link": emulator.ClickedURL, "linkTags": nil,
		}
	case emulator.Bounced, emulator.SoftBounced, emulator.Dropped:
		return bounce(h)
	case emulator.Accepted, emulator.Deactivated:
	}
	return map[string]any{}
}

const mTA = "dns; a1-10.smtp-out.amazonses.com"

func bounce(h *emulator.Event) map[string]any {
	b := map[string]any{
		"timestamp": timeText(h.At), "feedbackId": feedbackID(h), "reportingMTA": mTA, "remoteMtaIp": emulator.RemoteIP,
		"bounceType": "Permanent", "bounceSubType": "General",
	}
	said := func(to string) (status, code string) { return "5.1.1", "smtp; " + emulator.TextBounced(to) }
	switch h.Type {
	case emulator.SoftBounced:
		b["bounceType"], b["bounceSubType"] = "Transient", "MailboxFull"
		said = func(to string) (status, code string) { return "5.2.2", "smtp; " + emulator.TextFull(to) }
	case emulator.Dropped:
		b["bounceSubType"], b["reportingMTA"] = "OnAccountSuppressionList", "dns; amazonses.com"
		delete(b, "remoteMtaIp")
		said = func(string) (status, code string) {
			return "5.1.1", "Amazon SES did not send the message to this address because it is on the suppression list for your " +
				"account. For more information about removing addresses from the suppression list, see the Amazon SES Developer Guide"
		}
	case emulator.Bounced, emulator.Accepted, emulator.Delivered, emulator.Deferred, emulator.Complained, emulator.Deactivated, emulator.Opened, emulator.Clicked:
	}
	b["bouncedRecipients"] = recipients(h.To, said, "failed")
	return b
}

// recipients lists recipients with the reply about each.
func recipients(to []string, said func(string) (status, code string), action string) []map[string]string {
	list := make([]map[string]string, len(to))
	for i, address := range to {
		list[i] = map[string]string{"emailAddress": address}
		if said != nil {
			list[i]["status"], list[i]["diagnosticCode"] = said(address)
		}
		if action != "" {
			list[i]["action"] = action
		}
	}
	return list
}

// feedbackID looks like a message id.
func feedbackID(h *emulator.Event) string {
	b := hex.EncodeToString(h.Hash("feedbackId")[:16])
	return fmt.Sprintf("0100%012x-%s-%s-%s-%s-%s-000000", h.At.UnixMilli(), b[:8], b[8:12], b[12:16], b[16:20], b[20:32])
}
