// Package unsub makes and opens the tokens of one-click unsubscribe links (RFC 8058), and the two header fields that
// carry one (RFC 2369 section 3.2, RFC 8058 section 3.1).
//
// A token holds the tenant, the stream, the message and the address itself, encrypted. A row in a table would work only as
// long as the message is kept. But people unsubscribe from mail that is months old, and the link must still work then, so
// it needs nothing but the key. Encryption keeps the address out of the logs of everyone between the reader and us.
// Authentication ensures that nobody can unsubscribe another.
//
// The package decides the content of a token. It does no I/O. Others decide what an unsubscribe does, and which mail gets
// the header fields: mail that people subscribe to, not a password reset.
//
// A newcomer's likeliest mistake is to unsubscribe on GET. Link scanners open every link they see; only a POST counts.
package unsub

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
)

// ErrToken says that a token was not made by us: forged, cut short, or made with a key that is no longer held.
var ErrToken = errors.New("not an unsubscribe token of this service")

// KeySize is the least length of a key, in bytes.
const KeySize = 32

// The caps, in bytes. Together they keep the longest header line within the 998 of RFC 5322 section 2.1.1.
const (
	maxStream = 63  // mail.IsName
	maxEmail  = 254 // of a mail.Address
	maxBase   = 400
)

// The parts of a token, in bytes: the id of the key, the nonce, the encrypted plaintext and its tag.
const (
	idSize    = 1
	nonceSize = 12
	tagSize   = 16
	fixedSize = 4 + len(mail.ID{}) + 1 // tenant, message and the length of the stream; then the stream and the address
	maxSize   = idSize + nonceSize + fixedSize + maxStream + maxEmail + tagSize
)

// encoding accepts only one spelling of each token.
var encoding = base64.RawURLEncoding.Strict()

// maxToken is the length of the longest token, in characters.
var maxToken = encoding.EncodedLen(maxSize)

// Token says whose mail stops.
type Token struct {
	Tenant  mail.TenantID
	Stream  string  // at most 63 bytes
	Message mail.ID // the one that carried the link
	Email   string  // canonical, at most 254 bytes
}

// Signer makes and opens tokens. It is safe for concurrent use.
type Signer struct {
	base string
	keys []key // the first one makes tokens
}

// New makes a Signer. The secret has at least KeySize bytes; keys are derived from it, so it may serve elsewhere too.
// Base is the URL of this service as readers of mail reach it, without a slash at its end; it is https, or http for a
// loopback address. Tokens made with one of the previous secrets are still opened.
func New(secret []byte, base string, previous ...[]byte) (*Signer, error) {
	if err := checkBase(base); err != nil {
		return nil, err
	}
	s := &Signer{base: base}
	for _, k := range append([][]byte{secret}, previous...) {
		derived, err := derive(k)
		if err != nil {
			return nil, fmt.Errorf("unsubscribe key: %w", err)
		}
		s.keys = append(s.keys, derived)
	}
	return s, nil
}

// checkBase accepts an absolute https URL, or http for a loopback address, without query, fragment or final slash.
func checkBase(base string) error {
	u, err := url.Parse(base)
	switch {
	case err != nil || len(base) > maxBase || u.String() != base || u.Hostname() == "":
		return fmt.Errorf("unsubscribe base: not an absolute URL of at most %d ASCII characters", maxBase)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(base, "/"):
		return errors.New("unsubscribe base: holds a user, a query or a fragment, or ends in a slash")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("unsubscribe base: one-click unsubscribe wants https (RFC 8058 section 3.1)")
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Headers are the two header fields of a message to one recipient. They are the same on every attempt. It returns nil
// for a Token over its caps, which no accepted message has.
func (s *Signer) Headers(t Token) []mail.Header {
	if t.Email == "" || len(t.Email) > maxEmail || len(t.Stream) > maxStream {
		return nil
	}
	return []mail.Header{
		{Name: "List-Unsubscribe", Value: "<" + s.base + "/u/" + s.keys[0].seal(t) + ">"},
		{Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"},
	}
}

// Open reads a token. The error is always ErrToken.
func (s *Signer) Open(token string) (Token, error) {
	if len(token) > maxToken || strings.ContainsAny(token, "\r\n") { // base64 would skip these
		return Token{}, ErrToken
	}
	sealed, err := encoding.DecodeString(token)
	if err != nil || len(sealed) <= idSize+nonceSize {
		return Token{}, ErrToken
	}
	for _, k := range s.keys {
		if k.id != sealed[0] {
			continue
		}
		nonce, body := sealed[idSize:idSize+nonceSize], sealed[idSize+nonceSize:]
		if plain, err := k.aead.Open(nil, nonce, body, sealed[:idSize]); err == nil {
			return parse(plain)
		}
	}
	return Token{}, ErrToken
}

// key is one key in use. Two keys may have the same id by chance: the id saves work and proves nothing.
type key struct {
	id    byte
	aead  cipher.AEAD
	nonce []byte
}

// derive makes the keys by HKDF (RFC 5869). A change of the format of tokens needs other labels.
func derive(secret []byte) (key, error) {
	if len(secret) < KeySize {
		return key{}, fmt.Errorf("want at least %d bytes, got %d", KeySize, len(secret))
	}
	all, err := hkdf.Key(sha256.New, secret, nil, "sendgate unsubscribe token 1", 32+32+idSize)
	if err != nil {
		return key{}, err
	}
	block, err := aes.NewCipher(all[:32])
	if err != nil {
		return key{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return key{}, err
	}
	return key{id: all[64], aead: aead, nonce: all[32:64]}, nil
}

// seal makes a token. The nonce is a MAC of the plaintext, so that the same Token always gives the same token. For different
// ones nonces are as good as random: AES-GCM is safe with that for 2^32 tokens under a key (NIST SP 800-38D section 8.3).
func (k key) seal(t Token) string {
	plain := make([]byte, 0, fixedSize+len(t.Stream)+len(t.Email))
	plain = binary.BigEndian.AppendUint32(plain, uint32(t.Tenant)) //nolint:gosec // read back the same way
	plain = append(plain, t.Message[:]...)
	plain = append(plain, byte(len(t.Stream))) //nolint:gosec // Headers has checked it
	plain = append(append(plain, t.Stream...), t.Email...)

	mac := hmac.New(sha256.New, k.nonce)
	mac.Write(plain)
	sealed := append([]byte{k.id}, mac.Sum(nil)[:nonceSize]...)
	return encoding.EncodeToString(k.aead.Seal(sealed, sealed[idSize:], plain, sealed[:idSize]))
}

// parse reads a plaintext of ours.
func parse(plain []byte) (Token, error) {
	if len(plain) < fixedSize || len(plain) < fixedSize+int(plain[fixedSize-1]) {
		return Token{}, ErrToken
	}
	t := Token{Tenant: mail.TenantID(binary.BigEndian.Uint32(plain))} //nolint:gosec // written the same way
	copy(t.Message[:], plain[4:])
	end := fixedSize + int(plain[fixedSize-1])
	t.Stream, t.Email = string(plain[fixedSize:end]), string(plain[end:])
	return t, nil
}
