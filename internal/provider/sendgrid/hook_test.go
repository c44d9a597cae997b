package sendgrid_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
)

// The vector that Twilio publishes with sendgrid-go (helpers/eventwebhook/eventwebhook_test.go, MIT licence).
const (
	vectorKey       = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
	vectorSignature = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
	vectorStamp     = "1600112502"
	vectorBody      = `[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",` +
		`"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",` +
		`"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",` +
		`"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]` + "\r\n"
)

// now is when the hooks of these tests come.
var now = time.Unix(1_790_000_000, 0)

func withKeys(keys ...string) func(*sendgrid.Config) {
	return func(c *sendgrid.Config) { c.WebhookPublicKeys = keys }
}

// signer is an Event Webhook of SendGrid's.
type signer struct {
	key    *ecdsa.PrivateKey
	public string
}

func newSigner(tb testing.TB) *signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &signer{key: key, public: spki(tb, &key.PublicKey)}
}

func spki(tb testing.TB, public any) string {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// hook signs the body as of the given time, and brings it now.
func (s *signer) hook(tb testing.TB, body string, at time.Time) *provider.Hook {
	tb.Helper()
	stamp := strconv.FormatInt(at.Unix(), 10)
	digest := sha256.Sum256([]byte(stamp + body))
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, digest[:])
	if err != nil {
		tb.Fatal(err)
	}
	return hook(base64.StdEncoding.EncodeToString(sig), stamp, body, now)
}

func hook(signature, stamp, body string, at time.Time) *provider.Hook {
	h := http.Header{}
	h.Set("X-Twilio-Email-Event-Webhook-Signature", signature)
	h.Set("X-Twilio-Email-Event-Webhook-Timestamp", stamp)
	return &provider.Hook{Header: h, Body: []byte(body), Now: at}
}

// receive takes what the signer sends.
func receive(t *testing.T, body string) []mail.Payload {
	t.Helper()
	s := newSigner(t)
	c := newClient(t, "", withKeys(s.public))
	b, err := c.Receive(t.Context(), s.hook(t, body, now))
	if err != nil {
		t.Fatalf("Receive(%.100s) = %v", body, err)
	}
	for _, p := range b.Payloads {
		if diff := cmp.Diff(p.Events, c.Parse(p.Raw)); diff != "" {
			t.Errorf("Parse reads the payload %s otherwise (-received +parsed):\n%s", p.Raw, diff)
		}
	}
	return b.Payloads
}

func checkRefusal(t *testing.T, name string, err error, status int, reason string) {
	t.Helper()
	var refused *provider.HookError
	if !errors.As(err, &refused) || refused.Status != status || refused.Reason != reason {
		t.Errorf("%s: %v, want %d %s", name, err, status, reason)
	}
}

