package sendgrid

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// The headers of a signed request ("Getting Started with the Event Webhook Security Features").
const (
	signatureHeader = "X-Twilio-Email-Event-Webhook-Signature"
	timestampHeader = "X-Twilio-Email-Event-Webhook-Timestamp"
)

// How far a request's own time may be from ours. SendGrid retries for 24 hours, and does not say whether it signs a retry again.
const (
	maxAhead = 10 * time.Minute
	maxAge   = 25 * time.Hour
)

// maxPublicKeys is how many Event Webhooks an account can have at SendGrid ("Webhooks", max_allowed).
const maxPublicKeys = 5

// publicKeys reads the keys of the settings.
func (c Config) publicKeys() ([]*ecdsa.PublicKey, error) {
	if len(c.WebhookPublicKeys) > maxPublicKeys {
		return nil, fmt.Errorf("webhook_public_keys: %d keys, at most %d", len(c.WebhookPublicKeys), maxPublicKeys)
	}
	keys := make([]*ecdsa.PublicKey, 0, len(c.WebhookPublicKeys))
	for i, text := range c.WebhookPublicKeys {
		key, err := publicKey(text)
		if err != nil {
			return nil, fmt.Errorf("webhook_public_keys[%d]: %w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// publicKey reads the base64 of a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) that holds an ECDSA key on P-256.
func publicKey(text string) (*ecdsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("not a public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA key on P-256")
	}
	return key, nil
}

// Receive implements provider.EventParser. SendGrid retries for 24 hours after every answer that is not a 2xx.
func (c *Client) Receive(_ context.Context, h *provider.Hook) (provider.Batch, error) {
	stamp := h.Header.Get(timestampHeader)
	switch {
	case len(c.keys) == 0:
		return provider.Batch{}, &provider.HookError{Status: http.StatusForbidden, Reason: "unconfigured"}
	case len(h.Body) > provider.MaxHook:
		return provider.Batch{}, &provider.HookError{Status: http.StatusRequestEntityTooLarge, Reason: "too_large"}
	case !c.signed(h.Header.Get(signatureHeader), stamp, h.Body):
		return provider.Batch{}, &provider.HookError{Status: http.StatusForbidden, Reason: "signature"}
	case !fresh(stamp, h.Now):
		return provider.Batch{}, &provider.HookError{Status: http.StatusUnauthorized, Reason: "timestamp"}
	}
	parts := split(h.Body)
	if len(parts) > provider.MaxHookEvents {
		return provider.Batch{}, &provider.HookError{Status: http.StatusRequestEntityTooLarge, Reason: "too_large"}
	}
	b := provider.Batch{Payloads: make([]mail.Payload, 0, len(parts))}
	for _, part := range parts {
		b.Payloads = append(b.Payloads, mail.Payload{Raw: part, Events: c.Parse(part)})
	}
	return b, nil
}

// maxSignature is more than the length of any ECDSA signature on P-256 in base64; in ASN.1 it has at most 72 bytes.
const maxSignature = 128

// CheckHeader implements provider.HeaderChecker: there must be a possible signature, and its time must not be too old.
func (c *Client) CheckHeader(header http.Header, now time.Time) error {
	signature, stamp := header.Get(signatureHeader), header.Get(timestampHeader)
	_, err := base64.StdEncoding.DecodeString(signature)
	switch {
	case len(c.keys) == 0:
		return &provider.HookError{Status: http.StatusForbidden, Reason: "unconfigured"}
	case err != nil || signature == "" || len(signature) > maxSignature || stamp == "":
		return &provider.HookError{Status: http.StatusForbidden, Reason: "signature"}
	case !fresh(stamp, now):
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "timestamp"}
	}
	return nil
}

// signed checks the signature over the timestamp, as it is in the header, and the raw body. All inputs are public, so the time it
// takes reveals nothing.
func (c *Client) signed(signature, stamp string, body []byte) bool {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return false
	}
	hash := sha256.New()
	hash.Write([]byte(stamp))
	hash.Write(body)
	digest := hash.Sum(nil)
	for _, key := range c.keys {
		if ecdsa.VerifyASN1(key, digest, sig) {
			return true
		}
	}
	return false
}

func fresh(stamp string, now time.Time) bool {
	sec, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || sec < 0 || sec > maxUnix {
		return false
	}
	age := now.Sub(time.Unix(sec, 0))
	return age <= maxAge && age >= -maxAhead
}

// split returns the elements of the array, each with its own bytes. A body that is not an array is one part: SendGrid sends only
// arrays.
func split(body []byte) [][]byte {
	var elements []json.RawMessage
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) || json.Unmarshal(body, &elements) != nil {
		return [][]byte{body}
	}
	parts := make([][]byte, 0, len(elements))
	for _, e := range elements {
		parts = append(parts, e)
	}
	return parts
}
