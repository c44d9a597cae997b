package app

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

type fields = map[string]any

// merge sets fields of an event, also those of objects in it. It removes those that are nil.
func merge(event, changes fields) {
	for name, v := range changes {
		inner, ok := event[name].(fields)
		deeper, both := v.(fields)
		switch {
		case v == nil:
			delete(event, name)
		case ok && both:
			merge(inner, deeper)
		default:
			event[name] = v
		}
	}
}

// reporter is how a kind reports events, from the provider's documentation. It does not use the emulators, because they were
// written together with the receivers.
type reporter struct {
	keys     func(h *herald) (settings fields, secrets map[string]string) // with which the account checks what h signs
	sign     func(h *herald, t *testing.T, q *request, events []told)
	verdicts map[string]fields          // what makes events about an address of another event, by meaning
	strip    func(theirs string) fields // what leaves only the provider's message id in an event
	forge    func(q *request)           // spoils what makes a request authentic, and leaves the rest as it was
	refused  int                        // the answer to a forged event that makes this provider stop or try again, as it should
}

// reporterOf finds the reporter of a kind; its verdicts are about the address.
func reporterOf(t *testing.T, kind, to string) reporter {
	t.Helper()
	now := time.Now().UTC().Format(time.RFC3339)
	secret := func(name string) func(*herald) (fields, map[string]string) {
		return func(h *herald) (fields, map[string]string) { return nil, map[string]string{name: h.secret} }
	}
	return entry(t, "reporterOf (intake_kinds_test.go)", map[string]reporter{
		"sendgrid": {
			keys: func(h *herald) (fields, map[string]string) {
				return fields{"webhook_public_keys": []string{h.sendgridPublic}}, nil
			},
			sign: (*herald).signSendGrid, refused: http.StatusForbidden,
			verdicts: map[string]fields{
				"bounce":    {"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 user unknown"},
				"complaint": {"event": "spamreport"}, "unsubscribe": {"event": "unsubscribe"}, "delivery": {"event": "delivered"},
			},
			strip: func(theirs string) fields {
				return fields{"gw_msg": nil, "sg_message_id": theirs + ".recvd-canary-5d8c-1-6A00-12.0"}
			},
			forge: func(q *request) {
				stamp, _ := strconv.Atoi(q.header.Get("X-Twilio-Email-Event-Webhook-Timestamp"))
				q.header.Set("X-Twilio-Email-Event-Webhook-Timestamp", strconv.Itoa(stamp+1))
			},
		},
		"mailgun": {
			keys: secret("webhook_signing_key"), sign: (*herald).signMailgun, refused: http.StatusNotAcceptable,
			verdicts: map[string]fields{
				"bounce": {
					"event": "failed", "severity": "permanent", "reason": "bounce",
					"delivery-status": fields{"code": 550, "message": "550 5.1.1 user unknown"},
				},
				"complaint": {"event": "complained"}, "unsubscribe": {"event": "unsubscribed"}, "delivery": {"event": "delivered"},
			},
			strip: func(theirs string) fields {
				return fields{"user-variables": fields{}, "message": fields{"headers": fields{"message-id": strings.Trim(theirs, "<>")}}}
			},
			forge: func(q *request) { q.body = []byte(strings.Replace(string(q.body), `"token":"`, `"token":"x`, 1)) },
		},
		"postmark": {
			keys: secret("webhook_password"), sign: (*herald).signPostmark, refused: http.StatusUnauthorized,
			verdicts: map[string]fields{
				"bounce":      {"RecordType": "Bounce", "Type": "HardBounce", "Email": to, "BouncedAt": now, "Details": "550 5.1.1 user unknown"},
				"complaint":   {"RecordType": "SpamComplaint", "Type": "SpamComplaint", "Email": to, "BouncedAt": now},
				"unsubscribe": {"RecordType": "SubscriptionChange", "SuppressionReason": "ManualSuppression", "SuppressSending": true, "ChangedAt": now},
				"delivery":    {},
			},
			strip: func(theirs string) fields { return fields{"Metadata": nil, "MessageID": theirs} },
			forge: func(q *request) {
				q.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("sendgate:guessed")))
			},
		},
		"resend": {
			keys: secret("webhook_secret"), sign: (*herald).signResend, refused: http.StatusUnauthorized,
			verdicts: map[string]fields{
				"bounce": {"type": "email.bounced", "data": fields{"bounce": fields{
					"type": "Permanent", "subType": "NoEmail", "message": "no such mailbox", "diagnosticCode": []string{"smtp; 550 5.1.1 user unknown"},
				}}},
				"complaint": {"type": "email.complained"}, "suppressed": {"type": "email.suppressed"}, "delivery": {"type": "email.delivered"},
			},
			strip: func(theirs string) fields { return fields{"data": fields{"tags": nil, "email_id": theirs}} },
			forge: func(q *request) { q.header.Set("svix-id", "msg_forged") },
		},
		"ses": {
			keys: func(h *herald) (fields, map[string]string) {
				return fields{"sns_topic_arns": []string{snsTopic}, "sns_base_url": h.snsURL, "sns_ca_pem": h.snsCA}, nil
			},
			sign: (*herald).signSNS, refused: http.StatusForbidden,
			verdicts: map[string]fields{
				"bounce": {"eventType": "Bounce", "bounce": fields{
					"bounceType": "Permanent", "bounceSubType": "NoEmail", "timestamp": now, "feedbackId": "f-" + to,
					"bouncedRecipients": []fields{{"emailAddress": to, "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 user unknown"}},
				}},
				"complaint": {"eventType": "Complaint", "complaint": fields{
					"timestamp": now, "feedbackId": "c-" + to, "complainedRecipients": []fields{{"emailAddress": to}},
				}},
				"delivery": {"eventType": "Delivery", "delivery": fields{"timestamp": now, "recipients": []string{to}}},
			},
			strip: func(theirs string) fields { return fields{"mail": fields{"tags": nil, "messageId": theirs}} },
			forge: func(q *request) { q.body = []byte(strings.Replace(string(q.body), "shop@", "shot@", 1)) },
		},
		"smtp": {refused: 550}, // it reports by LMTP
	}, kind)
}