func TestPublishedVectorVerifies(t *testing.T) {
	t.Parallel()
	c := newClient(t, "", withKeys(newSigner(t).public, vectorKey))
	at := time.Unix(1600112502, 0)
	b, err := c.Receive(t.Context(), hook(vectorSignature, vectorStamp, vectorBody, at))
	if err != nil {
		t.Fatal(err)
	}
	want := []mail.Event{{
		Type: mail.EventRejected, Name: "dropped", UniqueID: "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",
		ProviderMessageID: "LRzXl_NHStOGhQ4kofSm_A", Recipient: "hello@world.com", At: time.Unix(1600112492, 0).UTC(),
		Bounce: &mail.Bounce{Reason: mail.SuppressedBounce, Text: "Bounced Address", Rule: "sendgrid/bounced address"}, Detail: `"Bounced Address";`,
	}}
	if len(b.Payloads) != 1 {
		t.Fatalf("payloads = %d, want 1", len(b.Payloads))
	}
	if diff := cmp.Diff(want, b.Payloads[0].Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got, want := string(b.Payloads[0].Raw), strings.TrimSpace(vectorBody[1:len(vectorBody)-3]); got != want {
		t.Errorf("raw = %s, want %s", got, want)
	}
}

func TestForgedRequestsAreRefused(t *testing.T) {
	t.Parallel()
	c := newClient(t, "", withKeys(vectorKey))
	at := time.Unix(1600112502, 0)
	der, err := base64.StdEncoding.DecodeString(vectorSignature)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*provider.Hook{
		"one byte":        hook(vectorSignature, vectorStamp, strings.Replace(vectorBody, "hello", "jello", 1), at),
		"encoded again":   hook(vectorSignature, vectorStamp, strings.TrimSpace(vectorBody), at),
		"other timestamp": hook(vectorSignature, "1600112503", vectorBody, at),
		"no timestamp":    hook(vectorSignature, "", vectorBody, at),
		"no signature":    hook("", vectorStamp, vectorBody, at),
		"not base64":      hook("!", vectorStamp, vectorBody, at),
		"trailing bytes":  hook(base64.StdEncoding.EncodeToString(append(der, 0)), vectorStamp, vectorBody, at),
	} {
		b, err := c.Receive(t.Context(), h)
		checkRefusal(t, name, err, http.StatusForbidden, "signature")
		if len(b.Payloads) > 0 {
			t.Errorf("%s: payloads came with the refusal", name)
		}
	}
}

func TestTimestampIsHeldToTheRetrySpan(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	c := newClient(t, "", withKeys(s.public))
	for age, ok := range map[time.Duration]bool{
		0: true, 25 * time.Hour: true, 25*time.Hour + time.Second: false, -10 * time.Minute: true, -10*time.Minute - time.Second: false,
	} {
		_, err := c.Receive(t.Context(), s.hook(t, "[]", now.Add(-age)))
		if ok && err != nil {
			t.Errorf("age %s: %v", age, err)
		}
		if !ok {
			checkRefusal(t, "age "+age.String(), err, http.StatusUnauthorized, "timestamp")
		}
	}
}

func TestTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	c := newClient(t, "", withKeys(s.public))
	events := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("{},", n), ",") + "]" }
	b, err := c.Receive(t.Context(), s.hook(t, events(provider.MaxHookEvents), now))
	if err != nil || len(b.Payloads) != provider.MaxHookEvents {
		t.Errorf("the most events: %d, %v", len(b.Payloads), err)
	}
	_, err = c.Receive(t.Context(), s.hook(t, events(provider.MaxHookEvents+1), now))
	checkRefusal(t, "one event more", err, http.StatusRequestEntityTooLarge, "too_large")
	_, err = c.Receive(t.Context(), s.hook(t, strings.Repeat(" ", provider.MaxHook+1), now))
	checkRefusal(t, "body", err, http.StatusRequestEntityTooLarge, "too_large")
}

