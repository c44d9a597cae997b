package app

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// told is one event as a provider tells of it: a message of ours was delivered, or something else happened to it.
type told struct {
	id, to string
	second bool                       // the later of the two events of a message
	alter  func(event map[string]any) // makes another event of it, if not nil
}

// altered is the event as it is signed.
func (e told) altered(event map[string]any) map[string]any {
	if e.alter != nil {
		e.alter(event)
	}
	return event
}

// request is one POST of a provider, signed.
type request struct {
	account string
	header  http.Header
	body    []byte
	events  int
}

// herald signs events as the providers' documentation says, with keys of its own: not with those of the emulators, which
// were written beside the receivers.
type herald struct {
	sendgrid *ecdsa.PrivateKey
	sns      *rsa.PrivateKey // of 2048 bits, as Amazon's
	mailgun  string          // signing key
	resend   []byte          // key of Standard Webhooks
	password string          // Postmark's
	cert     string          // where SNS keeps its certificate
}

const snsTopic = "arn:aws:sns:eu-west-1:123456789012:intake"

// hookKinds are the accounts whose events come over HTTP.
func hookKinds() []string { return []string{"mailgun", "postmark", "resend", "sendgrid", "ses"} }

// newHerald makes the keys and tells the accounts about them.
func newHerald(t *testing.T, b *bench, r *replica) *herald {
	t.Helper()
	h := &herald{mailgun: rand.Text(), resend: []byte(rand.Text()), password: rand.Text()}
	var errs [4]error
	h.sendgrid, errs[0] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.sns, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&h.sendgrid.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ca, leaf := h.snsCertificate(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(leaf) }))
	t.Cleanup(srv.Close)
	h.cert = srv.URL + "/SimpleNotificationService-" + strings.Repeat("0a", 16) + ".pem"

	configure(t, r, "sendgrid", map[string]any{"webhook_public_keys": []string{base64.StdEncoding.EncodeToString(spki)}}, nil)
	configure(t, r, "mailgun", nil, map[string]string{"webhook_signing_key": h.mailgun})
	configure(t, r, "postmark", nil, map[string]string{"webhook_password": h.password})
	configure(t, r, "resend", nil, map[string]string{"webhook_secret": "whsec_" + base64.StdEncoding.EncodeToString(h.resend)})
	configure(t, r, "ses", map[string]any{"sns_topic_arns": []string{snsTopic}, "sns_base_url": srv.URL, "sns_ca_pem": string(ca)}, nil)
	for _, kind := range hookKinds() {
		q := h.sign(t, kind, told{id: "0199c0de-0000-7000-8000-000000000001", to: "nobody@example.org"})
		eventually(t, settleTime, "the receiver of "+kind+" has its key", func() bool {
			return q.post(t, b, r) == http.StatusOK
		})
	}
	return h
}

