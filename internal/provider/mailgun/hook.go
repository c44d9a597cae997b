package mailgun

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// How far the timestamp of a webhook may be off. Mailgun retries for 8 hours ("Webhooks"). It is not documented whether a retry
// gets a new signature.
const (
	maxAhead = 10 * time.Minute
	maxAge   = 9 * time.Hour
)

// The caps of a signature, in bytes. Real ones have 10, 50 and 64.
const (
	maxStampLen = 12
	maxTokenLen = 256
)

// hookBody is the body of a webhook, one event.
type hookBody struct {
	Signature triple          `json:"signature"`
	Parent    *triple         `json:"parent-signature"` // of a subaccount's event, made with the key of its parent
	Event     json.RawMessage `json:"event-data"`
}

// triple is Mailgun's signature. It covers the timestamp and the token, not the event ("Securing Webhooks").
type triple struct {
	Timestamp scalar `json:"timestamp"` // seconds since 1970
	Token     scalar `json:"token"`
	Signature scalar `json:"signature"` // HMAC-SHA256 of the two, in hex
}

// Receive implements provider.EventParser. A bad signature is answered with 406, which ends Mailgun's retries. A problem that a
// change of our settings or our clock can fix is answered with 401, which Mailgun retries.
//
// The signature does not cover the event, so the Batch binds it to this body. A stolen signature can't be used for another
// event.
func (c *Client) Receive(_ context.Context, h *provider.Hook) (provider.Batch, error) {
	if err := c.CheckHeader(h.Header, h.Now); err != nil {
		return provider.Batch{}, err
	}
	keys := c.cfg.signingKeys()
	var body hookBody
	if json.Unmarshal(h.Body, &body) != nil {
		if t := legacy(h); t != nil && t.signedBy(keys) {
			return provider.Batch{}, refuse(http.StatusNotAcceptable, "legacy_webhook", "a form of Mailgun's legacy webhooks: set up the current ones, sendgate providers webhooks")
		}
		return provider.Batch{}, refuse(http.StatusNotAcceptable, "signature", "the body is not the JSON of a webhook")
	}
	signed := body.authentic(keys)
	if signed == nil {
		return provider.Batch{}, refuse(http.StatusNotAcceptable, "signature", "no signature that a key of ours made")
	}
	if !signed.fresh(h.Now) {
		return provider.Batch{}, refuse(http.StatusUnauthorized, "timestamp", "signed over 9 hours ago or in the future")
	}
	raw := []byte(body.Event)
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		raw = h.Body // stored for inspection: it has no event
	}
	return provider.Batch{
		Payloads: []mail.Payload{{Raw: raw, Events: parse(raw)}},
		Once:     &mail.Once{Token: signed.id(), Body: sha256.Sum256(h.Body)},
	}, nil
}

// CheckHeader implements provider.HeaderChecker. The proof of a request is in its body, so only our settings are checked.
func (c *Client) CheckHeader(http.Header, time.Time) error {
	if len(c.cfg.signingKeys()) == 0 {
		return refuse(http.StatusUnauthorized, "unconfigured", "set the secret webhook_signing_key")
	}
	return nil
}

// legacy reads the signature of a legacy webhook. That is a form and not JSON: url-encoded, or multipart if it has files. It
// returns nil for anything else.
func legacy(h *provider.Hook) *triple {
	form, _ := url.ParseQuery(string(h.Body)) // its well-formed part counts
	kind, params, err := mime.ParseMediaType(h.Header.Get("Content-Type"))
	if err == nil && kind == "multipart/form-data" {
		parts, err := multipart.NewReader(bytes.NewReader(h.Body), params["boundary"]).ReadForm(provider.MaxHook)
		if err != nil {
			return nil
		}
		defer parts.RemoveAll() //nolint:errcheck // all of it is in memory
		form = parts.Value
	}
	return &triple{scalar(form.Get("timestamp")), scalar(form.Get("token")), scalar(form.Get("signature"))}
}

func refuse(status int, reason, why string) error {
	return &provider.HookError{Status: status, Reason: reason, Err: errors.New("mailgun: " + why)}
}

// authentic returns the signature that one of the keys made, or nil. The parent's signature counts only if the other fails.
func (b *hookBody) authentic(keys []seal.Secret) *triple {
	for _, t := range []*triple{&b.Signature, b.Parent} {
		if t != nil && t.signedBy(keys) {
			return t
		}
	}
	return nil
}

// signedBy reports whether one of the keys made the signature.
func (t *triple) signedBy(keys []seal.Secret) bool {
	mac, err := hex.DecodeString(string(t.Signature))
	if err != nil || len(mac) != sha256.Size || len(t.Timestamp) > maxStampLen || t.Token == "" || len(t.Token) > maxTokenLen {
		return false
	}
	found := false
	for _, key := range keys {
		h := hmac.New(sha256.New, []byte(key.Reveal()))
		h.Write([]byte(t.Timestamp + t.Token))
		found = hmac.Equal(h.Sum(nil), mac) || found
	}
	return found
}

// fresh also requires digits only. So nobody can move digits between the timestamp and the token, which are signed as one string.
func (t *triple) fresh(now time.Time) bool {
	if strings.Trim(string(t.Timestamp), "0123456789") != "" {
		return false
	}
	seconds, err := strconv.ParseInt(string(t.Timestamp), 10, 64)
	if err != nil {
		return false
	}
	age := now.Sub(time.Unix(seconds, 0))
	return -maxAhead <= age && age <= maxAge
}

// id identifies the signed timestamp and token. It is the same for every account that receives them.
func (t *triple) id() mail.ID {
	sum := sha256.Sum256([]byte(t.Timestamp + t.Token))
	return mail.ID(sum[:len(mail.ID{})])
}

// scalar is a JSON string or number as text. Anything else is "": a field of the wrong kind must not make the event unreadable.
type scalar string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (s *scalar) UnmarshalJSON(b []byte) error {
	*s = ""
	var text string
	switch {
	case len(b) > 0 && b[0] == '"':
		if err := json.Unmarshal(b, &text); err == nil {
			*s = scalar(text)
		}
	case len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9'):
		*s = scalar(b)
	}
	return nil
}
