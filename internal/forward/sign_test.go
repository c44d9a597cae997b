package forward

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

func secretOf(n int) seal.Secret {
	return seal.NewSecret("whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n))))
}

// signs are the secrets of an endpoint: the one that signs, and the one before.
func signs(secrets ...seal.Secret) map[string]seal.Secret {
	all := map[string]seal.Secret{}
	for i, s := range secrets {
		all[[]string{record.EndpointSecret, record.EndpointOldSecret}[i]] = s
	}
	return all
}

// TestSignatureOfTheSpecification has the example that the libraries of Standard Webhooks share.
func TestSignatureOfTheSpecification(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	secret := seal.NewSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	err := sign(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`), signs(secret))
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"Webhook-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Webhook-Timestamp": {"1614265330"},
		"Webhook-Signature": {"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestEitherSecretVerifiesWhileOneIsReplaced(t *testing.T) {
	t.Parallel()
	fresh, old, other := secretOf(24), secretOf(64), secretOf(32)
	h, body := http.Header{}, []byte(`{"type":"message.delivered"}`)
	if err := sign(h, "id", time.Now(), body, signs(fresh, old)); err != nil {
		t.Fatal(err)
	}
	verify := func(s seal.Secret, body string) error {
		wh, err := standardwebhooks.NewWebhook(s.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		return wh.Verify([]byte(body), h)
	}
	for name, s := range map[string]seal.Secret{"the new": fresh, "the old": old} {
		if err := verify(s, string(body)); err != nil {
			t.Errorf("%s secret: %v", name, err)
		}
	}
	if verify(other, string(body)) == nil || verify(fresh, string(body)+" ") == nil {
		t.Error("another secret, or another body, verifies")
	}
}

func TestSignRefusesWhatIsNoSecret(t *testing.T) {
	t.Parallel()
	bad := map[string]map[string]seal.Secret{
		"none": nil, "empty": signs(seal.Secret{}), "no prefix": signs(seal.NewSecret(strings.TrimPrefix(secretOf(32).Reveal(), "whsec_"))),
		"short": signs(secretOf(23)), "long": signs(secretOf(65)), "not base64": signs(seal.NewSecret("whsec_????")),
		"one of two": signs(secretOf(32), secretOf(3)),
	}
	for name, secrets := range bad {
		h := http.Header{}
		err := sign(h, "id", time.Now(), nil, secrets)
		if !errors.Is(err, errSecret) && !errors.Is(err, errSealed) {
			t.Errorf("%s: %v", name, err)
		}
		if len(h) > 0 {
			t.Errorf("%s: signed nevertheless: %v", name, h)
		}
	}
}
