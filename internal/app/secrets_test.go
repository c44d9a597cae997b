//go:build drill

package app

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// canaries are the secrets of an account, made of words that occur nowhere else. If one is found anywhere, it has leaked.
type canaries struct {
	credential  string            // the secret among the credentials
	credentials map[string]string // as the emulators have them
	settings    map[string]any    // beside those that the emulators need
	secrets     map[string]string
}

func canariesOf(t *testing.T, kind string) canaries {
	t.Helper()
	return entry(t, "canariesOf (secrets_test.go)", map[string]canaries{
		"sendgrid": {credential: "api_key", credentials: map[string]string{"api_key": "SG.hush-sendgrid.7Qx/+="}},
		"mailgun": {
			credential: "api_key", credentials: map[string]string{"api_key": "key-hush-mailgun-7Qx", "domain": "mg.example.com"},
			secrets: map[string]string{"webhook_signing_key": signingCanary, "webhook_signing_key_previous": signingCanary + "-old"},
		},
		"postmark": {
			credential: "server_token", credentials: map[string]string{"server_token": "hush-postmark-7Qx"},
			settings: map[string]any{"webhook_header": "X-Hush"},
			secrets: map[string]string{
				"webhook_password": passwordCanary, "webhook_password_previous": passwordCanary + "-old",
				"webhook_token": tokenCanary, "webhook_token_previous": tokenCanary + "-old",
			},
		},
		"resend": {credential: "api_key", credentials: map[string]string{"api_key": "re_hush_resend_7Qx"}},
		"ses": {
			credential:  "secret_access_key",
			credentials: map[string]string{"access_key_id": "AKIAHUSHACCESS7QX000", "secret_access_key": "hush/aws+secret/7QxEXAMPLE", "region": "us-east-1"},
			settings:    map[string]any{"sns_topic_arns": []string{topicOfCanaries}},
		},
		"smtp": {
			credential: "password", credentials: map[string]string{"username": "sendgate", "password": "hush-smtp-password-7Qx"},
			settings: map[string]any{"reports_by_http": true}, secrets: map[string]string{"verp_key": verpCanary},
		},
	}, kind)
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

// journal is a log, and what a client heard.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *journal) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *journal) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// listener keeps the answers of the API that must contain no secret, which are all except those that make one. It keeps admin
// answers and errors separately as well, because they must not contain private fields either.
type listener struct {
	next        http.RoundTripper
	all, closed journal
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
	log   *journal
	heard *listener
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	credentials := map[string]map[string]string{}
	for _, kind := range accountNames() {
		credentials[kind] = canariesOf(t, kind).credentials
	}
	g := &guarded{bench: newBench(t, benchOptions{emu: emulator.Options{Credentials: credentials}}), log: &journal{}}
	g.heard = &listener{next: g.http.Transport}
	g.http.Transport = g.heard
	listen := fixedAddr(t)
	a, err := New(g.config(t, "SENDGATE_UNKNOWN_WAIT=1s", "SENDGATE_RECONCILE_DEADLINE=1s", "SENDGATE_LISTEN="+listen,
		"SENDGATE_PUBLIC_URL=http://"+listen, "SENDGATE_FORWARD_ALLOW=127.0.0.0/8:"+g.listenWebhooks(t),
		"SENDGATE_DATABASE_URL="+withPassword(t, g.dsn)), telemetry.NewLogger(g.log, slog.LevelDebug, "json"))
	if err != nil {
		t.Fatal(err)
	}
	g.app, g.replica = a, g.begin(t, a)
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

// keepCanaries gives the accounts the canaries for credentials, by the admin API.
func (g *guarded) keepCanaries(t *testing.T) {
	t.Helper()
	for _, a := range g.emu.Accounts() {
		c := canariesOf(t, a.Kind)
		maps.Copy(a.Settings, c.settings)
		maps.Copy(a.Secrets, c.secrets)
		if _, err := g.admin.PatchAccount(t.Context(), a.Kind, api.AccountRequest{Settings: toJSON(t, a.Settings), Secrets: a.Secrets}); err != nil {
			t.Fatalf("account %s: %v", a.Kind, err)
		}
	}
	g.binds(t, g.replica)
}

// secrets lists what must be found nowhere.
func (g *guarded) secrets() []string {
	words := []string{
		signingCanary, passwordCanary, tokenCanary, verpCanary, snsCanary, wrongSecret, dbPassword, g.secret, g.keys.api[12:], g.keys.admin[12:],
		base64.StdEncoding.EncodeToString([]byte("sendgate:" + passwordCanary)),
	}
	for _, account := range g.emu.Accounts() {
		for _, secret := range account.Secrets {
			words = append(words, secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte("api:"+secret)))
		}
	}
	return words
}

// loose returns the words that occur in a text, in any case, each with some text around it.
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
	// Callers name fields, parameters and accounts themselves. An answer may say them back, a log may not.
	callersWords := []string{"anaryfield", "anaryquery", "anaryjson"}
	hidden := slices.Concat(privateCanaries(), callersWords, secrets)
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

// faultsOf makes a provider repeat what it should not: the credential and the address.
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
		if emulates(kind).SMTP {
			f.Stage, f.Body = "data", said
			f.Status = map[int]int{400: 554, 503: 451, 500: 421, 401: 535}[status]
		}
		all = append(all, f)
	}
	return all
}

// sendEveryWay sends messages that are accepted, refused, throttled, lost and parked, through each provider.
func (g *guarded) sendEveryWay(t *testing.T) {
	t.Helper()
	script := map[string][]emulator.Fault{}
	for _, kind := range accountNames() {
		script[kind] = faultsOf(kind, g.emu.Secret(kind, canariesOf(t, kind).credential))
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
	for _, account := range accountNames() {
		if _, err := g.admin.PatchAccount(t.Context(), account, api.AccountRequest{Secrets: map[string]string{canariesOf(t, account).credential: wrongSecret}}); err != nil {
			t.Fatal(err)
		}
	}
	g.binds(t, g.replica)
	var refused []string
	for _, account := range accountNames() {
		refused = append(refused, send(t, g.api, canaryLetter(account, "unauthorized")))
	}
	eventually(t, settleTime, "every account is parked", func() bool {
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
	g.binds(t, g.replica)
	for _, account := range accountNames() {
		hang = append(hang, send(t, g.api, canaryLetter(account, "timeout")))
	}
	for _, id := range hang {
		eventually(t, settleTime, "the call hangs", func() bool { return len(message(t, g.api, id).Attempts) > 0 })
	}
	if err := g.emu.Stop(t.Context()); err != nil { // ends the calls without an answer
		t.Error(err)
	}
	for _, id := range hang {
		eventually(t, settleTime, "a call that hung ends", func() bool { return message(t, g.api, id).Attempts[0].Class != "" })
	}
}

// refused makes a call that must be answered with a 4xx.
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
