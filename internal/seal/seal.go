// Package seal keeps credentials from leaking: Secret never prints itself, and Box encrypts what is stored.
//
// A newcomer's likeliest mistake is to call Reveal early. Call it where the bytes go on the wire, nowhere else.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
)

// Secret is a credential. Every way of printing it gives "[secret]", or a memory address if fmt cannot ask the Secret
// itself: in an unexported field of another struct, and under a verb that does not exist.
type Secret struct {
	value *string // fmt follows no pointer inside a struct; nil for none
}

// NewSecret wraps a credential. The empty one is the zero Secret.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{value: &s}
}

const redacted = "[secret]"

// Reveal returns the credential itself, for the wire.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether no credential is set.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal reports whether both hold the same credential, in a time that depends on their lengths only. Comparing with ==
// only says whether they are copies of one Secret.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String implements fmt.Stringer.
func (s Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb reaches the field.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText implements encoding.TextUnmarshaler, so that secrets are read from the environment and from JSON. The text
// that a Secret prints is refused: someone who writes it back would lose the credential.
func (s *Secret) UnmarshalText(b []byte) error {
	if string(b) == redacted {
		return errRedacted
	}
	*s = NewSecret(string(b))
	return nil
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

var errRedacted = errors.New(redacted + " stands for a hidden credential and is not one")

// KeySize is the length of a Box key, in bytes.
const KeySize = 32

// ErrSealed says that a sealed value can't be opened: wrong key, or moved to another row or field.
var ErrSealed = errors.New("sealed value does not open: its key is neither SENDGATE_SECRET_KEY nor one of SENDGATE_SECRET_KEY_PREVIOUS, or the value was moved or changed")

// MaxPrevious is how many keys a Box opens with beside the one that it seals with.
const MaxPrevious = 4

// Box seals with AES-256-GCM under one key, and opens with that one and with those before it. A sealed value does not name its
// key: there are few, and trying a wrong one costs a microsecond. It is safe for concurrent use.
type Box struct{ aeads []cipher.AEAD } // the first seals

// NewBox takes keys of KeySize bytes.
func NewBox(key []byte, previous ...[]byte) (*Box, error) {
	b := &Box{}
	for _, k := range append([][]byte{key}, previous...) {
		if len(k) != KeySize {
			return nil, fmt.Errorf("secret key: want %d bytes, got %d", KeySize, len(k))
		}
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, fmt.Errorf("secret key: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("secret key: %w", err)
		}
		b.aeads = append(b.aeads, aead)
	}
	return b, nil
}

// ParseKeys reads keys, separated by commas or white space: at most MaxPrevious, which may be none.
func ParseKeys(s string) ([][]byte, error) {
	texts := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	if len(texts) > MaxPrevious {
		return nil, fmt.Errorf("%d keys, want at most %d", len(texts), MaxPrevious)
	}
	keys := make([][]byte, 0, len(texts))
	for _, text := range texts {
		key, err := ParseKey(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Spellings returns the texts that ParseKey reads as this key, the usual one first. Keys for other purposes were derived
// from the text as it was given, so only the same text gives the same keys again.
func Spellings(key []byte) []string {
	return []string{
		hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), base64.StdEncoding.EncodeToString(key),
		base64.RawStdEncoding.EncodeToString(key), base64.URLEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key),
	}
}

// ParseKey reads a key of KeySize bytes in hex or in base64 (standard or URL alphabet, padded or not).
func ParseKey(s string) ([]byte, error) {
	s = strings.TrimSpace(s)
	decoders := []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	}
	for _, decode := range decoders {
		if key, err := decode(s); err == nil && len(key) == KeySize {
			return key, nil
		}
	}
	return nil, fmt.Errorf("secret key: want %d random bytes in hex or base64 (make one: openssl rand -hex %d)", KeySize, KeySize)
}

// Seal encrypts the secret. The same binding (row and field, such as "account/7/api_key") must be given to Open, so
// that a sealed value copied to another row does not open there.
func (b *Box) Seal(s Secret, binding string) []byte {
	nonce := make([]byte, b.aeads[0].NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		panic("seal: no randomness: " + err.Error()) // crypto/rand.Read never returns an error since Go 1.24
	}
	return b.aeads[0].Seal(nonce, nonce, []byte(s.Reveal()), []byte(binding))
}

// Open decrypts what Seal made under any of the keys, or returns ErrSealed.
func (b *Box) Open(sealed []byte, binding string) (Secret, error) {
	s, _, err := b.open(sealed, binding)
	return s, err
}

// Reseal seals a value of a previous key under the present key. It returns nil if the value is under the present key
// already, and ErrSealed if no key opens it.
func (b *Box) Reseal(sealed []byte, binding string) ([]byte, error) {
	s, key, err := b.open(sealed, binding)
	if err != nil || key == 0 {
		return nil, err
	}
	return b.Seal(s, binding), nil
}

// open also returns the index of the key that opened the value.
func (b *Box) open(sealed []byte, binding string) (s Secret, key int, err error) {
	for i, aead := range b.aeads {
		n := aead.NonceSize()
		if len(sealed) < n {
			break
		}
		if plain, err := aead.Open(nil, sealed[:n], sealed[n:], []byte(binding)); err == nil {
			return NewSecret(string(plain)), i, nil
		}
	}
	return Secret{}, 0, ErrSealed
}
