package mailgun_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	signingKey  = "0123456789abcdef0123456789abcdef-canary"
	previousKey = "fedcba9876543210fedcba9876543210-canary"
	token       = "5a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172"
)

func hookTime() time.Time { return time.Unix(1790000017, 0).UTC() }

// triple signs as Mailgun does ("Securing Webhooks"), with openssl's words: HMAC-SHA256 of timestamp and token, in hex.
func triple(key, stamp, token string) string {
	h := hmac.New(sha256.New, []byte(key))
	fmt.Fprint(h, stamp, token)
	return fmt.Sprintf(`{"timestamp":%q,"token":%q,"signature":"%x"}`, stamp, token, h.Sum(nil))
}

func stamp(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

func signed(key string, at time.Time, event string) string {
	return `{"signature":` + triple(key, stamp(at), token) + `,"event-data":` + event + `}`
}

func receive(t testing.TB, body string, change ...func(*mailgun.Config)) (provider.Batch, error) {
	t.Helper()
	cfg := mailgun.Config{APIKey: seal.NewSecret(testKey), Domain: testDomain, SigningKey: seal.NewSecret(signingKey)}
	for _, c := range change {
		c(&cfg)
	}
	c, err := mailgun.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c.Receive(t.Context(), &provider.Hook{Body: []byte(body), Now: hookTime()})
}

// The digest was made with openssl dgst -sha256 -hmac.
func TestReceiveKnowsAKnownSignature(t *testing.T) {
	t.Parallel()
	const body = `{"signature":{"timestamp":"1790000017","token":"5a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172",` +
		`"signature":"f7758f0a2684d5d834b8a211d59815998257a1842d912af939a6a26cd6120227"},"event-data":{}}`
	if _, err := receive(t, body); err != nil {
		t.Errorf("Receive: %v", err)
	}
}

func TestReceiveKeepsTheEventAsItStood(t *testing.T) {
	t.Parallel()
	raw := "{ \"event\" : \"delivered\",\n\t\"x\":\"\\u00e9\", \"n\":1.50 }"
	body := signed(signingKey, hookTime(), raw)
	got, err := receive(t, body)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(stamp(hookTime()) + token))
	want := provider.Batch{
		Payloads: []mail.Payload{{Raw: []byte(raw), Events: parser(t).Parse([]byte(raw))}},
		Once:     &mail.Once{Token: mail.ID(sum[:16]), Body: sha256.Sum256([]byte(body))},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batch (-want +got):\n%s", diff)
	}
	got, err = receive(t, signed(signingKey, hookTime(), sample(t, "delivered")))
	if err != nil || got.Payloads[0].Events[0].Type != mail.EventDelivered || got.Payloads[0].Events[0].MessageID != plainID() {
		t.Errorf("delivered: %+v, %v", got, err)
	}
}

// What the signature does not cover is bound to it by Once.
func TestOneSignatureIsForOneBody(t *testing.T) {
	t.Parallel()
	once := func(body string) mail.Once {
		got, err := receive(t, body)
		if err != nil {
			t.Fatal(err)
		}
		return *got.Once
	}
	first := once(signed(signingKey, hookTime(), sample(t, "delivered")))
	if again := once(signed(signingKey, hookTime(), sample(t, "delivered"))); again != first {
		t.Error("a repetition differs from the first")
	}
	forged := once(signed(signingKey, hookTime(), sample(t, "complained")))
	if forged.Token != first.Token || forged.Body == first.Body {
		t.Errorf("another event under the same signature: %+v, want the token of %+v and another body", forged, first)
	}
	if later := once(signed(signingKey, hookTime().Add(-time.Hour), sample(t, "delivered"))); later.Token == first.Token {
		t.Error("a signature made anew has the token of the old one: a retry would be refused")
	}
}

