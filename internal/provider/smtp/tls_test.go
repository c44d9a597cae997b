package smtp

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestSTARTTLSProtectsTheDialogue(t *testing.T) {
	t.Parallel()
	cfg, ca := selfSigned(t)
	r := startRelay(t, func(r *relay) { r.tls, r.ehlo = cfg, []string{"relay.test", "STARTTLS", "SIZE 99999"} })
	receipt, perr := sendTo(t, r.client(map[string]any{"tls": "starttls", "ca_pem": ca}), "ann@example.org")
	wantClass(t, "send", perr, provider.Accepted)
	if receipt.ProviderMessageID == "" {
		t.Error("no queue id")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var verbs []string
	for _, l := range r.lines {
		verb, _, _ := strings.Cut(l, " ")
		verbs = append(verbs, verb)
	}
	if diff := cmp.Diff([]string{"EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"}, verbs); diff != "" {
		t.Errorf("dialogue (-want +got):\n%s", diff)
	}
	if r.lines[0] != "EHLO gate.example.com" {
		t.Errorf("first line = %q, want our own name", r.lines[0])
	}
}

// A relay without STARTTLS, or one whose offer someone on the path removed, gets nothing.
func TestStrippedSTARTTLSIsRefused(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.ehlo = []string{"relay.test", "SIZE 99999", "AUTH PLAIN"} })
	secrets := map[string]seal.Secret{"password": seal.NewSecret("hunter2")}
	c := r.clientWith(r.config(secrets, map[string]any{"tls": "starttls", "username": "u"}))
	_, perr := sendTo(t, c, "ann@example.org")
	wantClass(t, "send", perr, provider.Misconfigured)
	for _, verb := range []string{"AUTH", "MAIL", "STARTTLS"} {
		if got := r.said(verb); len(got) != 0 {
			t.Errorf("said %q in plain text", got)
		}
	}
}

func TestDataInjectedBeforeTLSIsRefused(t *testing.T) {
	t.Parallel()
	cfg, ca := selfSigned(t)
	for name, reply := range map[string]string{
		"with the reply":   "220 2.0.0 Ready\r\n250 injected",
		"multi-line reply": "220-2.0.0 Ready\r\n220 2.0.0 Ready\r\n250-injected\r\n250 AUTH PLAIN",
	} {
		r := startRelay(t, func(r *relay) {
			r.tls, r.ehlo = cfg, []string{"relay.test", "STARTTLS"}
			r.reply = on("STARTTLS", reply)
		})
		_, perr := sendTo(t, r.client(map[string]any{"tls": "starttls", "ca_pem": ca}), "ann@example.org")
		wantClass(t, name, perr, provider.Misconfigured)
		if got := r.said("MAIL"); len(got) != 0 {
			t.Errorf("%s: said %q", name, got)
		}
	}
}

func TestUntrustedCertificateIsRefused(t *testing.T) {
	t.Parallel()
	cfg, ca := selfSigned(t)
	_, otherCA := selfSigned(t)
	for name, extra := range map[string]map[string]any{
		"system roots": {"tls": "starttls"},
		"other CA":     {"tls": "starttls", "ca_pem": otherCA},
		"other name":   {"tls": "starttls", "ca_pem": ca, "server_name": "mail.example.com"},
	} {
		r := startRelay(t, func(r *relay) { r.tls, r.ehlo = cfg, []string{"relay.test", "STARTTLS"} })
		_, perr := sendTo(t, r.client(extra), "ann@example.org")
		wantClass(t, name, perr, provider.Misconfigured)
		if _, bodies := r.count(); bodies != 0 {
			t.Errorf("%s: a message went out", name)
		}
	}
}

func TestSTARTTLSTemporarilyUnavailable(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.ehlo, r.reply = []string{"relay.test", "STARTTLS"}, on("STARTTLS", "454 4.3.0 TLS not available")
	})
	_, perr := sendTo(t, r.client(map[string]any{"tls": "starttls"}), "ann@example.org")
	wantClass(t, "send", perr, provider.Transient)
}

func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	cfg, ca := selfSigned(t)
	r := startRelay(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		_ = ln.Close()
		_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
		tc := tls.Server(conn, cfg)
		r.talk(1, tc)
		_ = tc.Close()
	})
	c := r.client(map[string]any{"tls": "implicit", "ca_pem": ca, "port": portOf(t, ln)})
	_, perr := sendTo(t, c, "ann@example.org")
	wantClass(t, "send", perr, provider.Accepted)
	_ = c.Close()
}

func TestRefusedCredentialsStaySecret(t *testing.T) {
	t.Parallel()
	const password = "s3cret-password"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00u\x00" + password))
	r := startRelay(t, func(r *relay) {
		r.ehlo = []string{"relay.test", "AUTH PLAIN"}
		r.reply = func(_ int, line string) (string, bool) { // a server that echoes what it was sent
			return "535 5.7.8 failed: " + line + " " + password, strings.HasPrefix(line, "AUTH")
		}
	})
	c := r.clientWith(r.config(map[string]seal.Secret{"password": seal.NewSecret(password)}, map[string]any{"username": "u"}))
	_, perr := sendTo(t, c, "ann@example.org")
	wantClass(t, "send", perr, provider.Misconfigured)
	for _, text := range []string{fmt.Sprint(perr), fmt.Sprintf("%+v", *perr), perr.Err.Error()} {
		if strings.Contains(text, password) || strings.Contains(text, plain) {
			t.Errorf("the password shows: %s", text)
		}
	}
}
