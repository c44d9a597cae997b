package ses

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// keys holds the topic and the certificate of SNS.
type keys struct {
	topic    string
	certName string // SimpleNotificationService-<32 hex>.pem
	sns      func() (*identity, error)
}

func (k *keys) make(region string, now func() time.Time) {
	k.topic = "arn:aws:sns:" + region + ":123456789012:ses-events"
	k.certName = "SimpleNotificationService-" + emulator.RandomHex(16) + ".pem"
	k.sns = sync.OnceValues(func() (*identity, error) { return newIdentity(region, now()) })
}

func (a *api) Keys() map[string]string {
	return map[string]string{"sns_topic_arn": a.keys.topic, "sns_ca_pem": a.caPEM()}
}

// caPEM is the certificate of the authority, or "" if it could not be made.
func (a *api) caPEM() string {
	id, err := a.keys.sns()
	if err != nil {
		a.host.Log().Error("no sns certificate", "error", err)
		return ""
	}
	return string(id.caPEM)
}

func (a *api) CompleteHook(h emulator.Hook) error {
	if h["topic_arn"] == "" {
		h["topic_arn"] = a.keys.topic
	}
	if !strings.HasPrefix(h["topic_arn"], "arn:") {
		return errors.New("topic_arn: looks like arn:aws:sns:REGION:ACCOUNT:NAME")
	}
	return nil
}

// certificate serves the certificate that notifications refer to.
func (a *api) certificate(r *http.Request, body []byte) *emulator.Reply {
	if r.PathValue("name") != a.keys.certName {
		return a.unknown(r, body)
	}
	id, err := a.keys.sns()
	if err != nil {
		return emulator.Text(http.StatusInternalServerError, "no certificate")
	}
	return emulator.Text(http.StatusOK, string(id.certPEM)).With("Content-Type", "application/x-pem-file")
}

// identity signs notifications.
type identity struct {
	key     *rsa.PrivateKey
	certPEM []byte // as SNS serves it: only the leaf
	caPEM   []byte
}

// keyBits is the size of the signing key. Real keys have 2048 bits, which costs 1.2 ms of a core for each notification; the
// service on the same machine would miss that time. The key protects nothing.
const keyBits = 1024

// newIdentity makes an authority and a certificate with the names of the real one. It is called at the first use.
func newIdentity(region string, now time.Time) (*identity, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make sns authority: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits) //nolint:gosec // see keyBits
	if err != nil {
		return nil, fmt.Errorf("make sns key: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sendgate emulator CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "sns.amazonaws.com"},
		DNSNames:  []string{"sns.amazonaws.com", "sns." + region + ".amazonaws.com"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(2, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("make sns authority: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("make sns certificate: %w", err)
	}
	return &identity{key: key, certPEM: pemOf(leafDER), caPEM: pemOf(caDER)}, nil
}

func pemOf(der []byte) []byte {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a bytes.Buffer accepts everything
	return b.Bytes()
}
