package emulator_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// snsSigner fetches the certificate that a notification names and checks that the authority made it.
func (b *server) snsSigner(t *testing.T, certURL string) *rsa.PublicKey {
	t.Helper()
	path, ok := strings.CutPrefix(certURL, b.URL())
	if !ok || !regexp.MustCompile(`^/ses/SimpleNotificationService-[0-9a-f]{32}\.pem$`).MatchString(path) {
		t.Fatalf("SigningCertURL = %q", certURL)
	}
	block, _ := pem.Decode([]byte(b.do(t, "GET", path, "", nil).body))
	if block == nil {
		t.Fatal("the certificate is no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(b.HookKeys()["sns_ca_pem"])) {
		t.Fatal("SNSCAPEM holds no certificate")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "sns.amazonaws.com"}); err != nil {
		t.Fatal(err)
	}
	return cert.PublicKey.(*rsa.PublicKey)
}

// snsVerifies checks a message as the page "Verifying the signatures of Amazon SNS messages" says.
func (b *server) snsVerifies(t *testing.T, m map[string]string) bool {
	t.Helper()
	fields := []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	if m["Type"] != "Notification" {
		fields = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	}
	var text strings.Builder
	for _, f := range fields {
		if v, ok := m[f]; ok {
			text.WriteString(f + "\n" + v + "\n")
		}
	}
	signature, err := base64.StdEncoding.DecodeString(m["Signature"])
	if err != nil {
		t.Fatal(err)
	}
	key := b.snsSigner(t, m["SigningCertURL"])
	switch m["SignatureVersion"] {
	case "1":
		sum := sha1.Sum([]byte(text.String()))
		return rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], signature) == nil
	case "2":
		sum := sha256.Sum256([]byte(text.String()))
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// sesRecords reads the inner messages, in order of what happened.
func (b *server) sesRecords(t *testing.T, calls []hookCall) []object {
	t.Helper()
	var all []object
	for _, c := range calls {
		var m map[string]string
		fromJSON(t, c.body, &m)
		if !b.snsVerifies(t, m) {
			t.Errorf("signature of %s does not verify", c.body)
		}
		if c.header.Get("X-Amz-Sns-Message-Type") != m["Type"] || c.header.Get("X-Amz-Sns-Topic-Arn") != m["TopicArn"] ||
			c.header.Get("X-Amz-Sns-Message-Id") != m["MessageId"] || c.header.Get("Content-Type") != "text/plain; charset=UTF-8" {
			t.Errorf("headers = %v", c.header)
		}
		var record object
		fromJSON(t, m["Message"], &record)
		all = append(all, record)
	}
	at := func(r object) string {
		for _, key := range []string{"delivery", "bounce", "complaint", "open", "click", "deliveryDelay"} {
			if o, ok := r[key].(object); ok {
				return o["timestamp"].(string)
			}
		}
		return ""
	}
	slices.SortStableFunc(all, func(x, y object) int { return strings.Compare(at(x), at(y)) })
	return all
}

func TestSESTellsEachOutcome(t *testing.T) {
	t.Parallel()
	tests := []struct {
		to   string
		want []string // eventType, and what tells it apart
	}{
		{"ann@example.org", []string{"Send", "Delivery"}},
		{"bounce@example.org", []string{"Send", "Bounce Permanent General 5.1.1"}},
		{"softbounce@example.org", []string{"Send", "Bounce Transient MailboxFull 5.2.2"}},
		{"complaint@example.org", []string{"Send", "Delivery", "Complaint abuse"}},
		{"defer@example.org", []string{"Send", "DeliveryDelay TransientCommunicationFailure", "Delivery"}},
		{"suppressed@example.org", []string{"Send", "Bounce Permanent OnAccountSuppressionList 5.1.1"}},
		{"open@example.org", []string{"Send", "Delivery", "Open"}},
		{"click@example.org", []string{"Send", "Delivery", "Click https://example.com/order"}},
	}
	for _, tc := range tests {
		t.Run(tc.to, func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "ses", nil)
			out, err := b.sesSDK().SendEmail(t.Context(), sesInput(to(tc.to)))
			if err != nil {
				t.Fatal(err)
			}
			b.settled(t, "ses", func(s emulator.HookStats) bool { return s.Events == int64(len(tc.want)) })
			var got []string
			for _, r := range b.sesRecords(t, in.got()) {
				got = append(got, sesLine(r))
				m := r["mail"].(object)
				tags := m["tags"].(object)
				if m["messageId"] != *out.MessageId || cmp.Diff([]any{"m1"}, tags["gw_msg"]) != "" || cmp.Diff([]any{tc.to}, m["destination"]) != "" {
					t.Errorf("mail = %v", m)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func sesLine(r object) string {
	line := r["eventType"].(string)
	add := func(o object, names ...string) {
		for _, n := range names {
			line += " " + o[n].(string)
		}
	}
	switch line {
	case "Bounce":
		o := r["bounce"].(object)
		add(o, "bounceType", "bounceSubType")
		add(o["bouncedRecipients"].([]any)[0].(object), "status")
	case "Complaint":
		add(r["complaint"].(object), "complaintFeedbackType")
	case "DeliveryDelay":
		add(r["deliveryDelay"].(object), "delayType")
	case "Click":
		add(r["click"].(object), "link")
	}
	return line
}

func TestSESTellsOfAllRecipientsAtOnce(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "ses", nil)
	if _, err := b.sesSDK().SendEmail(t.Context(), sesInput(to("bounce+1@example.org", "ann@example.org", "bounce+2@example.org"))); err != nil {
		t.Fatal(err)
	}
	b.settled(t, "ses", func(s emulator.HookStats) bool { return s.Events == 3 })
	for _, r := range b.sesRecords(t, in.got()) {
		if o, ok := r["bounce"].(object); ok {
			var list []string
			for _, x := range o["bouncedRecipients"].([]any) {
				list = append(list, x.(object)["emailAddress"].(string))
			}
			if diff := cmp.Diff([]string{"bounce+1@example.org", "bounce+2@example.org"}, list); diff != "" {
				t.Errorf("bounced (-want +got):\n%s", diff)
			}
			return
		}
	}
	t.Error("no bounce came")
}

func TestSNSSignatureVersion1(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "ses", nil)
	b.faults(t, `{"ses":[{"mode":"hook_signature_v1","count":1}]}`)
	if _, err := b.sesSDK().SendEmail(t.Context(), sesInput()); err != nil {
		t.Fatal(err)
	}
	versions := map[string]int{}
	for _, c := range in.wait(t, 2) {
		var m map[string]string
		fromJSON(t, c.body, &m)
		versions[m["SignatureVersion"]]++
		if !b.snsVerifies(t, m) {
			t.Error("signature does not verify")
		}
	}
	if diff := cmp.Diff(map[string]int{"1": 1, "2": 1}, versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
}