func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	now := hookTime()
	event := sample(t, "delivered")
	good := signed(signingKey, now, event)
	at := func(d time.Duration) string { return signed(signingKey, now.Add(d), event) }
	raw := func(stamp, token string) string {
		return `{"signature":` + triple(signingKey, stamp, token) + `,"event-data":{}}`
	}
	for name, c := range map[string]struct {
		body   string
		status int
		reason string
	}{
		"9 hours old":                 {at(-9 * time.Hour), 0, ""},
		"10 minutes ahead":            {at(10 * time.Minute), 0, ""},
		"too old":                     {at(-9*time.Hour - time.Second), 401, "timestamp"},
		"too far ahead":               {at(10*time.Minute + time.Second), 401, "timestamp"},
		"timestamp changed":           {strings.Replace(good, stamp(now), stamp(now.Add(time.Second)), 1), 406, "signature"},
		"token changed":               {strings.Replace(good, token, "6"+token[1:], 1), 406, "signature"},
		"digit moved to the token":    {strings.Replace(good, `"1790000017","token":"5`, `"179000001","token":"75`, 1), 401, "timestamp"},
		"digit moved to the time":     {strings.Replace(good, `"1790000017","token":"5`, `"17900000175","token":"`, 1), 401, "timestamp"},
		"time that is no number":      {raw("1790000017.5", token), 401, "timestamp"},
		"time with a sign":            {raw("+1790000017", token), 401, "timestamp"},
		"time that is too long":       {raw("0001790000017", token), 406, "signature"},
		"empty time":                  {raw("", token), 401, "timestamp"},
		"empty token":                 {raw(stamp(now), ""), 406, "signature"},
		"longest token":               {raw(stamp(now), strings.Repeat("a", 256)), 0, ""},
		"token that is too long":      {raw(stamp(now), strings.Repeat("a", 257)), 406, "signature"},
		"no signature":                {`{"event-data":` + event + `}`, 406, "signature"},
		"signature null":              {`{"signature":null,"event-data":` + event + `}`, 406, "signature"},
		"signature a string":          {`{"signature":"x","event-data":` + event + `}`, 406, "signature"},
		"signature a list":            {`{"signature":[],"event-data":` + event + `}`, 406, "signature"},
		"signature empty":             {`{"signature":{},"event-data":` + event + `}`, 406, "signature"},
		"digest cut":                  {strings.Replace(good, `"},"event-data"`, `","x":"`, 1), 406, "signature"},
		"body cut":                    {good[:len(good)-2], 406, "signature"},
		"two bodies":                  {good + good, 406, "signature"},
		"empty":                       {"", 406, "signature"},
		"a list":                      {"[" + good + "]", 406, "signature"},
		"a form of long ago":          {"timestamp=1790000017&token=x&signature=y&event=delivered", 406, "signature"},
		"far too deep":                {strings.Repeat("[", 1<<20), 406, "signature"},
		"parent's alone":              {`{"parent-signature":` + triple(signingKey, stamp(now), token) + `,"event-data":{}}`, 0, ""},
		"parent's, own by another":    {`{"signature":` + triple("other", stamp(now), token) + `,"parent-signature":` + triple(signingKey, stamp(now), token) + `}`, 0, ""},
		"parent's too old":            {`{"parent-signature":` + triple(signingKey, "1780000000", token) + `}`, 401, "timestamp"},
		"parent's by another":         {`{"signature":{},"parent-signature":` + triple("other", stamp(now), token) + `}`, 406, "signature"},
		"own old, the parent's fresh": {`{"signature":` + triple(signingKey, "1780000000", token) + `,"parent-signature":` + triple(signingKey, stamp(now), token) + `}`, 401, "timestamp"},
		"timestamp as a number":       {strings.Replace(good, `"1790000017"`, `1790000017`, 1), 0, ""},
	} {
		_, err := receive(t, c.body)
		checkRefusal(t, name, err, c.status, c.reason)
	}
}

func checkRefusal(t *testing.T, name string, err error, status int, reason string) {
	t.Helper()
	var refused *provider.HookError
	switch {
	case status == 0 && err != nil:
		t.Errorf("%s: %v, want it taken", name, err)
	case status == 0:
	case !errors.As(err, &refused):
		t.Errorf("%s: %v, want a *HookError", name, err)
	case refused.Status != status || refused.Reason != reason:
		t.Errorf("%s: %d %s (%v), want %d %s", name, refused.Status, refused.Reason, err, status, reason)
	case strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "ann@"):
		t.Errorf("%s: %v holds a secret or quotes the request", name, err)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	providertest.RunEvents(t, providertest.EventSuite{
		Secrets: [3]string{signingKey, previousKey, "another-canary"},
		New: func(t *testing.T, newest, previous string) provider.EventParser {
			t.Helper()
			return newClient(t, "", func(c *mailgun.Config) {
				c.SigningKey, c.PreviousSigningKey = seal.NewSecret(newest), seal.NewSecret(previous)
			})
		},
		Sign: func(_ *testing.T, secret, payload string) *provider.Hook {
			return &provider.Hook{Header: http.Header{}, Body: []byte(signed(secret, hookTime(), payload)), Now: hookTime()}
		},
		Refused: 406, Unconfigured: 401,
		Readable:   sample(t, "delivered"),
		Unreadable: []string{`{"event":"teleported"}`, `{}`, `[]`, `[{"event":"delivered"}]`, `"text"`, `7`, `null`},
	})
}

