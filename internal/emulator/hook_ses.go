package emulator

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
)

// sesHerald publishes as the page "Contents of event data that Amazon SES publishes to Amazon SNS" of the Developer Guide
// says, through SNS.
type sesHerald struct {
	messenger
	e *Emulator
}

// verdict: SNS takes 2xx, repeats after 5xx, and holds everything else for a refusal that no repetition mends.
func (sesHerald) verdict(status int) verdict {
	switch {
	case status/100 == 2:
		return told
	case status >= 500:
		return again
	}
	return final
}

// retries are those of a topic with a delivery policy of ten; without a policy SNS has three.
func (sesHerald) retries(*post) []int { return []int{1, 2, 5, 10, 10, 10, 10, 10, 10, 10} }

func (g sesHerald) compose(p *post) error {
	h := &p.events[0]
	message, err := json.Marshal(sesEvent(h, g.e.opt.Credentials.AWSRegion), json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode ses event: %w", err)
	}
	id, err := uuid.FromBytes(h.hash("MessageId" + p.target.URL)[:16])
	if err != nil {
		return fmt.Errorf("make sns message id: %w", err)
	}
	n := snsMessage{
		Type: snsNotification, MessageID: id.String(), TopicARN: p.target.TopicARN, Subject: "Amazon SES Email Event Notification",
		Message: string(message) + "\n", Timestamp: snsTime(g.e.now()), version: "2", forged: p.forged,
	}
	if p.v1 {
		n.version = "1"
	}
	p.body, p.header, err = g.e.envelope(&n)
	return err
}

// sesNames are the word in the record, and the one in MatchingEventTypes.
func sesNames(w what) (event, matching string) {
	switch w {
	case wasAccepted:
		return "Send", "SEND"
	case wasDelivered:
		return "Delivery", "DELIVERY"
	case wasDeferred:
		return "DeliveryDelay", "DELIVERY_DELAY"
	case wasBounced, wasSoftBounced, wasDropped:
		return "Bounce", "BOUNCE"
	case wasComplained:
		return "Complaint", "COMPLAINT"
	case wasOpened:
		return "Open", "OPEN"
	case wasClicked:
		return "Click", "CLICK"
	case wasDeactivated:
	}
	return "", ""
}

func sesTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func sesEvent(h *happening, region string) map[string]any {
	event, _ := sesNames(h.what)
	key := strings.ToLower(event[:1]) + event[1:]
	return map[string]any{"eventType": event, "mail": sesMailRecord(h.of, region), key: sesDetails(h)}
}

// sesMailRecord is the object "mail".
func sesMailRecord(l *letter, region string) map[string]any {
	tags := map[string][]string{
		"ses:source-tls-version": {"TLSv1.3"}, "ses:source-ip": {"127.0.0.1"}, "ses:from-domain": {domainOf(l.From)},
		"ses:caller-identity": {"emulator"}, "ses:operation": {"SendEmail"},
	}
	if l.stream != "" {
		tags["ses:configuration-set"] = []string{l.stream}
	}
	for name, v := range l.args {
		tags[name] = []string{v}
	}
	headers := []map[string]string{
		{"name": "From", "value": l.From},
		{"name": "To", "value": strings.Join(l.To, ", ")},
		{"name": "Subject", "value": l.Subject},
	}
	return map[string]any{
		"timestamp": sesTime(l.At), "source": l.From, "messageId": l.ProviderMessageID, "destination": l.To,
		"sourceArn":        "arn:aws:ses:" + region + ":123456789012:identity/" + domainOf(l.From),
		"sendingAccountId": "123456789012", "headersTruncated": false, "headers": headers, "tags": tags,
		"commonHeaders": map[string]any{
			"from": []string{l.From}, "to": l.To, "messageId": l.ProviderMessageID, "subject": l.Subject,
		},
	}
}

