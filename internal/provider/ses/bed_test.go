package ses

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

const (
	testTopic = "arn:aws:sns:eu-west-1:123456789012:ses-events"
	certFile  = "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
)

func noon() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) }

// rsaKey is shared, since making one is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

var otherKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// authority issues certificates and replaces the public roots.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes a root, or an issuer below another one.
func newAuthority(t testing.TB, above *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA " + rand.Text()},
		NotBefore: noon().AddDate(-1, 0, 0), NotAfter: noon().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{cert: template, key: key}
	if above == nil {
		above = a
	}
	a.cert = create(t, template, above, &key.PublicKey)
	return a
}

func create(t testing.TB, template *x509.Certificate, by *authority, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, public, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// signerTemplate is a certificate like that of SNS, valid for a day around noon.
func signerTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "sns.amazonaws.com"}, DNSNames: []string{"sns.amazonaws.com"},
		NotBefore: noon().Add(-12 * time.Hour), NotAfter: noon().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func toPEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// bed is a fake SNS on loopback, and a client that uses it.
type bed struct {
	*Client
	ca        *authority
	srv       *httptest.Server
	base      string       // sns_base_url
	fetches   atomic.Int64 // of certificates
	confirmed atomic.Pointer[url.Values]
	file      atomic.Pointer[[]byte] // the certificate's file
	status    atomic.Int64           // of every answer, 0 for the right one
}

func newBed(t testing.TB, change func(*Config)) *bed {
	t.Helper()
	b := &bed{ca: newAuthority(t, nil)}
	b.serve(toPEM(create(t, signerTemplate(), b.ca, &rsaKey().PublicKey)))
	b.srv = httptest.NewServer(b)
	t.Cleanup(b.srv.Close)
	b.base = b.srv.URL + "/ses"
	config := testConfig(b.srv.URL)
	config.SNSTopicARNs = []string{testTopic}
	config.SNSBaseURL, config.SNSCAPEM = b.base, string(toPEM(b.ca.cert))
	if change != nil {
		change(&config)
	}
	client, err := New(config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = client.Close() })
	b.Client = client
	return b
}

func (b *bed) serve(file []byte) { b.file.Store(&file) }

func (b *bed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	isCert := strings.HasSuffix(r.URL.Path, ".pem")
	if isCert {
		b.fetches.Add(1)
	}
	switch status := int(b.status.Load()); {
	case status != 0:
		w.WriteHeader(status)
	case isCert:
		_, _ = w.Write(*b.file.Load())
	case r.URL.Path == "/ses/":
		query := r.URL.Query()
		b.confirmed.Store(&query)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// fields are those of a message of SNS.
type fields map[string]string

func (b *bed) note(message string) fields {
	return fields{
		"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": testTopic,
		"Message": message, "Timestamp": noon().Format("2006-01-02T15:04:05.000Z"), "SignatureVersion": "2",
		"SigningCertURL": b.base + certFile, "UnsubscribeURL": b.base + "/?Action=Unsubscribe",
	}
}

func (f fields) with(pairs ...string) fields {
	out := maps.Clone(f)
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

func (b *bed) handshake(kind string) fields {
	return b.note("You have chosen to subscribe to the topic").with(
		"Type", kind, "Token", "2336412f37fb687f5d51e6e2425dacbbaeec", "SubscribeURL", b.base+"/?Action=ConfirmSubscription&Token=evil")
}

// toSign is written from the developer guide, independently of the code under test.
func (f fields) toSign() string {
	names := []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	if f["Type"] == "Notification" {
		names = []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	}
	var s strings.Builder
	for _, name := range names {
		if value, ok := f[name]; ok {
			s.WriteString(name + "\n" + value + "\n")
		}
	}
	return s.String()
}

// signedBy returns the body of a request, with the signature of its version.
func (f fields) signedBy(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	algorithm, sum256 := crypto.SHA256, sha256.Sum256([]byte(f.toSign()))
	digest := sum256[:]
	if f["SignatureVersion"] == "1" {
		sum1 := sha1.Sum([]byte(f.toSign()))
		algorithm, digest = crypto.SHA1, sum1[:]
	}
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, algorithm, digest)
	if err != nil {
		t.Fatal(err)
	}
	return f.with("Signature", base64.StdEncoding.EncodeToString(signature)).body(t)
}

func (f fields) body(t testing.TB) []byte {
	t.Helper()
	body, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func hook(body []byte) *provider.Hook {
	return &provider.Hook{Header: http.Header{"X-Amz-Sns-Message-Type": {"Notification"}}, Body: body, Now: noon()}
}

// wantRefused checks the status and the reason of a refusal, and that it quotes nothing of the request.
func wantRefused(t testing.TB, err error, status int, reason string) {
	t.Helper()
	var refusal *provider.HookError
	if !errors.As(err, &refusal) {
		t.Fatalf("error = %v, want a *HookError", err)
	}
	if refusal.Status != status || refusal.Reason != reason {
		t.Errorf("refused with %d %s (%v), want %d %s", refusal.Status, refusal.Reason, err, status, reason)
	}
	for _, quote := range []string{"123456789012", "SimpleNotificationService", "2336412f", "22b80b92"} {
		if strings.Contains(err.Error(), quote) {
			t.Errorf("error quotes the request: %v", err)
		}
	}
}
