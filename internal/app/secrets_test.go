package app

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// secretCanaries are credentials of words that stand nowhere else. What is found anywhere has leaked.
func secretCanaries() emulator.Credentials {
	c := emulator.DefaultCredentials()
	c.SendGridKey, c.MailgunKey = "SG.hush-sendgrid.7Qx/+=", "key-hush-mailgun-7Qx"
	c.PostmarkToken = "hush-postmark-7Qx"
	c.AWSAccessKeyID, c.AWSSecretAccessKey = "AKIAHUSHACCESS7QX000", "hush/aws+secret/7QxEXAMPLE"
	c.SMTPPassword = "hush-smtp-password-7Qx"
	return c
}

const (
	wrongSecret = "hush-wrong-7Qx" // given where a secret is refused
	dbPassword  = "hush-database-7Qx"
)

// privateCanaries are the words of private fields. A masked address may show the first letter of its local part.
func privateCanaries() []string {
	return []string{
		"anarylocal", "anaryname", "anarysubject", "anarytext", "anaryhtml", "anaryheader", "anarymeta", "anaryfile",
		"anarycontent", base64.StdEncoding.EncodeToString([]byte("canarycontent"))[4:12],
	}
}

// callersWords stand where callers name something themselves: fields, parameters, accounts. An answer may say them back,
// a log may not.
func callersWords() []string { return []string{"anaryfield", "anaryquery", "anaryjson"} }

// canaryLetter is a message full of canaries. The case tells the emulators' faults what to do with it.
func canaryLetter(account, outcome string) api.SendRequest {
	m := pinned(account)
	m.To = []api.Address{{Email: "canarylocal-" + outcome + "@example.org", Name: "Canaryname"}}
	m.Cc = []api.Address{{Email: "canarylocal-cc@example.net", Name: "Canaryname Cc"}}
	m.Bcc = []api.Address{{Email: "canarylocal-bcc@example.net"}}
	m.ReplyTo = []api.Address{{Email: "canarylocal-reply@example.com", Name: "Canaryname Reply"}}
	m.Subject, m.Text, m.HTML = "Canarysubject", "Canarytext", "<p>Canaryhtml</p>"
	m.Headers = map[string]string{"X-Note": "Canaryheader"}
	m.Metadata = map[string]string{"note": "Canarymeta"}
	m.Attachments = []api.Attachment{{
		Filename: "canaryfile.txt", Content: base64.StdEncoding.EncodeToString([]byte("canarycontent")),
	}}
	m.OnAmbiguous = "never"
	return m
}

// record is a log, and what a client heard.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// listener keeps the answers of the API that must hold no secret: every one but those which make one. Answers to the
// admin and errors are kept apart as well, since they must hold no private field either.
type listener struct {
	next        http.RoundTripper
	all, closed record
}

// RoundTrip implements http.RoundTripper.
func (l *listener) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if makesSecret(req.URL.Path) && resp.StatusCode/100 == 2 {
		return resp, nil
	}
	said := fmt.Sprintf("%d %v %s\n", resp.StatusCode, resp.Header, body)
	_, _ = io.WriteString(&l.all, said)
	if resp.StatusCode >= 400 || strings.HasPrefix(req.URL.Path, "/admin/") {
		_, _ = io.WriteString(&l.closed, said)
	}
	return resp, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections reach the pool.