// configure adds settings and secrets to an account.
func configure(t *testing.T, r *replica, account string, settings map[string]any, secrets map[string]string) {
	t.Helper()
	a, err := r.admin.Account(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	if err := json.Unmarshal(a.Settings, &all); err != nil {
		t.Fatal(err)
	}
	for name, v := range settings {
		all[name] = v
	}
	if _, err := r.admin.PatchAccount(t.Context(), account, api.AccountRequest{Settings: toJSON(t, all), Secrets: secrets}); err != nil {
		t.Fatal(err)
	}
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// snsCertificate makes an authority and the certificate that it gave to SNS.
func (h *herald) snsCertificate(t *testing.T) (ca, leaf []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	year := time.Now().AddDate(1, 0, 0)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Intake CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: year,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	signer := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "sns.amazonaws.com"}, DNSNames: []string{"sns.amazonaws.com"},
		NotBefore: root.NotBefore, NotAfter: year, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	return certificate(t, root, root, &key.PublicKey, key), certificate(t, signer, root, &h.sns.PublicKey, key)
}

func certificate(t *testing.T, c, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// sign makes the request that tells of events. Only SendGrid tells of several at once.
func (h *herald) sign(t *testing.T, kind string, events ...told) request {
	t.Helper()
	q := request{account: kind, header: http.Header{"Content-Type": {"application/json"}}, events: len(events)}
	switch kind {
	case "sendgrid":
		h.signSendGrid(t, &q, events)
	case "mailgun":
		h.signMailgun(t, &q, events[0])
	case "postmark":
		h.signPostmark(t, &q, events[0])
	case "resend":
		h.signResend(t, &q, events[0])
	case "ses":
		h.signSNS(t, &q, events[0])
	}
	return q
}

// signSendGrid signs timestamp and body ("Getting Started with the Event Webhook Security Features").
func (h *herald) signSendGrid(t *testing.T, q *request, events []told) {
	t.Helper()
	var all []map[string]any
	for _, e := range events {
		one := map[string]any{
			"email": e.to, "timestamp": time.Now().Unix(), "event": "processed", "sg_event_id": rand.Text(), "category": []string{"orders"},
			"sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "smtp-id": "<14c5d75ce93.dfd.64b469@ismtpd-555>", "gw_msg": e.id,
		}
		if e.second {
			one["event"], one["response"], one["ip"], one["tls"] = "delivered", "250 2.0.0 OK 1778412343 gsmtp", "192.0.2.1", 1
		}
		all = append(all, e.altered(one))
	}
	q.body = append(toJSON(t, all), "\r\n"...)
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	sum := sha256.Sum256(append([]byte(stamp), q.body...))
	signature, err := ecdsa.SignASN1(rand.Reader, h.sendgrid, sum[:])
	if err != nil {
		t.Error(err)
	}
	q.header.Set("X-Twilio-Email-Event-Webhook-Signature", base64.StdEncoding.EncodeToString(signature))
	q.header.Set("X-Twilio-Email-Event-Webhook-Timestamp", stamp)
}

// signMailgun signs timestamp and token ("Securing Webhooks").
func (h *herald) signMailgun(t *testing.T, q *request, e told) {
	t.Helper()
	stamp, token := strconv.FormatInt(time.Now().Unix(), 10), rand.Text()+rand.Text()
	mac := hmac.New(sha256.New, []byte(h.mailgun))
	mac.Write([]byte(stamp + token))
	event := map[string]any{
		"event": "accepted", "id": rand.Text(), "timestamp": float64(time.Now().UnixMilli()) / 1e3, "log-level": "info", "recipient": e.to,
		"recipient-domain": "example.org", "user-variables": map[string]string{"gw_msg": e.id}, "tags": []string{"orders"},
		"envelope": map[string]string{"sender": "shop@example.com", "transport": "smtp", "targets": e.to},
		"message":  map[string]any{"headers": map[string]string{"message-id": e.id + "@example.com", "to": e.to, "from": "shop@example.com"}, "size": 809},
	}
	if e.second {
		event["event"] = "delivered"
		event["delivery-status"] = map[string]any{"code": 250, "message": "OK", "mx-host": "mx.example.org", "attempt-no": 1, "tls": true}
	}
	q.body = toJSON(t, map[string]any{
		"signature":  map[string]string{"timestamp": stamp, "token": token, "signature": hex.EncodeToString(mac.Sum(nil))},
		"event-data": e.altered(event),
	})
}

// signPostmark shows the password ("Webhooks overview"). Postmark tells of no acceptance: its second event is an open.
func (h *herald) signPostmark(t *testing.T, q *request, e told) {
	t.Helper()
	event := map[string]any{
		"RecordType": "Delivery", "MessageID": e.id, "Recipient": e.to, "ServerID": 23, "MessageStream": "outbound", "Tag": "orders",
		"Metadata": map[string]string{"gw_msg": e.id}, "DeliveredAt": time.Now().UTC().Format(time.RFC3339Nano), "Details": "250 2.0.0 OK",
	}
	if e.second {
		event["RecordType"], event["ReceivedAt"] = "Open", time.Now().UTC().Format(time.RFC3339Nano)
		event["FirstOpen"], event["UserAgent"], event["Platform"] = true, "Mozilla/5.0 (X11; Linux x86_64)", "Desktop"
	}
	q.body = toJSON(t, e.altered(event))
	q.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("sendgate:"+h.password)))
}

// signResend signs id, time and body ("Verify Webhooks Requests").
func (h *herald) signResend(t *testing.T, q *request, e told) {
	t.Helper()
	now := time.Now()
	event := map[string]any{"type": "email.sent", "created_at": now.UTC().Format(time.RFC3339Nano), "data": map[string]any{
		"email_id": e.id, "created_at": now.UTC().Format(time.RFC3339Nano), "from": "shop@example.com", "to": []string{e.to},
		"subject": "Your order", "tags": map[string]string{"gw_msg": e.id},
	}}
	if e.second {
		event["type"] = "email.delivered"
	}
	q.body = toJSON(t, e.altered(event))
	id, stamp := "msg_"+rand.Text(), strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, h.resend)
	mac.Write([]byte(id + "." + stamp + "." + string(q.body)))
	q.header.Set("svix-id", id)
	q.header.Set("svix-timestamp", stamp)
	q.header.Set("svix-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// signSNS signs the fields of a notification, SignatureVersion 2 ("Verifying the signatures of Amazon SNS messages").
func (h *herald) signSNS(t *testing.T, q *request, e told) {
	t.Helper()
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	record := map[string]any{
		"eventType": "Send", "send": map[string]any{},
		"mail": map[string]any{
			"timestamp": now, "source": "shop@example.com", "messageId": e.id, "destination": []string{e.to}, "headersTruncated": false,
			"tags": map[string][]string{"gw_msg": {e.id}, "ses:configuration-set": {"sendgate"}},
		},
	}
	if e.second {
		record["eventType"] = "Delivery"
		record["delivery"] = map[string]any{"timestamp": now, "recipients": []string{e.to}, "processingTimeMillis": 420, "smtpResponse": "250 2.0.0 OK"}
	}
	n := map[string]string{
		"Type": "Notification", "MessageId": rand.Text(), "TopicArn": snsTopic, "Subject": "Amazon SES Email Event Notification",
		"Message": string(toJSON(t, e.altered(record))) + "\n", "Timestamp": now, "SignatureVersion": "2", "SigningCertURL": h.cert,
	}
	var text strings.Builder
	for _, field := range []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"} {
		text.WriteString(field + "\n" + n[field] + "\n")
	}
	sum := sha256.Sum256([]byte(text.String()))
	signature, err := rsa.SignPKCS1v15(nil, h.sns, crypto.SHA256, sum[:])
	if err != nil {
		t.Error(err)
	}
	n["Signature"] = base64.StdEncoding.EncodeToString(signature)
	q.body = toJSON(t, n)
	q.header.Set("Content-Type", "text/plain; charset=UTF-8")
	q.header.Set("X-Amz-Sns-Message-Type", n["Type"])
	q.header.Set("X-Amz-Sns-Topic-Arn", n["TopicArn"])
}
