package smtp

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// minRSABits is the least that receivers accept (RFC 8301 section 3.2); it advises 2048.
const minRSABits = 1024

// signedFields are the fields to sign if they are present: those of RFC 6376 section 5.4.1 that a caller can set, and those that
// make one-click unsubscription valid (RFC 8058 section 4).
var signedFields = []string{
	"From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "MIME-Version", "Content-Type",
	"List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "List-Help", "List-Subscribe", "List-Post", "List-Owner", "List-Archive",
}

// signer signs messages, or passes them through when it has no key. It is safe for concurrent use.
type signer struct {
	domain, selector string
	key              crypto.Signer
}

// newSigner checks that the three settings of DKIM are all set, or none of them.
func newSigner(d DKIM) (*signer, error) {
	if d.Domain == "" && d.Selector == "" && d.PrivateKey.IsZero() {
		return &signer{}, nil
	}
	if !isName(d.Domain) || !isName(d.Selector) || d.PrivateKey.IsZero() {
		return nil, errors.New("smtp settings: dkim: want domain, selector and the secret dkim_private_key")
	}
	key, err := parseKey([]byte(d.PrivateKey.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("smtp settings: dkim_private_key: %w", err)
	}
	return &signer{domain: d.Domain, selector: d.Selector, key: key}, nil
}

// parseKey reads the first PEM block. Its errors do not quote the key.
func parseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return checkRSA(key)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("neither PKCS 1 nor PKCS 8")
	}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		return checkRSA(key)
	case ed25519.PrivateKey:
		return key, nil
	default:
		return nil, errors.New("want an RSA or Ed25519 key")
	}
}

func checkRSA(key *rsa.PrivateKey) (crypto.Signer, error) {
	if bits := key.N.BitLen(); bits < minRSABits {
		return nil, fmt.Errorf("RSA key of %d bits, want at least %d", bits, minRSABits)
	}
	return key, nil
}

// sign prepends the DKIM-Signature (RFC 6376), relaxed/relaxed. From is signed one time more than it occurs, so that a second
// From breaks the signature (section 8.15). The message is final: no byte of it may change afterwards.
func (s *signer) sign(msg []byte) ([]byte, error) {
	if s.key == nil {
		return msg, nil
	}
	var out bytes.Buffer
	out.Grow(len(msg) + 1024)
	err := dkim.Sign(&out, bytes.NewReader(msg), &dkim.SignOptions{
		Domain: s.domain, Selector: s.selector, Signer: s.key,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed,
		BodyCanonicalization:   dkim.CanonicalizationRelaxed,
		HeaderKeys:             append([]string{"From"}, present(msg)...),
	})
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	return out.Bytes(), nil
}

// present lists the fields to sign that the message contains.
func present(msg []byte) []string {
	head, _, _ := bytes.Cut(msg, []byte("\r\n\r\n"))
	have := map[string]bool{}
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if name, _, ok := bytes.Cut(line, []byte(":")); ok {
			have[strings.ToLower(string(name))] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(signedFields), func(f string) bool { return !have[strings.ToLower(f)] })
}