func (l *listener) CloseIdleConnections() {
	if t, ok := l.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// guarded is a bench whose secrets are canaries, with one replica that logs everything.
type guarded struct {
	*bench
	*replica

	app   *App
	sink  string // URL of a webhook endpoint
	log   *record
	heard *listener
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{bench: newBench(t, benchOptions{}), log: &record{}}
	g.heard = &listener{next: g.http.Transport}
	g.http.Transport = g.heard
	emu, err := emulator.New(emulator.Options{Credentials: secretCanaries()})
	if err != nil {
		t.Fatal(err)
	}
	if err := emu.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = emu.Stop(context.Background()) })
	g.emu = emu
	listen := fixedAddr(t)
	a, err := New(g.config(t, "SENDGATE_UNKNOWN_WAIT=1s", "SENDGATE_RECONCILE_DEADLINE=1s", "SENDGATE_LISTEN="+listen,
		"SENDGATE_PUBLIC_URL=http://"+listen, "SENDGATE_FORWARD_ALLOW=127.0.0.0/8:"+g.listenWebhooks(t),
		"SENDGATE_DATABASE_URL="+withPassword(t, g.dsn)), telemetry.NewLogger(g.log, slog.LevelDebug, "json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.http.CloseIdleConnections()
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	g.app, g.replica = a, g.client(a.URL, a.OpsURL)
	g.await(t, g.http)
	g.keepCanaries(t)
	return g
}

// withPassword puts a password into the URL of a database that asks for none.
func withPassword(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if old, has := u.User.Password(); has && old != "" {
		return dsn
	}
	u.User = url.UserPassword(u.User.Username(), dbPassword)
	return u.String()
}

// keepCanaries gives the five accounts the canaries for credentials, by the admin API.
func (g *guarded) keepCanaries(t *testing.T) {
	t.Helper()
	c := secretCanaries()
	host, port, _ := strings.Cut(g.emu.SMTPAddr(), ":")
	for name, r := range map[string]api.AccountRequest{
		"sendgrid": {Settings: json.RawMessage(`{"base_url":"` + g.emu.URL() + `/sendgrid"}`), Secrets: map[string]string{"api_key": c.SendGridKey}},
		"mailgun": {
			Settings: json.RawMessage(`{"base_url":"` + g.emu.URL() + `/mailgun","domain":"` + c.MailgunDomain + `"}`),
			Secrets:  map[string]string{"api_key": c.MailgunKey, "webhook_signing_key": signingCanary, "webhook_signing_key_previous": signingCanary + "-old"},
		},
		"postmark": {
			Settings: json.RawMessage(`{"base_url":"` + g.emu.URL() + `/postmark","webhook_header":"X-Hush"}`),
			Secrets: map[string]string{
				"server_token": c.PostmarkToken, "webhook_password": passwordCanary, "webhook_password_previous": passwordCanary + "-old",
				"webhook_token": tokenCanary, "webhook_token_previous": tokenCanary + "-old",
			},
		},
		"ses": {
			Settings: json.RawMessage(`{"base_url":"` + g.emu.URL() + `/ses","region":"` + c.AWSRegion + `","sns_topic_arns":["` + topicOfCanaries + `"],"sns_base_url":"` + g.emu.URL() + `"}`),
			Secrets:  map[string]string{"access_key_id": c.AWSAccessKeyID, "secret_access_key": c.AWSSecretAccessKey},
		},
		"smtp": {
			Settings: json.RawMessage(`{"host":"` + host + `","port":` + port + `,"tls":"none","username":"` + c.SMTPUser +
				`","bounce_domain":"bounces.sendgate.test"}`),
			Secrets: map[string]string{"password": c.SMTPPassword, "verp_key": verpCanary},
		},
	} {
		if _, err := g.admin.PatchAccount(t.Context(), name, r); err != nil {
			t.Fatalf("account %s: %v", name, err)
		}
	}
	g.bench.binds(t, g.replica)
}

// secrets lists what must be found nowhere.
func (g *guarded) secrets() []string {
	c, hooks := secretCanaries(), g.emu.HookKeys()
	return []string{
		hooks.MailgunSigningKey, hooks.PostmarkPassword, signingCanary, passwordCanary, tokenCanary, verpCanary, snsCanary,
		base64.StdEncoding.EncodeToString([]byte("sendgate:" + passwordCanary)),
		c.SendGridKey, c.MailgunKey, c.PostmarkToken, c.AWSAccessKeyID, c.AWSSecretAccessKey, c.SMTPPassword, wrongSecret,
		dbPassword, g.secret, g.keys.api[12:], g.keys.admin[12:], url.QueryEscape(c.SendGridKey), url.QueryEscape(c.AWSSecretAccessKey),
		base64.StdEncoding.EncodeToString([]byte("api:" + c.MailgunKey)),
	}
}

// loose reports the words that occur in a text, in any case and with a little of what is around.
func loose(t *testing.T, where, text string, words []string) {
	t.Helper()
	low := strings.ToLower(text)
	for _, w := range words {
		if i := strings.Index(low, strings.ToLower(w)); i >= 0 {
			t.Errorf("%s holds %q: …%s…", where, w, text[max(0, i-300):min(len(text), i+len(w)+80)])
		}
	}
}

func TestSecretsAndPrivateFieldsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	made, err := g.admin.CreateKey(t.Context(), api.KeyRequest{Name: "made", Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	g.askWrongly(t)
	g.configureWrongly(t)
	g.report(t)
	g.sendEveryWay(t)
	secrets := append(g.secrets(), made.Secret[12:])
	secrets = append(secrets, g.useWebhooks(t)...)
	secrets = append(secrets, g.followLinks(t)...)
	g.lookAround(t)

	logged := g.log.String()
	for _, want := range []string{"request refused", "attempt recorded", `"class":"uncertain"`, `"class":"throttled"`, "account parked", "hook refused", "webhook sent"} {
		if !strings.Contains(logged, want) {
			t.Errorf("the log has no %q: the test tests less than it says", want)
		}
	}
	hidden := slices.Concat(privateCanaries(), callersWords(), secrets)
	loose(t, "log", logged, hidden)
	loose(t, "an answer", g.heard.all.String(), secrets)
	loose(t, "an error, or an answer to the admin,", g.heard.closed.String(), privateCanaries())
	loose(t, "metrics", g.get(t, g.ops+"/metrics"), hidden)
	loose(t, "readiness", g.get(t, g.ops+"/readyz"), hidden)
	loose(t, "doctor", g.doctor(t), hidden)
	attempts := g.table(t, "attempt")
	for _, want := range []string{"c***@example.org", "[secret]"} {
		if !strings.Contains(attempts, want) {
			t.Errorf("no attempt has %q, though providers said it back: the test tests less than it says", want)
		}
	}
	loose(t, "table attempt", attempts, hidden)
	loose(t, "table audit", g.table(t, "audit"), hidden)
	g.noneStored(t, secrets)
}

// faultsOf says back what a provider should not: the credential and the address.
func faultsOf(kind, credential string) []emulator.Fault {
	said := credential + " may not mail canarylocal-refused@example.org"
	body := fmt.Sprintf(`{"errors":[{"message":%q,"field":%[1]q,"error_id":%[1]q}],"message":%[1]q,"Message":%[1]q,"ErrorCode":999,"__type":%[1]q,"code":%[1]q}`, said)
	all := []emulator.Fault{
		{Mode: "throttle", Match: "*-throttled@*", Count: 1, Seconds: 1},
		{Mode: "drop_before", Match: "*-dropped@*", Count: 1},
		{Mode: "accept_then_drop", Match: "*-lost@*", Count: 1},
		{Mode: "black_hole", Match: "*-timeout@*", Count: 1},
	}
	for outcome, status := range map[string]int{"refused": 400, "failing": 503, "broken": 500, "unauthorized": 401} {
		f := emulator.Fault{Mode: "error", Match: "*-" + outcome + "@*", Count: 1, Status: status, Body: body}
		if status == 401 {
			f.Body = strings.ReplaceAll(body, credential, wrongSecret) // which is then in use
		}
		if kind == "smtp" {
			f.Stage, f.Body = "data", said
			f.Status = map[int]int{400: 554, 503: 451, 500: 421, 401: 535}[status]
		}
		all = append(all, f)
	}
	return all
}

// sendEveryWay has messages accepted, refused, throttled, lost and parked, by each provider.
func (g *guarded) sendEveryWay(t *testing.T) {
	t.Helper()
	c := secretCanaries()
	credentials := map[string]string{
		"sendgrid": c.SendGridKey, "mailgun": c.MailgunKey, "postmark": c.PostmarkToken, "ses": c.AWSSecretAccessKey,
		"smtp": c.SMTPPassword,
	}
	script := map[string][]emulator.Fault{}
	for kind, credential := range credentials {
		script[kind] = faultsOf(kind, credential)
	}
	g.faults(t, script)
	var all []api.SendRequest
	for _, account := range accountNames() {
		for _, outcome := range []string{"fine", "refused", "failing", "broken", "throttled", "dropped", "lost"} {
			all = append(all, canaryLetter(account, outcome))
		}
	}
	submit(t, g.api, all)
	g.settle(t, 90*time.Second)
	if n := len(g.emu.Ledger()); n < 2*len(accountNames()) {
		t.Errorf("messages accepted by providers = %d, want two of each at least", n)
	}
	wrong := map[string]string{"sendgrid": "api_key", "mailgun": "api_key", "postmark": "server_token", "ses": "secret_access_key", "smtp": "password"}
	for _, account := range accountNames() {
		if _, err := g.admin.PatchAccount(t.Context(), account, api.AccountRequest{Secrets: map[string]string{wrong[account]: wrongSecret}}); err != nil {
			t.Fatal(err)
		}
	}
	g.bench.binds(t, g.replica)
	var refused []string
	for _, account := range accountNames() {
		refused = append(refused, send(t, g.api, canaryLetter(account, "unauthorized")))
	}
	eventually(t, 30*time.Second, "every account is parked", func() bool {
		return g.count(t.Context(), `SELECT count(*) FROM audit WHERE action = 'account.park'`) == len(accountNames())
	})
	g.keepCanaries(t)
	for _, id := range refused { // they would park the accounts again
		if _, err := g.api.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	var hang []string
	for _, account := range accountNames() {
		if _, err := g.admin.ResumeAccount(t.Context(), account); err != nil {
			t.Fatal(err)
		}
	}
	g.bench.binds(t, g.replica)
	for _, account := range accountNames() {
		hang = append(hang, send(t, g.api, canaryLetter(account, "timeout")))
	}
	for _, id := range hang {
		eventually(t, 30*time.Second, "the call hangs", func() bool { return len(message(t, g.api, id).Attempts) > 0 })
	}
	if err := g.emu.Stop(t.Context()); err != nil { // ends the calls without an answer
		t.Error(err)
	}
	for _, id := range hang {
		eventually(t, 30*time.Second, "a call that hung ends", func() bool { return message(t, g.api, id).Attempts[0].Class != "" })
	}
}

// askWrongly makes requests that are refused, each with canaries where they should not be.
func (g *guarded) askWrongly(t *testing.T) {
	t.Helper()
	good, err := json.Marshal(canaryLetter("ses", "fine"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(field, value string) string {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(good, &all); err != nil {
			t.Fatal(err)
		}
		all[field] = json.RawMessage(value)
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	bodies := []string{
		with("from", `"canarylocal"`), with("to", `["canarylocal a@example.org"]`), with("to", `[{"email":"canarylocal@example.org","name":"Canaryname\r\nBcc: x"}]`),
		with("subject", `"Canarysubject\r\nBcc: canarylocal@example.org"`), with("headers", `{"X-Note":"Canaryheader\nX: y"}`),
		with("headers", `{"X-SMTPAPI":"Canaryheader"}`), with("headers", `{"canaryfield@example.org":"Canaryheader"}`),
		with("metadata", `{"canaryfield@example.org ":"Canarymeta"}`), with("metadata", `{"note":"Canarymeta\u0001"}`),
		with("canaryfield@example.org", `1`), with("html", `7`), with("subject", `["Canarysubject"]`), with("send_at", `"canaryjson"`),
		with("attachments", `[{"filename":"canaryfile\u0000.txt","content":"canarycontent!"}]`), with("attachments", `["canarycontent"]`),
		with("account", `"canaryjson"`), with("stream", `"Canaryjson !"`), with("on_ambiguous", `"canaryjson"`), with("tags", `["canaryjson\u0007"]`),
		string(good[:len(good)-30]), string(good) + "canaryjson", `{"canaryfield@example.org":1,"canaryfield@example.org":2}`,
		`{"text":"canarytext ` + "\xff" + `"}`, `["canaryjson"]`, `{"to":"canarylocal@example.org\ud800"}`,
	}
	for _, body := range bodies {
		g.refused(t, http.MethodPost, "/v1/send", g.keys.api, body)
		g.call(t, http.MethodPost, "/v1/send/batch", g.keys.api, `{"messages":[`+body+`]}`, "canaryquery")
		g.call(t, http.MethodPost, "/admin/v1/route/explain", g.keys.admin, body, "")
	}
	g.call(t, http.MethodPost, "/v1/send", g.keys.api, string(good), "canaryquery-key")
	g.call(t, http.MethodPost, "/v1/send", g.keys.api, with("text", `"Canarytext, another"`), "canaryquery-key")
	g.refused(t, http.MethodPost, "/v1/send?canaryquery=1", g.keys.api, string(good))
	g.refused(t, http.MethodPost, "/v1/suppressions", g.keys.api, `{"email":"canarylocal@@example.org","reason":"canaryjson"}`)
	g.call(t, http.MethodPost, "/v1/suppressions", g.keys.api, `{"email":"canarylocal-suppressed@example.org"}`, "")
	g.call(t, http.MethodDelete, "/v1/suppressions/canarylocal-suppressed@example.org", g.keys.api, "", "")
	for _, path := range []string{
		"/v1/suppressions/canarylocal@example.org", "/v1/messages/canarylocal@example.org", "/canarylocal@example.org",
		"/v1/messages?to=canarylocal@@example.org", "/v1/messages?cursor=canaryquery", "/v1/messages?canaryquery%40example.org=1",
		"/v1/messages?api_key=" + g.keys.api, "/v1/messages?tag=canaryquery%01", "/v1/messages?since=canaryquery",
		"/admin/v1/accounts/canaryquery", "/admin/v1/keys/" + g.keys.api, "/admin/v1/audit?cursor=canaryquery",
	} {
		for _, method := range []string{http.MethodDelete, http.MethodGet, "CANARYQUERY"} {
			for _, key := range []string{g.keys.api, g.keys.admin, wrongSecret, g.keys.api[:40] + "hush-wrong-7Qx"} {
				g.refused(t, method, path, key, "")
			}
		}
	}
}

// configureWrongly makes admin requests that are refused, with secrets where they should not be.
func (g *guarded) configureWrongly(t *testing.T) {
	t.Helper()
	for _, account := range accountNames() {
		for _, body := range []string{
			`{"secrets":{"api_key":7}}`, `{"secrets":"` + wrongSecret + `"}`, `{"secrets":["` + wrongSecret + `"]}`, `{"secrets":{"nope":"` + wrongSecret + `"}}`,
			`{"settings":{"api_key":"` + wrongSecret + `","server_token":"` + wrongSecret + `","password":"` + wrongSecret + `","secret_access_key":"` + wrongSecret + `"}}`,
			`{"settings":{"webhook_password":"` + wrongSecret + `","webhook_signing_key":"` + wrongSecret + `","verp_key":"` + wrongSecret + `"}}`,
			`{"settings":{"webhook_public_keys":["` + wrongSecret + `"],"webhook_header":"` + wrongSecret + `:","sns_topic_arns":["` + wrongSecret + `"],"bounce_domain":"` + wrongSecret + `/"}}`,
			`{"settings":{"sns_base_url":"https://u:` + wrongSecret + `@example.com","sns_ca_pem":"` + wrongSecret + `"}}`,
			`{"settings":{"bounce_domain":"b.example.com","host":"127.0.0.1"},"secrets":{"verp_key":"` + wrongSecret + `"}}`,
			`{"secrets":{"webhook_signing_key":"` + wrongSecret + ` x","webhook_password":"` + wrongSecret + `\n","webhook_token":"` + wrongSecret + `"}}`,
			`{"settings":{"Api_Key":"` + wrongSecret + `","PASSWORD":"` + wrongSecret + `"}}`, `{"settings":{"nope":"` + wrongSecret + `"}}`,
			`{"settings":{"base_url":"https://u:` + wrongSecret + `@example.com"}}`, `{"settings":{"base_url":"https://example.com?k=` + wrongSecret + `"}}`,
			`{"settings":{"base_url":"://` + wrongSecret + `"}}`, `{"settings":{"host":"u:` + wrongSecret + `@example.com"}}`,
			`{"settings":{"concurrency":"` + wrongSecret + `"}}`, `{"settings":"` + wrongSecret + `"}`,
			`{"secrets":{"api_key":"` + wrongSecret + ` x","server_token":"` + wrongSecret + ` x"}}`, `{"secrets":{"api_key":"` + wrongSecret + `\u0001"}}`,
			`{"secrets":{"server_token":"` + wrongSecret + `\n"}}`, `{"secrets":{"secret_access_key":"` + wrongSecret + ` x"}}`,
			`{"settings":{"host":"127.0.0.1","dkim":{"domain":"example.com","selector":"s"}},"secrets":{"dkim_private_key":"` + wrongSecret + `"}}`,
			`{"secrets":{"dkim_private_key":"-----BEGIN PRIVATE KEY-----\n` + wrongSecret + `\n-----END PRIVATE KEY-----"}}`,
			`{"secrets":{"password":"` + wrongSecret,
		} {
			g.refused(t, http.MethodPatch, "/admin/v1/accounts/"+account, g.keys.admin, body)
			g.refused(t, http.MethodPost, "/admin/v1/accounts", g.keys.admin, `{"name":"n-`+account+`","kind":"`+account+`",`+body[1:])
		}
	}
	g.refused(t, http.MethodPost, "/admin/v1/accounts", g.keys.admin, `{"name":"n","kind":"`+"canaryjson"+`","secrets":{"api_key":"`+wrongSecret+`"}}`)
	g.refused(t, http.MethodPost, "/admin/v1/keys", g.keys.admin, `{"name":"n","scopes":["`+wrongSecret+`"],"tenant":"default"}`)
	for _, path := range []string{
		"/admin/v1/accounts/%00/pause", "/admin/v1/accounts/%ff/pause", "/admin/v1/accounts/%00/resume",
	} {
		g.refused(t, http.MethodPost, path, g.keys.admin, "")
	}
	for _, path := range []string{"/admin/v1/accounts/%00", "/admin/v1/accounts/%ff", "/admin/v1/keys/%00", "/admin/v1/keys/%ff", "/admin/v1/rules/%00"} {
		g.refused(t, http.MethodDelete, path, g.keys.admin, "")
	}
}

// lookAround reads everything that an operator can read.
func (g *guarded) lookAround(t *testing.T) {
	t.Helper()
	for _, what := range []string{
		"accounts", "accounts/ses", "accounts/smtp/limits", "pools", "rules", "keys", "tenants", "queue", "limits", "audit?limit=200",
		"accounts/mailgun/webhooks", "accounts/postmark/webhooks", "accounts/ses/webhooks",
	} {
		if status := g.call(t, http.MethodGet, "/admin/v1/"+what, g.keys.admin, "", ""); status != http.StatusOK {
			t.Errorf("GET %s = %d, want 200", what, status)
		}
	}
	page, err := g.api.Messages(t.Context(), api.MessageQuery{Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Data {
		message(t, g.api, m.ID)
	}
}

// refused makes a call that must be answered with an error that is the caller's.
func (g *guarded) refused(t *testing.T, method, path, key, body string) {
	t.Helper()
	if status := g.call(t, method, path, key, body, ""); status < 400 || status >= 500 {
		t.Errorf("%s %s %.120s = %d, want 4xx", method, path, body, status)
	}
}

func (g *guarded) call(t *testing.T, method, path, key, body, idempotency string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("X-Request-Id", "canaryquery@example.org")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if idempotency != "" {
		req.Header.Set("Idempotency-Key", idempotency)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (g *guarded) get(t *testing.T, from string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// doctor collects what the checks say when all is well, when the secret key is another one and when the database is not
// there.
func (g *guarded) doctor(t *testing.T) string {
	t.Helper()
	var said strings.Builder
	for _, extra := range []string{
		"SENDGATE_DATABASE_URL=" + withPassword(t, g.dsn), "SENDGATE_SECRET_KEY=" + hex.EncodeToString([]byte("another key of thirty-two bytes!")),
		"SENDGATE_DATABASE_URL=postgres://u:" + dbPassword + "@127.0.0.1:1/none",
		"SENDGATE_DATABASE_URL=host=127.0.0.1 port=1 user=u dbname=none password=" + dbPassword,
	} {
		checks, err := json.Marshal(Doctor(t.Context(), g.config(t, extra)))
		if err != nil {
			t.Fatal(err)
		}
		said.Write(checks)
	}
	for _, dsn := range []string{"postgres://u:" + dbPassword + "@[::1", "postgres://u:" + dbPassword + "@h:port/d?sslmode=x", "host=h password='" + dbPassword} {
		fmt.Fprint(&said, postgres.SafeURL(dsn), postgres.Migrate(t.Context(), dsn, &said))
	}
	return said.String()
}

// table gives all rows of a table as text.
func (g *guarded) table(t *testing.T, name string) string {
	t.Helper()
	var all *string
	if err := g.rows.QueryRow(t.Context(), `SELECT string_agg(x::text, E'\n') FROM `+name+` x`).Scan(&all); err != nil {
		t.Fatal(err)
	}
	if all == nil {
		return ""
	}
	return *all
}

// noneStored looks for the secrets in every row of every table, also as bytes.
func (g *guarded) noneStored(t *testing.T, secrets []string) {
	t.Helper()
	words := slices.Clone(secrets)
	for _, s := range secrets {
		words = append(words, hex.EncodeToString([]byte(s)))
	}
	rows, err := g.rows.Query(t.Context(), `SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if len(tables) < 10 {
		t.Errorf("tables = %v, want all", tables)
	}
	for _, name := range tables {
		loose(t, "table "+name, g.table(t, name), words)
	}
}
