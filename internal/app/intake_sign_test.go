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
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// told is one event as a provider reports it: a message of ours was delivered, or something else happened to it.
type told struct {
	id, to string
	second bool     // the later of the two events of a message
	alter  []fields // makes another event of it
}

// altered is the event as it is signed.
func (e told) altered(event fields) fields {
	for _, more := range e.alter {
		merge(event, more)
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

// herald signs the events of every kind with its own keys.
type herald struct {
	secret         string // of the kinds that share one with the receiver
	sendgrid       *ecdsa.PrivateKey
	sendgridPublic string
	sns            *rsa.PrivateKey // of 2048 bits, as Amazon's
	snsURL, snsCA  string          // where SNS keeps its certificate, and who signed it
}

const snsTopic = "arn:aws:sns:eu-west-1:123456789012:intake"

// newHerald makes the keys and tells the accounts about them.
func newHerald(t *testing.T, b *bench, r *replica) *herald {
	t.Helper()
	h := &herald{secret: "whsec_" + base64.StdEncoding.EncodeToString([]byte(rand.Text()))} // which is a form that every kind takes
	var errs [2]error
	h.sendgrid, errs[0] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.sns, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&h.sendgrid.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	h.sendgridPublic = base64.StdEncoding.EncodeToString(spki)
	ca, leaf := h.snsCertificate(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(leaf) }))
	t.Cleanup(srv.Close)
	h.snsURL, h.snsCA = srv.URL, string(ca)
	for _, kind := range hookKinds() {
		settings, secrets := reporterOf(t, kind, "").keys(h)
		b.amend(t, r, kind, func(s map[string]any) { maps.Copy(s, settings) }, secrets)
	}
	for _, kind := range hookKinds() {
		q := h.sign(t, kind, told{id: "0199c0de-0000-7000-8000-000000000001", to: "nobody@example.org"})
		eventually(t, settleTime, "the receiver of "+kind+" has its key", func() bool {
			return q.post(t, b, r) == http.StatusOK
		})
	}
	return h
}

// amend changes the settings and secrets of an account, and returns when the service uses them.
func (b *bench) amend(t *testing.T, r *replica, account string, change func(settings map[string]any), secrets map[string]string) {
	t.Helper()
	a, err := r.admin.Account(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]any{}
	if err := json.Unmarshal(a.Settings, &settings); err != nil {
		t.Fatal(err)
	}
	change(settings)
	if _, err := r.admin.PatchAccount(t.Context(), account, api.AccountRequest{Settings: toJSON(t, settings), Secrets: secrets}); err != nil {
		t.Fatal(err)
	}
	b.binds(t, r)
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

// sign makes the request that reports events. Only SendGrid reports several at once.
func (h *herald) sign(t *testing.T, kind string, events ...told) request {
	t.Helper()
	q := request{account: kind, header: http.Header{"Content-Type": {"application/json"}}, events: len(events)}
	reporterOf(t, kind, "").sign(h, t, &q, events)
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
func (h *herald) signMailgun(t *testing.T, q *request, events []told) {
	t.Helper()
	e := events[0]
	stamp, token := strconv.FormatInt(time.Now().Unix(), 10), rand.Text()+rand.Text()
	mac := hmac.New(sha256.New, []byte(h.secret))
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

// signPostmark sends the password ("Webhooks overview"). Postmark does not report acceptance, so its second event is an open.
func (h *herald) signPostmark(t *testing.T, q *request, events []told) {
	t.Helper()
	e := events[0]
	event := map[string]any{
		"RecordType": "Delivery", "MessageID": e.id, "Recipient": e.to, "ServerID": 23, "MessageStream": "outbound", "Tag": "orders",
		"Metadata": map[string]string{"gw_msg": e.id}, "DeliveredAt": time.Now().UTC().Format(time.RFC3339Nano), "Details": "250 2.0.0 OK",
	}
	if e.second {
		event["RecordType"], event["ReceivedAt"] = "Open", time.Now().UTC().Format(time.RFC3339Nano)
		event["FirstOpen"], event["UserAgent"], event["Platform"] = true, "Mozilla/5.0 (X11; Linux x86_64)", "Desktop"
	}
	q.body = toJSON(t, e.altered(event))
	q.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("sendgate:"+h.secret)))
}

// signResend signs id, time and body ("Verify Webhooks Requests").
func (h *herald) signResend(t *testing.T, q *request, events []told) {
	t.Helper()
	e := events[0]
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
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(h.secret, "whsec_"))
	if err != nil {
		t.Error(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "." + string(q.body)))
	q.header.Set("svix-id", id)
	q.header.Set("svix-timestamp", stamp)
	q.header.Set("svix-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// signSNS signs the fields of a notification, SignatureVersion 2 ("Verifying the signatures of Amazon SNS messages").
func (h *herald) signSNS(t *testing.T, q *request, events []told) {
	t.Helper()
	e := events[0]
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
		"Message": string(toJSON(t, e.altered(record))) + "\n", "Timestamp": now, "SignatureVersion": "2", "SigningCertURL": h.snsURL + "/SimpleNotificationService-" + strings.Repeat("0a", 16) + ".pem",
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
