package smtp

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// issuer is a token endpoint (RFC 6749). It numbers its tokens.
type issuer struct {
	*httptest.Server
	answer func(n int, form url.Values) (status int, body string) // nil for the next token

	mu    sync.Mutex
	forms []url.Values
}

func startIssuer(t *testing.T, answer func(int, url.Values) (int, string)) *issuer {
	t.Helper()
	i := &issuer{answer: answer}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Errorf("form: %v", err)
		}
		i.mu.Lock()
		i.forms = append(i.forms, r.PostForm)
		n := len(i.forms)
		i.mu.Unlock()
		status, body := http.StatusOK, fmt.Sprintf(`{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, n)
		if i.answer != nil {
			status, body = i.answer(n, r.PostForm)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) asked() []url.Values {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.forms)
}

// tokenRelay accepts the given tokens, as Google and Microsoft do: it refuses others with a challenge, and says 535 after an
// empty line only.
func tokenRelay(t *testing.T, takes func(token string) bool) *relay {
	t.Helper()
	return startRelay(t, func(r *relay) {
		r.ehlo = []string{"relay.test", "AUTH LOGIN XOAUTH2"}
		var mu sync.Mutex
		refusing := map[int]bool{}
		r.reply = func(conn int, line string) (string, bool) {
			mu.Lock()
			defer mu.Unlock()
			if refusing[conn] {
				refusing[conn] = false
				if line != "" {
					return "501 5.5.2 want an empty line after the challenge", true
				}
				return "535 5.7.8 Username and Password not accepted", true
			}
			if line == "AUTH XOAUTH2" {
				return "334 " + b64("the token, please"), true
			}
			raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, "AUTH XOAUTH2 "))
			if err != nil {
				return "", false
			}
			token, ours := strings.CutPrefix(string(raw), "user=shop@example.com\x01auth=Bearer ")
			token, ended := strings.CutSuffix(token, "\x01\x01")
			switch {
			case !ours || !ended:
				return "", false
			case len(line) > 512 && strings.HasPrefix(line, "AUTH"):
				return "500 5.5.6 line too long", true
			case takes(token):
				return "235 2.7.0 Accepted", true
			}
			refusing[conn] = true
			return "334 " + b64(`{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}`), true
		}
	})
}

// tokenDialer is the dialer of an account with auth xoauth2.
func tokenDialer(t *testing.T, r *relay, secrets map[string]string, settings map[string]any) *dialer {
	t.Helper()
	sealed := map[string]seal.Secret{}
	for name, v := range secrets {
		sealed[name] = seal.NewSecret(v)
	}
	all := map[string]any{"username": "shop@example.com", "auth": "xoauth2"}
	for name, v := range settings {
		all[name] = v
	}
	return newDialer(r.config(sealed, all))
}

// dialOnce opens a session and closes it.
func dialOnce(t *testing.T, d *dialer) *provider.Error {
	t.Helper()
	s, perr := d.dial(deadline(t))
	if perr == nil {
		s.quit()
	}
	return perr
}

func always(string) bool { return true }

func TestClientCredentialsLogIn(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, nil)
	d := tokenDialer(t, tokenRelay(t, always), map[string]string{"client_secret": "cs"}, map[string]any{
		"token_url": i.URL + "/tenant/oauth2/v2.0/token", "client_id": "app", "scope": "https://outlook.office365.com/.default",
	})
	for range 3 {
		wantClass(t, "dial", dialOnce(t, d), provider.Accepted)
	}
	want := []url.Values{{
		"grant_type": {"client_credentials"}, "client_id": {"app"}, "client_secret": {"cs"}, "scope": {"https://outlook.office365.com/.default"},
	}}
	if diff := cmp.Diff(want, i.asked()); diff != "" {
		t.Errorf("requests for a token, want one for three connections (-want +got):\n%s", diff)
	}
}

// A token is replaced before its end, by the newest refresh token: Microsoft gives another with each access token.
func TestTokensAreRefreshedBeforeTheyEnd(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, func(n int, _ url.Values) (int, string) {
		return 200, fmt.Sprintf(`{"access_token":"token-%[1]d","token_type":"Bearer","expires_in":"3600","refresh_token":"refresh-%[1]d"}`, n)
	})
	d := tokenDialer(t, tokenRelay(t, always), map[string]string{"client_secret": "cs", "refresh_token": "refresh-0"},
		map[string]any{"token_url": i.URL, "client_id": "app"})
	for _, step := range []struct {
		later time.Duration
		asked int
	}{{0, 1}, {58 * time.Minute, 1}, {59*time.Minute + 30*time.Second, 2}, {59*time.Minute + 30*time.Second, 3}} {
		d.tokens.now = func() time.Time { return time.Now().Add(step.later) }
		wantClass(t, "dial", dialOnce(t, d), provider.Accepted)
		if got := len(i.asked()); got != step.asked {
			t.Errorf("%s later: %d requests for a token, want %d", step.later, got, step.asked)
		}
	}
	var refresh []string
	for _, f := range i.asked() {
		if f.Get("grant_type") != "refresh_token" || f.Get("client_id") != "app" {
			t.Errorf("asked with %v", f)
		}
		refresh = append(refresh, f.Get("refresh_token"))
	}
	if diff := cmp.Diff([]string{"refresh-0", "refresh-1", "refresh-2"}, refresh); diff != "" {
		t.Errorf("refresh tokens that were used (-want +got):\n%s", diff)
	}
}

func TestARefusedTokenIsReplacedOnce(t *testing.T) {
	t.Parallel()
	var good atomic.Value
	good.Store("token-1")
	i, r := startIssuer(t, nil), tokenRelay(t, func(token string) bool { return token == good.Load() })
	d := tokenDialer(t, r, map[string]string{"client_secret": "cs"}, map[string]any{"token_url": i.URL, "client_id": "app"})
	wantClass(t, "the first token", dialOnce(t, d), provider.Accepted)
	good.Store("token-2") // the first is revoked
	wantClass(t, "after a revocation", dialOnce(t, d), provider.Accepted)
	good.Store("none") // the mailbox is closed to us
	perr := dialOnce(t, d)
	wantClass(t, "when no token helps", perr, provider.Misconfigured)
	if n := len(i.asked()); n != 3 {
		t.Errorf("%d requests for a token, want 3", n)
	}
	if perr != nil {
		for _, want := range []string{"not accepted", "auth is xoauth2", "status 401", "https://mail.google.com/"} {
			if !strings.Contains(perr.Detail, want) {
				t.Errorf("the error %q does not say %q", perr.Detail, want)
			}
		}
	}
	if conns, _ := r.count(); conns != 5 {
		t.Errorf("%d connections, want 5: each other token goes on one of its own", conns)
	}
}

// A token that was fetched for this connection is not replaced: the next one would be refused as well.
func TestAFreshTokenThatIsRefusedCounts(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, nil)
	d := tokenDialer(t, tokenRelay(t, func(string) bool { return false }), map[string]string{"client_secret": "cs"},
		map[string]any{"token_url": i.URL, "client_id": "app"})
	wantClass(t, "dial", dialOnce(t, d), provider.Misconfigured)
	if n := len(i.asked()); n != 1 {
		t.Errorf("%d requests for a token, want 1", n)
	}
}

func TestATokenOfTheSettings(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]string{"short": "static-token", "of more than a command line": strings.Repeat("long-token.", 200)} {
		r := tokenRelay(t, func(got string) bool { return got == token })
		wantClass(t, name, dialOnce(t, tokenDialer(t, r, map[string]string{"access_token": token}, nil)), provider.Accepted)
		wantClass(t, name+", wrong", dialOnce(t, tokenDialer(t, r, map[string]string{"access_token": "x" + token}, nil)), provider.Misconfigured)
	}
}

// If a server asks for the token although it came with the command, it gets the token again. Only a challenge with a reason
// gets an empty answer.
func TestXOAUTH2AnswersWhatItIsAsked(t *testing.T) {
	t.Parallel()
	m := mechanismOf("XOAUTH2", login{"shop@example.com", "token-1"})
	for _, tc := range []struct {
		challenge string
		said      int
		want      string
	}{{"", 0, m.initial}, {"go on", 0, m.initial}, {"", 1, m.initial}, {`{"status":"401"}`, 1, ""}, {`{"status":"401"}`, 2, ""}} {
		if got := m.answer(tc.challenge, tc.said); got != tc.want {
			t.Errorf("answer to %q after %d = %q, want %q", tc.challenge, tc.said, got, tc.want)
		}
	}
}

func TestManyConnectionsShareOneToken(t *testing.T) {
	t.Parallel()
	i := startIssuer(t, nil)
	d := tokenDialer(t, tokenRelay(t, always), map[string]string{"client_secret": "cs"}, map[string]any{"token_url": i.URL, "client_id": "app"})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { wantClass(t, "dial", dialOnce(t, d), provider.Accepted) })
	}
	wg.Wait()
	if n := len(i.asked()); n != 1 {
		t.Errorf("%d requests for a token, want 1", n)
	}
}

func TestTokenEndpointFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status int
		body   string
		class  provider.Class
		says   string
	}{
		{400, `{"error":"invalid_grant","error_description":"the refresh token was revoked"}`, provider.Misconfigured, "invalid_grant: the refresh token was revoked"},
		{401, `{"error":"invalid_client","error_description":"AADSTS7000215: wrong secret hush-hush"}`, provider.Misconfigured, "invalid_client"},
		{403, `<html>internal page`, provider.Misconfigured, "403"},
		{302, ``, provider.Misconfigured, "302"},
		{200, `{"error":"unauthorized_client"}`, provider.Misconfigured, "unauthorized_client"},
		{200, `{}`, provider.Misconfigured, "access_token"},
		{200, `not json`, provider.Misconfigured, "token_url"},
		{429, `{}`, provider.Transient, "429"},
		{503, `down`, provider.Transient, "503"},
		{200, `{"access_token":"` + strings.Repeat("x", 70<<10) + `"}`, provider.Misconfigured, "token_url"},
	} {
		i := startIssuer(t, func(int, url.Values) (int, string) { return tc.status, tc.body })
		r := tokenRelay(t, always)
		cfg := tokenDialer(t, r, map[string]string{"client_secret": "hush-hush"}, map[string]any{"token_url": i.URL, "client_id": "app"}).cfg
		_, perr := sendTo(t, r.clientWith(cfg), "ann@example.org")
		wantClass(t, tc.body, perr, tc.class)
		if perr == nil {
			continue
		}
		if !strings.Contains(perr.Detail, tc.says) || !strings.Contains(perr.Detail, "token_url") {
			t.Errorf("the error %q does not say %q", perr.Detail, tc.says)
		}
		if shown := fmt.Sprintf("%v %v", perr, perr.Err); strings.Contains(shown, "hush-hush") || strings.Contains(shown, "internal page") {
			t.Errorf("the error shows too much: %s", shown)
		}
		if conns, _ := r.count(); conns != 0 {
			t.Error("connected without a token")
		}
	}
	gone := startIssuer(t, nil)
	gone.Close()
	d := tokenDialer(t, tokenRelay(t, always), map[string]string{"client_secret": "cs"}, map[string]any{"token_url": gone.URL, "client_id": "app"})
	wantClass(t, "an endpoint that is away", dialOnce(t, d), provider.Transient)
}

func TestTokenSettingsAreChecked(t *testing.T) {
	t.Parallel()
	const on = `"host":"mail.example.com","username":"u","auth":"xoauth2"`
	for _, tc := range []struct{ settings, secrets, want string }{
		{`{` + on + `}`, "", "token_url"},
		{`{"host":"mail.example.com","auth":"xoauth2"}`, "access_token", "username"},
		{`{` + on + `,"token_url":"https://login.example.com/token"}`, "client_secret", "client_id"},
		{`{` + on + `,"token_url":"https://login.example.com/token","client_id":"a"}`, "access_token", "client_secret or refresh_token"},
		{`{` + on + `,"token_url":"http://login.example.com/token","client_id":"a"}`, "client_secret", "https"},
		{`{` + on + `,"token_url":"https://10.0.0.1/token","client_id":"a"}`, "client_secret", "public"},
		{`{` + on + `,"token_url":"https://169.254.169.254/token","client_id":"a"}`, "client_secret", "public"},
		{`{` + on + `,"client_id":"a"}`, "access_token", "token_url"},
		{`{"host":"mail.example.com","username":"u","token_url":"https://login.example.com/token"}`, "password", "auth xoauth2"},
		{`{"host":"mail.example.com","username":"u","auth":"oauth"}`, "password", "want auto, plain, login, cram-md5 or xoauth2"},
		{`{` + on + `,"token_url":"https://login.example.com/token","client_id":"a"}`, "client_secret", ""},
		{`{` + on + `,"token_url":"https://login.example.com/token","client_id":"a"}`, "refresh_token", ""},
		{`{` + on + `,"token_url":"http://localhost:8080/token","client_id":"a"}`, "refresh_token", ""},
		{`{` + on + `}`, "access_token password", ""},
		{`{"host":"mail.example.com","username":"u","auth":"cram-md5"}`, "access_token password", ""},
	} {
		secrets := map[string]seal.Secret{}
		for _, name := range strings.Fields(tc.secrets) {
			secrets[name] = seal.NewSecret("s3cret")
		}
		_, err := ParseConfig([]byte(tc.settings), secrets)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s with %s: %v", tc.settings, tc.secrets, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s with %s: err = %v, want one about %s", tc.settings, tc.secrets, err, tc.want)
		}
	}
}