func TestEachElementKeepsItsBytes(t *testing.T) {
	t.Parallel()
	payloads := receive(t, "[ {\"event\" : \"delivered\", \"x\":\"\\u00e9\"} ,\n7,null,\"text\",[{\"event\":\"open\"}], {\"event\":\"click\"}\t]\r\n")
	var raws, names []string
	for _, p := range payloads {
		raws = append(raws, string(p.Raw))
		for _, e := range p.Events {
			names = append(names, string(e.Type)+" "+e.Name)
		}
	}
	wantRaws := []string{`{"event" : "delivered", "x":"\u00e9"}`, "7", "null", `"text"`, `[{"event":"open"}]`, `{"event":"click"}`}
	wantNames := []string{"delivered delivered", " unreadable", " unreadable", " unreadable", " unreadable", "clicked click"}
	if diff := cmp.Diff(wantRaws, raws); diff != "" {
		t.Errorf("payloads (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantNames, names); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	signers := map[string]*signer{}
	var public [3]string
	for i := range public {
		s := newSigner(t)
		public[i], signers[s.public] = s.public, s
	}
	signers[""] = newSigner(t) // there is no empty key
	providertest.RunEvents(t, providertest.EventSuite{
		Secrets: public,
		New: func(t *testing.T, newest, previous string) provider.EventParser {
			t.Helper()
			return newClient(t, "", withKeys(slices.DeleteFunc([]string{newest, previous}, func(k string) bool { return k == "" })...))
		},
		Sign: func(t *testing.T, secret, payload string) *provider.Hook {
			t.Helper()
			return signers[secret].hook(t, payload, now)
		},
		Refused: 403, Unconfigured: 403,
		Readable: "[" + object(map[string]any{"event": "delivered"}) + "]",
		Unreadable: []string{
			"", "\r\n", "null", "{", `[{"event":"delivered"}`, `[{"event":"delivered"}] x`, "<html>", "{}", `{"foo":1}`, "\xff\xfe",
		},
	})
	if payloads := receive(t, "[]\r\n"); len(payloads) != 0 {
		t.Errorf("an empty array holds %d payloads", len(payloads))
	}
}

func TestPublicKeysAreCheckedWithTheConfig(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys []string
		ok   bool
	}{
		"one":        {[]string{vectorKey}, true},
		"five":       {slices.Repeat([]string{vectorKey}, 5), true},
		"six":        {slices.Repeat([]string{vectorKey}, 6), false},
		"empty":      {[]string{""}, false},
		"not base64": {[]string{"%"}, false},
		"cut":        {[]string{vectorKey[:40]}, false},
		"RSA":        {[]string{spki(t, &rsaKey.PublicKey)}, false},
		"P-384":      {[]string{spki(t, &p384.PublicKey)}, false},
	} {
		cfg := sendgrid.Config{APIKey: testSecret, WebhookPublicKeys: c.keys}
		if err := cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: Validate = %v, want ok %t", name, err, c.ok)
		}
		if _, err := sendgrid.New(cfg); (err == nil) != c.ok {
			t.Errorf("%s: New = %v, want ok %t", name, err, c.ok)
		}
	}
}

// object writes an event with the members that most of them have.
func object(members map[string]any) string {
	all := map[string]any{
		"email": "ann@example.org", "timestamp": 1_790_000_010, "smtp-id": "<q@geopod>", "category": []string{"receipt"},
		"sg_event_id": "Ym91bmNl", "sg_message_id": "LRzX_m_A.recvd-85ab-7-7890E356-43C.1", "gw_msg": "0199c0de-0000-7000-8000-000000000001",
	}
	for k, v := range members {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(fmt.Sprint("object: ", err))
	}
	return string(text)
}

// Before the body is read, the request must have something like a signature, and a recent time.
func TestHeaderIsCheckedBeforeTheBody(t *testing.T) {
	t.Parallel()
	c := newClient(t, "", withKeys(vectorKey))
	at := time.Unix(1600112502, 0)
	check := func(signature, stamp string, now time.Time) error {
		return c.CheckHeader(hook(signature, stamp, "", now).Header, now)
	}
	if err := check(vectorSignature, vectorStamp, at); err != nil {
		t.Errorf("a good header: %v", err)
	}
	checkRefusal(t, "no signature", check("", vectorStamp, at), http.StatusForbidden, "signature")
	checkRefusal(t, "not base64", check("!", vectorStamp, at), http.StatusForbidden, "signature")
	checkRefusal(t, "too long", check(strings.Repeat("aaaa", 40), vectorStamp, at), http.StatusForbidden, "signature")
	checkRefusal(t, "no time", check(vectorSignature, "", at), http.StatusForbidden, "signature")
	checkRefusal(t, "no number", check(vectorSignature, "soon", at), http.StatusUnauthorized, "timestamp")
	checkRefusal(t, "old", check(vectorSignature, vectorStamp, at.Add(48*time.Hour)), http.StatusUnauthorized, "timestamp")
	checkRefusal(t, "no keys", newClient(t, "").CheckHeader(nil, at), http.StatusForbidden, "unconfigured")
}
