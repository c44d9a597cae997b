//go:build drill

package app

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/unsub"
)

// The canaries by which events prove themselves.
const (
	signingCanary   = "hush-mailgun-signing-7Qx"
	passwordCanary  = "hush-postmark-password-7Qx"
	tokenCanary     = "hush-postmark-header-7Qx"
	verpCanary      = "hush-verp-key-7Qx-of-32-characters"
	snsCanary       = "hushsnstoken7Qx"
	topicOfCanaries = "arn:aws:sns:eu-west-1:123456789012:events"
)

// makesSecret reports whether a successful answer shows a new secret, which it does only once.
func makesSecret(path string) bool {
	return strings.HasSuffix(path, "/keys") || strings.HasSuffix(path, "/webhook-endpoints") || strings.HasSuffix(path, "/rotate")
}

// post makes a request that no key opens.
func (g *guarded) post(t *testing.T, method, path, body string, header map[string]string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// report sends valid and invalid reports of the providers, and sets up their webhooks.
func (g *guarded) report(t *testing.T) {
	t.Helper()
	const postmark = `{"RecordType":"Bounce","Type":"HardBounce","ID":7,"MessageID":"m","Email":"canarylocal@example.org","Details":"550 Canarytext","BouncedAt":"2026-01-31T12:00:00Z"}`
	mailgun := func(key string) string {
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte(key))
		_, _ = io.WriteString(mac, stamp+snsCanary)
		return fmt.Sprintf(`{"signature":{"timestamp":%q,"token":%q,"signature":%q},"event-data":{"event":"delivered","id":"x","timestamp":%s,"recipient":"canarylocal@example.org","message":{"headers":{"message-id":"m@example.com"}}}}`,
			stamp, snsCanary, hex.EncodeToString(mac.Sum(nil)), stamp)
	}
	sns := fmt.Sprintf(`{"Type":"SubscriptionConfirmation","MessageId":"m","TopicArn":%q,"Token":%q,"Message":"Canarytext","SubscribeURL":%q,"Timestamp":%q,"SignatureVersion":"2","Signature":"AAAA","SigningCertURL":%q}`,
		topicOfCanaries, snsCanary, g.emu.URL()+"/ses/?Token="+snsCanary, time.Now().UTC().Format(time.RFC3339), g.emu.URL()+"/ses/SimpleNotificationService-"+strings.Repeat("0", 32)+".pem")
	for _, c := range []struct {
		account, body string
		header        map[string]string
		want          int
	}{
		{"postmark", postmark, map[string]string{"X-Hush": tokenCanary}, 200},
		{"postmark", postmark, map[string]string{"X-Hush": tokenCanary + "-old"}, 200},
		{"postmark", postmark, map[string]string{"X-Hush": wrongSecret}, 401},
		{"postmark", postmark, map[string]string{"Authorization": "Basic " + wrongSecret}, 401},
		{"mailgun", mailgun(signingCanary), nil, 200},
		{"mailgun", strings.Replace(mailgun(signingCanary), `"delivered"`, `"complained"`, 1), nil, 406},
		{"mailgun", mailgun(wrongSecret), nil, 406},
		{"sendgrid", `[{"event":"Canarytext"}]`, map[string]string{"X-Twilio-Email-Event-Webhook-Signature": wrongSecret}, 403},
		{"ses", sns, nil, 403},
		{"smtp", "Canarytext", map[string]string{"X-Envelope-To": "b+canarylocal." + wrongSecret + "@bounces.sendgate.test"}, 403},
		{"canaryquery", "Canarytext", nil, 404},
	} {
		if got := g.post(t, http.MethodPost, "/hooks/"+c.account, c.body, c.header); got != c.want {
			t.Errorf("report to %s of %.40s = %d, want %d", c.account, c.body, got, c.want)
		}
	}
	accounts, secrets, err := Emulated(g.emu, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		p, _, err := catalog.New(a.Kind, a.Settings, secrets[a.Name])
		if err != nil {
			t.Fatal(err)
		}
		_, can := p.(provider.Registrar)
		_ = p.Close()
		result, err := g.admin.RegisterWebhooks(t.Context(), a.Name, api.AccountWebhooksRequest{URL: g.url})
		if made := err == nil && len(result.Done) > 0; made != can {
			t.Errorf("register %s: %+v, %v", a.Name, result, err)
		}
	}
}

