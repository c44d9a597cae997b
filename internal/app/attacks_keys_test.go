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
)

// thief is a server to which an attacker wants secrets to be sent.
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

// An admin key is used to point every kind of account at another server, so that its stored secrets and one mail would go
// there.
func TestAnAdminKeyReadsNoCredentialBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	port, visits := thief(t)
	at := "http://127.0.0.1:" + port
	elsewhere := map[string][]string{
		"sendgrid": {`{"base_url":"` + at + `"}`, `{"region":"eu"}`},
		"mailgun":  {`{"domain":"mg.example.com","base_url":"` + at + `"}`, `{"domain":"mg.example.com","region":"eu"}`},
		"postmark": {`{"base_url":"` + at + `"}`, `{}`},
		"resend":   {`{"base_url":"` + at + `"}`, `{}`},
		"ses":      {`{"region":"eu-west-1","base_url":"` + at + `"}`, `{"region":"eu-west-2"}`},
		"smtp": {
			`{"host":"127.0.0.1","tls":"none","port":` + port + `,"username":"u"}`, `{"host":"localhost","tls":"none","port":` + port + `,"username":"u"}`,
			`{"host":"127.0.0.1","tls":"implicit","username":"u"}`, `{"host":"127.0.0.1","port":` + port + `,"tls":"none","username":"u","auth":"xoauth2","token_url":"` + at + `"}`,
		},
	}
	for _, account := range accountNames() {
		for _, s := range entry(t, "elsewhere (attacks_keys_test.go)", elsewhere, account) {
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

// After a loss of keys nothing answers 500, the lost secrets are shown, and accounts work again when their secrets are set
// again.
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
