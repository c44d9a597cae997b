package smtp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestParseConfigFillsInDefaults(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]Config{
		`{"host":"mail.example.com"}`:                              {Host: "mail.example.com", Port: 587, TLS: StartTLS, ServerName: "mail.example.com"},
		`{"host":"127.0.0.1"}`:                                     {Host: "127.0.0.1", Port: 25, TLS: None, ServerName: "127.0.0.1"},
		`{"host":"localhost","tls":"starttls","server_name":"mx"}`: {Host: "localhost", Port: 587, TLS: StartTLS, ServerName: "mx"},
		`{"host":"::1","port":2525}`:                               {Host: "::1", Port: 2525, TLS: None, ServerName: "::1"},
		`{"host":"mail.example.com","tls":"implicit"}`:             {Host: "mail.example.com", Port: 465, TLS: Implicit, ServerName: "mail.example.com"},
		`{"host":"relay","tls":"none","allow_plaintext":true,"smtputf8":true}`: {
			Host: "relay", Port: 25, TLS: None, AllowPlaintext: true, ServerName: "relay", SMTPUTF8: true,
		},
	} {
		want.Auth, want.MaxConnections, want.MaxMessagesPerConnection = "auto", 20, 100
		want.IdleTimeout, want.MaxBytes = 8*time.Second, 10_240_000
		got, err := ParseConfig([]byte(raw), nil)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(seal.Secret{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestParseConfigRefuses(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		``:                                      "settings",
		`{}`:                                    "host",
		`{"host":"a b"}`:                        "host",
		`{"host":"mail.example.com","prot":25}`: "prot",
		`{"host":"mail.example.com"} {}`:        "follows",
		`{"host":"mail.example.com","tls":"none"}`:                  "allow_plaintext",
		`{"host":"mail.example.com","tls":"opportunistic"}`:         "tls",
		`{"host":"mail.example.com","port":70000}`:                  "port",
		`{"host":"mail.example.com","auth":"ntlm"}`:                 "auth",
		`{"host":"mail.example.com","username":"u"}`:                "password",
		`{"host":"mail.example.com","helo":"a b"}`:                  "helo",
		`{"host":"mail.example.com","helo":"[1.2.3]"}`:              "helo",
		`{"host":"mail.example.com","envelope_from":"x> SIZE=1"}`:   "envelope_from",
		`{"host":"mail.example.com","envelope_from":"x"}`:           "envelope_from",
		`{"host":"mail.example.com","max_connections":-1}`:          "max_connections",
		`{"host":"mail.example.com","idle_timeout":"8"}`:            "idle_timeout",
		`{"host":"mail.example.com","idle_timeout":"6m"}`:           "idle_timeout",
		`{"host":"mail.example.com","ca_pem":"x"}`:                  "ca_pem",
		`{"host":"mail.example.com","dkim":{"domain":"x"}}`:         "dkim",
		`{"host":"mail.example.com","dkim":{"domain":"x","k":"y"}}`: "k",
	} {
		if _, err := ParseConfig([]byte(raw), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: err = %v, want one about %s", raw, err, want)
		}
	}
	if _, err := ParseConfig([]byte(`{"host":"127.0.0.1"}`), map[string]seal.Secret{"api_key": seal.NewSecret("x")}); err == nil {
		t.Error("an unknown secret was taken")
	}
}

func TestCapabilitiesFollowTheSettings(t *testing.T) {
	t.Parallel()
	c, err := ParseConfig([]byte(`{"host":"127.0.0.1","smtputf8":true,"max_bytes":5000}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := provider.Capabilities{MaxBytes: 5000, MaxRecipients: 1000, SMTPUTF8: true, Calendar: true}
	if diff := cmp.Diff(want, c.Capabilities()); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
	settings := Spec().Settings // package catalog has a test for it
	spec := provider.Spec{
		Settings: settings, Privacy: Spec().Privacy, // as above
		Kind: "smtp", Concurrency: 20, Secrets: []string{"password", "access_token", "client_secret", "refresh_token", "dkim_private_key", "verp_key"},
		Capabilities: provider.Capabilities{MaxBytes: 10_240_000, MaxRecipients: 1000, Calendar: true},
	}
	if diff := cmp.Diff(spec, Spec()); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	raw, secrets, err := ParseURL("smtp://us%40er:p%40ss%2Fw@mail.example.com:587?tls=starttls&helo=gate.example.com&envelope_from=b%40example.com")
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"host": "mail.example.com", "port": 587.0, "tls": "starttls", "username": "us@er", "helo": "gate.example.com", "envelope_from": "b@example.com",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if secrets["password"].Reveal() != "p@ss/w" || strings.Contains(string(raw), "p@ss") {
		t.Error("the password is not where it belongs")
	}
	for in, tls := range map[string]TLSMode{
		"smtp://127.0.0.1:2525": None, "smtps://mail.example.com": Implicit, "smtp://[::1]:25": None,
		"smtp://mail.example.com": StartTLS, "smtp://relay:25?tls=none&allow_plaintext=true": None,
	} {
		raw, secrets, err := ParseURL(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if c, err := ParseConfig(raw, secrets); err != nil || c.TLS != tls {
			t.Errorf("%s: tls = %s, %v, want %s", in, c.TLS, err, tls)
		}
	}
}

// Nobody can choose the key of bounce addresses: each account that is made from a URL gets its own.
func TestParseURLMakesTheKeyOfBounceAddresses(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	for range 2 {
		raw, secrets, err := ParseURL("smtp://relay:25?tls=none&allow_plaintext=true&bounce_domain=bounces.example.com")
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseConfig(raw, secrets)
		if err != nil || c.BounceDomain != "bounces.example.com" || strings.Contains(string(raw), c.VERPKey.Reveal()) {
			t.Errorf("%s: %v", raw, err)
		}
		keys[c.VERPKey.Reveal()] = true
	}
	if len(keys) != 2 {
		t.Error("two accounts share a key")
	}
}

func TestParseURLRefusesWithoutQuotingTheURL(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", "mail.example.com:25", "http://u:hunter2@mail.example.com", "smtp://u:hunter2@mail.example.com:99999",
		"smtp://u:hunter2@mail.example.com:x", "smtp://u:hunter2@mail.example.com?tls=none", "smtp://u:hunter2@mail.example.com?tsl=none",
		"smtp://u:hunter2@mail.example.com?tls=none&tls=none", "smtp://u:hunter2@mail.example.com?allow_plaintext=maybe",
		"smtp://u:hunter2@", "smtp://u:hunter2@mail.example.com/path", "smtp://u:hun%zzter2@mail.example.com", "smtp://u@mail.example.com",
		"smtp://u:hunter2@mail.example.com#x", "smtp://u:hunter2@mail.example.com?%zz",
	} {
		_, _, err := ParseURL(in)
		if err == nil {
			t.Errorf("%s was taken", in)
		} else if strings.Contains(fmt.Sprintf("%v%+v", err, err), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// FuzzParseConfig checks that a configuration which the parser returns without an error is valid.
func FuzzParseConfig(f *testing.F) {
	f.Add(`{"host":"127.0.0.1"}`)
	f.Add(`{"host":"mail.example.com","dkim":{"domain":"x","selector":"y"},"idle_timeout":"8s"}`)
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := ParseConfig([]byte(raw), nil)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: taken, but %v", raw, err)
		}
		if c.TLS == None && !c.AllowPlaintext && !isLoopback(c.Host) {
			t.Errorf("%s: plain text to %s", raw, c.Host)
		}
	})
}
