package emulator

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// HookKeys is what a receiver needs to check that an event is from this emulator. All of it is made anew by New.
type HookKeys struct {
	SendGridPublicKey string `json:"sendgrid_public_key"` // base64 of an SPKI, ECDSA P-256
	MailgunSigningKey string `json:"mailgun_signing_key"`
	PostmarkUsername  string `json:"postmark_username"`
	PostmarkPassword  string `json:"postmark_password"`
	SNSTopicARN       string `json:"sns_topic_arn"`
	SNSCAPEM          string `json:"sns_ca_pem"` // of the authority that signed the certificate of the notifications
}

// keyring has the secret sides.
type keyring struct {
	sendGrid *ecdsa.PrivateKey
	public   HookKeys // without SNSCAPEM
	certName string   // of the SNS certificate: SimpleNotificationService-<32 hex>.pem
	sns      func() (*snsIdentity, error)
}

// snsIdentity signs notifications.
type snsIdentity struct {
	key     *rsa.PrivateKey
	certPEM []byte // as SNS serves it: the leaf alone
	caPEM   []byte
}

func newKeyring(region string, now func() time.Time) (*keyring, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make hook key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("make hook key: %w", err)
	}
	return &keyring{
		sendGrid: key,
		public: HookKeys{
			SendGridPublicKey: base64.StdEncoding.EncodeToString(spki),
			MailgunSigningKey: randomHex(16),
			PostmarkUsername:  "sendgate",
			PostmarkPassword:  randomHex(16),
			SNSTopicARN:       "arn:aws:sns:" + region + ":123456789012:ses-events",
		},
		certName: "SimpleNotificationService-" + randomHex(16) + ".pem",
		sns:      sync.OnceValues(func() (*snsIdentity, error) { return newSNSIdentity(region, now()) }),
	}, nil
}

// snsKeyBits is what a signature costs: 2048 bits, as the real ones have, take 1.2 ms of a core for each notification,
// which the service beside us would miss. The key protects nothing.
const snsKeyBits = 1024

// newSNSIdentity makes an authority and a certificate in the names of the real one. It is called when first needed.
func newSNSIdentity(region string, now time.Time) (*snsIdentity, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make sns authority: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, snsKeyBits) //nolint:gosec // see snsKeyBits
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
	return &snsIdentity{key: key, certPEM: pemOf(leafDER), caPEM: pemOf(caDER)}, nil
}

func pemOf(der []byte) []byte {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a bytes.Buffer takes everything
	return b.Bytes()
}

// target completes a hook with our own keys.
func (k *keyring) target(kind string, h Hook) *target {
	switch kind {
	case kindMailgun:
		if h.SigningKey == "" {
			h.SigningKey = k.public.MailgunSigningKey
		}
	case kindPostmark:
		if h.Header == "" && h.Username == "" {
			h.Username = k.public.PostmarkUsername
		}
		if h.Header == "" && h.Password == "" {
			h.Password = k.public.PostmarkPassword
		}
	case kindSES:
		if h.TopicARN == "" {
			h.TopicARN = k.public.SNSTopicARN
		}
	}
	return &target{Hook: h, signed: true}
}

// HookKeys tells what receivers check events with. SNSCAPEM is "" if no certificate could be made.
func (e *Emulator) HookKeys() HookKeys {
	keys := e.keys.public
	if id, err := e.keys.sns(); err != nil {
		e.log.Error("no sns certificate", "error", err)
	} else {
		keys.SNSCAPEM = string(id.caPEM)
	}
	return keys
}