func TestKeysOfWebhooks(t *testing.T) {
	t.Parallel()
	none := func(c *mailgun.Config) { c.SigningKey = seal.Secret{} }
	previous := func(c *mailgun.Config) { c.PreviousSigningKey = seal.NewSecret(previousKey) }
	body := func(key string) string { return signed(key, hookTime(), "{}") }
	for _, c := range []struct {
		name   string
		body   string
		change []func(*mailgun.Config)
		status int
		reason string
	}{
		{"the previous key alone", body(previousKey), []func(*mailgun.Config){none, previous}, 0, ""},
		{"the API key", body(testKey), nil, 406, "signature"},
	} {
		_, err := receive(t, c.body, c.change...)
		checkRefusal(t, c.name, err, c.status, c.reason)
	}
}

// A request without an event is kept whole.
func TestReceiveKeepsWhatHasNoEvent(t *testing.T) {
	t.Parallel()
	for _, body := range []string{signed(signingKey, hookTime(), "null"), `{"signature":` + triple(signingKey, stamp(hookTime()), token) + `}`} {
		if got, err := receive(t, body); err != nil || string(got.Payloads[0].Raw) != body || got.Payloads[0].Events[0].Type != mail.EventUnmapped {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
}

// FuzzReceive checks that nothing is accepted without a signature, and that accepted events read the same a second time.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(signed(signingKey, hookTime(), `{"event":"delivered"}`)), []byte(`{}`))
	f.Add([]byte(`{"signature":{"timestamp":"1790000017","token":"a","signature":""}}`), []byte(`[]`))
	f.Add([]byte(`{"parent-signature":7}`), []byte(`{"event":"failed","user-variables":"{}"}`))
	c := parser(f)
	f.Fuzz(func(t *testing.T, body, event []byte) {
		if got, err := c.Receive(t.Context(), &provider.Hook{Body: body, Now: hookTime()}); err == nil && !bytes.Contains(body, []byte(`"`+digest()+`"`)) {
			t.Errorf("%q was taken: %+v", body, got)
		}
		if !json.Valid(event) {
			return
		}
		got, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(signed(signingKey, hookTime(), string(event))), Now: hookTime()})
		if err != nil || len(got.Payloads) != 1 {
			t.Fatalf("authentic %q: %+v, %v", event, got, err)
		}
		p := got.Payloads[0]
		if diff := cmp.Diff(p.Events, c.Parse(p.Raw)); diff != "" {
			t.Errorf("%q reads otherwise a second time:\n%s", event, diff)
		}
	})
}

// digest is the one that the seeds hold.
func digest() string {
	h := hmac.New(sha256.New, []byte(signingKey))
	fmt.Fprint(h, stamp(hookTime()), token)
	return hex.EncodeToString(h.Sum(nil))
}

// They can be set only as secrets, and a value that can't be in a header is refused.
func TestSigningKeysAreSecrets(t *testing.T) {
	t.Parallel()
	secrets := map[string]seal.Secret{
		"api_key": seal.NewSecret(testKey), "webhook_signing_key": seal.NewSecret(signingKey), "webhook_signing_key_previous": seal.NewSecret(previousKey),
	}
	cfg, err := mailgun.ParseConfig([]byte(`{"domain":"mg.example.com"}`), secrets)
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.SigningKey.Equal(secrets["webhook_signing_key"]) || !cfg.PreviousSigningKey.Equal(secrets["webhook_signing_key_previous"]) {
		t.Error("the signing keys did not arrive")
	}
	for _, name := range []string{"webhook_signing_key", "webhook_signing_key_previous"} {
		if _, err := mailgun.ParseConfig([]byte(`{"domain":"mg.example.com","`+name+`":"x"}`), secrets); err == nil {
			t.Errorf("%s was taken as a setting", name)
		}
		bad := map[string]seal.Secret{"api_key": seal.NewSecret(testKey), name: seal.NewSecret("canary\n")}
		if _, err := mailgun.ParseConfig([]byte(`{"domain":"mg.example.com"}`), bad); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s with a line break: %v, want an error without it", name, err)
		}
	}
	if spec := mailgun.Spec(); !spec.Events.Accepted || !spec.Events.Delivered || !spec.Lookup.Works || spec.Lookup.Settled != 30*time.Minute {
		t.Errorf("spec: %+v, %+v", spec.Events, spec.Lookup)
	}
}
