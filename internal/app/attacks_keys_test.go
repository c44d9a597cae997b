package app

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/unsub"
)

// thief is a server that an attacker would have secrets sent to.
func thief(t *testing.T) (port string, visits *atomic.Int64) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	visits = &atomic.Int64{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			visits.Add(1)
			_ = conn.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, visits
}

// An admin key has every kind of account send its stored secrets elsewhere, and one mail.
func TestAnAdminKeyReadsNoCredentialBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	port, visits := thief(t)
	at := "http://127.0.0.1:" + port
	for account, settings := range map[string][]string{
		"sendgrid": {`{"base_url":"` + at + `"}`, `{"region":"eu"}`},
		"mailgun":  {`{"domain":"mg.example.com","base_url":"` + at + `"}`, `{"domain":"mg.example.com","region":"eu"}`},
		"postmark": {`{"base_url":"` + at + `"}`, `{}`},
		"resend":   {`{"base_url":"` + at + `"}`, `{}`},
		"ses":      {`{"region":"eu-west-1","base_url":"` + at + `"}`, `{"region":"eu-west-2"}`},
		"smtp": {
			`{"host":"127.0.0.1","tls":"none","port":` + port + `,"username":"u"}`, `{"host":"localhost","tls":"none","port":` + port + `,"username":"u"}`,
			`{"host":"127.0.0.1","tls":"implicit","username":"u"}`, `{"host":"127.0.0.1","port":` + port + `,"tls":"none","username":"u","auth":"xoauth2","token_url":"` + at + `"}`,
		},
	} {
		for _, s := range settings {
			_, err := r.admin.PatchAccount(t.Context(), account, api.AccountRequest{Settings: json.RawMessage(s)})
			p, ok := errors.AsType[*api.Problem](err)
			if !ok || p.Status != http.StatusUnprocessableEntity || len(p.Errors) == 0 || p.Errors[0].Code != "secrets_required" {
				t.Errorf("%s with %s: %v, want a 422 that asks for the secrets", account, s, err)
			}
		}
		becomes(t, r.api, send(t, r.api, letterTo(account, "ann@example.org")), settleTime, "sent", "delivered")
	}
	if n := visits.Load(); n != 0 {
		t.Errorf("%d calls came to the attacker's server", n)
	}
}

// The secret key is changed while mail goes on, and lost.
func TestASecretKeyIsChangedAndLost(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	public := "SENDGATE_PUBLIC_URL=http://127.0.0.1:1"
	before, err := New(b.config(t, public), nil)
	if err != nil {
		t.Fatal(err)
	}
	links, err := before.links()
	if err != nil {
		t.Fatal(err)
	}
	token := func(link []mail.Header) string {
		return strings.TrimSuffix(link[0].Value[strings.LastIndex(link[0].Value, "/")+1:], ">")
	}
	old := token(links.Headers(unsub.Token{Tenant: 1, Stream: "bulk", Email: "ann@example.org"}))
	was := b.secret
	b.secret = strings.Repeat("6f", 32)
	ring := []string{public, "SENDGATE_SECRET_KEY_PREVIOUS=" + was}

	r := b.start(t, ring...)
	becomes(t, r.api, send(t, r.api, letterTo("sendgrid", "ann@example.org")), settleTime, "sent", "delivered")
	resp, err := b.http.Post(r.url+"/u/"+old, "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("a link of the previous key answers %d", resp.StatusCode)
	}
	check := func(want string, extra ...string) {
		t.Helper()
		for _, c := range Doctor(t.Context(), b.config(t, extra...)) {
			if c.Name == "secret key" && strings.Contains(c.Detail, want) {
				return
			}
		}
		t.Errorf("doctor does not say %q", want)
	}
	check("sealed under a previous key", ring...)
	n, err := Reseal(t.Context(), b.config(t, ring...), func(Sealed) {})
	if err != nil || n.Resealed == 0 || len(n.Unreadable) != 0 {
		t.Fatalf("reseal = %+v, %v", n, err)
	}
	check("opens all", public)
	becomes(t, b.start(t, public).api, send(t, r.api, letterTo("sendgrid", "bob@example.org")), settleTime, "sent", "delivered")

	// Both keys are lost. Processes with the others are gone in truth; here they would keep one with a third key from starting.
	b.secret = strings.Repeat("7a", 32)
	check("do not open", public)
	lost, err := New(b.config(t, public), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := lost.links(); err != nil {
		t.Fatal(err)
	} else if _, err := got.Open(old); err == nil {
		t.Error("a link of a lost key opens")
	}
}

// After a loss nothing answers 500, what is lost is shown, and secrets that are given again heal.
func TestALostSecretKeyIsHealed(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	b.secret = strings.Repeat("6f", 32)
	r := b.start(t)
	a, err := r.admin.Account(t.Context(), "sendgrid")
	if err != nil || a.State != "parked" || len(a.UnreadableSecrets) != 1 {
		t.Fatalf("account = %+v, %v; want it parked", a, err)
	}
	ten := 10
	if _, err := r.admin.PatchAccount(t.Context(), "sendgrid", api.AccountRequest{Concurrency: &ten}); err == nil || !strings.Contains(err.Error(), "secrets.api_key") {
		t.Errorf("a change without the secret: %v, want it named", err)
	}
	a, err = r.admin.PatchAccount(t.Context(), "sendgrid", api.AccountRequest{Secrets: map[string]string{"api_key": b.emu.Secret("sendgrid", "api_key")}})
	if err != nil || a.State != "active" {
		t.Fatalf("after the secret was given again: %+v, %v", a, err)
	}
	becomes(t, r.api, send(t, r.api, letterTo("sendgrid", "ann@example.org")), settleTime, "sent", "delivered")
}
