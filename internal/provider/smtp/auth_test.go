package smtp

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	authUser     = "relay-user"
	authPassword = "s3cret-Pässword"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// script makes a relay that takes exactly one dialogue: lines that it is told, each with its reply. Any other line of a login
// is a 535.
func script(offer string, pairs ...string) func(*relay) {
	return func(r *relay) {
		r.ehlo = []string{"relay.test", offer}
		next := 0
		r.reply = func(_ int, line string) (string, bool) {
			verb, _, _ := strings.Cut(line, " ")
			if next == 0 && line == "" || slices.Contains([]string{"EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"}, verb) {
				return "", false
			}
			if next < len(pairs) && line == pairs[next] {
				next += 2
				return pairs[next-1], true
			}
			return "535 5.7.8 this is not what I wanted: " + line, true
		}
	}
}

func authClient(t *testing.T, r *relay, auth string) *Client {
	t.Helper()
	settings := map[string]any{"username": authUser}
	if auth != "" {
		settings["auth"] = auth
	}
	return r.clientWith(r.config(map[string]seal.Secret{"password": seal.NewSecret(authPassword)}, settings))
}

// The dialects of LOGIN that servers speak: no standard has it.
func TestLoginDialects(t *testing.T) {
	t.Parallel()
	const ok = "235 2.7.0 Authentication successful"
	user, password := b64(authUser), b64(authPassword)
	dialogue := func(first, second string) []string {
		return []string{"AUTH LOGIN", first, user, second, password, ok}
	}
	for name, pairs := range map[string][]string{
		"Username: and Password:":         dialogue("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
		"of the draft, with a NUL":        dialogue("334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"),
		"lower case":                      dialogue("334 "+b64("username:"), "334 "+b64("password:")),
		"other words":                     dialogue("334 "+b64("Login name?"), "334 "+b64("Your secret?")),
		"another language":                dialogue("334 "+b64("Benutzer:"), "334 "+b64("Kennwort:")),
		"words that say nothing":          dialogue("334 "+b64("1"), "334 "+b64("2")),
		"no padding":                      dialogue("334 VXNlciBOYW1lAA", "334 UGFzc3dvcmQA"),
		"empty":                           dialogue("334 ", "334 "),
		"empty, without the space":        dialogue("334", "334"),
		"over two lines":                  dialogue("334-hello\r\n334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
		"as it reads":                     dialogue("334 Username:", "334 Password:"),
		"as it reads, and Base64 by luck": dialogue("334 Username", "334 Password"),
		"the password first": {
			"AUTH LOGIN", "334 UGFzc3dvcmQ6", password, "334 VXNlcm5hbWU6", user, ok,
		},
		"the same, as it reads": {
			"AUTH LOGIN", "334 Password", password, "334 Username", user, ok,
		},
		"the user name twice": {
			"AUTH LOGIN", "334 VXNlcm5hbWU6", user, "334 VXNlcm5hbWU6", user, "334 UGFzc3dvcmQ6", password, ok,
		},
		"only with the user name in the command": {
			"AUTH LOGIN", "501 5.5.4 Syntax: AUTH mechanism initial-response", "AUTH LOGIN " + user, "334 UGFzc3dvcmQ6", password, ok,
		},
		"the same, said with 535": {
			"AUTH LOGIN", "535 authentication failed", "AUTH LOGIN " + user, "334 ", password, ok,
		},
		"another code for success": {"AUTH LOGIN", "334 VXNlcm5hbWU6", user, "334 UGFzc3dvcmQ6", password, "250 ok"},
	} {
		for _, auth := range []string{"", "auto", "login"} {
			t.Run(name+" "+auth, func(t *testing.T) {
				t.Parallel()
				c := authClient(t, startRelay(t, script("AUTH LOGIN", pairs...)), auth)
				_, perr := sendTo(t, c, "ann@example.org")
				wantClass(t, "send", perr, provider.Accepted)
			})
		}
	}
}

// Servers treat an initial response in different ways: they take it, ask for it again, or refuse it.
func TestInitialResponseDialects(t *testing.T) {
	t.Parallel()
	plain := b64("\x00" + authUser + "\x00" + authPassword)
	for name, pairs := range map[string][]string{
		"taken":             {"AUTH PLAIN " + plain, "235 ok"},
		"ignored":           {"AUTH PLAIN " + plain, "334 ", plain, "235 ok"},
		"ignored, no space": {"AUTH PLAIN " + plain, "334", plain, "235 ok"},
		"refused with 501":  {"AUTH PLAIN " + plain, "501 5.5.2 no argument here", "AUTH PLAIN", "334 ", plain, "235 ok"},
		"refused with 500":  {"AUTH PLAIN " + plain, "500 line too long", "AUTH PLAIN", "334 Z28gb24=", plain, "235 ok"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := authClient(t, startRelay(t, script("AUTH PLAIN", pairs...)), "")
			_, perr := sendTo(t, c, "ann@example.org")
			wantClass(t, "send", perr, provider.Accepted)
		})
	}
}

func TestAutoTakesWhatTheRelayOffers(t *testing.T) {
	t.Parallel()
	plain := b64("\x00" + authUser + "\x00" + authPassword)
	const challenge = "<1896.697170952@relay.test>"
	digest := mechanismOf("CRAM-MD5", login{authUser, authPassword}).answer(challenge, 0)
	// The example of RFC 2195 section 2.
	rfc := mechanismOf("CRAM-MD5", login{"tim", "tanstaaftanstaaf"}).answer("<1896.697170952@postoffice.reston.mci.net>", 0)
	if want := "tim b913a602c7eda7a495b4e6e7334d3890"; rfc != want {
		t.Errorf("CRAM-MD5 = %q, want %q", rfc, want)
	}
	byPlain := []string{"AUTH PLAIN " + plain, "235 ok"}
	byLogin := []string{"AUTH LOGIN", "334 VXNlcm5hbWU6", b64(authUser), "334 UGFzc3dvcmQ6", b64(authPassword), "235 ok"}
	byCRAM := []string{"AUTH CRAM-MD5", "334 " + b64(challenge), b64(digest), "235 ok"}
	for _, tc := range []struct {
		offer string
		pairs []string
	}{
		{"AUTH PLAIN LOGIN", byPlain},
		{"AUTH CRAM-MD5 DIGEST-MD5 LOGIN PLAIN", byPlain},
		{"AUTH=LOGIN PLAIN", byPlain},
		{"AUTH LOGIN\r\n250-AUTH=LOGIN PLAIN", byPlain},
		{"AUTH LOGIN PLAIN\r\n250-AUTH=LOGIN", byPlain},
		{"AUTH=LOGIN", byLogin},
		{"auth login", byLogin},
		{"AUTH GSSAPI NTLM LOGIN", byLogin},
		{"AUTH GSSAPI NTLM CRAM-MD5", byCRAM},
		{"AUTH PLAIN LOGIN", slices.Concat([]string{"AUTH PLAIN " + plain, "504 5.7.4 Unrecognized authentication type"}, byLogin)},
		{"AUTH PLAIN LOGIN", slices.Concat([]string{"AUTH PLAIN " + plain, "534 5.7.9 mechanism is too weak"}, byLogin)},
		{"AUTH PLAIN LOGIN", slices.Concat([]string{"AUTH PLAIN " + plain, "535 no"}, byLogin)},
		{"AUTH LOGIN CRAM-MD5", slices.Concat([]string{"AUTH LOGIN", "504 not here"}, byCRAM)},
	} {
		r := startRelay(t, script(tc.offer, tc.pairs...))
		_, perr := sendTo(t, authClient(t, r, ""), "ann@example.org")
		wantClass(t, tc.offer, perr, provider.Accepted)
	}
}

// The next connection first tries a mechanism that worked before, because a refusal at each connection would look like an
// attack.
func TestAutoRemembersWhatWorked(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.ehlo = []string{"relay.test", "AUTH PLAIN LOGIN"}
		r.reply = on("AUTH PLAIN", "504 5.7.4 no", "AUTH LOGIN", "334 VXNlcm5hbWU6", b64(authUser), "334 UGFzc3dvcmQ6", b64(authPassword), "235 ok")
	})
	c := r.clientWith(r.config(map[string]seal.Secret{"password": seal.NewSecret(authPassword)},
		map[string]any{"username": authUser, "max_messages_per_connection": 1}))
	for range 3 {
		_, perr := sendTo(t, c, "ann@example.org")
		wantClass(t, "send", perr, provider.Accepted)
	}
	if diff := cmp.Diff([]int{1, 3}, []int{len(r.said("AUTH PLAIN")), len(r.said("AUTH LOGIN"))}); diff != "" {
		t.Errorf("AUTH PLAIN and AUTH LOGIN (-want +got):\n%s", diff)
	}
}