func sesDetails(h *happening) map[string]any {
	at := sesTime(h.at)
	switch h.what {
	case wasDelivered:
		return map[string]any{
			"timestamp": at, "processingTimeMillis": h.at.Sub(h.of.At).Milliseconds(), "recipients": h.to,
			"smtpResponse": "250 2.0.0 OK " + queueOf(h), "reportingMTA": sesMTA, "remoteMtaIp": remoteIP,
		}
	case wasDeferred:
		return map[string]any{
			"timestamp": at, "delayType": "TransientCommunicationFailure", "expirationTime": sesTime(h.at.Add(14 * time.Hour)),
			"reportingMTA":      sesMTA,
			"delayedRecipients": sesRecipients(h.to, func(string) (string, string) { return "4.3.0", "smtp; " + textDeferred }, ""),
		}
	case wasComplained:
		return map[string]any{
			"timestamp": at, "feedbackId": sesFeedbackID(h), "complaintSubType": nil, "complaintFeedbackType": "abuse",
			"complainedRecipients": sesRecipients(h.to, nil, ""), "userAgent": "Emulated-FBL/1.0", "arrivalDate": at,
		}
	case wasOpened:
		return map[string]any{"timestamp": at, "ipAddress": readerIP, "userAgent": readerAgent}
	case wasClicked:
		return map[string]any{
			"timestamp": at, "ipAddress": readerIP, "userAgent": readerAgent, "link": clickedURL, "linkTags": nil,
		}
	case wasBounced, wasSoftBounced, wasDropped:
		return sesBounce(h)
	case wasAccepted, wasDeactivated:
	}
	return map[string]any{}
}

const sesMTA = "dns; a1-10.smtp-out.amazonses.com"

func sesBounce(h *happening) map[string]any {
	b := map[string]any{
		"timestamp": sesTime(h.at), "feedbackId": sesFeedbackID(h), "reportingMTA": sesMTA, "remoteMtaIp": remoteIP,
		"bounceType": "Permanent", "bounceSubType": "General",
	}
	said := func(to string) (status, code string) { return "5.1.1", "smtp; " + textBounced(to) }
	switch h.what {
	case wasSoftBounced:
		b["bounceType"], b["bounceSubType"] = "Transient", "MailboxFull"
		said = func(to string) (status, code string) { return "5.2.2", "smtp; " + textFull(to) }
	case wasDropped:
		b["bounceSubType"], b["reportingMTA"] = "OnAccountSuppressionList", "dns; amazonses.com"
		delete(b, "remoteMtaIp")
		said = func(string) (status, code string) {
			return "5.1.1", "Amazon SES did not send the message to this address because it is on the suppression list for your " +
				"account. For more information about removing addresses from the suppression list, see the Amazon SES Developer Guide"
		}
	case wasBounced, wasAccepted, wasDelivered, wasDeferred, wasComplained, wasDeactivated, wasOpened, wasClicked:
	}
	b["bouncedRecipients"] = sesRecipients(h.to, said, "failed")
	return b
}

// sesRecipients lists recipients with what was said of each.
func sesRecipients(to []string, said func(string) (status, code string), action string) []map[string]string {
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

// sesFeedbackID looks like a message id.
func sesFeedbackID(h *happening) string {
	b := hex.EncodeToString(h.hash("feedbackId")[:16])
	return fmt.Sprintf("0100%012x-%s-%s-%s-%s-%s-000000", h.at.UnixMilli(), b[:8], b[8:12], b[12:16], b[16:20], b[20:32])
}

// certificate serves the certificate that notifications name.
func (g ses) certificate(r *http.Request) *reply {
	if r.PathValue("name") != g.e.keys.certName {
		return g.unknown(r)
	}
	id, err := g.e.keys.sns()
	if err != nil {
		return textReply(http.StatusInternalServerError, "no certificate")
	}
	return &reply{http.StatusOK, map[string]string{"Content-Type": "application/x-pem-file"}, id.certPEM}
}
