package forward

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// A secret is whsec_ and the base64 of its key: 24 to 64 bytes by the Standard Webhooks specification.
const (
	secretPrefix = "whsec_"
	minKey       = 24
	maxKey       = 64
)

var (
	errSecret  = errors.New("not a signing secret: want whsec_ and the base64 of 24 to 64 bytes")
	errSealed  = errors.New("the secrets of the endpoint can't be opened: rotate its secret, and set its headers again")
	errHeaders = errors.New("the headers of the endpoint can't be read: set them again")
)

// Sign sets the three headers of Standard Webhooks for a body that is no event. id is the same for all tries.
func Sign(h http.Header, id string, at time.Time, body []byte, secret seal.Secret) error {
	return sign(h, id, at, body, map[string]seal.Secret{record.EndpointSecret: secret})
}

// sign sets the three headers of Standard Webhooks: the id, which is the event's and is the same for all tries; the time of
// this try; and a signature with each secret over id, time and body. While a secret is being replaced there are two, and the
// receiver accepts either.
func sign(h http.Header, id string, at time.Time, body []byte, secrets map[string]seal.Secret) error {
	if secrets[record.EndpointSecret].IsZero() {
		return errSealed
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	var signatures []string
	for _, name := range []string{record.EndpointSecret, record.EndpointOldSecret} {
		if secrets[name].IsZero() {
			continue
		}
		key, err := keyOf(secrets[name])
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	h.Set("Webhook-Signature", strings.Join(signatures, " "))
	return nil
}

// keyOf decodes the key in a secret.
func keyOf(s seal.Secret) ([]byte, error) {
	text, ok := strings.CutPrefix(s.Reveal(), secretPrefix)
	if !ok {
		return nil, errSecret
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) < minKey || len(key) > maxKey {
		return nil, errSecret
	}
	return key, nil
}