// A wrong password is tried once: servers lock an account after a few.
func TestAWrongPasswordIsTriedOnce(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.ehlo = []string{"relay.test", "AUTH PLAIN LOGIN CRAM-MD5"}
		r.reply = on("AUTH", "535 5.7.8 authentication failed")
	})
	_, perr := sendTo(t, authClient(t, r, ""), "ann@example.org")
	wantClass(t, "send", perr, provider.Misconfigured)
	if got := r.said("AUTH"); len(got) != 1 {
		t.Errorf("said %q, want one AUTH", got)
	}
	for _, want := range []string{"authentication failed", "auth is auto", "PLAIN, LOGIN, CRAM-MD5"} {
		if perr != nil && !strings.Contains(perr.Detail, want) {
			t.Errorf("the error %q does not say %q", perr.Detail, want)
		}
	}
}

// If one mechanism is missing and the next refuses the password, the error names the password.
func TestARefusedPasswordIsToldBeforeARefusedMechanism(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]string{"refused": "535 5.7.8 wrong password", "lost": hangUp} {
		r := startRelay(t, func(r *relay) {
			r.ehlo = []string{"relay.test", "AUTH PLAIN LOGIN"}
			r.reply = on("AUTH PLAIN", "504 5.7.4 no such type", "AUTH LOGIN", next)
		})
		_, perr := sendTo(t, authClient(t, r, ""), "ann@example.org")
		wantClass(t, name, perr, provider.Misconfigured)
		if want := map[string]string{"refused": "wrong password", "lost": "no such type"}[name]; perr != nil && !strings.Contains(perr.Detail, want) {
			t.Errorf("%s: the error is %q, want %q", name, perr.Detail, want)
		}
	}
}