// listenWebhooks serves a webhook endpoint that repeats each request in an error. It returns the port.
func (g *guarded) listenWebhooks(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Said", r.Header.Get("Webhook-Signature"))
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(s.Close)
	g.sink = s.URL
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// useWebhooks makes, changes, tests and replays a webhook endpoint, and returns the secrets that signed.
func (g *guarded) useWebhooks(t *testing.T) []string {
	t.Helper()
	made, err := g.api.CreateWebhookEndpoint(t.Context(), api.WebhookEndpointRequest{URL: &g.sink})
	if err != nil {
		t.Fatal(err)
	}
	turned, err := g.api.RotateWebhookEndpoint(t.Context(), made.ID, api.WebhookRotateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := g.api.TestWebhookEndpoint(t.Context(), made.ID); err != nil || got.Status != http.StatusInternalServerError {
		t.Errorf("test = %+v, %v, want 500", got, err)
	}
	if got, err := g.api.ReplayWebhookEndpoint(t.Context(), made.ID, api.WebhookReplayRequest{Since: time.Now().Add(-time.Hour)}); err != nil || got.Queued == 0 {
		t.Errorf("replay = %+v, %v, want some", got, err)
	}
	eventually(t, settleTime, "the endpoint was told", func() bool { return g.count(t.Context(), `SELECT count(*) FROM delivery`) > 0 })
	for _, path := range []string{"", "/" + made.ID, "/" + made.ID + "/deliveries"} {
		g.call(t, http.MethodGet, "/v1/webhook-endpoints"+path, g.keys.api, "", "")
	}
	for _, bad := range []string{
		`{"url":"https://u:` + wrongSecret + `@example.com/"}`, `{"url":"http://example.com/` + wrongSecret + `"}`, `{"url":"https://10.0.0.1/` + wrongSecret + `"}`,
		`{"secret":"` + wrongSecret + `"}`, `{"url":"https://example.com/","types":["` + wrongSecret + `"],"description":"` + wrongSecret + `\u0001"}`,
	} {
		g.refused(t, http.MethodPost, "/v1/webhook-endpoints", g.keys.api, bad)
		g.refused(t, http.MethodPatch, "/v1/webhook-endpoints/"+made.ID, g.keys.api, bad)
	}
	if err := g.api.DeleteWebhookEndpoint(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	return []string{strings.TrimPrefix(made.Secret, "whsec_"), strings.TrimPrefix(turned.Secret, "whsec_")}
}

// followLinks opens one-click links, good ones and others, and returns their tokens.
func (g *guarded) followLinks(t *testing.T) []string {
	t.Helper()
	links, err := g.app.links()
	if err != nil {
		t.Fatal(err)
	}
	link := links.Headers(unsub.Token{Tenant: mail.DefaultTenant, Stream: "bulk", Message: mail.NewID(), Email: "canarylocal@example.org"})[0].Value
	token := strings.TrimSuffix(link[strings.LastIndex(link, "/")+1:], ">")
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for _, c := range []struct {
		method, token, body string
		want                int
	}{
		{http.MethodGet, token, "", 200},
		{http.MethodHead, token, "", 200},
		{http.MethodPost, token, "", 400},
		{http.MethodPost, token, "List-Unsubscribe=One-Click", 200},
		{http.MethodPost, token, "List-Unsubscribe=One-Click", 200},
		{http.MethodPost, token + "x", "List-Unsubscribe=One-Click", 404},
		{http.MethodGet, token + "x", "", 404},
		{http.MethodPut, token, "", 405},
		{http.MethodGet, token + "/" + token, "", 404},
	} {
		if got := g.post(t, c.method, "/u/"+c.token, c.body, form); got != c.want {
			t.Errorf("%s of a link with %q = %d, want %d", c.method, c.body, got, c.want)
		}
	}
	if n := g.count(t.Context(), `SELECT count(*) FROM suppression WHERE origin = 'unsubscribe'`); n != 1 {
		t.Errorf("unsubscribed = %d, want 1", n)
	}
	return []string{token}
}