func TestErrorsOfAuthNameTheSettingAndTheOffer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		auth, offer string
		want        []string
	}{
		{"plain", "AUTH LOGIN CRAM-MD5", []string{"auth is plain", "offers AUTH LOGIN, CRAM-MD5", "set auth to auto or login or cram-md5"}},
		{"cram-md5", "AUTH=LOGIN PLAIN", []string{"auth is cram-md5", "LOGIN, PLAIN"}},
		{"auto", "AUTH XOAUTH2", []string{"auth is auto", "XOAUTH2", "set auth to xoauth2"}},
		{"auto", "AUTH GSSAPI NTLM", []string{"auth is auto", "GSSAPI, NTLM", "want PLAIN"}},
		{"auto", "SIZE 10240000", []string{"username", "offers no AUTH", "tls none"}},
		{"login", "SIZE 10240000", []string{"username", "offers no AUTH"}},
	} {
		r := startRelay(t, func(r *relay) { r.ehlo = []string{"relay.test", tc.offer} })
		_, perr := sendTo(t, authClient(t, r, tc.auth), "ann@example.org")
		wantClass(t, tc.auth+" and "+tc.offer, perr, provider.Misconfigured)
		for _, want := range tc.want {
			if perr != nil && !strings.Contains(perr.Detail, want) {
				t.Errorf("%s and %s: the error %q does not say %q", tc.auth, tc.offer, perr.Detail, want)
			}
		}
		if got := r.said("AUTH"); len(got) != 0 {
			t.Errorf("%s and %s: said %q", tc.auth, tc.offer, got)
		}
	}
}

func TestHostileAuthDialoguesEnd(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		reply string
		class provider.Class
	}{
		"asks for ever":          {"334 VXNlcm5hbWU6", provider.Transient},
		"not SMTP":               {"what?", provider.Transient},
		"hangs up":               {hangUp, provider.Transient},
		"temporary":              {"454 4.7.0 Temporary authentication failure", provider.Transient},
		"too many":               {"421 4.7.0 too many logins", provider.Throttled},
		"more than was asked":    {"235 ok\r\n250 and the answer to MAIL FROM", provider.Transient},
		"a multi-line refusal":   {"535-5.7.8 not\r\n535 5.7.8 you", provider.Misconfigured},
		"a code that is none":    {"999 hello", provider.Transient},
		"challenge of no Base64": {"334 !!!!", provider.Transient},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, func(r *relay) {
				r.ehlo = []string{"relay.test", "AUTH LOGIN"}
				r.reply = func(_ int, line string) (string, bool) {
					return tc.reply, strings.HasPrefix(line, "AUTH") || line == b64(authUser) || line == b64(authPassword)
				}
			})
			_, perr := sendTo(t, authClient(t, r, ""), "ann@example.org")
			wantClass(t, "send", perr, tc.class)
			if shown := fmt.Sprintf("%v %+v", perr, perr); strings.Contains(shown, authPassword) || strings.Contains(shown, b64(authPassword)) {
				t.Errorf("the password shows: %s", shown)
			}
		})
	}
}
